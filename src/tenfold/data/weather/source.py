"""The offer of one opened weather file, by tenfold's names; nothing is read but its axes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int8, Num

from . import names
from .axes import MOST_TIMES, Horizontal, Times, dates, horizontal, pressures

MOST_POINTS = 2**27
"""Largest horizontal grid: 0.02 degrees."""
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
    """Kind of each axis: time, level, lat, lon, or empty for one of length 1."""
    horizontal: Horizontal
    units: str = ""

    def load(
        self, times: slice = slice(None), levels: slice = slice(None)
    ) -> Num[np.ndarray, "time level lat lon"]:
        """Unpacked values in our order; axes that the variable lacks have length 1."""
        everything = slice(None)
        cut: dict[str, Any] = {"time": times, "level": levels, "": 0}
        try:
            values = np.asarray(self.array[tuple(cut.get(k, everything) for k in self.kinds)])
        except BROKEN as error:
            raise ValueError(
                f"{self.path}: {self.name} cannot be read at times {times.start} to {times.stop}: "
                f"the file is damaged ({error}). Get it again."
            ) from error
        kinds = [kind for kind in self.kinds if kind]
        values = values.transpose([kinds.index(kind) for kind in ORDER if kind in kinds])
        missing = tuple(axis for axis, kind in enumerate(ORDER) if kind not in kinds)
        return self.horizontal.arrange(np.expand_dims(values, missing))


@dataclass
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


def part_of(data: Any, path: Path) -> Part:
    """Find the axes of a data set of xarray, and sort its variables by them."""
    variables = dict(data.variables)
    where = str(path)
    lat = _coordinate(variables, names.LATITUDE, ("latitude", "degrees_north"), where)
    lon = _coordinate(variables, names.LONGITUDE, ("longitude", "degrees_east"), where)
    grid = horizontal(_values(variables[lat], where), _values(variables[lon], where), where)
    rows, columns = len(grid.latitudes), len(grid.longitudes)
    if rows * columns > MOST_POINTS:
        raise ValueError(f"{where}: {rows} x {columns} points, at most {MOST_POINTS} are read.")
    sizes = dict(data.sizes)
    kinds = {variables[lat].dims[0]: "lat", variables[lon].dims[0]: "lon"}
    time = next((name for name in names.TIME if name in sizes), "")
    level = next((name for name in names.LEVEL if name in sizes), "")
    for name, kind in ((time, "time"), (level, "level")):
        if name and name not in variables:
            raise ValueError(f"{where}: dimension {name} has no coordinate; add its values.")
        kinds |= {name: kind} if name else {}
    part = Part(path, grid, _times(data, variables, time, where), dated=bool(time))
    levels: tuple[int, ...] = ()
    if level:
        units = str(variables[level].attrs.get("units", ""))
        levels = pressures(_values(variables[level], where), units, level, where)
    for name in sorted(variables, key=_familiar):
        found = variables[name]
        if {"lat", "lon"} <= {kinds.get(d, "") for d in found.dims}:
            long = [str(d) for d in found.dims if d not in kinds and sizes[d] > 1]
            if long or found.dtype.kind not in "iufb":
                reason = f"has the further dimension {', '.join(long)}: select one entry of it"
                part.skipped[name] = reason if long else f"holds {found.dtype}"
                continue
            axes = tuple(kinds.get(d, "") for d in found.dims)
            units = str(found.attrs.get("units", ""))
            _place(part, Stored(path, name, found, axes, grid, units), found.attrs, levels)
    if time and "split" in variables and variables["split"].dims == (time,):
        part.split = _split(variables["split"], where)
    return part


def _familiar(name: str) -> tuple[int, str]:
    """Sorts our own names first, then aliases: of two claims to a name the better one wins."""
    own = {*names.UPPER, *names.SURFACE, *names.CONSTANTS}
    return (0 if name in own else 1 if name in names.ALIASES else 2, name)


def _place(part: Part, stored: Stored, about: dict[str, Any], levels: tuple[int, ...]) -> None:
    """Enter one variable among the upper ones, the surface ones or the constants."""
    standard, long = (str(about.get(key, "")) for key in ("standard_name", "long_name"))
    timed, on_levels = "time" in stored.kinds, "level" in stored.kinds
    name = names.name_of(stored.name, standard, on_levels)
    in_name = None if on_levels else names.flat(stored.name, long)
    if part.dated and not timed:
        if on_levels:
            part.skipped[stored.name] = "has levels but no times"
        else:
            _enter(part.constants, name, stored)
    elif on_levels:
        _enter(part.upper, name, {p: (stored, i) for i, p in enumerate(levels)}, stored.name)
    elif in_name:
        part.upper.setdefault(in_name[0], {}).setdefault(in_name[1], (stored, 0))
    else:
        _enter(part.surface, name, stored)
        # ERA5 gives constants, too, with a time (of which any will do), and the ground's as z.
        constant = "zs" if name == "z" else name
        if constant in names.CONSTANTS or not part.dated:
            _enter(part.constants, constant, stored)


def _enter(table: dict[str, Any], name: str, value: Any, own: str = "") -> None:
    """Under the name, or where a better claim has it, under the variable's own."""
    own = own or value.name
    table.setdefault(own if name in table else name, value)


def _coordinate(
    variables: dict[str, Any], known: tuple[str, ...], cf: tuple[str, str], where: str
) -> str:
    """Name of the one-dimensional latitude or longitude, by its name or CF attributes."""
    for name in (*known, *sorted(variables)):
        if name in variables and variables[name].ndim == 1:
            about = variables[name].attrs
            if name in known or about.get("standard_name") == cf[0] or about.get("units") == cf[1]:
                return name
    two = [str(n) for n in known if n in variables]
    raise ValueError(
        f"{where} has no coordinate {cf[0]} with one dimension "
        + (f"({two[0]} has {variables[two[0]].ndim}: regrid, e.g. cdo remapbil). " if two else "")
        + f"It has {', '.join(sorted(map(str, variables))) or 'no variables'}."
    )


def _values(variable: Any, where: str) -> np.ndarray:
    """All values of a coordinate, refused before they are read if there are absurdly many."""
    if variable.size > MOST_TIMES:
        raise ValueError(f"{where}: a coordinate has {variable.size} values, at most {MOST_TIMES}.")
    try:
        return np.asarray(variable)
    except BROKEN as error:
        raise ValueError(f"{where}: damaged: a coordinate cannot be read ({error}).") from error


def _times(data: Any, variables: dict[str, Any], time: str, where: str) -> Times:
    """Times of the axis; else of a scalar coordinate or an attribute; else NaT."""
    if time:
        return dates(_values(variables[time], where), variables[time].attrs, time, where)
    for name in ("valid_time", "time"):
        if name in variables and variables[name].ndim == 0:
            return dates(_values(variables[name], where), variables[name].attrs, name, where)
    for name in ("valid_time", "time", "time_coverage_start"):
        try:
            found = np.array([str(data.attrs.get(name, "")).removesuffix("Z")], "datetime64[s]")
        except ValueError:
            continue
        if not np.isnat(found[0]):
            return found
    return np.array(["NaT"], "datetime64[s]")


def _split(variable: Any, where: str) -> Int8[np.ndarray, " time"]:
    """0 training, 1 validation, 2 test, -1 gap."""
    values = _values(variable, where)
    if values.dtype.kind not in "iuf" or not np.isin(values, (-1, 0, 1, 2)).all():
        raise ValueError(
            f"{where}: split must be 0 (training), 1 (validation), 2 (test) or -1 (gap), found "
            f"{np.unique(values)[:6].tolist()}."
        )
    return values.astype(np.int8)
