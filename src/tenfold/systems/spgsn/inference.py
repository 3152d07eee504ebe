"""SPGSN for inference: forecasts of poses, and a copy of the network that is quick at them."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from tenfold.core.seed import generator, seed_of
from tenfold.metrics.mpjpe import fill_unused
from tenfold.nn.norm import BatchNorm

from . import data
from .config import Config
from .model import ATTENTION_GAIN, ScatteringBlock, ScatteringNetwork
from .scattering import Derived, EdgeMasks, per_node, tanh


class SingleBlock:
    """`ScatteringBlock` for one sample, where the number of operations decides the time.

    Features are (node, width): no views, no batched products; BatchNorm, the mean over channels and
    the biases that meet a fixed graph are folded into matrices.
    """

    def __init__(self, block: ScatteringBlock, derived: Derived) -> None:
        cfg, tree, num = block.cfg, block.tree, block.tree.num_filters
        self.part_weight, self.exchange_weight = cfg.part_weight, cfg.exchange_weight
        self.low = (tree.low_bias[0], tree.low_weight[0], derived.low.flatten(0, 1))
        self.first = [
            (tree.first_bias[k], tree.first_weight[k], derived.bands[:, k].flatten(0, 1))
            for k in range(num)
        ]
        self.bands = [list(body) for body in derived.bands]
        self.second = [(tree.second_weight[j], tree.second_bias[j], j) for j in range(num)] * num
        self.gains = [list(body.unbind(-1)) for body in derived.gains]
        self.has_parts = cfg.parts
        if cfg.parts:
            identity, first, last = block.graphs.identity[0], block.num_upper, block.num_parts
            self.nodes = [slice(0, first), slice(first, last)]
            self.compare = [[part[0], *list(part[1:]) * num] for part in derived.compare]
            self.compare_bias = [derived.compare_bias[nodes] for nodes in self.nodes]
            self.agreement = block.exchange.lower_out @ block.exchange.upper_out.T
            self.identity = (identity[:first], identity[first:last, first:], identity[last:])
        norms = [block.low_norm.folded()]
        if num:
            norms += [block.band_norm.folded()] * num**2
            attention = block.attention
            self.query = (
                attention.embed / len(norms),
                attention.hidden_bias,
                attention.query_weight,
            )
            self.embed, self.score = derived.embed, attention.score_weight[:, 0]
        self.num_channels, num_nodes = len(norms), len(block.mix_graph)
        self.shift = torch.cat([norm.shift.view(num_nodes, -1) for norm in norms])
        self.scale = torch.cat([norm.scale.view(num_nodes, -1) for norm in norms])
        self.mix_graph, self.mix_weight = block.mix_graph, block.mix_weight[0] / len(norms)
        folded = block.mix_norm.folded()
        self.mix_scale = folded.scale.view(num_nodes, -1)
        bias = block.mix_graph.sum(1, keepdim=True) * block.mix_bias[0]
        self.mix_shift = folded.shift.view(num_nodes, -1) + self.mix_scale * bias

    def __call__(self, x: Float[Tensor, "node width"]) -> Float[Tensor, "node width"]:
        """One residual block."""
        channels, gains = self.spectrum(x)
        for c, (weight, bias, j) in enumerate(self.second, start=1):
            channels[c] = torch.mm(channels[c], weight).addr_(gains[j], bias)
        stacked = tanh(torch.addcmul(self.shift, torch.cat(channels), self.scale))
        channels = list(stacked.split(len(x)))
        total = sum(channels[1:], channels[0])
        if self.num_channels == 1:
            y = total * (1 + ATTENTION_GAIN)
        else:
            attended = stacked * self.attention(stacked, total)
            y = sum(attended.mul_(ATTENTION_GAIN).split(len(x)), total)
        y = torch.mm(self.mix_graph, torch.mm(y, self.mix_weight))
        return torch.addcmul(self.mix_shift, y, self.mix_scale).relu_().add_(x)

    def spectrum(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """As `ScatteringBlock.spectrum`, the gains apart."""
        bias, weight, graph = self.low
        low = torch.mm(graph, torch.addmm(bias, x, weight))
        spectra = [[body] for body in low.split(len(x))]
        for bias, weight, graph in self.first:
            waves = tanh(torch.mm(graph, torch.addmm(bias, x, weight))).split(len(x))
            for spectrum, bands, wave in zip(spectra, self.bands, waves, strict=True):
                spectrum += [torch.mm(band, wave) for band in bands]
        if not self.has_parts:
            return spectra[0], self.gains[0]
        fusion, gain = self.fusion(spectra[1]), self.part_weight
        return (
            [torch.addmm(a, fusion, b, alpha=gain) for a, b in zip(*spectra, strict=True)],
            [torch.addmv(a, fusion, b, alpha=gain) for a, b in zip(*self.gains, strict=True)],
        )

    def fusion(self, parts: list[Tensor]) -> Float[Tensor, "node node"]:
        """As `ScatteringBlock.fusion`."""
        hidden = list(self.compare_bias)
        for i, (nodes, compare) in enumerate(zip(self.nodes, self.compare, strict=True)):
            for x, weight in zip(parts, compare, strict=True):
                hidden[i] = torch.addmm(hidden[i], x[nodes], weight)
        upper, lower = (x.relu_() for x in hidden)
        score = torch.mm(torch.mm(lower, self.agreement), upper.T)
        to_lower, to_upper = score.softmax(-1), score.T.softmax(-1)
        lower_rows = torch.cat([to_lower.mul_(self.exchange_weight), self.identity[1]], -1)
        upper_rows = torch.addmm(self.identity[0], to_upper, lower_rows, alpha=self.exchange_weight)
        return torch.cat([upper_rows, lower_rows, self.identity[2]])

    def attention(
        self, stacked: Float[Tensor, "channels_times_node width"], total: Tensor
    ) -> Float[Tensor, "channels_times_node 1"]:
        """As `SpectrumAttention`."""
        weight, bias, out_weight = self.query
        query = torch.addmm(bias, torch.mm(total, weight).relu_(), out_weight)
        hidden = torch.mm(stacked, self.embed).view(self.num_channels, *query.shape)
        scores = torch.mv(tanh(hidden.add_(query)).view_as(stacked), self.score)
        return scores.view(self.num_channels, -1).softmax(0).view(-1, 1)


class InferenceNetwork(nn.Module):
    """SPGSN with fixed edge masks: filters and merged matrices cached, BatchNorm folded.

    It stays on the device and in the type in which it was prepared.
    """

    @torch.no_grad()
    def __init__(self, network: ScatteringNetwork, masks: list[EdgeMasks] | None) -> None:
        super().__init__()
        network = copy.deepcopy(network).eval().requires_grad_(False)
        self.derived = network.derive(network.default_masks() if masks is None else masks)
        self.single = [
            SingleBlock(*pair) for pair in zip(network.blocks, self.derived, strict=True)
        ]
        for module in list(network.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, BatchNorm):
                    setattr(module, name, child.folded())
        self.network = network

    def forward(
        self, coeffs: Float[Tensor, "batch node coeff"]
    ) -> Float[Tensor, "batch node coeff"]:
        """Predict."""
        net = self.network
        if coeffs.shape[0] != 1:
            return net.run(coeffs, self.derived)
        x = coeffs[:, net.order]
        y = tanh(per_node(net.embed_norm, net.embed(x)))[0]
        for block in self.single:
            y = block(y)
        y = torch.add(x, net.readout(y[None]), alpha=net.cfg.readout_gain)
        return y[:, net.inverse]


def draws_masks(network: nn.Module) -> bool:
    """True for a network that draws new edge masks for every prediction, as the official code."""
    return isinstance(network, ScatteringNetwork) and network.cfg.mask_eval == "sample"


def prepare(network: ScatteringNetwork, masks: list[EdgeMasks] | None = None) -> InferenceNetwork:
    """Return a copy for inference alone, with all computed that does not need the input.

    Args:
        network: The network; it stays as it is.
        masks: Edge masks of each block; by default those of `model.mask_eval`.

    Returns:
        A module from DCT coefficients (batch, node, coefficient) to coefficients, as the network.

    Raises:
        ValueError: No masks are given, and `model.mask_eval` draws them for every prediction.

    Example:
        quick = prepare(system.model)
        predicted = quick(coeffs)
    """
    if masks is None and draws_masks(network):
        raise ValueError(
            "model.mask_eval is 'sample': its masks are drawn anew for every prediction; "
            "prepare with mask_eval 'mean' or 'ones', or pass masks"
        )
    return InferenceNetwork(network, masks)


def joints(
    coeffs: Float[Tensor, "batch node coeff"], basis: Float[Tensor, "coeff frame"]
) -> Float[Tensor, "batch frame used 3"]:
    """Positions of the used joints from DCT coefficients, in mm."""
    return (coeffs.float() @ basis).transpose(1, 2).unflatten(2, (-1, 3))


SAMPLES = 8
"""Predictions drawn with the noise of training, for the spread that the npz holds."""


@dataclass(frozen=True)
class Prediction:
    """Poses in mm that were observed, and those predicted for after them."""

    start: int
    """First observed frame of the motion."""
    observed: Float[np.ndarray, "past joints 3"]
    predicted: Float[np.ndarray, "future joints 3"]
    truth: Float[np.ndarray, "future joints 3"] | None
    """True poses after them; None where the motion ends with the observed frames."""
    continued: Float[np.ndarray, "future joints 3"]
    """Frames after the motion's end."""
    spread: Float[np.ndarray, "future joints"] | None
    """Standard deviation over `SAMPLES` drawn predictions, in mm; None without anything to draw."""


def drawn(cfg: Config) -> str:
    """Noise of training that a spread is made of: the edge masks where some edges are dropped,
    else dropout; empty for a network without either."""
    if cfg.model.kind == "spgsn" and cfg.model.edge_prob < 1:
        return "edge masks"
    return "dropout" if cfg.model.dropout and cfg.model.kind != "mlp" else ""


@torch.no_grad()
def forecast(
    network: nn.Module,
    cfg: Config,
    basis: Float[Tensor, "coeff frame"],
    poses: Float[np.ndarray, "past joint 3"],
    samples: int = 0,
) -> Float[np.ndarray, "samples future joint 3"]:
    """Predict what follows the observed poses, for all joints.

    Joints that the network does not see keep their last position, twins follow their source.

    Args:
        network: As `model.build` makes it.
        cfg: Its configuration, with a skeleton.
        basis: Kept rows of the DCT, `Motions.basis`.
        poses: `data.past` frames of all joints of the skeleton, root at the origin, in mm, at the
            skeleton's frames per second.
        samples: Predictions with the noise of training (`drawn`), whose spread is a cheap estimate
            of uncertainty; 0 predicts once, as `model.mask_eval` says.

    Returns:
        `data.future` frames in mm, for each sample; of one prediction for samples=0.

    Raises:
        ValueError: Samples are asked of a network that is trained without noise.
    """
    network.eval()
    device = next(network.parameters()).device
    coeffs = data.padded_coeffs(data.nodes(poses[None], cfg.skeleton), basis).to(device)
    if samples and not drawn(cfg):
        raise ValueError(
            f"model.kind {cfg.model.kind!r} was trained without edge masks and without dropout: "
            "there is nothing to draw samples of"
        )
    if samples and drawn(cfg) == "dropout":
        outputs = _dropped(network, coeffs, samples, seed_of(cfg.seed, "forecast"))
    elif samples or draws_masks(network):
        assert isinstance(network, ScatteringNetwork)
        draw = generator(cfg.seed, "forecast")
        outputs = [network(coeffs, network.draw_masks(draw)) for _ in range(samples or 1)]
    else:
        outputs = [network(coeffs)]
    rows = basis.float().to(device)
    seen = torch.cat([joints(o, rows)[:, cfg.data.past :] for o in outputs]).cpu()
    still = torch.from_numpy(np.repeat(poses[-1:], seen.shape[1], 0))
    return fill_unused(still.expand(len(seen), -1, -1, -1), seen, cfg.skeleton).numpy()


def _dropped(
    network: nn.Module, coeffs: Float[Tensor, "one node coeff"], samples: int, seed: int
) -> list[Float[Tensor, "one node coeff"]]:
    """Predictions with dropout; normalisation stays that of inference."""
    # random state of its own, and a copy: training flags of the network stay as they are
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        masks = network.default_masks() if isinstance(network, ScatteringNetwork) else None
        noisy = copy.deepcopy(network).train()
        for module in noisy.modules():
            if isinstance(module, BatchNorm):
                module.eval()
        return [noisy(coeffs, masks) for _ in range(samples)]


def predict_take(
    network: nn.Module,
    cfg: Config,
    basis: Float[Tensor, "coeff frame"],
    positions: Float[np.ndarray, "frames joints 3"],
) -> Prediction:
    """Forecasts of the last window that has a truth, and of the time after the motion."""
    past, future = cfg.data.past, cfg.data.future
    has_truth = len(positions) >= past + future
    start = len(positions) - (past + future if has_truth else past)
    observed = positions[start : start + past]
    samples = forecast(network, cfg, basis, observed, SAMPLES) if drawn(cfg) else None
    return Prediction(
        start,
        observed,
        predicted=forecast(network, cfg, basis, observed)[0],
        truth=positions[start + past :] if has_truth else None,
        continued=forecast(network, cfg, basis, positions[-past:])[0],
        spread=None if samples is None else np.linalg.norm(samples.std(0), axis=-1),
    )
