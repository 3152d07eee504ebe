"""The usual state at a time of year and day: a few harmonics at every point, in one pass."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, Shaped

from tenfold.files import replacing

from .grid import MISSING_ALLOWED, Grid
from .statistics import Indices, Readable, State, each_field, numbered

YEAR = 365.2425
"""Days: the calendar's mean year, so that phases do not drift against dates."""
EPOCH = np.datetime64("2000-01-01T00:00:00")
PRIOR_DAYS = 2.0
"""Strength of the climatology's ridge: see ``fit_climatology``."""
SOLVABLE = 1e-3
"""Ridge of the diurnal harmonics in states: felt only where missing fields leave too few hours."""
LONG_RECORD = 1.5
"""Years from which 3 annual harmonics can be told from weather, else 1 (ours)."""


@runtime_checkable
class DatedReadable(Readable, Protocol):
    """States with their times."""

    @property
    def times(self) -> Shaped[np.ndarray, " time"]:
        """Time of every index, datetime64, UTC."""


@dataclass(frozen=True, eq=False)
class Climatology:
    """The usual state at a time of year (and of day): a mean and harmonics at every point."""

    grid: Grid
    harmonics: int
    """Of the year."""
    diurnal: int
    """Harmonics of the day."""
    upper: Float32[np.ndarray, "coefficient variable level lat lon"]
    """First the mean, then cosine and sine of every harmonic of the year, then of the day."""
    surface: Float32[np.ndarray, "coefficient field lat lon"]

    def at(self, time: np.datetime64) -> State:
        """The climatology at a time (UTC), in SI units; NaN at points where data were missing."""
        if np.isnat(time):
            raise ValueError("the climatology was asked for the time NaT; give a date and hour.")
        row = _basis(np.array([time]), self.harmonics, self.diurnal)[0].astype(np.float32)
        upper, surface = self.upper[0].copy(), self.surface[0].copy()
        for weight, above, below in zip(row[1:], self.upper[1:], self.surface[1:], strict=True):
            upper += weight * above
            surface += weight * below
        return upper, surface

    def save(self, path: Path) -> None:
        """Write a safetensors file, whole or not at all."""
        from safetensors.numpy import save_file

        grid = {name: list(getattr(self.grid, name)) for name in _GRID}
        header = {"harmonics": self.harmonics, "diurnal": self.diurnal, "grid": grid}
        with replacing(path) as temporary:
            # one entry: safetensors writes several in random order
            save_file(
                {"upper": self.upper, "surface": self.surface},
                temporary,
                {"climatology": json.dumps(header)},
            )

    @classmethod
    def load(cls, path: Path, grid: Grid) -> Climatology:
        """Read what ``save`` wrote; ValueError naming the file if it is damaged or of other fields.

        Shapes are compared with the grid before any value is read.
        """
        from safetensors import safe_open

        if not path.is_file():
            raise FileNotFoundError(f"{path} does not exist; fit the climatology first.")
        try:
            with safe_open(path, "np") as file:
                header = json.loads((file.metadata() or {})["climatology"])
                harmonics, diurnal = header["harmonics"], header["diurnal"]
                if any(type(n) is not int or n < 0 for n in (harmonics, diurnal)):
                    raise TypeError(f"{harmonics!r} and {diurnal!r} are no numbers of harmonics")
                rows = (1 + 2 * (harmonics + diurnal),)
                above = (*rows, len(grid.upper), len(grid.levels), *grid.shape)
                below = (*rows, len(grid.surface), *grid.shape)
                _check_grid(path, header["grid"], grid)
                for name, shape in (("upper", above), ("surface", below)):
                    part = file.get_slice(name)
                    if part.get_dtype() != "F32" or tuple(part.get_shape()) != shape:
                        raise TypeError(f"{name} is not F32 {shape}")
                arrays = (file.get_tensor("upper"), file.get_tensor("surface"))
        except _OtherGrid as error:
            raise ValueError(str(error)) from None
        except Exception as error:  # safetensors raises its own type, OSError and others
            raise ValueError(
                f"{path} is not a readable climatology: {error!r}. Fit it anew."
            ) from error
        return cls(grid, harmonics, diurnal, *arrays)


_GRID = ("upper", "levels", "surface", "latitudes", "longitudes")


class _OtherGrid(ValueError):
    """A file that is whole, but of another grid."""


def _check_grid(path: Path, found: Any, grid: Grid) -> None:
    for name in _GRID:
        is_, asked = list(found[name]), list(getattr(grid, name))
        near = name.endswith("tudes") and len(is_) == len(asked)
        if not (np.allclose(is_, asked, rtol=0, atol=1e-4) if near else is_ == asked):
            raise _OtherGrid(
                f"{path}: its {name} are {str(is_)[:60]}, but those of the data are "
                f"{str(asked)[:60]}. Fit the climatology on the same grid."
            )


def default_harmonics(times: Shaped[np.ndarray, " time"]) -> int:
    """Annual harmonics that a record can carry: 1 below 1.5 years, else 3 (ours)."""
    if not len(times) or np.isnat(times).any():
        raise ValueError(f"{len(times)} times, some of them NaT or none at all; give dated states.")
    years = (times.max() - times.min()) / np.timedelta64(1, "s") / (86400 * YEAR)
    return 3 if years >= LONG_RECORD else 1


def fit_climatology(
    states: DatedReadable, indices: Indices, harmonics: int, diurnal: int = 0
) -> Climatology:
    """Least squares at every point: mean, annual and diurnal harmonics, in one pass.

    Holds as many states (in float64) as there are coefficients, 1 + 2 (harmonics + diurnal).

    Ridge (ours): amplitudes are drawn to zero, so the climatology to the record's mean, with the
    weight of k^2 ``PRIOR_DAYS`` days of data for harmonic k. In a full year that is 1 % of the
    amplitude. In a shorter record mean and harmonics are nearly the same function, and without it
    weather would be continued as season beyond the record. (Harmonics of the day are free: every
    day shows them whole.)

    The two days are the best of 0, 1, 2, 5, 10, 20 and 50 on training states alone. Of the 448 in
    gcm_t21_6h.nc (``split`` 0) the first 80 % were fitted with one harmonic and the last 20 %
    measured: RMSE over the plain mean's, averaged over all 29 fields, is 0.803, 0.749, 0.740,
    0.753, 0.780, 0.818 and 0.879. Weighting by latitude chooses the same. It is one cut of one
    simulation, so a rough choice. (A first choice, two days as well, had looked at the whole
    record with its test blocks; it was dropped and made again in this way.)

    A field that is missing as a whole is left out at that time; a point that is missing at any
    other time is NaN in the climatology.

    Raises ValueError for fewer states than coefficients, times that are NaT, fewer hours of the
    day than diurnal harmonics need, and more missing points than ``MISSING_ALLOWED``.
    """
    numbers, grid = sorted(numbered(indices)), states.grid  # sorted: the order does not matter
    basis = _basis_of(states, numbers, harmonics, diurnal)
    size, fields = basis.shape[1], grid.fields
    sums = np.zeros((size, len(fields), *grid.shape))
    normal = np.zeros((len(fields), size, size))
    used = np.zeros(len(fields), np.int64)
    gone = np.zeros((len(fields), *grid.shape), bool)
    for index, row in zip(numbers, basis, strict=True):
        for field, values in each_field(states, index):
            missing = np.isnan(values)
            if missing.all():
                continue
            gone[field] |= missing
            used[field] += 1
            normal[field] += np.outer(row, row)
            there = np.where(missing, 0.0, values.astype(np.float64))
            for k, weight in enumerate(row):
                sums[k, field] += weight * there
    _check_fit(fields, used, gone, size)
    days = np.unique(states.times[numbers]).astype("datetime64[s]").astype(np.int64) / 86400
    a_day = 1 / float(np.median(np.diff(days))) if len(days) > 1 else 1.0
    annual = PRIOR_DAYS * a_day * np.arange(1, harmonics + 1).repeat(2) ** 2
    ridge = np.diag([0.0, *annual, *[SOLVABLE] * (2 * diurnal)])
    for field in range(len(fields)):
        right = sums[:, field].reshape(size, -1)
        solved = np.linalg.solve(normal[field] + ridge, right).reshape(size, *grid.shape)
        sums[:, field] = np.where(gone[field], np.nan, solved)
    first = len(grid.upper) * len(grid.levels)
    shape = (size, len(grid.upper), len(grid.levels), *grid.shape)
    above = sums[:, :first].astype(np.float32).reshape(shape)
    return Climatology(grid, harmonics, diurnal, above, sums[:, first:].astype(np.float32))


def _basis_of(
    states: DatedReadable, numbers: list[int], harmonics: int, diurnal: int
) -> Float64[np.ndarray, "time coefficient"]:
    if harmonics < 0 or diurnal < 0:
        raise ValueError(f"{harmonics} annual and {diurnal} diurnal harmonics; give 0 or more.")
    if numbers[-1] >= len(states.times):
        raise ValueError(f"index {numbers[-1]} is asked for, but {len(states.times)} states exist.")
    times = states.times[numbers]
    if np.isnat(times).any():
        raise ValueError("some states have the time NaT; a climatology needs dated states.")
    hours = len(np.unique(times.astype("datetime64[s]").astype(np.int64) % 86400))
    if diurnal and hours < 2 * diurnal + 1:
        raise ValueError(
            f"{diurnal} diurnal harmonics need {2 * diurnal + 1} different hours of the day, the "
            f"states have {hours}. Ask for at most {(hours - 1) // 2}."
        )
    size = 1 + 2 * (harmonics + diurnal)
    if len(numbers) < size:
        raise ValueError(
            f"a climatology of {size} coefficients was asked of {len(numbers)} states. Give more "
            "states or fewer harmonics."
        )
    return _basis(times, harmonics, diurnal)


def _check_fit(
    fields: tuple[str, ...],
    used: Int64[np.ndarray, " field"],
    gone: Bool[np.ndarray, "field lat lon"],
    size: int,
) -> None:
    for name, times, points in zip(fields, used, gone, strict=True):
        if times < size:
            raise ValueError(
                f"field {name} is there in {times} states, a climatology of {size} coefficients "
                "needs as many. Leave the field out or give more states."
            )
        if points.mean() > MISSING_ALLOWED:
            raise ValueError(
                f"field {name} has {points.mean():.0%} of its points missing at some time, allowed "
                f"are {MISSING_ALLOWED:.0%}. Leave out the states where they are missing."
            )


def _basis(
    times: Shaped[np.ndarray, " time"], harmonics: int, diurnal: int
) -> Float64[np.ndarray, "time coefficient"]:
    """1, then cos and sin of each harmonic of the year, then of the day."""
    days = (times.astype("datetime64[s]") - EPOCH) / np.timedelta64(86400, "s")
    columns = [np.ones(len(days))]
    for turns, number in ((days / YEAR, harmonics), (days, diurnal)):
        for k in range(1, number + 1):
            columns += [np.cos(2 * np.pi * k * turns), np.sin(2 * np.pi * k * turns)]
    return np.stack(columns, axis=1)
