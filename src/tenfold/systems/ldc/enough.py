"""Answers to "are these photos enough?": photos left out, classified by means of the others.

Measured with the nearest class mean under the shared covariance (the head `lda`), which needs no
training and so can be tried hundreds of times.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tenfold.core.seed import generator

from .forecast import widths

SPLITS = 20
"""Draws of the photos to learn from, for each number of them."""
POINTS = 7
"""Numbers of photos that are tried, at most."""
FEW = 4
"""Photos of a class below which nothing can be said of a trend."""


@dataclass(frozen=True)
class Point:
    """Accuracy on photos left out, with `shots` photos of each class to learn from."""

    shots: int
    mean: float
    """Percent of the photos left out, all classes to choose from; mean over the splits."""
    spread: float
    """Standard deviation over the splits, in points."""
    splits: int
    left_out: int
    """Photos tested in each split."""


@dataclass(frozen=True)
class Enough:
    """The learning curve over the photos given, and what they are taken for."""

    curve: tuple[Point, ...]
    """Ends with leaving out one photo of each class in turn; empty if a class has one photo."""
    taken_for: tuple[tuple[int, int, int], ...]
    """New class (0 is the first), the class that its photos were taken for (known classes first)
    and how many, when each photo is left out in turn: the most frequent first."""
    verdict: str


def enough(
    photos: Float[Tensor, "photo dim"],
    labels: Int[Tensor, " photo"],
    known: Float[Tensor, "class dim"],
    seed: int,
) -> Enough:
    """Measure how accuracy on photos left out grows with the number of photos learned from.

    Args:
        photos: Features of the new classes' photos, whitened by the shared covariance.
        labels: Of the photos: 0 for the first new class.
        known: Means of the known classes, whitened.
        seed: Of the splits.
    """
    count = torch.bincount(labels)
    fewest, most = int(count.min()), int(count.max())
    if fewest < 2:
        alone = int((count < 2).sum())
        return Enough((), (), _alone(alone, len(count)))
    rows = [torch.nonzero(labels == c).flatten() for c in range(len(count))]
    nearest = torch.cdist(photos, known).min(1)
    points, random = [], generator(seed, "enough")
    for shots in _shots(most - 1):
        in_turn = shots == most - 1
        each, splits = [], most if in_turn else SPLITS
        for split in range(splits):
            kept, left = [], []
            for own in rows:
                if in_turn:  # leave one of each class out; smaller classes begin anew
                    out = split % len(own)
                    order = torch.cat([own[:out], own[out + 1 :], own[out : out + 1]])
                else:
                    order = own[torch.randperm(len(own), generator=random)]
                size = min(shots, len(own) - 1)
                kept.append(order[:size])
                left.append(order[size:])
            each.append(_right(photos, labels, kept, torch.cat(left), nearest.values))
        shares = torch.stack([hits.double().mean() for hits in each])
        spread = float(shares.std()) if len(shares) > 1 else 0.0
        left_out = len(labels) if in_turn else len(each[0])
        points.append(Point(shots, 100 * float(shares.mean()), 100 * spread, splits, left_out))
    taken = _taken(photos, labels, rows, nearest.values, nearest.indices, len(known))
    return Enough(tuple(points), taken, _verdict(points, fewest, len(labels)))


def _shots(most: int) -> Sequence[int]:
    """Numbers of photos to try, from 1 to `most`: all, or some at equal ratios."""
    if most <= POINTS:
        return range(1, most + 1)
    return sorted({round(most ** (i / (POINTS - 1))) for i in range(POINTS)})


def _right(
    photos: Tensor, labels: Tensor, kept: list[Tensor], left: Tensor, known: Tensor
) -> Tensor:
    """Photos left out that are nearer to the mean of their own class than to any other."""
    means = torch.stack([photos[own].mean(0) for own in kept])
    near = torch.cdist(photos[left], means).min(1)
    return (near.indices == labels[left]) & (near.values < known[left])


def _taken(
    photos: Tensor, labels: Tensor, rows: list[Tensor], near: Tensor, which: Tensor, known: int
) -> tuple[tuple[int, int, int], ...]:
    """Count what each photo is taken for, if it alone is left out."""
    means = torch.stack([photos[own].mean(0) for own in rows])
    away = torch.cdist(photos, means)
    # its own class's mean without it lies farther off, on the same line: by n / (n - 1)
    size = torch.bincount(labels)[labels].double()
    own = torch.arange(len(labels)), labels
    away[own] = away[own] * size / (size - 1)
    best = away.min(1)
    answers = torch.where(best.values < near, best.indices + known, which)
    wrong = Counter(
        (label, answer)
        for label, answer in zip(labels.tolist(), answers.tolist(), strict=True)
        if answer != label + known
    )
    return tuple((a, b, n) for (a, b), n in wrong.most_common())


def _alone(alone: int, classes: int) -> str:
    who = "The class has" if classes == 1 else f"{alone} of {classes} classes have"
    return (
        f"Cannot be told: {who} one photo, so that none can be left out and tried. Give two at "
        "least, better five."
    )


def _verdict(points: Sequence[Point], fewest: int, photos: int) -> str:
    """Say in words what the curve shows, and how little it may rest on."""
    last = points[-1]
    found = (
        f"of {photos} photos, each left out in turn, {last.mean:.0f} % were recognised"
        f" (one photo is {100 / photos:.0f} %)"
    )
    if fewest < FEW:
        return (
            f"Too few photos to tell: {found}, and {fewest} of a class show no trend. "
            "Give five or more of each."
        )
    half = min(points[:-1], key=lambda point: abs(point.shots - last.shots / 2))
    gain = last.mean - half.mean
    share = min(max(last.mean / 100, 1 / photos), 1 - 1 / photos)
    noise = 100 * (share * (1 - share) / photos) ** 0.5
    trend = f"with {half.shots} instead of {last.shots} photos to learn from: {half.mean:.0f} %"
    if gain > noise:
        return f"More photos are likely to help: {found}, {trend}."
    if last.mean < 50:
        return (
            f"More photos of this kind are unlikely to help: {found}, {trend}. The encoder sees "
            "too little difference between these classes and others."
        )
    return f"Enough for this encoder, as far as these photos show: {found}, {trend}."


def away_left_out(
    photos: Float[Tensor, "photo dim"],
    labels: Int[Tensor, " photo"],
    known: Float[Tensor, "class dim"],
    known_widths: Float[Tensor, " class"],
) -> Float[Tensor, " some"]:
    """Distance of each photo to the nearest class, its own without it: as `unknown` judges it.

    Of classes with two photos or more; all whitened, in units of the classes' standard deviations.
    """
    count = torch.bincount(labels)
    means = torch.stack([photos[labels == c].mean(0) for c in range(len(count))])
    size = count[labels].double()
    away = torch.cdist(photos, means) / widths(count)
    own = torch.arange(len(labels)), labels
    away[own] *= widths(count)[labels] * size / (size - 1) / widths(count - 1)[labels]
    near = (torch.cdist(photos, known) / known_widths).amin(1)
    return torch.minimum(away.amin(1), near)[size > 1]
