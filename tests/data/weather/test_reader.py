"""Reading states: the same ones must come out of every naming, order, packing and format."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from weather_files import LAT, LEVELS, LON, SURFACE, TIMES, UPPER, atmosphere, dataset, land

from tenfold.data.weather import files, series
from tenfold.data.weather.grid import Grid
from tenfold.data.weather.reader import check_states, open_states, pairs

pytest.importorskip("xarray")
pytest.importorskip("h5netcdf")
pytest.importorskip("zarr")
pytestmark = pytest.mark.filterwarnings("ignore:Consolidated metadata")

LONG = {
    "z": "geopotential",
    "q": "specific_humidity",
    "t": "temperature",
    "u": "u_component_of_wind",
    "v": "v_component_of_wind",
    "msl": "mean_sea_level_pressure",
    "u10": "10m_u_component_of_wind",
    "v10": "10m_v_component_of_wind",
    "t2m": "2m_temperature",
    "lsm": "land_sea_mask",
    "lat": "latitude",
    "lon": "longitude",
}
CDS = {"lat": "latitude", "lon": "longitude", "level": "pressure_level", "time": "valid_time"}
CF = {"z": "geopotential", "t": "air_temperature", "u": "eastward_wind", "v": "northward_wind"}


def plain(folder):
    dataset().to_netcdf(folder / "a.nc", engine="h5netcdf")
    return folder / "a.nc"


def cds(folder):
    """Two files with the names of the CDS, seconds since 1970, and lsm with a time."""
    data = dataset()
    seconds = TIMES.astype(np.int64)
    data = data.assign_coords(time=("time", seconds, {"units": "seconds since 1970-01-01"}))
    data = data.rename(CDS).assign_coords(number=0, expver=("valid_time", ["0001"] * 4))
    data[list(UPPER)].to_netcdf(folder / "upper.nc", engine="h5netcdf")
    data[list(SURFACE)].to_netcdf(folder / "surface.nc", engine="h5netcdf")
    data[["lsm"]].expand_dims("x").isel(x=0).to_netcdf(folder / "lsm.nc", engine="h5netcdf")
    return folder


def short(folder):
    data = dataset().rename(u10="10u", v10="10v", t2m="2t", level="isobaricInhPa")
    data.to_netcdf(folder / "a.nc", engine="h5netcdf")
    return folder / "a.nc"


def weatherbench(folder, zarr_format=2):
    """South to north, levels rising, longitude before latitude."""
    data = dataset().rename(LONG).isel(latitude=slice(None, None, -1), level=slice(None, None, -1))
    data = data.transpose("time", "level", "longitude", "latitude")
    data.to_zarr(folder / "a.zarr", zarr_format=zarr_format)
    return folder / "a.zarr"


def weatherbench_3(folder):
    weatherbench(folder, 3)
    return folder  # a folder that holds one store


def flat(folder):
    data = dataset()
    for name in UPPER:
        for level in LEVELS:
            data[f"{name}{level}"] = data[name].sel(level=level, drop=True)
    data.drop_vars([*UPPER, "level"]).to_netcdf(folder / "a.nc", engine="h5netcdf")
    return folder / "a.nc"


def west(folder):
    """Longitudes from -180, latitudes from the south, in NetCDF 3."""
    data = dataset().roll(lon=8, roll_coords=True).isel(lat=slice(None, None, -1))
    lon = np.where(data.lon >= 180, data.lon - 360, data.lon)
    data.assign_coords(
        lon=lon, time=data.time.astype("i4").assign_attrs(data.time.attrs)
    ).to_netcdf(folder / "a.nc", engine="scipy")
    return folder / "a.nc"


def cf(folder):
    """Own names, CF standard names, levels in Pa and in no order, times as float days."""
    data = dataset().isel(level=[2, 0, 1])
    for name, standard in CF.items():
        data[name].attrs["standard_name"] = standard
    data["msl"].attrs["standard_name"] = "air_pressure_at_mean_sea_level"
    data = data.rename({**{name: f"var_{name}" for name in CF}, "q": "hus", "msl": "slp"})
    days = data.time.values / 24 - 1e-6  # 0.09 s early, as rounding makes them
    data = data.assign_coords(time=("time", days, {"units": "days since 2000-01-01"}))
    pascals = ("level", data.level.values * 100.0, {"units": "Pa"})
    data.assign_coords(level=pascals).rename(level="plev").to_netcdf(
        folder / "a.nc", engine="h5netcdf"
    )
    return folder / "a.nc"


def many(folder):
    """A file for each two times, named against their order; constants in a file of their own."""
    data = dataset()
    data[["lsm"]].drop_vars(["time", "level"], errors="ignore").to_netcdf(
        folder / "0.nc", engine="h5netcdf"
    )
    fields = data.drop_vars("lsm")
    fields.isel(time=slice(0, 2)).to_netcdf(folder / "b.nc", engine="h5netcdf")
    fields.isel(time=slice(2, 4), lat=slice(None, None, -1)).to_netcdf(
        folder / "a.nc", engine="scipy"
    )
    return folder


FORMS = [plain, cds, short, weatherbench, weatherbench_3, flat, west, cf, many]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_the_same_states_come_out_of_every_form(tmp_path, form):
    states = open_states(form(tmp_path))
    truth = atmosphere()
    assert states.grid == Grid(
        UPPER, LEVELS, SURFACE, ("lsm",), tuple(LAT), tuple(LON), periodic=True, step=6
    )
    assert states.times.dtype == "datetime64[s]" and (states.times == TIMES).all()
    for index in (3, 0, 1, 2):
        upper, surface = states.read(index)
        assert upper.dtype == surface.dtype == np.float32
        np.testing.assert_array_equal(upper, np.stack([truth[n][index] for n in UPPER]))
        np.testing.assert_array_equal(surface, np.stack([truth[n][index] for n in SURFACE]))
    np.testing.assert_array_equal(states.constants(), land()[None])
    assert len(states) == 4 and states.complete.all() and not states.missing.any()
    assert states.split is None and len(states.gaps) == 0
    assert check_states(states) == []


@pytest.mark.parametrize("engine", ["h5netcdf", "scipy"])
def test_packed_fields_are_unpacked_and_fill_values_become_nan(tmp_path, engine):
    values = atmosphere()
    values["t2m"][:, 0, 3] = np.nan
    packing = {
        name: {
            "dtype": "int16",
            "scale_factor": float(np.nanmax(v) - np.nanmin(v)) / 60000,
            "add_offset": float(np.nanmax(v) + np.nanmin(v)) / 2,
            "_FillValue": np.int16(-32767),
        }
        for name, v in values.items()
    }
    data = dataset(values)
    if engine == "scipy":
        data = data.assign_coords(time=data.time.astype("i4").assign_attrs(data.time.attrs))
    data.to_netcdf(tmp_path / "a.nc", engine=engine, encoding=packing)
    states = open_states(tmp_path / "a.nc")
    upper, surface = states.read(2)
    for found, name in zip([*upper, *surface], [*UPPER, *SURFACE], strict=True):
        quantum = packing[name]["scale_factor"]
        assert np.nanmax(np.abs(found - values[name][2])) <= 0.51 * quantum + 1e-7 * abs(found).max(
            initial=0, where=np.isfinite(found)
        )
    assert np.argwhere(np.isnan(surface)).tolist() == [[3, 0, 3]]
    assert np.argwhere(states.missing).tolist() == [[0, 3]] and states.complete.all()


# --- choices ---


def test_choices_in_any_naming_and_order(tmp_path):
    states = open_states(
        plain(tmp_path), upper=("temperature", "z"), levels=(200, 850), surface=("2t",)
    )
    grid = states.grid
    assert (grid.upper, grid.levels, grid.surface) == (("t", "z"), (850, 200), ("t2m",))
    upper, surface = states.read(1)
    np.testing.assert_array_equal(upper[0], atmosphere()["t"][1][[0, 2]])
    np.testing.assert_array_equal(surface[0], atmosphere()["t2m"][1])


@pytest.mark.parametrize(
    "choice, message",
    [
        ({"upper": ("w",)}, r"a.nc has no upper variable 'w'; it has z, q, t, u, v\."),
        ({"surface": ("u100",)}, r"no surface variable 'u100'.*Did you mean u10"),
        ({"levels": (850, 510)}, r"no z at pressure level 510; it has 850, 500, 200"),
        ({"constants": ("lsn",)}, r"no constant 'lsn'; it has lsm. Did you mean lsm"),
        ({"surface": ("t2m", "2t")}, "surface variable chosen twice: t2m, 2t"),
    ],
)
def test_choices_that_are_not_there(tmp_path, choice, message):
    with pytest.raises(ValueError, match=message):
        open_states(plain(tmp_path), **choice)


def test_height_is_no_geopotential_by_name(tmp_path):
    dataset().rename(z="gh").to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    with pytest.raises(ValueError, match="gh is geopotential height.*multiply it by 9.80665"):
        open_states(tmp_path / "a.nc", upper=("z",))
    with pytest.raises(ValueError, match="gh is geopotential height.*: q t u v"):
        open_states(tmp_path / "a.nc")
    states = open_states(tmp_path / "a.nc", upper=("q", "t"))
    assert states.grid.upper == ("q", "t")


def test_default_leaves_other_fields_alone_unless_there_is_nothing_else(tmp_path):
    data = dataset()
    data["sst"] = data.t2m.where(data.lsm == 0)
    data["tcw"] = data.t2m
    data["z"].isel(level=0, drop=True).to_netcdf(tmp_path / "ground.nc", engine="h5netcdf")
    data.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    assert open_states(tmp_path / "a.nc").grid.surface == SURFACE
    assert open_states(tmp_path).grid.constants == ("lsm", "zs")  # a two-dimensional z
    chosen = open_states(tmp_path / "a.nc", surface=("sea_surface_temperature", "sst")[1:])
    assert chosen.grid.surface == ("sst",) and chosen.missing.sum() == 16
    data[["tcw", "sst"]].to_netcdf(tmp_path / "b.nc", engine="h5netcdf")
    assert open_states(tmp_path / "b.nc").grid.surface == ("sst", "tcw")


@pytest.mark.parametrize(
    ("name", "units", "scale"),
    [("level", "", 1), ("isobaricInhPa", "hPa", 1), ("plev", "Pa", 100), ("p", "hPa", 1)],
)
def test_a_scalar_coordinate_is_the_level(tmp_path, name, units, scale):
    for level in (500, 850):
        data = dataset(constants=False)[["z"]].sel(level=level)
        data = data.assign_coords(level=((), level * scale, {"units": units})).rename(level=name)
        data.to_netcdf(tmp_path / f"z{level}.nc", engine="h5netcdf")
    alone = open_states(tmp_path / "z500.nc")
    assert (alone.grid.upper, alone.grid.levels) == (("z",), (500,))
    assert alone.grid.surface == alone.grid.constants == alone.left_out == ()
    dataset()[["t", "lsm"]].to_netcdf(tmp_path / "t.nc", engine="h5netcdf")
    states = open_states(tmp_path)
    assert (states.grid.upper, states.grid.levels) == (("z", "t"), (850, 500))
    assert states.grid.surface == () and states.grid.constants == ("lsm",) and states.files == 3
    assert states.left_out == ("t at 200 hPa: not all variables have it, or it was not asked for",)
    for k, own in enumerate(("z", "t")):
        np.testing.assert_array_equal(states.read(1)[0][k], atmosphere()[own][1, :2])


def test_levels_of_undated_files_are_combined(tmp_path):
    data = dataset(constants=False).isel(time=0).drop_vars("time")[["z"]]
    for level in (500, 850):
        data.sel(level=[level]).to_netcdf(tmp_path / f"z{level}.nc", engine="h5netcdf")
    states = open_states(tmp_path)
    assert (states.grid.upper, states.grid.levels) == (("z",), (850, 500))
    np.testing.assert_array_equal(states.read(0)[0][0], atmosphere()["z"][0, :2])


def test_what_lies_beside_the_files_that_are_read_is_named(tmp_path):
    data = dataset()
    for place in (".", "older", "notes"):
        (tmp_path / place).mkdir(exist_ok=True)
    data.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    (tmp_path / "notes" / "read.me").write_text("")
    open_states(tmp_path)
    data.to_netcdf(tmp_path / "older" / "b.nc", engine="h5netcdf")
    with pytest.warns(UserWarning, match=r"has a\.nc, so what .* is not read: older\. Put"):
        assert open_states(tmp_path).files == 1
    official(tmp_path / "older")
    with pytest.warns(UserWarning, match=r"has older, so what .* is not read: a\.nc\. Put"):
        assert open_states(tmp_path).grid.levels == files.PANGU_LEVELS


@pytest.mark.parametrize("levels", [LEVELS, (1000, 850, 500)])
def test_plev_without_units_is_no_guess(tmp_path, levels):
    """CMIP's plev is in Pa: 1000, 850 and 500 would be 10 and 5 hPa, and the third be lost."""
    data = dataset(levels=levels).rename(level="plev")
    data.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    with pytest.raises(ValueError, match=r"levels plev are .* without units: .* Say which"):
        open_states(tmp_path / "a.nc")
    pascals = data.assign_coords(plev=data.plev * 100.0)
    pascals.to_netcdf(tmp_path / "b.nc", engine="h5netcdf")
    assert open_states(tmp_path / "b.nc").grid.levels == levels


def test_of_a_selected_level_the_ground_stays_on_the_ground(tmp_path):
    data = dataset().sel(level=500)
    data["p0"] = (), 100000.0, {"units": "Pa"}  # a scalar of pressure that is no coordinate
    data.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    grid = open_states(tmp_path / "a.nc").grid
    assert (grid.upper, grid.levels, grid.surface) == (UPPER, (500,), SURFACE)
    assert grid.constants == ("lsm",)
    data.assign_coords(pressure=850).to_netcdf(tmp_path / "b.nc", engine="h5netcdf")
    with pytest.raises(ValueError, match="level, pressure give q several levels; drop all but one"):
        open_states(tmp_path / "b.nc")


def test_the_ground_that_is_not_read_is_named_beside_geopotential(tmp_path):
    data = dataset()
    data.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    data["z"].isel(level=0, drop=True).to_netcdf(tmp_path / "ground.nc", engine="h5netcdf")
    assert open_states(tmp_path).left_out == ()
    assert open_states(tmp_path, constants=("lsm",)).left_out == ("z (zs) was not asked for",)


def test_of_two_claims_to_a_name_the_better_one_wins(tmp_path):
    data = dataset()
    data["a_t"] = (data.t + 1).assign_attrs(standard_name="air_temperature")
    data["temperature"] = data.t + 2
    data.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    states = open_states(tmp_path / "a.nc")
    np.testing.assert_array_equal(states.read(0)[0][2], atmosphere()["t"][0])
    assert states.grid.upper == UPPER


def test_float32_longitudes_close_the_circle(tmp_path):
    lon = np.arange(11) * 360 / 11
    rounded = np.nextafter(lon.astype(np.float32), np.float32(0))  # a circle short of 360
    data = dataset(atmosphere(lon=lon), constants=False, lon=rounded)
    data.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    grid = open_states(tmp_path / "a.nc").grid
    assert grid.periodic and grid.longitudes == pytest.approx(lon, abs=1e-4)


def test_dimensions_that_need_a_selection_are_named(tmp_path):
    data = dataset()
    data["t2m"] = data.t2m.expand_dims(expver=2)
    data["msl"] = data.msl.expand_dims(number=1)  # of length one: squeezed
    data.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    assert open_states(tmp_path / "a.nc").grid.surface == ("msl", "u10", "v10")
    with pytest.raises(ValueError, match="t2m has the further dimension expver: select one entry"):
        open_states(tmp_path / "a.nc", surface=("t2m",))


# --- times, regions, missing values ---


def test_one_state_without_a_time_axis(tmp_path):
    data = dataset().isel(time=0)
    data.drop_vars("time").to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    states = open_states(tmp_path / "a.nc")
    assert len(states) == 1 and np.isnat(states.times).all() and states.grid.step == 6
    assert states.grid.constants == ("lsm",) and states.grid.surface == SURFACE
    np.testing.assert_array_equal(states.read(0)[1][3], atmosphere()["t2m"][0])
    data.to_netcdf(tmp_path / "b.nc", engine="h5netcdf")  # with the time as a scalar
    assert open_states(tmp_path / "b.nc").times[0] == TIMES[0]
    attributed = data.drop_vars("time").assign_attrs(time="2018-01-01T00:00:00Z")
    attributed.to_netcdf(tmp_path / "c.nc", engine="h5netcdf")
    assert open_states(tmp_path / "c.nc").times[0] == TIMES[0]


@pytest.mark.parametrize("first", [4, 8, 13])
def test_a_circle_may_begin_at_any_longitude(tmp_path, first):
    """Not only half way round, where it would not matter which way the columns are turned."""
    values = {name: np.roll(field, -first, axis=-1) for name, field in atmosphere().items()}
    data = dataset(values, constants=False, lon=np.roll(LON, -first))
    data.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    states = open_states(tmp_path / "a.nc")
    assert states.grid.periodic and states.grid.longitudes == tuple(LON)
    np.testing.assert_array_equal(states.read(0)[0][0], atmosphere()["z"][0])


def test_a_region_across_greenwich_keeps_its_order(tmp_path):
    lon = np.array([-5.0, -2.5, 0.0, 2.5])
    values = atmosphere(lat=LAT, lon=lon)
    dataset(values, lon=lon % 360).to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    states = open_states(tmp_path / "a.nc")
    assert states.grid.longitudes == tuple(lon) and not states.grid.periodic
    np.testing.assert_array_equal(states.read(0)[0][0], values["z"][0])


def test_incomplete_times_are_found_in_one_pass(tmp_path, monkeypatch):
    monkeypatch.setattr(series, "BLOCK", 3 * 8 * 16 * 2)  # blocks of two times
    times = TIMES[0] + np.arange(9) * np.timedelta64(6, "h")
    values = atmosphere(9)
    values["q"][5] = np.nan
    values["msl"][2, 1, 1] = np.nan
    values["u"][:, 0, 0, :4] = np.nan  # always
    data = dataset(values, times=times)
    data["split"] = "time", np.array([0, 0, 0, 0, -1, 1, 2, 2, 2], np.int8)
    data.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    states = open_states(tmp_path / "a.nc")
    assert np.flatnonzero(~states.complete).tolist() == [2, 5]
    assert states.complete is states.complete
    assert np.argwhere(states.missing).tolist() == [[0, k] for k in range(4)]
    assert states.split.tolist() == [0, 0, 0, 0, -1, 1, 2, 2, 2] and states.split.dtype == np.int8
    (note,) = check_states(states)
    assert not note.certain and "4 points (3.1%) are missing at every time" in note.what


def test_incomplete_times_of_the_second_file(tmp_path):
    values = atmosphere()
    values["q"][2] = np.nan
    data = dataset(values)
    data.isel(time=slice(0, 2)).to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    data.isel(time=slice(2, 4)).to_netcdf(tmp_path / "b.nc", engine="h5netcdf")
    assert open_states(tmp_path).complete.tolist() == [True, True, False, True]


def test_whole_fields_missing_at_a_sampled_time_are_noted(tmp_path):
    values = atmosphere()
    values["t2m"][0] = np.nan
    dataset(values).to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    states = open_states(tmp_path / "a.nc")
    assert not states.missing.any() and states.complete.tolist() == [False, True, True, True]
    (note,) = check_states(states)
    assert "t2m is missing as a whole at 2018-01-01T00:00:00" in note.what


def test_gaps_are_noted(tmp_path):
    times = TIMES[[0, 1, 2, 3]] + np.array([0, 0, 0, 5]) * np.timedelta64(24, "h")
    dataset(times=times).to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    states = open_states(tmp_path / "a.nc")
    assert states.gaps.tolist() == [2] and states.grid.step == 6
    assert "1 gaps between times (steps of more than 6 h)" in check_states(states)[0].what


def test_threads_read_the_same(tmp_path):
    states = open_states(plain(tmp_path))
    with ThreadPoolExecutor(8) as pool:
        for index, (upper, _) in enumerate(pool.map(states.read, [0, 1, 2, 3] * 8)):
            np.testing.assert_array_equal(upper[2], atmosphere()["t"][index % 4])


@pytest.mark.parametrize("index", [-1, 4])
def test_no_such_state(tmp_path, index):
    with pytest.raises(ValueError, match=rf"there is no state {index}; it has 0 to 3"):
        open_states(plain(tmp_path)).read(index)


def test_nothing_is_held(tmp_path):
    """A chunk of many times is unpacked once, and fields are gone after reading."""
    file = tmp_path / "a.nc"
    chunks = {name: {"chunksizes": (4, 8, 16), "zlib": True} for name in SURFACE}
    dataset().to_netcdf(file, engine="h5netcdf", encoding=chunks)
    (part,) = files.open_parts(file)
    assert {data.name for data in part.kept} >= {f"/{name}" for name in SURFACE}
    array = part.surface["t2m"].array
    part.surface["t2m"].load(slice(1, 2))
    assert not isinstance(array._data, np.ndarray) and not array._in_memory


# --- the official pair ---


def official(folder, lat=9, lon=8):
    axis = np.linspace(90, -90, lat)
    values = atmosphere(1, files.PANGU_LEVELS, axis, np.arange(lon) * 360 / lon)
    np.save(folder / "input_upper.npy", np.stack([values[n][0] for n in UPPER]))
    np.save(folder / "input_surface.npy", np.stack([values[n][0] for n in SURFACE]))
    return values


def test_official_pair(tmp_path):
    values = official(tmp_path)
    states = open_states(tmp_path)
    assert states.grid.levels == files.PANGU_LEVELS and states.grid.surface == SURFACE
    assert states.grid.latitudes == (90, 67.5, 45, 22.5, 0, -22.5, -45, -67.5, -90)
    assert states.grid.longitudes[-1] == 315 and states.grid.periodic
    assert np.isnat(states.times).all() and states.constants().shape == (0, 9, 8)
    upper, surface = states.read(0)
    np.testing.assert_array_equal(upper, np.stack([values[n][0] for n in UPPER]))
    np.testing.assert_array_equal(surface, np.stack([values[n][0] for n in SURFACE]))
    some = open_states(tmp_path, upper=("t",), levels=(500,)).read(0)[0]
    np.testing.assert_array_equal(some[0, 0], values["t"][0, 5])


def test_official_pairs_in_folders_named_by_their_dates(tmp_path):
    for name in ("2018-01-01T06", "2018010112", "2018010118"):
        (tmp_path / name).mkdir()
        official(tmp_path / name)
    states = open_states(tmp_path)
    assert states.times.tolist() == TIMES[1:].tolist() and len(states) == 3
    assert open_states(tmp_path / "2018010112").times[0] == TIMES[2]


# --- pairs ---


def test_pairs_cross_neither_gap_nor_split_nor_bar():
    hours = np.array([0, 6, 12, 18, 24, 36, 42, 48, 54, 60])
    times = TIMES[0] + hours * np.timedelta64(1, "h")
    allowed, block = np.ones(10, bool), np.zeros(10, int)
    assert pairs(times, 12, allowed, block).tolist() == [
        [0, 2], [1, 3], [2, 4], [5, 7], [6, 8], [7, 9]
    ]  # fmt: skip
    allowed[1] = False
    block[7:] = 1
    assert pairs(times, 12, allowed, block).tolist() == [[2, 4], [7, 9]]
    assert pairs(times, 6, allowed, block).tolist() == [[2, 3], [3, 4], [5, 6], [7, 8], [8, 9]]
    assert pairs(times, 240, allowed, block).shape == (0, 2)
    for lead in (0, 9):
        with pytest.raises(
            ValueError, match=f"a lead of {lead} h is no positive multiple of the 6"
        ):
            pairs(times, lead, allowed, block)
    with pytest.raises(ValueError, match="without dates cannot be paired"):
        pairs(np.array(["NaT"] * 10, "datetime64[s]"), 6, allowed, block)
    with pytest.raises(ValueError, match="10 times, 9 allowed, 10 block"):
        pairs(times, 6, allowed[:9], block)
