"""Mean and spread of every field, in one pass over states."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
from jaxtyping import Float32, Float64, Int64, Integer

from .grid import Grid

FLAT = 1e-6
"""A standard deviation below this share of the mean is rounding: float32 resolves 1.2e-7 (ours)."""
FORMAT = "tenfold weather statistics"
LONGEST_JSON = 2**22
"""Most characters of statistics in JSON; 69 fields need about 7,000."""
Indices: TypeAlias = Sequence[int] | Integer[np.ndarray, " _"]
State: TypeAlias = tuple[
    Float32[np.ndarray, "variable level lat lon"], Float32[np.ndarray, "field lat lon"]
]


@runtime_checkable
class Readable(Protocol):
    """States that are read one at a time (by several threads, if ``workers`` is above 1)."""

    @property
    def grid(self) -> Grid:
        """Fields and grid."""

    def read(self, index: int) -> State:
        """Upper (V, L, H, W) and surface (S, H, W), float32, SI units, NaN where missing."""


@dataclass(frozen=True, eq=False)
class Moments:
    """Sums over part of the states, which can be merged; one entry a field, in the grid's order."""

    states: int
    points: Int64[np.ndarray, " field"]
    """Values that are not missing."""
    mean: Float64[np.ndarray, " field"]
    squares: Float64[np.ndarray, " field"]
    """Sum of squared distances from ``mean``."""

    def merge(self, other: Moments) -> Moments:
        """Those of both parts together (Chan, Golub, LeVeque 1979)."""
        points = self.points + other.points
        share = other.points / np.maximum(points, 1)
        apart = other.mean - self.mean
        squares = self.squares + other.squares + apart**2 * self.points * share
        return Moments(self.states + other.states, points, self.mean + apart * share, squares)


@dataclass(frozen=True, eq=False)
class Statistics:
    """Mean and standard deviation of every field over all times and points."""

    upper: tuple[str, ...]
    levels: tuple[int, ...]
    """hPa, in the order of the arrays: from the ground up."""
    surface: tuple[str, ...]
    mean_upper: Float32[np.ndarray, "variable level"]
    std_upper: Float32[np.ndarray, "variable level"]
    mean_surface: Float32[np.ndarray, " field"]
    std_surface: Float32[np.ndarray, " field"]
    count: int
    """States they are from; 0 if that is not known."""

    def by_field(self) -> dict[tuple[str, int | None], tuple[float, float]]:
        """(name, level in hPa, None on the surface) -> mean, standard deviation; the 69 pairs."""
        means = np.concatenate([self.mean_upper.ravel(), self.mean_surface])
        stds = np.concatenate([self.std_upper.ravel(), self.std_surface])
        pairs = zip(means.tolist(), stds.tolist(), strict=True)
        return dict(zip(_keys(self.upper, self.levels, self.surface), pairs, strict=True))

    @classmethod
    def from_fields(
        cls,
        values: Mapping[tuple[str, int | None], tuple[float, float]],
        grid: Grid,
        count: int = 0,
        source: str = "statistics",
    ) -> Statistics:
        """From (name, level) -> mean, standard deviation, in any order, such as the official ones.

        Raises ValueError naming ``source`` if the fields are not those of the grid, a value is
        not finite or a standard deviation not positive.
        """
        keys = _keys(grid.upper, grid.levels, grid.surface)
        lacking = [_title(*key) for key in keys if key not in values]
        foreign = [_title(*key) for key in values if key not in set(keys)]
        if lacking or foreign:
            raise ValueError(
                f"{source}: the fields are not those of the grid. Missing: "
                f"{', '.join(lacking) or 'none'}; not in the grid: {', '.join(foreign) or 'none'}. "
                "Compute the statistics of the same variables and levels."
            )
        with np.errstate(over="ignore"):
            table = np.array([values[key] for key in keys], np.float32).reshape(-1, 2)
        for key, pair in zip(keys, table, strict=True):
            if not (np.isfinite(pair).all() and pair[1] > 0):
                raise ValueError(
                    f"{source}: {_title(*key)} has mean {pair[0]} and standard deviation {pair[1]} "
                    "in float32; expected finite numbers, the second above 0. Compute them anew."
                )
        first = len(grid.upper) * len(grid.levels)
        mean, std = table[:, 0].copy(), table[:, 1].copy()
        shape = (len(grid.upper), len(grid.levels))
        above = (mean[:first].reshape(shape), std[:first].reshape(shape))
        names = (grid.upper, grid.levels, grid.surface)
        return cls(*names, *above, mean[first:], std[first:], count)

    def to_json(self) -> str:
        """All of it as readable JSON; ``from_json`` gives the same bits back."""
        fields = [
            {"name": name, "level": level, "mean": mean, "std": std}
            for (name, level), (mean, std) in self.by_field().items()
        ]
        return json.dumps({"format": FORMAT, "count": self.count, "fields": fields}, indent=1)

    @classmethod
    def from_json(cls, text: str, grid: Grid, source: str = "statistics") -> Statistics:
        """From ``to_json``; each value is found by name and level, so their order is the grid's.

        Raises ValueError naming ``source`` (the file) for what is not such JSON and as
        ``from_fields`` does.
        """
        wrong = f"{source} does not hold tenfold's weather statistics: "
        if len(text) > LONGEST_JSON:
            raise ValueError(f"{wrong}{len(text)} characters, allowed are {LONGEST_JSON}.")
        values: dict[tuple[str, int | None], tuple[float, float]] = {}
        try:
            content = json.loads(text)
            count = content["count"]
            if content["format"] != FORMAT or type(count) is not int or count < 0:
                raise ValueError(f"format {content['format']!r}, count {count!r}")
            for item in content["fields"]:
                key, pair = (item["name"], item["level"]), (item["mean"], item["std"])
                types = (type(key[0]) is str, type(key[1]) in (int, type(None)))
                if not all((*types, *(type(value) in (int, float) for value in pair))):
                    raise TypeError(f"types of {item}")  # a bool is no number here
                if key in values:
                    raise ValueError(f"{_title(*key)} comes twice")
                values[key] = (float(pair[0]), float(pair[1]))
        except (ValueError, KeyError, TypeError, ArithmeticError, RecursionError) as error:
            raise ValueError(f"{wrong}{error!r}. Compute them anew.") from error
        return cls.from_fields(values, grid, count, source)


def statistics(states: Readable, indices: Indices, workers: int = 1) -> Statistics:
    """Mean and standard deviation of every field over some states, in one pass.

    All points count alike (as the authors do it), missing ones not at all. ``workers`` threads
    read at the same time, each holds one state; the result does not depend on their number.

    Raises ValueError for a field that is constant or missing everywhere, which nothing can be
    divided by, for infinite values and for indices that are no list of different numbers.
    """
    grid = states.grid
    sums = moments(states, indices, workers)
    std = np.sqrt(sums.squares / np.maximum(sums.points, 1))
    for name, points, mean, spread in zip(grid.fields, sums.points, sums.mean, std, strict=True):
        if points == 0 or spread <= FLAT * abs(mean):
            what = f"{mean:.6g} everywhere" if points else "missing everywhere"
            raise ValueError(
                f"field {name} is {what} in {sums.states} states (standard deviation {spread:.3g}, "
                f"needed more than {FLAT:g} of the mean). Leave it out or use more states."
            )
    pairs = zip(sums.mean.tolist(), std.tolist(), strict=True)
    keys = _keys(grid.upper, grid.levels, grid.surface)
    return Statistics.from_fields(dict(zip(keys, pairs, strict=True)), grid, sums.states)


def moments(states: Readable, indices: Indices, workers: int = 1) -> Moments:
    """Sums of some states, to be merged with those of others; see ``statistics``."""
    numbers = numbered(indices)
    if workers < 1:
        raise ValueError(f"workers is {workers}; at least 1 thread must read.")
    total: Moments | None = None
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[Moments]] = deque()
        for index in numbers:
            waiting.append(pool.submit(_moments_of, states, index))
            if len(waiting) == workers:  # not all at once: an error ends the pass here
                part = waiting.popleft().result()
                total = part if total is None else total.merge(part)
        for future in waiting:
            total = future.result() if total is None else total.merge(future.result())
    assert total is not None
    return total


def _moments_of(states: Readable, index: int) -> Moments:
    points, means, squares = [], [], []
    for _, values in each_field(states, index):
        there = values[~np.isnan(values)].astype(np.float64)
        mean = float(there.mean()) if there.size else 0.0
        points.append(there.size)
        means.append(mean)
        squares.append(float(((there - mean) ** 2).sum()))
    return Moments(1, np.array(points, np.int64), np.array(means), np.array(squares))


def each_field(
    states: Readable, index: int
) -> Iterator[tuple[int, Float32[np.ndarray, "lat lon"]]]:
    """Number and values of every field of one state, in the order of ``grid.fields``.

    Raises ValueError for a state whose shapes are not its grid's, and for infinite values.
    """
    grid = states.grid
    upper, surface = states.read(index)
    above = (len(grid.upper), len(grid.levels), *grid.shape)
    below = (len(grid.surface), *grid.shape)
    if upper.shape != above or surface.shape != below:
        raise ValueError(
            f"state {index} has shapes {upper.shape} and {surface.shape}, its grid says {above} "
            f"and {below}. Check the reader."
        )
    for number, values in enumerate(chain(upper.reshape(-1, *grid.shape), surface)):
        if np.isinf(values).any():
            raise ValueError(
                f"state {index} has infinite values in {grid.fields[number]}. Mark missing values "
                "as NaN, or leave the state out."
            )
        yield number, values


def numbered(indices: Indices) -> list[int]:
    """Indices as a list; ValueError for none at all, negative ones and one given twice."""
    numbers = [int(index) for index in indices]
    if not numbers or min(numbers) < 0 or len(set(numbers)) < len(numbers):
        raise ValueError(
            f"the indices of the states are {str(numbers[:8])}{'...' * (len(numbers) > 8)}: "
            "expected at least one, from 0 up, none of them twice."
        )
    return numbers


def _keys(
    upper: tuple[str, ...], levels: tuple[int, ...], surface: tuple[str, ...]
) -> list[tuple[str, int | None]]:
    above: list[tuple[str, int | None]] = [(name, level) for name in upper for level in levels]
    return above + [(name, None) for name in surface]


def _title(name: str, level: int | None) -> str:
    return name if level is None else f"{name} at {level} hPa"
