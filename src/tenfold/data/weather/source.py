"""The offer of one opened weather file, by tenfold's names; nothing is read but its axes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int8, Num

from .axes import Horizontal, Times

BROKEN = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    RuntimeError,
    EOFError,
    AttributeError,
    ArithmeticError,
    MemoryError,
)
"""Errors that the libraries raise on a damaged file."""
ORDER = ("time", "level", "lat", "lon")


@dataclass(frozen=True)
class Stored:
    """One variable of a file, not yet read."""

    path: Path
    name: str
    """Its name in the file."""
    array: Any
    """Something that slices lazily and unpacks: a variable of xarray, or a memory map."""
    kinds: tuple[str, ...]
    """Kind of each axis: time, level, lat, lon, or empty for one of which one entry is read."""
    horizontal: Horizontal
    units: str = ""
    fixed: tuple[int, ...] = ()
    """Entry that is read of each empty axis, in the order of all axes; the first if not given."""

    def load(
        self, times: slice = slice(None), levels: slice = slice(None)
    ) -> Num[np.ndarray, "time level lat lon"]:
        """Unpacked values in our order; axes that the variable lacks have length 1."""
        everything = slice(None)
        cut: dict[str, Any] = {"time": times, "level": levels}
        fixed = self.fixed or (0,) * len(self.kinds)
        key = tuple(
            cut.get(kind, everything) if kind else entry
            for kind, entry in zip(self.kinds, fixed, strict=True)
        )
        try:
            values = np.asarray(self.array[key])
        except BROKEN as error:
            raise ValueError(
                f"{self.path}: {self.name} cannot be read at times {times.start} to {times.stop}: "
                f"the file is damaged ({error}). Get it again."
            ) from error
        kinds = [kind for kind in self.kinds if kind]
        values = values.transpose([kinds.index(kind) for kind in ORDER if kind in kinds])
        missing = tuple(axis for axis, kind in enumerate(ORDER) if kind not in kinds)
        return self.horizontal.arrange(np.expand_dims(values, missing))


@dataclass(eq=False)
class Part:
    """Fields that one file offers, by our names."""

    path: Path
    horizontal: Horizontal
    times: Times
    """NaT where the file does not say."""
    dated: bool
    """True if there is a time axis; without one the fields may be constants of other files."""
    upper: dict[str, dict[int, tuple[Stored, int]]] = field(default_factory=dict)
    """Variable, level -> stored variable and index on its level axis."""
    surface: dict[str, Stored] = field(default_factory=dict)
    constants: dict[str, Stored] = field(default_factory=dict)
    split: Int8[np.ndarray, " time"] | None = None
    skipped: dict[str, str] = field(default_factory=dict)
    """Variables that cannot be used, and why."""
    kept: list[Any] = field(default_factory=list)
    """Objects that must live as long as this part."""

    def levels(
        self, name: str, levels: tuple[int, ...], times: slice
    ) -> Float32[np.ndarray, "time level lat lon"]:
        """An upper variable on some levels; one read for each stored variable."""
        places = [self.upper[name][level] for level in levels]
        wanted: dict[int, list[int]] = {}
        for k, (stored, _) in enumerate(places):
            wanted.setdefault(id(stored), []).append(k)
        out: Any = None
        for rows in wanted.values():
            stored, indices = places[rows[0]][0], [places[k][1] for k in rows]
            low = min(indices)
            values = stored.load(times, slice(low, max(indices) + 1))
            if out is None:
                shape = (values.shape[0], len(levels), *values.shape[2:])
                out = np.empty(shape, np.float32)
            for k, index in zip(rows, indices, strict=True):
                out[:, k] = values[:, index - low]
        return np.asarray(out)
