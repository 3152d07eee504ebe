"""GRIB files, made here by ecCodes: analyses, forecasts, height, grids without rows, damage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from weather_files import LAT, LON, SURFACE, TIMES, UPPER, atmosphere

from tenfold.data.weather.reader import open_states

reason = "cfgrib or ecCodes is not installed (extra `grib`)"
ec = pytest.importorskip("eccodes", reason=reason)
pytest.importorskip("cfgrib", reason=reason)

LEVELS = (850, 500)
CODES = {"u10": "10u", "v10": "10v", "t2m": "2t"}
HEIGHTS = {"u10": 10, "v10": 10, "t2m": 2}
VALUES = atmosphere(2, LEVELS)


def message(stream, name, kind, level, time, step, values) -> None:
    sample = "regular_ll_pl_grib2" if kind == "isobaricInhPa" else "regular_ll_sfc_grib2"
    handle = ec.codes_grib_new_from_samples(sample)
    keys = {
        "Ni": len(LON), "Nj": len(LAT), "dataDate": 20180101, "dataTime": 100 * time,
        "latitudeOfFirstGridPointInDegrees": LAT[0], "latitudeOfLastGridPointInDegrees": LAT[-1],
        "longitudeOfFirstGridPointInDegrees": LON[0], "longitudeOfLastGridPointInDegrees": LON[-1],
        "iDirectionIncrementInDegrees": 22.5, "jDirectionIncrementInDegrees": 22.5,
        "endStep": step, "typeOfLevel": kind, "level": level, "shortName": name,
        "bitsPerValue": 24,
    }  # fmt: skip
    for key, value in keys.items():
        ec.codes_set(handle, key, value)
    ec.codes_set_values(handle, values.astype(float).ravel())
    ec.codes_write(handle, stream)
    ec.codes_release(handle)


def write(path: Path, steps: bool = False, height: bool = False) -> Path:
    """Two states: analyses, or one start and a step."""
    with path.open("wb") as stream:
        for k in range(2):
            when = {"time": 0, "step": 6 * k} if steps else {"time": 6 * k, "step": 0}
            for name in UPPER:
                own, scale = ("gh", 9.80665) if name == "z" and height else (name, 1.0)
                for i, level in enumerate(LEVELS):
                    field = VALUES[name][k, i] / scale
                    message(stream, own, "isobaricInhPa", level, **when, values=field)
            for name in SURFACE:
                kind = "heightAboveGround" if name in HEIGHTS else "meanSea"
                level = HEIGHTS.get(name, 0)
                field = VALUES[name][k]
                message(stream, CODES.get(name, name), kind, level, **when, values=field)
    return path


@pytest.mark.parametrize("steps", [False, True])
def test_states_in_grib(tmp_path: Path, steps: bool) -> None:
    path = write(tmp_path / "a.grib2", steps)
    states = open_states(path)
    grid = states.grid
    assert (grid.upper, grid.levels, grid.surface) == (UPPER, LEVELS, SURFACE)
    assert (grid.latitudes, grid.longitudes, grid.periodic) == (tuple(LAT), tuple(LON), True)
    assert states.times.tolist() == TIMES[:2].tolist() and states.left_out == ()
    assert states.complete.all() and list(tmp_path.iterdir()) == [path]  # no index beside it
    for k in range(2):
        upper, surface = states.read(k)
        for have, want in ((upper, UPPER), (surface, SURFACE)):
            for field, name in zip(have, want, strict=True):
                spread = np.ptp(VALUES[name][k])
                np.testing.assert_allclose(field, VALUES[name][k], rtol=0, atol=1e-5 * spread)


def test_open_data_has_height(tmp_path: Path) -> None:
    path = write(tmp_path / "a.grib2", height=True)
    with pytest.raises(ValueError, match="gh is geopotential height.*multiply it by 9.80665"):
        open_states(path)


def test_a_variable_on_one_level(tmp_path: Path) -> None:
    with (tmp_path / "a.grib").open("wb") as stream:
        for k in range(2):
            for name, rows in (("z", (1,)), ("t", (0, 1))):
                for i in rows:
                    message(stream, name, "isobaricInhPa", LEVELS[i], 6 * k, 0, VALUES[name][k, i])
    states = open_states(tmp_path / "a.grib")
    assert (states.grid.upper, states.grid.levels) == (("z", "t"), (500,))
    assert (states.grid.surface, states.grid.constants) == ((), ())
    np.testing.assert_allclose(states.read(1)[0][0, 0], VALUES["z"][1, 1], rtol=1e-5)
    assert states.left_out == ("t at 850 hPa: not all variables have it, or it was not asked for",)


def test_grids_without_rows_and_damage(tmp_path: Path) -> None:
    path = tmp_path / "a.grib"
    with path.open("wb") as stream:
        handle = ec.codes_grib_new_from_samples("reduced_gg_pl_32_grib2")
        ec.codes_write(handle, stream)
        ec.codes_release(handle)
    with pytest.raises(ValueError, match="grid reduced_gg, without rows and columns. Regrid it"):
        open_states(path)
    whole = write(tmp_path / "b.grib").read_bytes()
    for content in (whole[: len(whole) * 2 // 3], b"GRIB\0\0\x10\2" + bytes(200) + b"7777"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="a.grib (is no whole GRIB file|holds no GRIB)"):
            open_states(path)
