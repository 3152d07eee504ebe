"""Losses of masks, each object under its own supervision, in one batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from .mask_losses import (
    SIMILAR,
    STRIDE,
    cells_of_boxes,
    colour_similarity,
    dice_loss,
    pairwise_loss,
    point_loss,
    projection_loss,
)
from .norm import world_mean

WithPoints = Literal["box+point", "point", "box"]


class Supervision(IntEnum):
    """Knowledge about the mask of an object in training; its box and class are always known.

    Tensors are compared with its numbers: torch.compile takes them to differ from an enum.
    """

    MASK = 0
    BOX = 1
    POINTS = 2


@dataclass(frozen=True)
class Targets:
    """Objects of one picture of a batch, in pixels of that picture."""

    boxes: Float[Tensor, "object 4"]
    labels: Int64[Tensor, " object"]
    kinds: Int64[Tensor, " object"]
    """`Supervision` of each."""
    masks: Bool[Tensor, "object height width"] | None = None
    """Needed if an object's kind is MASK; others' are not looked at."""
    points: Float[Tensor, "object point 2"] | None = None
    """x and y; needed if an object's kind is POINTS. The middle of the first pixel is (.5, .5)."""
    point_labels: Int64[Tensor, "object point"] | None = None
    """1 on the object, 0 off it, -1 where there is no point, or no answer."""
    bottom: int = 0
    """Rows at the picture's lower end whose colours do not count (BoxInst on COCO: 10)."""

    def __post_init__(self) -> None:
        assert self.masks is not None or not (self.kinds == int(Supervision.MASK)).any()
        has_points = self.points is not None and self.point_labels is not None
        assert has_points or not (self.kinds == int(Supervision.POINTS)).any()

    def to(self, device: torch.device) -> Targets:
        """The same on a device."""
        parts = vars(self).items()
        tensors: dict[str, Any] = {k: v.to(device) for k, v in parts if isinstance(v, Tensor)}
        return replace(self, **tensors)

    @property
    def centres(self) -> Float[Tensor, "object 2"]:
        """Centres of mass of objects with masks, centres of the boxes of others."""
        boxes = self.boxes.float()
        found = (boxes[:, :2] + boxes[:, 2:]) / 2
        known = self.kinds == int(Supervision.MASK)
        if self.masks is None or not known.any():
            return found
        masks = self.masks[known].float()
        area = masks.sum((1, 2))
        x = (masks.sum(1) * torch.arange(masks.shape[2], device=masks.device)).sum(1)
        y = (masks.sum(2) * torch.arange(masks.shape[1], device=masks.device)).sum(1)
        of_mass = torch.stack([x, y], 1) / area[:, None]
        found[known] = torch.where((area > 0)[:, None], of_mass, found[known])
        return found

    def cells(self, rows: int, columns: int) -> Float[Tensor, "object rows columns"]:
        """Masks at the middle of each cell of a map; 0 without masks."""
        found = torch.zeros(len(self.boxes), rows, columns, device=self.boxes.device)
        if self.masks is not None:
            cells = self.masks[:, STRIDE // 2 :: STRIDE, STRIDE // 2 :: STRIDE].float()
            found[:, : cells.shape[1], : cells.shape[2]] = cells
        return found


def valid(
    images: Float[Tensor, "image 3 height width"],
    sizes: Int64[Tensor, "image 2"],
    bottoms: Sequence[int] | None = None,
) -> Bool[Tensor, "image height width"]:
    """Pixels of a batch that belong to the pictures, without some rows at the lower end."""
    height, width = images.shape[2:]
    rows = sizes[:, 0] - torch.tensor(bottoms or [0] * len(sizes), device=sizes.device)
    y = torch.arange(height, device=sizes.device)[None, :, None]
    x = torch.arange(width, device=sizes.device)[None, None]
    return (y < rows[:, None, None]) & (x < sizes[:, 1, None, None])


def mask_losses(
    logits: Float[Tensor, "mask rows columns"],
    image: Int64[Tensor, " mask"],
    rows: Int64[Tensor, " mask"],
    targets: Sequence[Targets],
    images: Float[Tensor, "image 3 height width"],
    counts: Bool[Tensor, "image height width"],
    with_points: WithPoints,
    point_weight: float,
    pairwise_weight: float,
) -> dict[str, Float[Tensor, ""]]:
    """Losses "mask", "projection", "pairwise" and "point", each of the objects that it concerns.

    Where all masks are of one kind, these are the published losses. In a mixture each mask has the
    same weight: the mean of each loss is multiplied by the share of masks that have it. Numbers are
    counted over all processes.

    Args:
        logits: Of masks over the batch's pictures, at `mask_losses.STRIDE`.
        image: Picture of each mask.
        rows: Row of its object in the picture.
        targets: Objects of each picture.
        images: RGB in 0 to 255.
        counts: Pixels whose colours count.
        with_points: Losses of objects with points.
        point_weight: Weight of the loss of points.
        pairwise_weight: Weight of the loss of neighbours.
    """
    starts = torch.tensor([0] + [len(one.boxes) for one in targets], device=logits.device)
    objects = starts.cumsum(0)[image] + rows
    kinds = torch.cat([one.kinds for one in targets])[objects]
    has_mask, has_points = kinds == int(Supervision.MASK), kinds == int(Supervision.POINTS)
    has_box = (kinds == int(Supervision.BOX)) | (has_points & ("box" in with_points))
    has_points &= "point" in with_points

    truth = torch.cat([one.cells(*logits.shape[1:]) for one in targets])[objects[has_mask]]
    boxes = torch.cat([one.boxes for one in targets])[objects[has_box]]
    inside = cells_of_boxes(boxes.float(), *logits.shape[1:])
    edges = torch.zeros(len(inside), 8, *inside.shape[1:], dtype=torch.bool, device=logits.device)
    if len(inside):
        alike = colour_similarity(images, counts) >= SIMILAR
        edges = alike[image[has_box]] & inside[:, None]
    xy, labels = _points(targets)
    labels = labels[objects[has_points]]

    counted = (torch.ones_like(kinds), has_box, has_points, edges, labels >= 0)
    all_masks, boxed, pointed, compared, known = world_mean(
        torch.stack([torch.count_nonzero(x) for x in counted]).float()
    )
    all_masks = all_masks.clamp(min=1)
    scores = logits.sigmoid()
    of_box = scores[has_box]
    pairwise = pairwise_loss(logits[has_box], edges, compared)
    points = point_loss(logits[has_points], xy[objects[has_points]], labels, known)
    return {
        "mask": dice_loss(scores[has_mask], truth).sum() / all_masks,
        "projection": projection_loss(of_box, inside.float()).sum() / all_masks,
        "pairwise": pairwise_weight * (boxed / all_masks) * pairwise,
        "point": point_weight * (pointed / all_masks) * points,
    }


def _points(targets: Sequence[Targets]) -> tuple[Tensor, Tensor]:
    """Points and labels of the objects of all pictures, filled up with -1 to the same number."""
    counts = [0 if one.points is None else one.points.shape[1] for one in targets]
    device = targets[0].boxes.device
    objects = sum(len(one.boxes) for one in targets)
    xy = torch.zeros(objects, max(counts), 2, device=device)
    labels = torch.full((objects, max(counts)), -1, device=device)
    start = 0
    for one, count in zip(targets, counts, strict=True):
        part = slice(start, start + len(one.boxes))
        if one.points is not None and one.point_labels is not None:
            xy[part, :count], labels[part, :count] = one.points.float(), one.point_labels
        start = part.stop
    return xy, labels
