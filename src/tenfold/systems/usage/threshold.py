"""Choice of the background threshold: with masks, as papers do, and without any.

A criterion looks at pictures one at a time, together with their normalised maps (0 to 1; maps of
absent classes are 0), and finds a few numbers of each; by those of all it gives a curve over
thresholds and a choice. None of the criteria in `CRITERIA` looks at a mask:

- `activation`: the mean over pictures of the mean of the highest map. It is where the share of
  activation that a seed keeps exceeds its share of the area most.
- `total`: the mean over pictures of the mean of all maps' sum (at most 1): a pixel is kept if its
  own class says more there than all classes together say of an average pixel. With one class in a
  picture it is `activation`; the more classes share a picture, the more their maps overlap, the
  higher it is.
- `otsu`: the mean of Otsu's thresholds of the maps of present classes.
- `otsu_picture`: the mean of Otsu's thresholds of the highest map of each picture.
- `edges`: mutual information of foreground and what a CRF makes of it, which follows the edges of
  the picture: too little or too much foreground says little of anything.
- `stability`: mutual information of the foregrounds of two views (another scale, or flipped).
- `confidence`: the share of the classifier's score that is left when only the seed is shown, less
  the seed's share of the area.

`total` loses least over both sets: 0.3 points against the best threshold on `clothing_parsing`,
where it was chosen, and 0.2 and 0.7 on training and test pictures of `coco_wsss`, where it was
confirmed (claims/usage-unseen.md). None knows how large objects are: on the half of the pictures
with least foreground the best threshold lies higher than all of them say. Where a few masks can be
drawn, `validation` is the better choice.

`fixed` looks at nothing, `swept` at the masks of the pictures themselves, and `validation` at those
of other pictures. Every choice says which.
"""

from __future__ import annotations

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
    """Numbers of each picture, which processes may share, and the choice by those of all."""

    def look(self, seeds: Seeds) -> Tensor | None:
        """Find what counts of a picture; None where it tells nothing."""

    def choice(self, found: Sequence[Tensor]) -> Choice | None:
        """Give the threshold that fits the pictures best; None where none tells anything."""


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

    def look(self, seeds: Seeds) -> Float[Tensor, "1 value"] | None:
        """Find the mean, and the curve."""
        highest = seeds.maps.amax(0)
        if not bool(highest.any()):  # no class is present, or none activates
            return None
        mean = highest.double().mean()
        area, value = _above(_levels(highest))
        return torch.cat([mean[None], value / mean - area])[None]

    def choice(self, found: Sequence[Tensor]) -> Choice | None:
        """The mean over pictures; the curve's own peak is near it."""
        return _of_levels("activation", found)


class Total:
    """The mean of the sum of all maps: what an average pixel gets of all classes together."""

    def look(self, seeds: Seeds) -> Float[Tensor, "1 value"] | None:
        """Find the mean, and how much kept activation exceeds kept area charged with it."""
        highest = seeds.maps.amax(0)
        if not bool(highest.any()):
            return None
        mean = seeds.maps.sum(0).double().mean().clamp(max=1)
        area, value = _above(_levels(highest))
        return torch.cat([mean[None], value - mean * area])[None]

    def choice(self, found: Sequence[Tensor]) -> Choice | None:
        """The mean over pictures; the curve's own peak is near it."""
        return _of_levels("total", found)


class Otsu:
    """The threshold between whose sides a map's values differ most, mean over maps."""

    def look(self, seeds: Seeds) -> Float[Tensor, "map value"] | None:
        """Find the threshold and the curve of the maps of present classes."""
        rows = [_otsu(one) for one in seeds.maps if bool(one.any())]
        return torch.stack(rows) if rows else None

    def choice(self, found: Sequence[Tensor]) -> Choice | None:
        """The mean over pictures and classes."""
        return _of_levels("otsu", found)


class OtsuPicture:
    """Otsu's threshold of the highest map of each picture, mean over pictures."""

    def look(self, seeds: Seeds) -> Float[Tensor, "1 value"] | None:
        """Find the threshold and the curve of the highest map."""
        highest = seeds.maps.amax(0)
        return _otsu(highest)[None] if bool(highest.any()) else None

    def choice(self, found: Sequence[Tensor]) -> Choice | None:
        """The mean over pictures."""
        return _of_levels("otsu_picture", found)


def _otsu(values: Float[Tensor, "height width"]) -> Float[Tensor, " value"]:
    """Otsu's threshold of a map, and before every level the variance that it explains (most: 1)."""
    shares = _levels(values)
    area, value = _above(shares)
    whole = float(value[0] + shares[0] * 0.5 / LEVELS)
    between = (value - whole * area).square() / (area * (1 - area)).clamp(min=1e-9)
    best = (int(between.argmax()) + 1) / LEVELS
    curve = between / between.max().clamp(min=1e-12)
    return torch.cat([curve.new_tensor([best]), curve])


def _of_levels(name: str, found: Sequence[Tensor]) -> Choice | None:
    """The mean of the thresholds, which stand before the curves."""
    if not found:
        return None
    threshold, *scores = torch.cat(list(found)).mean(0).tolist()
    threshold = min(threshold, 1 - 1 / LEVELS)  # 1 would keep nothing at all
    borders = tuple(i / LEVELS for i in range(1, LEVELS))
    return Choice(name, threshold, "pictures", borders, tuple(scores))


def mutual_information(counts: Int64[Tensor, "*case 2 2"]) -> Float[Tensor, "*case"]:
    """Mutual information of two binary maps, in nats, from counts of their pairs of values."""
    shares = counts.double() / counts.sum((-2, -1), keepdim=True).clamp(min=1)
    alone = shares.sum(-1, keepdim=True) * shares.sum(-2, keepdim=True)
    return torch.where(shares > 0, shares * (shares / alone).log(), 0).sum((-2, -1))


def _pairs(
    one: Bool[Tensor, "height width"], other: Bool[Tensor, "height width"]
) -> Int64[Tensor, "2 2"]:
    return torch.bincount((2 * one.long() + other.long()).flatten(), minlength=4).view(2, 2)


def _of_pairs(name: str, found: Sequence[Tensor]) -> Choice | None:
    if not found:
        return None
    return _highest(name, mutual_information(torch.stack(list(found)).sum(0)).tolist())


class Edges:
    """Mutual information of the foreground before and after a CRF, over thresholds.

    The CRF (labels as IRN gives them) sees the picture at `SIDE` pixels; its kernel is made once
    for all thresholds.
    """

    def look(self, seeds: Seeds) -> Int64[Tensor, "threshold 2 2"] | None:
        """Count pixels by foreground before and after."""
        present = seeds.maps.flatten(1).amax(1) > 0
        if not bool(present.any()):
            return None
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
        pairs = [
            _pairs(before > 0, after > 0) for before, after in zip(labels, snapped, strict=True)
        ]
        return torch.stack(pairs).cpu()

    def choice(self, found: Sequence[Tensor]) -> Choice | None:
        """The threshold whose foreground the CRF's tells most about."""
        return _of_pairs("edges", found)


class Stability:
    """Mutual information of the foregrounds of two views of a picture, over thresholds."""

    def look(self, seeds: Seeds) -> Int64[Tensor, "threshold 2 2"] | None:
        """Count pixels by the foregrounds of the two views."""
        if seeds.other is None:
            raise ValueError("threshold stability needs the maps of another view")
        here, there = seeds.maps.amax(0), seeds.other.amax(0)
        if not bool(here.any()):
            return None
        return torch.stack([_pairs(here > value, there > value) for value in THRESHOLDS]).cpu()

    def choice(self, found: Sequence[Tensor]) -> Choice | None:
        """The threshold whose two foregrounds tell most about each other."""
        return _of_pairs("stability", found)


class Confidence:
    """Share of the classifier's score that the seed alone keeps, less its share of the area.

    What is not shown is the picture's mean colour; a picture of that alone scores 0, the whole
    picture 1. The median over pictures is taken: where the whole hardly scores more than the empty
    one, shares are wild. (The score of what is left when the seed is removed chose thresholds that
    cost more, and is not used.)
    """

    def look(self, seeds: Seeds) -> Float[Tensor, " threshold"] | None:
        """Ask for the score once, for all thresholds; None where the whole scores no more."""
        highest = seeds.maps.amax(0)
        if not bool(highest.any()):
            return None
        shown = [highest > threshold for threshold in THRESHOLDS]
        shares = shares_of_score(seeds, shown)
        if shares is None:
            return None
        return shares - torch.stack([one.double().mean() for one in shown])

    def choice(self, found: Sequence[Tensor]) -> Choice | None:
        """The threshold with the highest median; None if no picture scores above its colour."""
        if not found:
            return None
        return _highest("confidence", torch.stack(list(found)).median(0).values.tolist())


def shares_of_score(
    seeds: Seeds, shown: Sequence[Bool[Tensor, "height width"]]
) -> Float[Tensor, " part"] | None:
    """Share of the picture's score that each part of it has alone, on the picture's mean colour.

    None where the whole picture scores no more than its mean colour.
    """
    if seeds.score is None:
        raise ValueError("threshold confidence needs the classifier's score")
    image = seeds.image
    empty = image.float().mean((0, 1), keepdim=True).round().to(torch.uint8).expand_as(image)
    views = [image, empty, *(torch.where(one[..., None], image, empty) for one in shown)]
    whole, nothing, *kept = seeds.score(torch.stack(views)).double()
    if whole <= nothing:
        return None
    return (torch.stack(kept) - nothing) / (whole - nothing)


def evidence(seeds: Seeds, threshold: float) -> Float[Tensor, "2"] | None:
    """Share of the classifier's score that seeds at a threshold keep alone, and that the rest has.

    None where the whole picture scores no more than its mean colour.
    """
    seed = seeds.maps.amax(0) > threshold
    return shares_of_score(seeds, [seed, ~seed])


def median_evidence(found: Iterable[Tensor | None]) -> tuple[float, float]:
    """Medians of `evidence` over pictures; 0 and 0 where none tells anything."""
    told = [one for one in found if one is not None]
    kept, rest = torch.stack(told).median(0).values.tolist() if told else (0.0, 0.0)
    return kept, rest


CRITERIA: Mapping[str, Criterion] = {
    "activation": Activation(),
    "total": Total(),
    "otsu": Otsu(),
    "otsu_picture": OtsuPicture(),
    "edges": Edges(),
    "stability": Stability(),
    "confidence": Confidence(),
}
"""Criteria that look at no mask, by name."""


def require_known(names: Iterable[str]) -> None:
    """Raise ValueError for the first name that is no criterion's."""
    for name in names:
        if name not in CRITERIA:
            raise ValueError(f"no criterion {name!r}; there are {', '.join(CRITERIA)}")


def look(names: Iterable[str], seeds: Seeds) -> dict[str, Tensor]:
    """What each of some criteria finds in a picture, of those that it tells something."""
    found = {name: CRITERIA[name].look(seeds) for name in names}
    return {name: one for name, one in found.items() if one is not None}


def choose(names: Iterable[str], found: Iterable[Mapping[str, Tensor]]) -> dict[str, Choice]:
    """Choices of some criteria by what they found in pictures, of those that have one."""
    names, pictures = list(names), list(found)
    require_known(names)
    chosen = {
        name: CRITERIA[name].choice([one[name] for one in pictures if name in one])
        for name in names
    }
    return {name: choice for name, choice in chosen.items() if choice is not None}


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
    """Points of mIoU that a choice loses against the best threshold of the sweep.

    Raises:
        ValueError: The sweep ends before the choice.
    """
    return float(curve.miou[curve.best] - curve.miou[curve.at(choice.threshold)])
