"""What was found, missed and invented of each class, and the quality that follows."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Counts:
    """Pairs and leftovers of one class.

    Panoptic quality (Kirillov et al., 2019, eq. 1) is quality / (tp + fp / 2 + fn / 2).
    """

    tp: int = 0
    """Pairs of a true and a found segment."""
    fp: int = 0
    """Found segments without a true one."""
    fn: int = 0
    """True segments that were not found."""
    quality: float = 0.0
    """Sum over the pairs: their overlaps, or what stands for these."""

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.tp + other.tp, self.fp + other.fp, self.fn + other.fn, self.quality + other.quality
        )

    @property
    def weight(self) -> float:
        """Segments, leftovers by half; 0 for a class that is nowhere."""
        return self.tp + self.fp / 2 + self.fn / 2

    @property
    def pq(self) -> float:
        """Panoptic quality, 0 to 1."""
        return self.quality / self.weight if self.weight else 0.0

    @property
    def sq(self) -> float:
        """Segmentation quality: the mean of the pairs, 0 to 1."""
        return self.quality / self.tp if self.tp else 0.0

    @property
    def rq(self) -> float:
        """Recognition quality: the share of pairs, 0 to 1."""
        return self.tp / self.weight if self.weight else 0.0

    @property
    def losses(self) -> dict[str, float]:
        """Shares of the quality that is lost to "iou", "fp" and "fn"; with `pq` they sum to 1."""
        total = self.weight or 1.0
        lost = (self.tp - self.quality, self.fp / 2, self.fn / 2)
        return {name: value / total for name, value in zip(("iou", "fp", "fn"), lost, strict=True)}


Table = dict[str, Counts]
"""Class -> counts."""


@dataclass(frozen=True)
class Quality:
    """Counts of classes, and their means over those that are anywhere."""

    classes: Table

    def among(self, names: Collection[str]) -> Quality:
        """The same of some classes: things, stuff, classes with parts."""
        return Quality({name: one for name, one in self.classes.items() if name in names})

    @property
    def present(self) -> Table:
        """Classes that are true or found anywhere."""
        return {name: counts for name, counts in self.classes.items() if counts.weight}

    @property
    def pq(self) -> float:
        """Mean quality, 0 to 1."""
        return _mean([counts.pq for counts in self.present.values()])

    @property
    def sq(self) -> float:
        """Mean segmentation quality."""
        return _mean([counts.sq for counts in self.present.values()])

    @property
    def rq(self) -> float:
        """Mean recognition quality."""
        return _mean([counts.rq for counts in self.present.values()])

    @property
    def losses(self) -> dict[str, float]:
        """Mean shares that are lost; with `pq` they sum to 1, unless no class is present."""
        every = [counts.losses for counts in self.present.values()]
        return {name: _mean([one[name] for one in every]) for name in ("iou", "fp", "fn")}


def joined(first: Mapping[str, Counts], second: Mapping[str, Counts]) -> Table:
    """The sum of two tables."""
    names = [*first, *(name for name in second if name not in first)]
    return {name: first.get(name, Counts()) + second.get(name, Counts()) for name in names}


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0
