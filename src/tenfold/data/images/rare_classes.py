"""Rare class sampling: source pictures are drawn by a class that is drawn, rare ones more often.

Source: Hoyer et al., DAFormer (CVPR 2022), section 3.2; official code mmseg/datasets/
uda_dataset.py. A departure: a crop is chosen by the labels alone, so that a picture is decoded
once, not once a try.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8

IGNORED = 255
TRIES = 10
MOST = 0.75
"""Share of a crop's counted pixels that one class may have (cat_max_ratio of the official
configurations)."""


def class_probabilities(
    pixels: Int64[np.ndarray, "picture class"], temperature: int | float
) -> tuple[Int64[np.ndarray, " kind"], Float[np.ndarray, " kind"]]:
    """Classes that occur, the rarest first, and the probability of each.

    A class's is the softmax of (1 - its share of all pixels) / temperature (equation 6).
    """
    if temperature <= 0:
        raise ValueError(f"the temperature must be greater than 0, got {temperature}")
    total = pixels.sum(0)
    classes = np.flatnonzero(total)
    if not len(classes):
        raise ValueError("no picture has a labelled pixel: there is no class to draw")
    classes = classes[np.argsort(total[classes], kind="stable")]
    score = (1 - total[classes] / total.sum()) / temperature
    weight = np.exp(score - score.max())
    return classes.astype(np.int64), weight / weight.sum()


@dataclass(frozen=True)
class RareClasses:
    """A sampler of (class, picture) pairs."""

    classes: Int64[np.ndarray, " kind"]
    probabilities: Float[np.ndarray, " kind"]
    rows: tuple[Int64[np.ndarray, "_"], ...]
    """For each of `classes`, the pictures that have enough of it."""

    def draw(self, generator: torch.Generator) -> tuple[int, int]:
        """Draw a class, then a picture that has enough of it; both uniformly from a generator."""
        first, second = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
        place = int(np.searchsorted(self.probabilities.cumsum(), first, side="right"))
        place = min(place, len(self.classes) - 1)  # the sum of probabilities may round below 1
        rows = self.rows[place]
        return int(self.classes[place]), int(rows[int(second * len(rows))])


def rare_classes(
    pixels: Int64[np.ndarray, "picture class"], temperature: int | float, least: int = 3000
) -> RareClasses:
    """Make a sampler from the pixels of each class in each picture.

    least: a picture is drawn for a class if it has more pixels of it. A class of which no picture
    has as many is drawn from all that have it (the official code stops there).
    """
    classes, probabilities = class_probabilities(pixels, temperature)
    enough = [np.flatnonzero(pixels[:, kind] > least) for kind in classes]
    rows = [
        some if len(some) else np.flatnonzero(pixels[:, kind])
        for kind, some in zip(classes, enough, strict=True)
    ]
    return RareClasses(classes, probabilities, tuple(row.astype(np.int64) for row in rows))


def source_crop(
    labels: UInt8[np.ndarray, "height width"],
    size: tuple[int, int],
    generator: torch.Generator,
    wanted: int = IGNORED,
    least: int | float = 0,
    most: int | float = MOST,
) -> tuple[int, int]:
    """Top and left of a random crop of `size` (height, width) that is worth training on.

    Up to TRIES places are drawn until one has more than `least` pixels of the class `wanted` (255:
    any will do) and, in turn, each of them until no class has the share `most` of the labelled
    pixels and there is more than one. The last one is taken if none is as wanted; a crop that is
    larger than the labels begins at 0.
    """
    tries = TRIES if wanted != IGNORED and least > 0 else 1
    for _ in range(tries):
        top, left = _balanced(labels, size, generator, most)
        part = labels[top : top + size[0], left : left + size[1]]
        if tries == 1 or np.count_nonzero(part == wanted) > least:
            break
    return top, left


def _balanced(
    labels: UInt8[np.ndarray, "height width"],
    size: tuple[int, int],
    generator: torch.Generator,
    most: int | float,
) -> tuple[int, int]:
    """A random place, drawn again while one class has almost all of it."""
    room = [max(0, side - wanted) + 1 for side, wanted in zip(labels.shape, size, strict=True)]
    for _ in range(TRIES):
        place = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
        top, left = (int(share * count) for share, count in zip(place, room, strict=True))
        part = labels[top : top + size[0], left : left + size[1]]
        counts = np.bincount(part.ravel(), minlength=IGNORED + 1)[:IGNORED]
        if np.count_nonzero(counts) > 1 and counts.max() < most * counts.sum():
            break
    return top, left
