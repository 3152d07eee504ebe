"""The tracker on storms of known tracks: packed pressure, neighbours, storms that die."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest

from tenfold.metrics.weather import great_circle_km
from tenfold.systems.pangu.config import Thresholds
from tenfold.systems.pangu.cyclone import Tracker, track
from tenfold.systems.pangu.following import Trail, assigned, continued
from tenfold.systems.pangu.lows import minima
from tenfold.systems.pangu.storms import per_step

LAT, LON = np.arange(50.0, -0.5, -1.0), np.arange(100.0, 200.0, 1.0)


@dataclass(frozen=True)
class Storm:
    """A Gaussian low that goes straight on, with its wind."""

    lat: float
    lon: float
    dlat: float = 0.0
    dlon: float = 0.0
    depth: float = 3000.0
    """Pa below the surroundings."""
    radius: float = 200.0
    wind: float = 25.0
    life: float = math.inf
    """States until its depth is 0."""

    def at(self, step: int) -> tuple[float, float]:
        return self.lat + self.dlat * step, self.lon + self.dlon * step


def fields(
    storms: Sequence[Storm], steps: int, lat: np.ndarray = LAT, lon: np.ndarray = LON
) -> dict[str, np.ndarray]:
    """msl, u, v, u10, v10 of storms, float64."""
    shape = (steps, len(lat), len(lon))
    msl, u, v = np.full(shape, 101300.0), np.zeros(shape), np.zeros(shape)
    for step in range(steps):
        for storm in storms:
            y, x = storm.at(step)
            share = max(0.0, 1 - step / storm.life)
            far = great_circle_km(y, x, lat[:, None], lon[None])
            msl[step] -= share * storm.depth * np.exp(-((far / storm.radius) ** 2) / 2)
            near = far / storm.radius
            wind = share * storm.wind * near * np.exp(0.5 * (1 - near**2))
            east = ((lon[None] - x + 180) % 360 - 180) * np.cos(np.radians(lat[:, None]))
            north = lat[:, None] - y
            away = np.maximum(np.hypot(east, north), 1e-6)
            turn = -1 if y >= 0 else 1
            u[step] += turn * wind * north / away
            v[step] -= turn * wind * east / away
    return {"msl": msl, "u": u, "v": v, "u10": u, "v10": v}


def errors(
    storm: Storm,
    states: dict[str, np.ndarray],
    every: int = 6,
    lat: np.ndarray = LAT,
    lon: np.ndarray = LON,
    land: np.ndarray | None = None,
    limits: Thresholds | None = None,
) -> tuple[dict[int, float], str]:
    """Step -> km from where the storm is; why the track ended."""
    tracker = Tracker(lat, lon, storm.at(0), per_step(limits or Thresholds(), every), False)
    hours = [float(every * k) for k in range(len(states["msl"]))]
    found = track(tracker, hours, states, land)
    steps = {round(p.hour / every): p for p in found}
    return {
        step: float(great_circle_km(p.lat, p.lon, *storm.at(step))) for step, p in steps.items()
    }, tracker.ended


def packed(states: dict[str, np.ndarray], unit: float) -> dict[str, np.ndarray]:
    return {**states, "msl": np.round(states["msl"] / unit) * unit}


def test_sixty_storms_are_kept_to_the_end_whatever_the_packing() -> None:
    """At 0.01, 0.185, 1 and 10 Pa; equal lowest points lost 23 of 60 once."""
    draw = np.random.default_rng(5)
    kept = dict.fromkeys((0.01, 0.185, 1.0, 10.0), 0)
    for _ in range(60):
        storm = Storm(
            *draw.uniform((12, 135), (28, 165)),
            *draw.uniform((-0.6, -1.6), (1.2, 1.6)),
            depth=draw.uniform(800, 5000),
            radius=draw.uniform(180, 500),
            wind=draw.uniform(20, 45),
        )
        # whole and half degrees: the lowest point lies between two or four of the grid
        storm = replace(storm, lat=round(2 * storm.lat) / 2, lon=round(2 * storm.lon) / 2)
        lat, lon = (
            axis[np.abs(axis - middle) < 16]
            for axis, middle in zip((LAT, LON), storm.at(3), strict=True)
        )
        states = fields([storm], 6, lat, lon)
        for unit in kept:
            far, ended = errors(storm, packed(states, unit), lat=lat, lon=lon)
            kept[unit] += len(far) == 6 and max(far.values()) < 120 and not ended
    assert min(kept.values()) >= 57, kept


@pytest.mark.parametrize("every, speed", [(6, 1.2), (24, 7.5)])
@pytest.mark.parametrize("other", [(0.0, 8.5), (0.0, -8.5), (6.0, 2.0), (-5.0, -5.0)])
def test_two_storms_that_go_the_same_way_do_not_swap(every, speed, other) -> None:
    """At 24 h one of them is then where the other was."""
    storm = Storm(22.2, 150.3, 0.3, -speed)
    states = fields([storm, replace(storm, lat=22.2 + other[0], lon=150.3 + other[1])], 5)
    far, ended = errors(storm, states, every)
    assert len(far) == 5 and max(far.values()) < 120 and not ended


@pytest.mark.parametrize("every", [6, 24])
def test_storms_that_pass_each_other_do_not_swap(every) -> None:
    """For three states their pressures have one lowest point."""
    storm = Storm(20.3, 165.2, 0.3, 1.1)
    states = fields([storm, Storm(20.3, 169.2, -0.2, -1.0)], 10)
    far, ended = errors(storm, states, every)
    assert len(far) == 10 and max(far[k] for k in range(5, 10)) < 120 and not ended


@pytest.mark.parametrize("every", [6, 24])
@pytest.mark.parametrize("away", [(0.0, 7.0), (0.0, -9.0), (6.0, 3.0)])
def test_a_dying_storm_is_not_taken_for_its_neighbour(every, away) -> None:
    storm = Storm(20.2, 150.3, 0.5, 1.0, life=4)
    states = fields([storm, Storm(20.2 + away[0], 150.3 + away[1], 0.5, 1.0)], 9)
    far, ended = errors(storm, states, every)
    assert max(far) in (2, 3) and max(far.values()) < 150
    assert "no minimum that is a storm" in ended


def test_one_state_without_the_storm_is_passed_over_and_two_end_it() -> None:
    storm = Storm(20.2, 150.3, 0.5, 2.0)
    whole = fields([storm], 7)
    for gone, kept in (((3,), {0, 1, 2, 4, 5, 6}), ((3, 4), {0, 1, 2})):
        states = {name: field.copy() for name, field in whole.items()}
        for step in gone:
            states["msl"][step] = 101300.0
        far, ended = errors(storm, states)
        assert set(far) == kept and bool(ended) == (len(gone) == 2)
    far, _ = errors(storm, states, limits=Thresholds(unseen=2))
    assert set(far) == {0, 1, 2, 5, 6}


def test_a_storm_dies_over_land_where_its_wind_does() -> None:
    """Pressure and rotation alone would keep it; over the sea they do."""
    storm = Storm(20.2, 150.3, 0.2, 1.0)
    states = fields([storm], 8)
    for wind in ("u10", "v10"):
        states[wind] = states[wind] * np.array([1, 1, 1, 0.2, 0.2, 0.2, 0.2, 0.2])[:, None, None]
    land = np.repeat((LON > 152.5)[None], len(LAT), 0).astype(float)
    far, ended = errors(storm, states, land=land)
    assert set(far) == {0, 1, 2}
    assert "over land a wind of 5 m/s, needed is above 8" in ended
    assert set(errors(storm, states)[0]) == set(range(8))


def test_a_storm_that_leaves_a_region() -> None:
    storm = Storm(22.2, 190.3, 0.0, 2.5)
    far, ended = errors(storm, fields([storm], 8))
    assert set(far) == {0, 1, 2, 3} and ended


@pytest.mark.parametrize("periodic", [False, True])
def test_equal_lowest_points_are_one_minimum(periodic: bool) -> None:
    """Their middle; flats that touch something lower, missing or unknown are none."""
    field = np.full((9, 12), 5.0)
    field[2, 3:6] = 1.0
    field[5, 8], field[6, 9] = 0.0, 0.0  # a diagonal is one
    assert np.argwhere(minima(field, periodic)).tolist() == [[2, 4], [5, 8]]
    field[3, 2] = np.nan
    field[6, 10] = -1.0
    assert np.argwhere(minima(field, periodic)).tolist() == [[6, 10]]
    assert not minima(np.ones((6, 7)), periodic).any()


def test_a_flat_over_the_seam_is_one_minimum() -> None:
    field = np.full((7, 10), 5.0)
    field[3, [8, 9, 0, 1, 2]] = field[4, 0] = 1.0
    assert np.argwhere(minima(field)).tolist() == [[3, 0]]
    assert not minima(field, periodic=False).any()


def test_motion_along_a_great_circle() -> None:
    assert continued((0.0, 179.0), (0.0, -179.0), 0.5) == pytest.approx((0.0, -178.0))
    assert continued((10.0, 20.0), (10.0, 20.0), 1.0) == (10.0, 20.0)
    over = continued((80.0, 0.0), (88.0, 0.0), 1.0)
    assert over[0] == pytest.approx(84.0) and abs(over[1]) == pytest.approx(180.0)
    trail = Trail()
    assert trail.expected(6.0) is None and trail.moved_km(6.0) is None
    for hour in range(9):
        trail.see(float(hour), (0.0, 0.1 * hour + (0.3 if hour == 8 else 0.0)))
    assert trail.places[0][0] == 2.0  # motion over six hours, not over one
    assert trail.expected(9.0) == pytest.approx((0.0, 1.1 + 0.15))


def test_storms_are_shared_out_by_least_squares() -> None:
    found = [(0.0, 7.0), (0.0, 14.0)]
    assert assigned([(0.0, 0.0), (0.0, 7.0)], [2000.0, 2000.0], found) == [0, 1]
    assert assigned([(0.0, 0.0), (0.0, 7.0)], [500.0, 2000.0], found) == [None, 0]
    assert assigned([(0.0, 0.0)], [500.0], []) == [None]
