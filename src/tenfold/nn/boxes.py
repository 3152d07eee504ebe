"""Boxes as x0 y0 x1 y1 in pixels: overlap, coding as offsets, suppression of duplicates."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

Boxes = Float[Tensor, "*box 4"]

LARGEST = math.log(1000 / 16)
"""Largest logarithm of a decoded side over its reference's (Fast R-CNN's code)."""
Weights = tuple[float, float, float, float]
CHUNK = 2048
"""Rows of an overlap matrix that are made at once."""


def area(boxes: Boxes) -> Float[Tensor, "*box"]:
    """Width times height; 0 for boxes that are turned inside out."""
    size = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0)
    return size[..., 0] * size[..., 1]


def iou(a: Float[Tensor, "one 4"], b: Float[Tensor, "other 4"]) -> Float[Tensor, "one other"]:
    """Intersection over union of every pair."""
    low = torch.maximum(a[:, None, :2], b[None, :, :2])
    high = torch.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    union = area(a)[:, None] + area(b)[None] - shared
    return shared / union.clamp(min=1e-9)


def covered(a: Float[Tensor, "one 4"], b: Float[Tensor, "other 4"]) -> Float[Tensor, "one other"]:
    """Share of each box's own area that lies in each of the others."""
    low = torch.maximum(a[:, None, :2], b[None, :, :2])
    high = torch.minimum(a[:, None, 2:], b[None, :, 2:])
    return (high - low).clamp(min=0).prod(-1) / area(a).clamp(min=1e-9)[:, None]


def giou_loss(
    predicted: Float[Tensor, "box 4"], target: Float[Tensor, "box 4"], smooth: float = 0.0
) -> Float[Tensor, " box"]:
    """1 - generalised IoU (Rezatofighi et al. 2019), 0 to 2.

    smooth: is added to intersection and union, in square units of the boxes (FCOS's code has 1).
    """
    low = torch.maximum(predicted[:, :2], target[:, :2])
    high = torch.minimum(predicted[:, 2:], target[:, 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    union = area(predicted) + area(target) - shared
    outer_low = torch.minimum(predicted[:, :2], target[:, :2])
    outer_high = torch.maximum(predicted[:, 2:], target[:, 2:])
    outer = (outer_high - outer_low).clamp(min=0).prod(-1)
    eps = 1e-7
    overlap = (shared + smooth) / (union + smooth + eps)
    return 1 - overlap + (outer - union) / (outer + eps)


def _centre_size(boxes: Tensor) -> tuple[Tensor, Tensor]:
    size = boxes[..., 2:] - boxes[..., :2]
    return boxes[..., :2] + size / 2, size


def encode(
    boxes: Float[Tensor, "*box 4"],
    references: Float[Tensor, "*box 4"],
    weights: Weights = (1.0, 1.0, 1.0, 1.0),
) -> Float[Tensor, "*box 4"]:
    """Offsets dx dy dw dh from references to boxes (R-CNN, appendix C)."""
    centre, size = _centre_size(boxes)
    at, extent = _centre_size(references)
    extent = extent.clamp(min=1e-6)
    offsets = torch.cat([(centre - at) / extent, (size.clamp(min=1e-6) / extent).log()], -1)
    return offsets * offsets.new_tensor(weights)


def decode(
    offsets: Float[Tensor, "*box 4"],
    references: Float[Tensor, "*box 4"],
    weights: Weights = (1.0, 1.0, 1.0, 1.0),
) -> Float[Tensor, "*box 4"]:
    """The boxes that offsets from references mean."""
    offsets = offsets / offsets.new_tensor(weights)
    at, extent = _centre_size(references)
    centre = at + offsets[..., :2] * extent
    half = extent * offsets[..., 2:].clamp(max=LARGEST).exp() / 2
    return torch.cat([centre - half, centre + half], -1)


def clip_to(boxes: Boxes, height: int | float, width: int | float) -> Boxes:
    """Boxes cut at the borders of a picture."""
    limit = boxes.new_tensor([width, height, width, height])
    return torch.minimum(boxes.clamp(min=0), limit)


def is_large(boxes: Boxes, side: int | float) -> Bool[Tensor, "*box"]:
    """Return True for boxes of which both sides are at least `side` long."""
    return ((boxes[..., 2:] - boxes[..., :2]) >= side).all(-1)


def nms(
    boxes: Float[Tensor, "box 4"], scores: Float[Tensor, " box"], threshold: float
) -> Int64[Tensor, " kept"]:
    """Rows that greedy suppression keeps, by falling score; equal scores keep the lower row first.

    A box goes if a kept one of higher score overlaps it by more than the threshold. Solved without
    a loop over boxes: starting from all, "kept" is recomputed from itself until nothing changes.
    The first k boxes are right after k rounds, in practice all after a handful. Memory: four bytes
    a pair.
    """
    order = torch.sort(scores, descending=True, stable=True).indices
    ranked = boxes[order].float()
    parts = [iou(some, ranked) > threshold for some in ranked.split(CHUNK)]
    if not parts:
        return order
    beats = torch.cat(parts).float().triu_(1)
    kept = torch.ones(len(boxes), device=boxes.device)
    while True:
        after = (kept @ beats == 0).float()
        if torch.equal(after, kept):
            return order[kept.bool()]
        kept = after


def batched_nms(
    boxes: Float[Tensor, "box 4"],
    scores: Float[Tensor, " box"],
    groups: Int64[Tensor, " box"],
    threshold: float,
) -> Int64[Tensor, " kept"]:
    """The same within each group (class or level), by falling score over all."""
    kept = []
    for group in groups.unique().tolist():
        rows = (groups == group).nonzero()[:, 0]
        kept.append(rows[nms(boxes[rows], scores[rows], threshold)])
    if not kept:
        return groups
    found = torch.cat(kept).sort().values
    return found[torch.sort(scores[found], descending=True, stable=True).indices]
