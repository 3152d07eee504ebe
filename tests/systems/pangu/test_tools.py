"""Plans of calls, noise for ensembles, and the tracker of cyclones."""

from __future__ import annotations

import json
import math
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from golden.pangu_tools import storm_fields
from hypothesis import given, settings
from hypothesis import strategies as st

from tenfold.metrics.weather import Position, great_circle_km
from tenfold.systems.pangu import aggregation as plans
from tenfold.systems.pangu import tracks
from tenfold.systems.pangu.config import Thresholds
from tenfold.systems.pangu.cyclone import Tracker, cut_line, track
from tenfold.systems.pangu.lows import minima, vorticity
from tenfold.systems.pangu.noise import Noise, fractal, member_noise, perturbation

PAPER = (1, 3, 6, 24)


def test_chain_of_the_paper() -> None:
    assert plans.chain(56, PAPER) == (24, 24, 6, 1, 1)
    assert plans.chain(168, (6, 24)) == (24,) * 7
    assert len(plans.chain(168, (6,))) == 28


def brute(hours: int, models: list[int]) -> int | None:
    """Fewest calls, by looking at all sums of one call, of two, and so on."""
    sums, calls = {0}, 0
    while sums and hours not in sums:
        sums, calls = {s + m for s in sums for m in models if s + m <= hours}, calls + 1
    return calls if sums else None


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 60), st.lists(st.integers(1, 30), min_size=1, max_size=4))
def test_any_set_of_lead_times(hours: int, models: list[int]) -> None:
    least = brute(hours, models)
    if least is None:
        with pytest.raises(ValueError, match=f"makes {hours} h"):
            plans.chain(hours, models)
        return
    short, found = plans.chain(hours, models, shortest=True), plans.chain(hours, models)
    for calls in (short, found):
        assert sum(calls) == hours and set(calls) <= set(models)
    assert len(short) == least
    assert list(found) == sorted(found, reverse=True)
    if plans.nested(models) or plans.greedy(hours, models) is None:
        assert len(found) == least


def test_where_longest_first_fails() -> None:
    assert plans.greedy(30, (24, 10)) is None
    assert plans.chain(30, (24, 10)) == (10, 10, 10)
    assert "longest first fails" in plans.plan_text(30, (24, 10))
    assert plans.chain(30, (24, 10, 1)) == (24, 1, 1, 1, 1, 1, 1)
    assert plans.chain(30, (24, 10, 1), shortest=True) == (10, 10, 10)
    assert plans.chain(72, (24, 10)) == (24, 24, 24)


def test_hours_that_cannot_be_reached() -> None:
    with pytest.raises(ValueError, match="makes 31 h. Near by they reach 24, 30, 36, 42 h"):
        plans.chain(31, (24, 6))
    with pytest.raises(ValueError, match="makes 1 h"):
        plans.hourly(24, (24, 6))
    for hours, models in ((0, (6,)), (10**9, (1,)), (6, ()), (6, (0, 6)), (6, (-6,))):
        with pytest.raises(ValueError, match="give"):
            plans.chain(hours, models)
    with pytest.raises(ValueError, match="every <= hours"):
        plans.hourly(6, PAPER, every=7)


@pytest.mark.parametrize(
    ("hours", "models", "every"), [(72, PAPER, 1), (72, (24, 12, 6), 6), (60, (24, 10), 10)]
)
def test_outputs_come_from_states_that_exist(hours: int, models, every: int) -> None:
    calls = plans.hourly(hours, models, every)
    kept = {0}
    for call in calls:
        assert call.source in kept and call.hour == call.source + call.model
        kept.add(call.hour)
    assert [c.hour for c in calls if c.output] == list(range(every, hours + 1, every))
    assert all(c.model == max(m for m in models if c.hour % m == 0) for c in calls)


def test_states_that_are_only_sources() -> None:
    calls = plans.hourly(6, (1, 3), every=2)
    assert [(c.hour, c.model, c.source, c.output) for c in calls] == [
        (1, 1, 0, False), (2, 1, 1, True), (3, 3, 0, False), (4, 1, 3, True), (6, 3, 3, True),
    ]  # fmt: skip
    assert plans.hourly(34, (24, 10), every=34)[-1] == plans.Call(34, 10, 24)


def test_text() -> None:
    text = plans.plan_text(31, PAPER)
    assert "3 calls = 1 x 24 h + 1 x 6 h + 1 x 1 h (longest first)" in text
    assert text.splitlines()[-1].split() == ["3", "1", "h", "30", "h", "31", "h"]
    series = plans.plan_text(6, (3, 1), every=2)
    assert "2 of them only for other states" in series and series.count("not an output") == 2


def reference(shape, noise: Noise, drawn: list[np.ndarray]) -> np.ndarray:
    """Noise point by point, from the definition: gradients, fade, and two interpolations."""
    finest = [p * noise.lacunarity ** (noise.octaves - 1) for p in noise.period]
    whole = [math.ceil(n / f) * f for n, f in zip(shape, finest, strict=True)]
    whole[1] = shape[1] if noise.tileable else whole[1]
    total = np.zeros(shape)
    for octave, angle in enumerate(drawn):
        cells = [n - 1 for n in angle.shape]
        for i, j in np.ndindex(*shape):
            y, x = i * cells[0] / whole[0], j * cells[1] / whole[1]
            a, b = int(y), int(x)
            fy, fx = (6 * t**5 - 15 * t**4 + 10 * t**3 for t in (y - a, x - b))
            dots = [
                [math.cos(angle[p, q]) * (y - p) + math.sin(angle[p, q]) * (x - q)
                 for q in (b, b + 1)] for p in (a, a + 1)
            ]  # fmt: skip
            upper, lower = (d[0] * (1 - fx) + d[1] * fx for d in dots)
            value = upper * (1 - fy) + lower * fy
            total[i, j] += noise.persistence**octave * math.sqrt(2) * value
    return total


@pytest.mark.parametrize("tileable", [False, True])
@pytest.mark.parametrize("shape", [(24, 36), (25, 37), (13, 50)])
def test_noise_on_any_grid(shape, tileable: bool) -> None:
    noise = Noise(period=(3, 4), octaves=2, lacunarity=3, persistence=0.7, tileable=tileable)
    got = fractal(shape, noise, np.random.default_rng(5))[0]
    random, drawn = np.random.default_rng(5), []
    for rows, columns in noise.cells():
        angle = 2 * np.pi * random.random((rows + 1, columns + 1))
        if tileable:
            angle[:, -1] = angle[:, 0]
        drawn.append(angle)
    np.testing.assert_allclose(got, reference(shape, noise, drawn), atol=1e-10)


@pytest.mark.parametrize("columns", [96, 97])
def test_no_seam_at_the_date_line(columns: int) -> None:
    """The step over the seam is no larger than the others; without tiling it is a jump."""
    sizes = {}
    for tileable in (True, False):
        noise = Noise(period=(3, 4), tileable=tileable)
        field = fractal((24, columns), noise, np.random.default_rng(2), fields=20)
        seam = (field[..., 0] - field[..., -1]).abs().mean()
        sizes[tileable] = float(seam / field.diff(dim=-1).abs().mean())
    assert sizes[True] < 1.5 < 2 < sizes[False]


def test_generators() -> None:
    noise = Noise(period=(2, 4))
    made = [fractal((16, 32), noise, torch.Generator().manual_seed(1), 2) for _ in range(2)]
    assert torch.equal(made[0], made[1]) and made[0].shape == (2, 16, 32)
    assert not torch.equal(made[0][0], made[0][1])


def test_members() -> None:
    noise = Noise(period=(4, 4))
    got = perturbation((3, 16, 32), 5, seed=9, noise=noise)
    assert got.shape == (5, 3, 16, 32) and got.dtype == torch.float32
    assert (got[0] == 0).all() and all(m.abs().max() > 0 for m in got[1:])
    flat = got[1:].reshape(12, -1).double()
    apart = torch.corrcoef(flat) - torch.eye(12)
    assert apart.abs().max() < 0.6, "fields and members are independent"
    assert torch.equal(got[3], member_noise((3, 16, 32), 3, 9, noise))
    assert torch.equal(got, perturbation((3, 16, 32), 9, 9, noise)[:5])
    assert not torch.equal(got[1], perturbation((3, 16, 32), 2, 10, noise)[1])
    double = perturbation((3, 16, 32), 5, 9, replace(noise, amplitude=0.4))
    torch.testing.assert_close(double, 2 * got)


def test_noise_refused() -> None:
    with pytest.raises(ValueError, match="48 cells along latitude, the grid 32 points"):
        perturbation((1, 32, 64), 2, 0)
    for bad in ({"octaves": 0}, {"period": (0, 3)}, {"amplitude": math.nan}):
        with pytest.raises(ValueError, match="give"):
            member_noise((1, 64, 64), 1, 0, Noise(**bad))
    with pytest.raises(ValueError, match="1 or more"):
        perturbation((1, 64, 64), 0, 0)
    with pytest.raises(ValueError, match="negative"):
        member_noise((1, 64, 64), 1, -1)


GLOBE = (np.linspace(90, -90, 91), np.arange(0.0, 360, 2))
STORM = {"la0": 20.2, "lo0": 352.3, "dlat": 0.9, "dlon": 2.5, "T": 6, "decoy": False}


def states(lat: np.ndarray, lon: np.ndarray, storm: dict = STORM) -> list[dict[str, np.ndarray]]:
    found = []
    for k in range(storm["T"]):
        msl, u, v = storm_fields(lat, lon, k, storm)
        found.append({"msl": msl, "u": u, "v": v, "u10": u, "v10": v})
    return found


def follow(tracker: Tracker, given: list[dict]) -> list[Position | None]:
    return [tracker.step(6.0 * k, **state) for k, state in enumerate(given)]


def test_vorticity_of_a_turning_sphere() -> None:
    """u = w a cos(lat) turns like a solid body: vorticity 2 w sin(lat), both orders of latitude."""
    lat, lon = GLOBE
    u = np.repeat(10 * np.cos(np.radians(lat))[:, None], len(lon), axis=1)
    want = 2 * 10 / 6371e3 * np.sin(np.radians(lat))
    for order in (slice(None), slice(None, None, -1)):
        got = vorticity(u[order], 0 * u, lat[order], lon)
        np.testing.assert_allclose(got[1:-1, 0], want[order][1:-1], rtol=2e-2, atol=1e-9)
        assert (got[[0, -1]] == 0).all()


def test_vorticity_over_the_seam() -> None:
    """v = sin(lon): dv/dx has no edge on a globe, and one-sided differences in a region."""
    lat, lon = GLOBE
    v = np.repeat(np.sin(np.radians(lon))[None], len(lat), axis=0)
    got = vorticity(0 * v, v, lat, lon)[45]
    np.testing.assert_allclose(got, np.cos(np.radians(lon)) / 6371e3, atol=1e-9)
    part = slice(10, 40)
    here = vorticity(0 * v[:, part], v[:, part], lat, lon[part], periodic=False)[45]
    np.testing.assert_allclose(here[1:-1], got[part][1:-1], rtol=1e-9)


def test_minima() -> None:
    field = np.ones((5, 6))
    field[2, 0] = field[3, 3] = field[0, 2] = 0.0
    assert np.argwhere(minima(field)).tolist() == [[2, 0], [3, 3]]
    assert np.argwhere(minima(field, periodic=False)).tolist() == [[3, 3]]
    field[2, 4] = np.nan
    assert np.argwhere(minima(field)).tolist() == [[2, 0]]
    assert not minima(np.ones((4, 4))).any()


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("region", [False, True])
def test_track_is_the_same_on_any_grid(flip: bool, region: bool) -> None:
    """Over 0 E, on a globe and on a region whose longitudes are negative, either order of rows."""
    lat, lon = GLOBE
    whole = [(p.lat, p.lon % 360) for p in follow(Tracker(lat, lon, (20.2, 352.3)), states(*GLOBE))]
    lat = lat[::-1].copy() if flip else lat
    lon = np.arange(-30.0, 31, 2) if region else lon
    tracker = Tracker(lat, lon, (20.2, -7.7), periodic=not region)
    got = follow(tracker, states(lat, lon))
    assert [(p.lat, p.lon % 360) for p in got] == whole and not tracker.ended
    assert {p.lon < 0 for p in got} == ({True, False} if region else {False})


def test_rows_far_away_are_not_needed() -> None:
    """Only a band of rows is looked at; what lies elsewhere, NaN too, changes nothing."""
    given = states(*GLOBE)
    whole = follow(Tracker(*GLOBE, (20.2, 352.3)), given)
    for state in given:
        for field in state.values():
            field[60:] = np.nan
    assert follow(Tracker(*GLOBE, (20.2, 352.3)), given) == whole


def test_refined_position_is_nearer() -> None:
    given, errors = states(*GLOBE), {}
    for refine in (False, True):
        found = follow(Tracker(*GLOBE, (20.2, 352.3), Thresholds(refine=refine)), given)
        away = [
            float(great_circle_km(p.lat, p.lon, 20.2 + 0.9 * k, 352.3 + 2.5 * k))
            for k, p in enumerate(found)
        ]
        errors[refine] = np.mean(away)
    assert errors[True] < 0.5 * errors[False]
    assert all(0 <= p.lon < 360 for p in found)


def test_missing_wind_is_told() -> None:
    given = states(*GLOBE)
    given[2]["v"] = np.full_like(given[2]["v"], np.nan)
    given[3]["u"] = None
    land = np.ones_like(given[0]["msl"])
    given[4] |= {"u10": None, "land": land}
    got = follow(Tracker(*GLOBE, (20.2, 352.3)), given)
    assert [p.skipped for p in got] == [(), (), ("vorticity",), ("vorticity",), ("wind",), ()]
    assert math.isnan(got[2].vorticity) and got[2].wind > 8 and math.isnan(got[4].wind)


@pytest.mark.parametrize("missing", [1, 2, 3])
def test_missing_pressure(missing: int) -> None:
    """Up to two states: the search goes on, further out; a third ends it."""
    given = states(*GLOBE, STORM | {"dlon": 3.5, "dlat": 0.0})
    for k in range(2, 2 + missing):
        given[k]["msl"] = None if k == 2 else np.full_like(given[k]["msl"], np.nan)
    tracker = Tracker(*GLOBE, (20.2, 352.3))
    got = [p is not None for p in follow(tracker, given)]
    rest = STORM["T"] - 2 - missing
    assert got == [True, True, *[False] * missing, *[missing < 3] * rest]
    assert ("no pressure in 3 states" in tracker.ended) == (missing == 3)


def test_tests_of_a_storm() -> None:
    """Each threshold decides: turning wrongly or weakly, a breeze on land, no warm core."""
    lat, lon = GLOBE
    state = states(lat, lon)[0]

    def ends(limits: Thresholds | None = None, start=(20.2, 352.3), **changes) -> str:
        tracker = Tracker(lat, lon, start, limits)
        tracker.step(0.0, **(state | changes))
        return tracker.ended

    assert not ends()
    assert "no minimum" in ends(u=-state["u"], v=-state["v"])
    assert "no minimum" in ends(Thresholds(vorticity=1e-2))
    assert "no minimum" in ends(msl=np.full_like(state["msl"], 1e5))
    land, calm = np.ones_like(state["msl"]), {"u10": 0 * state["u"], "v10": 0 * state["v"]}
    assert not ends(land=land) and not ends(**calm) and "no minimum" in ends(land=land, **calm)
    flat = -great_circle_km(20.0, 352.0, lat[:, None], lon[None])
    aside = -great_circle_km(20.0, 330.0, lat[:, None], lon[None])
    warm = Thresholds(thickness=True, thickness_latitude=10.0)
    assert not ends(warm, thickness=flat) and "no minimum" in ends(warm, thickness=aside)
    assert not ends(replace(warm, thickness_latitude=30.0), thickness=aside)
    assert "no minimum" in ends(Thresholds(radius_km=100.0), start=(22.0, 352.3))


def test_southern_storms_turn_the_other_way() -> None:
    south = STORM | {"la0": -20.2, "dlat": -0.9, "south": True}
    got = follow(Tracker(*GLOBE, (-20.2, 352.3)), states(*GLOBE, south))
    assert all(p is not None and p.lat < 0 and p.vorticity > 5e-5 for p in got)
    wrong = states(*GLOBE, south | {"south": False})
    assert follow(Tracker(*GLOBE, (-20.2, 352.3)), wrong)[0] is None


@pytest.mark.parametrize(
    ("lat", "lon", "start", "periodic", "match"),
    [
        ([1.0, 0.0], [0.0, 1.0, 2.0], (0.0, 1.0), False, "3 x 3"),
        ([2.0, 0.0, 1.0], [0.0, 1.0, 2.0], (0.0, 1.0), False, "rise or fall"),
        ([91.0, 1.0, 0.0], [0.0, 1.0, 2.0], (0.0, 1.0), False, "-90 to 90"),
        ([2.0, 1.0, 0.0], [0.0, 2.0, 1.0], (0.0, 1.0), False, "rise throughout"),
        ([2.0, 1.0, 0.0], [0.0, 180.0, 360.0], (0.0, 1.0), True, "less than 360"),
        ([2.0, 1.0, 0.0], [0.0, 1.0, 2.0], (0.0, 1.0), True, "periodic=False"),
        ([2.0, 1.0, 0.0], [0.0, 1.0, 2.0], (1.0, 95.0), False, "km from the nearest point"),
        ([2.0, 1.0, 0.0], [0.0, 1.0, 2.0], (95.0, 1.0), False, "no latitude and longitude"),
        ([2.0, 1.0, 0.0], [0.0, 1.0, 2.0], (math.nan, 1.0), False, "no latitude and longitude"),
    ],
)
def test_grids_refused(lat, lon, start, periodic: bool, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Tracker(np.array(lat), np.array(lon), start, periodic=periodic)


def test_field_of_another_grid_and_thresholds_refused() -> None:
    with pytest.raises(ValueError, match="grid of 91 x 180"):
        Tracker(*GLOBE, (20.0, 352.0)).step(0.0, np.ones((5, 5)))
    with pytest.raises(ValueError, match="radius-km must be in .* got -1.0"):
        Thresholds(radius_km=-1.0)


TRACKS = {
    'A, "x"': [
        Position(0.0, 10.0, 179.0, 99000.5, 20.25, 1e-4),
        Position(6.0, 11.0, 181.0, skipped=("vorticity", "wind")),
        Position(12.0, 12.0, 183.5),
    ],
    "B": [Position(0.0, -5.0, -70.0)],
}


def test_csv_comes_back(tmp_path: Path) -> None:
    file = tmp_path / "tracks.csv"
    tracks.write_csv(file, TRACKS)
    for storm, want in TRACKS.items():
        got = tracks.read_track(file, storm)
        assert [(p.hour, p.lat, p.lon) for p in got] == [(p.hour, p.lat, p.lon) for p in want]
    assert "6.0,11.0,181.0,,,,vorticity wind" in file.read_text()
    with pytest.raises(ValueError, match="Name one"):
        tracks.read_track(file)
    with pytest.raises(ValueError, match="'C'"):
        tracks.read_track(file, "C")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (b"", "no column hour, lat, lon"),
        (b"hour,lat\n0,1\n", "no column lon"),
        (b"hour,lat,lon\n", "has storms none"),
        (b"hour,lat,lon\n0,1,2\n6,x,2\n", "line 3: lat is 'x'"),
        (b"hour,lat,lon\n0,1\n", "line 2: lon is None"),
        (b"hour,lat,lon\n0,91,2\n", "lat is 91.0, not within -90 to 90"),
        (b"hour,lat,lon\n0,nan,2\n", "lat is nan"),
        (b"hour,lat,lon\n0,1,1e9\n", "lon is"),
        (b"hour,lat,lon\n6,1,2\n6,1,2\n", "line 3: hour 6 does not rise"),
        (b"hour,lat,lon\n\xff\xfe,1,2\n", "no CSV file in UTF-8"),
        (b"sep=;\nhour;lat\n0;1\n", "no column lon in line 2"),
        (b"sep=;\nhour;lat;lon\n0;1;2\n6;x;2\n", "line 4: lat is 'x'"),
    ],
)
def test_files_refused(tmp_path: Path, text: bytes, match: str) -> None:
    file = tmp_path / "track.csv"
    file.write_bytes(text)
    with pytest.raises(ValueError, match=match):
        tracks.read_track(file)


@pytest.mark.parametrize("above", ["", "sep=;\r\n", '"sep=;"\n'])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_tracks_as_spreadsheets_write_them(tmp_path: Path, above: str, delimiter: str) -> None:
    file = tmp_path / "track.csv"
    text = above + "hour;lat;lon\n0;10;20\n6;11.5;-20\n"
    file.write_text("\ufeff" + text.replace(";", delimiter))
    got = [(p.hour, p.lat, p.lon) for p in tracks.read_track(file)]
    assert got == [(0, 10, 20), (6, 11.5, -20)]


def test_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is not there"):
        tracks.read_track(tmp_path / "none.csv")


def test_geojson(tmp_path: Path) -> None:
    file = tmp_path / "tracks.json"
    tracks.write_geojson(file, TRACKS)
    features = json.loads(file.read_text())["features"]
    kinds = [(f["geometry"]["type"], f["properties"]["storm"]) for f in features]
    first = 'A, "x"'
    assert kinds == [("MultiLineString", first), *[("Point", first)] * 3, ("Point", "B")]
    lines = features[0]["geometry"]["coordinates"]
    assert lines == [[[179, 10], [180, 10.5]], [[-180, 10.5], [-179, 11], [-176.5, 12]]]
    assert features[2]["properties"]["msl_pa"] is None and features[1]["properties"]["hour"] == 0


@pytest.mark.parametrize(
    ("lons", "lines"),
    [
        ([170, 180], [[170, 180]]),
        ([180, 190], [[-180, -170]]),
        ([-170, -180, 170], [[-170, -180], [180, 170]]),
        ([10, 10, 10], []),
        ([10, 20, 20], [[10, 20]]),
        ([350, 370], [[-10, 10]]),
        ([], []),
    ],
)
def test_lines_at_the_date_line(lons: list[float], lines: list[list[float]]) -> None:
    got = cut_line([(float(lon), 5.0) for lon in lons])
    assert [[point[0] for point in line] for line in got] == lines
    assert all(point[1] == 5 and abs(point[0]) <= 180 for line in got for point in line)


STORM_1996 = Path(os.environ.get("TENFOLD_DATA", "absent")) / "pangu_atmos" / "storm1996_6h.nc"


@pytest.mark.skipif(not STORM_1996.exists(), reason="TENFOLD_DATA has no storm1996_6h.nc")
def test_the_blizzard_of_1996() -> None:
    """A real storm up the American coast, as its pressure minima say, on a region with holes."""
    import h5py

    with h5py.File(STORM_1996) as file:
        lat, lon = file["lat"][()], file["lon"][()]
        steps = range(9, 20)
        fields = {name: file[name][9:20].astype(np.float64) for name in ("msl", "u", "v")}
    assert lat[0] < lat[-1] and np.isnan(fields["msl"]).any()
    fields |= {"u10": fields["u"], "v10": fields["v"]}
    tracker = Tracker(lat, lon, (31.25, -85.0), periodic=False)
    found = track(tracker, [6.0 * k for k in steps], fields)
    want = [
        (31.25, -85, 1011.6), (33.75, -82.5, 1006.7), (33.75, -80, 1001.6), (35, -77.5, 997.3),
        (37.5, -75, 991.2), (38.75, -72.5, 987.6), (40, -70, 987.4), (41.25, -67.5, 983.6),
    ]  # fmt: skip
    assert [(p.lat, p.lon, round(p.msl / 100, 1)) for p in found[:8]] == want
    assert all(p.vorticity > 5e-5 and not p.skipped for p in found[:8])
    # Of step 17 the wind is missing, so its vorticity is not tested.
    assert found[8].hour == 102 and found[8].skipped == ("vorticity",)
