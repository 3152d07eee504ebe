"""Pangu-Weather's splits, batches, loss over several calls, scores, and missing points."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import COMMON, config, options

import tenfold
from tenfold import cli
from tenfold.core import dist, loop
from tenfold.data.weather.grid import Grid
from tenfold.generated.waves import WaveStates, default_grid, write_netcdf
from tenfold.runner.weights import construct
from tenfold.systems.pangu import PanguWeather, data
from tenfold.systems.pangu.config import Config, Data, PredictOptions
from tenfold.systems.pangu.data import Archive
from tenfold.systems.pangu.evaluation import Verification
from tenfold.systems.pangu.forecast import Forecast
from tenfold.systems.pangu.inputs import open_input, read_inputs
from tenfold.systems.pangu.loss import weighted_mae
from tenfold.systems.pangu.noise import Noise, member_noise
from tenfold.systems.pangu.predict import write_states
from tenfold.systems.pangu.recipes import RECIPES

pytestmark = pytest.mark.usefixtures("generated_only")
GRID = Grid(surface=("msl",), latitudes=(10.0, 0.0, -10.0), longitudes=(0.0, 120.0, 240.0))
FIRST = np.datetime64("2001-01-01T00", "s")
NAMES = {"train": 0, "validation": 1, "test": 2}


def hours_after(hours: Sequence[int]) -> np.ndarray:
    return FIRST + np.array(hours) * np.timedelta64(3600, "s")


class Numbered:
    """States whose only field is their number."""

    def __init__(
        self,
        times: np.ndarray,
        split: np.ndarray | None = None,
        complete: np.ndarray | None = None,
        step: int = 6,
    ) -> None:
        self.times, self.grid = times, replace(GRID, step=step)
        self.split = None if split is None else split.astype(np.int8)
        self.complete = np.ones(len(times), bool) if complete is None else complete

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        surface = np.full((1, *GRID.shape), index, np.float32)
        return np.zeros((0, 0, *GRID.shape), np.float32), surface


def archive(states: Numbered, batch_size: int = 4, seed: int = 0, **words: Any) -> Archive:
    what = Data(name="files", path="none", batch_size=batch_size, **words)
    made = Archive(Config(data=what, grid=states.grid, seed=seed))
    made.__dict__["states"] = states  # in place of files
    return made


def plain(count: int, **words: Any) -> Numbered:
    return Numbered(hours_after(range(0, 6 * count, 6)), **words)


# --- splits ------------------------------------------------------------------------------------

STEPS = st.lists(st.sampled_from([6, 6, 6, 6, 6, 12, 18, 60]), min_size=11, max_size=60)


@settings(max_examples=150, deadline=None)
@given(STEPS, st.data(), st.sampled_from([(6,), (24,), (6, 12, 18), (12, 48)]))
def test_chains_cross_no_gap_and_no_block(gaps: list[int], draw: st.DataObject, hours) -> None:
    gaps = [6] * (len(gaps) + 1) + gaps  # six hours are the most common step
    count = len(gaps) + 1
    times = hours_after(np.cumsum([0, *gaps]).tolist())
    runs = draw.draw(st.lists(st.tuples(st.sampled_from([-1, 0, 0, 1, 2]), st.integers(1, 20)),
                              min_size=1, max_size=20))  # fmt: skip
    split = np.resize(np.concatenate([[kind] * length for kind, length in runs]), count)
    seldom = st.sampled_from([True] * 9 + [False])
    complete = np.array(draw.draw(st.lists(seldom, min_size=count, max_size=count)))
    made = archive(Numbered(times, split, complete), holdout_days=0.0)
    for name, kind in NAMES.items():
        expected = []
        for start in range(count):
            indices = [start + ahead // 6 for ahead in (0, *hours)]
            on_the_way = range(start, indices[-1] + 1)
            if indices[-1] >= count or any(split[i] != kind for i in on_the_way):
                continue
            if (times[indices] - times[start] == np.array([0, *hours]) * 3600).all():
                if complete[indices].all():
                    expected.append(indices)
        if not ((split == kind) & complete).any():
            with pytest.raises(ValueError, match=f"no state is in the {name} split"):
                made.chains(name, hours)
            continue
        assert made.chains(name, hours).tolist() == expected


@pytest.mark.parametrize(("days", "held"), [(2.0, 8), (0.5, 2), (0.0, 0), (0.1, 0)])
def test_the_last_days_of_each_training_block_are_held_out(days: float, held: int) -> None:
    """Of blocks that are long enough, and only where the files have no validation of their own."""
    split = np.repeat([0, -1, 2, 0, -1, 0, 2], [40, 2, 10, 24, 1, 16, 9])
    made = archive(plain(len(split), split=split), holdout_days=days).split
    expected = split.copy()
    for end in (40, 76):  # the third block has 16 states: not more than twice 8
        expected[end - held : end] = 1 if held else 0
    if held == 2:
        expected[93 - held : 93] = 1
    assert made.tolist() == expected.tolist()
    own = np.where(np.arange(len(split)) == 3, 1, split)
    assert archive(plain(len(own), split=own), holdout_days=days).split.tolist() == own.tolist()


def test_files_without_a_split_are_shared_out_in_time() -> None:
    assert archive(plain(50)).split.tolist() == [0] * 40 + [1] * 5 + [2] * 5


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("2001-01-02:2001-01-03", 4, 11),
        ("2001-01-02T06:2001-01-02T12", 5, 6),
        ("2001-01:2001-01", 0, 39),
        ("2000:2001", 0, 39),
        ("2001-01-10:2002-01-01", 36, 39),
    ],
)
def test_dates(text: str, first: int, last: int) -> None:
    """The last day, month or hour counts as a whole; what is in no range is in no split."""
    split = archive(plain(40, split=np.zeros(40)), validation=text).split
    assert split.tolist() == [1 if first <= i <= last else -1 for i in range(40)]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"train": "2001-01-02"}, "give FIRST:LAST such as"),
        ({"train": "monday:friday"}, "data.train is 'monday:friday'; give FIRST:LAST"),
        ({"train": "2001-01-01T00:2001-01-02"}, "give FIRST:LAST"),
        ({"test": "1979-01-01:2017-12-31T00"}, "data.test is"),
        ({"test": "1979:1999"}, "but the states run from 2001-01-01"),
        ({"test": "2001-01-05:2001-01-02"}, "data.test is .*but the states run from"),
        ({"test": "2001-01-05:"}, "data.test is"),
        ({"train": "2001-01-01:2001-01-05", "test": "2001-01-05:2001-01-07"}, "shares times"),
    ],
)
def test_dates_refused(words: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _ = archive(plain(40), **words).split


def test_states_of_another_grid_are_refused(tmp_path: Path) -> None:
    """A run whose file was replaced by one of another step would pair the wrong times."""
    waves = WaveStates(replace(default_grid(), step=12))
    file = write_netcdf(tmp_path / "states.nc", waves, range(6))
    cfg = Config(data=Data(name="files", path=str(file)), grid=default_grid())
    with pytest.raises(ValueError, match="step are 12, but this run has 6"):
        _ = Archive(cfg).states


def test_maps_that_are_not_there_are_refused_with_the_way_out(tmp_path: Path) -> None:
    waves = WaveStates(default_grid())
    file = write_netcdf(tmp_path / "states.nc", waves, range(2))
    small = replace(RECIPES["small"].data, name="files", path=str(file))
    with pytest.raises(ValueError, match=r"'orog'; it has lsm.* --data.constants lsm takes those"):
        data.open_data(small)
    assert data.open_data(replace(small, constants=("lsm",))).grid.constants == ("lsm",)
    bare = WaveStates(replace(default_grid(), constants=()))
    small = replace(small, path=str(write_netcdf(tmp_path / "bare.nc", bare, range(2))))
    with pytest.raises(ValueError, match=r"bare.nc has no .*none\. --data.constants with nothing"):
        data.open_data(small)


def test_a_folder_of_states_is_not_the_set_of_the_recipe(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"data\.file\. pangu_atmos has it"):
        data.find(replace(RECIPES["small"].data, path=str(tmp_path)))


# --- batches -----------------------------------------------------------------------------------


def starts_of(batch: dict[str, torch.Tensor]) -> list[int]:
    """The numbers of the first states; those that follow must be four states apart."""
    numbers = batch["surface"][:, :, 0, 0, 0]
    steps = numbers.diff(dim=1)
    assert batch["surface"].shape[:2] == (len(numbers), 3) and bool((steps == 4).all())
    return [int(n) for n in numbers[:, 0]]


@pytest.mark.parametrize(("count", "batch"), [(40, 8), (43, 8), (11, 8)])
def test_every_pair_once_an_epoch(count: int, batch: int) -> None:
    """All of them where batches go in evenly; else one batch's rest waits for the next epoch."""
    made = archive(plain(count, split=np.zeros(count)), batch, holdout_days=0.0)
    pairs = made.training_chains(24, 2)
    steps = made.epochs(24, 2).steps
    assert len(pairs) == count - 8 and steps == max(1, len(pairs) // batch)
    orders = []
    for epoch in range(2):
        seen = [
            start
            for index in range(epoch * steps, (epoch + 1) * steps)
            for start in starts_of(made.batch(index, 24, 2))
        ]
        assert len(seen) == steps * batch and set(seen) <= set(range(len(pairs)))
        assert len(set(seen)) == min(len(seen), len(pairs))
        orders.append(seen)
    if len(pairs) < batch:
        return
    assert orders[0] != orders[1]
    other = archive(plain(count, split=np.zeros(count)), batch, seed=1, holdout_days=0.0)
    assert starts_of(other.batch(0, 24, 2)) != orders[0][:batch]


def test_processes_share_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    made = archive(plain(40, split=np.zeros(40)), 8, holdout_days=0.0)
    whole = starts_of(made.batch(1, 24, 2))
    parts = []
    for rank in range(2):
        world = dist.World(rank, 2, torch.device("cpu"))
        monkeypatch.setattr(data.dist, "current", lambda world=world: world)
        parts.append(starts_of(made.batch(1, 24, 2)))
    assert [len(part) for part in parts] == [4, 4] and sorted(sum(parts, [])) == sorted(whole)


def test_blocks_that_are_too_short() -> None:
    made = archive(plain(40, split=np.tile([0, 0, 0, -1], 10)), holdout_days=0.0)
    with pytest.raises(ValueError, match="no training state has another one 1 x 24 h later"):
        made.training_chains(24, 1)


# --- loss --------------------------------------------------------------------------------------


def drawn(cfg: Config, seed: int = 0) -> PanguWeather:
    """A system with statistics from its data and weights that do something."""
    system = construct(PanguWeather, cfg)
    assert isinstance(system, PanguWeather)
    next(iter(system.stages()))
    draw = torch.Generator().manual_seed(seed)
    for name, weight in system.model.named_parameters():
        if "recover" in name:
            weight.data += 0.02 * torch.randn(weight.shape, generator=draw)
    return system


def test_fine_tuning_minimises_the_mean_over_calls() -> None:
    words = ["--leads", "6", "--finetune-steps", "1", "--rollout", "3", "--data.batch-size", "2"]
    system = drawn(config("pangu", "demo", [*options("pangu"), *words]))
    stages = list(system.stages())
    assert [(s.name, s.steps) for s in stages] == [("6h", 6), ("6h, 3 calls", 1)]
    assert stages[1].optim.lr == system.cfg.finetune_lr != stages[0].optim.lr
    batch = stages[1].batches(0)
    upper, surface = batch["upper"].double().numpy(), batch["surface"].double().numpy()
    assert upper.shape[:2] == surface.shape[:2] == (2, 4)
    model = stages[1].model.eval()
    weights = np.array([3.0, 0.6, 1.5, 0.77, 0.54])[:, None, None, None]
    below = np.array([1.5, 0.77, 0.66, 3.0])[:, None, None]
    state, losses = (batch["upper"][:, 0], batch["surface"][:, 0]), []
    with torch.no_grad():
        found = float(model(batch)["loss"])
        for call in (1, 2, 3):
            state = system.forecaster.networks["6"](*state)
            high, low = (part.double().numpy() for part in state)
            losses.append(
                np.mean(np.abs(high - upper[:, call]) * weights)
                + 0.25 * np.mean(np.abs(low - surface[:, call]) * below)
            )
    assert found == pytest.approx(np.mean(losses), rel=1e-5)
    assert losses[2] > losses[0]


def test_the_loss_is_the_mean_over_the_points_that_are_there() -> None:
    draw = torch.Generator().manual_seed(0)
    made, truth = ((torch.randn(2, 3, 4, 5, 6, generator=draw),
                    torch.randn(2, 2, 5, 6, generator=draw)) for _ in range(2))  # fmt: skip
    weights = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 2.0])
    there = torch.rand(5, 6, generator=draw) < 0.5
    found = weighted_mae(made, truth, weights, there.float())
    for part, name in enumerate(("loss/upper", "loss/surface")):
        shape = (-1, *[1] * (made[part].ndim - 2))
        error = (made[part] - truth[part]).abs() * weights[part].view(shape)
        torch.testing.assert_close(found[name], error[..., there].mean())


def test_fine_tuning_is_a_stage_of_its_own(tmp_path: Path) -> None:
    words = ["--leads", "24", "--steps", "2", "--finetune-steps", "2", "--rollout", "2"]
    words += ["--loop.log-every", "1", "--finetune-lr", "1e-3"]
    system = construct(PanguWeather, config("pangu", "demo", [*options("pangu"), *words]))
    here, cfg = dist.World(0, 1, torch.device("cpu")), system.cfg
    accounts = loop.train(system.stages(), cfg.loop, here, tmp_path, cfg.seed)
    assert [account["name"] for account in accounts] == ["24h", "24h, 2 calls"]
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line and line["split"] == "train"]
    assert len(losses) == 4 and all(math.isfinite(loss) for loss in losses)


# --- scores ------------------------------------------------------------------------------------


def test_scores_equal_a_plain_loop() -> None:
    """30 h are a call of 24 h and one of 6 h; 7 h are not reachable, 132 h not in a test block."""
    words = [
        "--leads",
        "24",
        "6",
        "--evaluation.hours",
        "30",
        "6",
        "7",
        "132",
        "--data.name",
        "waves",
    ]
    words += ["--evaluation.every", "5", "--evaluation.members", "3"]
    words += ["--evaluation.ensemble-every", "2"]
    system = drawn(config("pangu", "demo", [*options("pangu"), *words]))
    evaluation = system.evaluate("test")
    found, baselines = evaluation.metrics, evaluation.baselines
    assert {key.split("/")[2] for key in found} == {"6h", "30h"}
    assert any(note == "not reached by these models: 7 h" for note in system.notes())
    assert evaluation.notes == ("no start of the test split has a state 132 h later in its block",)
    units = {"rmse/z500": "m2/s2", "crps/t2m": "K", "spread/q850": "kg/kg", "bias/msl": "Pa"}
    assert units.items() <= system.units.items()
    waves, grid, normal = WaveStates(), system.cfg.grid, system.climatology()
    weights = np.cos(np.deg2rad(grid.latitudes))[:, None] * np.ones(grid.shape)

    def fields(state: Sequence[Any]) -> np.ndarray:
        upper, surface = (np.asarray(part, np.float64) for part in state)
        return np.concatenate([upper.reshape(-1, *grid.shape), surface])

    def mean(values: np.ndarray) -> np.ndarray:
        return (values * weights).sum((1, 2)) / weights.sum()

    def forecast(state: tuple[np.ndarray, np.ndarray], hours: int) -> np.ndarray:
        made = tuple(torch.from_numpy(part)[None] for part in state)
        for lead in {6: (6,), 30: (24, 6)}[hours]:
            made = system.forecaster.step(*made, lead)
        return fields([part[0].numpy() for part in made])

    test = np.flatnonzero(waves.split == 2)
    sums: dict[str, dict[str, list[np.ndarray]]] = {n: {} for n in ("models", *baselines)}
    tropics = np.abs(np.array(grid.latitudes)) <= 20
    squares: dict[tuple[str, int], list[np.ndarray]] = {}
    for hours in (6, 30):
        starts = [i for i in test[::5] if {*range(i, i + hours // 6 + 1)} <= set(test)]
        for i in starts:
            truth = fields(waves.read(i + hours // 6))
            usual = fields(normal.at(waves.times[i + hours // 6]))
            made = {
                "models": forecast(waves.read(i), hours),
                "persistence": fields(waves.read(i)),
                "climatology": usual,
            }
            for name, values in made.items():
                squares.setdefault((name, hours), []).append((values - truth) ** 2)
                a, b = values - usual, truth - usual
                with np.errstate(invalid="ignore"):
                    scores = {
                        "rmse": np.sqrt(mean((values - truth) ** 2)),
                        "bias": mean(values - truth),
                        "acc": mean(a * b) / np.sqrt(mean(a * a) * mean(b * b)),
                    }
                for kind, score in scores.items():
                    sums[name].setdefault(f"{kind}/{hours}h", []).append(score)
        longest = [i for i in test[::5] if {*range(i, i + 6)} <= set(test)][::2]
        for i in longest:
            members = np.stack([forecast(perturbed(system, i, m), hours) for m in range(3)])
            truth = fields(waves.read(i + hours // 6))
            pairs = np.abs(members[:, None] - members[None]).sum((0, 1)) / (2 * 3 * 2)
            scores = {
                "ensemble rmse": np.sqrt(mean((members.mean(0) - truth) ** 2)),
                "unperturbed rmse": np.sqrt(mean((members[0] - truth) ** 2)),
                "spread": np.sqrt(mean(members.var(0, ddof=1))),
                "crps": mean(np.abs(members - truth).mean(0) - pairs),
            }
            for kind, score in scores.items():
                sums["models"].setdefault(f"{kind}/{hours}h", []).append(score)
    for name, scores_of in sums.items():
        have = found if name == "models" else baselines[name]
        for key, values in scores_of.items():
            kind, hours = key.split("/")
            for row, field in enumerate(grid.fields):
                if name == "climatology" and kind == "acc":
                    assert f"acc/{field}/{hours}" not in have
                    continue
                scale = np.abs(fields(waves.read(0))[row]).max() if kind == "bias" else 0.0
                assert have[f"{kind}/{field}/{hours}"] == pytest.approx(
                    np.mean(values, 0)[row], rel=2e-4, abs=1e-6 * scale
                ), (name, key, field)
    for (name, hours), each in squares.items():  # WeatherBench: the root taken last
        have, square = found if name == "models" else baselines[name], np.mean(each, 0)
        for field in ("z500", "t2m"):
            of, row = square[grid.fields.index(field)], np.s_[tropics]
            for place, rows in (("", np.s_[:]), (" tropics", row)):
                error = np.sqrt(np.average(of[rows], weights=weights[rows]))
                key = f"weatherbench rmse/{field}{place}/{hours}h"
                assert have[key] == pytest.approx(error, rel=2e-4), key
    assert system.units["weatherbench rmse/t2m europe"] == "K"
    ratio = found["spread/z500/30h"] / found["ensemble rmse/z500/30h"]
    assert found["spread over error/z500/30h"] == pytest.approx(ratio)


def perturbed(system: PanguWeather, index: int, member: int) -> tuple[np.ndarray, np.ndarray]:
    """A test state with a member's noise, as drawn for predictions, too."""
    upper, surface = WaveStates().read(index)
    above, below = system.forecaster.deviations()
    count = above.size
    shape = (count + len(below), *system.cfg.grid.shape)
    # 16 x 32 points: the finest of three octaves needs a point a cell
    noise = Noise(0.2, period=(3, 6)) if system.cfg.grid.shape == (16, 32) else Noise(0.2)
    drawn = member_noise(shape, member, system.cfg.seed + int(index), noise).numpy()
    more = drawn[:count].reshape(upper.shape) * above[..., None, None]
    return upper + more, surface + drawn[count:] * below[:, None, None]


def test_starts_of_long_lead_times_are_among_those_of_short_ones() -> None:
    words = ["--leads", "6", "--evaluation.every", "4", "--evaluation.hours", "6", "18", "60"]
    system = construct(PanguWeather, config("pangu", "demo", [*options("pangu"), *words]))
    assert isinstance(system, PanguWeather)
    measured = SimpleNamespace(cfg=system.cfg, archive=system.archive)
    starts = {h: set(Verification.starts(measured, "test", h)) for h in (6, 18, 60)}  # type: ignore[arg-type]
    assert starts[60] < starts[18] <= starts[6]
    assert len(starts[6]) == 15 == len(WaveStates().split[WaveStates().split == 2]) // 4


# --- missing points ----------------------------------------------------------------------------


class Corners(WaveStates):
    """A region of generated waves without its two lower corners."""

    def __init__(self) -> None:
        grid = replace(
            default_grid(),
            latitudes=tuple(np.linspace(60, 22.5, 16).tolist()),
            longitudes=tuple(np.linspace(220, 280, 16).tolist()),
            periodic=False,
        )
        super().__init__(grid)

    def read(self, index: int | np.integer) -> tuple[np.ndarray, np.ndarray]:
        upper, surface = super().read(index)
        for part in (upper, surface):
            part[..., -3:, :2] = part[..., -4:, -3:] = np.nan
        return upper, surface


def test_missing_corners(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training is finite, forecasts are NaN there and nowhere else, and more is refused."""
    monkeypatch.setattr(PanguWeather, "pictures", lambda *_: {})
    states = Corners()
    file, folder = write_netcdf(tmp_path / "states.nc", states, range(40)), tmp_path / "run"
    words = ["--data.name", "files", "--data.path", str(file), "--data.constants", "lsm"]
    words += [
        "--model.dim",
        "8",
        "--model.heads",
        "2",
        "2",
        "2",
        "2",
        "--model.window",
        "2",
        "2",
        "4",
    ]
    words += ["--model.depths", "2", "1", "1", "2", "--data.batch-size", "4", "--steps", "3"]
    words += ["--leads", "6", "--evaluation.hours", "6", "12", "--loop.log-every", "1"]
    cli.main(["train", "pangu", "demo", *COMMON, *words, "--run.folder", str(folder)])
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert all(math.isfinite(line["loss"]) for line in lines if "loss" in line)
    metrics = json.loads((folder / "result.json").read_text())["metrics"]
    assert all(math.isfinite(value) for value in metrics.values())
    system = tenfold.load(folder)
    assert isinstance(system, PanguWeather)
    corners = np.isnan(states.read(0)[1][0])
    assert np.array_equal(system.forecaster.missing_points(), corners) and corners.sum() == 18

    def asked(path: Path, **words: Any) -> Forecast:
        options, model = PredictOptions(**words), system.forecaster
        states, grid = open_input(path, system.cfg.grid), system.cfg.grid
        return Forecast(model, options, read_inputs(states, options.start, model, grid, options))

    forecast = asked(file, start="20", hours=12, members=2, point="31,281")
    write_states(forecast, tmp_path / "forecast.nc", "a test")
    import xarray

    with xarray.open_dataset(tmp_path / "forecast.nc", engine="h5netcdf") as made:
        for name in ("z", "msl"):
            assert (np.isnan(made[name].values) == corners).all(), name
    row, column = forecast.at[0]
    assert not corners[row, column] and (row, column) == (11, 15)
    assert all(math.isfinite(float(score["rmse"])) for score in forecast.outcome.scores)
    with pytest.raises(ValueError, match="--point 0,0 is .* km from the nearest point"):
        asked(file, point="0,0")
    assert {7, 8} >= set(
        asked(file, start="20", hours=6).at[0]
    )  # 50 N, 10 E is not there: the middle
    with xarray.open_dataset(file, engine="h5netcdf") as old:
        more = old.load()
    more["msl"].values[21, 0, 0] = np.nan
    more["z"].values[20] = more["z"].values[20, :, :1, :1]
    more.to_netcdf(tmp_path / "more.nc", engine="h5netcdf")
    # z is there in the corners, too
    start = asked(tmp_path / "more.nc", start="20", hours=6).rollout.start
    assert (np.isnan(start.upper) == corners).all()
    with pytest.raises(ValueError, match=r"msl of state 21 .*missing at 1 points .*latitude 60"):
        system.predict(tmp_path / "more.nc", tmp_path / "out", PredictOptions(start="21", hours=6))
    assert not (tmp_path / "out").exists()
