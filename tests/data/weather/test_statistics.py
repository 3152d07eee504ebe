"""Mean and spread of fields against plain numpy, in any order and any division of the states."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from held_states import GRID, Held, weather
from hypothesis import given, settings
from hypothesis import strategies as st

from tenfold.data.weather.reader import open_states
from tenfold.data.weather.statistics import Moments, Statistics, moments, statistics

REAL = Path(os.environ.get("TENFOLD_DATA", "no-data")) / "pangu_atmos" / "gcm_t21_6h.nc"


def flat(statistics: Statistics) -> np.ndarray:
    return np.array(list(statistics.by_field().values()))


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_statistics_are_numpys(missing):
    values = weather(9, missing=missing)
    found = statistics(Held(values), range(9))
    wide = values.astype("f8")
    expected = [np.nanmean(wide, axis=(0, 2, 3)), np.nanstd(wide, axis=(0, 2, 3))]
    np.testing.assert_allclose(flat(found).T, expected, rtol=1e-6)
    assert found.mean_upper.shape == found.std_upper.shape == (2, 2)
    assert found.mean_surface.shape == found.std_surface.shape == (1,)
    assert found.std_upper.dtype == found.mean_surface.dtype == np.float32
    assert found.count == 9
    assert found.by_field()["t", 500] == (found.mean_upper[1, 1], found.std_upper[1, 1])
    assert list(found.by_field()) == [("z", 850), ("z", 500), ("t", 850), ("t", 500), ("msl", None)]


def test_a_small_spread_on_a_large_mean_is_not_lost():
    """Where sums of squares in single precision, or of raw values, would give nonsense."""
    values = np.full((50, 5, 3, 4), 1e5, "f4")
    values += np.random.default_rng(0).integers(0, 2, values.shape).astype("f4")
    found = statistics(Held(values), range(50))
    np.testing.assert_allclose(
        flat(found)[:, 1], values.astype("f8").std(axis=(0, 2, 3)), rtol=1e-5
    )


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 9), st.integers(0, 8), st.sampled_from([0.0, 0.4, 0.95]), st.integers(0, 99))
def test_two_parts_merged_are_the_whole_in_any_order(times, cut, missing, seed):
    cut = min(cut, times - 1)
    held = Held(weather(times, seed, missing))
    order = np.random.default_rng(seed).permutation(times)
    whole = moments(held, range(times))
    parts = moments(held, order[cut:])
    if cut:
        parts = moments(held, order[:cut]).merge(parts)
    assert parts.states == whole.states == times
    np.testing.assert_array_equal(parts.points, whole.points)
    np.testing.assert_allclose(parts.mean, whole.mean, rtol=1e-12)
    np.testing.assert_allclose(parts.squares, whole.squares, rtol=1e-9)


@pytest.mark.parametrize("workers", [2, 3, 8])
def test_workers_do_not_change_a_bit(workers):
    held = Held(weather(7, missing=0.1))
    few, many = moments(held, range(7)), moments(held, range(7), workers=workers)
    np.testing.assert_array_equal(few.mean, many.mean)
    np.testing.assert_array_equal(few.squares, many.squares)
    assert sorted(held.reads) == sorted([*range(7), *range(7)])  # one pass each


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_ends_the_pass_soon(workers):
    held = Held(weather(40))
    held.values[3, 0, 0, 0] = np.inf
    with pytest.raises(ValueError, match="state 3 has infinite values in z850"):
        moments(held, range(40), workers)
    assert len(held.reads) <= 4 + workers


def test_moments_of_nothing_merge_as_nothing():
    empty = Moments(1, np.zeros(2, np.int64), np.zeros(2), np.zeros(2))
    some = Moments(1, np.array([3, 4]), np.array([1.0, 2.0]), np.array([5.0, 6.0]))
    for merged in (empty.merge(some), some.merge(empty)):
        np.testing.assert_array_equal(merged.mean, some.mean)
        np.testing.assert_array_equal(merged.squares, some.squares)
    assert not empty.merge(empty).mean.any()


@pytest.mark.parametrize("value", [0.0, 273.15, np.nan])
def test_a_field_without_spread_is_named(value):
    values = weather(4)
    values[:, 3] = value
    what = "missing everywhere" if np.isnan(value) else f"{value:g}.* everywhere"
    with pytest.raises(ValueError, match=f"field t500 is {what} in 4 states .*Leave it out"):
        statistics(Held(values), range(4))


def test_rounding_is_no_spread():
    values = weather(4)
    values[:, 4] = 1e5
    values[::2, 4] = np.nextafter(np.float32(1e5), np.float32(2e5))
    with pytest.raises(ValueError, match="field msl is 100000 everywhere"):
        statistics(Held(values), range(4))


def test_what_statistics_refuse():
    held = Held(weather(4))
    for indices in ([], [0, 0], [-1, 2]):
        with pytest.raises(ValueError, match="at least one, from 0 up, none of them twice"):
            statistics(held, indices)
    with pytest.raises(ValueError, match="workers is 0"):
        statistics(held, [0], workers=0)
    held.values[2, 4, 1, 1] = np.inf
    with pytest.raises(ValueError, match="state 2 has infinite values in msl"):
        statistics(held, range(4))
    with pytest.raises(ValueError, match=r"state 0 has shapes .*\(2, 2, 3, 4\) .*\(2, 3, 4\)"):
        statistics(Held(weather(2), replace(GRID, surface=("msl", "t2m"))), [0])


def test_json_gives_the_same_bits_back():
    found = statistics(Held(weather(5)), range(5))
    again = Statistics.from_json(found.to_json(), GRID)
    for name in ("mean_upper", "std_upper", "mean_surface", "std_surface"):
        np.testing.assert_array_equal(getattr(again, name), getattr(found, name))
        assert getattr(again, name).dtype == np.float32
    assert again.count == 5 and again.levels == (850, 500)


def test_fields_of_another_order_of_levels_find_their_place():
    """The official graph keeps its levels from 50 to 1000 hPa (zhaoshan2/pangu-pytorch)."""
    found = statistics(Held(weather(5)), range(5))
    backwards = dict(reversed(found.by_field().items()))
    again = Statistics.from_fields(backwards, GRID, 5)
    np.testing.assert_array_equal(again.mean_upper, found.mean_upper)
    turned = Statistics.from_fields(backwards, replace(GRID, levels=(500, 850)))
    np.testing.assert_array_equal(turned.std_upper, found.std_upper[:, ::-1])


def test_fields_of_another_grid_are_named():
    text = statistics(Held(weather(5)), range(5)).to_json()
    with pytest.raises(ValueError, match=r"s.json: .*Missing: t2m; not in the grid: msl\."):
        Statistics.from_json(text, replace(GRID, surface=("t2m",)), "s.json")
    with pytest.raises(ValueError, match=r"Missing: z at 700 hPa, t at 700 hPa; not in .*: none"):
        Statistics.from_json(text, replace(GRID, levels=(850, 700, 500)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.update(format="x"), "format 'x'"),
        (lambda c: c.update(count=True), "count True"),
        (lambda c: c.update(count=-1), "count -1"),
        (lambda c: c.pop("fields"), "KeyError"),
        (lambda c: c.update(fields=3), "TypeError"),
        (lambda c: c["fields"].append(c["fields"][0]), "z at 850 hPa comes twice"),
        (lambda c: c["fields"][1].update(mean=True), "types of"),
        (lambda c: c["fields"][1].update(mean="5"), "types of"),
        (lambda c: c["fields"][1].update(level=True), "types of"),
        (lambda c: c["fields"][1].update(level=[1]), "types of"),
        (lambda c: c["fields"][1].update(name={}), "types of"),
        (lambda c: c["fields"][1].update(mean=10**400), "OverflowError"),
        (lambda c: c["fields"][1].update(mean=float("nan")), "z at 500 hPa has mean nan"),
        (lambda c: c["fields"][1].update(mean=1e300), "z at 500 hPa has mean inf"),
        (lambda c: c["fields"][1].update(std=float("inf")), "standard deviation inf"),
        (lambda c: c["fields"][4].update(std=0), "msl has mean .* standard deviation 0"),
        (lambda c: c["fields"][4].update(std=1e-60), "msl has mean .* standard deviation 0"),
        (lambda c: c["fields"][4].update(std=-1.0), "the second above 0"),
    ],
)
def test_bad_json(change, words):
    content = json.loads(statistics(Held(weather(5)), range(5)).to_json())
    change(content)
    with pytest.raises(ValueError, match=f"s.json.*{words}"):
        Statistics.from_json(json.dumps(content), GRID, "s.json")


@pytest.mark.parametrize("text", ["", "[]", "null", "{", "[" * 100_000, " " * 5_000_000])
def test_no_json_at_all(text):
    with pytest.raises(ValueError, match="s.json does not hold tenfold's weather statistics"):
        Statistics.from_json(text, GRID, "s.json")


@pytest.mark.skipif(not REAL.exists(), reason="pangu_atmos not found in TENFOLD_DATA")
def test_real_file_has_numpys_statistics():
    """Of its training states."""
    pytest.importorskip("xarray")
    states = open_states(REAL, upper=("z",), levels=(500,), surface=("t2m",))
    train = np.flatnonzero(states.split == 0)[::4]
    read = [states.read(int(i)) for i in train]
    fields = np.stack([np.stack([upper[0, 0], surface[0]]) for upper, surface in read]).astype("f8")
    expected = [fields.mean(axis=(0, 2, 3)), fields.std(axis=(0, 2, 3))]
    np.testing.assert_allclose(flat(statistics(states, train, workers=2)).T, expected, rtol=1e-5)
