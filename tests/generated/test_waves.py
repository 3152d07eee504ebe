"""Generated waves: they solve the vorticity equation, and all fields travel with them exactly."""

from dataclasses import replace

import numpy as np
import pytest

from tenfold.data.weather.grid import Grid
from tenfold.generated import waves
from tenfold.generated.waves import OMEGA, RADIUS, WaveStates, default_grid, fields, random_wave

LEVELS = (1000, 925, 850, 700, 600, 500, 400, 300, 250, 200, 150, 100, 50)
FINE = (
    tuple(np.linspace(88.5, -88.5, 355).tolist()),
    tuple(np.linspace(0, 359.5, 720).tolist()),
)


def gradient(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """By longitude (exactly, with Fourier series) and latitude (4th order), per radian."""
    orders = 1j * np.arange(values.shape[1] // 2 + 1)
    east = np.fft.irfft(orders * np.fft.rfft(values, axis=1), values.shape[1], axis=1)
    step = np.deg2rad(FINE[0][1] - FINE[0][0])
    north = np.full_like(values, np.nan)
    north[2:-2] = values[:-4] - 8 * values[1:-3] + 8 * values[3:-1] - values[4:]
    return east, north / (12 * step)


def flow(number: int, hours: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """u, v and absolute vorticity on a fine grid."""
    found = fields(random_wave(number), (500,), *FINE, hours)
    u, v = found["u"][0], found["v"][0]
    y = np.deg2rad(np.array(FINE[0]))[:, None]
    turning = (gradient(v)[0] - gradient(u * np.cos(y))[1]) / (RADIUS * np.cos(y))
    return u, v, turning + 2 * OMEGA * np.sin(y)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_the_flow_solves_the_vorticity_equation_and_has_no_divergence(number):
    u, v, total = flow(number, 30.0)
    (_, _, before), (_, _, after) = flow(number, 29.9), flow(number, 30.1)
    y = np.deg2rad(np.array(FINE[0]))[:, None]
    tendency = (after - before) / (0.2 * 3600)
    east, north = gradient(total)
    advection = (u * east / np.cos(y) + v * north) / RADIUS
    inner = np.s_[8:-8]
    size = np.abs(tendency[inner]).max()
    assert size > 1e-10
    assert np.abs(tendency + advection)[inner].max() < 1e-3 * size
    divergence = (gradient(u)[0] + gradient(v * np.cos(y))[1]) / (RADIUS * np.cos(y))
    assert np.abs(divergence[inner]).max() < 1e-4 * np.abs(total[inner]).max()


def test_geopotential_is_in_linear_balance_with_the_wave():
    wave = random_wave(1)
    still = replace(wave, amplitudes=0 * wave.amplitudes)
    y = np.deg2rad(np.array(FINE[0]))[:, None]
    with_wave, without = (fields(w, (300,), *FINE, 5) for w in (wave, still))
    z, u, v = (with_wave[name][0] - without[name][0] for name in "zuv")
    f = 2 * (OMEGA + wave.rotation) * np.sin(y)
    # div(f grad(psi)) = f zeta + df/dy psi_y, with psi_y = -u; both sides times a^2
    zeta = RADIUS * (gradient(v)[0] - gradient(u * np.cos(y))[1]) / np.cos(y)
    forced = f * zeta - 2 * (OMEGA + wave.rotation) * np.cos(y) * u * RADIUS
    laplacian = gradient(np.cos(y) * gradient(z)[1])[1] / np.cos(y)
    laplacian += gradient(gradient(z)[0])[0] / np.cos(y) ** 2
    inner = np.s_[12:-12]
    assert np.abs(laplacian - forced)[inner].max() < 1e-3 * np.abs(forced[inner]).max()


def test_the_mean_is_in_gradient_wind_balance_and_temperature_is_hydrostatic():
    wave = random_wave(0)
    still = replace(wave, amplitudes=0 * wave.amplitudes)
    at = fields(still, (waves.BALANCED,), *FINE, 0)
    y = np.deg2rad(np.array(FINE[0]))[:, None]
    u = at["u"][0]
    slope = gradient(at["z"][0])[1] / RADIUS
    inner = np.s_[2:-2]
    balance = 2 * OMEGA * np.sin(y) * u + u**2 * np.tan(y) / RADIUS
    assert np.abs(slope + balance)[inner].max() < 1e-6 * np.abs(slope[inner]).max()
    for level in (850, 500, 100):  # 100 hPa: the isothermal part
        below, above = level * np.exp(1e-3), level * np.exp(-1e-3)
        low, here, high = (
            fields(wave, (p,), *FINE, 7.5) for p in (float(below), level, float(above))
        )
        thickness = (high["z"] - low["z"]) / (2e-3 * waves.GAS)
        np.testing.assert_allclose(here["t"], thickness, atol=2e-3)


def test_all_fields_turn_with_the_wave():
    states = WaveStates(series=2)
    wave = states.waves[1]
    hours = np.deg2rad(3 * 11.25) / wave.speed / 3600  # three columns
    for then, later in zip(states.at(1, 2.5), states.at(1, 2.5 + float(hours)), strict=True):
        np.testing.assert_allclose(later, np.roll(then, 3, axis=-1), rtol=2e-5, atol=2e-3)
        assert np.abs(later - then).max() > 5


def test_fields_are_defined_at_the_poles():
    grid = replace(default_grid(), latitudes=(90.0, 89.999, 0.0, -90.0))
    upper, surface = WaveStates(grid).read(3)
    assert np.isfinite(upper).all() and np.isfinite(surface).all()
    np.testing.assert_allclose(upper[:, :, 0], upper[:, :, 1], rtol=1e-3, atol=1e-2)
    scalar = upper[0, :, 0]
    np.testing.assert_allclose(scalar, scalar[:, :1].repeat(32, 1), rtol=1e-6)


def test_values_are_physical_on_all_levels():
    states = WaveStates(replace(default_grid(), levels=LEVELS), series=6, seed=3)
    limits = {"z": (-5e3, 3e5), "q": (1e-9, 0.03), "t": (170, 320), "u": (-60, 60), "v": (-60, 60)}
    limits |= {"msl": (9.4e4, 1.05e5), "u10": (-30, 30), "v10": (-30, 30), "t2m": (240, 320)}
    for index in range(0, len(states), 19):
        parts = states.read(index)
        for part, names in zip(parts, (states.grid.upper, states.grid.surface), strict=True):
            assert part.dtype == np.float32
            for name, values in zip(names, part, strict=True):
                low, high = limits[name]
                assert low < values.min() and values.max() < high, (name, index)
        z, t = parts[0][0], parts[0][2]
        assert abs(z[LEVELS.index(500)].mean() - 5.4e4) < 1.5e3
        assert abs(t[LEVELS.index(850)].mean() - 276) < 5
        assert (np.diff(z, axis=0) > 0).all()


def test_series_are_split_and_differ_and_a_day_changes_much():
    states = WaveStates()
    assert len(states) == len(states.times) == 3 * 28 * 4 + 2 * 4
    assert states.split.dtype == np.int8 and states.times.dtype == "datetime64[s]"
    assert [int((states.split == s).sum()) for s in (0, 1, 2, -1)] == [240, 36, 60, 8]
    assert (np.diff(states.times) == np.timedelta64(6, "h")).all()
    assert states.complete.all() and not states.missing.any() and states.grid == default_grid()
    assert states.gaps.size == 0 and states.missing.shape == (16, 32)
    starts = np.flatnonzero((states.split == 0) & (np.roll(states.split, 1) != 0))
    assert starts.tolist() == [0, 116, 232]
    assert len({wave.speed for wave in states.waves}) == 3
    for first in starts:
        z = np.stack([states.read(first + i)[0][0, 1] for i in range(80)])
        error = np.sqrt(np.mean((z[4:] - z[:-4]) ** 2))
        assert error > 0.35 * np.sqrt(z.var(0).mean()) and error > 250  # persistence, m2/s2
    np.testing.assert_array_equal(states.read(np.int64(117))[0], states.at(1, 6)[0])


def test_a_seed_gives_one_atmosphere_and_another_seed_another():
    one, two, other = WaveStates(), WaveStates(), WaveStates(seed=1)
    np.testing.assert_array_equal(one.read(200)[0], two.read(200)[0])
    assert np.abs(one.read(200)[0][0] - other.read(200)[0][0]).max() > 100
    np.testing.assert_array_equal(WaveStates(series=1).read(5)[1], WaveStates(series=4).read(5)[1])


def test_constants_are_smooth_land_and_hills():
    states = WaveStates(replace(default_grid(), constants=("orog", "lsm")))
    hills, land = states.constants()
    assert land.dtype == np.float32 and 0 <= land.min() and land.max() <= 1
    assert 0.15 < land.mean() < 0.5 and (hills[land <= 0.5] == 0).all()
    assert 500 < hills.max() < 2000
    assert WaveStates(replace(default_grid(), constants=())).constants().shape == (0, 16, 32)


def test_netcdf_holds_the_states(tmp_path):
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("h5netcdf")
    states = WaveStates()
    path = waves.write_netcdf(tmp_path / "waves.nc", states, [3, 4, 9])
    with xarray.open_dataset(path, engine="h5netcdf") as held:
        assert held.z.dims == ("time", "level", "lat", "lon") and held.z.dtype == np.float32
        assert held.level.values.tolist() == [850, 500] and held.level.units == "hPa"
        assert held.lsm.dims == ("lat", "lon") and held.msl.units == "Pa"
        np.testing.assert_array_equal(held.time.values, states.times[[3, 4, 9]])
        np.testing.assert_array_equal(held.lat.values, states.grid.latitudes)
        upper, surface = states.read(9)
        np.testing.assert_array_equal(held.t.values[2], upper[2])
        np.testing.assert_array_equal(held.t2m.values[2], surface[3])
        np.testing.assert_array_equal(held.lsm.values, states.constants()[0])


def test_what_cannot_be_made_is_refused(tmp_path):
    grid = default_grid()
    for bad, words in (
        (replace(grid, upper=("z", "w")), "no upper field 'w'; take some of z, q, t, u, v"),
        (replace(grid, surface=("sst",)), "no surface field 'sst'"),
        (replace(grid, constants=("soil",)), "no constants field 'soil'"),
        (replace(grid, levels=(850, 0)), "20 to 1100 hPa"),
        (replace(grid, latitudes=(95.0, 0.0)), "-90..90"),
        (Grid(), "got a grid of \\(0, 0\\)"),
        (replace(grid, step=5), "divide a day, got 5 h"),
    ):
        with pytest.raises(ValueError, match=words):
            WaveStates(bad)
    with pytest.raises(ValueError, match="at least 1 series, got 0"):
        WaveStates(series=0)
    states = WaveStates(series=1)
    for index in (-1, len(states)):
        with pytest.raises(ValueError, match=f"states 0 to 111, not {index}"):
            states.read(index)
    with pytest.raises(ValueError, match="series 0 to 0, not 1"):
        states.at(1, 0)
    with pytest.raises(ValueError, match="no state to write"):
        waves.write_netcdf(tmp_path / "x.nc", states, [])
