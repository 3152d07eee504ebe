"""Overlap of label maps and of single boxes."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

IGNORED = 255


def confusion(
    predicted: Shaped[Tensor, "*pixel"],
    truth: Shaped[Tensor, "*pixel"],
    num_classes: int,
    ignore: int = IGNORED,
) -> Int64[Tensor, "num_classes num_classes"]:
    """Pixels by true class (row) and predicted class (column); ignored ones do not count."""
    counted = truth != ignore
    true, found = truth[counted].long(), predicted[counted].long()
    for name, values in (("true", true), ("predicted", found)):
        if len(values) and not 0 <= int(values.min()) <= int(values.max()) < num_classes:
            raise ValueError(
                f"{name} labels reach {int(values.min())}..{int(values.max())}, allowed are "
                f"0..{num_classes - 1} ({ignore} is ignored)"
            )
    pairs = torch.bincount(true * num_classes + found, minlength=num_classes**2)
    return pairs.view(num_classes, num_classes)


def iou(counts: Int64[Tensor, "class class"]) -> Float[Tensor, " class"]:
    """Intersection over union of each class; NaN where it is neither true nor predicted."""
    right = counts.diagonal().double()
    union = counts.sum(0) + counts.sum(1) - counts.diagonal()
    return torch.where(union > 0, right / union.clamp(min=1), torch.nan)


def scores(counts: Int64[Tensor, "class class"]) -> dict[str, float]:
    """mIoU over classes that occur, mAcc and aAcc, in percent."""
    of_class = iou(counts)
    rows = counts.sum(1)
    recall = (counts.diagonal().double() / rows.clamp(min=1))[rows > 0]
    total = max(1, int(counts.sum()))
    return {
        "mIoU": 100 * float(of_class.nanmean()) if bool((of_class >= 0).any()) else 0.0,
        "mAcc": 100 * float(recall.mean()) if len(recall) else 0.0,
        "aAcc": 100 * float(counts.diagonal().sum()) / total,
    }


def box_iou(
    predicted: Float[Tensor, "box 4"], truth: Float[Tensor, "box 4"]
) -> Float[Tensor, " box"]:
    """IoU of boxes (x0 y0 x1 y1) that lie beside each other in the two lists."""
    low = torch.maximum(predicted[:, :2], truth[:, :2])
    high = torch.minimum(predicted[:, 2:], truth[:, 2:])
    shared = (high - low).clamp(min=0).prod(1)
    sizes = [(b[:, 2:] - b[:, :2]).clamp(min=0).prod(1) for b in (predicted, truth)]
    return shared / (sizes[0] + sizes[1] - shared).clamp(min=1e-9)
