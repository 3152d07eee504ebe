"""Equality with the independent reference: case by case in one process, and on any layout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from golden import ppmoe_model, ppmoe_plan
from golden.harness import HERE, Case, cases

CHECKS = {**ppmoe_model.CHECKS, **ppmoe_plan.CHECKS}

SCHEDULES = ("gpipe", "interleaved", "looped-bfs", "zero-bubble", "zbv", "dualpipev")

LIMIT = 1e-6
EVALUATION_LIMIT = 1e-5
"""Losses of single tokens are reported in float32."""


def test_golden(case) -> None:
    kind = case.spec["kind"]
    assert kind in CHECKS, f"no check for golden kind {kind!r}; known: {sorted(CHECKS)}"
    CHECKS[kind](case)


@pytest.mark.parametrize("processes", [2, 4])
def test_layouts(processes: int, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    """One step on several processes equals the case, whatever the layout."""
    found = cases("ppmoe", pytestconfig.getoption("--golden"))
    steps = [c for c in found if c.spec["kind"] == "lm_step"]
    jobs = [
        {"case": str(case.json_path), "layout": layout}
        for case in steps
        for layout in layouts(case, processes)
    ]
    if not jobs:
        pytest.skip(f"none of the cases is a training step that {processes} processes can share")
    done = launch(jobs, processes, tmp_path)
    wrong = [
        f"{Path(job['case']).stem} {job['layout']}: {job['found']}"
        for job in done
        if not within(**job["found"])
    ]
    assert len(done) == len(jobs)
    told = f"{len(wrong)} of {len(jobs)} differ by more than {LIMIT}:"
    assert not wrong, "\n".join([told, *wrong])


def within(evaluation: float, **others: float) -> bool:
    """Whether differences are allowed; what is no number is not."""
    return evaluation <= EVALUATION_LIMIT and all(value <= LIMIT for value in others.values())


def launch(jobs: list[dict], processes: int, folder: Path) -> list[dict]:
    """Run the jobs on so many processes, all in one start."""
    (folder / "jobs.json").write_text(json.dumps(jobs))
    # besides what is there already: it may say which tenfold is meant
    found = [str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone",
         "--nproc-per-node", str(processes), str(HERE / "ppmoe_worker.py"),
         str(folder / "jobs.json"), str(folder / "out.json")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(found), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads((folder / "out.json").read_text())


def layouts(case: Case, processes: int) -> Iterator[dict]:
    """Every (pp, dp, tp) of so many processes that the case's sizes allow, in every variant."""
    dp = case.spec["config"]["dp"]
    for tp in range(1, processes + 1):
        if processes % (tp * dp):
            continue
        sizes = {"pp": processes // (tp * dp), "tp": tp}
        variants: list[dict] = [{}]
        if tp * dp > 1:
            variants += [{"dispatch": "alltoall"}, {"dispatch": "alltoall-copies"}]
        if tp > 1:
            variants += [{"sync": "params"}, {"sync": "params", "dispatch": "alltoall"}]
        if sizes["pp"] > 1:
            variants += [{"schedule": schedule} for schedule in SCHEDULES]
        yield from (sizes | v for v in variants if fits(case, sizes | v))


def fits(case: Case, layout: dict) -> bool:
    """Whether the sizes divide; not asked of the code, which might refuse too much."""
    cfg, pp, tp = case.spec["config"], layout["pp"], layout["tp"]
    schedule, dispatch = layout.get("schedule", "1f1b"), layout.get("dispatch", "slice")
    owners = tp if dispatch == "slice" else tp * cfg["dp"]
    stages = pp if schedule in ("1f1b", "gpipe") else 2 * pp
    rounds = {"interleaved": pp, "looped-bfs": pp, "zero-bubble": pp, "dualpipev": 2 * pp}
    return not (
        cfg["heads"] % tp
        or cfg["ffn"] % tp
        or cfg["E"] % owners
        or cfg["L"] % stages
        or cfg["M"] % rounds.get(schedule, 1)
        or (dispatch == "alltoall" and cfg["S"] % tp)
    )
