"""Equality with the independent reference: case by case in one process, and on any layout."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import forked
import pytest

from golden import ppmoe_model, ppmoe_plan
from golden.harness import HERE, Case, cases, check

CHECKS = {**ppmoe_model.CHECKS, **ppmoe_plan.CHECKS}

SCHEDULES = ("gpipe", "interleaved", "looped-bfs", "zero-bubble", "zbv", "dualpipev")

LIMIT = 1e-6
EVALUATION_LIMIT = 1e-5
"""Losses of single tokens are reported in float32."""


def test_golden(case) -> None:
    check(case, "ppmoe", CHECKS)


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("processes", [2, 4])
def test_layouts(processes: int, every: bool, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    """One step on several processes equals the case: each layout once, the cases in turn, or every
    layout with every case that it fits."""
    found = cases("ppmoe", pytestconfig.getoption("--golden"))
    steps = [c for c in found if c.spec.get("kind") == "lm_step"]
    jobs = [
        {"case": str(case.json_path), "layout": layout}
        for case in steps
        for layout in layouts(case, processes)
    ]
    jobs = jobs if every else in_turn(jobs)
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


def within(evaluation: float = 0.0, **others: float) -> bool:
    """Whether differences are allowed; what is no number is not."""
    return evaluation <= EVALUATION_LIMIT and all(value <= LIMIT for value in others.values())


def launch(jobs: list[dict], processes: int, folder: Path) -> list[dict]:
    """Run the jobs on so many processes, all in one start."""
    (folder / "jobs.json").write_text(json.dumps(jobs))
    done = forked.torchrun(
        processes, HERE / "ppmoe_worker.py", folder / "jobs.json", folder / "out.json", timeout=300
    )
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


def in_turn(jobs: list[dict]) -> list[dict]:
    """Jobs in which each layout comes once and each case at least once: layouts that few cases fit
    first, each with the case that had the fewest so far."""

    def by(key: str) -> list[list[dict]]:
        groups: dict[str, list[dict]] = {}
        for job in jobs:
            groups.setdefault(json.dumps(job[key]), []).append(job)
        return sorted(groups.values(), key=len)

    taken, had = [], Counter[str]()
    for fitting in by("layout"):
        taken.append(min(fitting, key=lambda job: had[job["case"]]))
        had[taken[-1]["case"]] += 1
    return taken + [group[0] for group in by("case") if not had[group[0]["case"]]]


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
