"""The arrays of a forecast's file: names, axes, units, by the convention of a tool."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import numpy as np

from .forecast_store import Variable
from .grid import Grid

NAMES = {
    "z": ("geopotential", "geopotential", "m2 s-2"),
    "q": ("specific_humidity", "specific humidity", "kg kg-1"),
    "t": ("air_temperature", "temperature", "K"),
    "u": ("eastward_wind", "eastward wind", "m s-1"),
    "v": ("northward_wind", "northward wind", "m s-1"),
    "w": ("lagrangian_tendency_of_air_pressure", "vertical velocity", "Pa s-1"),
    "msl": ("air_pressure_at_mean_sea_level", "mean sea level pressure", "Pa"),
    "sp": ("surface_air_pressure", "surface pressure", "Pa"),
    "u10": ("eastward_wind", "eastward wind at 10 m", "m s-1"),
    "v10": ("northward_wind", "northward wind at 10 m", "m s-1"),
    "t2m": ("air_temperature", "temperature at 2 m", "K"),
}
"""CF standard name, long name and unit of the variables that we know."""
MARKER = "finished"


@dataclass(frozen=True)
class Convention:
    """Names of variables and axes."""

    title: str
    names: dict[str, str] = field(default_factory=dict)
    """Our name of a variable -> the file's; ours where it is not there."""
    lat: str = "lat"
    lon: str = "lon"
    member: str = "member"
    leads: str = ""
    """Axis of hours since the start, beside one of starts; else one axis of valid times."""

    def name_of(self, name: str) -> str:
        """The file's name of a variable."""
        return self.names.get(name, name)


TENFOLD = Convention("tenfold")
WEATHERBENCH2 = Convention(
    "WeatherBench 2",
    {
        "z": "geopotential",
        "q": "specific_humidity",
        "t": "temperature",
        "u": "u_component_of_wind",
        "v": "v_component_of_wind",
        "w": "vertical_velocity",
        "msl": "mean_sea_level_pressure",
        "sp": "surface_pressure",
        "u10": "10m_u_component_of_wind",
        "v10": "10m_v_component_of_wind",
        "t2m": "2m_temperature",
        "sst": "sea_surface_temperature",
    },
    "latitude",
    "longitude",
    "number",
    "prediction_timedelta",
)
EARTH2STUDIO = Convention(
    "earth2studio", {"u10": "u10m", "v10": "v10m"}, member="ensemble", leads="lead_time"
)
CONVENTIONS = {"tenfold": TENFOLD, "weatherbench2": WEATHERBENCH2, "earth2studio": EARTH2STUDIO}
"""Name in a configuration -> convention."""


def plan_of(
    grid: Grid,
    start: np.datetime64,
    hours: tuple[int, ...],
    members: int,
    convention: Convention = TENFOLD,
) -> list[Variable]:
    """Every array of the file, coordinates first; ValueError for what no file can say."""
    _check(grid, start, hours, members)
    own, undated = convention, bool(np.isnat(start))
    if undated and own.leads:
        raise ValueError(
            f"the names of {own.title} need the date of the start, which the file does not say; "
            "give it: --time 2018-01-01T00"
        )

    def axis(
        name: str, values: object, kind: str, standard: str, dim: str = "", **more: str
    ) -> Variable:
        array = np.asarray(values, kind)
        texts = {"standard_name": standard, "long_name": standard.replace("_", " "), **more}
        dims = (dim or name,) * array.ndim
        return Variable(name, dims, array.shape, kind, texts, array)

    since = f"hours since {str(start.astype('datetime64[s]')).replace('T', ' ')}"
    clock = {"units": since, "calendar": "proleptic_gregorian"}
    lead = {"units": "h"}  # "hours" would be read as a duration by xarray
    step = own.leads or "time"
    if own.leads:  # an axis of starts, of which there is one, and one of hours since then
        hours_since = {"units": "hours", "dtype": "timedelta64[ns]"}
        plan = [
            axis(step, hours, "<i8", "forecast_period", **hours_since),
            axis("time", [0], "<i8", "forecast_reference_time", **clock),
        ]
    elif undated:
        plan = [axis("time", hours, "<i4", "forecast_period", axis="T", **lead)]
    else:
        plan = [
            axis("time", hours, "<i4", "time", axis="T", **clock),
            axis("lead_time", hours, "<i4", "forecast_period", dim="time", **lead),
            axis("reference_time", 0, "<i4", "forecast_reference_time", **clock),
        ]
    plan += [
        axis(own.lat, grid.latitudes, "<f8", "latitude", axis="Y", units="degrees_north"),
        axis(own.lon, grid.longitudes, "<f8", "longitude", axis="X", units="degrees_east"),
    ]
    if grid.upper:
        more = {"axis": "Z", "units": "hPa", "positive": "down"}
        plan.append(axis("level", grid.levels, "<i4", "air_pressure", **more))
    if members > 1:
        plan.append(axis(own.member, range(members), "<i4", "realization", units="1"))
    first = [(step, len(hours)), *([(own.member, members)] if members > 1 else [])]
    first += [("time", 1)] if own.leads else []
    around = {} if own.leads or undated else {"coordinates": "lead_time reference_time"}
    for name in (*grid.upper, *grid.surface):
        above = [("level", len(grid.levels))] if name in grid.upper else []
        axes = [*first, *above, (own.lat, grid.shape[0]), (own.lon, grid.shape[1])]
        dims, shape = tuple(d for d, _ in axes), tuple(n for _, n in axes)
        plan.append(Variable(own.name_of(name), dims, shape, "<f4", {**_meaning(name), **around}))
    texts = {"long_name": "1 where the step is written", "units": "1"}
    plan.append(Variable(MARKER, (step,), (len(hours),), "|i1", texts))
    return plan


def _meaning(name: str) -> dict[str, str]:
    """CF attributes of a field, by its name: t2m, z, and z500 for a field on one level."""
    found = re.fullmatch(r"([a-z])(\d+)", name)
    if name in NAMES or found is None or found[1] not in NAMES:
        known = zip(("standard_name", "long_name", "units"), NAMES.get(name, ()), strict=False)
        return {"long_name": name, **dict(known)}
    standard, long, unit = NAMES[found[1]]
    return {"standard_name": standard, "long_name": f"{long} at {found[2]} hPa", "units": unit}


def _check(grid: Grid, start: np.datetime64, hours: tuple[int, ...], members: int) -> None:
    fields = (*grid.upper, *grid.surface)
    taken = {"time", "lead_time", "reference_time", "lat", "lon", "level", "member", MARKER}
    wrong = [n for n in fields if not re.fullmatch(r"[A-Za-z]\w{0,63}", n, re.ASCII) or n in taken]
    if wrong or len(set(fields)) < len(fields) or not fields:
        raise ValueError(
            f"the fields of a forecast are {', '.join(fields) or 'none'}: their names must differ, "
            f"be letters, digits and _, and not {', '.join(sorted(taken))}. Rename them."
        )
    if 0 in grid.shape or (grid.upper and not grid.levels):
        raise ValueError(
            f"the grid has {grid.shape} rows and columns and {len(grid.levels)} levels for "
            f"{len(grid.upper)} upper variables. Give a grid whose coordinates are filled in."
        )
    rising = all(a < b for a, b in zip(hours, hours[1:], strict=False))
    if not hours or not rising or hours[0] < 0 or hours[-1] >= 2**31:
        raise ValueError(
            f"the hours of a forecast are {hours[:5]}{'...' * (len(hours) > 5)}: expected at least "
            "one, rising, from 0 to 2^31 - 1."
        )
    if members < 1:
        raise ValueError(f"a forecast has {members} members; expected at least 1.")
    if np.isnat(start):
        return
    year = int(start.astype("datetime64[Y]").astype(np.int64)) + 1970
    if not 1 <= year <= 9999 or start.astype("datetime64[s]") != start:
        raise ValueError(
            f"a forecast starts at {start}: expected whole seconds in the years 1 to 9999."
        )
