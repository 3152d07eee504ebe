"""Choice of the background threshold: with masks, as papers do, and without any.

A criterion sees pictures one at a time, together with their normalised maps (0 to 1; maps of absent
classes are 0), and keeps sums only; it gives a curve over thresholds and a choice. None of the
criteria in `CRITERIA` looks at a mask:

- `activation`: the mean over pictures of the mean of the highest map. It is where the share of
  activation that a seed keeps exceeds its share of the area most.
- `otsu`: the mean of Otsu's thresholds of the maps of present classes.
- `edges`: mutual information of foreground and what a CRF makes of it, which follows the edges of
  the picture: too little or too much foreground says little of anything.
- `stability`: mutual information of the foregrounds of two views (another scale, or flipped).
- `confidence`: the share of the classifier's score that is left when only the seed is shown, less
  the seed's share of the area.

None knows how large objects are. With small ones the best threshold lies higher than all of them
say: `activation` lost at most 0.2 points on `coco_wsss`, where it was chosen, but 6.5 on the half
of its pictures with least foreground, and over 4 on the garments of `clothing_parsing`. Where
a few masks can be drawn, `validation` is the better choice.

`fixed` looks at nothing, `swept` at the masks of the pictures themselves, and `validation` at those
of other pictures. Every choice says which.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from .crf import IRN, MeanField, label_energy
from .seed_metrics import Curve, labels_at

THRESHOLDS = tuple(i / 20 for i in range(1, 14))
"""0.05, 0.10 ... 0.65: what the criteria with a cost per threshold look at."""
LEVELS = 100
"""Steps of the histograms of maps."""
SIDE = 64
"""Longer side of the pictures that the CRF of `edges` sees."""

Maps = Float[Tensor, "class height width"]
Score = Callable[[UInt8[Tensor, "picture height width 3"]], Float[Tensor, " picture"]]
Looks = Literal["nothing", "pictures", "masks of the same pictures", "masks of other pictures"]


@dataclass(frozen=True)
class Seeds:
    """What criteria may look at of one picture."""

    image: UInt8[Tensor, "height width 3"]
    maps: Maps
    """Normalised; 0 where a class is absent."""
    other: Maps | None = None
    """Maps of another view of the same picture, brought back to its place (`stability`)."""
    score: Score | None = None
    """The classifier's score (mean logit of the present classes) of pictures (`confidence`)."""


@dataclass(frozen=True)
class Choice:
    """A threshold, how it was found and what was looked at."""

    name: str
    threshold: float
    looks_at: Looks
    thresholds: tuple[float, ...] = ()
    curve: tuple[float, ...] = ()
    """The criterion at `thresholds`; higher is better."""

    def __str__(self) -> str:
        """The threshold with its setting."""
        return f"{self.threshold:.2f} ({self.name}: looks at {self.looks_at})"


class Criterion(Protocol):
    """An accumulator over pictures."""

    def add(self, seeds: Seeds) -> None:
        """Look at a picture."""

    def choice(self) -> Choice | None:
        """Give the threshold that fits the pictures seen best; None where none tells anything."""


def _highest(name: str, curve: Sequence[float]) -> Choice:
    best = max(range(len(curve)), key=lambda row: curve[row])
    return Choice(name, THRESHOLDS[best], "pictures", THRESHOLDS, tuple(curve))


def _levels(values: Tensor) -> Float[Tensor, " level"]:
    """Share of pixels at every level from 0 to 1."""
    found = torch.histc(values.float().clamp(0, 1), LEVELS, 0, 1).double()
    return found / found.sum()


def _above(shares: Float[Tensor, " level"]) -> tuple[Tensor, Tensor]:
    """Share of pixels, and sum of their values, above every inner border of levels."""
    middle = (torch.arange(LEVELS, dtype=torch.float64) + 0.5) / LEVELS
    area = shares.flip(0).cumsum(0).flip(0)[1:]
    value = (shares * middle).flip(0).cumsum(0).flip(0)[1:]
    return area, value


class Activation:
    """The mean activation: where kept activation exceeds kept area most."""

    def __init__(self) -> None:
        self.means: list[float] = []
        self.curve: Tensor = torch.zeros(LEVELS - 1, dtype=torch.float64)

    def add(self, seeds: Seeds) -> None:
        """Look at a picture."""
        highest = seeds.maps.amax(0)
        if not bool(highest.any()):  # no class is present, or none activates
            return
        mean = float(highest.double().mean())
        area, value = _above(_levels(highest))
        self.means.append(mean)
        self.curve += value / mean - area

    def choice(self) -> Choice | None:
        """The mean over pictures; the curve's own peak is near it."""
        return _of_levels("activation", self.means, self.curve)


class Otsu:
    """The threshold between whose sides a map's values differ most, mean over maps."""

    def __init__(self) -> None:
        self.found: list[float] = []
        self.curve: Tensor = torch.zeros(LEVELS - 1, dtype=torch.float64)

    def add(self, seeds: Seeds) -> None:
        """Look at a picture's maps of present classes."""
        for one in seeds.maps:
            if not bool(one.any()):
                continue
            shares = _levels(one)
            area, value = _above(shares)
            whole = float(value[0] + shares[0] * 0.5 / LEVELS)
            between = (value - whole * area).square() / (area * (1 - area)).clamp(min=1e-9)
            self.found.append((int(between.argmax()) + 1) / LEVELS)
            self.curve += between / between.max().clamp(min=1e-12)

    def choice(self) -> Choice | None:
        """The mean over pictures and classes."""
        return _of_levels("otsu", self.found, self.curve)


def _of_levels(name: str, found: list[float], curve: Tensor) -> Choice | None:
    if not found:
        return None
    borders = tuple(i / LEVELS for i in range(1, LEVELS))
    scores = tuple((curve / len(found)).tolist())
    return Choice(name, statistics.fmean(found), "pictures", borders, scores)


def mutual_information(counts: Int64[Tensor, "*case 2 2"]) -> Float[Tensor, "*case"]:
    """Mutual information of two binary maps, in nats, from counts of their pairs of values."""
    shares = counts.double() / counts.sum((-2, -1), keepdim=True).clamp(min=1)
    alone = shares.sum(-1, keepdim=True) * shares.sum(-2, keepdim=True)
    return torch.where(shares > 0, shares * (shares / alone).log(), 0).sum((-2, -1))


def _pairs(
    one: Bool[Tensor, "height width"], other: Bool[Tensor, "height width"]
) -> Int64[Tensor, "2 2"]:
    return torch.bincount((2 * one.long() + other.long()).flatten(), minlength=4).view(2, 2)


class Edges:
    """Mutual information of the foreground before and after a CRF, over thresholds.

    The CRF (labels as IRN gives them) sees the picture at `SIDE` pixels; its kernel is made once
    for all thresholds.
    """

    def __init__(self) -> None:
        self.counts: Tensor = torch.zeros(len(THRESHOLDS), 2, 2, dtype=torch.int64)

    def add(self, seeds: Seeds) -> None:
        """Look at a picture."""
        present = seeds.maps.flatten(1).amax(1) > 0
        if not bool(present.any()):
            return
        height, width = seeds.image.shape[:2]
        share = min(1.0, SIDE / max(height, width))
        size = (max(1, round(height * share)), max(1, round(width * share)))
        colours = seeds.image.permute(2, 0, 1)[None].float()
        image = F.interpolate(colours, size=size, mode="area")[0].permute(1, 2, 0).round()
        maps = F.interpolate(seeds.maps[present][None], size=size, mode="area")[0]
        labels = torch.stack([labels_at(maps, threshold) for threshold in THRESHOLDS]).long()
        options = replace(
            IRN,
            bilateral_sxy=IRN.bilateral_sxy * share,
            gaussian_sxy=max(1.0, IRN.gaussian_sxy * share),
        )
        energies = [label_energy(one, options.gt_prob, len(maps) + 1) for one in labels]
        snapped = MeanField(image.to(torch.uint8), options).run(torch.stack(energies)).argmax(1)
        for row, (before, after) in enumerate(zip(labels, snapped, strict=True)):
            self.counts[row] += _pairs(before > 0, after > 0).cpu()

    def choice(self) -> Choice:
        """The threshold whose foreground the CRF's tells most about."""
        return _highest("edges", mutual_information(self.counts).tolist())

    def growth(self) -> tuple[float, ...]:
        """Area of the foreground after the CRF, as a multiple of that before."""
        before, after = self.counts[:, 1].sum(1), self.counts[:, :, 1].sum(1)
        return tuple((after / before.clamp(min=1)).tolist())


class Stability:
    """Mutual information of the foregrounds of two views of a picture, over thresholds."""

    def __init__(self) -> None:
        self.counts: Tensor = torch.zeros(len(THRESHOLDS), 2, 2, dtype=torch.int64)

    def add(self, seeds: Seeds) -> None:
        """Look at a picture's two views."""
        if seeds.other is None:
            raise ValueError("threshold stability needs the maps of another view")
        here, there = seeds.maps.amax(0), seeds.other.amax(0)
        for row, threshold in enumerate(THRESHOLDS):
            self.counts[row] += _pairs(here > threshold, there > threshold).cpu()

    def choice(self) -> Choice:
        """The threshold whose two foregrounds tell most about each other."""
        return _highest("stability", mutual_information(self.counts).tolist())


class Confidence:
    """Share of the classifier's score that the seed alone keeps, less its share of the area.

    What is not shown is the picture's mean colour; a picture of that alone scores 0, the whole
    picture 1. The median over pictures is taken: where the whole hardly scores more than the empty
    one, shares are wild. (The score of what is left when the seed is removed chose thresholds that
    cost more, and is not used.)
    """

    def __init__(self) -> None:
        self.gains: list[Tensor] = []
        self.kept: list[Tensor] = []

    def add(self, seeds: Seeds) -> None:
        """Look at a picture; the score is asked once, for all thresholds."""
        if seeds.score is None:
            raise ValueError("threshold confidence needs the classifier's score")
        highest = seeds.maps.amax(0)
        if not bool(highest.any()):
            return
        image = seeds.image
        empty = image.float().mean((0, 1), keepdim=True).round().to(torch.uint8).expand_as(image)
        shown = [highest > threshold for threshold in THRESHOLDS]
        views = [image, empty, *(torch.where(one[..., None], image, empty) for one in shown)]
        whole, nothing, *kept = seeds.score(torch.stack(views)).double()
        if whole <= nothing:
            return
        shares = (torch.stack(kept) - nothing) / (whole - nothing)
        self.kept.append(shares)
        self.gains.append(shares - torch.stack([one.double().mean() for one in shown]))

    def choice(self) -> Choice | None:
        """The threshold with the highest median; None if no picture scores above its colour."""
        if not self.gains:
            return None
        return _highest("confidence", torch.stack(self.gains).median(0).values.tolist())


CRITERIA: Mapping[str, type[Criterion]] = {
    "activation": Activation,
    "otsu": Otsu,
    "edges": Edges,
    "stability": Stability,
    "confidence": Confidence,
}
"""Criteria that look at no mask, by name; the first lost least on the set we chose it on."""


def choose(names: str | Sequence[str], pictures: Iterable[Seeds]) -> dict[str, Choice]:
    """Choices of some criteria over the same pictures, each seen once, of those that have one."""
    names = [names] if isinstance(names, str) else list(names)
    unknown = [name for name in names if name not in CRITERIA]
    if unknown:
        raise ValueError(f"no criterion {unknown[0]!r}; there are {', '.join(CRITERIA)}")
    criteria = {name: CRITERIA[name]() for name in names}
    for seeds in pictures:
        for criterion in criteria.values():
            criterion.add(seeds)
    found = {name: criterion.choice() for name, criterion in criteria.items()}
    return {name: choice for name, choice in found.items() if choice is not None}


def fixed(threshold: float) -> Choice:
    """A threshold given beforehand."""
    if not 0 <= threshold < 1:
        raise ValueError(f"a threshold is from 0 to below 1, got {threshold}")
    return Choice("fixed", threshold, "nothing")


def swept(curve: Curve) -> Choice:
    """The best threshold on the masks of the same pictures, as papers report it."""
    return _measured("swept", curve, "masks of the same pictures")


def validation(curve: Curve) -> Choice:
    """The best threshold on the masks of other pictures than those it is used for."""
    return _measured("validation", curve, "masks of other pictures")


def _measured(name: str, curve: Curve, looks_at: Looks) -> Choice:
    threshold = curve.thresholds[curve.best]
    return Choice(name, threshold, looks_at, curve.thresholds, tuple(curve.miou.tolist()))


def loss(choice: Choice, curve: Curve) -> float:
    """Points of mIoU that a choice loses against the best threshold of the sweep."""
    return float(curve.miou[curve.best] - curve.miou[curve.at(choice.threshold)])
