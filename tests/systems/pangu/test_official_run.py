"""Official ONNX files through the system: written, run as they are, converted, all alike."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny import weather

import tenfold
from tenfold import cli
from tenfold.systems.pangu import PanguWeather
from tenfold.systems.pangu.config import PredictOptions
from tenfold.systems.pangu.forecaster import Forecaster, ForecastModel
from tenfold.systems.pangu.onnx.run import GRID_FILE, OnnxForecaster

xarray = pytest.importorskip("xarray")


@pytest.fixture(scope="module")
def official(made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny run's networks as official files."""
    folder = tmp_path_factory.mktemp("official")
    tenfold.load(made("pangu")).export_official(folder / "onnx")
    return folder / "onnx"


def forecast(run: Path, folder: Path, members: int) -> dict[str, np.ndarray]:
    system = tenfold.load(run)
    options = PredictOptions(hours=48, members=members, pictures=False)
    system.predict(weather(folder), folder / "out", options)
    with xarray.open_dataset(folder / "out/forecast.nc", engine="h5netcdf") as data:
        return {name: v.values for name, v in data.data_vars.items() if v.ndim > 2}


@pytest.mark.parametrize("members", [1, 3])
def test_files_run_as_they_are_equal_the_network(made, official, tmp_path, members) -> None:
    for name in ("ours", "onnx"):
        (tmp_path / name).mkdir()
    ours = forecast(made("pangu"), tmp_path / "ours", members)
    onnx = forecast(official, tmp_path / "onnx", members)
    assert ours.keys() == onnx.keys() and len(ours) == 9
    for name, values in ours.items():
        assert np.abs(values - onnx[name]).max() < 1e-4 * values.std(), name


def test_one_file_without_grid_is_refused_for_its_fields(official, tmp_path) -> None:
    """Two levels are not those of the authors, and without grid.json nothing says which."""
    shutil.copy(official / "pangu_weather_24.onnx", tmp_path)
    with pytest.raises(ValueError, match="2 levels, not 13"):
        tenfold.load(tmp_path / "pangu_weather_24.onnx")


def test_converted_files_give_the_very_same_forecast(made, official, tmp_path) -> None:
    cli.main(["convert", "pangu", str(official), "--out", str(tmp_path / "run")])
    assert "tensors converted" in (tmp_path / "run/conversion.txt").read_text()
    ours, again = tenfold.load(made("pangu")), tenfold.load(tmp_path / "run")
    state = [part[:1] for part in _state()]
    for a, b in zip(
        ours.forecaster.step(*state, 24), again.forecaster.step(*state, 24), strict=True
    ):
        assert np.array_equal(a.numpy(), b.numpy())
    assert again.cfg.grid == replace(ours.cfg.grid, step=24) and again.cfg.leads == (24,)


def _state():
    import torch

    from tenfold.generated.waves import WaveStates

    upper, surface = WaveStates().read(80)
    return torch.from_numpy(upper)[None], torch.from_numpy(surface)[None]


def test_official_files_are_not_evaluated(made, official) -> None:
    run, ours = tenfold.load(official), tenfold.load(made("pangu"))
    assert type(run) is PanguWeather and (official / GRID_FILE).exists()
    assert isinstance(run.model, OnnxForecaster) and isinstance(ours.model, Forecaster)
    assert all(isinstance(one.model, ForecastModel) for one in (run, ours))
    assert run.notes() and run.headline == ours.headline
    for refused in (lambda: run.evaluate("test"), run.export, lambda: next(run.stages())):
        with pytest.raises(ValueError, match="tenfold convert pangu"):
            refused()


def test_other_statistics_are_not_mixed(made, official, tmp_path) -> None:
    """Two lead times that normalise differently cannot share one set of statistics."""
    from tenfold.systems.pangu.onnx.writer import write_onnx

    shutil.copytree(official, tmp_path / "two")
    system = tenfold.load(made("pangu"))
    forecaster = system.forecaster
    statistics = [
        getattr(forecaster, n).numpy().copy()
        for n in ("upper_mean", "upper_std", "surface_mean", "surface_std")
    ]
    statistics[1] *= 1.5
    write_onnx(tmp_path / "two/pangu_weather_6.onnx", forecaster.networks["24"], statistics)
    with pytest.raises(ValueError, match="other statistics"):
        PanguWeather.convert(tmp_path / "two")


def test_what_cannot_be_written_leaves_the_folder_free(made, monkeypatch, tmp_path) -> None:
    from tenfold.systems.pangu.onnx import run

    out = tmp_path / "onnx"
    system = tenfold.load(made("pangu"))
    assert isinstance(system, PanguWeather)
    with monkeypatch.context() as changed:
        changed.setattr(run, "TOLERANCE", 0.0)
        with pytest.raises(ValueError, match="nothing was kept"):
            system.export_official(out)
    with monkeypatch.context() as changed:
        changed.setitem(sys.modules, "onnxruntime", None)
        with pytest.raises(ModuleNotFoundError, match="needs onnxruntime"):
            system.export_official(out)
    assert not list(out.iterdir())
    system.forecaster.missing[0, 0] = True
    with pytest.raises(ValueError, match="has 1 points without values"):
        system.export_official(out)


def test_land_that_converted_weights_do_not_know_is_that_of_the_file(
    made, official, tmp_path
) -> None:
    ours, (again, _) = tenfold.load(made("pangu")), PanguWeather.convert(official)
    assert "lsm" in again.cfg.grid.constants and ours.model.land_share().max() > 0
    assert again.model.land_share() is None
