"""BEiT's block-wise masking, which the CLIP branch uses."""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random

import numpy as np
from jaxtyping import Bool

TRIES = 10
"""Rectangles drawn before a mask is left as it is, so that it may have too few units."""


SMALLEST = 16 / 75
"""Units of the smallest rectangle over those to mask (official: 16 of 75 on a 14 x 14 grid)."""


@dataclass(frozen=True)
class Blockwise:
    """Masks made of rectangles on a grid of units."""

    height: int
    width: int
    count: int
    """Units to mask."""
    least: int = 16
    """Units of the smallest rectangle (official: 16 on a 14 x 14 grid)."""
    most: int = 0
    """Units that one rectangle may add; 0 sets no limit but what is left to mask (official)."""
    aspects: tuple[float, float] = (0.3, 1 / 0.3)
    """Smallest and largest height over width of a rectangle."""

    def draw(self, random: Random) -> Bool[np.ndarray, "height width"]:
        """One mask; the order of draws is that of the official code."""
        mask = np.zeros((self.height, self.width), dtype=bool)
        while (left := self.count - int(mask.sum())) > 0:
            if not self._add(mask, min(left, self.most or left), random):
                break
        return mask

    def _add(self, mask: Bool[np.ndarray, "height width"], most: int, random: Random) -> bool:
        """Mask one more rectangle that adds at most `most` units."""
        low, high = map(math.log, self.aspects)
        for _ in range(TRIES):
            area = random.uniform(self.least, most)
            aspect = math.exp(random.uniform(low, high))
            height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if height >= self.height or width >= self.width:
                continue
            top = random.randint(0, self.height - height)
            left = random.randint(0, self.width - width)
            part = mask[top : top + height, left : left + width]
            if 0 < part.size - part.sum() <= most:
                part[:] = True
                return True
        return False


def blocks_of(side: int, share: float, most: int = 0) -> Blockwise:
    """Masks of a share of side x side units, whose smallest rectangle is as the official one.

    most: units that one rectangle may add; 0 sets no limit.
    """
    count = max(1, round(share * side * side))
    return Blockwise(side, side, count, max(1, round(SMALLEST * count)), most)
