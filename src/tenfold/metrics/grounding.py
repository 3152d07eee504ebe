"""Grounding: whether the one box, or the one point, that is given for a phrase is right."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

Boxes = Float[np.ndarray, "phrase 4"]


def paired_iou(found: Boxes, truth: Boxes) -> Float[np.ndarray, " phrase"]:
    """Intersection over union of each box x0 y0 x1 y1 with the true one of its row."""
    low, high = np.maximum(found[:, :2], truth[:, :2]), np.minimum(found[:, 2:], truth[:, 2:])
    shared = np.clip(high - low, 0, None).prod(1)
    areas = [np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(1) for boxes in (found, truth)]
    union = areas[0] + areas[1] - shared
    return np.where(union > 0, shared / np.where(union > 0, union, 1), 0)


def is_inside(points: Float[np.ndarray, "phrase 2"], truth: Boxes) -> Bool[np.ndarray, " phrase"]:
    """Return True for points x y in their boxes; the right and the lower border are outside."""
    return np.asarray(((truth[:, :2] <= points) & (points < truth[:, 2:])).all(1))


def grounding(
    found: Boxes, truth: Float[np.ndarray, "true 4"], points: Float[np.ndarray, "point 2"]
) -> dict[str, float]:
    """Accuracy at IoU 0.5 and 0.3, mean IoU and pointing accuracy, in percent.

    Args:
        found: Box of each phrase.
        truth: True box of each phrase, in the same units.
        points: Point of each phrase.
    """
    if not len(found) == len(truth) == len(points) > 0:
        raise ValueError(
            f"{len(found)} boxes and {len(points)} points for {len(truth)} phrases: each phrase "
            "needs one of both, and there must be a phrase"
        )
    iou = paired_iou(found, truth)
    return {
        "acc@0.5": 100 * float((iou >= 0.5).mean()),
        "acc@0.3": 100 * float((iou >= 0.3).mean()),
        "iou": 100 * float(iou.mean()),
        "pointing": 100 * float(is_inside(points, truth).mean()),
    }
