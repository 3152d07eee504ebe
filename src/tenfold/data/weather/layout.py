"""The layout of a weather file: which axis is which, and which variable is which of ours."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int8

from . import names
from .axes import MOST_TIMES, SECONDS, Horizontal, Times, dates, durations, horizontal, pressures
from .source import BROKEN, Part, Stored

MOST_POINTS = 2**27
"""Largest horizontal grid: 0.02 degrees."""
BOUNDS = re.compile(r"\w*_(bnds|bounds)|bounds_\w*", re.IGNORECASE)


def part_of(data: Any, path: Path) -> Part:
    """Find the axes of a data set of xarray, and sort its variables by them."""
    variables, where = dict(data.variables), str(path)
    axes = _axes(data, variables, where)
    part = Part(path, axes.grid, axes.times, dated=bool(axes.time), skipped=dict(axes.faults))
    for name in sorted(variables, key=_familiar):
        for field in _fields(name, variables[name], variables, axes):
            _sort_in(part, field, variables, axes)
    split = variables.get("split")
    if axes.time and split is not None and split.dims == (axes.time,):
        part.split = _split(split, where)
    return part


# --- axes ---


@dataclass(frozen=True)
class _Axes:
    """Axes of a file, by the names of its dimensions."""

    where: str
    grid: Horizontal
    kinds: dict[str, str]
    """Dimension -> time, level, lat, lon."""
    levels: dict[str, tuple[int | None, ...]]
    """Dimension of pressure -> hPa, None where they are not whole."""
    time: str
    """Dimension of time, or empty."""
    times: Times
    faults: dict[str, str]
    """Dimension -> why what lies on it is not all read."""


def _axes(data: Any, variables: dict[str, Any], where: str) -> _Axes:
    lat = _coordinate(variables, names.LATITUDE, "latitude", names.NORTH, where)
    lon = _coordinate(variables, names.LONGITUDE, "longitude", names.EAST, where)
    grid = horizontal(_values(variables[lat], where), _values(variables[lon], where), where)
    rows, columns = len(grid.latitudes), len(grid.longitudes)
    if rows * columns > MOST_POINTS:
        raise ValueError(f"{where}: {rows} x {columns} points, at most {MOST_POINTS} are read.")
    kinds = {str(variables[lat].dims[0]): "lat", str(variables[lon].dims[0]): "lon"}
    sizes = {str(name): int(size) for name, size in data.sizes.items() if name not in kinds}
    levels: dict[str, tuple[int | None, ...]] = {}
    faults: dict[str, str] = {}
    for name in sizes:
        if not _is_level(name, variables.get(name)):
            continue
        if name not in variables:
            raise ValueError(f"{where}: dimension {name} has no coordinate; add its values.")
        levels[name] = pressures(
            _values(variables[name], where), variables[name].attrs, name, where
        )
        kinds[name] = "level"
        if odd := [
            str(v)
            for v, p in zip(_values(variables[name], where), levels[name], strict=True)
            if p is None
        ]:
            faults[f"levels {', '.join(odd)} of {name}"] = "are no whole pressures in hPa"
    time, times = _clock(data, variables, sizes, where)
    if time:
        kinds[time] = "time"
    return _Axes(where, grid, kinds, levels, time, times, faults)


def _is_level(name: str, variable: Any) -> bool:
    """Return True for an axis of pressure, by its name, or its CF attributes."""
    if names.LEVEL.fullmatch(name):
        return True
    if variable is None or variable.ndim > 1:
        return False
    about = variable.attrs
    return (
        about.get("standard_name") == "air_pressure"
        or names.plain_unit(str(about.get("units", ""))) in names.PRESSURE_UNITS
    )


def _coordinate(
    variables: dict[str, Any],
    known: re.Pattern[str],
    standard: str,
    units: re.Pattern[str],
    where: str,
) -> str:
    """Name of the one-dimensional latitude or longitude, by its name or CF attributes."""
    named = [name for name in variables if known.fullmatch(str(name))]
    for name in (*sorted(named, key=len, reverse=True), *sorted(variables)):
        if variables[name].ndim == 1:
            about = variables[name].attrs
            said = about.get("standard_name") == standard
            if name in named or said or units.fullmatch(str(about.get("units", ""))):
                return str(name)
    two = [name for name in named if variables[name].ndim != 1]
    raise ValueError(
        f"{where} has no coordinate {standard} with one dimension "
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


# --- time ---


def _clock(
    data: Any, variables: dict[str, Any], sizes: dict[str, int], where: str
) -> tuple[str, Times]:
    """Dimension of time (or nothing) and its dates: those for which states are valid.

    A forecast has a start and hours since then (cfgrib's `step`, WeatherBench2's
    `prediction_timedelta`, earth2studio's `lead_time`); one of the two may have many values.
    """
    time = next((name for name in sizes if _is_time(name, variables.get(name))), "")
    lead = next((name for name in sizes if names.LEAD.fullmatch(name) and name != time), "")
    if time and not lead and time in variables and not _valid(variables, time):
        about = variables[time].attrs
        if str(about.get("units", "")).lower() in SECONDS:  # hours since an unknown start
            time, lead = "", time
    for name in (time, lead):
        if name and name not in variables and not _valid(variables, name):
            raise ValueError(f"{where}: dimension {name} has no coordinate; add its values.")
    if time and lead and sizes[time] > 1 and sizes[lead] > 1:
        raise ValueError(
            f"{where} holds many forecasts: {sizes[time]} starts along {time} with {sizes[lead]} "
            f"lead times along {lead}. Keep one start or one lead time (in xarray: "
            f".isel({lead}=0))."
        )
    axis = lead if lead and (not time or sizes[time] == 1) else time
    if valid := _valid(variables, axis):
        found = variables[valid]
        return axis, dates(_values(found, where).reshape(-1), found.attrs, valid, where)
    if not axis:
        return "", _scalar_time(data, variables, where)
    if not lead:
        return axis, dates(_values(variables[axis], where), variables[axis].attrs, axis, where)
    hours = durations(_values(variables[lead], where), variables[lead].attrs, lead, where)
    if time:
        start = dates(_values(variables[time], where), variables[time].attrs, time, where)
    else:
        start = _scalar_time(data, variables, where)
    return axis, start + hours


def _is_time(name: str, variable: Any) -> bool:
    if variable is None or variable.ndim != 1:
        return bool(names.TIME.fullmatch(name))
    about = variable.attrs
    return (
        bool(names.TIME.fullmatch(name))
        or variable.dtype.kind == "M"
        or about.get("standard_name") == "time"
    )


def _valid(variables: dict[str, Any], axis: str) -> str:
    """Name of a variable with the dates of an axis that has none itself, or nothing."""
    for name in ("valid_time", "datetime"):
        found = variables.get(name)
        if axis and name != axis and found is not None and axis in found.dims:
            if all(size == 1 for dim, size in found.sizes.items() if dim != axis):
                return name
    return ""


def _scalar_time(data: Any, variables: dict[str, Any], where: str) -> Times:
    """Time of a scalar coordinate or an attribute; else NaT."""
    for name in ("valid_time", "time", "forecast_reference_time"):
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


# --- variables ---


@dataclass(frozen=True)
class _Field:
    """One variable of a file, or one entry of an axis of variables."""

    name: str
    variable: Any
    fixed: tuple[int, ...]
    attributes: dict[str, Any]


def _fields(name: str, variable: Any, variables: dict[str, Any], axes: _Axes) -> list[_Field]:
    """The variable, or where it has an axis of named entries each of them; none for coordinates."""
    if variable.ndim < 2 or name in variable.dims or BOUNDS.fullmatch(name):
        return []
    zero = (0,) * variable.ndim
    axis = next((d for d in variable.dims if d in names.PER_ENTRY and d in variables), None)
    if axis is None:
        return [_Field(name, variable, zero, variable.attrs)]
    entries = [str(entry) for entry in _values(variables[axis], axes.where)]
    at = variable.dims.index(axis)
    return [
        _Field(entry, variable, zero[:at] + (k,) + zero[at + 1 :], {})
        for k, entry in enumerate(entries)
    ]


def _sort_in(part: Part, field: _Field, variables: dict[str, Any], axes: _Axes) -> None:
    """Enter one field among the upper ones, the surface ones or the constants, or say why not."""
    found, kinds = field.variable, axes.kinds
    plane = {kinds.get(dim, "") for dim in found.dims} & {"lat", "lon"}
    if len(plane) < 2:
        if plane and found.dtype.kind in "iuf":
            lacks = "longitude" if "lat" in plane else "latitude"
            part.skipped[field.name] = f"has no {lacks}"
        return
    many = [
        str(dim)
        for dim, size in found.sizes.items()
        if dim not in kinds and dim not in names.PER_ENTRY and size > 1
    ]
    if many:
        part.skipped[field.name] = (
            f"has the further dimension {', '.join(many)}: select one entry of it, or interpolate "
            "it to pressure levels if it is an axis of heights"
        )
    elif found.dtype.kind not in "iufb":
        part.skipped[field.name] = f"holds {found.dtype}"
    else:
        standard, long = (str(field.attributes.get(k, "")) for k in ("standard_name", "long_name"))
        height = _height(found, field.attributes, variables)
        in_name = names.flat(field.name, long)
        levels = next((axes.levels[str(d)] for d in found.dims if str(d) in axes.levels), ())
        if not levels and not in_name and height is None:
            levels = _one_level(field, standard, variables, axes.where)
        ours = names.name_of(field.name, standard, bool(levels), height)
        if wrong := "" if levels else names.wrong_kind(ours, standard, long, height):
            part.skipped[field.name] = wrong
            return
        own = tuple(kinds.get(str(dim), "") for dim in found.dims)
        units = str(field.attributes.get("units", ""))
        stored = Stored(part.path, field.name, found, own, axes.grid, units, field.fixed)
        _place(part, stored, ours, in_name, levels)


def _one_level(
    field: _Field, standard: str, variables: dict[str, Any], where: str
) -> tuple[int | None, ...]:
    """Pressure of a field on one level, by a scalar coordinate; empty if none says so.

    Only for what lies on levels by its name: of a selection (xarray's `sel(level=500)`) the fields
    of the ground keep that coordinate, too. A unit alone tells nothing of scalars that no field
    names (a reference pressure).
    """
    if names.name_of(field.name, standard, True) not in (*names.UPPER, names.HEIGHT):
        return ()
    named = str(field.attributes.get("coordinates", "")).split()
    around = [
        name
        for name, found in variables.items()
        if found.ndim == 0 and found.dtype.kind in "iuf" and _is_level(name, found)
    ]
    own = [name for name in around if name in named]
    own = own or [name for name in around if names.LEVEL.fullmatch(name)]
    found = {
        pressures(_values(variables[name], where), variables[name].attrs, name, where)
        for name in own
    }
    if len(found) > 1:
        raise ValueError(
            f"{where}: {', '.join(sorted(own))} give {field.name} several levels; drop all but one."
        )
    return found.pop() if found else ()


def _height(variable: Any, about: dict[str, Any], variables: dict[str, Any]) -> float | None:
    """Metres above the ground of a field on one level, by a coordinate that says so."""
    scalars = [name for name, found in variables.items() if found.size == 1]
    named = {*map(str, variable.dims), *str(about.get("coordinates", "")).split()}
    around = [name for name in scalars if names.ABOVE_GROUND.fullmatch(str(name))]
    own = [name for name in around if name in named] or around
    if len(own) != 1:
        return None
    try:
        return float(np.asarray(variables[own[0]]).reshape(-1)[0])
    except BROKEN:
        return None


def _familiar(name: str) -> tuple[int, str]:
    """Sorts our own names first, then aliases: of two claims to a name the better one wins."""
    own = {*names.UPPER, *names.SURFACE, *names.CONSTANTS}
    return (0 if name in own else 1 if name.lower() in names.ALIASES else 2, name)


def _place(
    part: Part,
    stored: Stored,
    name: str,
    in_name: tuple[str, int] | None,
    levels: tuple[int | None, ...],
) -> None:
    """Enter one variable among the upper ones, the surface ones or the constants."""
    timed = "time" in stored.kinds
    if part.dated and not timed:
        if levels:
            part.skipped[stored.name] = "has levels but no times"
        else:
            _enter(part.constants, name, stored)
    elif levels:
        rows = {p: (stored, i) for i, p in enumerate(levels) if p is not None}
        _enter(part.upper, name, rows, stored.name)
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
