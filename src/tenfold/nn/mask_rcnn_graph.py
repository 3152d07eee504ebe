"""Mask R-CNN's detection as one graph of fixed shapes, for export; `MaskRcnn.detect` is the same.

What is not there (fewer proposals or objects than there is room for) has score 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from .boxes import clip_to, decode, is_large
from .mask_rcnn import OFFSETS, MaskRcnn
from .roi_align import align_levels
from .suppression import kept

NEVER = -1e30
"""Score of what is left out."""
Found = tuple[
    Float[Tensor, "object 4"], Float[Tensor, " object"], Int64[Tensor, " object"],
    Float[Tensor, "object side side"],
]  # fmt: skip
"""Boxes in pixels of the picture, scores, labels, masks within boxes."""


class DetectionGraph(nn.Module):
    """The heads of a detector, for the maps of one picture."""

    def __init__(self, head: MaskRcnn) -> None:
        super().__init__()
        self.head = head

    def forward(
        self, maps: Sequence[Float[Tensor, "1 channel _ _"]], height: int, width: int
    ) -> Found:
        """The best objects of a picture of this size, best first."""
        head, settings = self.head, self.head.settings
        boxes, is_real = self._proposals(maps, height, width)
        logits, offsets = head.box_head(self._pooled(maps, boxes, settings.box_size))
        chances = torch.where(is_real[:, None], logits.softmax(1)[:, :-1], 0.0).T
        start = boxes[:, None].expand_as(offsets)
        refined = clip_to(decode(offsets, start, OFFSETS), height, width).transpose(0, 1)
        keep = kept(refined, chances, settings.nms, settings.score)
        scores = torch.where(keep, chances, 0.0).flatten()
        best, at = scores.topk(min(settings.most, len(scores)))
        labels, rows = at // len(boxes), at % len(boxes)
        found = refined[labels, rows] * (best > 0)[:, None]
        side = 2 * settings.mask_size if head.mask_head is not None else 0
        masks = best.new_zeros(len(best), side, side)
        if head.mask_head is not None:
            pooled = self._pooled(maps, found, settings.mask_size)
            masks = head.mask_head(pooled, labels).sigmoid() * (best > 0)[:, None, None]
        return found, best, labels * (best > 0), masks

    def _proposals(
        self, maps: Sequence[Tensor], height: int, width: int
    ) -> tuple[Float[Tensor, "box 4"], Tensor]:
        """The best boxes of all levels, and whether each is one at all."""
        guesses, settings = self.head.rpn(maps), self.head.rpn.settings
        boxes, scores = [], []
        levels = zip(guesses.logits, guesses.offsets, guesses.anchors, strict=True)
        for score, box, anchor in levels:
            best, rows = score[0].topk(min(settings.before, score.shape[1]))
            found = clip_to(decode(box[0][rows], anchor[rows]), height, width)
            best = torch.where(is_large(found, 1), best, NEVER)
            keep = kept(found[None], best[None], settings.nms, NEVER / 2)[0]
            boxes.append(found)
            scores.append(torch.where(keep, best, NEVER))
        every = torch.cat(scores)
        best, rows = every.topk(min(settings.after, len(every)))
        return torch.cat(boxes)[rows], best > NEVER / 2

    def _pooled(self, maps: Sequence[Tensor], boxes: Tensor, size: int) -> Tensor:
        return align_levels(maps[:-1], self.head.strides[:-1], boxes, size)
