"""Arrays of an npz file, believed only as far as its bytes go."""

from __future__ import annotations

import lzma
import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

BROKEN = (
    OSError, EOFError, ValueError, SyntaxError, KeyError, AttributeError, TypeError, RuntimeError,
    ArithmeticError, MemoryError, struct.error, zipfile.BadZipFile, zlib.error, lzma.LZMAError,
    tokenize.TokenError,
)  # fmt: skip
"""Errors that zipfile and numpy raise on a damaged archive."""


def read_npz(
    file: Path, keys: Collection[str] | None, most: int
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Those arrays of a file that have one of these names, and the names of all.

    Nothing is allocated for an array before its header agrees with the bytes that the archive
    holds for it, so that neither a header that lies nor a file that unpacks to terabytes costs
    memory. Pickled objects are refused.

    Args:
        file: An `.npz` file.
        keys: Names of the arrays to read; None reads all.
        most: Bytes that an array may have, unpacked.

    Raises:
        ValueError: It is no npz file, is damaged, or an array is too large or of no plain kind.
    """
    found: dict[str, np.ndarray] = {}
    try:
        with zipfile.ZipFile(file) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            for key in [key for key in members if keys is None or key in keys]:
                _check(archive, members[key], key, most)
                with archive.open(members[key]) as stream:
                    found[key] = npy.read_array(stream, allow_pickle=False)
    except BROKEN as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{file} cannot be read as an npz of arrays: {reason}") from error
    return found, list(members)


def _check(archive: zipfile.ZipFile, member: zipfile.ZipInfo, key: str, most: int) -> None:
    """Compare the header of an array with the size that the archive states for it."""
    with archive.open(member) as stream:
        try:
            version = npy.read_magic(stream)
            read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, _, dtype = read(stream)
        except BROKEN as error:
            raise ValueError(f"{key} is no array of numpy ({error})") from error
        if dtype.hasobject:
            raise ValueError(f"{key} holds pickled objects, which are not read")
        stated, held = math.prod(shape) * dtype.itemsize, member.file_size - stream.tell()
    if stated != held:
        raise ValueError(
            f"{key} should have {stated} bytes by its shape {shape}, but {held} are there"
        )
    if stated > most:
        raise ValueError(f"{key} has {stated} bytes, more than {most}; cut it into parts")
