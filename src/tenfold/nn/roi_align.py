"""RoIAlign: features of boxes by bilinear sampling (He et al. 2017), in plain torch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from .boxes import area

POINTS = 2_000_000
"""Sampled points (times channels, in units of 64) that are gathered at once."""


def roi_align(
    features: Float[Tensor, "batch channel height width"],
    boxes: Float[Tensor, "box 4"],
    owner: Int64[Tensor, " box"],
    size: int,
    stride: int | float,
    samples: int = 2,
) -> Float[Tensor, "box channel size size"]:
    """Average of samples x samples bilinear samples in each of size x size parts of a box.

    boxes: in pixels of the picture; owner: row of the batch. Half a pixel is subtracted, so that
    pixel centres lie at whole coordinates (aligned=True of detectron2 and mmcv). Points more than a
    pixel outside give 0, those nearer the border value.
    """
    batch, channels, height, width = features.shape
    if not len(boxes):
        return features.new_zeros(0, channels, size, size)
    points = size * samples
    steps = (torch.arange(points, device=boxes.device, dtype=torch.float32) + 0.5) / points
    corners = boxes.float() / stride - 0.5
    extent = corners[:, 2:] - corners[:, :2]
    x = corners[:, :1] + steps * extent[:, :1]
    y = corners[:, 1:2] + steps * extent[:, 1:2]
    flat = features.permute(0, 2, 3, 1).reshape(batch * height * width, channels)
    chunk = max(1, POINTS * 64 // (points * points * max(64, channels)))
    parts = []
    for start in range(0, len(boxes), chunk):
        some = slice(start, start + chunk)
        parts.append(_sampled(flat, x[some], y[some], owner[some], (height, width), size))
    return torch.cat(parts)


def _sampled(
    flat: Tensor, x: Tensor, y: Tensor, owner: Tensor, sides: tuple[int, int], size: int
) -> Tensor:
    """Sample at all x by all y of each box, then average bins."""
    height, width = sides
    left, right, of_x = _neighbours(x, width)
    top, bottom, of_y = _neighbours(y, height)
    base = owner[:, None, None] * (height * width)
    total: Tensor | float = 0.0
    for row, wy in ((top, 1 - of_y[0]), (bottom, of_y[0])):
        for column, wx in ((left, 1 - of_x[0]), (right, of_x[0])):
            index = base + row[:, :, None] * width + column[:, None, :]
            weight = (wy * of_y[1])[:, :, None] * (wx * of_x[1])[:, None, :]
            total = total + flat[index] * weight[..., None].to(flat.dtype)
    assert isinstance(total, Tensor)
    count, points = x.shape
    bins = total.view(count, size, points // size, size, points // size, -1)
    return bins.mean((2, 4)).permute(0, 3, 1, 2)


def _neighbours(at: Tensor, size: int) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
    """Both neighbours of a coordinate, and (weight of the second, 1 if it counts at all)."""
    inside = ((at >= -1) & (at <= size)).to(at.dtype)
    at = at.clamp(0, size - 1)
    first = at.floor().long()
    return first, (first + 1).clamp(max=size - 1), (at - first, inside)


def assign_levels(
    boxes: Float[Tensor, "box 4"], num_levels: int, finest: int | float = 56
) -> Int64[Tensor, " box"]:
    """Level of a pyramid for each box: larger boxes go to coarser levels (FPN, eq. 1).

    finest: boxes of less than twice this side (square root of the area) go to level 0.
    """
    level = (area(boxes.float()).sqrt() / finest + 1e-6).log2().floor()
    return level.clamp(0, num_levels - 1).long()


def multi_level_roi_align(
    maps: Sequence[Float[Tensor, "batch channel ..."]],
    strides: Sequence[int],
    boxes: Float[Tensor, "box 4"],
    owner: Int64[Tensor, " box"],
    size: int,
    samples: int = 2,
) -> Float[Tensor, "box channel size size"]:
    """RoIAlign of each box on the level of its size; strides 4 to 32 have boxes of 56 upwards."""
    levels = assign_levels(boxes, len(maps), 14 * strides[0])
    order, parts = [], []
    for level, (x, stride) in enumerate(zip(maps, strides, strict=True)):
        rows = (levels == level).nonzero()[:, 0]
        order.append(rows)
        parts.append(roi_align(x, boxes[rows], owner[rows], size, stride, samples))
    back = torch.cat(order).argsort()
    return torch.cat(parts)[back]


def align_levels(
    maps: Sequence[Float[Tensor, "1 channel ..."]],
    strides: Sequence[int],
    boxes: Float[Tensor, "box 4"],
    size: int,
    samples: int = 2,
) -> Float[Tensor, "box channel size size"]:
    """`multi_level_roi_align` of one picture, whose shapes do not depend on values (for export)."""
    levels = assign_levels(boxes, len(maps), 14 * strides[0])
    points = size * samples
    sides = torch.tensor([list(x.shape[2:]) for x in maps], device=boxes.device)
    ends = (sides[:, 0] * sides[:, 1]).cumsum(0)
    base = (ends - sides[:, 0] * sides[:, 1])[levels]
    height, width = sides[levels, 0], sides[levels, 1]
    stride = torch.tensor(list(strides), device=boxes.device, dtype=torch.float32)[levels]
    steps = (torch.arange(points, device=boxes.device, dtype=torch.float32) + 0.5) / points
    corners = boxes.float() / stride[:, None] - 0.5
    extent = corners[:, 2:] - corners[:, :2]
    left, right, of_x = _beside(corners[:, :1] + steps * extent[:, :1], width[:, None])
    top, bottom, of_y = _beside(corners[:, 1:2] + steps * extent[:, 1:2], height[:, None])
    flat = torch.cat([x[0].flatten(1).T for x in maps])
    total = flat.new_zeros(())
    for row, wy in ((top, 1 - of_y[0]), (bottom, of_y[0])):
        for column, wx in ((left, 1 - of_x[0]), (right, of_x[0])):
            index = base[:, None, None] + row[:, :, None] * width[:, None, None] + column[:, None]
            weight = (wy * of_y[1])[:, :, None] * (wx * of_x[1])[:, None, :]
            total = total + flat[index] * weight[..., None].to(flat.dtype)
    bins = total.unflatten(2, (size, samples)).unflatten(1, (size, samples))
    return bins.mean((2, 4)).permute(0, 3, 1, 2)


def _beside(at: Tensor, size: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
    """`_neighbours` where each row has a size of its own."""
    inside = ((at >= -1) & (at <= size)).to(at.dtype)
    at = torch.minimum(at.clamp(min=0), (size - 1).to(at.dtype))
    first = at.floor().long()
    return first, torch.minimum(first + 1, size - 1), (at - first, inside)
