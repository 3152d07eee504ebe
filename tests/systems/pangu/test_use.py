"""Pangu-Weather in use: forecasts that are killed, ensembles, storms, pages, and wrong inputs."""

from __future__ import annotations

import csv
import json
import math
import os
import re
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import forked
import numpy as np
import pytest
import torch
from tiny import config, options

import tenfold
from tenfold import cli
from tenfold.data.weather.reader import open_states
from tenfold.generated.waves import WaveStates, write_netcdf
from tenfold.runner.weights import construct, save_weights
from tenfold.systems.pangu import PanguWeather, coast, figures
from tenfold.systems.pangu.config import PredictOptions, Thresholds
from tenfold.systems.pangu.forecast import Forecast
from tenfold.systems.pangu.forecaster import Forecaster
from tenfold.systems.pangu.inputs import open_input, read_inputs
from tenfold.systems.pangu.lows import minima
from tenfold.systems.pangu.predict import write_states
from tenfold.systems.pangu.recipes import SMALL
from tenfold.systems.pangu.tracks import read_track
from tenfold.viz.map_axes import MapAxes

pytestmark = pytest.mark.usefixtures("generated_only")
ANY_LOW = Thresholds(radius_km=1300.0, vorticity=-1.0, wind=-1.0)
"""Generated waves have lows but no storms."""
PLAIN = PredictOptions(pictures=False)
FEW = PredictOptions(animate=False)
"""No pictures, and few."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 24 h and 6 h networks whose weights are drawn, so that they do something."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TENFOLD_DATA", str(tmp_path_factory.mktemp("no-data")))
        cfg = config("pangu", "demo", [*options("pangu"), "--leads", "24", "6"])
        system = construct(PanguWeather, cfg)
        next(iter(system.stages()))
    draw = torch.Generator().manual_seed(0)
    for name, weight in system.model.named_parameters():
        if "recover" in name:
            weight.data += 0.02 * torch.randn(weight.shape, generator=draw)
    made = tmp_path_factory.mktemp("run")
    save_weights(made / "weights.safetensors", "pangu", system)
    return made


@pytest.fixture
def system(folder: Path) -> PanguWeather:
    found = tenfold.load(folder)
    assert isinstance(found, PanguWeather)
    return found


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty generated states, of days that belong to no training."""
    path = tmp_path_factory.mktemp("states") / "states.nc"
    return write_netcdf(path, WaveStates(), np.arange(92, 112))


def forecast_of(system: PanguWeather, states: Path, options: PredictOptions) -> Forecast:
    """What `predict` makes of a file, before anything is computed."""
    grid, model = system.cfg.grid, system.forecaster
    given = read_inputs(open_input(states, grid), options.start, model, grid, options)
    return Forecast(model, options, given)


def run(system: PanguWeather, states: Path, options: PredictOptions, path: Path) -> Forecast:
    """The forecast, its states written to `path`."""
    forecast = forecast_of(system, states, options)
    write_states(forecast, path, "a test")
    return forecast


def values(path: Path, name: str = "z") -> np.ndarray:
    import xarray

    with xarray.open_dataset(path, engine="zarr" if path.is_dir() else "h5netcdf") as file:
        return file[name].values


def edited(source: Path, target: Path, change: Callable[[Any], Any]) -> Path:
    """A copy of a file of states with something changed."""
    import xarray

    with xarray.open_dataset(source, engine="h5netcdf") as file:
        data = file.load()
    changed = change(data)
    (data if changed is None else changed).to_netcdf(target, engine="h5netcdf")
    return target


# --- roll-outs ---------------------------------------------------------------------------------


def killed(work: Callable[[], object], calls: int) -> None:
    """Do the work in a process that SIGKILL ends at the beginning of a call of a network."""
    child = os.fork()
    if child == 0:
        step, done = Forecaster.step, 0

        def counted(self: Forecaster, *args: Any) -> Any:
            nonlocal done
            if done == calls:
                os.kill(os.getpid(), signal.SIGKILL)
            done += 1
            return step(self, *args)

        try:
            Forecaster.step = counted  # type: ignore[method-assign]
            work()
        finally:
            os._exit(1)  # never reached: the work needs more calls
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def bytes_of(path: Path) -> dict[str, bytes]:
    files = [path] if path.is_file() else sorted(f for f in path.rglob("*") if f.is_file())
    return {str(file.relative_to(path)): file.read_bytes() for file in files}


@pytest.mark.parametrize(
    ("write", "members", "hours", "every", "calls"),
    [
        ("nc", 1, 54, 6, 3), ("nc", 3, 54, 18, 9), ("nc", 1, 54, 6, 0), ("zarr", 2, 24, 12, 5),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (("nc", 1, 60, 12, 4), ("nc", 3, 60, 12, 6), ("zarr", 1, 36, 12, 3))
        ),
    ],
)  # fmt: skip
def test_a_killed_forecast_goes_on_to_the_same_bytes(
    system: PanguWeather, states: Path, tmp_path: Path, write, members, hours, every, calls
) -> None:
    """Also where states between outputs (6, 18, ... h of every 12) must be made again."""
    asked = replace(PLAIN, start="0", hours=hours, every=every, members=members, write=write)
    broken, whole = (tmp_path / f"{name}.{write}" for name in ("broken", "whole"))
    killed(lambda: run(system, states, asked, broken), calls)
    before = values(broken, "finished")
    assert 0 < before.sum() < len(before) and values(broken).shape[0] == len(before)
    again = run(system, states, asked, broken)
    unbroken = run(system, states, asked, whole)
    assert bytes_of(broken) == bytes_of(whole)
    assert not list(tmp_path.glob(".*"))
    assert values(whole, "finished").all() and np.isfinite(values(whole)).all()
    assert again.outcome.scores == unbroken.outcome.scores


def test_every_state_is_made_once_and_few_stay_in_memory(
    system: PanguWeather, states: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A year in one output is 1460 calls deep; 48 h of every 18 starts two ways from 24 h."""
    made: list[int] = []
    monkeypatch.setattr(
        system.forecaster, "step", lambda u, s, lead: (made.append(lead), (u, s))[1]
    )
    kept: list[int] = []
    collect = Forecast.collect

    def counted(self: Forecast, hour: int, members: Any) -> None:
        kept.append(len(self.rollout._kept))
        collect(self, hour, members)

    monkeypatch.setattr(Forecast, "collect", counted)
    for hours, every in ((54, 18), (8760, 8760)):
        made.clear()
        asked = replace(PLAIN, start="0", hours=hours, every=every)
        forecast = run(system, states, asked, tmp_path / f"{hours}.nc")
        assert len(made) == len(forecast.rollout.calls)
    assert len(kept) > 4 and max(kept) <= 2


def test_another_forecast_is_not_written_over(
    system: PanguWeather, states: Path, tmp_path: Path
) -> None:
    first = replace(PLAIN, start="0", hours=12, members=2)
    system.predict(states, tmp_path, first)
    before = bytes_of(tmp_path)
    for change, words in (
        ({"seed": 1}, "noise_seed"), ({"members": 3}, "member"), ({"start": "1"}, "initial_state"),
        ({"amplitude": 0.1}, "noise_amplitude"), ({"hours": 18}, "lead|step|time"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=f"holds another forecast: .*({words})"):
            system.predict(states, tmp_path, replace(first, **change))
    with torch.no_grad():
        next(system.model.parameters()).add_(1)
    with pytest.raises(ValueError, match="holds another forecast: .*weights"):
        system.predict(states, tmp_path, first)
    assert bytes_of(tmp_path) == before


def test_the_seed_of_a_single_forecast_is_no_difference(
    system: PanguWeather, states: Path, tmp_path: Path
) -> None:
    for seed in (0, 1):
        asked = replace(PLAIN, start="0", hours=6, seed=seed)
        run(system, states, asked, tmp_path / "forecast.nc")


def test_members(
    system: PanguWeather, states: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first is the single forecast, bit for bit; others depend on --batch by rounding only."""
    step, found = system.forecaster.step, {}

    def rounded(upper: torch.Tensor, surface: torch.Tensor, lead: int) -> Any:
        """As on machines where the size of a batch chooses the order of sums."""
        high, low = step(upper, surface, lead)
        return high * (1 + 2e-7 * len(high)), low * (1 + 2e-7 * len(low))

    monkeypatch.setattr(system.forecaster, "step", rounded)
    for members, batch in ((1, 4), (5, 1), (5, 3), (5, 4)):
        path = tmp_path / f"{members}-{batch}.nc"
        asked = replace(PLAIN, start="0", hours=30, members=members, batch=batch)
        run(system, states, asked, path)
        found[members, batch] = {name: values(path, name) for name in ("z", "t", "msl", "u10")}
    for name, single in found[1, 4].items():
        many = [found[5, batch][name] for batch in (1, 3, 4)]
        member = [name for name in ("time", "member")].index("member")
        assert all(np.array_equal(one.take(0, member), single) for one in many)
        scale = np.abs(many[0]).max()
        for one in many[1:]:
            np.testing.assert_allclose(one, many[0], rtol=0, atol=1e-5 * scale)
        assert all(not np.allclose(many[0].take(m, member), single) for m in range(1, 5))


# --- storms ------------------------------------------------------------------------------------


def low_of(index: int) -> tuple[float, float]:
    """The place of a low in a generated state."""
    grid = WaveStates().grid
    msl = WaveStates().read(index)[1][grid.surface.index("msl")]
    row, column = np.argwhere(minima(msl))[0]
    return grid.latitudes[row], (grid.longitudes[column] + 180) % 360 - 180


def test_tracks(
    system: PanguWeather, states: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: dict[str, Any] = {}
    monkeypatch.setattr(
        figures, "track_map", lambda tracks, **kw: (drawn.update(kw, tracks=tracks), b"map")[1]
    )
    lat, lon = low_of(92)
    asked = replace(
        FEW, start="0", hours=24, members=3, track=f"{lat},{lon}", tracker=ANY_LOW, amplitude=0.01
    )
    written = system.predict(states, tmp_path, asked)
    names = {path.name for path in written}
    assert {"tracks.csv", "tracks.geojson", "tracks.txt", "tracks.png"} <= names
    tracks = {
        name: read_track(tmp_path / "tracks.csv", name)
        for name in ("forecast", "member 1", "member 2", "analysis")
    }
    for track in tracks.values():
        assert (track[0].hour, track[0].lat) == (0, lat)
    assert [p.hour for p in tracks["analysis"]] == [0, 6, 12, 18, 24]
    features = json.loads((tmp_path / "tracks.geojson").read_text())["features"]
    points = [f for f in features if f["geometry"]["type"] == "Point"]
    assert len(points) == sum(len(track) for track in tracks.values())
    assert all(-180 <= p["geometry"]["coordinates"][0] <= 180 for p in points)
    last = tracks["forecast"][-1].hour
    assert drawn["title"].startswith(f"isobars +{last:g} h, 2001-01-")
    step = int(last) // 6
    assert np.array_equal(drawn["msl"], values(tmp_path / "forecast.nc", "msl")[step, 0])
    assert set(drawn["tracks"]) == {name for name in tracks if len(tracks[name]) > 1}
    row = np.abs(np.array(system.cfg.grid.latitudes) - lat).argmin()
    assert forecast_of(system, states, asked).outcome.points[0][0] == system.cfg.grid.latitudes[row]


def test_a_storm_that_is_lost_at_once(
    system: PanguWeather, states: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No legend for a track of one point; isobars of the start; a reference that begins later."""
    drawn: dict[str, Any] = {}
    monkeypatch.setattr(
        figures, "track_map", lambda tracks, **kw: (drawn.update(kw, tracks=tracks), b"map")[1]
    )
    monkeypatch.setattr(
        system.forecaster, "step", lambda u, s, lead: (u, torch.full_like(s, 101325.0))
    )
    lat, lon = low_of(92)
    best = tmp_path / "best.csv"
    best.write_text("hour,lat,lon\n12,10,20\n18,11,21\n")
    asked = replace(
        FEW, start="0", hours=18, track=f"{lat},{lon}", tracker=ANY_LOW, reference=str(best)
    )
    system.predict(states, tmp_path / "out", asked)
    assert set(drawn["tracks"]) == {"reference", "analysis"}
    assert drawn["title"] == "isobars +0 h, 2001-01-24 00 UTC"
    text = (tmp_path / "out/tracks.txt").read_text()
    assert "forecast: ended, no minimum" in text and "no hour in common" in text
    assert "lost after one state: forecast" in (tmp_path / "out/forecast.html").read_text()


# --- pages -------------------------------------------------------------------------------------


def test_page_and_scores(system: PanguWeather, states: Path, tmp_path: Path) -> None:
    asked = PredictOptions(
        start="2001-01-24T06", hours=30, every=6, members=3, fields=("z500", "u10"), point="20,40"
    )
    out = tmp_path / "out"
    written = system.predict(states, out, asked)
    assert sorted(out.iterdir()) == sorted(written)
    page = (out / "forecast.html").read_text()
    assert "Forecast from 2001-01-24 06 UTC" in page and "trained on generated data" in page
    assert "3 member(s)" in page and "Errors after 30 h" in page and "24 h" in page
    pictures = {path.name for path in written if path.suffix in (".png", ".gif")}
    kinds = ("map-{}-truth", "map-{}-ensemble", "plume-{}", "error-{}")
    wanted = {f"{kind.format(name)}.png" for kind in kinds for name in ("z500", "u10")}
    assert pictures == wanted | {"animation.gif"}
    assert page.count("data:image/") == len(pictures)
    assert 'src="http' not in page
    rows = list(csv.DictReader((out / "scores.csv").open()))
    fields = system.cfg.grid.fields
    assert [(int(r["hour"]), r["field"]) for r in rows] == [
        (hour, name) for hour in range(6, 31, 6) for name in fields
    ]
    row = next(r for r in rows if (r["hour"], r["field"]) == ("24", "z500"))
    level = system.cfg.grid.levels.index(500)
    forecast = values(out / "forecast.nc", "z500")[4].astype(float)
    truth, before = (WaveStates().read(i)[0][0, level].astype(float) for i in (93 + 4, 93))
    weights = np.cos(np.deg2rad(system.cfg.grid.latitudes))[:, None]

    def root(square: np.ndarray) -> float:
        return math.sqrt(np.average(square, weights=np.broadcast_to(weights, square.shape)))

    expected = {
        "rmse": root((forecast[0] - truth) ** 2),
        "persistence": root((before - truth) ** 2),
        "ensemble mean": root((forecast.mean(0) - truth) ** 2),
        "spread": root(forecast.var(0, ddof=1)),
    }
    for name, value in expected.items():
        assert float(row[name]) == pytest.approx(value, rel=1e-4), name


@pytest.mark.parametrize("dated", [True, False])
def test_a_single_state(system: PanguWeather, states: Path, tmp_path: Path, dated: bool) -> None:
    """Nothing to compare with, and perhaps not even a time."""

    def one(data: Any) -> Any:
        return data.isel(time=[0]) if dated else data.isel(time=0).drop_vars("time")

    file = edited(states, tmp_path / "one.nc", one)
    asked = replace(FEW, hours=12, fields=("msl",))
    written = system.predict(file, tmp_path / "out", asked)
    names = {path.name for path in written}
    assert names == {"forecast.nc", "plan.txt", "map-msl.png", "points.csv", "forecast.html"}
    import xarray

    with xarray.open_dataset(tmp_path / "out/forecast.nc", engine="h5netcdf") as made:
        assert made.time.dtype.kind == ("M" if dated else "i")  # no date that nobody gave
    page = (tmp_path / "out/forecast.html").read_text()
    assert ("Forecast from 2001-01-24 00 UTC" in page) == dated
    assert "unknown time" in page or dated
    assert "own states" not in page


def test_where_values_over_time_are_taken(system: PanguWeather, states: Path) -> None:
    grid = system.cfg.grid
    outcome = forecast_of(system, states, PLAIN).outcome
    assert outcome.points == [(grid.latitudes[3], grid.longitudes[1])]
    asked = replace(PLAIN, point="-33,-70;20,40")
    (lat, lon), other = forecast_of(system, states, asked).outcome.points
    assert abs(lat + 33) < 6 and abs(lon - 290) < 6


# --- what is written ---------------------------------------------------------------------------


def whole(system: PanguWeather, states: Path, path: Path, **more: Any) -> np.ndarray:
    """t500 of a forecast of 12 h from the first state, (time, member?, lat, lon)."""
    run(system, states, replace(PLAIN, start="0", hours=12, **more), path)
    return values(path, "t")[..., system.cfg.grid.levels.index(500), :, :]


def test_fields_of_a_region(system: PanguWeather, states: Path, tmp_path: Path) -> None:
    """Also around Greenwich; killed, it goes on; its numbers are those of the whole forecast."""
    grid, every = system.cfg.grid, whole(system, states, tmp_path / "whole.nc")
    asked = replace(PLAIN, start="0", hours=12, fields=("t500", "msl"), region="60,-20,20,30")
    killed(lambda: run(system, states, asked, tmp_path / "part.nc"), 1)
    forecast = run(system, states, asked, tmp_path / "part.nc")
    kept = forecast.selection.grid
    assert kept.longitudes[0] < 0 < kept.longitudes[-1] and not kept.periodic
    rows = [grid.latitudes.index(lat) for lat in kept.latitudes]
    columns = [grid.longitudes.index(lon % 360) for lon in kept.longitudes]
    assert all(20 <= lat <= 60 for lat in kept.latitudes)
    part = values(tmp_path / "part.nc", "t500")
    assert np.array_equal(part, every[:, rows][:, :, columns])
    assert forecast.outcome.frames == {} and forecast.outcome.last["msl"].shape[1:] == kept.shape
    with pytest.raises(KeyError):
        values(tmp_path / "part.nc", "z")


def test_pairs_as_the_official_scripts_write_them(
    system: PanguWeather, states: Path, tmp_path: Path
) -> None:
    every = whole(system, states, tmp_path / "whole.nc")
    asked = replace(PLAIN, start="0", hours=12, write="npy")
    killed(lambda: run(system, states, asked, tmp_path / "out.npy"), 1)
    run(system, states, asked, tmp_path / "out.npy")
    names = sorted(path.name for path in (tmp_path / "out.npy").iterdir())
    assert names == ["forecast.json", *(f"output_{kind}{hour}.npy" for kind in ("surface", "upper")
                                        for hour in ("", "_000h", "_006h"))]  # fmt: skip
    level = system.cfg.grid.levels.index(500)
    t = system.cfg.grid.upper.index("t")
    for hour, want in zip(("_000h", "_006h", ""), every, strict=True):
        upper = np.load(tmp_path / f"out.npy/output_upper{hour}.npy")
        assert upper.dtype == np.float32 and np.array_equal(upper[t, level], want)
    with pytest.raises(ValueError, match="out.npy holds another forecast: it differs in hours"):
        run(system, states, replace(asked, hours=18), tmp_path / "out.npy")


@pytest.mark.parametrize("tool", ["weatherbench2", "earth2studio"])
def test_names_of_other_tools(
    system: PanguWeather, states: Path, tmp_path: Path, tool: Any
) -> None:
    """Read by xarray as they expect them, and by us as the same states."""
    import xarray

    asked = replace(PLAIN, start="0", hours=12, members=2, names=tool, write="zarr")
    path, plain = tmp_path / "f.zarr", tmp_path / "plain.nc"
    every = whole(system, states, plain, members=2)
    run(system, states, asked, path)
    with xarray.open_dataset(path, engine="zarr", decode_timedelta=True) as made:
        lead, member = (
            ("prediction_timedelta", "number")
            if tool == "weatherbench2"
            else ("lead_time", "ensemble")
        )
        hours = (made[lead].values / np.timedelta64(1, "h")).tolist()
        assert hours == [0, 6, 12] and str(made.time.values[0]) == "2001-01-24T00:00:00.000000000"
        if tool == "weatherbench2":
            t = made["temperature"].sel(level=500)
            assert {"10m_u_component_of_wind", "mean_sea_level_pressure"} <= set(made.data_vars)
        else:
            t = made["t500"]
            assert {"u10m", "msl", "z850"} <= set(made.data_vars)
        assert np.array_equal(t.isel(time=0).transpose(lead, member, ...), every)
        made.isel({member: 0}, drop=True).to_netcdf(tmp_path / "one.nc", engine="h5netcdf")
    again = open_states(tmp_path / "one.nc")
    assert (again.grid.upper, again.grid.surface) == (
        system.cfg.grid.upper,
        ("msl", "u10", "v10", "t2m"),
    )
    row = again.grid.upper.index("t"), again.grid.levels.index(500)
    assert np.array_equal(again.read(2)[0][row], every[2, 0])
    assert again.times[2] == np.datetime64("2001-01-24T12")


def test_many_starts(system: PanguWeather, states: Path, tmp_path: Path) -> None:
    asked = replace(PLAIN, start="0,2001-01-24T12", hours=12)
    written = system.predict(states, tmp_path, asked)
    folders = ["start-2001-01-24T0000", "start-2001-01-24T1200"]
    assert {path.relative_to(tmp_path).parts[0] for path in written} == {
        *folders, "scores.csv", "forecast.html"
    }  # fmt: skip
    tables = [list(csv.DictReader((tmp_path / f / "scores.csv").open())) for f in folders]
    mean = list(csv.DictReader((tmp_path / "scores.csv").open()))
    assert [row["starts"] for row in mean] == ["2"] * len(tables[0])
    both = [float(table[3]["rmse"]) for table in tables]
    assert float(mean[3]["rmse"]) == pytest.approx(sum(both) / 2, rel=1e-4)
    with pytest.raises(ValueError, match="names a state twice"):
        system.predict(states, tmp_path, replace(asked, start="0,first"))


def test_probabilities_and_values_at_points(
    system: PanguWeather, states: Path, tmp_path: Path
) -> None:
    asked = replace(
        PLAIN, start="0", hours=12, members=4, above=("t500=255",), point="20,40;-30,100"
    )
    system.predict(states, tmp_path, asked)
    t = values(tmp_path / "forecast.nc", "t")[..., system.cfg.grid.levels.index(500), :, :]
    chance = values(tmp_path / "probabilities.nc", "t500_above_255")
    assert np.array_equal(chance, (t > 255).mean(1, dtype=np.float32)) and 0 < chance.mean() < 1
    rows = list(csv.DictReader((tmp_path / "scores.csv").open()))
    row = next(r for r in rows if (r["hour"], r["field"]) == ("12", "t500"))
    truth = WaveStates().read(94)[0][system.cfg.grid.upper.index("t")]
    truth = truth[system.cfg.grid.levels.index(500)]
    weights = np.cos(np.deg2rad(system.cfg.grid.latitudes))[:, None] * np.ones_like(truth)
    brier = np.average((chance[2] - (truth > 255)) ** 2, weights=weights)
    assert float(row["brier above 255"]) == pytest.approx(brier, rel=1e-4)
    members = t[2].astype(float)
    error = np.abs(members - truth).mean(0)
    apart = np.abs(members[:, None] - members[None]).sum((0, 1)) / (2 * 4 * 3)
    assert float(row["crps"]) == pytest.approx(np.average(error - apart, weights=weights), rel=1e-4)
    assert next(r for r in rows if r["field"] == "msl")["brier above 255"] == ""
    points = list(csv.DictReader((tmp_path / "points.csv").open()))
    assert len(points) == 3 * 2 * 5 and {p["member"] for p in points} == {*"0123", "truth"}
    assert points[0]["time"] == "2001-01-24T00:00:00"
    forecast = forecast_of(system, states, asked)
    at, last = forecast.at[1], [p for p in points if p["hour"] == "12" and p["lat"].startswith("-")]
    assert float(last[2]["t500"]) == pytest.approx(t[2, 2][at], rel=1e-6)
    with pytest.raises(ValueError, match="--above needs an ensemble"):
        forecast_of(system, states, replace(asked, members=1))


def test_thresholds_have_all_their_digits(system: PanguWeather, states: Path) -> None:
    above = ("msl=101325.4", "msl=101325.5", "msl=1e5", "t500=255")
    asked = replace(PLAIN, start="0", hours=6, members=2, above=above)
    forecast = forecast_of(system, states, asked)
    fields = forecast.chances.grid(forecast.selection.grid).surface
    numbers = ("msl_above_101325_4", "msl_above_101325_5", "msl_above_100000", "t500_above_255")
    assert fields == numbers
    for hour, members in forecast.rollout.run(None):
        assert members is not None
        forecast.collect(hour, members)
    row = next(r for r in forecast.outcome.scores if r["field"] == "msl")
    found = [key for key in row if key.startswith("brier")]
    assert found == ["brier above 101325.4", "brier above 101325.5", "brier above 100000"]


def test_the_date_of_a_file_without_one(system: PanguWeather, states: Path, tmp_path: Path) -> None:
    bare = edited(states, tmp_path / "a.nc", lambda data: data.isel(time=0).drop_vars("time"))
    asked = replace(PLAIN, hours=6, time="2018-09-10T12")
    system.predict(bare, tmp_path / "out", asked)
    page = (tmp_path / "out/forecast.html").read_text()
    assert "Forecast from 2018-09-10 12 UTC" in page
    import xarray

    with xarray.open_dataset(tmp_path / "out/forecast.nc", engine="h5netcdf") as made:
        assert str(made.time.values[-1]).startswith("2018-09-10T18")
    with pytest.raises(ValueError, match="the file says that state 19 is of 2001"):
        forecast_of(system, states, replace(asked, start="last"))


def test_what_is_left_out_stands_on_the_page(
    system: PanguWeather, states: Path, tmp_path: Path
) -> None:
    more = edited(states, tmp_path / "a.nc", lambda data: data.assign(tcw=data.msl, sst=data.t2m))
    system.predict(more, tmp_path / "out", replace(PLAIN, hours=6))
    page = (tmp_path / "out/forecast.html").read_text()
    assert "tcw is no variable of the paper" in page and "sst is no variable" in page


def test_coasts_are_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after the process that did it; a damaged file is made anew."""
    pytest.importorskip("landcheck")
    monkeypatch.setenv("TENFOLD_CACHE", str(tmp_path))
    made = [np.array([[0.0, 1.0], [2.0, 3.0]]), np.array([[4.0, 5.0], [6.0, 7.0], [8.0, 9.0]])]
    asked: list[int] = []

    def computed(y: np.ndarray, x: np.ndarray, *_: Any) -> Any:
        asked.append(1)
        return MapAxes(y, x, tuple(made))

    monkeypatch.setattr(coast, "map_axes", computed)
    for times in (1, 1, 2):
        where = coast.axes_of((1.0, 0.0), (0.0, 1.0), None, True)
        assert len(asked) == times and len(where.coast) == 2
        assert all(np.array_equal(a, b) for a, b in zip(where.coast, made, strict=True))
        if times == 1 and len(asked) == 1 and where.coast[0] is not made[0]:
            next(tmp_path.glob("coast/*.npy")).write_bytes(b"no")
    coast.axes_of((1.0, 0.0), (0.0, 1.0), None, False)
    assert len(asked) == 3 and len(list(tmp_path.glob("coast/*"))) == 1


# --- wrong inputs ------------------------------------------------------------------------------


DRIVER = """
import contextlib, io, json, sys
from tenfold import cli

for words in json.loads(open(sys.argv[1]).read()):
    err, code = io.StringIO(), 0
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
        try:
            cli.main(words)
        except SystemExit as end:
            code = end.code
    print(json.dumps([code, err.getvalue()]))
"""
"""Many command lines in one process: without the shape checks of tests, as users have them."""


def refused(out: Path, cases: list[tuple[list[str], str]]) -> None:
    """Every command ends with code 2 and one line with these words; nothing is in the folder."""
    with TemporaryDirectory() as place:
        script, commands = Path(place, "driver.py"), Path(place, "commands.json")
        script.write_text(DRIVER)
        commands.write_text(json.dumps([words for words, _ in cases]))
        done = forked.run(script, commands)
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == len(cases)
    wrong = [
        (words, code, err)
        for (words, says), (code, err) in zip(cases, answers, strict=True)
        if code != 2 or len(err.strip().splitlines()) != 1 or not re.search(says, err)
    ]
    assert not wrong, "\n".join(map(str, wrong))
    assert not out.exists()


def scaled(name: str, factor: float, offset: float = 0.0) -> Callable[[Any], None]:
    def change(data: Any) -> None:
        data[name].values[:] = data[name].values * factor + offset

    return change


def patch(at: int) -> Callable[[Any], None]:
    def change(data: Any) -> None:
        data["t"].values[at, 0, 4:6, 3:9] = np.nan

    return change


CHANGES: dict[str, tuple[Callable[[Any], Any], str]] = {
    "half": (lambda data: data.isel(lat=slice(0, 8)), "latitudes.*trained on 16"),
    "height": (scaled("z", 1 / 9.80665), "height in m, multiply by 9.80665"),
    "flipped": (lambda d: d.assign_coords(level=d["level"].values[::-1].copy()), "level"),
    "hpa": (scaled("msl", 0.01), "hPa"),
    "celsius": (scaled("t2m", 1, -273.15), "Kelvin|kelvin|273"),
    "patch": (patch(-1), r"t at 850 hPa: 12 values \(2.3%\) are missing"),
    "less": (lambda data: data.drop_vars("q"), r"\bq\b"),
}
"""Name of a file -> what is wrong with it, and what is said."""


def test_wrong_files(folder: Path, states: Path, tmp_path: Path) -> None:
    cut, text = tmp_path / "cut.nc", tmp_path / "text.nc"
    cut.write_bytes(states.read_bytes()[: states.stat().st_size // 3])
    text.write_text("no data")
    says = {cut: "cut.nc", text: "text.nc", tmp_path / "absent.nc": "absent.nc does not exist"}
    for name, (change, words) in CHANGES.items():
        says[edited(states, tmp_path / f"{name}.nc", change)] = f"{name}.nc.*{words}"
    out = tmp_path / "out"
    cases = [(["predict", str(folder), str(f), "--out", str(out)], w) for f, w in says.items()]
    hidden = edited(states, tmp_path / "hidden.nc", patch(5))  # which no sample of the file shows
    words = ["predict", str(folder), str(hidden), "--out", str(out), "--start", "5"]
    says_5 = r"hidden.nc: t850 of state 5 \(2001-01-25T06.*is missing at 12 points.*39.375"
    refused(out, [*cases, (words, says_5)])


def test_wrong_options(folder: Path, states: Path, tmp_path: Path) -> None:
    low, out, best = ",".join(map(str, low_of(92))), tmp_path / "out", tmp_path / "best.csv"
    best.write_text("hour,lat,lon\n13,10,20\n")
    any_low = f"--track={low} --tracker.vorticity=-1 --tracker.wind=-1"
    cases = {
        "--start 20": "states 0 to 19",
        "--start=-1": "states 0 to 19",
        "--start 1999-01-01": "no state of the file is valid then",
        "--start noon": "give first, last, a number, or a time",
        f"--start 0 --track={low}": "no storm there.*nearest lows",
        "--track 31.25": "give LAT,LON",
        "--track 95,10": "within 90",
        "--reference best.csv": "needs --track",
        f"--start 0 {any_low} --reference {best}": "none of which is among",
        "--hours 0": "--hours must be in .1, 8760., got 0",
        "--hours 3": "less than a step of 6 h",
        "--every 7": "Near by they reach",
        "--members 0": "--members must be",
        "--members 2 --seed=-1": "--seed must be at least 0, got -1",
        "--members 2 --amplitude nan": "--amplitude must be at least 0, got nan",
        "--region 20,-20,60,30": "north must be above south",
        "--region 50,10": "give NORTH,WEST,SOUTH,EAST",
        "--region 1,1,0.5,1.5": "holds 0 rows",
        "--members 2 --above t2m": "give FIELD=VALUE",
        "--members 2 --above tp=1": "the run forecasts",
        "--members 2 --above t2m=nan": "give FIELD=VALUE",
        "--members 2 --above t2m=300 t2m=3e2": "t2m=300 twice; give it once",
        "--members 2 --above t2m=1e400": "give FIELD=VALUE",
        "--tracker.wind nan": "--tracker.wind must be a finite number",
        "--time noon": "give a time such as",
        "--names weatherbench2 --write npy": "npy has no names",
        "--fields z500 w500": "'w500'; the run forecasts z850",
        "--batch 0": "--batch",
    }
    start = ["predict", str(folder), str(states), "--out", str(out)]
    refused(out, [([*start, *words.split()], says) for words, says in cases.items()])


def test_wrong_training(tmp_path: Path) -> None:
    cases = {
        "--leads 24 9": "leads has 9 h, but the data have a state every 6 h",
        "--model.window 2 4 64": "window",
        "--evaluation.hours 7": "reach none of",
        "--leads 240 --evaluation.hours 240 --data.train 2001-01-01:2001-01-05": "240 h later",
        "--data.train 1999:1999": "but the states run from",
    }
    folder = tmp_path / "run"
    waves = ["--data.name", "waves", "--data.batch-size", "4"]
    start = ["train", "pangu", "demo", *options("pangu"), *waves, "--run.folder", str(folder)]
    refused(folder, [([*start, *words.split()], says) for words, says in cases.items()])


def test_an_onnx_file_that_is_none(states: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    official, out = tmp_path / "pangu_weather_24.onnx", tmp_path / "out"
    official.write_bytes(b"not a model")
    refused(out, [(["predict", str(official), str(states), "--out", str(out)], official.name)])


def test_a_run_whose_data_is_not_here(
    system: PanguWeather, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    system.cfg = replace(system.cfg, data=SMALL.data)
    save_weights(tmp_path / "weights.safetensors", "pangu", system)
    with pytest.raises(SystemExit) as end:
        cli.main(["evaluate", str(tmp_path / "weights.safetensors")])
    err = capsys.readouterr().err
    assert end.value.code == 2
    assert "'pangu_atmos' was not found" in err and "To get it: " in err and "$TENFOLD_DATA" in err
