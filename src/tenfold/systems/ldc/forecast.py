"""Effect of new classes on those known, estimated from what is kept: no picture is needed.

Pictures of a class are drawn from the Gaussian that the run keeps of it: its mean and the shared
covariance. How near that comes to pictures: docs/guides/ldc.md.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tenfold.core.seed import generator

from .heads import Head

PER_CLASS, AT_MOST = 200, 40_000
"""Draws of a class, and of all classes together (fewer of each where there are many)."""
FOLDS = 3
"""Parts of the photos that are left out in turn."""
PART = 4096
"""Draws that are classified at once."""


@dataclass(frozen=True)
class Draws:
    """Features drawn of known classes."""

    features: Float[Tensor, "draw dim"]
    labels: Int[Tensor, " draw"]


@dataclass(frozen=True)
class Effect:
    """Accuracy (percent) of one head that has learned new classes, all classes to choose from."""

    head: str
    known: float
    """Of the classes known before, estimated."""
    new: float
    """Of the new classes' photos, each left out of the learning once; NaN for single photos."""
    every: float
    """Of all classes, each counting alike."""
    lost: tuple[tuple[int, int, float], ...]
    """Known class, new class (numbers), and the estimated percentage of the first taken for the
    second: the most frequent first."""


def draws(
    means: Float[Tensor, "class dim"],
    covariance: Float[Tensor, "dim dim"],
    photos: Int[Tensor, " class"],
    seed: int,
) -> Draws:
    """Draw features of classes, seeded.

    Args:
        means: Of the classes (float64).
        covariance: The shared one.
        photos: From which each mean was made; 0 if so many that it is certain. A mean of n photos
            is off by 1/n of the covariance, so that its class is wider by that much around it.
        seed: Of the draws.
    """
    num, dim = means.shape
    each = max(20, min(PER_CLASS, AT_MOST // num))
    jitter = 1e-6 * float(covariance.trace()) / dim + 1e-12
    factor = torch.linalg.cholesky(covariance + jitter * torch.eye(dim, dtype=torch.float64))
    eps = torch.randn(num, each, dim, generator=generator(seed, "forecast")).double()
    around = widths(photos)[:, None, None] * (eps @ factor.T)
    found = (means[:, None] + around).flatten(0, 1).float()
    return Draws(found, torch.arange(num).repeat_interleave(each))


def widths(photos: Int[Tensor, " class"]) -> Float[Tensor, " class"]:
    """Standard deviation of a picture from a mean of so many photos, in units of the class's."""
    return (1 + torch.where(photos > 0, 1 / photos.double(), 0.0)).sqrt()


def accuracy(head: Head, given: Draws) -> float:
    """Percentage of draws that a head finds right."""
    return 100 * float((_answers(head, given) == given.labels).double().mean())


def effect(name: str, head: Head, given: Draws, known: int, scale: float, new: float) -> Effect:
    """Measure a head that has learned new classes on draws of the `known` ones.

    Args:
        name: Of the head.
        head: It knows the new classes.
        given: Draws of the classes known before.
        known: Number of those.
        scale: By what factor accuracy on pictures differs from that on draws.
        new: Accuracy on photos left out (percent).
    """
    answers, labels = _answers(head, given), given.labels
    num = head.logits(given.features[:1]).shape[1] - known
    table = torch.zeros(known, num)
    gone = answers >= known
    places = (labels[gone], answers[gone] - known)
    table.index_put_(places, torch.ones(int(gone.sum())), accumulate=True)
    table *= 100 * known / len(labels)  # as many draws of each class
    ranked = table.flatten().argsort(descending=True, stable=True).tolist()
    lost = [(i // num, i % num) for i in ranked]
    kept = 100 * scale * float((answers == labels).double().mean())
    every = kept if math.isnan(new) else (known * kept + num * new) / (known + num)
    taken = tuple((a, known + b, float(table[a, b])) for a, b in lost if table[a, b] > 0)
    return Effect(name, kept, new, every, taken)


def left_out(
    head: Head, photos: Float[Tensor, "photo dim"], labels: Int[Tensor, " photo"], known: int
) -> float:
    """Percentage of new photos that a head finds right which learned the others; NaN if it cannot.

    Args:
        head: It knows the `known` classes; copies of it learn.
        photos: Features.
        labels: 0 for the first new class. Classes with one photo are learned, not tested.
        known: Classes known before.
    """
    count = torch.bincount(labels)
    place = torch.zeros_like(labels)
    for c in range(len(count)):
        place[labels == c] = torch.arange(int(count[c]))
    folds, right, tested = min(int(count.max()), FOLDS), 0, 0
    if folds < 2:
        return math.nan
    for fold in range(folds):
        out = (place % folds == fold) & (count[labels] > 1)
        other = copy.deepcopy(head)
        other.learn(photos[~out], labels[~out] + known)
        right += int((other.logits(photos[out]).argmax(1) == labels[out] + known).sum())
        tested += int(out.sum())
    return 100 * right / tested


def _answers(head: Head, given: Draws) -> Int[Tensor, " draw"]:
    return torch.cat([head.logits(part).argmax(1) for part in given.features.split(PART)])
