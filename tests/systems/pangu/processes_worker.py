"""One process of a job: evaluates a run and forecasts with it, as the command line does.

torchrun processes_worker.py RUN STATES OUT
"""

from __future__ import annotations

import contextlib
import os
import sys
from dataclasses import replace
from pathlib import Path

import tenfold
from tenfold import cli
from tenfold.core import dist
from tenfold.runner import use
from tenfold.systems.pangu.config import PredictOptions
from tenfold.systems.pangu.forecast import Forecast
from tenfold.systems.pangu.inputs import open_input, read_inputs
from tenfold.systems.pangu.predict import write_states

ENSEMBLE = PredictOptions(start="0", hours=30, every=6, members=4, batch=2, pictures=False)


def work(run: Path, states: Path, out: Path) -> None:
    """Write evaluation.txt, a forecast with all its files, and the states of two others."""
    first = os.environ.get("RANK", "0") == "0"
    with (out / f"evaluation{'' if first else '-of-another'}.txt").open("w") as file:
        with contextlib.redirect_stdout(file):
            cli.main(["evaluate", str(run), "--device", "cpu"])
    use.predict(run, states, out / "whole", ENSEMBLE, "cpu")
    system = tenfold.load(run)
    grid, model, title = system.cfg.grid, system.forecaster, system.paper.title
    with dist.started("cpu"):
        for name, members in (("single", 1), ("continued", 4)):
            options = replace(ENSEMBLE, members=members)
            given = read_inputs(open_input(states, grid), options.start, model, grid, options)
            forecast = Forecast(model, options, given)
            write_states(forecast, out / f"{name}.nc", title)


if __name__ == "__main__":
    work(*map(Path, sys.argv[1:]))
