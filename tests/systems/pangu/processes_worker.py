"""One process of a job: evaluates a run and forecasts with it, by the command line's own verbs.

torchrun processes_worker.py RUN STATES OUT
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

from tenfold import cli

FORECAST = ["--start", "0", "--hours", "30", "--members", "4", "--batch", "2", "--no-animate"]
FORECAST += ["--every", "6", "--fields", "msl"]


def work(run: Path, states: Path, out: Path) -> None:
    """Write OUT/evaluation.txt and forecasts to OUT/whole, OUT/single and OUT/continued."""
    first = os.environ.get("RANK", "0") == "0"
    with (out / f"evaluation{'' if first else '-of-another'}.txt").open("w") as file:
        with contextlib.redirect_stdout(file):
            cli.main(["evaluate", str(run), "--device", "cpu"])
    words = ["predict", str(run), str(states), "--device", "cpu", *FORECAST]
    cli.main([*words, "--out", str(out / "whole")])
    cli.main([*words, "--members", "1", "--out", str(out / "single")])
    if (out / "continued").exists():
        cli.main([*words, "--out", str(out / "continued")])


if __name__ == "__main__":
    work(*map(Path, sys.argv[1:]))
