"""Parts of a data set joined: in time where they hold the same variables, else side by side."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int8

from .axes import Times
from .source import Part

BLOCK = 2**24
"""Values that a pass over all times holds at once (64 MiB in float32)."""


@dataclass(frozen=True)
class Layer:
    """Part that is read with one call: an upper variable on its levels, or a surface variable."""

    name: str
    levels: tuple[int, ...] = ()
    """Empty for a surface variable."""

    def units(self, part: Part) -> str:
        """Attribute `units` in the file, or nothing."""
        if self.levels:
            return part.upper[self.name][self.levels[0]][0].units
        return part.surface[self.name].units

    def within(self, part: Part) -> bool:
        """Return True if the part has this variable, on all the levels."""
        if self.levels:
            return set(self.levels) <= set(part.upper.get(self.name, ()))
        return self.name in part.surface

    def paths(self, part: Part) -> set[Path]:
        """Files or stores that hold it."""
        if self.levels:
            return {part.upper[self.name][level][0].path for level in self.levels}
        return {part.surface[self.name].path}

    def load(self, part: Part, times: slice) -> Float32[np.ndarray, "time level lat lon"]:
        """Values at some times of one part; a surface variable has one level."""
        if self.levels:
            return part.levels(self.name, self.levels, times)
        return part.surface[self.name].load(times).astype(np.float32, copy=False)


class Series:
    """Parts that hold the same layers, one after another in time."""

    def __init__(self, layers: tuple[Layer, ...], parts: list[Part]) -> None:
        """Raises ValueError naming both files if times overlap or have no dates to sort by."""
        self.layers = layers
        self.parts = sorted(parts, key=lambda part: part.times[0])
        for before, after in zip(self.parts, self.parts[1:], strict=False):
            if np.isnat(before.times).any() or np.isnat(after.times).any():
                raise ValueError(
                    f"{before.path} and {after.path} hold the same variables, but one has no "
                    "dates, so that they cannot be put in order. Give one of them, or add times."
                )
            if after.times[0] <= before.times[-1]:
                raise ValueError(
                    f"{before.path} and {after.path} overlap: the first ends at "
                    f"{before.times[-1]}, the second begins at {after.times[0]}. Drop what is "
                    "double."
                )
        self.times: Times = np.concatenate([part.times for part in self.parts])
        self._ends = np.cumsum([len(part.times) for part in self.parts])

    def read(self, layer: Layer, index: int) -> Float32[np.ndarray, "level lat lon"]:
        """One layer at one time."""
        part = int(np.searchsorted(self._ends, index, side="right"))
        local = index - int(self._ends[part]) + len(self.parts[part].times)
        return layer.load(self.parts[part], slice(local, local + 1))[0]

    def blocks(
        self, layer: Layer
    ) -> Iterator[tuple[int, Float32[np.ndarray, "time level lat lon"]]]:
        """All times of a layer in order: index of the first, values; a block at a time."""
        first = 0
        for part in self.parts:
            values = len(part.horizontal.latitudes) * len(part.horizontal.longitudes)
            size = max(1, BLOCK // (values * max(1, len(layer.levels))))
            for start in range(0, len(part.times), size):
                block = layer.load(part, slice(start, start + size))
                yield first + start, block
            first += len(part.times)

    def split(self) -> Int8[np.ndarray, " time"] | None:
        """Variable `split` of the parts; None unless all have it."""
        splits = [part.split for part in self.parts if part.split is not None]
        return np.concatenate(splits) if len(splits) == len(self.parts) else None


def gather_levels(parts: list[Part]) -> None:
    """Enter levels that lie in other files of the same grid and times with the first such file.

    One file a level is usual (WeatherBench 1's geopotential_500). Levels that two files share stay
    where they are: `join` refuses them, since nothing says which is meant.
    """
    for k, part in enumerate(parts):
        for other in parts[:k]:
            same_times = np.array_equal(part.times, other.times, equal_nan=True)
            if not _same_grid(part, other) or not same_times:
                continue
            for name in set(part.upper) & set(other.upper):
                if not set(part.upper[name]) & set(other.upper[name]):
                    other.upper[name] |= part.upper.pop(name)


def join(parts: list[Part], layers: tuple[Layer, ...], where: str) -> list[Series]:
    """Join the parts; every layer is in a series, and all series have the same times.

    Raises ValueError for other grids, overlapping times, and times that one series lacks.
    """
    first = parts[0]
    groups: dict[tuple[Layer, ...], list[Part]] = {}
    for part in parts:
        if not _same_grid(part, first):
            raise ValueError(
                f"{first.path} and {part.path} lie on different grids ({_grid(first)}; "
                f"{_grid(part)}). Give files of one grid."
            )
        held = tuple(layer for layer in layers if layer.within(part))
        if held:
            groups.setdefault(held, []).append(part)
    found = [Series(held, group) for held, group in groups.items()]
    for layer in layers:
        if not any(layer in series.layers for series in found):
            raise ValueError(
                f"{where}: no file has {layer.name} on all of the levels {list(layer.levels)}."
            )
    for series in found[1:]:
        _same_times(found[0], series)
    return found


def _same_grid(one: Part, other: Part) -> bool:
    here, there = one.horizontal, other.horizontal
    return (here.latitudes, here.longitudes) == (there.latitudes, there.longitudes)


def _grid(part: Part) -> str:
    lat, lon = part.horizontal.latitudes, part.horizontal.longitudes
    return (
        f"{len(lat)} x {len(lon)}, {lat[0]:g} to {lat[-1]:g} north, {lon[0]:g} to {lon[-1]:g} east"
    )


def _same_times(one: Series, other: Series) -> None:
    if np.array_equal(one.times, other.times, equal_nan=True):
        return
    odd = np.setxor1d(one.times, other.times)
    names = [", ".join(layer.name for layer in series.layers) for series in (one, other)]
    raise ValueError(
        f"{one.parts[0].path} ({names[0]}; {len(one.times)} times) and {other.parts[0].path} "
        f"({names[1]}; {len(other.times)} times) hold different times, first {odd[:1]}. Files of "
        "the same variables are joined in time, files of other variables lie side by side: every "
        "time needs all variables."
    )
