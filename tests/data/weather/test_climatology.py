"""The climatology against plain numpy, beyond its record, and in files."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from held_states import GRID, Held, weather
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from tenfold.data.weather import climatology
from tenfold.data.weather.climatology import Climatology, default_harmonics, fit_climatology
from tenfold.data.weather.grid import Grid

REAL = Path(os.environ.get("TENFOLD_DATA", "no-data")) / "pangu_atmos" / "gcm_t21_6h.nc"


def seasonal(times: np.ndarray, amplitude: float, noise: float, seed: int = 0) -> np.ndarray:
    """An annual cycle with the phase of each point's own, plus weather."""
    random = np.random.default_rng(seed)
    phase = random.uniform(0, 2 * np.pi, (5, *GRID.shape))
    days = (times - np.datetime64("2000-01-01T00", "s")) / np.timedelta64(86400, "s")
    turns = 2 * np.pi * days[:, None, None, None] / 365.2425
    clean = 280 + amplitude * np.cos(turns + phase)
    return (clean + noise * random.normal(size=clean.shape)).astype("f4")


def held_for(days: int, amplitude: float, noise: float, step: float = 24.0, seed: int = 0) -> Held:
    held = Held(np.empty((int(days * 24 / step), 5, *GRID.shape), "f4"), step=step)
    held.values = seasonal(held.times, amplitude, noise, seed)
    return held


def state(climatology: Climatology, time: np.datetime64) -> np.ndarray:
    upper, surface = climatology.at(time)
    assert upper.dtype == surface.dtype == np.float32
    return np.concatenate([upper.reshape(-1, *surface.shape[1:]), surface])


def error(climatology: Climatology, held: Held, indices: range) -> float:
    apart = [state(climatology, held.times[i]) - held.values[i].astype("f8") for i in indices]
    return float(np.sqrt(np.mean(np.square(apart))))


def oracle(held: Held, indices: np.ndarray, harmonics: int, diurnal: int) -> np.ndarray:
    """Ridge as ordinary least squares with extra rows, about the mean, at once for all points."""
    columns = []
    days = (held.times[indices] - np.datetime64("2000-01-01", "s")) / np.timedelta64(86400, "s")
    for turns, number in ((days / 365.2425, harmonics), (days, diurnal)):
        for k in range(1, number + 1):
            wave = np.exp(2j * np.pi * k * turns)
            columns += [(k, wave.real), (k, wave.imag)]
    x = np.stack([column for _, column in columns], 1)
    y = held.values[indices].reshape(len(indices), -1).astype("f8")
    weight = np.sqrt(climatology.PRIOR_DAYS * 24 / held.step)
    small = np.sqrt(climatology.SOLVABLE)
    extra = np.diag([weight * k for k, _ in columns[: 2 * harmonics]] + [small] * 2 * diurnal)
    tall = np.concatenate([x - x.mean(0), extra])
    right = np.concatenate([y - y.mean(0), np.zeros((len(extra), y.shape[1]))])
    slopes = np.linalg.lstsq(tall, right, rcond=None)[0]
    both = np.concatenate([(y.mean(0) - x.mean(0) @ slopes)[None], slopes])
    return both.reshape(-1, 5, *GRID.shape)


@pytest.mark.parametrize(("harmonics", "diurnal"), [(1, 0), (3, 1), (0, 1), (2, 0)])
def test_climatology_is_numpys_least_squares(harmonics, diurnal):
    held = held_for(200, 12.0, 3.0, step=6.0)
    found = fit_climatology(held, range(800), harmonics, diurnal)
    expected = oracle(held, np.arange(800), harmonics, diurnal)
    size = 1 + 2 * (harmonics + diurnal)
    upper = found.upper.reshape(size, 4, *GRID.shape)
    np.testing.assert_allclose(upper, expected[:, :4], rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(found.surface, expected[:, 4:], rtol=1e-5, atol=1e-4)
    assert held.reads == list(range(800))  # one pass


def test_only_the_mean():
    held = Held(weather(6))
    found = fit_climatology(held, range(6), 0)
    np.testing.assert_allclose(state(found, held.times[0]), held.values.mean(0), rtol=1e-6)


def test_two_years_are_followed_and_the_ridge_is_hardly_felt():
    held = held_for(730, 12.0, 0.0)
    assert error(fit_climatology(held, range(730), 3), held, range(730)) < 0.12
    later = replace_first(held, "2010-01-01T00")
    assert error(fit_climatology(held, range(730), 3), later, range(730)) < 0.2


def replace_first(held: Held, first: str) -> Held:
    other = Held(held.values, step=held.step, first=first)
    other.values = seasonal(other.times, 12.0, 0.0)
    return other


def test_the_time_of_day():
    held = Held(np.empty((240, 5, *GRID.shape), "f4"))
    hours = np.arange(240) * 6.0
    held.values[:] = (280 + 5 * np.cos(2 * np.pi * (hours - 15) / 24))[:, None, None, None]
    found = fit_climatology(held, range(240), 0, 1)
    for hour, expected in ((15, 285.0), (3, 275.0), (21, 280.0)):
        time = np.datetime64("2003-07-05T00", "s") + np.timedelta64(hour, "h")
        np.testing.assert_allclose(state(found, time), expected, atol=1e-3)


@pytest.mark.parametrize("noise", [0.0, 3.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_beyond_a_short_record_it_is_small_and_not_worse_than_the_mean(noise, seed):
    """160 days of 6-hourly states, the last fifth is held out; amplitude 12."""
    held = held_for(160, 12.0, noise, step=6.0, seed=seed)
    seen, later = range(512), range(512, 640)
    plain = error(fit_climatology(held, seen, 0), held, later)
    fitted = error(fit_climatology(held, seen, 1), held, later)
    assert plain > 8.0 and fitted < plain
    assert np.sqrt(fitted**2 - noise**2) < 0.25 * np.sqrt(plain**2 - noise**2)


def test_beyond_a_short_record_weather_does_not_explode():
    """Slow weather without any season: without the ridge it would be continued as season."""
    ratios = []
    for seed in range(4):
        random = np.random.default_rng(seed)
        held = Held(np.empty((640, 5, *GRID.shape), "f4"))
        now = random.normal(size=(5, *GRID.shape))
        for i in range(640):  # lasts about 5 days
            now = 0.95 * now + np.sqrt(1 - 0.95**2) * random.normal(size=now.shape)
            held.values[i] = 280 + now
        far = [error(fit_climatology(held, range(512), n), held, range(512, 640)) for n in (0, 1)]
        free = np.linalg.lstsq(
            climatology._basis(held.times[:512], 1, 0),
            held.values[:512].reshape(512, -1).astype("f8"),
            rcond=None,
        )[0]
        there = climatology._basis(held.times[512:], 1, 0) @ free
        apart = there.reshape(128, 5, *GRID.shape) - held.values[512:]
        ratios.append((far[1] / far[0], float(np.sqrt(np.mean(apart**2))) / far[0]))
    ridge, none = np.mean(ratios, axis=0)
    assert ridge < 1.3 and none - 1 > 1.7 * (ridge - 1)


@settings(deadline=None, max_examples=15)
@given(st.permutations(range(12)), st.integers(0, 2))
def test_the_order_of_the_states_does_not_matter(order, harmonics):
    held = Held(weather(12))
    one, other = (fit_climatology(held, which, harmonics) for which in (range(12), order))
    np.testing.assert_array_equal(one.upper, other.upper)
    np.testing.assert_array_equal(one.surface, other.surface)


def test_missing_points_and_missing_fields():
    """A corner that is never there, one point missing once, and a field missing at two times."""
    held = held_for(60, 12.0, 1.0)
    held.values[:, :, 0, 0] = np.nan
    held.values[5, 2, 1, 1] = np.nan
    held.values[[7, 9], 3] = np.nan
    found = state(fit_climatology(held, range(60), 1), np.datetime64("2000-02-01"))
    expected = np.zeros((5, *GRID.shape), bool)
    expected[:, 0, 0] = True
    expected[2, 1, 1] = True
    np.testing.assert_array_equal(np.isnan(found), expected)
    rest = np.setdiff1d(np.arange(60), [7, 9])
    without = type("Dated", (Held,), {"times": held.times[rest]})(held.values[rest], step=24.0)
    alone = state(fit_climatology(without, range(58), 1), np.datetime64("2000-02-01"))
    np.testing.assert_array_equal(found[3], alone[3])


def test_what_a_climatology_refuses():
    held = held_for(10, 12.0, 1.0, step=6.0)
    for indices, harmonics, diurnal, words in (
        (range(4), 2, 0, "climatology of 5 coefficients was asked of 4 states"),
        (range(40), 0, 2, "2 diurnal harmonics need 5 different hours .* have 4. Ask .* most 1"),
        (range(0, 40, 4), 0, 1, "need 3 different hours of the day, the states have 1"),
        (range(40), -1, 0, "-1 annual and 0 diurnal"),
        ([39, 40], 0, 0, "index 40 is asked for, but 40 states exist"),
    ):
        with pytest.raises(ValueError, match=words):
            fit_climatology(held, indices, harmonics, diurnal)
    with pytest.raises(ValueError, match="time NaT"):
        fit_climatology(held, range(40), 1).at(np.datetime64("NaT"))
    held.values[:38, 4] = np.nan
    with pytest.raises(ValueError, match="field msl is there in 2 states, .* 3 coefficients"):
        fit_climatology(held, range(40), 1)
    held.values[:, 4] = 1.0
    held.values[3, 1, :2] = np.nan
    with pytest.raises(ValueError, match="field z500 has 67% of its points missing .* 50%"):
        fit_climatology(held, range(40), 1)


def test_undated_states():
    nat = type("Undated", (Held,), {"times": np.array(["NaT"] * 4, "datetime64[s]")})
    with pytest.raises(ValueError, match="states have the time NaT"):
        fit_climatology(nat(weather(4)), range(4), 0)


def test_default_harmonics_follow_the_span():
    day = np.datetime64("2000-01-01T00", "s")
    for days, expected in ((0, 1), (160, 1), (547, 1), (548, 3), (4000, 3)):
        times = day + np.array([days, 0]).astype("timedelta64[D]")
        assert default_harmonics(times) == expected
    for times in (np.array([], "datetime64[s]"), np.array([day, "NaT"], "datetime64[s]")):
        with pytest.raises(ValueError, match="give dated states"):
            default_harmonics(times)


def test_a_saved_climatology_is_the_same(tmp_path):
    file = tmp_path / "new" / "c.safetensors"
    held = held_for(40, 12.0, 1.0, step=6.0)
    held.values[:, :, 0, 0] = np.nan
    made = fit_climatology(held, range(160), 1, 1)
    made.save(file)
    first = file.read_bytes()
    again = Climatology.load(file, GRID)
    time = np.datetime64("2001-06-07T12:30")
    np.testing.assert_array_equal(state(again, time), state(made, time))
    assert (again.harmonics, again.diurnal) == (1, 1)
    again.save(file)
    assert file.read_bytes() == first and len(list(file.parent.iterdir())) == 1


def test_a_climatology_without_upper_fields(tmp_path):
    grid = replace(GRID, upper=(), levels=())
    held = Held(weather(6)[:, 4:], grid)
    fit_climatology(held, range(6), 1).save(tmp_path / "c")
    upper, surface = Climatology.load(tmp_path / "c", grid).at(np.datetime64("2000-01-02"))
    assert upper.shape == (0, 0, 3, 4) and surface.shape == (1, 3, 4)


def test_another_grid_and_damaged_climatologies(tmp_path):
    file = tmp_path / "c.safetensors"
    fit_climatology(Held(weather(6)), range(6), 1).save(file)
    with pytest.raises(FileNotFoundError, match="no.safetensors does not exist"):
        Climatology.load(tmp_path / "no.safetensors", GRID)
    for changed, words in (
        ({"levels": (500, 850)}, r"its levels are \[850, 500\], .* data are \[500, 850\]"),
        ({"surface": ("t2m",)}, "its surface are"),
        ({"latitudes": (60.0, 0.0, -59.0)}, "its latitudes are"),
        ({"longitudes": (0.0, 90.0)}, "its longitudes are"),
    ):
        with pytest.raises(ValueError, match=f"c.safetensors: {words}"):
            Climatology.load(file, replace(GRID, **changed))
    whole = file.read_bytes()
    for bad in (whole[:-5], b"", whole[:50], b"\xff" * 99):
        file.write_bytes(bad)
        with pytest.raises(ValueError, match="c.safetensors is not a readable climatology"):
            Climatology.load(file, GRID)
    file.write_bytes(whole)
    arrays = load_file(file)
    good = {"harmonics": 1, "diurnal": 0, "grid": vars_of(GRID)}
    for header, tensors in (
        (None, arrays),
        ("[]", arrays),
        (json.dumps({**good, "harmonics": 2}), arrays),
        (json.dumps({**good, "harmonics": 2, "diurnal": -1}), arrays),
        (json.dumps({**good, "harmonics": True}), arrays),
        (json.dumps({**good, "grid": {"upper": 3}}), arrays),
        (json.dumps(good), {**arrays, "upper": arrays["upper"].astype("f8")}),
        (json.dumps(good), {"upper": arrays["upper"]}),
    ):
        save_file(tensors, file, None if header is None else {"climatology": header})
        with pytest.raises(ValueError, match="c.safetensors is not a readable climatology"):
            Climatology.load(file, GRID)
    save_file(arrays, file, {"climatology": json.dumps(good)})
    assert Climatology.load(file, GRID).harmonics == 1  # the header above is right but for one part


def vars_of(grid: Grid) -> dict[str, list]:
    names = ("upper", "levels", "surface", "latitudes", "longitudes")
    return {name: list(getattr(grid, name)) for name in names}


@pytest.fixture(scope="module")
def training() -> Held:
    """The training states of the simulation, all 29 fields: test blocks may choose nothing."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(REAL) as data:
        train = data["split"][()] == 0
        arrays = {name: array for name, array in data.items() if array.ndim == 3}
        fields = [
            array[()][train] * array.attrs["scale_factor"] + array.attrs["add_offset"]
            for array in arrays.values()
        ]
        hours = data["time"][()][train].astype("timedelta64[h]")
    grid = Grid((), (), tuple(arrays), (), tuple(np.arange(32.0)), tuple(np.arange(64.0)))
    times = np.datetime64("2001-01-09T06", "s") + hours
    assert len(times) == 448 and len(fields) == 29
    return type("Training", (Held,), {"times": times})(np.stack(fields, 1).astype("f4"), grid)


def beyond(held: Held, harmonics: int) -> np.ndarray:
    """RMSE of every field in the last fifth of the states of a fit to the others."""
    seen = int(0.8 * len(held.values))
    later = range(seen, len(held.values))
    found = fit_climatology(held, range(seen), harmonics)
    squares = [np.square(state(found, held.times[i]) - held.values[i]) for i in later]
    return np.sqrt(np.mean(squares, axis=(0, 2, 3), dtype="f8"))


@pytest.mark.skipif(not REAL.exists(), reason="pangu_atmos not found in TENFOLD_DATA")
def test_real_file_the_season_is_found_beyond_the_record_best_with_this_ridge(
    training, monkeypatch
):
    """The numbers in the docstring of `fit_climatology`, around the least one."""
    plain = beyond(training, 0)
    ratios = {}
    for days in (climatology.PRIOR_DAYS, 1.0, 5.0):
        monkeypatch.setattr(climatology, "PRIOR_DAYS", days)
        ratios[days] = beyond(training, 1) / plain
    means = {days: float(ratio.mean()) for days, ratio in ratios.items()}
    assert means == pytest.approx({2.0: 0.740, 1.0: 0.749, 5.0: 0.753}, abs=1e-3)
    names = training.grid.fields
    assert ratios[2][names.index("t2m")] < 0.5 and ratios[2][names.index("z500")] < 0.7
