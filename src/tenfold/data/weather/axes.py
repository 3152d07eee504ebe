"""Axes of weather files: latitudes, longitudes, pressure levels, times; each checked."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Integer, Num

from . import names

UNEVEN = 0.05
"""Share by which steps of an axis may differ: Gaussian latitudes do by about 1 %."""
MOST_TIMES = 10_000_000
"""Longest time axis: more than a thousand years by the hour."""
COMMON = frozenset({"standard", "gregorian", "proleptic_gregorian"})
NOLEAP = frozenset({"noleap", "365_day"})
"""Calendars that are read."""
SECONDS = {
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), 1.0),
    **dict.fromkeys(("min", "mins", "minute", "minutes"), 60.0),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), 3600.0),
    **dict.fromkeys(("d", "day", "days"), 86400.0),
    "milliseconds": 1e-3,
    "microseconds": 1e-6,
    "nanoseconds": 1e-9,
}
"""Unit of time -> seconds."""

Times = np.ndarray
"""One-dimensional datetime64[s]; NaT where the file does not say."""


@dataclass(frozen=True)
class Horizontal:
    """The grid of a file, and how its arrays become ours."""

    latitudes: tuple[float, ...]
    """Degrees, from north to south."""
    longitudes: tuple[float, ...]
    """Degrees east, rising."""
    periodic: bool
    """True if the longitudes close the circle."""
    flip: bool
    """True if the file runs from south to north."""
    shift: int
    """Column of the file that is our first."""

    def arrange(self, values: Num[np.ndarray, "*any lat lon"]) -> Num[np.ndarray, "*any lat lon"]:
        """Values in file order -> ours; a view where the file has our order already."""
        if self.flip:
            values = values[..., ::-1, :]
        return np.roll(values, -self.shift, axis=-1) if self.shift else values


def horizontal(lat: np.ndarray, lon: np.ndarray, where: str) -> Horizontal:
    """Check and order both axes (degrees); ValueError names `where` and the two values."""
    north = _axis(lat, "latitude", where)
    if np.abs(north).max() > 90.001:
        worst = north[np.abs(north).argmax()]
        raise ValueError(
            f"{where}: latitude {worst:g} is outside -90 to 90. Are latitude and longitude swapped?"
        )
    flip = len(north) > 1 and bool(north[1] > north[0])
    if flip:
        north = north[::-1]
    _even(-np.diff(north), north, "latitudes", "row", where)
    east = _axis(lon, "longitude", where)
    if np.abs(east).max() > 540:
        raise ValueError(f"{where}: longitude {east[np.abs(east).argmax()]:g} is no longitude.")
    east, shift, periodic = _circle(east, where)
    return Horizontal(_degrees(north.clip(-90, 90)), _degrees(east), periodic, flip, shift)


def _degrees(values: Float[np.ndarray, " n"]) -> tuple[float, ...]:
    # Six decimals (0.1 m): float32 and float64 files of one grid give one Grid. + 0.0: no -0.
    return tuple((np.round(values, 6) + 0.0).tolist())


def _axis(values: np.ndarray, what: str, where: str) -> Float[np.ndarray, " n"]:
    if values.ndim != 1 or values.dtype.kind not in "iuf" or not values.size:
        raise ValueError(
            f"{where}: {what} has shape {values.shape} and type {values.dtype}; a regular grid has "
            "one number a row or column. Regrid curvilinear or unstructured data first (cdo "
            "remapbil)."
        )
    if not np.isfinite(values).all():
        raise ValueError(f"{where}: {what} has missing values; mend the coordinate.")
    return values.astype(np.float64)


def _even(
    steps: Float[np.ndarray, " _"],
    values: Float[np.ndarray, " _"],
    what: str,
    line: str,
    where: str,
) -> None:
    """Steps must be positive and nearly equal."""
    if not len(steps):
        return
    common = float(np.median(steps))
    uneven = np.abs(steps - common) > UNEVEN * abs(common)
    wrong = np.flatnonzero(steps <= 0 if (steps <= 0).any() else uneven)
    if not len(wrong):
        return
    here = int(wrong[0])
    between = f"between {values[here]:g} and {values[here + 1]:g}"
    if steps[here] <= 0:
        problem = f"{what} are not in order {between}"
    elif steps[here] > 1.5 * common:
        problem = f"a {line} is missing {between} (step {steps[here]:g}, elsewhere {common:g})"
    else:
        problem = f"{what} are uneven {between} (step {steps[here]:g}, elsewhere {common:g})"
    raise ValueError(f"{where}: {problem}. Give a whole regular or Gaussian grid.")


def _circle(east: Float[np.ndarray, " n"], where: str) -> tuple[Float[np.ndarray, " n"], int, bool]:
    """Longitudes as we order them, the file's column that comes first, whether they close."""
    falls = np.flatnonzero(np.diff(east) < -180)
    if len(falls) == 1:  # ..., 359, 0, ... or ..., 179, -180, ...: one line around the circle
        east = np.concatenate([east[: falls[0] + 1] - 360.0, east[falls[0] + 1 :]])
    steps = np.diff(east)
    _even(steps, east, "longitudes", "column", where)
    if not len(steps):
        return east, 0, False
    step = float(east[-1] - east[0]) / len(steps)
    excess = step * len(east) - 360
    if excess > 0.5 * step:
        raise ValueError(
            f"{where}: longitudes {east[0]:g} to {east[-1]:g} go more than once around: the first "
            "and last are one meridian. Drop the last column."
        )
    if excess < -0.1 * step:
        return east, 0, False
    around = np.mod(np.round(east, 6), 360.0)
    shift = int(around.argmin())
    return np.roll(around, -shift), shift, True


def pressures(
    values: np.ndarray, about: dict[str, Any], name: str, where: str
) -> tuple[int | None, ...]:
    """Levels in hPa, in file order; ValueError unless distinct and 1 to 1100.

    They are whole, but for those of the stratosphere (below 10 hPa), which are None if they are
    not. Axes of model levels are refused by what they say, or by counting 1, 2, 3, ...
    """
    levels = _axis(np.atleast_1d(values), f"level coordinate {name}", where)
    units = str(about.get("units", ""))
    words = " ".join(str(about.get(key, "")) for key in ("standard_name", "long_name", "formula"))
    unit = units.strip().lower()
    known = unit.rstrip(".") in names.PRESSURE_UNITS
    counted = len(levels) > 3 and np.array_equal(
        np.sort(levels), np.arange(len(levels)) + levels.min()
    )
    if re.search("hybrid|sigma|model.level|generalvertical", words, re.IGNORECASE) or (
        counted and not known
    ):
        raise ValueError(
            f"{where}: {name} has model levels ({words.strip() or 'numbers'}: {levels.min():g} to "
            f"{levels.max():g}), not pressures. Interpolate to pressure levels first (cdo "
            "ml2pl,85000,50000)."
        )
    if not unit and name == "plev" and levels.max() <= 1100:
        raise ValueError(
            f"{where}: levels {name} are {levels.min():g} to {levels.max():g} without units: plev "
            "is in Pa in CMIP's files, but these may be hPa. Say which (ncatted -a "
            f"units,{name},c,c,hPa)."
        )
    pascal = unit.startswith("pa") or (not unit and levels.max() > 1100)
    scaled = levels / 100 if pascal or name == "isobaricInPa" else levels
    whole = np.round(scaled).astype(np.int64)
    odd = np.abs(scaled - whole) > 1e-3
    usable = whole[~odd]
    if (odd & (scaled >= 10)).any() or not len(usable) or usable.min() < 1 or usable.max() > 1100:
        raise ValueError(
            f"{where}: levels {name} are {scaled.min():g} to {scaled.max():g} with units "
            f"{units!r}, expected whole pressures of 1 to 1100 hPa. Mend the units attribute, or "
            "interpolate model levels to pressure levels first."
        )
    if len(set(usable.tolist())) < len(usable):
        raise ValueError(f"{where}: levels {name} name a pressure twice: {usable.tolist()}.")
    return tuple(None if o else int(w) for o, w in zip(odd, whole, strict=True))


def dates(values: np.ndarray, attributes: dict[str, Any], name: str, where: str) -> Times:
    """CF times (``hours since ...``) as datetime64[s], to the nearest second.

    Numbers that count nothing (`month`) have no date: NaT. Years of 365 days (noleap) are read,
    with the 29 February as a gap. Raises ValueError for other calendars than these and the common
    one, unreadable units, and missing values.
    """
    import xarray

    values = np.atleast_1d(values)
    if values.ndim != 1 or not 1 <= len(values) <= MOST_TIMES:
        raise ValueError(f"{where}: {name} has shape {values.shape}, expected 1 to {MOST_TIMES}.")
    if name == "month":
        return np.full(len(values), "NaT", "datetime64[s]")
    if values.dtype.kind == "M":
        return values.astype("datetime64[s]")
    units = str(attributes.get("units", ""))
    absolute = re.fullmatch(r"days? as %Y%m%d\.%f", units)
    if not (" since " in units or absolute) or values.dtype.kind not in "iuf":
        raise ValueError(
            f"{where}: {name} has units {units!r} and type {values.dtype}, expected numbers and "
            "CF units such as 'hours since 1900-01-01'. Set the attribute (cdo setreftime)."
        )
    if not np.isfinite(values).all():
        raise ValueError(f"{where}: {name} has missing values; drop those times.")
    calendar = str(attributes.get("calendar", "standard")).lower()
    if calendar not in COMMON and calendar not in NOLEAP:
        raise ValueError(
            f"{where}: {name} has the calendar {calendar!r}, whose days are not all in the common "
            "one. Convert it first (xarray: .convert_calendar('standard', align_on='year'))."
        )
    try:
        if absolute:
            return _absolute(values)
        if calendar in NOLEAP:
            return _noleap(values, units)
        decoded = xarray.decode_cf(
            xarray.Dataset(coords={name: (name, values, {"units": units, "calendar": calendar})})
        )
        exact = decoded[name].values.astype("datetime64[ms]")
    except (ValueError, ArithmeticError, TypeError, ImportError) as error:
        raise ValueError(
            f"{where}: {name} with units {units!r} and calendar {calendar!r} cannot be read as "
            "dates of the common calendar."
        ) from error
    return (exact + np.timedelta64(500, "ms")).astype("datetime64[s]")


def _absolute(values: np.ndarray) -> Times:
    """CDO's absolute times: 20180101.25 is 6 h on 1 January 2018."""
    days = np.floor(values + 1e-6)
    text = [f"{int(day):08d}" for day in days]
    start = np.array([f"{t[:-4]}-{t[-4:-2]}-{t[-2:]}" for t in text], "datetime64[s]")
    return start + np.round((values - days) * 86400).astype("timedelta64[s]")


_DAYS_BEFORE = np.cumsum([0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30])
"""Days of a year of 365 before each of its months."""


_SINCE = re.compile(
    r"(?P<year>\d+)-(?P<month>\d\d?)-(?P<day>\d\d?)"
    r"(?:[T ]\s*(?P<hour>\d\d?)(?::(?P<minute>\d\d?)(?::(?P<second>\d\d?(?:\.\d*)?))?)?)?"
    r"\s*(?:Z|UTC|(?P<sign>[+-])(?P<east>\d\d?)(?::?(?P<rest>\d\d))?)?",
    re.IGNORECASE,
)
"""Start of CF's units of time: a date, perhaps a clock and how far it is ahead of UTC."""


def _noleap(values: np.ndarray, units: str) -> Times:
    """Dates of a calendar without leap years, each of which the common one has, too.

    Raises ValueError for units that are no such, and for a start that the calendar does not have.
    """
    unit, _, since = units.partition(" since ")
    found, size = _SINCE.fullmatch(since.strip()), SECONDS.get(unit.strip().lower())
    if found is None or size is None:
        raise ValueError(f"{units!r} are no units of time of this calendar")
    year, month, day, hour, minute, east, rest = (
        int(found[name] or 0) for name in ("year", "month", "day", "hour", "minute", "east", "rest")
    )
    second = float(found["second"] or 0)
    lengths = np.diff(_DAYS_BEFORE, append=365)
    if not (1 <= month <= 12 and 1 <= day <= lengths[month - 1] and hour < 24 and minute < 60):
        raise ValueError(f"{since!r} is no date of this calendar")
    zone = (3600 * east + 60 * rest) * (-1 if found["sign"] == "-" else 1)
    of_day = 3600 * hour + 60 * minute + second - zone
    of_year = year * 365 + int(_DAYS_BEFORE[month - 1]) + day - 1
    passed = np.round(values.astype(np.float64) * size + of_day).astype(np.int64)
    days, seconds = np.divmod(passed, 86400)
    years, left = np.divmod(days + of_year, 365)
    months = np.searchsorted(_DAYS_BEFORE, left, side="right") - 1
    start = (years - 1970).astype("datetime64[Y]").astype("datetime64[M]") + months
    first = start.astype("datetime64[D]") + (left - _DAYS_BEFORE[months])
    return first.astype("datetime64[s]") + seconds.astype("timedelta64[s]")


def durations(values: np.ndarray, attributes: dict[str, Any], name: str, where: str) -> np.ndarray:
    """Times since the start of a forecast, as timedelta64[s]; hours where the file does not say."""
    values = np.atleast_1d(values)
    units = str(attributes.get("units", "")).strip().lower()
    if values.dtype.kind == "m":
        return values.astype("timedelta64[s]")
    if values.dtype.kind not in "iuf" or (units or "hours") not in SECONDS:
        raise ValueError(
            f"{where}: {name} has units {units!r} and type {values.dtype}, expected hours since "
            "the start of the forecast. Set the attribute units."
        )
    if not np.isfinite(values).all():
        raise ValueError(f"{where}: {name} has missing values; drop those times.")
    # without units: nanoseconds, as NumPy keeps them, are too many for hours
    unit = units or ("nanoseconds" if np.abs(values).max() > 1e9 else "hours")
    return np.round(values * SECONDS[unit]).astype("timedelta64[s]")


def spacing(times: Times, where: str) -> tuple[int, Integer[np.ndarray, " gap"]]:
    """Hours of the most common step, and after which indices a longer one (a gap) follows.

    Without dates, or with a single one, the step is 6. Raises ValueError for times that are not
    ascending, are there twice, or lie closer together than the common step.
    """
    unknown = np.isnat(times)
    if unknown.any() and not unknown.all():
        raise ValueError(f"{where}: {unknown.sum()} of {len(times)} times are missing.")
    if len(times) < 2 or unknown.all():
        return 6, np.empty(0, np.int64)
    steps = np.diff(times).astype(np.int64)
    for wrong, problem in ((steps == 0, "is there twice"), (steps < 0, "is not after the one")):
        if wrong.any():
            here = int(wrong.argmax())
            tail = "" if steps[here] == 0 else f" before it, {times[here]}"
            raise ValueError(
                f"{where}: time {times[here + 1]} (index {here + 1}) {problem}{tail}. Sort the "
                "times and drop what is double (cdo mergetime)."
            )
    found, counts = np.unique(steps, return_counts=True)
    common = int(found[counts.argmax()])
    if common % 3600 or (steps < common).any():
        here = int(steps.argmin())
        raise ValueError(
            f"{where}: times are uneven: mostly {common / 3600:g} h apart, but {times[here]} and "
            f"{times[here + 1]} are {steps[here] / 3600:g} h apart. Keep times of one step of "
            "whole hours; gaps are allowed."
        )
    return common // 3600, np.flatnonzero(steps > common)
