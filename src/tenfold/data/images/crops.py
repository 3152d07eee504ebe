"""Masks of objects as run-length codes of their crops: small in memory, whatever the picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool


@dataclass(frozen=True)
class Crop:
    """A mask: the crop outside of which it has no pixel, and the code of the pixels in it."""

    x: int
    """Left column of the crop in the picture."""
    y: int
    height: int
    width: int
    counts: bytes
    """Compressed code of the crop, as COCO's: down the columns, first a run of zeros."""

    @property
    def area(self) -> int:
        """Pixels of the mask."""
        return int(self.decode().sum())

    @property
    def box(self) -> tuple[float, float, float, float]:
        """x0 y0 x1 y1 around the crop."""
        return float(self.x), float(self.y), float(self.x + self.width), float(self.y + self.height)

    def decode(self) -> Bool[np.ndarray, "height width"]:
        """The pixels of the crop."""
        from pycocotools import mask

        if not self.counts:
            return np.zeros((self.height, self.width), dtype=bool)
        code = {"size": [self.height, self.width], "counts": self.counts}
        found: np.ndarray = mask.decode([code])[..., 0].astype(bool)
        return found

    def at(self, x: int, y: int) -> bool:
        """Return True if a pixel of the picture is on the object."""
        column, row = x - self.x, y - self.y
        if not (0 <= column < self.width and 0 <= row < self.height):
            return False
        return bool(self.decode()[row, column])

    def distance_to_border(self, x: int, y: int) -> float:
        """Pixels from a pixel of the picture to the nearest one of the other kind, less one half.

        Beyond the crop it is the distance to the mask; infinite for a mask without a pixel.
        """
        inside = self.decode()
        is_on = self.at(x, y)
        places = np.argwhere(~np.pad(inside, 1) if is_on else np.pad(inside, 1))
        if not len(places):
            return math.inf
        away = places - (y - self.y + 1, x - self.x + 1)
        return float(np.sqrt((away**2).sum(1).min())) - 0.5

    def whole(self, height: int, width: int) -> Bool[np.ndarray, "height width"]:
        """The mask of the whole picture."""
        found = np.zeros((height, width), dtype=bool)
        found[self.y : self.y + self.height, self.x : self.x + self.width] = self.decode()
        return found

    def within(self, box: Sequence[int]) -> Bool[np.ndarray, "tall wide"]:
        """The mask of a box x0 y0 x1 y1 of whole pixels."""
        x0, y0, x1, y1 = box
        found = np.zeros((y1 - y0, x1 - x0), dtype=bool)
        left, top = max(x0, self.x), max(y0, self.y)
        right, bottom = min(x1, self.x + self.width), min(y1, self.y + self.height)
        if right > left and bottom > top:
            found[top - y0 : bottom - y0, left - x0 : right - x0] = self.decode()[
                top - self.y : bottom - self.y, left - self.x : right - self.x
            ]
        return found

    def rows(self) -> dict[str, Any]:
        """Run lengths along the rows of the crop, first of pixels off the object, as pages draw."""
        pixels = self.decode().ravel()
        edges = np.flatnonzero(np.diff(pixels, prepend=False, append=False))
        counts = np.diff(edges, prepend=0, append=pixels.size).tolist()
        return {"x": self.x, "y": self.y, "w": self.width, "h": self.height, "counts": counts}

    def code(self, height: int, width: int) -> dict[str, Any]:
        """COCO's compressed code of the whole picture, its counts a text."""
        from pycocotools import mask

        found = mask.encode(np.asfortranarray(self.whole(height, width).astype(np.uint8)))
        return {"size": [height, width], "counts": found["counts"].decode("ascii")}


def crop_of(mask: Bool[np.ndarray, "height width"], x: int = 0, y: int = 0) -> Crop:
    """The code of a mask, cropped to its pixels; a mask without any is of no size.

    x, y: where the left upper pixel of the array lies in the picture.
    """
    from pycocotools import mask as codes

    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return Crop(x, y, 0, 0, b"")
    top, left = int(rows[0]), int(columns[0])
    part = mask[top : rows[-1] + 1, left : columns[-1] + 1]
    code = codes.encode(np.asfortranarray(part.astype(np.uint8)))
    return Crop(x + left, y + top, part.shape[0], part.shape[1], code["counts"])
