"""One process of a job: evaluates a run and forecasts with it, as the command line does.

torchrun processes_worker.py RUN STATES OUT
"""

from __future__ import annotations

import contextlib
import os
import sys
from dataclasses import replace
from pathlib import Path

from tenfold import cli
from tenfold.runner import use
from tenfold.systems.pangu.config import PredictOptions

ENSEMBLE = PredictOptions(
    start="0", hours=30, every=6, members=4, batch=2, fields=("msl",), animate=False
)


def work(run: Path, states: Path, out: Path) -> None:
    """Write evaluation.txt and forecasts: whole, single and, where one was begun, continued."""
    first = os.environ.get("RANK", "0") == "0"
    with (out / f"evaluation{'' if first else '-of-another'}.txt").open("w") as file:
        with contextlib.redirect_stdout(file):
            cli.main(["evaluate", str(run), "--device", "cpu"])
    use.predict(run, states, out / "whole", ENSEMBLE, "cpu")
    use.predict(run, states, out / "single", replace(ENSEMBLE, members=1), "cpu")
    if (out / "continued").exists():
        use.predict(run, states, out / "continued", ENSEMBLE, "cpu")


if __name__ == "__main__":
    work(*map(Path, sys.argv[1:]))
