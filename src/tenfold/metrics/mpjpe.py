"""Mean per joint position error of motion prediction, by the rule of the official code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor


@runtime_checkable
class Body(Protocol):
    """Skeleton of the metric: the joints a network predicts, and which joints equal them."""

    @property
    def used(self) -> tuple[int, ...]:
        """Predicted joints, in the order of the prediction."""

    @property
    def twins(self) -> tuple[tuple[int, int], ...]:
        """Pairs (joint, source) of joints that equal another one."""


def mpjpe(
    pred: Float[Tensor, "batch frames joints 3"], truth: Float[Tensor, "batch frames joints 3"]
) -> Float[Tensor, " frames"]:
    """Error of each frame: mean over batch and joints of the distance, in the unit of the inputs.

    Not the mean up to that frame, which some papers report. Source: test loop of the
    official `main_3d.py`.
    """
    return torch.linalg.vector_norm(pred - truth, dim=-1).mean(dim=(0, 2))


def mpjpe_at(
    pred: Float[Tensor, "batch frames joints 3"],
    truth: Float[Tensor, "batch frames joints 3"],
    frames: Sequence[int],
) -> Float[Tensor, " horizons"]:
    """Error at some frames, 0-based among those given (pass the future only). Source: section 6."""
    if len(frames) == 0 or min(frames) < 0 or max(frames) >= pred.shape[1]:
        raise ValueError(
            f"horizon frames {list(frames)} must lie in 0 to {pred.shape[1] - 1}, the frames "
            "predicted. Predict further or ask for earlier frames."
        )
    index = torch.as_tensor(list(frames), device=pred.device)
    return mpjpe(pred[:, index], truth[:, index])


def fill_unused(
    truth: Float[Tensor, "batch frames joints 3"],
    pred_used: Float[Tensor, "batch frames used 3"],
    body: Body,
) -> Float[Tensor, "batch frames joints 3"]:
    """All joints of a prediction: constant ones from the truth, twins from their predicted source.

    Constant joints thus have no error and dilute the mean, as in the official tables (section 6).
    """
    if pred_used.shape[2] != len(body.used):
        raise ValueError(
            f"the prediction has {pred_used.shape[2]} joints, but the skeleton uses "
            f"{len(body.used)}. Pass only the used joints, in the skeleton's order."
        )
    full = truth.to(pred_used.dtype, copy=True)
    full[:, :, list(body.used)] = pred_used
    if body.twins:
        twins, sources = zip(*body.twins, strict=True)
        full[:, :, list(twins)] = full[:, :, list(sources)]
    return full
