"""Names and units of weather variables: what ERA5, WeatherBench2, CF and CMIP files call them."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from difflib import get_close_matches

UPPER = ("z", "q", "t", "u", "v")
"""Variables on pressure levels, in the order of the paper."""
SURFACE = ("msl", "u10", "v10", "t2m")
"""Variables on one level, in the order of the paper."""
NEAR_SURFACE = ("q", "t", "u", "v")
"""Names of level variables that files also use for near-surface fields. Not z: a two-dimensional
z is the height of the ground in ERA5 files."""
CONSTANTS = ("lsm", "slt", "orog", "zs")
"""Maps that do not change: land share, soil type, height (m) and geopotential of the ground."""

ALIASES = {
    "geopotential": "z",
    "specific_humidity": "q",
    "temperature": "t",
    "u_component_of_wind": "u",
    "v_component_of_wind": "v",
    "mean_sea_level_pressure": "msl",
    "10m_u_component_of_wind": "u10",
    "10m_v_component_of_wind": "v10",
    "2m_temperature": "t2m",
    "10u": "u10",
    "10v": "v10",
    "2t": "t2m",
    "hus": "q",
    "ta": "t",
    "ua": "u",
    "va": "v",
    "psl": "msl",
    "uas": "u10",
    "vas": "v10",
    "tas": "t2m",
    "land_sea_mask": "lsm",
    "soil_type": "slt",
    "geopotential_at_surface": "zs",
    "sea_surface_temperature": "sst",
}
"""Long and short names of other sources: WeatherBench2, ecCodes, CMIP -> ours."""
_CF_UPPER = {
    "geopotential": "z",
    "specific_humidity": "q",
    "air_temperature": "t",
    "eastward_wind": "u",
    "northward_wind": "v",
}
_CF_SURFACE = {
    "air_pressure_at_mean_sea_level": "msl",
    "air_pressure_at_sea_level": "msl",
    "land_binary_mask": "lsm",
    "surface_altitude": "orog",
}

LATITUDE = ("latitude", "lat")
LONGITUDE = ("longitude", "lon")
LEVEL = ("level", "pressure_level", "isobaricInhPa", "isobaricInPa", "plev", "pressure")
TIME = ("time", "valid_time", "initial_time", "month")
"""Coordinates, known by name; latitude and longitude also by CF standard_name or units."""

HEIGHT = {"gh", "zg", "geopotential_height"}
"""Names of geopotential height, which is not geopotential."""


@dataclass(frozen=True)
class Quantity:
    """Units that a variable may be given in."""

    unit: str
    """Unit that tenfold works in."""
    right: frozenset[str]
    """Spellings of that unit, as `plain_unit` writes them."""
    wrong: frozenset[str]
    """Units of the same quantity that need converting."""
    convert: str
    """Instructions for converting."""


def _quantity(unit: str, right: str, wrong: str, convert: str) -> Quantity:
    return Quantity(unit, frozenset(right.split()), frozenset(wrong.split()), convert)


_WIND = _quantity(
    "m/s", "ms-1 m/s mpers meter/s", "kt kts knot knots km/h kmh-1", "convert to m/s (1 kt 0.5144)"
)
_KELVIN = _quantity(
    "K", "k kelvin degk", "c degc celsius °c degreec degreescelsius f degf", "add 273.15 to degC"
)
QUANTITIES = {
    "z": _quantity(
        "m2/s2",
        "m2s-2 m2/s2 jkg-1 j/kg",
        "m gpm dam gpdm dagpm km meter meters",
        "multiply height in m by 9.80665 (in dam by 98.0665)",
    ),
    "q": _quantity(
        "kg/kg", "kgkg-1 kg/kg 1 dimensionless", "gkg-1 g/kg % percent", "divide g/kg by 1000"
    ),
    "t": _KELVIN,
    "t2m": _KELVIN,
    "sst": _KELVIN,
    "msl": _quantity("Pa", "pa pascal", "hpa mb mbar millibar millibars kpa", "multiply by 100"),
    **{name: _WIND for name in ("u", "v", "u10", "v10")},
}
"""Variables whose units are known."""

_FLAT = re.compile(r"([A-Za-z]+?)_?(\d{1,4})(?:hPa)?")


def plain_unit(text: str) -> str:
    """One spelling of a unit: lower case, no spaces, stars or carets (``m**2 s**-2`` m2s-2)."""
    return re.sub(r"[\s*^._]", "", text.lower())


def canonical(name: str) -> str:
    """Our name of a variable that a user may call by another one; unknown names as they are."""
    return ALIASES.get(name, name)


def name_of(name: str, standard_name: str, on_levels: bool) -> str:
    """Our name of a file's variable; its own name counts more than its CF standard_name."""
    known = {*UPPER, *SURFACE, *CONSTANTS, *HEIGHT}
    if name in ALIASES or name in known:
        return canonical(name)
    return (_CF_UPPER if on_levels else _CF_SURFACE).get(standard_name, name)


def flat(name: str, long_name: str) -> tuple[str, int] | None:
    """Variable and level of a field such as z850 or t_500; None if it has no level in its name.

    u10 and v10 are winds at 10 m, and so is whatever speaks of metres in its long_name (u100).
    """
    match = _FLAT.fullmatch(name)
    if not match or name in SURFACE or re.search(r"\bmet(er|re)s?\b", long_name.lower()):
        return None
    variable, level = canonical(match[1]), int(match[2])
    return (variable, level) if variable in UPPER and 1 <= level <= 1100 else None


def ordered(names: Collection[str], first: Collection[str]) -> tuple[str, ...]:
    """The names: those of `first` in its order, then the others by the alphabet."""
    return (*(n for n in first if n in names), *sorted(set(names) - set(first)))


def require(names: Collection[object], there: Collection[object], kind: str, where: str) -> None:
    """Raise ValueError for the first of `names` that is not `there`, with the nearest names."""
    for name in names:
        if name not in there:
            found = ", ".join(map(str, there)) or "none"
            near = get_close_matches(str(name), map(str, there), n=2, cutoff=0.4)
            hint = f" Did you mean {' or '.join(near)}?" if near else ""
            if name in ("z", "geopotential") and HEIGHT & set(map(str, there)):
                hint = " It has geopotential height: multiply by 9.80665 and name the result z."
            raise ValueError(f"{where} has no {kind} {name!r}; it has {found}.{hint}")
