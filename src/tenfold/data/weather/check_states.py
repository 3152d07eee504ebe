"""Checks of weather states: wrong units, wrong order, missing values, each with its remedy.

Ours. Only what is certain is an error: global grids do not show in the fields alone whether north
and south are exchanged, so that is judged by the land mask or the height of the ground, if there
is one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from . import names
from .grid import MISSING_ALLOWED
from .limits import FILL, LIMITS, is_fill, standard_geopotential
from .names import GRAVITY
from .states import States
from .survey import Summary


@dataclass(frozen=True)
class Finding:
    """One thing that was found."""

    what: str
    """Field, value, limit, and what to do."""
    certain: bool
    """A mistake that makes the states useless; otherwise a note."""


def check_states(states: States) -> list[Finding]:
    """Judge states by what was read when they were opened: first, middle and last time.

    Found are: height for geopotential, hPa, Celsius, g/kg, exchanged levels, units attributes that
    contradict the values, missing values, north and south exchanged (only with the constants lsm,
    orog or zs that reach both poles); gaps between times are noted.
    """
    found = [*_missing(states), *_constants(states), *_poles(states)]
    for k, name in enumerate(states.grid.upper):
        fields = [states.survey.fields[0, k, level] for level in range(len(states.grid.levels))]
        found += _variable(states, name, f"upper {name}", fields, states.grid.levels)
    for k, name in enumerate(states.grid.surface):
        found += _variable(states, name, name, [states.survey.fields[1, k, 0]], ())
    if len(states.gaps):
        first = int(states.gaps[0])
        found.append(
            Finding(
                f"{len(states.gaps)} gaps between times (steps of more than {states.grid.step} h), "
                f"the first after {states.times[first]}",
                False,
            )
        )
    return found


def _label(states: States, key: tuple[int, int, int]) -> str:
    kind, k, level = key
    if kind:
        return states.grid.surface[k]
    return f"{states.grid.upper[k]} at {states.grid.levels[level]} hPa"


def _missing(states: States) -> Iterator[Finding]:
    survey = states.survey
    share = float(survey.missing.mean())
    if share > 0:
        row, column = (int(i) for i in np.argwhere(survey.missing)[0])
        yield Finding(
            f"{int(survey.missing.sum())} points ({share:.1%}) are missing at every time, the "
            f"first at {_point(states, row, column)}"
            + (f"; at most {MISSING_ALLOWED:.0%} may be" if share > MISSING_ALLOWED else ""),
            share > MISSING_ALLOWED,
        )
    for key, summary in survey.fields.items():
        label = _label(states, key)
        if len(summary.absent) == len(survey.times):
            yield Finding(f"{label} has no value at any time looked at: choose without it", True)
        elif summary.absent:
            time = states.times[summary.absent[0]]
            yield Finding(
                f"{label} is missing as a whole at {time}; such times are left out", False
            )
        for time, count, row, column in summary.patches[:1]:
            yield Finding(
                f"{label}: {count} values ({count / survey.missing.size:.1%}) are missing at time "
                f"{states.times[time]} (index {time}), the first at {_point(states, row, column)}, "
                "and not at all times; only points that are always missing are allowed. Fill them "
                "or drop those times",
                True,
            )


def _point(states: States, row: int, column: int) -> str:
    return f"latitude {states.grid.latitudes[row]:g}, longitude {states.grid.longitudes[column]:g}"


def _constants(states: States) -> Iterator[Finding]:
    for name, values in zip(states.grid.constants, states.constants(), strict=True):
        bad = ~np.isfinite(values) & ~states.missing
        if bad.any():
            row, column = (int(i) for i in np.argwhere(bad)[0])
            yield Finding(
                f"constant {name}: {int(bad.sum())} values are missing, the first at "
                f"{_point(states, row, column)}. Fill them or choose without it",
                True,
            )


def _poles(states: States) -> Iterator[Finding]:
    """Antarctica is land and 2 to 3 km high, the Arctic is mostly sea."""
    lat = np.array(states.grid.latitudes)
    south, north = lat < -75, lat > 75
    if not (south.any() and north.any() and states.grid.periodic):
        return
    maps = dict(zip(states.grid.constants, states.constants(), strict=True))
    high = {"lsm": 0.8, "orog": 1000.0, "zs": 1000.0 * GRAVITY}
    for name in sorted(set(high) & set(maps)):
        below, above = float(np.nanmean(maps[name][south])), float(np.nanmean(maps[name][north]))
        if above > high[name] and below < above / 2:
            yield Finding(
                f"north and south are exchanged: {name} has mean {above:.4g} north of 75 N and "
                f"{below:.4g} south of 75 S, where Antarctica is. Mend the latitude coordinate "
                "(or turn the data over: cdo invertlatdata)",
                True,
            )


def _variable(
    states: States, name: str, key: str, fields: list[Summary], levels: tuple[int, ...]
) -> Iterator[Finding]:
    """Judge one variable by its values first, then by its units attribute."""
    present = [(f, p) for f, p in zip(fields, levels or (0,), strict=True) if f.count]
    if not present:
        return
    units = states.units.get(key, "")
    problem = _order(present) if name == "z" and levels else ""
    if not problem and name == "z" and levels:
        problem = _geopotential(present)
    elif not problem:
        problem = next((text for f, p in present if (text := _range(name, f, p))), "")
    known = names.QUANTITIES.get(name)
    if problem:
        says = f" (its units attribute says {units!r})" if units else ""
        yield Finding(f"{name} {problem}{says}", True)
    elif known and units:
        plain = names.plain_unit(units)
        low, high = min(f.low for f, _ in present), max(f.high for f, _ in present)
        if plain in known.wrong:
            yield Finding(
                f"{name}: its units attribute says {units!r}, but {low:.4g} to {high:.4g} look "
                f"like {known.unit}. Mend the attribute, or the values ({known.convert})",
                True,
            )
        elif plain not in known.right:
            yield Finding(f"{name}: units {units!r} are not known; taken for {known.unit}", False)


def _order(present: list[tuple[Summary, int]]) -> str:
    """Geopotential must rise from the ground up."""
    means = [f.mean for f, _ in present]
    falls = [k for k in range(len(means) - 1) if means[k + 1] <= means[k]]
    if not falls:
        return ""
    k = falls[0]
    pair = (
        f"{means[k]:.5g} at {present[k][1]} hPa and {means[k + 1]:.5g} at {present[k + 1][1]} hPa"
    )
    if len(falls) == len(means) - 1 and len(means) > 1:
        return (
            f"falls with height: mean {pair}. The levels are in reverse order: turn the data or "
            "the level coordinate around"
        )
    return (
        f"does not rise with height: mean {pair}. Levels are exchanged: give each the data of its "
        "pressure"
    )


def _geopotential(present: list[tuple[Summary, int]]) -> str:
    """Compare with the standard atmosphere, where the ground does not matter: at 850 hPa and up."""
    ratios = [f.mean / standard_geopotential(p) for f, p in present if p <= 850]
    if not ratios:
        return ""
    ratio, level = float(np.median(ratios)), [p for _, p in present if p <= 850][0]
    mean = next(f.mean for f, p in present if p == level)
    about = f"is about {mean:.5g} at {level} hPa, expected {standard_geopotential(level):.3g} m2/s2"
    if 0.7 < ratio < 1.35:
        return ""
    if 0.7 < ratio * GRAVITY < 1.35:
        return f"{about}: this is height in m, multiply by {GRAVITY}"
    if 0.7 < ratio * GRAVITY * 10 < 1.35:
        return f"{about}: this is height in decametres, multiply by {GRAVITY * 10:g}"
    return f"{about}: neither geopotential nor height. Check scale factor and order of variables"


def _range(name: str, found: Summary, level: int) -> str:
    """Faults of the values of one field, or nothing."""
    low, high = LIMITS.get(name, (-FILL, FILL))
    if low <= found.low and found.high <= high:
        return ""
    where = f" at {level} hPa" if level else ""
    for value in (found.low, found.high):
        if is_fill(value):
            return (
                f"is {value:.4g}{where}: this stands for a missing value, which the file does not "
                "say: set its attribute _FillValue (ncatted), or drop those times"
            )
    if found.low == found.high:
        return f"is {found.low:g} everywhere{where}: there is no data in it"
    about = f"is {found.low:.4g} to {found.high:.4g}{where}"
    if name in ("t", "t2m") and found.low > -120 and found.high < 80:
        return f"{about}: these are degrees Celsius, add 273.15 for K"
    if name == "msl" and 800 < found.mean < 1150:
        return f"{about}: this is hPa, multiply by 100 for Pa"
    if name == "msl" and 80 < found.mean < 115:
        return f"{about}: this is kPa, multiply by 1000 for Pa"
    if name == "q" and found.low > -0.5 and found.high < 60:
        return f"{about}: this is g/kg, divide by 1000 for kg/kg"
    return (
        f"{about}, expected {low:g} to {high:g} {names.QUANTITIES[name].unit}: wrong unit, scale "
        "factor or variable"
    )
