"""Pseudo labels, and the distance of features: functions of probabilities, labels and masks.

Where several processes share a batch, means are those of the whole batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

IGNORED = 255
Labels = UInt8[Tensor, "batch height width"]
Weights = Float[Tensor, "batch height width"]
Logits = Float[Tensor, "batch class height width"]
Images = Float[Tensor, "batch 3 height width"]
Quality = Literal["batch", "image", "pixel"]
Provider = Literal["own", "cross", "mean", "1to2", "2to1"]


# --- pseudo labels -------------------------------------------------------------------------------


def pseudo_labels(probabilities: Logits) -> tuple[Labels, Weights]:
    """The most probable class of each pixel, and its probability."""
    confidence, labels = probabilities.max(1)
    return labels.byte(), confidence


def over_processes(value: Tensor) -> Tensor:
    """Mean of a tensor over the processes."""
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        value = value.clone()
        dist.all_reduce(value)
        return value / dist.get_world_size()
    return value


def quality(confidence: Weights, threshold: float, per: Quality = "batch") -> Weights:
    """Weight of each pseudo label.

    Args:
        confidence: Probability of each pixel's class.
        threshold: Probability from which a pixel counts as sure.
        per: batch: the share of sure pixels in the whole batch, one number for every pixel,
            however unsure (official: mmseg/models/uda/dacs.py); image: the share in each image;
            pixel: 1 for a sure pixel and 0 for another.
    """
    sure = (confidence >= threshold).to(confidence.dtype)
    if per == "pixel":
        return sure
    share = sure.mean((1, 2), keepdim=True)
    if per == "batch":
        share = over_processes(share.mean(0, keepdim=True))
    return share.expand_as(confidence)


def border(height: int, width: int, margins: Sequence[int]) -> Bool[Tensor, "height width"]:
    """True but in the margins (top, bottom, left, right in pixels): rectified edges, a bonnet."""
    top, bottom, left, right = margins
    inside = torch.zeros(height, width, dtype=torch.bool)
    inside[top : max(top, height - bottom), left : max(left, width - right)] = True
    return inside


# --- distance of features ------------------------------------------------------------------------


def coarse_labels(
    labels: Labels, factor: int, num_classes: int, least: float
) -> UInt8[Tensor, "batch 1 rows columns"]:
    """Labels of cells of `factor` x `factor` pixels (mmseg/models/utils/dacs_transforms.py).

    A cell has the class of at least the share `least` of its pixels, else 255; ignored pixels
    count as a class of their own.
    """
    kinds = labels.long().masked_fill(labels == IGNORED, num_classes)
    shares = F.avg_pool2d(F.one_hot(kinds, num_classes + 1).movedim(3, 1).float(), factor)
    best, found = shares.max(1, keepdim=True)
    return found.masked_fill((best < least) | (found == num_classes), IGNORED).byte()


def cells_of(
    cells: UInt8[Tensor, "batch 1 rows columns"], classes: Sequence[int]
) -> Bool[Tensor, "batch 1 rows columns"]:
    """True for cells of one of the classes."""
    wanted = torch.tensor(list(classes), dtype=torch.uint8, device=cells.device)
    return torch.isin(cells, wanted)


def feature_distance(
    features: Float[Tensor, "batch channel rows columns"],
    frozen: Float[Tensor, "batch channel rows columns"],
    mask: Bool[Tensor, "batch 1 rows columns"] | None = None,
) -> Float[Tensor, ""]:
    """Mean distance of two feature maps over the cells of a mask, by default all.

    It is 0 where the mask is empty; the official code has NaN there, without a gradient.
    """
    distances = (features.float() - frozen.float()).norm(dim=1, keepdim=True)
    if mask is None:
        return distances.mean()
    count = over_processes(mask.sum().to(distances.dtype))
    return (distances * mask).sum() / count.clamp(min=1 / _processes())


def _processes() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
