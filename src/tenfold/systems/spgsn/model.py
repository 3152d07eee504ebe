"""The skeleton-parted graph scattering network (SPGSN).

Equal to the official computation (utils/model.py, class GCN) but cheaper: what is linear is done
once, before the bodies part or after they meet, instead of once a body; products of parameters are
merged; what the parts exchange is added to the graphs, so that features are summed once.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tenfold.nn.dropout import dropout
from tenfold.nn.norm import BatchNorm

from .baselines import DctGcn, MotionMlp
from .config import Model
from .scattering import (
    BodyGraphs,
    Derived,
    EdgeMasks,
    GraphConv,
    ScatteringTree,
    affine,
    graph_product,
    per_node,
    tanh,
    uniform,
    xavier,
)

COMPARE_WIDTH = 64
"""Features in which two body parts compare their nodes (official code)."""
ATTENTION_GAIN = 0.1
"""Share of a channel that the spectrum attention adds to it (official code)."""


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


class PartExchange(nn.Module):
    """Shares that each node of one part takes from each node of the other.

    `PartFuse` of the official utils/attentions.py: softmax of the agreement of two features.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.upper_in = xavier(width, COMPARE_WIDTH)
        self.lower_in = xavier(width, COMPARE_WIDTH)
        self.upper_out = xavier(COMPARE_WIDTH, COMPARE_WIDTH)
        self.lower_out = xavier(COMPARE_WIDTH, COMPARE_WIDTH)

    def forward(
        self,
        upper: Float[Tensor, "batch upper_node compare"],
        lower: Float[Tensor, "batch lower_node compare"],
    ) -> tuple[
        Float[Tensor, "batch lower_node upper_node"], Float[Tensor, "batch upper_node lower_node"]
    ]:
        """Weights from upper to lower, and from lower to upper; each row adds to one."""
        agreement = self.lower_out @ self.upper_out.T  # F_d F_u^T with both last maps merged
        score = lower.relu() @ agreement @ upper.relu().mT  # batch, lower_node, upper_node
        return score.softmax(-1), score.transpose(1, 2).softmax(-1)


class SpectrumAttention(nn.Module):
    """Attention over the channels of the graph spectrum, node by node.

    `KernelAttention_Sigmoid` of the official utils/attentions.py, which is a softmax despite its
    name: with E = Y W_1 and q = relu(mean of E over channels), a = softmax of
    tanh(E W_h + q W_q + b_s) w_2 + b_2 over the channels.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embed = xavier(width, width)
        self.hidden_weight, self.query_weight = xavier(width, width), xavier(width, width)
        self.hidden_bias = uniform(width**-0.5, width)
        self.score_weight, self.score_bias = xavier(width, 1), uniform(width**-0.5, 1)

    def forward(
        self, channels: list[Float[Tensor, "batch node width"]], derived: Derived
    ) -> Float[Tensor, "batch node channel"]:
        """Weights of the channels, which add to one."""
        total = sum(channels[1:], channels[0])
        query = (total @ (self.embed / len(channels))).relu()  # of the mean channel
        query = affine(query, self.query_weight, self.hidden_bias)
        hidden = [tanh((x @ derived.embed).add_(query)) for x in channels]
        score = self.score_weight[:, 0].type_as(hidden[0])  # autocast leaves mv alone
        scores = [torch.mv(h.flatten(0, 1), score) for h in hidden]
        scores = torch.stack(scores, -1).unflatten(0, total.shape[:2])  # batch, node, channel
        return (scores + self.score_bias).softmax(-1)


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
        gains = bands.sum(-1).transpose(1, 2)  # body, node, filter
        embed = compare = compare_bias = low.new_zeros(0)
        if self.cfg.scattering:
            embed = self.attention.embed @ self.attention.hidden_weight
        if self.cfg.parts:
            num, tree = self.tree.num_filters, self.tree
            # of the mean channel; its bands still lack `second_linear`
            maps = torch.stack([self.exchange.upper_in, self.exchange.lower_in]) / (1 + num**2)
            compare = maps[:, None]
            compare_bias = low.new_zeros(len(gains[1]), COMPARE_WIDTH)
            if num:
                compare = torch.cat([compare, tree.second_weight @ compare], 1)
                bias = num * gains[1] @ (tree.second_bias @ maps)  # part, node, compare
                compare_bias = torch.cat([bias[0, : self.num_upper], bias[1, self.num_upper :]])
        return Derived(low, bands, gains, compare, compare_bias, embed)

    def forward(
        self, x: Float[Tensor, "batch node width"], derived: Derived
    ) -> Float[Tensor, "batch node width"]:
        """One residual block."""
        # As GC_Block of the official code, which concatenates the channels; here they are a list.
        low, *bands, gain = self.spectrum(x, derived)
        channels = [tanh(per_node(self.low_norm, low))]
        if self.cfg.scattering:
            bands_y = per_node(self.band_norm, self.tree.second_linear(bands, gain))
            channels += tanh(bands_y).unbind()
            # the mean over channels of y + 0.1 a y: batch, node, channel
            weights = (1 + ATTENTION_GAIN * self.attention(channels, derived)) / len(channels)
            y = weights[..., :1] * channels[0]
            for c in range(1, len(channels)):
                y.addcmul_(weights[..., c : c + 1], channels[c])
        else:
            y = channels[0] * (1 + ATTENTION_GAIN)  # a softmax over one channel
        y = dropout(y, self.cfg.dropout, self.training)
        # the bias comes before the graph, as in GraphOperate; this graph has no mask
        y = graph_product(self.mix_graph, affine(y, self.mix_weight[0], self.mix_bias[0]))
        y = per_node(self.mix_norm, y).relu_()
        return x + dropout(y, self.cfg.dropout, self.training)

    def spectrum(
        self, x: Float[Tensor, "batch node width"], derived: Derived
    ) -> list[Float[Tensor, "*batch node _"]]:
        """Channels of the whole body with its parts, and the gain of layer 2's bias."""
        low_input, waves = self.tree(x, derived)
        low, *bands, gain = derived.low[0], *derived.bands[0], derived.gains[0]
        if self.cfg.parts:
            low, *bands, gain = self.with_parts(low_input, waves, derived)
        layer2 = [graph_product(band, wave) for wave in waves for band in bands]
        return [graph_product(low, low_input), *layer2, gain]

    def with_parts(
        self,
        low_input: Float[Tensor, "batch node width"],
        waves: list[Float[Tensor, "batch body_node width"]],
        derived: Derived,
    ) -> list[Float[Tensor, "batch node _"]]:
        """Graph, filters and gain of the whole body, with what its parts exchange.

        A_w Y + F (A_p Y) is (A_w + F A_p) Y, with the fusion F of each sample; layer 1 differs
        between the bodies, so layer 2 is [H_w, F H_p] on both.
        """
        num_nodes, num = len(derived.low[1]), self.tree.num_filters
        graphs = torch.cat([derived.low[1], *derived.bands[1]], -1)  # node, graph and node
        inputs = [low_input]
        if num:
            parts = [wave[:, num_nodes:] for wave in waves]
            inputs += [sum(parts[1:], parts[0])] * num
        fusion = self.fusion(inputs, graphs, derived)
        with_gain = torch.cat([graphs, derived.gains[1]], -1)
        exchanged = fusion @ (self.cfg.part_weight * with_gain)
        low, *bands, gain = exchanged.split([num_nodes] * (1 + num) + [num], -1)
        bands = [
            torch.cat([whole.expand_as(part), part], -1)
            for whole, part in zip(derived.bands[0], bands, strict=True)
        ]
        return [derived.low[0] + low, *bands, derived.gains[0] + gain]

    def fusion(
        self,
        inputs: list[Float[Tensor, "batch node width"]],
        graphs: Float[Tensor, "node graph_node"],
        derived: Derived,
    ) -> Float[Tensor, "batch node node"]:
        """Matrix of the exchange of the parts: lower takes from upper, then upper from *new* lower.

        In `GraphConvScatter_Forest` of the official code, Y_d <- Y_d + W_ud Y_u, then
        Y_u <- Y_u + W_du Y_d. As one matrix over the nodes upper | lower | others:
        [[I + W_du W_ud, W_du, 0], [W_ud, I, 0], [0, 0, I]].
        """
        num_upper, num_parts, weight = self.num_upper, self.num_parts, self.cfg.exchange_weight
        batch, num_nodes, _ = inputs[0].shape
        # narrow before the graphs; the others' edges are zero, whatever they are mapped to
        narrow = [
            torch.bmm(nodes, maps[c].expand(batch, -1, -1))
            for c, x in enumerate(inputs)
            for nodes, maps in zip(
                x.split((num_upper, num_nodes - num_upper), 1), derived.compare, strict=True
            )
        ]
        hidden = torch.baddbmm(
            derived.compare_bias, graphs.expand(batch, -1, -1), torch.cat(narrow, 1)
        )
        upper, lower = hidden[:, :num_parts].tensor_split((num_upper,), 1)
        to_lower, to_upper = self.exchange(upper, lower)  # W_ud, W_du; the others exchange nothing
        identity = self.graphs.identity[0].expand(batch, -1, -1)
        lower_rows = torch.cat(
            [weight * to_lower, identity[:, num_upper:num_parts, num_upper:]], -1
        )
        upper_rows = torch.baddbmm(identity[:, :num_upper], to_upper, lower_rows, alpha=weight)
        return torch.cat([upper_rows, lower_rows, identity[:, num_parts:]], 1)


class ScatteringNetwork(nn.Module):
    """SPGSN: DCT coefficients of an observed motion to those of the observed and future motion.

    Args:
        cfg: Sizes and ablations.
        num_nodes: Coordinates of the used joints, x0 y0 z0 x1 ...
        num_coeffs: DCT coefficients of each coordinate.
        upper: Joints of the upper body part, as positions among the used joints.
        lower: Those of the lower part.

    Raises:
        ValueError: The parts overlap, or name joints that are not there.

    Example:
        network = ScatteringNetwork(Model(width=64), 75, 30, range(10, 25), range(10))
        predicted = network(coeffs)  # (batch, 75, 30), in mm as `coeffs`
    """

    order: Int[Tensor, " node"]
    """Nodes inside the network, upper | lower | others, as nodes of the skeleton."""
    inverse: Int[Tensor, " node"]
    blocks: Sequence[ScatteringBlock]

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
        blocks = nn.ModuleList(ScatteringBlock(cfg, *sizes) for _ in range(cfg.num_blocks))
        self.blocks = blocks  # type: ignore[assignment]
        self.readout = GraphConv(num_nodes, cfg.width, num_coeffs)

    def draw_masks(self, generator: torch.Generator | None = None) -> list[EdgeMasks]:
        """Random masks for every block: an edge survives with probability edge_prob.

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
        """Filters and products of parameters of each block, which need no input."""
        return [
            block.derive(mask._replace(whole=mask.whole[self.order][:, self.order]))
            for block, mask in zip(self.blocks, masks, strict=True)
        ]

    def forward(
        self, coeffs: Float[Tensor, "batch node coeff"], masks: list[EdgeMasks] | None = None
    ) -> Float[Tensor, "batch node coeff"]:
        """Predict coefficients in mm, with the given edge masks or those of `default_masks`."""
        return self.run(coeffs, self.derive(self.default_masks() if masks is None else masks))

    def run(
        self, coeffs: Float[Tensor, "batch node coeff"], derived: list[Derived]
    ) -> Float[Tensor, "batch node coeff"]:
        """Predict, with graphs already derived."""
        x = coeffs[:, self.order]  # nodes upper | lower | others
        y = tanh(per_node(self.embed_norm, self.embed(x)))
        y = dropout(y, self.cfg.dropout, self.training)
        for block, ready in zip(self.blocks, derived, strict=True):
            y = block(y, ready)
        y = torch.add(x, self.readout(y), alpha=self.cfg.readout_gain)
        return y[:, self.inverse]


def build(
    cfg: Model, num_nodes: int, num_coeffs: int, upper: Sequence[int], lower: Sequence[int]
) -> ScatteringNetwork | DctGcn | MotionMlp:
    """Build the network that `cfg.kind` names: SPGSN, or one of its two baselines."""
    if cfg.kind == "gcn":
        return DctGcn(cfg, num_nodes, num_coeffs)
    if cfg.kind == "mlp":
        return MotionMlp(cfg, num_nodes, num_coeffs)
    return ScatteringNetwork(cfg, num_nodes, num_coeffs, upper, lower)
