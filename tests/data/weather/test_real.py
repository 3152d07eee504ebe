"""The four files of pangu_atmos, where they are: a simulation, and three sets of real analyses."""

import os
from pathlib import Path

import numpy as np
import pytest

from tenfold.data.weather.files import PANGU_LEVELS
from tenfold.data.weather.reader import check_states, open_states

xarray = pytest.importorskip("xarray")
pytest.importorskip("h5netcdf")


def real(name):
    folder = Path(os.environ.get("TENFOLD_DATA", "")) / "pangu_atmos" / name
    return pytest.param(
        folder, marks=pytest.mark.skipif(not folder.is_file(), reason=f"{name} is not there")
    )


@pytest.mark.parametrize("file", [real("gcm_t21_6h.nc")])
def test_real_simulation(file):
    states = open_states(file)
    assert states.grid.fields[:2] == ("z850", "z700") and len(states.grid.fields) == 29
    assert states.grid.shape == (32, 64) and states.grid.step == 6 and len(states) == 640
    assert states.times[0] == np.datetime64("2001-01-09T06") and states.grid.periodic
    assert states.grid.constants == ("lsm", "orog") and not states.missing.any()
    numbers, counts = np.unique(states.split, return_counts=True)
    assert dict(zip(numbers.tolist(), counts.tolist(), strict=True)) == {-1: 32, 0: 448, 2: 160}
    raw = xarray.open_dataset(file, engine="h5netcdf", decode_times=False)
    np.testing.assert_array_equal(states.read(401)[0][1, 2], raw["q500"][401].astype("f4"))
    assert states.complete.all() and check_states(states) == []


@pytest.mark.parametrize("file", [real("storm1996_6h.nc")])
def test_real_region_with_missing_values(file):
    states = open_states(file)
    assert states.grid.fields == ("u500", "v500", "msl", "t", "u", "v")
    assert not states.grid.periodic and states.grid.latitudes[0] == 60
    assert states.missing.sum() == 224 and np.flatnonzero(~states.complete).tolist() == [17, 36, 37]
    row, column = states.grid.latitudes.index(31.25), states.grid.longitudes.index(-85)
    assert states.read(9)[1][0, row, column] == pytest.approx(101160, abs=10)


@pytest.mark.parametrize("file", [real("era5_snapshot_19590102T00.nc")])
def test_real_snapshot(file):
    states = open_states(file)
    assert states.grid.levels == PANGU_LEVELS and states.grid.surface == ()
    assert states.read(0)[0][0, 5].mean() == pytest.approx(54000, abs=1000)


@pytest.mark.parametrize("file", [real("eraint_monthly_uvz.nc")])
def test_real_monthly_means(file):
    states = open_states(file)
    assert states.grid.upper == ("z", "u", "v") and states.grid.levels == (850, 500, 200)
    assert states.grid.longitudes[0] == 0 and len(states) == 2 and np.isnat(states.times).all()
    raw = xarray.open_dataset(file, engine="h5netcdf")["u"]
    np.testing.assert_array_equal(states.read(1)[0][1, 0, :, 0], raw.sel(month=7, level=850, lon=0))
