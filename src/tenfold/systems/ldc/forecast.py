"""Effect of new classes on those known, estimated from what is kept: no picture is needed.

Pictures of a class are drawn from the Gaussian that the run keeps of it: its mean and the shared
covariance. How near that comes to pictures: docs/systems/ldc.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tenfold.core.seed import generator

from .heads import Head

PER_CLASS, AT_MOST = 200, 40_000
"""Draws of a class, and of all classes together (fewer of each where there are many)."""
PART = 4096
"""Draws that are classified at once."""


@dataclass(frozen=True)
class Draws:
    """Features drawn of known classes."""

    features: Float[Tensor, "draw dim"]
    labels: Int[Tensor, " draw"]


@dataclass(frozen=True)
class Effect:
    """Estimated accuracy (percent) of one head, all classes to choose from, each counting alike."""

    head: str
    known: float
    """Of the classes known before, once the new ones are known too."""
    new: float
    """Of the new classes."""
    every: float
    """Of all of them."""
    lost: tuple[tuple[int, int, float], ...]
    """Known class, new class (numbers), and the percentage of the first taken for the second:
    the most frequent first."""


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


def effect(name: str, head: Head, given: Draws, known: int) -> Effect:
    """Measure a head that has learned new classes on draws of all; the first `known` are old."""
    answers, labels = _answers(head, given), given.labels
    right, is_old = answers == labels, labels < known
    total = int(labels.max()) + 1
    table = torch.zeros(known, total - known)
    gone = is_old & (answers >= known)
    places = (labels[gone], answers[gone] - known)
    table.index_put_(places, torch.ones(int(gone.sum())), accumulate=True)
    table *= 100 * total / len(labels)  # as many draws of each class
    ranked = table.flatten().argsort(descending=True, stable=True).tolist()
    lost = [(i // (total - known), i % (total - known)) for i in ranked]
    return Effect(
        name,
        100 * float(right[is_old].double().mean()),
        100 * float(right[~is_old].double().mean()),
        100 * float(right.double().mean()),
        tuple((a, known + b, float(table[a, b])) for a, b in lost if table[a, b] > 0),
    )


def _answers(head: Head, given: Draws) -> Int[Tensor, " draw"]:
    return torch.cat([head.logits(part).argmax(1) for part in given.features.split(PART)])
