"""Suppression of duplicates with fixed shapes, as graphs of exported networks need it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .boxes import nms


@torch.library.custom_op(
    "tenfold::kept",
    mutates_args=(),
    schema="(Tensor boxes, Tensor scores, float threshold, float least) -> Tensor",
)
def kept(boxes: Tensor, scores: Tensor, threshold: float, least: float) -> Tensor:
    """Whether greedy suppression keeps each box, within groups.

    An operator of its own, since torch has none: in ONNX it is NonMaxSuppression.

    Args:
        boxes: Corners, (group, box, 4).
        scores: (group, box), finite.
        threshold: IoU above which the weaker of two boxes goes.
        least: Score that a box must exceed.

    Returns:
        True or False, (group, box).
    """
    found = torch.zeros(scores.shape, dtype=torch.bool, device=scores.device)
    for group in range(len(scores)):
        rows = (scores[group] > least).nonzero()[:, 0]
        best = nms(boxes[group, rows], scores[group, rows], threshold)
        found[group, rows[best]] = True
    return found


@kept.register_fake
def _like(boxes: Tensor, scores: Tensor, threshold: float, least: float) -> Tensor:
    return torch.empty(scores.shape, dtype=torch.bool, device=scores.device)


MOST = 2**20
"""Boxes of a group that ONNX is to keep at most."""


def onnx_operators() -> dict[Any, Callable[..., Any]]:
    """How ONNX has `kept`; for the exporter, which needs the package onnxscript."""
    import onnxscript

    op: Any = onnxscript.opset18

    def translated(boxes, scores, threshold: float, least: float):
        one_class = op.Unsqueeze(scores, op.Constant(value_ints=[1]))
        chosen = op.NonMaxSuppression(
            boxes, one_class, op.Constant(value_ints=[MOST]),
            op.Constant(value_floats=[threshold]), op.Constant(value_floats=[least]),
        )  # fmt: skip
        places = op.Gather(chosen, op.Constant(value_ints=[0, 2]), axis=1)  # without the class
        none = op.Mul(scores, op.Constant(value_float=0.0))
        groups = op.Gather(chosen, op.Constant(value_int=0), axis=1)
        ones = op.Cast(op.GreaterOrEqual(groups, op.Constant(value_int=0)), to=1)
        return op.Cast(op.ScatterND(none, places, ones), to=9)

    return {torch.ops.tenfold.kept.default: translated}
