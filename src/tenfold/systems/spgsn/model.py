"""The skeleton-parted graph scattering network (SPGSN), its ablations, and two baselines.

Inside the networks features are node-major, (node, batch, width): a graph product is then one
product with (node, batch * width), a linear map one product with (node * batch, width).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from tenfold.nn.norm import NodeBatchNorm

from .config import Model

EXCHANGE_WIDTH = 64
"""Features in which two body parts compare their nodes (official code)."""
ATTENTION_GAIN = 0.1
"""How much the spectrum attention adds to a channel (official code)."""


class EdgeMasks(NamedTuple):
    """One factor an edge, for the three graphs of a block."""

    whole: Float[Tensor, "node node"]
    upper: Float[Tensor, "upper_node upper_node"]
    lower: Float[Tensor, "lower_node lower_node"]


class Graphs(NamedTuple):
    """The masked graphs of one block: body 0 is the whole, body 1 the two parts side by side."""

    low: Float[Tensor, "body node node"]
    bands: Float[Tensor, "filter body node node"]


def part_nodes(joints: Sequence[int]) -> list[int]:
    """Nodes of a part: the x of its joints, then their y, then their z (official code)."""
    return [3 * joint + axis for axis in range(3) for joint in joints]


def node_order(num_nodes: int, upper: Sequence[int], lower: Sequence[int]) -> list[int]:
    """The order of nodes inside the network, upper | lower | others, so that a part is a slice."""
    parts = part_nodes(upper) + part_nodes(lower)
    if len(set(parts)) < len(parts) or not set(parts) <= set(range(num_nodes)):
        raise ValueError(
            f"the parts of the skeleton must be disjoint and within {num_nodes // 3} joints, "
            f"got upper {list(upper)} and lower {list(lower)}"
        )
    return parts + [node for node in range(num_nodes) if node not in set(parts)]


def graph_product(
    graph: Float[Tensor, "out node"], x: Float[Tensor, "node batch width"]
) -> Float[Tensor, "out batch width"]:
    """Sum the features of the neighbours, weighted by the edges."""
    return (graph @ x.flatten(1)).unflatten(1, x.shape[1:])


def normalised(graph: Float[Tensor, "node node"]) -> Float[Tensor, "node node"]:
    """The graph over its Frobenius norm, which counts as a constant in the gradient."""
    return graph / (graph.detach().norm() + 1e-3)


def band_filters(
    walk: Float[Tensor, "*body node node"],
    identity: Float[Tensor, "*body node node"],
    coefs: Float[Tensor, " twice_filters"],
) -> Float[Tensor, "filter *body node node"]:
    """Trainable diffusion wavelets of a lazy random walk P: I-P, P-P^2, P^2-P^4, ... (eq. 3)."""
    keep, remove = 1 + coefs[0::2], 1 - coefs[1::2]
    bands = [keep[0] * identity - remove[0] * walk]
    for j in range(1, len(keep)):
        bands.append(walk @ (keep[j] * identity - remove[j] * walk))
        walk = walk @ walk
    return torch.stack(bands)


def xavier(*shape: int) -> nn.Parameter:
    """A matrix, or a stack of them, of Xavier-normal numbers."""
    return nn.Parameter(nn.init.xavier_normal_(torch.empty(shape)))


def uniform(width: int, *shape: int) -> nn.Parameter:
    """A parameter of uniform numbers within 1/sqrt(width)."""
    bound = width**-0.5
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))


class GraphConv(nn.Module):
    """A (X W) + b with a free, trainable graph A; first and last layer of the network."""

    def __init__(self, num_nodes: int, num_in: int, num_out: int) -> None:
        super().__init__()
        self.weight = uniform(num_out, num_in, num_out)
        self.graph = uniform(num_out, num_nodes, num_nodes)
        self.bias = uniform(num_out, num_out)

    def forward(
        self, x: Float[Tensor, "node batch num_in"]
    ) -> Float[Tensor, "node batch num_out"]:
        """Linear map, then graph."""
        return graph_product(self.graph, x @ self.weight) + self.bias


class BodyGraphs(nn.Module):
    """Trainable graphs of the whole body and of its parts, and their band-pass filters (eq. 2, 3)."""

    identity: Tensor

    def __init__(self, cfg: Model, num_nodes: int, num_upper: int, num_lower: int) -> None:
        super().__init__()
        self.whole = uniform(cfg.width, num_nodes, num_nodes)
        self.has_parts, self.num_others = cfg.parts, num_nodes - num_upper - num_lower
        identity = [torch.eye(num_nodes)]
        if cfg.parts:
            self.upper = uniform(cfg.width, num_upper, num_upper)
            self.lower = uniform(cfg.width, num_lower, num_lower)
            identity.append(self._side_by_side(torch.eye(num_upper), torch.eye(num_lower)))
        self.register_buffer("identity", torch.stack(identity), persistent=False)
        if cfg.scattering:
            self.coefs = nn.Parameter(torch.rand(2 * cfg.num_filters) * 1e-4)

    def _side_by_side(self, upper: Tensor, lower: Tensor) -> Tensor:
        return torch.block_diag(upper, lower, upper.new_zeros(self.num_others, self.num_others))

    def forward(self, masks: EdgeMasks) -> Graphs:
        """The masked graphs, and the filters made of them."""
        whole = self.whole * masks.whole
        low, walk = [whole], [normalised(whole)]
        if self.has_parts:
            upper, lower = self.upper * masks.upper, self.lower * masks.lower
            low.append(self._side_by_side(upper, lower))
            walk.append(self._side_by_side(normalised(upper), normalised(lower)))
        graphs = torch.stack(low)
        if not hasattr(self, "coefs"):
            return Graphs(graphs, graphs.new_zeros(0, *graphs.shape))
        lazy_walk = (self.identity + torch.stack(walk)) / 2
        return Graphs(graphs, band_filters(lazy_walk, self.identity, self.coefs))


class ScatteringTree(nn.Module):
    """Two layers of graph scattering (eq. 4), the same weights for every body."""

    def __init__(self, cfg: Model) -> None:
        super().__init__()
        width, self.num_filters = cfg.width, cfg.num_filters if cfg.scattering else 0
        self.low_weight = xavier(1, width, width)
        self.low_bias = uniform(width**2, 1, width)
        if cfg.scattering:
            self.first_weight = xavier(cfg.num_filters, width, width)
            self.first_bias = uniform(width**2, cfg.num_filters, width)
            self.second_weight = xavier(cfg.num_filters, width, width)
            self.second_bias = uniform(width**2, cfg.num_filters, width)

    def forward(
        self, x: Float[Tensor, "node batch width"], graphs: Graphs
    ) -> Float[Tensor, "body channel node batch width"]:
        """Low-pass channel, then the band-pass channels *before* the linear map of layer 2.

        That map commutes with everything the bodies exchange, so it is applied once, to their sum,
        by `second_linear`.
        """
        num_bodies, num_nodes = graphs.low.shape[:2]
        low = x @ self.low_weight[0] + self.low_bias[0]
        low = graph_product(graphs.low.flatten(0, 1), low).unflatten(0, (num_bodies, num_nodes))
        channels = [low]
        for k in range(self.num_filters):
            wave = x @ self.first_weight[k] + self.first_bias[k]
            wave = graph_product(graphs.bands[k].flatten(0, 1), wave).tanh()
            wave = wave.view(num_bodies, num_nodes, -1)
            channels += [
                torch.bmm(graphs.bands[j], wave).view_as(low) for j in range(self.num_filters)
            ]
        return torch.stack(channels, 1)

    def second_linear(
        self,
        x: Float[Tensor, "band node batch width"],
        bias_gain: Float[Tensor, "filter node batch"],
    ) -> Float[Tensor, "band node batch width"]:
        """Linear map of layer 2; the graphs that came before it have scaled its bias by a gain."""
        num = self.num_filters
        x = x.unflatten(0, (num, num))                                   # first filter, second
        y = x @ self.second_weight[:, None] + bias_gain[..., None] * self.second_bias[:, None, None]
        return y.flatten(0, 1)


class PartExchange(nn.Module):
    """How much each node of one part takes from each node of the other (eq. 6)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.upper_in, self.upper_out = xavier(width, 64), xavier(64, 64)
        self.lower_in, self.lower_out = xavier(width, 64), xavier(64, 64)

    def forward(
        self,
        upper: Float[Tensor, "upper_node batch width"],
        lower: Float[Tensor, "lower_node batch width"],
    ) -> tuple[
        Float[Tensor, "batch lower_node upper_node"], Float[Tensor, "batch upper_node lower_node"]
    ]:
        """Weights from upper to lower, and from lower to upper."""
        upper_query = (upper @ self.upper_in).relu() @ self.upper_out
        lower_query = (lower @ self.lower_in).relu() @ self.lower_out
        score = torch.bmm(lower_query.transpose(0, 1), upper_query.permute(1, 2, 0))
        return score.softmax(-1), score.transpose(1, 2).softmax(-1)


class SpectrumAttention(nn.Module):
    """Attention over the channels of the graph spectrum, a node at a time (eq. 5)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embed = xavier(width, width)
        self.hidden_weight, self.query_weight = xavier(width, width), xavier(width, width)
        self.hidden_bias = uniform(width, width)
        self.score_weight = xavier(width, 1)
        self.score_bias = uniform(width, 1)

    def forward(
        self, x: Float[Tensor, "channel node batch width"]
    ) -> Float[Tensor, "channel node batch 1"]:
        """Weights that add to one over the channels."""
        query = (x.mean(0) @ self.embed).relu() @ self.query_weight + self.hidden_bias
        hidden = (x @ (self.embed @ self.hidden_weight) + query).tanh()
        return (hidden @ self.score_weight + self.score_bias).softmax(0)


class ScatteringBlock(nn.Module):
    """Scattering of the whole body and of its parts, their fusion, and a graph convolution."""

    def __init__(self, cfg: Model, num_nodes: int, num_upper: int, num_lower: int) -> None:
        super().__init__()
        self.cfg, self.num_upper, self.num_parts = cfg, num_upper, num_upper + num_lower
        width = cfg.width
        self.graphs = BodyGraphs(cfg, num_nodes, num_upper, num_lower)
        self.tree = ScatteringTree(cfg)
        if cfg.parts:
            self.exchange = PartExchange(width)
        self.low_norm = NodeBatchNorm(num_nodes * width)
        if cfg.scattering:
            self.band_norm = NodeBatchNorm(num_nodes * width)
            self.attention = SpectrumAttention(width)
        self.mix_weight = xavier(1, width, width)
        self.mix_bias = uniform(width**2, 1, width)
        self.mix_graph = uniform(width, num_nodes, num_nodes)
        self.mix_norm = NodeBatchNorm(num_nodes * width)

    def forward(
        self, x: Float[Tensor, "node batch width"], masks: EdgeMasks
    ) -> Float[Tensor, "node batch width"]:
        """One residual block."""
        spectrum = self.spectrum(x, masks)
        y = self.low_norm(spectrum[:1]).tanh()
        if self.cfg.scattering:
            y = torch.cat([y, self.band_norm(spectrum[1:]).tanh()])
            y = (y * (1 + ATTENTION_GAIN * self.attention(y))).mean(0)
        else:
            y = y[0] * (1 + ATTENTION_GAIN)          # a softmax over one channel
        y = F.dropout(y, self.cfg.dropout, self.training)
        y = graph_product(self.mix_graph, y @ self.mix_weight[0] + self.mix_bias[0])
        y = self.mix_norm(y[None])[0].relu()
        return x + F.dropout(y, self.cfg.dropout, self.training)

    def spectrum(
        self, x: Float[Tensor, "node batch width"], masks: EdgeMasks
    ) -> Float[Tensor, "channel node batch width"]:
        """Low-pass and band-pass channels of the whole body with its parts (eq. 4, 6)."""
        graphs = self.graphs(masks)
        bodies = self.tree(x, graphs)
        # What the graphs make of a constant 1: the gain of the bias of layer 2.
        gain = graphs.bands.sum(-1)[..., None].expand(-1, -1, -1, x.shape[1])
        spectrum, bias_gain = bodies[0], gain[:, 0]
        if self.cfg.parts:
            parts, part_gain = bodies[1], gain[:, 1]
            summary = parts[0]
            if self.cfg.scattering:
                summary = torch.cat([parts[:1], self.tree.second_linear(parts[1:], part_gain)]).mean(0)
            to_lower, to_upper = self.exchange(*self.split(summary, dim=0))
            spectrum = spectrum + self.cfg.part_weight * self.fuse(parts, to_lower, to_upper)
            bias_gain = bias_gain + self.cfg.part_weight * self.fuse(
                part_gain[..., None], to_lower, to_upper)[..., 0]
        if not self.cfg.scattering:
            return spectrum
        return torch.cat([spectrum[:1], self.tree.second_linear(spectrum[1:], bias_gain)])

    def split(self, x, dim):
        return x.narrow(dim, 0, self.num_upper), x.narrow(dim, self.num_upper, self.num_parts - self.num_upper)

    def fuse(self, parts, to_lower, to_upper):
        upper, lower = self.split(parts, dim=1)
        a = self.cfg.exchange_weight
        lower = lower + a * (to_lower @ upper.transpose(1, 2)).transpose(1, 2)
        upper = upper + a * (to_upper @ lower.transpose(1, 2)).transpose(1, 2)
        return torch.cat([upper, lower, parts[:, self.num_parts:]], 1)


class ScatteringNetwork(nn.Module):
    """SPGSN: DCT coefficients of an observed motion to those of the observed and future motion."""

    order: Int[Tensor, " node"]
    inverse: Int[Tensor, " node"]

    def __init__(
        self, cfg: Model, num_nodes: int, num_coeffs: int, upper: Sequence[int], lower: Sequence[int]
    ) -> None:
        super().__init__()
        self.cfg = cfg
        order = torch.tensor(node_order(num_nodes, upper, lower))
        self.register_buffer("order", order, persistent=False)
        self.register_buffer("inverse", order.argsort(), persistent=False)
        self.mask_shapes = [(n, n) for n in (num_nodes, 3 * len(upper), 3 * len(lower))]
        self.embed = GraphConv(num_nodes, num_coeffs, cfg.width)
        self.embed_norm = NodeBatchNorm(num_nodes * cfg.width)
        self.blocks = nn.ModuleList(
            ScatteringBlock(cfg, num_nodes, 3 * len(upper), 3 * len(lower))
            for _ in range(cfg.num_blocks)
        )
        self.readout = GraphConv(num_nodes, cfg.width, num_coeffs)

    def draw_masks(self, generator: torch.Generator | None = None) -> list[EdgeMasks]:
        """Random masks for every block: each edge survives with probability edge_prob.

        The nodes of a mask are in the order of the skeleton, those of a part in `part_nodes`.
        """
        device = self.order.device if generator is None else generator.device
        def draw(shape):
            kept = torch.rand(shape, generator=generator, device=device) < self.cfg.edge_prob
            return kept.to(self.readout.weight)
        return [EdgeMasks(*(draw(s) for s in self.mask_shapes)) for _ in self.blocks]

    def constant_masks(self, value: float) -> list[EdgeMasks]:
        masks = EdgeMasks(*(self.readout.weight.new_full(s, value) for s in self.mask_shapes))
        return [masks] * len(self.blocks)

    def default_masks(self) -> list[EdgeMasks]:
        if self.training or self.cfg.mask_eval == "sample":
            return self.draw_masks()
        return self.constant_masks(self.cfg.edge_prob if self.cfg.mask_eval == "mean" else 1.0)

    def forward(
        self, coeffs: Float[Tensor, "batch node coeff"], masks: list[EdgeMasks] | None = None
    ) -> Float[Tensor, "batch node coeff"]:
        """Predict; without masks they follow the mode and cfg.mask_eval."""
        x = coeffs.transpose(0, 1)[self.order]
        y = self.embed_norm(self.embed(x)[None])[0].tanh()
        y = F.dropout(y, self.cfg.dropout, self.training)
        for block, mask in zip(self.blocks, masks or self.default_masks(), strict=True):
            y = block(y, mask._replace(whole=mask.whole[self.order][:, self.order]))
        return (x + self.readout(y))[self.inverse].transpose(0, 1)


class GcnBlock(nn.Module):
    """Two times [graph convolution, BatchNorm, tanh, dropout], plus the input."""

    def __init__(self, num_nodes: int, width: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.convs = nn.ModuleList(GraphConv(num_nodes, width, width) for _ in range(2))
        self.norms = nn.ModuleList(NodeBatchNorm(num_nodes * width) for _ in range(2))

    def forward(
        self, x: Float[Tensor, "node batch width"]
    ) -> Float[Tensor, "node batch width"]:
        """One residual block."""
        y = x
        for conv, norm in zip(self.convs, self.norms, strict=True):
            y = F.dropout(norm(conv(y)[None])[0].tanh(), self.dropout, self.training)
        return x + y


class DctGcn(nn.Module):
    """The baseline that SPGSN grew from: a plain DCT-GCN (LearnTrajDep), same depth and width."""

    def __init__(self, cfg: Model, num_nodes: int, num_coeffs: int) -> None:
        super().__init__()
        self.dropout = cfg.dropout
        self.embed = GraphConv(num_nodes, num_coeffs, cfg.width)
        self.embed_norm = NodeBatchNorm(num_nodes * cfg.width)
        self.blocks = nn.ModuleList(
            GcnBlock(num_nodes, cfg.width, cfg.dropout) for _ in range(cfg.num_blocks)
        )
        self.readout = GraphConv(num_nodes, cfg.width, num_coeffs)

    def forward(
        self, coeffs: Float[Tensor, "batch node coeff"], masks: None = None
    ) -> Float[Tensor, "batch node coeff"]:
        """Predict; it has no random edges, `masks` is there to be called like the others."""
        x = coeffs.transpose(0, 1)
        y = F.dropout(self.embed_norm(self.embed(x)[None])[0].tanh(), self.dropout, self.training)
        for block in self.blocks:
            y = block(y)
        return (x + self.readout(y)).transpose(0, 1)


class MotionMlp(nn.Module):
    """A baseline without a graph (after siMLPe): linear maps over nodes and over coefficients.

    Ours differs: `width` features take the place of the nodes, num_blocks is that of the others, and
    the last map starts at zero, so that the first prediction repeats the last pose.
    """

    def __init__(self, cfg: Model, num_nodes: int, num_coeffs: int) -> None:
        super().__init__()
        self.embed = nn.Linear(num_nodes, cfg.width)
        self.mixes = nn.ModuleList(nn.Linear(num_coeffs, num_coeffs) for _ in range(cfg.num_blocks))
        self.norms = nn.ModuleList(nn.LayerNorm(cfg.width) for _ in range(cfg.num_blocks))
        self.readout = nn.Linear(cfg.width, num_nodes)
        nn.init.zeros_(self.readout.weight)
        nn.init.zeros_(self.readout.bias)

    def forward(
        self, coeffs: Float[Tensor, "batch node coeff"], masks: None = None
    ) -> Float[Tensor, "batch node coeff"]:
        """Predict; it has no edges, `masks` is there to be called like the others."""
        y = self.embed(coeffs.transpose(1, 2))                       # batch, coeff, width
        for mix, norm in zip(self.mixes, self.norms, strict=True):
            y = y + norm(mix(y.transpose(1, 2)).transpose(1, 2))
        return coeffs + self.readout(y).transpose(1, 2)


def build(
    cfg: Model, num_nodes: int, num_coeffs: int, upper: Sequence[int], lower: Sequence[int]
) -> ScatteringNetwork | DctGcn | MotionMlp:
    """The network that cfg.kind names."""
    if cfg.kind == "gcn":
        return DctGcn(cfg, num_nodes, num_coeffs)
    if cfg.kind == "mlp":
        return MotionMlp(cfg, num_nodes, num_coeffs)
    return ScatteringNetwork(cfg, num_nodes, num_coeffs, upper, lower)
