"""Error of predictions on a split, measured by all processes together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from tenfold.core.divide import divided
from tenfold.core.seed import generator, seed_of
from tenfold.core.system import Evaluation
from tenfold.data.motion.clips import Windows
from tenfold.metrics.mpjpe import fill_unused, mpjpe

from .config import Config
from .data import SELECTION, Motions, nodes, padded_coeffs
from .inference import draws_masks, joints, prepare
from .model import ScatteringNetwork

BATCH = 128
"""Windows of one forward (official code: test_batch)."""
LABELLED_MS = {25.0: (80, 160, 320, 400, 560, 1000), 30.0: tuple(range(100, 1001, 100))}
"""Horizons that papers report, by the frame rate they assume (official main_cmu_3d.py at 25,
main_3dpw_3d.py at 30)."""
SHORT_SECONDS = 0.45
"""A model that predicts no further, by its labels, is one of short horizon: 10 frames at 25."""
REPEATED = "repeat last pose"
"""The baseline that needs no training."""
NOISE_MM, MISSING = 10.0, 0.1
"""Of real capture, for a row of its own: deviation of each observed coordinate, and share of joints
that are lost in a window at one of its frames and stay, for the network, where they were last."""
NOISY, LAST = "average, noisy input", "average, last weights"
"""Rows beside the average: of noisy input, and of the weights of the last step where the ones that
count are those that were best on validation."""

Predictor = Callable[[Float[Tensor, "batch node coeff"], int], Float[Tensor, "batch node coeff"]]
"""(coefficients, number of the batch) -> predicted coefficients."""


@dataclass(frozen=True)
class Curves:
    """Error over time, for pictures."""

    average: dict[str, Float[np.ndarray, " future"]]
    """Predictor -> error in mm of each future frame, the average of actions seen in training."""


def weights_kept(cfg: Config) -> str:
    """Which weights of a run count: tables say it."""
    selects = cfg.data.holdout or cfg.data.name in SELECTION
    return "best on validation" if selects else "last weights"


def horizon_of(cfg: Config) -> str:
    """Short or long: papers train a model for each, whose numbers are not to be mixed."""
    rate = cfg.skeleton.label_fps or cfg.skeleton.fps
    is_short = cfg.data.future / rate <= SHORT_SECONDS
    return f"{'short' if is_short else 'long'}-horizon model ({cfg.data.future} frames)"


def horizons(cfg: Config) -> dict[str, int]:
    """Label -> 0-based future frame: labels as papers print them, at the rate that they assume."""
    skeleton, future = cfg.skeleton, cfg.data.future
    rate = skeleton.label_fps or skeleton.fps
    wanted = LABELLED_MS.get(rate, LABELLED_MS[25.0])
    frames = {round(ms * rate / 1000) - 1 for ms in wanted}
    known = sorted(f for f in frames if 0 <= f < future) or [future - 1]
    return {f"{round((f + 1) * 1000 / rate)}ms": f for f in known}


def evaluate(
    network: nn.Module, motions: Motions, split: str, last: nn.Module | None = None
) -> Evaluation:
    """MPJPE in mm per action and horizon, of the network and of repeating the last pose.

    The average is over actions seen in training. `last` is the network with the weights of the last
    step, where `network` has others.
    """
    windows = motions.windows(split)
    trained = {clip.action for clip in motions.train.clips}
    metrics: dict[str, dict[str, float]] = {}
    curves: dict[str, np.ndarray] = {}
    own, kind = predictor(network, motions.cfg), motions.cfg.model.kind

    def measured(predict: Predictor, title: str, noisy: bool = False) -> dict[str, Tensor]:
        return errors(predict, windows, motions, _device(network), f"error of {title}", noisy)

    def average(found: dict[str, Tensor]) -> Tensor:
        seen = [e for a, e in found.items() if a in trained] or list(found.values())
        return torch.stack(seen).mean(0)

    for name, predict in {kind: own, REPEATED: _repeated}.items():
        found = measured(predict, name)
        rows = {a if a in trained else f"{a} (never trained)": e for a, e in found.items()}
        rows["average"] = average(found)
        curves[name] = rows["average"].numpy()
        if last is not None:
            is_own = name == kind
            late = predictor(last, motions.cfg) if is_own else predict
            rows[LAST] = average(measured(late, "last weights")) if is_own else rows["average"]
        rows[NOISY] = average(measured(predict, f"{name} on noisy input", noisy=True))
        metrics[name] = {
            f"mpjpe/{row}/{label}": float(error[frame])
            for row, error in rows.items()
            for label, frame in horizons(motions.cfg).items()
        }
    repeated = metrics.pop(REPEATED)
    (of_network,) = metrics.values()
    return Evaluation(of_network, {REPEATED: repeated}, Curves(curves))


def validate(network: nn.Module, motions: Motions) -> dict[str, float]:
    """Error over all future frames of the held-out windows, unweighted mean of actions."""
    windows = motions.windows("validation")
    measured = errors(predictor(network, motions.cfg), windows, motions, _device(network))
    return {"mpjpe": float(np.mean([error.mean() for error in measured.values()]))}


@torch.no_grad()
def errors(
    predict: Predictor,
    windows: Windows,
    motions: Motions,
    device: torch.device,
    title: str = "",
    noisy: bool = False,
) -> dict[str, Float[Tensor, " future"]]:
    """Error in mm of each future frame, for each action, over all joints; of `noisy` input or not.

    Unused joints are taken from the truth or from their twin, as in the official tables. Batches
    are divided among the processes, and summed in their order: the number of processes changes
    nothing.
    """
    cfg, past = motions.cfg, motions.cfg.data.past
    basis = motions.basis.float().to(device)
    actions = windows.by_action()
    batches = [
        (action, rows)
        for action, indices in actions.items()
        for rows in np.array_split(indices, -(-len(indices) // BATCH))
    ]

    def measured(index: int) -> Float[Tensor, " future"]:
        _, rows = batches[index]
        positions = windows.gather(rows)
        observed = positions[:, :past]
        if noisy:
            observed = corrupted(observed, seed_of(cfg.seed, "noisy input", index))
        inputs = nodes(observed, cfg.skeleton)
        coeffs = padded_coeffs(inputs, motions.basis).to(device)
        predicted = joints(predict(coeffs, index), basis)[:, past:].cpu()
        truth = torch.from_numpy(positions[:, past:])
        full = fill_unused(truth, predicted, cfg.skeleton)
        return mpjpe(full, truth).double() * len(rows)

    totals = {a: torch.zeros(cfg.data.future, dtype=torch.float64) for a in actions}
    for (action, _), one in zip(batches, divided(len(batches), measured, title), strict=True):
        totals[action] += one
    return {action: total / len(actions[action]) for action, total in totals.items()}


def corrupted(
    observed: Float[np.ndarray, "windows past joints 3"], seed: int
) -> Float[np.ndarray, "windows past joints 3"]:
    """Observed poses as real capture gives them: noisy, and with joints that were lost."""
    random = np.random.default_rng(seed)
    noisy = observed + random.normal(0, NOISE_MM, observed.shape).astype(observed.dtype)
    windows, past, joints, _ = observed.shape
    lost = random.random((windows, joints)) < MISSING
    since = np.where(lost, random.integers(1, max(past, 2), (windows, joints)), past)
    kept = np.minimum(np.arange(past)[None, :, None], since[:, None] - 1)
    return np.take_along_axis(noisy, kept[..., None], axis=1)


def predictor(network: nn.Module, cfg: Config) -> Predictor:
    """The network for many predictions: with cached filters, where masks are not drawn anew.

    Drawn masks follow from the seed and the number of the batch, whichever process has it.
    """
    network.eval()
    if not isinstance(network, ScatteringNetwork):
        return lambda coeffs, _: network(coeffs)
    if draws_masks(network):
        return lambda coeffs, index: network(
            coeffs, network.draw_masks(generator(cfg.seed, "evaluation", index))
        )
    quick = prepare(network)
    return lambda coeffs, _: quick(coeffs)


def _repeated(
    coeffs: Float[Tensor, "batch node coeff"], index: int
) -> Float[Tensor, "batch node coeff"]:
    return coeffs


def _device(network: nn.Module) -> torch.device:
    return next(network.parameters()).device
