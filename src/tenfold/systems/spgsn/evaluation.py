"""Error of predictions on a split, measured by all processes together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from tenfold.core.divide import divided
from tenfold.core.seed import generator
from tenfold.core.system import Evaluation
from tenfold.data.motion.clips import Windows
from tenfold.metrics.mpjpe import fill_unused, mpjpe

from .config import Config
from .data import Motions, nodes, padded_coeffs
from .inference import draws_masks, joints, prepare
from .model import ScatteringNetwork

BATCH = 128
"""Windows of one forward (official code: test_batch)."""
LABELLED_MS = {25.0: (80, 160, 320, 400, 560, 1000), 30.0: tuple(range(100, 1001, 100))}
"""Horizons that papers report, by the frame rate they assume (official main_cmu_3d.py at 25,
main_3dpw_3d.py at 30)."""
REPEATED = "repeat last pose"
"""The baseline that needs no training."""

Predictor = Callable[[Float[Tensor, "batch node coeff"], int], Float[Tensor, "batch node coeff"]]
"""(coefficients, number of the batch) -> predicted coefficients."""


@dataclass(frozen=True)
class Curves:
    """Error over time, for pictures."""

    average: dict[str, Float[np.ndarray, " future"]]
    """Predictor -> error in mm of each future frame, the average of actions seen in training."""


def horizons(cfg: Config) -> dict[str, int]:
    """Label -> 0-based future frame: labels as papers print them, at the rate that they assume."""
    skeleton, future = cfg.skeleton, cfg.data.future
    rate = skeleton.label_fps or skeleton.fps
    wanted = LABELLED_MS.get(rate, LABELLED_MS[25.0])
    frames = {round(ms * rate / 1000) - 1 for ms in wanted}
    known = sorted(f for f in frames if 0 <= f < future) or [future - 1]
    return {f"{round((f + 1) * 1000 / rate)}ms": f for f in known}


def evaluate(network: nn.Module, motions: Motions, split: str) -> Evaluation:
    """MPJPE in mm per action and horizon, of the network and of repeating the last pose.

    The average is over actions seen in training.
    """
    windows = motions.windows(split)
    trained = {clip.action for clip in motions.train.clips}
    metrics: dict[str, dict[str, float]] = {}
    curves: dict[str, np.ndarray] = {}
    predictors = {motions.cfg.model.kind: predictor(network, motions.cfg), REPEATED: _repeated}
    for name, predict in predictors.items():
        measured = errors(predict, windows, motions, _device(network), f"error of {name}")
        rows = {a if a in trained else f"{a} (never trained)": e for a, e in measured.items()}
        seen = [e for a, e in measured.items() if a in trained] or list(measured.values())
        rows["average"] = torch.stack(seen).mean(0)
        curves[name] = rows["average"].numpy()
        metrics[name] = {
            f"mpjpe/{row}/{label}": float(error[frame])
            for row, error in rows.items()
            for label, frame in horizons(motions.cfg).items()
        }
    repeated = metrics.pop(REPEATED)
    (own,) = metrics.values()
    return Evaluation(own, {REPEATED: repeated}, Curves(curves))


def validate(network: nn.Module, motions: Motions) -> dict[str, float]:
    """Error over all future frames of the held-out windows, unweighted mean of actions."""
    windows = motions.windows("validation")
    measured = errors(predictor(network, motions.cfg), windows, motions, _device(network))
    return {"mpjpe": float(np.mean([error.mean() for error in measured.values()]))}


@torch.no_grad()
def errors(
    predict: Predictor, windows: Windows, motions: Motions, device: torch.device, title: str = ""
) -> dict[str, Float[Tensor, " future"]]:
    """Error in mm of each future frame, for each action, over all joints.

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
        inputs = nodes(positions[:, :past], cfg.skeleton)
        coeffs = padded_coeffs(inputs, motions.basis).to(device)
        predicted = joints(predict(coeffs, index), basis)[:, past:].cpu()
        truth = torch.from_numpy(positions[:, past:])
        full = fill_unused(truth, predicted, cfg.skeleton)
        return mpjpe(full, truth).double() * len(rows)

    totals = {a: torch.zeros(cfg.data.future, dtype=torch.float64) for a in actions}
    for (action, _), one in zip(batches, divided(len(batches), measured, title), strict=True):
        totals[action] += one
    return {action: total / len(actions[action]) for action, total in totals.items()}


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
