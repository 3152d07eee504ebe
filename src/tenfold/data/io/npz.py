"""Arrays of an npz file, whatever it is: one that is damaged, or promises too much, is refused."""

from __future__ import annotations

import lzma
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path

import numpy as np

BROKEN = (
    OSError, EOFError, ValueError, SyntaxError, KeyError, AttributeError, TypeError, RuntimeError,
    OverflowError, MemoryError, struct.error, zipfile.BadZipFile, zlib.error, lzma.LZMAError,
    tokenize.TokenError,
)  # fmt: skip
"""Errors that zipfile and numpy raise on a damaged archive."""


def read_arrays(file: Path, most: int, keys: Collection[str] = ()) -> dict[str, np.ndarray]:
    """Read an npz file.

    Args:
        file: The file.
        most: Bytes that it may have unpacked.
        keys: Names of the arrays that are wanted, as far as they are there; empty wants all.

    Raises:
        ValueError: It is no archive of plain arrays, damaged, or too large; the error names it.
    """
    try:
        with zipfile.ZipFile(file) as archive:  # before anything is unpacked
            size = sum(item.file_size for item in archive.infolist())
        if size > most:
            raise ValueError(f"it unpacks to {size} bytes, more than {most}")
        with np.load(file, allow_pickle=False) as arrays:
            found = {k: arrays[k] for k in arrays.files if not keys or k in keys}
    except BROKEN as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{file} cannot be read as an npz of arrays: {reason}") from error
    wrong = [key for key, value in found.items() if not isinstance(value, np.ndarray)]
    if wrong:
        raise ValueError(
            f"{file} cannot be read as an npz of arrays: {wrong[0]} is none of numpy's"
        )
    return found


def names_of(file: Path) -> list[str]:
    """Return the names of the arrays of an npz file, which is not unpacked."""
    try:
        with zipfile.ZipFile(file) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist()]
    except BROKEN as error:
        raise ValueError(f"{file} cannot be read as an npz of arrays: {error}") from error
