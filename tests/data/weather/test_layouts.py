"""Files of other tools: each layout is read as the same states, or refused by name."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from weather_files import LAT, LEVELS, LON, SURFACE, TIMES, UPPER, atmosphere, dataset

from tenfold.data.weather.axes import dates
from tenfold.data.weather.forecast_file import ForecastFile
from tenfold.data.weather.grid import Grid
from tenfold.data.weather.reader import open_states

xarray = pytest.importorskip("xarray")
pytest.importorskip("h5netcdf")
pytest.importorskip("zarr")
pytestmark = pytest.mark.filterwarnings("ignore:Consolidated metadata")

WIDE, LONG = {"lat": "latitude", "lon": "longitude"}, {
    "z": "geopotential", "q": "specific_humidity", "t": "temperature", "u": "u_component_of_wind",
    "v": "v_component_of_wind", "msl": "mean_sea_level_pressure", "u10": "10m_u_component_of_wind",
    "v10": "10m_v_component_of_wind", "t2m": "2m_temperature", "lsm": "land_sea_mask",
}  # fmt: skip
TRUTH = atmosphere(len(TIMES))
DRY = ("q", "t", "u", "v")
HOURS = np.arange(len(TIMES)) * 6


def states():
    return dataset(TRUTH, constants=False)


def height(data, name="z"):
    """Geopotential as its height in m."""
    data[name] = (data[name] / 9.80665).assign_attrs(units="m")
    return data


def save(data, path, **how):
    if path.suffix == ".zarr":
        data.to_zarr(path, **how)
    else:
        data.to_netcdf(path, engine="scipy", **how)  # NetCDF 3: HDF5 takes ten times as long
    return path


def single(data):
    return lambda folder: save(data(), folder / "a.nc")


def stored(data):
    return lambda folder: save(data(), folder / "a.zarr", zarr_format=2)


def pascals(data, name="plev"):
    values = data.level.values[::-1] * 100.0
    data = data.isel(level=slice(None, None, -1))
    return data.assign_coords(level=("level", values, {"units": "Pa"})).rename(level=name)


def flat(data, form="{}{}", names=None):
    """Fields with their level in the name."""
    names = names or {}
    for name in UPPER:
        for level in LEVELS:
            own = form.format(names.get(name, name), level)
            data[own] = data[name].sel(level=level, drop=True)
    return data.drop_vars([*UPPER, "level"])


def at_height(data, dims):
    """Surface fields with an axis of one height; name -> (axis, metres)."""
    for name, (axis, metres) in dims.items():
        data[name] = data[name].expand_dims(axis, 1)
        data = data.assign_coords({axis: (axis, [metres], {"units": "m"})})
    return data


HEIGHTS = {"t2m": ("height", 2.0), "u10": ("height_2", 10.0), "v10": ("height_2", 10.0)}


# --- read ---


def cds_new(folder):
    data = states().rename(**WIDE, level="pressure_level", time="valid_time")
    data = data.assign_coords(number=0, expver=("valid_time", ["0001"] * 4))
    save(data[list(UPPER)], folder / "upper.nc")
    save(data[list(SURFACE)], folder / "surface.nc")
    return folder


def cds_old():
    data = states().rename(**WIDE)
    since = (TIMES - np.datetime64("1900-01-01")) // np.timedelta64(1, "h")
    clock = "time", since.astype(np.int32), {"units": "hours since 1900-01-01 00:00:00.0"}
    levels = "level", np.array(LEVELS, np.int32), {"units": "millibars"}
    return data.assign_coords(time=clock, level=levels)


def by_cfgrib(folder, forecast=False):
    """One file for each kind of level, as cfgrib's data sets are written."""
    data = states().rename(**WIDE, level="isobaricInhPa")
    if forecast:
        valid = ("step", data.time.values, data.time.attrs)
        data = data.drop_vars("time").rename(time="step").assign_coords(valid_time=valid)
        start = ((), data.valid_time.values[0], data.valid_time.attrs)
        data = data.assign_coords(step=("step", HOURS * 1.0, {"units": "hours"}), time=start)
    else:
        data = data.assign_coords(step=((), 0.0, {"units": "hours"}))
    save(data[list(UPPER)], folder / "pl.nc")
    for name, metres in (("t2m", 2.0), ("u10", 10.0), ("v10", 10.0)):
        one = data[[name]].drop_vars("isobaricInhPa", errors="ignore")
        save(one.assign_coords(heightAboveGround=metres), folder / f"{name}.nc")
    save(data[["msl"]].assign_coords(meanSea=0.0), folder / "msl.nc")
    return folder


def arco():
    data = states().isel(level=slice(None, None, -1)).rename(**WIDE)
    return data.rename({k: v for k, v in LONG.items() if k in data})


def weatherbench_2():
    data = arco().isel(latitude=slice(None, None, -1))
    return data.transpose("time", "level", "longitude", "latitude")


def weatherbench_2_forecast():
    data = weatherbench_2()
    start, units = data.time.values[:1], data.time.attrs
    data = data.drop_vars("time").rename(time="prediction_timedelta").expand_dims("time")
    hours = ("prediction_timedelta", HOURS, {"units": "hours"})
    return data.assign_coords(time=("time", start, units), prediction_timedelta=hours)


def weatherbench_1(folder):
    data = states().isel(lat=slice(None, None, -1), level=slice(None, None, -1))
    for name in (*UPPER, *SURFACE):
        below = folder / LONG[name]
        below.mkdir()
        one = data[[name]].drop_vars("level", errors="ignore") if name in SURFACE else data[[name]]
        save(one.isel(time=slice(0, 2)), below / f"{LONG[name]}_2018_22.5deg.nc")
        save(one.isel(time=slice(2, 4)), below / f"{LONG[name]}_2019_22.5deg.nc")
    return folder


def cmip6(geopotential="phi"):
    data = pascals(states())
    data = data.rename(z=geopotential, q="hus", t="ta", u="ua", v="va", msl="psl", u10="uas")
    data = data.rename(v10="vas", t2m="tas")
    for name, metres in (("tas", 2.0), ("uas", 10.0), ("vas", 10.0)):
        data[f"height_{name}"] = ((), metres, {"units": "m", "standard_name": "height"})
        data[name].attrs["coordinates"] = f"height_{name}"
    days = (
        "time",
        365.0 * 18 + HOURS / 24,
        {"units": "days since 2000-01-01", "calendar": "noleap"},
    )
    data["time_bnds"] = ("time", "bnds"), np.zeros((4, 2))
    return data.assign_coords(time=days)


def rda():
    upper = {name: name.upper() for name in UPPER}
    data = states().rename({**WIDE, **upper, "msl": "MSL", "u10": "VAR_10U"})
    return data.rename(v10="VAR_10V", t2m="VAR_2T")


def icon(geopotential="fi"):
    data = pascals(at_height(states(), HEIGHTS))
    data = data.rename(z=geopotential, q="qv", t="temp", msl="pres_msl")
    return data.rename(u10="u_10m", v10="v_10m", t2m="t_2m")


def earth2studio():
    data = flat(states()).rename(u10="u10m", v10="v10m")
    return data.expand_dims("lead_time", 1).assign_coords(
        lead_time=("lead_time", [0], {"units": "nanoseconds", "dtype": "timedelta64[ns]"})
    )


def earth2studio_forecast():
    data = flat(states()).rename(u10="u10m", v10="v10m", time="lead_time")
    start = data.lead_time.values[:1], data.lead_time.attrs
    nanoseconds = ("lead_time", HOURS.astype("timedelta64[h]").astype("timedelta64[ns]"))
    return data.assign_coords(lead_time=nanoseconds, time=("time", *start)).expand_dims("ensemble")


def earth2studio_array():
    data = flat(states()).rename(u10="u10m", v10="v10m")
    array = data.to_array("variable").transpose("time", "variable", "lat", "lon")
    return array.astype(np.float32).to_dataset(name="fields")


def cdo_codes():
    codes = dict(
        zip((*UPPER, *SURFACE), (129, 133, 130, 131, 132, 151, 165, 166, 167), strict=True)
    )
    return pascals(states()).rename({name: f"var{code}" for name, code in codes.items()})


def cdo_absolute():
    days = np.array([20180101.0, 20180101.25, 20180101.5, 20180101.75])
    return states().assign_coords(time=("time", days, {"units": "day as %Y%m%d.%f"}))


def iris():
    """CF names alone, pressure called so, heights as scalars."""
    standard = dict(zip(UPPER, ("geopotential", "specific_humidity", "air_temperature", "x_wind",
                                "y_wind"), strict=True))  # fmt: skip
    data = states().rename({**WIDE, **standard, "level": "pressure"})
    data = data.rename(msl="air_pressure_at_sea_level", t2m="air_temperature_0")
    data = data.rename(u10="x_wind_0", v10="y_wind_0")
    for name, cf, metres in (("air_temperature_0", "air_temperature", 2.0),
                             ("x_wind_0", "eastward_wind", 10.0),
                             ("y_wind_0", "northward_wind", 10.0)):  # fmt: skip
        axis = f"height_{round(metres)}"
        data[axis] = (), metres, {"units": "m"}
        data[name].attrs.update(standard_name=cf, coordinates=axis)
    return data


def graphcast():
    data = arco().rename(latitude="lat", longitude="lon")
    dates = data.time.values[None]
    data = data.drop_vars("time").expand_dims("batch")
    data["datetime"] = ("batch", "time"), dates, {"units": "hours since 2000-01-01"}
    return data.assign_coords(time=("time", HOURS, {"units": "hours"}))


def own_forecast(folder):
    grid = Grid(UPPER, LEVELS, SURFACE, (), tuple(LAT), tuple(LON), True, 6)
    with ForecastFile.create_or_continue(
        folder / "a.nc", grid, TIMES[0], tuple(HOURS.tolist()), 1, {}
    ) as file:
        for k in range(4):
            upper = np.stack([TRUTH[name][k] for name in UPPER])[None]
            file.write(k, upper, np.stack([TRUTH[name][k] for name in SURFACE])[None])
    return folder / "a.nc"


def isobaric(units, name):
    data = states()
    scale = 100.0 if units == "Pa" else 1.0
    levels = "level", data.level.values * scale, {"units": units}
    return lambda: data.assign_coords(level=levels).rename(level=name)


def stratosphere():
    """Two levels more, which are no whole hPa."""
    data = states()
    more = data[list(UPPER)].isel(level=[2, 2]).assign_coords(level=[0.7, 0.4])
    data = data.assign_coords(level=data.level.astype(float))
    whole = xarray.concat([data[list(UPPER)], more], "level", coords="minimal", compat="override")
    whole = whole.assign(data[list(SURFACE)])
    whole.level.attrs["units"] = "hPa"
    return whole.rename(level="isobaric")


@dataclass(frozen=True)
class Layout:
    write: Callable[[Path], Path]
    wrong: str = ""
    """Pattern of the error, or nothing if it is read."""
    dry: bool = False
    """True if it can be read without geopotential."""
    surface: tuple[str, ...] = SURFACE
    left_out: tuple[str, ...] = field(default=())
    """Patterns of lines on what is not read, all of them."""


HEIGHT = "is geopotential height, not geopotential: multiply it by 9.80665"

READ = {
    "tenfold": Layout(single(states)),
    "tenfold's forecast": Layout(own_forecast),
    "ERA5, CDS of old": Layout(single(cds_old)),
    "ERA5, CDS of today": Layout(cds_new),
    "ERA5, RDA": Layout(single(rda)),
    "ARCO-ERA5": Layout(stored(arco)),
    "WeatherBench 2": Layout(stored(weatherbench_2)),
    "WeatherBench 2, forecast": Layout(stored(weatherbench_2_forecast)),
    "WeatherBench 1": Layout(weatherbench_1),
    "cfgrib, analyses": Layout(by_cfgrib),
    "cfgrib, forecast": Layout(lambda folder: by_cfgrib(folder, forecast=True)),
    "CMIP6, noleap": Layout(single(cmip6)),
    "ICON on a grid": Layout(single(icon)),
    "earth2studio": Layout(single(earth2studio)),
    "earth2studio, zarr": Layout(lambda folder: save(earth2studio_forecast(), folder / "a.zarr")),
    "earth2studio, one array": Layout(single(earth2studio_array)),
    "CDO's codes": Layout(single(cdo_codes)),
    "CDO's absolute time": Layout(single(cdo_absolute)),
    "Iris": Layout(single(iris)),
    "GraphCast's samples": Layout(single(graphcast)),
    "lev": Layout(single(isobaric("hPa", "lev"))),
    "isobaric in Pa": Layout(single(isobaric("Pa", "isobaric1"))),
    "isobaricInPa": Layout(single(isobaric("Pa", "isobaricInPa"))),
    "pfull": Layout(single(isobaric("hPa", "pfull"))),
    "levels below 1 hPa": Layout(
        single(stratosphere), left_out=("levels 0.7, 0.4 of isobaric are no whole pressures",)
    ),
}


# --- refused ---


def ecmwf_open():
    return height(states()).rename(**WIDE, level="isobaricInhPa", z="gh")


def gfs():
    data = ecmwf_open().rename(msl="prmsl")
    return data


def merra_2():
    data = height(states()).rename(z="H", q="QV", t="T", u="U", v="V", level="lev", msl="SLP")
    minutes = ("time", HOURS * 60, {"units": "minutes since 2018-01-01 00:00:00"})
    return data.rename(u10="U10M", v10="V10M", t2m="T2M").assign_coords(time=minutes)


def merra_2_flat():
    names = {"z": "H", "q": "Q", "t": "T", "u": "U", "v": "V"}
    return flat(height(states()), names=names).rename(msl="SLP", u10="U10M", v10="V10M", t2m="T2M")


def ncep():
    data = height(states()).rename(z="hgt", q="shum", t="air", u="uwnd", v="vwnd", msl="slp")
    return data.drop_vars(["u10", "v10", "t2m"])


def grads():
    data = height(states()).rename(z="hgtprs", q="spfhprs", t="tmpprs", u="ugrdprs", v="vgrdprs")
    data = data.rename(msl="prmslmsl", u10="ugrd10m", v10="vgrd10m", t2m="tmp2m", level="lev")
    data.lev.attrs["units"] = "millibar"
    return data


def wgrib2():
    names = {"z": "HGT", "q": "SPFH", "t": "TMP", "u": "UGRD", "v": "VGRD"}
    data = flat(height(states()), "{}_{}mb", names).rename(**WIDE, msl="PRMSL_meansealevel")
    data = data.rename(u10="UGRD_10maboveground", v10="VGRD_10maboveground")
    return data.rename(t2m="TMP_2maboveground")


def thredds():
    axes = {"t2m": ("height_above_ground", 2.0), "u10": ("height_above_ground1", 10.0),
            "v10": ("height_above_ground1", 10.0)}  # fmt: skip
    data = pascals(at_height(height(states()), axes), "isobaric")
    data = data.rename(z="Geopotential_height_isobaric", q="Specific_humidity_isobaric")
    data = data.rename(t="Temperature_isobaric", u="u-component_of_wind_isobaric")
    data = data.rename(v="v-component_of_wind_isobaric", msl="Pressure_reduced_to_MSL_msl")
    data = data.rename(u10="u-component_of_wind_height_above_ground", time="time1")
    data = data.rename(v10="v-component_of_wind_height_above_ground")
    return data.rename(t2m="Temperature_height_above_ground").assign_coords(reftime=0)


def ncl(upper, low, axes):
    """GRIB by NCL: the kind of level is in the name."""
    names = dict(zip(UPPER, ("HGT", "SPFH", "TMP", "UGRD", "VGRD"), strict=True))
    data = height(states()).rename({k: f"{v}_{upper}" for k, v in names.items()})
    data = data.rename(msl=f"PRMSL_{low[0]}", u10=f"UGRD_{low[1]}", v10=f"VGRD_{low[1]}")
    data = data.rename(t2m=f"TMP_{low[1]}")
    for name, metres in ((f"TMP_{low[1]}", 2), (f"UGRD_{low[1]}", 10), (f"VGRD_{low[1]}", 10)):
        data = at_height(data, {name: (f"lv_HTGL{metres}", float(metres))})
    return data.rename(axes)


def jra():
    axes = {
        "level": "lv_ISBL1",
        "lat": "g0_lat_2",
        "lon": "g0_lon_3",
        "time": "initial_time0_hours",
    }
    return ncl("GDS0_ISBL", ("GDS0_MSL", "GDS0_HTGL"), axes)


def ncl_grib2():
    axes = {"level": "lv_ISBL0", "lat": "lat_0", "lon": "lon_0", "time": "initial_time0_hours"}
    return ncl("P0_L100_GLL0", ("P0_L101_GLL0", "P0_L103_GLL0"), axes)


def cesm():
    data = height(states()).rename(z="Z3", q="Q", t="T", u="U", v="V", msl="PSL", t2m="TREFHT")
    data = data.rename(u10="U10", level="lev").drop_vars("v10")
    data["U10"].attrs["long_name"] = "10m wind speed"
    data["gw"] = "lat", np.ones(8)
    data["zonal"] = ("time", "lat"), np.ones((4, 8))
    days = (
        "time",
        365.0 * 18 + HOURS / 24,
        {"units": "days since 2000-01-01", "calendar": "noleap"},
    )
    return data.assign_coords(time=days)


def cesm_hybrid():
    about = {"long_name": "hybrid level at midpoints (1000*(A+B))", "units": "hPa"}
    return cesm().assign_coords(lev=("lev", [992.5, 524.7, 200.0], about))


def model_levels():
    data = states()
    data = data.isel(level=[0, 1, 2, 0, 1]).assign_coords(level=[131, 132, 133, 134, 135])
    return data


def curvilinear():
    """WRF, COSMO and other rotated or projected grids."""
    data = states().drop_vars(["lat", "lon"]).rename(lat="south_north", lon="west_east")
    for name in ("lat", "lon"):
        data[name] = ("south_north", "west_east"), np.zeros((8, 16))
    return data


def unstructured(names):
    def write(folder):
        data = states().stack(cell=["lat", "lon"]).reset_index("cell")
        lat, lon = data.lat.values, data.lon.values
        data = data.drop_vars(["lat", "lon", "cell"], errors="ignore")
        for name, values in zip(names, (lat, lon), strict=True):
            data[name] = "cell", values
        return save(data, folder / "a.nc")

    return write


def many_forecasts():
    data = states()
    data = data.expand_dims(step=2, axis=1).assign_coords(step=("step", [0, 6], {"units": "hours"}))
    return data


def of_two_streams():
    """ERA5 of the last months: two experiments, each with holes."""
    data = states()
    data["t2m"] = data["t2m"].expand_dims(expver=2)
    return data.assign_coords(expver=[1, 5])


def ensemble():
    return states().expand_dims(ensemble=3)


def calendar(name):
    return lambda: states().assign_coords(
        time=("time", HOURS, {"units": "hours since 2018-01-01", "calendar": name})
    )


NO_HEIGHT = {
    "ECMWF's open data": (ecmwf_open, SURFACE, ()),
    "GFS by cfgrib": (gfs, SURFACE, ()),
    "MERRA-2": (merra_2, SURFACE, ()),
    "MERRA-2, levels in names": (merra_2_flat, SURFACE, ()),
    "NCEP's reanalysis": (ncep, ("msl",), ()),
    "GrADS' server": (grads, SURFACE, ()),
    "wgrib2": (wgrib2, SURFACE, ()),
    "THREDDS": (thredds, SURFACE, ()),
    "JRA-55 by NCL": (jra, SURFACE, ()),
    "GRIB 2 by NCL": (ncl_grib2, SURFACE, ()),
    "CMIP6, zg": (lambda: height(cmip6("zg"), "zg"), SURFACE, ()),
    "ICON, height": (
        lambda: height(icon("geopotential_height"), "geopotential_height"),
        SURFACE,
        (),
    ),
    "CESM": (cesm, ("msl", "t2m"), ("U10 is the speed of the wind", "zonal has no longitude")),
}
REFUSED = {
    **{
        name: Layout(single(write), HEIGHT, True, surface, (".* is geopotential height", *lines))
        for name, (write, surface, lines) in NO_HEIGHT.items()
    },
    "CESM, hybrid levels": Layout(single(cesm_hybrid), r"lev has model levels \(hybrid level"),
    "ERA5 on model levels": Layout(single(model_levels), r"level has model levels \(numbers: 131"),
    "WRF, COSMO": Layout(single(curvilinear), r"latitude with one dimension \(lat has 2: regrid"),
    "ICON's cells": Layout(unstructured(("clat", "clon")), "no coordinate latitude with one dim"),
    "anemoi": Layout(unstructured(("latitudes", "longitudes")), "no coordinate latitude with one"),
    "cells with latitudes": Layout(unstructured(("lat", "lon")), "not in order|lat.* uneven"),
    "many forecasts": Layout(single(many_forecasts), "many forecasts: 4 starts along time with 2"),
    "ensemble": Layout(single(ensemble), "no field .* has the further dimension ensemble: select"),
    "360-day calendar": Layout(single(calendar("360_day")), "the calendar '360_day', whose days"),
    "Julian calendar": Layout(single(calendar("julian")), "the calendar 'julian', whose days are"),
}  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_layouts_that_are_read(tmp_path, name):
    layout = READ[name]
    found = open_states(layout.write(tmp_path))
    check(found, UPPER, SURFACE)
    assert len(found.left_out) == len(layout.left_out)


@pytest.mark.parametrize("name", REFUSED)
def test_layouts_that_are_refused_by_name(tmp_path, name):
    layout = REFUSED[name]
    path = layout.write(tmp_path)
    with pytest.raises(ValueError, match=layout.wrong):
        open_states(path)
    if layout.dry:
        found = open_states(path, upper=DRY)
        check(found, DRY, layout.surface)
        for pattern in layout.left_out:
            assert any(re.match(pattern, line) for line in found.left_out), pattern


def check(found, upper, surface):
    """The states are those of the reference, to the rounding of an attribute."""
    grid = found.grid
    assert (grid.upper, grid.surface, grid.levels) == (upper, surface, LEVELS)
    assert grid.step == 6 and grid.periodic
    np.testing.assert_allclose(grid.latitudes, LAT)
    np.testing.assert_allclose(grid.longitudes, LON)
    assert (found.times == TIMES).all()
    for k in (0, 3):
        high, low = found.read(k)
        np.testing.assert_array_equal(high, np.stack([TRUTH[name][k] for name in upper]))
        np.testing.assert_array_equal(low, np.stack([TRUTH[name][k] for name in surface]))


@pytest.mark.parametrize(
    ("units", "first"),
    [
        ("hours since 2000-02-28 18:00", "2000-03-01T00:00:00"),
        ("hours since 2000-03-01T00:00:00Z", "2000-03-01T06:00:00"),
        ("hours since 2000-03-01 00:00:00.0 +06:00", "2000-03-01T00:00:00"),
        ("minutes since 2000-3-1 0:0:0 -1:30", "2000-03-01T01:36:00"),
        ("months since 2000-03-01", ""),
        ("hours since 2000-13-01", ""),
        ("hours since 2000-02-29", ""),
    ],
)
def test_starts_of_years_without_leap_days(units, first):
    values, about = np.array([6, 12]), {"units": units, "calendar": "noleap"}
    if first:
        assert str(dates(values, about, "time", "a.nc")[0]) == first
        return
    with pytest.raises(ValueError, match="a.nc: time with units .* calendar 'noleap' cannot be"):
        dates(values, about, "time", "a.nc")


def test_a_stream_with_two_experiments_is_named(tmp_path):
    found = open_states(save(of_two_streams(), tmp_path / "a.nc"))
    assert found.grid.surface == ("msl", "u10", "v10")
    assert "t2m has the further dimension expver: select one entry" in found.left_out[0]
