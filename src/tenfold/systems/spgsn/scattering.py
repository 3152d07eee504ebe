"""The adaptive graph scattering of SPGSN: graphs, filters, scattering tree.

In the official code: GraphConvScatter and GraphConvScatter_Forest of utils/model.py.

Features are (batch, node, width). A linear map is one product with (batch * node, width), a graph
product one a sample, whose graph may be the sample's own.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .config import Model


class EdgeMasks(NamedTuple):
    """One factor an edge, for the three graphs of a block; nodes as in `part_nodes`."""

    whole: Float[Tensor, "node node"]
    upper: Float[Tensor, "upper_node upper_node"]
    lower: Float[Tensor, "lower_node lower_node"]


class Derived(NamedTuple):
    """All that a block computes from its parameters and masks alone: fixed at inference.

    Body 0 is the whole body, body 1 (absent in an ablation) its two parts side by side.
    """

    low: Float[Tensor, "body node node"]
    bands: Float[Tensor, "body filter node node"]
    gains: Float[Tensor, "body node filter"]
    """Factor of each filter on a constant: by how much it scales a bias that came before it."""
    compare: Float[Tensor, "part graph width compare"]
    """First map of the exchange, for what the low-pass graph and each filter of layer 2 take in."""
    compare_bias: Float[Tensor, "node compare"]
    embed: Float[Tensor, "width width"]
    """Product of two maps of the spectrum attention."""


def normalised(graph: Float[Tensor, "node node"]) -> Float[Tensor, "node node"]:
    """The graph over its Frobenius norm, which counts as a constant in the gradient."""
    return graph / (graph.detach().norm() + 1e-3)


def band_filters(
    walk: Float[Tensor, "*body node node"],
    identity: Float[Tensor, "*body node node"],
    coefs: Float[Tensor, " twice_filters"],
) -> Float[Tensor, "*body filter node node"]:
    """Trainable diffusion wavelets of a lazy random walk P: I-P, P-P^2, P^2-P^4, ...

    `diffWavelets` of the official code, whose coefficients make the two terms trainable.
    """
    keep, remove = 1 + coefs[0::2], 1 - coefs[1::2]
    bands = [keep[0] * identity - remove[0] * walk]  # H_0 = (1 + c_0) I - (1 - c_1) P
    for j in range(1, len(keep)):  # with Q = P^(2^(j-1)): H_j = Q ((1 + c_2j) I - (1 - c_2j+1) Q)
        bands.append(walk @ (keep[j] * identity - remove[j] * walk))
        walk = walk @ walk
    return torch.stack(bands, -3)


def xavier(*shape: int) -> nn.Parameter:
    """A matrix, or a stack of them, of Xavier-normal numbers."""
    return nn.Parameter(nn.init.xavier_normal_(torch.empty(shape)))


def uniform(bound: float, *shape: int) -> nn.Parameter:
    """A parameter of uniform numbers in (-bound, bound)."""
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))


def graph_product(
    graph: Float[Tensor, "*batch out node"], x: Float[Tensor, "batch node width"]
) -> Float[Tensor, "batch out width"]:
    """Sum the features of the neighbours, weighted by the edges, of one graph or one a sample."""
    return torch.bmm(graph.expand(x.shape[0], -1, -1), x)


def affine(
    x: Float[Tensor, "batch node num_in"],
    weight: Float[Tensor, "num_in num_out"],
    bias: Float[Tensor, " num_out"],
) -> Float[Tensor, "batch node num_out"]:
    """X W + b."""
    return torch.addmm(bias, x.flatten(0, 1), weight).unflatten(0, x.shape[:2])


def per_node(
    norm: nn.Module, x: Float[Tensor, "*channel batch node width"]
) -> Float[Tensor, "*channel batch node width"]:
    """Normalisation by a module whose features are node-major."""
    return norm(x.transpose(-3, -2)).transpose(-3, -2)


class _Tanh(torch.autograd.Function):
    """2 sigmoid(2x) - 1, with tanh's gradient."""

    @staticmethod
    def forward(ctx, x):
        y = (x + x).sigmoid_().mul_(2).sub_(1)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        return torch.ops.aten.tanh_backward(grad, *ctx.saved_tensors)


def tanh(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """`torch.tanh`; of float32 on a CPU by way of the sigmoid, within 2e-7.

    There torch asks MKL, whose tanh takes six times as long as torch's sigmoid on CPUs of AMD.
    """
    if x.device.type != "cpu" or x.dtype != torch.float32 or torch.compiler.is_compiling():
        return x.tanh()
    return _Tanh.apply(x)


class GraphConv(nn.Module):
    """A (X W) + b with a free, trainable graph A (official code: GraphConvolution)."""

    def __init__(self, num_nodes: int, num_in: int, num_out: int) -> None:
        super().__init__()
        self.weight = uniform(num_out**-0.5, num_in, num_out)
        self.graph = uniform(num_out**-0.5, num_nodes, num_nodes)
        self.bias = uniform(num_out**-0.5, num_out)

    def forward(self, x: Float[Tensor, "batch node num_in"]) -> Float[Tensor, "batch node num_out"]:
        """Linear map, then graph."""
        return graph_product(self.graph, x @ self.weight) + self.bias


class BodyGraphs(nn.Module):
    """Trainable graphs of the whole body and its parts, and their filters."""

    identity: Tensor

    def __init__(self, cfg: Model, num_nodes: int, num_upper: int, num_lower: int) -> None:
        super().__init__()
        bound = cfg.width**-0.5
        self.parts, self.num_others = cfg.parts, num_nodes - num_upper - num_lower
        self.num_filters = cfg.num_filters if cfg.scattering else 0
        self.whole = uniform(bound, num_nodes, num_nodes)
        identity = [torch.eye(num_nodes)]
        if self.parts:
            self.upper = uniform(bound, num_upper, num_upper)
            self.lower = uniform(bound, num_lower, num_lower)
            identity.append(self._side_by_side(torch.eye(num_upper), torch.eye(num_lower)))
        self.register_buffer("identity", torch.stack(identity), persistent=False)
        if self.num_filters:
            self.coefs = nn.Parameter(torch.rand(2 * self.num_filters) * 1e-4)

    def _side_by_side(self, upper: Tensor, lower: Tensor) -> Tensor:
        return torch.block_diag(upper, lower, upper.new_zeros(self.num_others, self.num_others))

    def forward(
        self, masks: EdgeMasks
    ) -> tuple[Float[Tensor, "body node node"], Float[Tensor, "body filter node node"]]:
        """The masked graphs, and the filters made of them."""
        whole = self.whole * masks.whole
        graphs, walks = [whole], [normalised(whole)]
        if self.parts:
            upper, lower = self.upper * masks.upper, self.lower * masks.lower
            graphs.append(self._side_by_side(upper, lower))
            walks.append(self._side_by_side(normalised(upper), normalised(lower)))
        low = torch.stack(graphs)
        if not self.num_filters:
            return low, low.new_zeros(len(low), 0, *low.shape[1:])
        lazy_walk = (self.identity + torch.stack(walks)) / 2
        return low, band_filters(lazy_walk, self.identity, self.coefs)


class ScatteringTree(nn.Module):
    """Two layers of graph scattering, the same weights for every body.

    With H_k the band filters and A the graph: low = A (X W_0 + b_0), first_k = tanh(H_k (X W_k +
    b_k)), band_kj = H_j (first_k V_j + c_j), without tanh after the second layer.
    """

    def __init__(self, cfg: Model) -> None:
        super().__init__()
        width, bound = cfg.width, 1 / cfg.width
        self.num_filters = cfg.num_filters if cfg.scattering else 0
        self.low_weight, self.low_bias = xavier(1, width, width), uniform(bound, 1, width)
        if self.num_filters:
            shape = (self.num_filters, width, width)
            self.first_weight, self.first_bias = xavier(*shape), uniform(bound, *shape[:2])
            self.second_weight, self.second_bias = xavier(*shape), uniform(bound, *shape[:2])

    def forward(
        self, x: Float[Tensor, "batch node width"], derived: Derived
    ) -> tuple[Float[Tensor, "batch node width"], list[Float[Tensor, "batch body_node width"]]]:
        """What the low-pass graph takes in, and layer 1 of each filter, body after body."""
        filters = derived.bands.transpose(0, 1).flatten(1, 2)  # filter, body and node, node
        waves = [
            tanh(graph_product(filters[k], affine(x, self.first_weight[k], self.first_bias[k])))
            for k in range(self.num_filters)
        ]
        return affine(x, self.low_weight[0], self.low_bias[0]), waves

    def second_linear(
        self,
        bands: list[Float[Tensor, "batch node width"]],
        gain: Float[Tensor, "*batch node filter"],
    ) -> Float[Tensor, "band batch node width"]:
        """Linear map of layer 2 for every pair of a first and a second filter (first major).

        It commutes with all that the bodies do to each other, so it is applied once, to their sum.
        """
        maps = list(zip(self.second_weight, self.second_bias, gain.split(1, -1), strict=True))
        maps = maps * self.num_filters
        return torch.stack(
            [(x @ w).addcmul_(g, b) for x, (w, b, g) in zip(bands, maps, strict=True)]
        )
