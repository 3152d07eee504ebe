"""`evaluate` and `predict` of one run, on small generated sets, as each process of a job does it.

python use_worker.py RUN PHOTOS OUT
"""

from __future__ import annotations

import sys

from tenfold import cli
from tenfold.core import dist
from tenfold.systems.itpn import data, evaluation

SETS = {"train": 20, "test": 8}
BATCH = 3


def main(run: str, photos: str, out: str) -> None:
    data.GENERATED, evaluation.BATCH = SETS, BATCH
    with dist.started("cpu"):  # both commands in one job
        cli.main(["evaluate", run, "--device", "cpu"])
        cli.main(["predict", run, photos, "--out", out, "--device", "cpu", "--score", "0.1"])


if __name__ == "__main__":
    main(*sys.argv[1:])
