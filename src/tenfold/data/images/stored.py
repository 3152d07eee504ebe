"""Picture files end to end in an npz, as the compact sets keep them."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64, UInt8

from ..io.problems import BROKEN, Problems
from .decode import MAX_BYTES, Pictures, channels_first, check_memory, decode


@dataclass(frozen=True)
class Stored:
    """Picture files end to end in one array, as the compact sets keep them."""

    file: Path
    side: int
    """Pixels of each picture's sides."""
    jpeg: UInt8[np.ndarray, " byte"]
    offset: Int64[np.ndarray, " end"]
    """Picture i is bytes offset[i] to offset[i + 1]."""
    labels: tuple[int, ...]
    names: tuple[str, ...]

    def read(self, rows: Sequence[int]) -> Pictures:
        """Decode the pictures of these rows."""
        check_memory(len(rows), self.side)
        images = torch.empty(len(rows), 3, self.side, self.side, dtype=torch.uint8)
        for index, row in enumerate(rows):
            name = f"{self.file} picture {row} ({self.names[row]})"
            picture = decode(self.jpeg[self.offset[row] : self.offset[row + 1]].tobytes(), name)
            if picture.shape != (self.side, self.side, 3):
                raise ValueError(
                    f"{name} has {picture.shape[1]} x {picture.shape[0]} pixels, expected "
                    f"{self.side} x {self.side}. Prepare the set again."
                )
            images[index] = channels_first(picture)
        labels = torch.tensor([self.labels[row] for row in rows], dtype=torch.int64)
        return Pictures(images, labels, tuple(self.names[row] for row in rows))


def open_stored(file: Path, side: int, num_classes: int) -> Stored:
    """Open an npz of `jpeg`, `offset`, `label`, `name`; whatever does not fit is a ValueError."""
    arrays = read_npz(file, _KEYS)
    jpeg, offset, label, name = (arrays[key] for key in _KEYS)
    count = label.size
    if jpeg.dtype != np.uint8 or offset.dtype != np.int64 or label.dtype.kind not in "iu":
        raise ValueError(f"{file}: jpeg must be uint8, offset int64, label whole numbers.")
    if name.dtype.kind != "U" or jpeg.ndim != 1:
        raise ValueError(f"{file}: jpeg must be one row, and name text.")
    if label.shape != (count,) or name.shape != (count,) or offset.shape != (count + 1,):
        raise ValueError(
            f"{file} has {label.shape} labels, {name.shape} names and {offset.shape} offsets, "
            "expected n, n and n + 1. Prepare the set again."
        )
    if offset[0] != 0 or offset[-1] != len(jpeg) or (np.diff(offset) <= 0).any():
        raise ValueError(f"{file}: offset does not rise from 0 to {len(jpeg)}. Prepare it again.")
    wrong = np.flatnonzero((label < 0) | (label >= num_classes))
    if len(wrong):
        raise ValueError(
            f"{file}: picture {wrong[0]} has label {label[wrong[0]]}, allowed are "
            f"0-{num_classes - 1}. Prepare the set again."
        )
    return Stored(file, side, jpeg, offset, tuple(label.tolist()), tuple(name.tolist()))


_KEYS = ("jpeg", "offset", "label", "name")


def read_npz(file: Path, keys: Sequence[str]) -> dict[str, np.ndarray]:
    """The arrays of an npz with these keys, whose unpacked sizes are looked at first."""
    problems = Problems(file.parent)
    try:
        if problems.exists(file):
            with zipfile.ZipFile(file) as archive:
                size = sum(item.file_size for item in archive.infolist())
            if size > MAX_BYTES:
                problems.problem(file, f"unpacks to {size} bytes, more than {MAX_BYTES}")
        arrays = None if problems.result.problems else problems.npz(file, keys)
    except (*BROKEN, MemoryError) as error:
        raise ValueError(
            f"{file} cannot be read as npz: {error}. Prepare the set again."
        ) from error
    if arrays is None:
        raise ValueError(f"{file} {problems.result.problems[0].what}. Prepare the set again.")
    return arrays
