"""Wrong files and wrong values: each is refused with what was found and how to mend it."""

import json
import sys

import numpy as np
import pytest
from weather_files import LAT, LEVELS, LON, SURFACE, TIMES, UPPER, atmosphere, dataset, land

from tenfold.data.checks import check
from tenfold.data.weather import files, layout
from tenfold.data.weather.reader import check_states, open_states

xarray = pytest.importorskip("xarray")
h5py = pytest.importorskip("h5py")
pytest.importorskip("h5netcdf")
pytest.importorskip("zarr")
pytestmark = pytest.mark.filterwarnings("ignore:Consolidated metadata")


def refused(tmp_path, data, message, **choice):
    """The data set is refused; the message names the file."""
    file = tmp_path / f"bad{len(list(tmp_path.iterdir()))}.nc"
    data.to_netcdf(file, engine="h5netcdf")
    with pytest.raises(ValueError, match=message) as caught:
        open_states(file, **choice)
    assert str(file) in str(caught.value)


# --- values ---

VALUES = {
    "z": [
        (
            lambda z: z / 9.80665,
            r"z is about 14\d\d\S* at 850 hPa.*height in m, multiply by 9.80665",
        ),
        (lambda z: z / 98.0665, r"height in decametres, multiply by 98.0665"),
        (lambda z: z * 3, "neither geopotential nor height"),
        (lambda z: z[:, ::-1], "z falls with height.*850 hPa.*500 hPa.*in reverse order"),
        (lambda z: z[:, [1, 0, 2]], "z does not rise with height.*850 hPa.*500 hPa.*exchanged"),
    ],
    "q": [
        (lambda q: q * 1000, r"q is .* at 850 hPa: this is g/kg, divide by 1000.*'kg kg-1'"),
        (lambda q: q - 1, r"q is .*expected -0.005 to 0.1 kg/kg: wrong unit"),
    ],
    "t": [
        (lambda t: t - 273.15, "t is .* at 850 hPa: these are degrees Celsius, add 273.15"),
        (lambda t: t * 0, "t is 0 everywhere at 850 hPa: there is no data"),
    ],
    "t2m": [(lambda t: t - 273.15, "t2m is .*: these are degrees Celsius, add 273.15")],
    "msl": [
        (lambda p: p / 100, "msl is .*: this is hPa, multiply by 100 for Pa"),
        (lambda p: p / 1000, "msl is .*: this is kPa, multiply by 1000 for Pa"),
    ],
    "u10": [(lambda u: u * 40, "u10 is .*expected -150 to 150 m/s: wrong unit, scale factor")],
}


@pytest.mark.parametrize(
    "name, wrong, message", [(n, *case) for n, cases in VALUES.items() for case in cases]
)
def test_wrong_values(tmp_path, name, wrong, message):
    values = atmosphere()
    values[name] = wrong(values[name]).astype(np.float32)
    refused(tmp_path, dataset(values), message)


@pytest.mark.parametrize(
    "name, units, certain",
    [
        ("z", "gpm", True),
        ("q", "g kg**-1", True),
        ("t2m", "degC", True),
        ("msl", "hPa", True),
        ("u", "knots", True),
        ("z", "m**2 s**-2", None),
        ("q", "kg kg**-1", None),
        ("u", "m s**-1", None),
        ("t", "furlong", False),
    ],
)
def test_units_attributes(tmp_path, name, units, certain):
    data = dataset()
    data[name].attrs["units"] = units
    if certain:
        refused(tmp_path, data, rf"{name}: its units attribute says '.*, but .* look like")
        return
    data.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    found = check_states(open_states(tmp_path / "a.nc"))
    assert [f.certain for f in found] == ([] if certain is None else [False])


def test_every_mistake_is_told_at_once(tmp_path):
    values = atmosphere()
    values["t2m"] -= 273.15
    values["msl"] /= 100
    refused(tmp_path, dataset(values), "msl is .* hPa.*; t2m is .*Celsius")


@pytest.mark.parametrize("name, scale", [("lsm", 1.0), ("orog", 2500.0), ("zs", 24500.0)])
def test_north_and_south_exchanged_shows_in_the_constants(tmp_path, name, scale):
    data = dataset(constants=False)
    data[name] = ("lat", "lon"), scale * land()[::-1]
    refused(tmp_path, data, f"north and south are exchanged: {name} has mean .* north of 75 N")
    data[name] = ("lat", "lon"), scale * land()
    data.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    assert check_states(open_states(tmp_path / "a.nc")) == []


# --- missing values ---


def test_patches_that_come_and_go(tmp_path):
    values = atmosphere()
    values["t"][3, 1, 2, 5:7] = np.nan
    refused(
        tmp_path,
        dataset(values),
        r"t at 500 hPa: 2 values \(1.6%\) are missing at time 2018-01-01T18:00:00 \(index 3\), the "
        r"first at latitude 33.75, longitude 112.5, and not at all times",
    )


def test_too_much_missing(tmp_path):
    values = atmosphere()
    values["t2m"][:, :5] = np.nan
    refused(tmp_path, dataset(values), r"80 points \(62.5%\) are missing at every time.*most 50%")
    values = atmosphere()
    values["t2m"][:] = np.nan
    refused(tmp_path, dataset(values), "t2m has no value at any time looked at")


def test_infinite_values_and_missing_constants(tmp_path):
    values = atmosphere()
    values["u10"][0, 0, 0] = np.inf
    refused(tmp_path, dataset(values), "u10: 1 values .* are missing at time 2018-01-01T00")
    data = dataset()
    data["lsm"][3, 4] = np.nan
    refused(tmp_path, data, "constant lsm: 1 values are missing, the first at latitude 11.25")


# --- axes ---


def moved(axis, values):
    return {axis: np.asarray(values, float)}


AXES = [
    (moved("lat", LAT + 30), "latitude 108.75 is outside -90 to 90"),
    (moved("lat", LAT[[0, 2, 1, *range(3, 8)]]), "latitudes are not in order between"),
    (moved("lat", [*LAT[:4], *(LAT[4:] - 8)]), "latitudes are uneven between 11.25 and -19.25"),
    (moved("lat", 80 - np.r_[0:4, 5:9] * 20.0), "a row is missing between 20 and -20"),
    (moved("lat", [np.nan, *LAT[1:]]), "latitude has missing values"),
    (moved("lon", np.r_[0:8, 9:17] * 20.0), r"a column is missing between 140 and 180 \(step 40"),
    (moved("lon", LON[::-1]), "longitudes are not in order between"),
    (moved("lon", np.linspace(0, 360, 16)), "go more than once around.*Drop the last column"),
    (moved("level", [850, 500, 500]), "levels level name a pressure twice"),
    (moved("level", [850.5, 500, 200]), "expected whole pressures of 1 to 1100 hPa"),
]


@pytest.mark.parametrize("axis, message", AXES, ids=[message[:25] for _, message in AXES])
def test_wrong_axes(tmp_path, axis, message):
    refused(tmp_path, dataset().assign_coords(axis), message)


def test_levels_whose_unit_contradicts_them(tmp_path):
    level = ("level", np.array(LEVELS) * 100.0, {"units": "hPa"})
    refused(tmp_path, dataset().assign_coords(level=level), "levels level are 20000 to 85000 with")


def test_gaussian_rows_are_read_and_curvilinear_grids_refused(tmp_path):
    data = dataset()
    gauss = np.rad2deg(np.arcsin(np.polynomial.legendre.leggauss(8)[0]))[::-1]
    data.assign_coords(lat=gauss).to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    np.testing.assert_allclose(open_states(tmp_path / "a.nc").grid.latitudes, gauss, atol=1e-6)
    two = data.drop_vars(["lat", "lon"]).rename(lat="y", lon="x")
    two["lat"] = ("y", "x"), np.zeros((8, 16))
    refused(tmp_path, two, r"has no coordinate latitude with one dimension \(lat has 2: regrid")


def hours(*values):
    return ("time", np.array(values), {"units": "hours since 2018-01-01"})


CLOCKS = [
    (hours(0, 6, 6, 12), r"time 2018-01-01T06:00:00 \(index 2\) is there twice"),
    (hours(0, 6, 3, 12), r"time 2018-01-01T03:00:00 \(index 2\) is not after the one before it"),
    (hours(0, 6, 9, 15), "times are uneven: mostly 6 h apart, but .*09:00:00 are 3 h apart"),
    (hours(0, 0.5, 1, 1.5), "times are uneven: mostly 0.5 h apart"),
    (hours(0, 6, np.nan, 12), "time has missing values"),
    (("time", [0, 6, 12, 18]), "time has units '', expected|time has units ''"),
    (
        ("time", [0, 1, 2, 3], {"units": "days since 2000-1-1", "calendar": "360_day"}),
        "the calendar '360_day', whose days are not all in the common one. Convert it first",
    ),
    (("time", [0, 1, 2, 2**61], {"units": "days since 2000-01-01"}), "cannot be read as dates"),
]


@pytest.mark.parametrize("clock, message", CLOCKS, ids=[message[:25] for _, message in CLOCKS])
def test_wrong_times(tmp_path, clock, message):
    refused(tmp_path, dataset().assign_coords(time=clock), message)


def test_wrong_split(tmp_path):
    data = dataset()
    data["split"] = "time", [0, 1, 2, 3]
    refused(tmp_path, data, r"split must be 0 \(training\).*found \[0, 1, 2, 3\]")


# --- files ---


def put(folder, name, data):
    data.to_netcdf(folder / name, engine="h5netcdf")


def test_folders_whose_files_do_not_fit(tmp_path):
    folders = [tmp_path / str(k) for k in range(5)]
    for folder in folders:
        folder.mkdir()
        put(folder, "a.nc", dataset().isel(time=slice(0, 3)))
    put(folders[0], "b.nc", dataset().isel(time=slice(2, 4)))
    with pytest.raises(ValueError, match=r"a.nc and .*b.nc overlap: the first ends at .*T12:00:00"):
        open_states(folders[0])
    put(folders[1], "b.nc", dataset(lat=LAT / 2).isel(time=slice(3, 4)))
    with pytest.raises(ValueError, match="lie on different grids .8 x 16, 78.75 to -78.75 north"):
        open_states(folders[1])
    put(folders[2], "b.nc", dataset().isel(time=slice(3, 4)).drop_vars("t2m"))
    with pytest.raises(ValueError, match="3 times.*1 times.* hold different times.*T00:00:00"):
        open_states(folders[2])
    put(folders[3], "b.nc", dataset().isel(time=3, drop=True))
    with pytest.raises(ValueError, match="b.nc has states but no time axis, while .*a.nc has one"):
        open_states(folders[3])
    (folders[4] / "a.nc").unlink()
    for name in ("a.nc", "b.nc"):
        put(folders[4], name, dataset().isel(time=3, drop=True))
    with pytest.raises(ValueError, match="hold the same variables, but one has no dates"):
        open_states(folders[4])


def test_upper_variables_without_a_common_level(tmp_path):
    data = dataset().isel(level=0, drop=True)[list(SURFACE)]
    data["z850"], data["t500"] = dataset().z[:, 0], dataset().t[:, 1]
    data = data.drop_vars("level", errors="ignore")
    refused(tmp_path, data, r"no level in common \(z has \[850\]; t has \[500\]\)")


@pytest.mark.parametrize(
    "engine, kind", [("h5netcdf", r"\d+ of \d+ bytes"), ("scipy", "truncated")]
)
def test_truncated_netcdf(tmp_path, engine, kind):
    data = dataset()
    data = data.assign_coords(time=data.time.astype("i4").assign_attrs(data.time.attrs))
    data.to_netcdf(tmp_path / "a.nc", engine=engine)
    content = (tmp_path / "a.nc").read_bytes()
    (tmp_path / "cut.nc").write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(
        ValueError, match=rf"cut.nc is truncated: .*{kind}|cut.nc is {kind}: \d+ by"
    ):
        open_states(tmp_path / "cut.nc")


def test_damage_inside_a_chunk_is_named_when_it_is_read(tmp_path):
    chunks = {"t2m": {"chunksizes": (1, 8, 16), "zlib": True}}
    times = TIMES[0] + np.arange(8) * np.timedelta64(6, "h")
    dataset(times=times).to_netcdf(tmp_path / "a.nc", engine="h5netcdf", encoding=chunks)
    with h5py.File(tmp_path / "a.nc") as file:
        place = file["t2m"].id.get_chunk_info_by_coord((2, 0, 0))
    content = bytearray((tmp_path / "a.nc").read_bytes())
    content[place.byte_offset : place.byte_offset + place.size] = b"\xff" * place.size
    (tmp_path / "bad.nc").write_bytes(content)
    states = open_states(tmp_path / "bad.nc")
    for use in (lambda: states.read(2), lambda: states.complete):
        with pytest.raises(ValueError, match="bad.nc: t2m cannot be read at times .*is damaged"):
            use()


BYTES = {
    "a.nc": [
        (b"", r"a.nc is no NetCDF file \(0 bytes\)"),
        (b"<html>404</html>", "is no NetCDF file .16 bytes.: it begins with b'<html>40'; was the"),
        (b"PK\x03\x04........", "it is a zip archive, as the CDS sends"),
        (b"CDF\x05........", "64-bit data kind: `nccopy -k nc4"),
        (b"CDF\x01" + b"\xff" * 40, "a.nc is truncated: 44 bytes"),
    ]
}


@pytest.mark.parametrize("content, message", BYTES["a.nc"])
def test_files_that_are_something_else(tmp_path, content, message):
    (tmp_path / "a.nc").write_bytes(content)
    for path in (tmp_path, tmp_path / "a.nc"):
        with pytest.raises(ValueError, match=message):
            open_states(path)


def test_paths_that_hold_nothing(tmp_path):
    with pytest.raises(FileNotFoundError, match="none does not exist. Give a NetCDF or GRIB file"):
        open_states(tmp_path / "none")
    with pytest.raises(ValueError, match="holds 0 zarr stores and no file of .nc"):
        open_states(tmp_path)
    (tmp_path / "x.grib2").touch()
    with pytest.raises(ValueError, match="x.grib2 is no NetCDF file .0 bytes."):
        open_states(tmp_path)
    (tmp_path / "x.grib2").unlink()
    put(tmp_path, "a.nc", dataset()[["lat", "lon"]])
    with pytest.raises(ValueError, match="has no field with latitude and longitude"):
        open_states(tmp_path)


def test_absurd_sizes_are_refused_before_they_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(layout, "MOST_POINTS", 100)
    refused(tmp_path, dataset(), "8 x 16 points, at most 100 are read")
    monkeypatch.setattr(layout, "MOST_TIMES", 10)
    refused(tmp_path, dataset(), "a coordinate has 16 values, at most 10")


@pytest.mark.parametrize(
    "zarr_format, file", [(2, ".zmetadata"), (2, "t/.zarray"), (3, "zarr.json")]
)
def test_zarr_codecs_that_run_code_are_refused(tmp_path, zarr_format, file):
    store = tmp_path / "a.zarr"
    dataset().to_zarr(store, zarr_format=zarr_format)
    text = (store / file).read_text()
    name = "blosc" if zarr_format == 2 else "zstd"
    (store / file).write_text(text.replace(f'"{name}"', '"numcodecs.pickle"'))
    with pytest.raises(ValueError, match="uses the codec 'pickle', which is not known to be safe"):
        open_states(store)
    (store / file).write_text(text[:-20])
    with pytest.raises(ValueError, match=r"(zmetadata|zarray|zarr.json) is damaged"):
        open_states(store)


def test_official_pair_of_wrong_files(tmp_path):
    upper, surface = np.zeros((5, 13, 9, 8), np.float32), np.zeros((4, 9, 8), np.float32)
    np.save(tmp_path / "input_upper.npy", upper)
    with pytest.raises(FileNotFoundError, match="input_surface.npy is missing"):
        open_states(tmp_path)
    for bad, message in [
        (surface[:, :8], r"shape \(5, 13, 9, 8\), .*\(4, 8, 8\), expected \(5, 13, lat, lon\)"),
        (surface.astype(int), "input_surface.npy holds int64, expected float32"),
        (np.array([{}]), "is truncated or no plain npy file"),  # a pickle
        (surface, "z does not rise|z falls with height"),
    ]:
        np.save(tmp_path / "input_surface.npy", bad, allow_pickle=True)
        with pytest.raises(ValueError, match=message):
            open_states(tmp_path)
    content = (tmp_path / "input_upper.npy").read_bytes()
    (tmp_path / "input_upper.npy").write_bytes(content[:-8])
    with pytest.raises(ValueError, match=r"input_upper.npy \(\d+ bytes\) is truncated"):
        open_states(tmp_path)


def test_official_pair_with_levels_from_above(tmp_path):
    values = atmosphere(1, files.PANGU_LEVELS, np.linspace(90, -90, 9))
    np.save(tmp_path / "input_upper.npy", np.stack([values[n][0, ::-1] for n in UPPER]))
    np.save(tmp_path / "input_surface.npy", np.stack([values[n][0] for n in SURFACE]))
    with pytest.raises(ValueError, match="z falls with height: .*levels are in reverse order"):
        open_states(tmp_path)


def test_without_the_extra(tmp_path, monkeypatch):
    put(tmp_path, "a.nc", dataset())
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(ImportError, match="needs xarray: pip install .*'tenfold.weather.'"):
        open_states(tmp_path)
    assert "pip install 'tenfold[weather]'" in check("era5", tmp_path).notes[0]


# --- tenfold data check era5 ---


def test_check_of_own_files(tmp_path):
    values = atmosphere()
    values["q"][2, 0, 0, 0] = np.nan
    put(tmp_path, "a.nc", dataset(values))
    result = check("era5", tmp_path)
    assert (result.files, result.problems) == (1, [])
    assert result.notes == [
        "4 states of 19 fields on 8 x 16 points, 2018-01-01T00:00:00 to 2018-01-01T18:00:00, "
        "every 6 h",
        "q at 850 hPa is missing at 1 point of 2018-01-01T12:00:00 (index 2), first at latitude "
        "78.75, longitude 0",
        "1 states lack values and are left out: index 2",
    ]
    assert len(check("era5", tmp_path, limit=1).notes) == 1
    (tmp_path / "a.nc").write_bytes(b"no")
    (problem,) = check("era5", tmp_path).problems
    assert "a.nc is no NetCDF file" in problem.what


@pytest.mark.parametrize(
    "value, name", [(9.96921e36, "q"), (-9999.0, "z"), (1e20, "msl"), (999.0, "t")]
)
def test_values_that_cannot_be_true_are_found_in_any_state(tmp_path, value, name):
    """Fill values that the file does not declare; the first, middle and last state are whole."""
    values = atmosphere(6)
    values[name][1, ..., 2, 3] = value
    times = TIMES[0] + np.arange(6) * np.timedelta64(6, "h")
    put(tmp_path, "a.nc", dataset(values, times=times))
    states = open_states(tmp_path)
    words = rf"{name}.* is {value:.4g} at 1 point of 2018-01-01T06:00:00 \(index 1\)".replace(
        "+", r"\+"
    )
    with pytest.raises(ValueError, match=words):
        assert states.complete.any()
    (problem,) = check("era5", tmp_path).problems
    assert f"is {value:.4g} at 1 point of 2018-01-01T06" in problem.what


def test_what_is_left_out_is_said(tmp_path):
    data = dataset()
    data["sst"], data["tcwv"] = data.t2m, data.msl
    data["cape"] = data.t2m.expand_dims(expver=2)
    put(tmp_path, "a.nc", data)
    notes = check("era5", tmp_path).notes
    assert [note for note in notes if note.startswith("left out: ")] == [
        "left out: cape has the further dimension expver: select one entry of it, or interpolate "
        "it to pressure levels if it is an axis of heights",
        "left out: sst is no variable of the paper: name it to take it",
        "left out: tcwv is no variable of the paper: name it to take it",
    ]
    states = open_states(tmp_path, upper=("t", "q"), levels=(850, 500), surface=("t2m",))
    assert states.left_out[-1].startswith("q at 200 hPa: not all") and "msl was not asked for" in (
        states.left_out
    )


def test_metadata_of_zarr_is_plain_json(tmp_path):
    """The walk over codecs sees those inside a shard, too."""
    shard = {"name": "sharding_indexed", "configuration": {"codecs": [{"name": "pickle"}]}}
    found = list(files._codecs(json.loads(json.dumps({"a": {"codecs": [shard]}}))))
    assert found == ["sharding_indexed", "pickle"]
