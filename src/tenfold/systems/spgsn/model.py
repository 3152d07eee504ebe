"""The skeleton-parted graph scattering network (SPGSN), its ablations, and two baselines.

Equal to the official computation (spec sec. 3) but cheaper: what is linear is done once, before the
bodies part or after they meet, instead of once a body; products of parameters are merged; and
features are node-major, (node, batch, width), so that every product is a product of two matrices.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tenfold.nn.dropout import dropout
from tenfold.nn.norm import BatchNorm

from .config import Model

COMPARE_WIDTH = 64
"""Features in which two body parts compare their nodes (official code)."""
ATTENTION_GAIN = 0.1
"""How much the spectrum attention adds to a channel (official code)."""


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
    gains: Float[Tensor, "body node 1 filter"]
    """What each filter makes of a constant: by how much it scales a bias that came before it."""
    compare: Float[Tensor, "part channel width compare"]
    """First map of the exchange, for each channel of the upper and of the lower part."""
    compare_bias: Float[Tensor, "part node 1 compare"]
    embed: Float[Tensor, "width width"]
    """Product of two maps of the spectrum attention."""


def part_nodes(joints: Sequence[int]) -> list[int]:
    """Nodes of a part: the x of its joints, then their y, then their z (official code)."""
    return [3 * joint + axis for axis in range(3) for joint in joints]


def node_order(num_nodes: int, upper: Sequence[int], lower: Sequence[int]) -> list[int]:
    """The order of nodes inside the network, upper | lower | others, so that a part is a slice."""
    parts = part_nodes(upper) + part_nodes(lower)
    if len(set(parts)) < len(parts) or not set(parts) <= set(range(num_nodes)):
        raise ValueError(
            f"the two parts of the skeleton must be disjoint and within {num_nodes // 3} joints, "
            f"got upper {list(upper)} and lower {list(lower)}"
        )
    return parts + [node for node in range(num_nodes) if node not in set(parts)]


def normalised(graph: Float[Tensor, "node node"]) -> Float[Tensor, "node node"]:
    """The graph over its Frobenius norm, which counts as a constant in the gradient."""
    return graph / (graph.detach().norm() + 1e-3)


def band_filters(
    walk: Float[Tensor, "*body node node"],
    identity: Float[Tensor, "*body node node"],
    coefs: Float[Tensor, " twice_filters"],
) -> Float[Tensor, "*body filter node node"]:
    """Trainable diffusion wavelets of a lazy random walk P: I-P, P-P^2, P^2-P^4, ... (eq. 3)."""
    keep, remove = 1 + coefs[0::2], 1 - coefs[1::2]
    bands = [keep[0] * identity - remove[0] * walk]
    for j in range(1, len(keep)):
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
    graph: Float[Tensor, "out node"], x: Float[Tensor, "node batch width"]
) -> Float[Tensor, "out batch width"]:
    """Sum the features of the neighbours, weighted by the edges."""
    return (graph @ x.flatten(1)).unflatten(1, x.shape[1:])


def affine(
    x: Float[Tensor, "node batch num_in"],
    weight: Float[Tensor, "num_in num_out"],
    bias: Float[Tensor, " num_out"],
) -> Float[Tensor, "node batch num_out"]:
    """X W + b."""
    return torch.addmm(bias, x.flatten(0, 1), weight).unflatten(0, x.shape[:2])


def outer(
    x: Float[Tensor, "node batch"], y: Float[Tensor, " width"]
) -> Float[Tensor, "node batch width"]:
    """Every product of an entry of x and one of y."""
    return x[..., None] * y


class GraphConv(nn.Module):
    """A (X W) + b with a free, trainable graph A (spec sec. 3.1)."""

    def __init__(self, num_nodes: int, num_in: int, num_out: int) -> None:
        super().__init__()
        self.weight = uniform(num_out**-0.5, num_in, num_out)
        self.graph = uniform(num_out**-0.5, num_nodes, num_nodes)
        self.bias = uniform(num_out**-0.5, num_out)

    def forward(
        self, x: Float[Tensor, "node batch num_in"]
    ) -> Float[Tensor, "node batch num_out"]:
        """Linear map, then graph."""
        return graph_product(self.graph, x @ self.weight) + self.bias


class BodyGraphs(nn.Module):
    """Trainable graphs of the whole body and its parts, and their band-pass filters (eq. 2, 3)."""

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
    """Two layers of graph scattering, the same weights for every body (eq. 4, spec sec. 3.4)."""

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
        self, x: Float[Tensor, "node batch width"], derived: Derived
    ) -> list[list[Float[Tensor, "node batch width"]]]:
        """For each body: the low-pass channel, then each band *before* the linear map of layer 2.

        That map commutes with all that the bodies do to each other, so `second_linear` applies it
        once, to their sum.
        """
        low_input = affine(x, self.low_weight[0], self.low_bias[0])
        first_inputs = [
            affine(x, self.first_weight[k], self.first_bias[k]) for k in range(self.num_filters)
        ]
        spectra = []
        for low, bands in zip(derived.low, derived.bands, strict=True):
            waves = [graph_product(h, y).tanh() for h, y in zip(bands, first_inputs, strict=True)]
            spectra.append([graph_product(low, low_input)])
            spectra[-1] += [graph_product(band, wave) for wave in waves for band in bands]
        return spectra

    def second_linear(
        self,
        bands: list[Float[Tensor, "node batch width"]],
        gain: Float[Tensor, "node batch filter"],
    ) -> Float[Tensor, "band node batch width"]:
        """Linear map of layer 2 for every pair of a first and a second filter (first major)."""
        biases = [
            outer(gain[..., j], self.second_bias[j]) for j in range(self.num_filters)
        ]
        return torch.stack(
            [
                biases[i % self.num_filters] + x @ self.second_weight[i % self.num_filters]
                for i, x in enumerate(bands)
            ]
        )


class PartExchange(nn.Module):
    """What each node of one part takes from each node of the other (eq. 6, spec sec. 3.5)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.upper_in = xavier(width, COMPARE_WIDTH)
        self.lower_in = xavier(width, COMPARE_WIDTH)
        self.upper_out = xavier(COMPARE_WIDTH, COMPARE_WIDTH)
        self.lower_out = xavier(COMPARE_WIDTH, COMPARE_WIDTH)

    def forward(
        self,
        upper: Float[Tensor, "upper_node batch compare"],
        lower: Float[Tensor, "lower_node batch compare"],
    ) -> tuple[
        Float[Tensor, "batch lower_node upper_node"], Float[Tensor, "batch upper_node lower_node"]
    ]:
        """Weights from upper to lower, and from lower to upper; each row adds to one."""
        agreement = self.lower_out @ self.upper_out.T
        lower = (lower.relu() @ agreement).transpose(0, 1)
        score = lower @ upper.relu().permute(1, 2, 0)
        return score.softmax(-1), score.transpose(1, 2).softmax(-1)


class SpectrumAttention(nn.Module):
    """Attention over the channels of the graph spectrum, node by node (eq. 5, spec sec. 3.6)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embed = xavier(width, width)
        self.hidden_weight, self.query_weight = xavier(width, width), xavier(width, width)
        self.hidden_bias = uniform(width**-0.5, width)
        self.score_weight, self.score_bias = xavier(width, 1), uniform(width**-0.5, 1)

    def forward(
        self, channels: list[Float[Tensor, "node batch width"]], derived: Derived
    ) -> Float[Tensor, "node batch channel"]:
        """Weights of the channels, which add to one."""
        mean = sum(channels[1:], channels[0]) / len(channels)
        query = affine((mean @ self.embed).relu(), self.query_weight, self.hidden_bias)
        scores = [(x @ derived.embed + query).tanh() @ self.score_weight for x in channels]
        return (torch.cat(scores, -1) + self.score_bias).softmax(-1)


class ScatteringBlock(nn.Module):
    """Scattering of the whole body and of its parts, their fusion, and a graph convolution."""

    def __init__(self, cfg: Model, num_nodes: int, num_upper: int, num_lower: int) -> None:
        super().__init__()
        self.cfg, self.num_upper, self.num_parts = cfg, num_upper, num_upper + num_lower
        width, features = cfg.width, num_nodes * cfg.width
        self.graphs = BodyGraphs(cfg, num_nodes, num_upper, num_lower)
        self.tree = ScatteringTree(cfg)
        if cfg.parts:
            self.exchange = PartExchange(width)
        self.low_norm = BatchNorm(features)
        if cfg.scattering:
            self.band_norm = BatchNorm(features)
            self.attention = SpectrumAttention(width)
        self.mix_weight, self.mix_bias = xavier(1, width, width), uniform(1 / width, 1, width)
        self.mix_graph = uniform(width**-0.5, num_nodes, num_nodes)
        self.mix_norm = BatchNorm(features)

    def derive(self, masks: EdgeMasks) -> Derived:
        """Filters and products of parameters."""
        low, bands = self.graphs(masks)
        gains = bands.sum(-1).transpose(1, 2)[:, :, None]
        embed = compare = compare_bias = low.new_zeros(0)
        if self.cfg.scattering:
            embed = self.attention.embed @ self.attention.hidden_weight
        if self.cfg.parts:
            maps = [self.exchange.upper_in, self.exchange.lower_in]
            pairs = [self._compare(weight, gains[1]) for weight in maps]
            compare, compare_bias = (torch.stack(tensors) for tensors in zip(*pairs, strict=True))
        return Derived(low, bands, gains, compare, compare_bias, embed)

    def _compare(self, weight: Tensor, gain: Tensor) -> tuple[Tensor, Tensor]:
        """The exchange's first map of the mean channel; its bands still lack `second_linear`."""
        num = self.tree.num_filters
        bands = [self.tree.second_weight[i % num] @ weight for i in range(num**2)]
        bias = gain.new_zeros(len(gain), 1, weight.shape[1])
        if num:
            bias = num * gain @ (self.tree.second_bias @ weight)
        return torch.stack([weight, *bands]) / (1 + num**2), bias / (1 + num**2)

    def forward(
        self, x: Float[Tensor, "node batch width"], derived: Derived
    ) -> Float[Tensor, "node batch width"]:
        """One residual block."""
        low, *bands, gain = self.spectrum(x, derived)
        channels = [self.low_norm(low).tanh()]
        if self.cfg.scattering:
            channels += self.band_norm(self.tree.second_linear(bands, gain)).tanh().unbind()
            weights = (1 + ATTENTION_GAIN * self.attention(channels, derived)) / len(channels)
            y = weights[..., :1] * channels[0]
            for c in range(1, len(channels)):
                y = torch.addcmul(y, weights[..., c : c + 1], channels[c])
        else:
            y = channels[0] * (1 + ATTENTION_GAIN)               # a softmax over one channel
        y = dropout(y, self.cfg.dropout, self.training)
        y = graph_product(self.mix_graph, affine(y, self.mix_weight[0], self.mix_bias[0]))
        y = self.mix_norm(y).relu()
        return x + dropout(y, self.cfg.dropout, self.training)

    def spectrum(
        self, x: Float[Tensor, "node batch width"], derived: Derived
    ) -> list[Float[Tensor, "node batch _"]]:
        """Channels of the whole body with its parts (eq. 4, 6), and the gain of layer 2's bias."""
        spectra = self.tree(x, derived)
        gains = derived.gains.expand(-1, -1, x.shape[1], -1)
        whole = [*spectra[0], gains[0]]
        if not self.cfg.parts:
            return whole
        fusion = self.fusion(spectra[1], derived)

        def fused(body: Tensor, parts: Tensor) -> Tensor:
            exchanged = (fusion @ parts.transpose(0, 1)).transpose(0, 1)
            return torch.add(body, exchanged, alpha=self.cfg.part_weight)

        return [fused(*pair) for pair in zip(whole, [*spectra[1], gains[1]], strict=True)]

    def fusion(
        self, parts: list[Float[Tensor, "node batch width"]], derived: Derived
    ) -> Float[Tensor, "batch node node"]:
        """What the parts exchange, as a matrix: lower takes from upper, then upper from lower."""
        num_upper, num_parts, weight = self.num_upper, self.num_parts, self.cfg.exchange_weight
        hidden = []
        for part, nodes in enumerate((slice(0, num_upper), slice(num_upper, num_parts))):
            hidden.append(derived.compare_bias[part, nodes])
            for x, compare in zip(parts, derived.compare[part], strict=True):
                hidden[-1] = hidden[-1] + x[nodes] @ compare
        to_lower, to_upper = self.exchange(*hidden)
        identity = self.graphs.identity[0].expand(to_lower.shape[0], -1, -1)
        lower_rows = torch.cat([weight * to_lower, identity[:, num_upper:num_parts, num_upper:]], -1)
        upper_rows = torch.baddbmm(identity[:, :num_upper], to_upper, lower_rows, alpha=weight)
        return torch.cat([upper_rows, lower_rows, identity[:, num_parts:]], 1)


class ScatteringNetwork(nn.Module):
    """SPGSN: DCT coefficients of an observed motion to those of the observed and future motion."""

    order: Int[Tensor, " node"]
    """Nodes inside the network, upper | lower | others, as nodes of the skeleton."""
    inverse: Int[Tensor, " node"]

    def __init__(
        self,
        cfg: Model,
        num_nodes: int,
        num_coeffs: int,
        upper: Sequence[int],
        lower: Sequence[int],
    ) -> None:
        super().__init__()
        self.cfg = cfg
        order = torch.tensor(node_order(num_nodes, upper, lower))
        self.register_buffer("order", order, persistent=False)
        self.register_buffer("inverse", order.argsort(), persistent=False)
        sizes = (num_nodes, 3 * len(upper), 3 * len(lower))
        self.mask_shapes = [(size, size) for size in sizes]
        self.embed = GraphConv(num_nodes, num_coeffs, cfg.width)
        self.embed_norm = BatchNorm(num_nodes * cfg.width)
        self.blocks = nn.ModuleList(ScatteringBlock(cfg, *sizes) for _ in range(cfg.num_blocks))
        self.readout = GraphConv(num_nodes, cfg.width, num_coeffs)

    def draw_masks(self, generator: torch.Generator | None = None) -> list[EdgeMasks]:
        """Random masks for every block: an edge survives with probability edge_prob (spec 3.5).

        Drawn on the generator's device, or without one from torch's global state.
        """
        like = self.readout.weight
        device = like.device if generator is None else generator.device

        def draw(shape: tuple[int, int]) -> Tensor:
            kept = torch.rand(shape, generator=generator, device=device) < self.cfg.edge_prob
            return kept.to(like)

        return [EdgeMasks(*map(draw, self.mask_shapes)) for _ in self.blocks]

    def default_masks(self) -> list[EdgeMasks]:
        """Masks of this mode: random in training, at inference as cfg.mask_eval says."""
        if self.training or self.cfg.mask_eval == "sample":
            return self.draw_masks()
        value = self.cfg.edge_prob if self.cfg.mask_eval == "mean" else 1.0
        like = self.readout.weight
        return [EdgeMasks(*(like.new_full(s, value) for s in self.mask_shapes))] * len(self.blocks)

    def derive(self, masks: list[EdgeMasks]) -> list[Derived]:
        """What each block computes from parameters and masks alone."""
        return [
            block.derive(mask._replace(whole=mask.whole[self.order][:, self.order]))
            for block, mask in zip(self.blocks, masks, strict=True)
        ]

    def forward(
        self, coeffs: Float[Tensor, "batch node coeff"], masks: list[EdgeMasks] | None = None
    ) -> Float[Tensor, "batch node coeff"]:
        """Predict, with the given edge masks or those of `default_masks`."""
        return self.run(coeffs, self.derive(self.default_masks() if masks is None else masks))

    def run(
        self, coeffs: Float[Tensor, "batch node coeff"], derived: list[Derived]
    ) -> Float[Tensor, "batch node coeff"]:
        """Predict, with graphs already derived."""
        x = coeffs.transpose(0, 1)[self.order]
        y = self.embed_norm(self.embed(x)).tanh()
        y = dropout(y, self.cfg.dropout, self.training)
        for block, ready in zip(self.blocks, derived, strict=True):
            y = block(y, ready)
        y = torch.add(x, self.readout(y), alpha=self.cfg.readout_gain)
        return y[self.inverse].transpose(0, 1)

    def prepared(self, masks: list[EdgeMasks] | None = None) -> InferenceNetwork:
        """A copy for inference alone, with everything computed once that does not need the input."""
        if masks is None and self.cfg.mask_eval == "sample":
            raise ValueError(
                "model.mask_eval is 'sample': its masks are drawn anew for every prediction; "
                "prepare with mask_eval 'mean' or 'ones', or pass masks"
            )
        return InferenceNetwork(copy.deepcopy(self).eval(), masks)


class InferenceNetwork(nn.Module):
    """SPGSN with fixed edge masks, filters and merged products cached, BatchNorm folded."""

    @torch.no_grad()
    def __init__(self, network: ScatteringNetwork, masks: list[EdgeMasks] | None) -> None:
        super().__init__()
        derived = network.derive(network.default_masks() if masks is None else masks)
        for i, ready in enumerate(derived):
            for name, tensor in ready._asdict().items():
                self.register_buffer(f"{name}_{i}", tensor)
        for module in list(network.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, BatchNorm):
                    setattr(module, name, child.folded())
        self.network = network.requires_grad_(False)

    def forward(
        self, coeffs: Float[Tensor, "batch node coeff"]
    ) -> Float[Tensor, "batch node coeff"]:
        """Predict."""
        derived = [
            Derived(*(getattr(self, f"{name}_{i}") for name in Derived._fields))
            for i in range(len(self.network.blocks))
        ]
        return self.network.run(coeffs, derived)


class GcnBlock(nn.Module):
    """Two times [graph convolution, BatchNorm, tanh, dropout], plus the input."""

    def __init__(self, num_nodes: int, width: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.convs = nn.ModuleList(GraphConv(num_nodes, width, width) for _ in range(2))
        self.norms = nn.ModuleList(BatchNorm(num_nodes * width) for _ in range(2))

    def forward(self, x: Float[Tensor, "node batch width"]) -> Float[Tensor, "node batch width"]:
        """One residual block."""
        y = x
        for conv, norm in zip(self.convs, self.norms, strict=True):
            y = dropout(norm(conv(y)).tanh(), self.dropout, self.training)
        return x + y


class DctGcn(nn.Module):
    """The baseline that SPGSN grew from: a plain DCT-GCN (LearnTrajDep), same depth and width."""

    def __init__(self, cfg: Model, num_nodes: int, num_coeffs: int) -> None:
        super().__init__()
        self.cfg, self.dropout = cfg, cfg.dropout
        self.embed = GraphConv(num_nodes, num_coeffs, cfg.width)
        self.embed_norm = BatchNorm(num_nodes * cfg.width)
        self.blocks = nn.ModuleList(
            GcnBlock(num_nodes, cfg.width, cfg.dropout) for _ in range(cfg.num_blocks)
        )
        self.readout = GraphConv(num_nodes, cfg.width, num_coeffs)

    def forward(
        self, coeffs: Float[Tensor, "batch node coeff"], masks: None = None
    ) -> Float[Tensor, "batch node coeff"]:
        """Predict; it has no random edges, `masks` is there to be called like the others."""
        x = coeffs.transpose(0, 1)
        y = dropout(self.embed_norm(self.embed(x)).tanh(), self.cfg.dropout, self.training)
        for block in self.blocks:
            y = block(y)
        return torch.add(x, self.readout(y), alpha=self.cfg.readout_gain).transpose(0, 1)


class MotionMlp(nn.Module):
    """A baseline without a graph (after siMLPe): linear maps over nodes and over coefficients.

    Ours differs: `width` features take the place of the nodes, and the last map starts at zero, so
    that the first prediction repeats the last pose. Inside, lengths are in metres as in siMLPe, so
    that what the normalised blocks add counts beside the input.
    """

    unit = 1000.0
    """Millimetres a unit of length inside the network."""

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
        y = self.embed(coeffs.transpose(1, 2) / self.unit)  # batch, coeff, width
        for mix, norm in zip(self.mixes, self.norms, strict=True):
            y = y + norm(mix(y.transpose(1, 2)).transpose(1, 2))
        return coeffs + self.unit * self.readout(y).transpose(1, 2)


def build(
    cfg: Model, num_nodes: int, num_coeffs: int, upper: Sequence[int], lower: Sequence[int]
) -> ScatteringNetwork | DctGcn | MotionMlp:
    """The network that cfg.kind names."""
    if cfg.kind == "gcn":
        return DctGcn(cfg, num_nodes, num_coeffs)
    if cfg.kind == "mlp":
        return MotionMlp(cfg, num_nodes, num_coeffs)
    return ScatteringNetwork(cfg, num_nodes, num_coeffs, upper, lower)
