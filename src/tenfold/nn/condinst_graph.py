"""CondInst's detection as one graph of fixed shapes, for export; `CondInst.detect` is the same.

What is not there (fewer objects than there is room for) has score 0.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from .boxes import clip_to
from .condinst import CondInst, in_picture
from .dynamic_masks import masks_of_picture
from .fcos import HeadOutputs
from .suppression import kept

Found = tuple[
    Float[Tensor, "object 4"], Float[Tensor, " object"], Int64[Tensor, " object"],
    Float[Tensor, "object height width"],
]  # fmt: skip
"""Boxes in pixels of the picture, scores, labels, probabilities of masks."""


class DetectionGraph(nn.Module):
    """A network, for one picture whose sides are multiples of 32."""

    def __init__(self, network: CondInst) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Float[Tensor, "1 3 height width"]) -> Found:
        """The best objects of a picture in RGB from 0 to 255, best first."""
        network, settings = self.network, self.network.settings
        size = (image.shape[2], image.shape[3])
        levels = network.levels(network.normalised(image))
        outputs = network.fcos(levels)
        best, labels, places = self._candidates(outputs)
        boxes = clip_to(outputs.boxes[0, places], *size)
        # a box that lies outside of the picture is none, and goes to the end
        best = torch.where((boxes[:, 2:] > boxes[:, :2]).all(1), best, 0.0)
        best, order = best.topk(best.shape[0])
        boxes, labels, places = boxes[order], labels[order], places[order]
        logits = masks_of_picture(
            network.branch(levels), outputs.parameters[0, places], outputs.locations[places],
            outputs.levels[places], settings.mask,
        )  # fmt: skip
        masks = in_picture(logits.sigmoid(), size, size)
        if settings.cut:
            low, high = boxes.trunc().split(2, 1)
            y, x = (torch.arange(n, device=image.device) for n in size)
            rows = (y >= low[:, 1:]) & (y < high[:, 1:])
            columns = (x >= low[:, :1]) & (x < high[:, :1])
            masks = masks * rows[:, :, None] * columns[:, None]
        is_there = best > 0
        boxes, labels = boxes * is_there[:, None], labels * is_there
        return boxes, best.sqrt(), labels, masks * is_there[:, None, None]

    def _candidates(self, outputs: HeadOutputs) -> tuple[Tensor, Tensor, Tensor]:
        """Probability times centreness, classes and places of what suppression leaves."""
        limits, chances = self.network.settings.detection, outputs.scores[0]
        classes, start = chances.shape[1], 0
        scores, labels, places = [], [], []
        for rows, columns in outputs.sizes:
            part = chances[start : start + rows * columns].flatten()
            best, at = part.topk(min(limits.per_level, part.shape[0]))
            scores.append(best)
            labels.append(at % classes)
            places.append(at // classes + start)
            start += rows * columns
        score, label, place = torch.cat(scores), torch.cat(labels), torch.cat(places)
        of_class = label == torch.arange(classes, device=label.device)[:, None]
        boxes = outputs.boxes[:, place].expand(classes, -1, -1)
        keep = kept(boxes, torch.where(of_class, score, 0.0), limits.nms, limits.threshold)
        best, at = torch.where(keep.any(0), score, 0.0).topk(min(limits.most, score.shape[0]))
        return best, label[at], place[at]
