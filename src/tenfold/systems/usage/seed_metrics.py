"""Measures of seed areas: the threshold sweep with its errors of both kinds, and classification AP.

The sweep is that of MCTformer (evaluation.py of xulianuwa/MCTformer): at threshold t a pixel takes
the class of its highest map if that exceeds t, and background otherwise. Its script reads all maps
again for each t and counts in 32 bits; here one count over (truth, winning class, number of
thresholds that the winner exceeds) holds every t, and pictures are added one at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int, Int64, UInt8
from torch import Tensor

from tenfold.metrics.iou import IGNORED

THRESHOLDS = tuple(i / 100 for i in range(60))
"""0.00, 0.01 ... 0.59 (evaluation.py)."""
HALF = 0.005
"""Half of the sweep's step: a threshold that is no farther from its end is nearest to that."""
Absent = Literal["skip", "zero"]


def labels_at(
    maps: Float[Tensor, "class height width"], threshold: float
) -> UInt8[Tensor, "height width"]:
    """Label map at a threshold: 0 is background, class c is c + 1; ties go to the lower label."""
    best, winner = maps.max(0)
    return torch.where(best > best.new_tensor(threshold), winner + 1, 0).to(torch.uint8)


@dataclass(frozen=True)
class Curve:
    """Results of a sweep at every threshold, in percent."""

    thresholds: tuple[float, ...]
    miou: Float[Tensor, " threshold"]
    iou: Float[Tensor, "threshold class"]
    """Background first; NaN for a class that is neither true nor predicted, under "skip"."""
    fp: Float[Tensor, " threshold"]
    """Pixels wrongly given to a class over the union, mean over classes: over-activation."""
    fn: Float[Tensor, " threshold"]
    """Pixels of a class that were missed over the union, mean over classes: under-activation."""

    @property
    def best(self) -> int:
        """Row of the highest mIoU, the lowest threshold among equals."""
        return int(self.miou.argmax())

    def at(self, threshold: float) -> int:
        """Row of the threshold that is nearest.

        Raises:
            ValueError: It lies beyond the ends of the sweep, whose rows tell nothing of it.
        """
        low, high = self.thresholds[0], self.thresholds[-1]
        if not low - HALF <= threshold <= high + HALF:
            raise ValueError(
                f"threshold {threshold:g} was not measured: the sweep is from {low:g} to {high:g}; "
                "let its thresholds reach so far"
            )
        return min(
            range(len(self.thresholds)), key=lambda row: abs(self.thresholds[row] - threshold)
        )


class Sweep:
    """Confusion of seeds and truth at every threshold, picture by picture."""

    def __init__(self, num_classes: int, thresholds: Sequence[float] = THRESHOLDS) -> None:
        """Start without pictures; `num_classes` counts the background."""
        if not thresholds or list(thresholds) != sorted(set(thresholds)):
            raise ValueError(f"thresholds must rise, got {list(thresholds)}")
        self.thresholds = tuple(float(t) for t in thresholds)
        self.num_classes = num_classes
        self.exceeded = torch.zeros(
            num_classes, num_classes - 1, len(self.thresholds) + 1, dtype=torch.int64
        )
        """Pixels by truth, class of the highest map, and number of thresholds below its value.

        Sums of it are the counts of several sweeps together.
        """

    def add(
        self,
        maps: Float[Tensor, "class height width"],
        truth: Int[Tensor, "height width"],
    ) -> None:
        """Count a picture; maps of absent classes are 0, pixels with truth 255 are left out."""
        if len(maps) != self.num_classes - 1:
            raise ValueError(
                f"{len(maps)} maps, but {self.num_classes - 1} classes beside the background"
            )
        counted = truth != IGNORED
        true = truth[counted].long()
        if len(true) and not 0 <= int(true.min()) <= int(true.max()) < self.num_classes:
            raise ValueError(
                f"true labels reach {int(true.min())}..{int(true.max())}, allowed are "
                f"0..{self.num_classes - 1} ({IGNORED} is ignored)"
            )
        best, winner = maps.max(0)
        rises = torch.tensor(self.thresholds, dtype=maps.dtype, device=maps.device)
        below = torch.searchsorted(rises, best[counted])  # thresholds that the winner exceeds
        rows = true * (self.num_classes - 1) + winner[counted]
        found = torch.bincount(rows * (len(rises) + 1) + below, minlength=self.exceeded.numel())
        self.exceeded += found.view(self.exceeded.shape).cpu()

    @property
    def counts(self) -> Int64[Tensor, "threshold class class"]:
        """Confusion (true, predicted) at every threshold."""
        reached = self.exceeded.flip(2).cumsum(2).flip(2)  # pixels that exceed at least so many
        seeds = reached[..., 1:]
        background = (self.exceeded.sum(2, keepdim=True) - seeds).sum(1, keepdim=True)
        return torch.cat([background, seeds], 1).permute(2, 0, 1)

    def curve(self, absent: Absent = "skip") -> Curve:
        """mIoU, IoU, FP and FN at every threshold.

        A class that is neither true nor predicted is left out of means ("skip"), or counts 0 as in
        MCTformer's script ("zero").
        """
        counts = self.counts.double()
        right = counts.diagonal(dim1=1, dim2=2)
        true, found = counts.sum(2), counts.sum(1)
        union = true + found - right
        occurs = (union > 0) if absent == "skip" else torch.ones_like(union, dtype=torch.bool)

        def of_class(part: Tensor) -> Tensor:
            return torch.where(occurs, 100 * part / union.clamp(min=1), torch.nan)

        iou, fp, fn = of_class(right), of_class(found - right), of_class(true - right)
        means = (part.nanmean(1).nan_to_num() for part in (iou, fp, fn))
        miou, mean_fp, mean_fn = means
        return Curve(self.thresholds, miou, iou, mean_fp, mean_fn)


def average_precision(
    scores: Float[Tensor, "picture class"], labels: Bool[Tensor, "picture class"]
) -> Float[Tensor, " class"]:
    """Average precision of each class over pictures, in percent; NaN without a positive picture.

    The mean of the precision at every positive picture; of pictures with equal scores all are
    taken together, so that their order does not count. (MCTformer's log has the AP of a picture
    over classes instead.)
    """
    found = []
    for score, positive in zip(scores.T, labels.T, strict=True):
        values, inverse = score.unique(return_inverse=True)  # rising
        hits = torch.bincount(inverse, positive.double(), len(values)).flip(0)
        every = torch.bincount(inverse, minlength=len(values)).flip(0)
        precision = hits.cumsum(0) / every.cumsum(0)
        found.append(100 * (precision * hits).sum() / hits.sum())  # 0 / 0 is NaN
    return torch.stack(found) if found else scores.new_zeros(0).double()
