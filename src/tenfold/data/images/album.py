"""Photos of a folder for a page: known by number, upright, as browsers can show them."""

from __future__ import annotations

import io
from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from .decode import read_picture
from .folders import inside_of, photos_below

LOSSLESS = 512 * 512
"""Pixels up to which a picture is sent as PNG; larger ones as JPEG of the best quality."""


class Album:
    """The photos of a folder and of the folders in it, as they were when it was opened.

    Args:
        folder: The folder; links that lead out of it are refused.
        aside: A folder in it that is not looked into.

    Raises:
        FileNotFoundError: The folder is not there.
        ValueError: It holds no picture, or a link leads out of it.
    """

    def __init__(self, folder: Path, aside: Path | None = None) -> None:
        self.folder = folder
        self.files = tuple(photos_below(folder, aside=aside))
        self.names = tuple(file.relative_to(folder).as_posix() for file in self.files)
        """Paths below the folder, by which photos are known to files."""
        self._numbers = {name: number for number, name in enumerate(self.names)}
        self._encoded = lru_cache(maxsize=8)(self._encode)

    def __len__(self) -> int:
        return len(self.files)

    def number(self, name: str) -> int | None:
        """Number of a photo; None if it was not there when the folder was opened."""
        return self._numbers.get(name)

    def picture(self, number: int) -> UInt8[np.ndarray, "height width 3"]:
        """Decode a photo.

        Raises:
            LookupError: There is no such number.
            FileNotFoundError: It has vanished since.
            ValueError: It is damaged, or is a link out of the folder by now.
        """
        if not 0 <= number < len(self.files):
            raise LookupError(f"there is no picture {number}; there are {len(self.files)}")
        return read_picture(inside_of(self.folder, self.files[number]))

    def encoded(self, number: int) -> tuple[bytes, str]:
        """A photo's bytes as PNG or JPEG, upright and without its notes, and their MIME type."""
        return self._encoded(number)

    def _encode(self, number: int) -> tuple[bytes, str]:
        pixels = self.picture(number)
        file = io.BytesIO()
        if pixels.shape[0] * pixels.shape[1] <= LOSSLESS:
            Image.fromarray(pixels).save(file, "PNG", compress_level=1)
            return file.getvalue(), "image/png"
        Image.fromarray(pixels).save(file, "JPEG", quality=95, subsampling=0)
        return file.getvalue(), "image/jpeg"
