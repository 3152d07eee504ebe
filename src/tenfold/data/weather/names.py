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

LATITUDE = re.compile(r"latitude|lat|(g\d_)?lat_\d", re.IGNORECASE)
LONGITUDE = re.compile(r"longitude|lon|(g\d_)?lon_\d", re.IGNORECASE)
NORTH = re.compile(r"degrees?_?n(orth)?", re.IGNORECASE)
EAST = re.compile(r"degrees?_?e(ast)?", re.IGNORECASE)
"""Names of the horizontal axes, and their units in CF."""
LEVEL = re.compile(
    r"(lev|level|levels|plev|pressure(?!fromground)|pressure_level|isobaric|lv_isbl|air_pressure)\w*",
    re.IGNORECASE,
)
TIME = re.compile(r"(valid_|initial_|reference_|ref)?time\d?(_hours)?|month", re.IGNORECASE)
LEAD = re.compile(
    r"step|lead|leadtime|lead_time|prediction_timedelta|forecast_(period|time|hour)\d?|fhour",
    re.IGNORECASE,
)
"""Names of other axes: pressure, valid time, hours since the start of a forecast."""
ABOVE_GROUND = re.compile(r"(height|lv_htgl)\w*", re.IGNORECASE)
PER_ENTRY = ("variable", "channel")
"""Axes whose entries are fields, with the names of fields as coordinates (earth2studio)."""
PRESSURE_UNITS = frozenset("pa pascal pascals hpa mb mbar millibar millibars".split())

HEIGHT = "gh"
"""Our name of geopotential height, which is not geopotential: that is height times GRAVITY."""
GRAVITY = 9.80665
"""m/s2."""
_SPELLINGS = {
    "z": "geopotential geopot phi fi var129",
    "q": "specific_humidity hus shum spfh spfhprs qv var133",
    "t": "temperature air_temperature ta air temp tmp tmpprs var130",
    "u": "u_component_of_wind eastward_wind x_wind ua uwnd ugrd ugrdprs var131",
    "v": "v_component_of_wind northward_wind y_wind va vwnd vgrd vgrdprs var132",
    HEIGHT: "geopotential_height geopot_height zg hgt hgtprs z3 h var156",
    "msl": "mean_sea_level_pressure air_pressure_at_sea_level air_pressure_at_mean_sea_level "
    "psl slp mslp prmsl prmslmsl pmsl pres_msl mslet mslma var151 prmsl_meansealevel "
    "mslet_meansealevel pressure_reduced_to_msl mslp_eta_model_reduction",
    "u10": "10m_u_component_of_wind 10u u10m u_10m uas ugrd10m ugrd_10maboveground var165 var_10u",
    "v10": "10m_v_component_of_wind 10v v10m v_10m vas vgrd10m vgrd_10maboveground var166 var_10v",
    "t2m": "2m_temperature 2t t2 t_2m tas trefht tmp2m tmp_2maboveground var167 var_2t",
    "lsm": "land_sea_mask landfrac sftlf fr_land land landsfc var172",
    "slt": "soil_type",
    "orog": "orography topography hsurf",
    "zs": "geopotential_at_surface phis surface_geopotential",
    "sst": "sea_surface_temperature tos",
}
"""Names in other files, in lower case: WeatherBench2, ecCodes, CMIP, CF, CESM, MERRA-2, NCEP and
its servers (GrADS, wgrib2), DWD's ICON, earth2studio, CDO's codes."""
ALIASES = {spelling: name for name, all_ in _SPELLINGS.items() for spelling in all_.split()}
"""Another file's name, in lower case -> ours."""
_SUFFIX = re.compile(
    r"_(gds\d+|p\d+)_(isbl|htgl|msl|l1\d\d)\w*$|_(isobaric|height_above_ground|msl)$"
)
"""Kinds of level that NCL and THREDDS append to names."""
_CF_UPPER = {
    "geopotential": "z",
    "geopotential_height": HEIGHT,
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
    "surface_geopotential": "zs",
}
AT_HEIGHT = {("t", 2): "t2m", ("u", 10): "u10", ("v", 10): "v10"}
"""Our name of a variable so many metres above the ground."""
_OURS = {*UPPER, *SURFACE, *CONSTANTS, HEIGHT, "sst"}


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

_FLAT = re.compile(r"([A-Za-z]+?)_?(\d{1,4})(?:hPa|mb)?")


def plain_unit(text: str) -> str:
    """One spelling of a unit: lower case, no spaces, stars or carets (``m**2 s**-2`` m2s-2)."""
    return re.sub(r"[\s*^._]", "", text.lower())


def canonical(name: str) -> str:
    """Our name of a variable that a user may call by another one; unknown names as they are."""
    low = name.lower()
    return low if low in _OURS else ALIASES.get(low, name)


def name_of(name: str, standard_name: str, on_levels: bool, height: float | None = None) -> str:
    """Our name of a file's variable; its own name counts more than its CF standard_name.

    `height`: metres above the ground, if the file says so.
    """
    low = name.lower().replace("-", "_")
    found = canonical(low if canonical(low) in _OURS else _SUFFIX.sub("", low))
    if found not in _OURS:
        cf = _CF_UPPER if on_levels or height is not None else _CF_SURFACE
        found = cf.get(standard_name, name)
    return found if on_levels or height is None else AT_HEIGHT.get((found, round(height)), found)


def wrong_kind(ours: str, standard_name: str, long_name: str, height: float | None) -> str:
    """Words for what a variable is, if not the one whose name it has; empty if nothing says so."""
    if ours in ("u10", "v10") and "speed" in f"{standard_name} {long_name}".lower():
        return "is the speed of the wind, not one of its components"
    right = next((metres for (_, metres), name in AT_HEIGHT.items() if name == ours), None)
    heights = (2, 10) if ours in NEAR_SURFACE else (right,)
    known = right is not None or ours in NEAR_SURFACE
    if known and height is not None and round(height) not in heights:
        return f"lies {height:g} m above the ground"
    return ""


def flat(name: str, long_name: str) -> tuple[str, int] | None:
    """Variable and level of a field such as z850 or t_500; None if it has no level in its name.

    u10 and v10 are winds at 10 m, and so is whatever speaks of metres in its long_name (u100).
    """
    match = _FLAT.fullmatch(name)
    if not match or canonical(name) in _OURS or re.search(r"\bmet(er|re)s?\b", long_name.lower()):
        return None
    variable, level = canonical(match[1]), int(match[2])
    return (variable, level) if variable in (*UPPER, HEIGHT) and 1 <= level <= 1100 else None


def ordered(names: Collection[str], first: Collection[str]) -> tuple[str, ...]:
    """The names: those of `first` in its order, then the others by the alphabet."""
    return (*(n for n in first if n in names), *sorted(set(names) - set(first)))


class Absent(ValueError):
    """A choice that the files do not have; who knows the option adds the way out.

    Args:
        text: Message.
        kind: What was chosen: "constant", "upper variable", ...
        there: Names to choose from.
    """

    def __init__(self, text: str, kind: str, there: tuple[str, ...]) -> None:
        super().__init__(text)
        self.kind, self.there = kind, there


def require(names: Collection[object], there: Collection[object], kind: str, where: str) -> None:
    """Raise Absent for the first of `names` that is not `there`, with the nearest names."""
    for name in names:
        if name not in there:
            found = ", ".join(map(str, there)) or "none"
            near = get_close_matches(str(name), map(str, there), n=2, cutoff=0.4)
            hint = f" Did you mean {' or '.join(near)}?" if near else ""
            text = f"{where} has no {kind} {name!r}; it has {found}.{hint}"
            raise Absent(text, kind, tuple(map(str, there)))
