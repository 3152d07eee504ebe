"""Forecast files: what they hold, that a kill leaves no trace, and what they refuse."""

import importlib.util
import multiprocessing
import os
import shutil
import signal
import time
from collections import namedtuple
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tenfold.data.weather import forecast_file, forecast_store
from tenfold.data.weather.forecast_file import ForecastFile
from tenfold.data.weather.grid import Grid
from tenfold.data.weather.npy_forecast import NpyForecast

h5py = pytest.importorskip("h5py")
xarray = pytest.importorskip("xarray")
zarr = pytest.importorskip("zarr")

GRID = Grid(
    ("z", "q"), (850, 500, 200), ("msl", "t2m"), ("lsm",), (60.0, 0.0, -60.0), (0.0, 90.0, 180.0)
)
START = np.datetime64("1996-01-05T06:00:00")
HOURS = (6, 12, 24, 48)
SUFFIXES = (".nc", ".zarr")
both = pytest.mark.parametrize("suffix", SUFFIXES)


def state(step: int, members: int = 1, grid: Grid = GRID) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(step)
    upper = (members, len(grid.upper), len(grid.levels), *grid.shape)
    surface = (members, len(grid.surface), *grid.shape)
    return random.normal(size=upper).astype("f4"), random.normal(size=surface).astype("f4")


def opened(path: Path, members: int = 1, **changes: Any) -> ForecastFile:
    asked = {"grid": GRID, "start": START, "hours": HOURS, "members": members}
    asked["attributes"] = {"weights": "sha256 12ab", "comment": "Grüße\nzwei"}
    return ForecastFile.create_or_continue(path, **{**asked, **changes})


def write_all(path: Path, members: int = 1) -> None:
    with opened(path, members) as file:
        for step in range(file.done, len(HOURS)):
            file.write(step, *state(step, members))


def content(path: Path) -> dict[str, bytes]:
    """Every byte of a file or of a folder's files, by name."""
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return {str(p.relative_to(path)): p.read_bytes() for p in files}


def dies(path: Path, members: int, calls: int, how: str) -> None:
    """Write a forecast and be killed at the given write: before, amid or after it."""
    store = forecast_store.Netcdf if path.suffix == ".nc" else forecast_store.Zarr
    put, done = store.put, 0

    def counted(self: Any, name: str, step: int, block: np.ndarray) -> None:
        nonlocal done
        done += 1
        if done == calls and how == "amid" and path.suffix == ".nc":
            torn = block.copy().reshape(-1)
            torn[len(torn) // 2 :] = 9
            put(self, name, step, torn.reshape(block.shape))
        elif done == calls and how == "amid":
            Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # leaves a .partial
        if done < calls or how != "before":
            put(self, name, step, block)
        if done == calls:
            os.kill(os.getpid(), signal.SIGKILL)

    store.put = counted
    write_all(path, members)


def killed(path: Path, members: int, calls: int, how: str) -> None:
    process = multiprocessing.get_context("spawn").Process(
        target=dies, args=(path, members, calls, how)
    )
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL


@both
@pytest.mark.parametrize("members", [1, 3])
def test_read_gives_what_was_written_and_a_resumed_file_equals_an_unbroken_one(
    tmp_path, suffix, members
):
    write_all(tmp_path / f"whole{suffix}", members)
    path = tmp_path / f"parts{suffix}"
    for step in range(len(HOURS)):
        with opened(path, members) as file:
            assert file.done == step
            file.write(step, *state(step, members))
            for earlier in range(step + 1):
                for is_, was in zip(file.read(earlier), state(earlier, members), strict=True):
                    assert is_.dtype == np.float32
                    np.testing.assert_array_equal(is_, was)
    assert content(path) == content(tmp_path / f"whole{suffix}")
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"parts{suffix}", f"whole{suffix}"]


# a step is five writes: z, q, msl, t2m and the mark
@pytest.mark.parametrize(
    ("suffix", "members", "calls", "how"),
    [
        (".nc", 1, 7, "amid"),
        (".nc", 3, 10, "before"),  # between the data and the mark of step 1
        (".nc", 1, 10, "after"),
        (".nc", 1, 1, "before"),
        (".zarr", 3, 7, "amid"),
        (".zarr", 1, 9, "after"),  # between the data and the mark of step 1
        (".zarr", 1, 10, "amid"),  # within the mark
    ],
)
def test_sigkill_leaves_no_trace(tmp_path, suffix, members, calls, how):
    path, whole = tmp_path / f"killed{suffix}", tmp_path / f"whole{suffix}"
    killed(path, members, calls, how)
    leftovers = list(path.rglob("*.partial")) if suffix == ".zarr" else []
    assert bool(leftovers) == (suffix == ".zarr" and how == "amid")
    assert (tmp_path / f".killed{suffix}.lock").exists()  # stale: its process is dead
    with opened(path, members) as file:
        assert file.done == (calls - (how != "after")) // 5
    write_all(path, members)
    write_all(whole, members)
    assert content(path) == content(whole)


@both
def test_killed_while_it_is_made(tmp_path, suffix):
    new = tmp_path / f".f{suffix}.new"
    if suffix == ".nc":
        new.write_bytes(b"half")
    else:
        new.mkdir()
        (new / "zarr.json").write_text("{")
    write_all(tmp_path / f"f{suffix}")
    assert [p.name for p in tmp_path.iterdir()] == [f"f{suffix}"]


@both
@pytest.mark.parametrize("members", [1, 3])
def test_xarray_reads_values_coordinates_and_units(tmp_path, suffix, members):
    path = tmp_path / f"f{suffix}"
    write_all(path, members)
    engine = "h5netcdf" if suffix == ".nc" else "zarr"
    with xarray.open_dataset(path, engine=engine, decode_timedelta=None) as data:
        dims = ("time", *(["member"] if members > 1 else []))
        assert data.z.dims == (*dims, "level", "lat", "lon")
        assert data.t2m.dims == (*dims, "lat", "lon")
        hours = np.array(HOURS, "timedelta64[h]")
        np.testing.assert_array_equal(data.time.values, START + hours)
        assert data.reference_time.values == START
        assert data.lead_time.values.tolist() == list(HOURS)
        assert "lead_time" in data.z.coords and data.lead_time.standard_name == "forecast_period"
        assert data.level.values.tolist() == [850, 500, 200]
        assert (data.level.units, data.level.positive) == ("hPa", "down")
        np.testing.assert_array_equal(data.lat, GRID.latitudes)
        np.testing.assert_array_equal(data.lon, GRID.longitudes)
        assert data.finished.values.tolist() == [1] * len(HOURS)
        for step in range(len(HOURS)):
            upper, surface = state(step, members)
            np.testing.assert_array_equal(
                data.q.values[step].reshape(upper[:, 1].shape), upper[:, 1]
            )
            np.testing.assert_array_equal(
                data.msl.values[step].reshape(surface[:, 0].shape), surface[:, 0]
            )
        assert (data.msl.units, data.msl.standard_name) == ("Pa", "air_pressure_at_mean_sea_level")
        assert data.z.units == "m2 s-2" and data.attrs["Conventions"] == "CF-1.10"
        assert data.attrs["weights"] == "sha256 12ab" and data.attrs["comment"] == "Grüße\nzwei"
        assert {"institution", "source", "history", "title"} <= set(data.attrs)
        if members > 1:
            assert data.member.standard_name == "realization"
            assert data.member.values.tolist() == [0, 1, 2]


@both
def test_others_read_while_it_is_written(tmp_path, suffix):
    path = tmp_path / f"f{suffix}"
    engine = "h5netcdf" if suffix == ".nc" else "zarr"
    with opened(path) as file:
        file.write(0, *state(0))
        with xarray.open_dataset(path, engine=engine) as data:
            assert data.finished.values.tolist() == [1, 0, 0, 0]
            np.testing.assert_array_equal(data.z.values[0], state(0)[0][0, 0])
        file.write(1, *state(1))
    with xarray.open_dataset(path, engine=engine) as data:
        np.testing.assert_array_equal(data.z.values[1], state(1)[0][0, 0])


@both
def test_files_hold_no_date(tmp_path, suffix):
    opened(tmp_path / f"one{suffix}").close()
    time.sleep(1.1)  # HDF5 would keep whole seconds
    opened(tmp_path / f"two{suffix}").close()
    assert content(tmp_path / f"one{suffix}") == content(tmp_path / f"two{suffix}")


def test_names_of_fields_on_one_level_and_of_unknown_ones(tmp_path):
    grid = replace(GRID, upper=(), levels=(), surface=("u500", "msl", "rain"))
    with opened(tmp_path / "f.nc", grid=grid) as file:
        file.write(0, *state(0, grid=grid))
        assert file.read(0)[0].shape == (1, 0, 0, 3, 3)
    with h5py.File(tmp_path / "f.nc") as data:
        assert "level" not in data and data["rain"].attrs["long_name"] == b"rain"
        assert data["u500"].attrs["long_name"] == b"eastward wind at 500 hPa"
        assert "units" not in data["rain"].attrs


@both
def test_one_file_has_known_size_at_once_and_the_values_lie_in_it_in_order(tmp_path, suffix):
    path = tmp_path / f"f{suffix}"
    with opened(path) as file:
        before = content(path)
        file.write(0, *state(0))
    if suffix == ".nc":
        assert path.stat().st_size == len(before["."])
        assert state(0)[0][0, 0].tobytes() in path.read_bytes()
    else:
        chunk = path / "z" / "c" / "0"
        assert sorted(str(p.relative_to(chunk)) for p in chunk.rglob("*") if p.is_file()) == [
            f"{level}/0/0" for level in range(3)
        ]


# --- another forecast, damage ---


@both
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hours": (6, 12)}, r"shape of time \(4,\) in the file, \(2,\) asked"),
        ({"hours": (6, 12, 24, 30)}, r"time \[ 6 12 24 48\] in the file, \[ 6 12 24 30\] asked"),
        ({"members": 2}, "variable member is not in the file"),
        ({"start": START + np.timedelta64(6, "h")}, "1996-01-05 06:00:00' in the file, .* 12:00"),
        ({"attributes": {"weights": "other"}}, "attribute weights 'sha256 12ab' in the file, 'oth"),
        ({"attributes": {}}, "attribute comment 'Grüße.*' in the file, none asked"),
        ({"grid": replace(GRID, levels=(850, 500, 100))}, r"level \[850 500 200\] in the file"),
        ({"grid": replace(GRID, latitudes=(59.0, 0.0, -60.0))}, r"lat \[ 60.* in the file"),
        ({"grid": replace(GRID, surface=("msl", "u10"))}, "variable t2m is not asked for; var"),
    ],
)
def test_another_forecast_is_shown_and_not_overwritten(tmp_path, suffix, changes, words):
    path = tmp_path / f"f{suffix}"
    with opened(path) as file:
        file.write(0, *state(0))
    before = content(path)
    with pytest.raises(ValueError, match=rf"f\{suffix} holds another forecast: .*{words}") as error:
        opened(path, **changes)
    assert "not changed" in str(error.value)
    assert content(path) == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]  # no lock is left


def test_many_differences_are_counted(tmp_path):
    write_all(tmp_path / "f.nc")
    grid = replace(GRID, upper=("u", "v", "w"), surface=("sp",))
    with pytest.raises(ValueError, match=r"variable q is not asked for; .*; and 4 more\. Give"):
        opened(tmp_path / "f.nc", grid=grid, attributes={"weights": "w"})


def test_damaged_netcdf(tmp_path):
    path = tmp_path / "f.nc"
    write_all(path)
    whole = path.read_bytes()
    for bad in (whole[:-1000], b"", b"no HDF5", whole[:600] + b"\xff" * 400 + whole[1000:]):
        path.write_bytes(bad)
        with pytest.raises(ValueError, match=r"f.nc is damaged .*move it away"):
            opened(path)
        assert path.read_bytes() == bad


def test_damaged_zarr(tmp_path):
    path = tmp_path / "f.zarr"
    write_all(path)
    with opened(path) as file:
        chunk = path / "q/c/2/1/0/0"
        whole = chunk.read_bytes()
        flipped = bytes([whole[len(whole) // 2] ^ 1])
        for bad in (whole[:-3], whole[: len(whole) // 2] + flipped + whole[len(whole) // 2 + 1 :]):
            chunk.write_bytes(bad)
            with pytest.raises(ValueError, match=r"f.zarr is damaged .*step 2 cannot be read"):
                file.read(2)
        chunk.unlink()
        with pytest.raises(ValueError, match=r"step 2 cannot be read: 2 of 3 chunks of q"):
            file.read(2)
        file.read(1)
    (path / "z" / "zarr.json").write_text("{}")
    with pytest.raises(ValueError, match=r"f.zarr is damaged"):
        opened(path)
    shutil.rmtree(path)
    path.write_text("a file")
    with pytest.raises(ValueError, match=r"f.zarr is damaged"):
        opened(path)


def test_a_step_of_nothing_but_missing_values_is_no_damage(tmp_path):
    upper, surface = state(0)
    with opened(tmp_path / "f.zarr") as file:
        file.write(0, np.full_like(upper, np.nan), surface)
        assert np.isnan(file.read(0)[0]).all()


@pytest.mark.parametrize("marks", [[1, 0, 1, 0], [2, 0, 0, 0], [-1, 0, 0, 0], [0, 1, 0, 0]])
def test_marks_that_make_no_sense(tmp_path, marks):
    for suffix in SUFFIXES:
        opened(tmp_path / f"f{suffix}").close()
    with h5py.File(tmp_path / "f.nc", "r+") as data:
        data["finished"][...] = marks
    zarr.open_group(tmp_path / "f.zarr", mode="r+")["finished"][...] = np.array(marks, "i1")
    for suffix in SUFFIXES:
        with pytest.raises(ValueError, match="marks in `finished` are not ones and then zeros"):
            opened(tmp_path / f"f{suffix}")


def test_hostile_netcdf(tmp_path):
    """Arrays in chunks, in another file or of another size are refused before they are read."""
    path, other = tmp_path / "f.nc", tmp_path / "other.h5"
    with h5py.File(other, "w") as data:
        data["lat"] = np.zeros(3)
    for name, make in {
        "lat": lambda f: f.__setitem__("lat", h5py.ExternalLink(str(other), "lat")),
        "z": lambda f: f.create_dataset("z", (4, 3, 3, 3), "f4", chunks=True),
        "msl": lambda f: f.create_dataset(
            "msl", (4, 3, 3), "f4", external=[(str(other), 0, h5py.h5f.UNLIMITED)]
        ),
        "q": lambda f: f.create_group("q"),
        "time": lambda f: f.create_dataset("time", (2**40,), "i4", chunks=(2**20,)),
    }.items():
        path.unlink(missing_ok=True)
        opened(path).close()
        with h5py.File(path, "r+") as data:
            del data[name]
            make(data)
        with pytest.raises(ValueError, match=rf"f.nc is damaged .*{name}"):
            opened(path)
    assert other.stat().st_size > 0


def test_hostile_zarr_chunks(tmp_path):
    path = tmp_path / "f.zarr"
    opened(path).close()
    shutil.rmtree(path / "z")
    zarr.open_group(path, mode="r+").create_array(
        "z", shape=(4, 3, 3, 3), dtype="<f4", chunks=(4, 3, 3, 3)
    )
    with pytest.raises(ValueError, match=r"damaged .*z has chunks of \(4, 3, 3, 3\), expected \(1"):
        opened(path)


# --- one writer ---


def test_only_one_writer_and_dead_ones_do_not_count(tmp_path):
    path, lock = tmp_path / "f.nc", tmp_path / ".f.nc.lock"
    with opened(path) as file:
        assert lock.read_text() == f"{os.getpid()}\n"
        with pytest.raises(ValueError, match=rf"f.nc is being written by process {os.getpid()}\."):
            opened(path)
        file.write(0, *state(0))
    assert not lock.exists()
    lock.write_text("999999\n")  # as a killed process leaves it
    with opened(path) as file:
        assert file.done == 1 and lock.read_text() == f"{os.getpid()}\n"
        file.close()
        file.close()
        with pytest.raises(ValueError, match="and the file is closed"):
            file.write(1, *state(1))


def test_a_lock_that_is_a_link_is_not_followed(tmp_path):
    (tmp_path / "precious").write_text("text")
    (tmp_path / ".f.nc.lock").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError):
        opened(tmp_path / "f.nc")
    assert (tmp_path / "precious").read_text() == "text"


# --- what cannot be written ---


def test_steps_are_written_once_in_order_with_the_right_shapes(tmp_path):
    upper, surface = state(0)
    with opened(tmp_path / "f.nc") as file:
        for step in (1, -1, 4):
            with pytest.raises(ValueError, match=rf"step {step} cannot be written: 0 of 4"):
                file.write(step, upper, surface)
        with pytest.raises(ValueError, match="step 0 is not there; of 4 steps the first 0"):
            file.read(0)
        with pytest.raises(ValueError, match=r"float32 \(1, 2, 2, 3, 3\), expected .*\(1, 2, 3, 3"):
            file.write(0, upper[:, :, :2], surface)
        with pytest.raises(ValueError, match=r"\(1, 3, 3, 3\), expected float32 \(1, 2, 3, 3\)"):
            file.write(0, upper, surface[:, [0, 1, 1]])
        file.write(0, upper, surface)
        with pytest.raises(ValueError, match="step 0 cannot be written: 1 of 4 steps are"):
            file.write(0, upper, surface)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hours": ()}, "at least one"),
        ({"hours": (6, 6)}, r"hours of a forecast are \(6, 6\)"),
        ({"hours": (-6, 6)}, "rising, from 0"),
        ({"hours": (6, 2**31)}, "2147483648"),
        ({"members": 0}, "0 members"),
        ({"start": np.datetime64("2000-01-01T00:00:00.5")}, "whole seconds"),
        ({"start": np.datetime64("12000-01-01T00")}, "years 1 to 9999"),
        ({"grid": replace(GRID, surface=("msl", "time"))}, "z, q, msl, time: .* not finished"),
        ({"grid": replace(GRID, surface=("z",))}, "must differ"),
        ({"grid": replace(GRID, surface=("../x",))}, "letters, digits and _"),
        ({"grid": replace(GRID, upper=(), surface=())}, "are none"),
        ({"grid": replace(GRID, levels=())}, "0 levels for 2 upper"),
        ({"grid": replace(GRID, latitudes=())}, r"grid has \(0, 3\) rows"),
        ({"attributes": {"a b": "x"}}, "attribute 'a b'"),
        ({"attributes": {"Conventions": "CF-1.6"}}, "not Conventions"),
        ({"attributes": {"a": ""}}, "attribute 'a' of a forecast has 0 bytes"),
        ({"attributes": {"a": "x" * 16_001}}, "has 16001 bytes"),
        ({"attributes": {"a": "x\0"}}, "attribute 'a'"),
        ({"attributes": {"a": "\udc80"}}, "attribute 'a'"),
    ],
)
def test_what_cannot_be_written(tmp_path, changes, words):
    for suffix in SUFFIXES:
        with pytest.raises(ValueError, match=words):
            opened(tmp_path / f"f{suffix}", **changes)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("members", [1, 2])
def test_npy_of_fields_on_one_level_alone_is_read_back(tmp_path, members):
    """There is no file of upper fields where there are none, and nothing is damaged."""
    grid = replace(GRID, upper=(), levels=())
    for step in range(2):  # the second time as after a kill
        file = NpyForecast.create_or_continue(tmp_path / "a", grid, START, HOURS, members, {})
        with file:
            assert file.done == step
            upper, surface = state(step, members, grid)
            file.write(step, upper, surface)
            found = file.read(step)
            assert found[0].shape == upper.shape == (members, 0, 0, *grid.shape)
            np.testing.assert_array_equal(found[1], surface)
    assert not list((tmp_path / "a").glob("output_upper*"))


def test_other_names_and_missing_packages(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"f.grib ends in '.grib'; name it .nc or .zarr"):
        opened(tmp_path / "f.grib")
    monkeypatch.setattr(forecast_file, "find_spec", lambda name: None)
    for suffix, package in ((".nc", "h5py"), (".zarr", "zarr")):
        with pytest.raises(ImportError, match=rf"needs {package}: .*'tenfold\[weather\]'"):
            opened(tmp_path / f"f{suffix}")


@both
def test_a_full_disk_is_said_before_anything_is_written(tmp_path, suffix, monkeypatch):
    path = tmp_path / f"f{suffix}"
    usage = namedtuple("usage", "total used free")
    step = 4 * (2 * 3 + 2) * 9
    need = 4 * step + forecast_file.SPARE
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, need - 1))
    with pytest.raises(ValueError, match=r"needs 0.00105 GB for 4 steps of 0.000288 MB, but the"):
        opened(path)
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, need))
    with opened(path) as file:
        file.write(0, *state(0))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, need - step))
    opened(path).close()  # what is written needs no room any more
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, need - step - 1))
    with pytest.raises(ValueError, match="for 3 steps"):
        opened(path)


@pytest.mark.parametrize("module", ["forecast_file", "forecast_store"])
def test_the_module_needs_no_weather_package_to_be_imported(module):
    source = Path(importlib.util.find_spec(f"tenfold.data.weather.{module}").origin).read_text()
    heads = [line.split()[1] for line in source.splitlines() if line.startswith(("import", "from"))]
    assert not {"h5py", "zarr", "xarray", "fcntl"} & {head.split(".")[0] for head in heads}
