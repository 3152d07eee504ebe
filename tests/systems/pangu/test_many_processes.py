"""Under `torchrun`, evaluations and forecasts equal those of one process, byte for byte."""

from __future__ import annotations

import re
from pathlib import Path

import forked
import numpy as np
import pytest
from systems.pangu import processes_worker
from tiny import config, options

from tenfold.data.weather.forecast_file import MARKER
from tenfold.data.weather.forecast_store import Netcdf
from tenfold.generated.waves import WaveStates, write_netcdf
from tenfold.runner.weights import construct, save_weights
from tenfold.systems.pangu import PanguWeather
from tenfold.systems.pangu.rollout import divided_members

pytestmark = pytest.mark.usefixtures("generated_only")
WORDS = ["--leads", "24", "6", "--evaluation.hours", "6", "30", "--evaluation.every", "3"]
WORDS += ["--evaluation.members", "2", "--evaluation.ensemble-every", "8"]


def files(folder: Path) -> dict[str, bytes]:
    """Contents by name, the page without the time at which it was written."""
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    page = found["forecast.html"]
    return {**found, "forecast.html": re.sub(rb"written [-\d]+ [\d:]+", b"", page)}


def unfinished(whole: Path, file: Path, done: int) -> None:
    """The file of a forecast that was killed after so many states."""
    file.write_bytes(whole.read_bytes())
    store = Netcdf(file)
    for name, array in store.found.items():
        if len(array.dims) > 2 or name == MARKER:
            for step in range(done, array.shape[0]):
                store.put(name, step, np.zeros(array.shape[1:]))
    store.flush()


def test_two_processes_equal_one(tmp_path: Path) -> None:
    """Groups of members [0], [1, 2], [3] for two processes; one forecast goes on after 18 h."""
    cfg = config("pangu", "demo", [*options("pangu"), *WORDS])
    system = construct(PanguWeather, cfg)
    next(iter(system.stages()))
    run, states = tmp_path / "run.safetensors", tmp_path / "states.nc"
    save_weights(run, "pangu", system)
    write_netcdf(states, WaveStates(), np.arange(92, 98))
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir(), two.mkdir()
    processes_worker.work(run, states, one)
    unfinished(one / "whole/forecast.nc", two / "continued.nc", 3)
    done = forked.torchrun(2, processes_worker.__file__, run, states, two)
    assert done.returncode == 0, done.stderr
    table = (one / "evaluation.txt").read_text()
    assert "crps" in table and (two / "evaluation.txt").read_text() == table
    assert (two / "evaluation-of-another.txt").read_text() == ""
    assert files(one / "whole") == files(two / "whole")
    assert {"scores.csv", "points.csv", "forecast.nc"} <= set(files(one / "whole"))
    for name in ("single.nc", "continued.nc"):
        assert (one / name).read_bytes() == (two / name).read_bytes()
    assert (one / "continued.nc").read_bytes() == files(one / "whole")["forecast.nc"]


@pytest.mark.parametrize(
    ("members", "batch", "processes", "shares"),
    [
        (6, 2, 1, [[[0], [1, 2], [3, 4], [5]]]),
        (6, 2, 2, [[[0], [3, 4]], [[1, 2], [5]]]),
        (2, 4, 3, [[[0]], [[1]], []]),
        (1, 4, 2, [[[0]], []]),
    ],
)
def test_members_are_divided_by_groups(members: int, batch: int, processes: int, shares) -> None:
    assert divided_members(members, batch, processes) == shares
