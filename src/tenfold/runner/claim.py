"""`tenfold claim`: every variant with every seed, then a verdict."""

from __future__ import annotations

import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tenfold.core import checkpoint
from tenfold.core.claim import Claim
from tenfold.files import read_object
from tenfold.report.claim import write_claim

from .train import train
from .weights import AnySystem, completed, construct


def claim(
    name: str, cls: type[AnySystem], runs: Path, out: Path, loop_changes: dict[str, Any]
) -> dict[str, Any]:
    """Train every arm of a system's claims with every seed (or take finished runs), and judge.

    Writes `<out>/<name>.json` and `.md`; returns what is in the JSON.
    """
    _refuse_others(out, name)
    system = construct(cls, completed(cls, cls.recipes["small"]))
    claims: list[Claim[Any]] = system.claims()
    named = {arm.name: arm for c in claims for arm in (c.baseline, *c.also, c.method)}
    arms = {arm.name: arm.config for arm in named.values() if not arm.row}
    rows = {arm: [a for a in named.values() if a.row and a.config == arms[arm]] for arm in arms}
    seeds = sorted({s for c in claims for s in c.seeds})
    methods: dict[str, Any] = {}
    steps: dict[str, int] = {}
    notes: list[str] = []
    last: dict[str, Any] = {}
    jobs = [(s, a) for s in seeds for a in arms]

    def note_result(method: str, seed: int, metrics: dict[str, float], seconds: float) -> None:
        entry = methods.setdefault(
            method, {"seeds": [], "metrics": [], "seconds": [], "parameters": 0}
        )
        entry["seeds"].append(seed)
        entry["metrics"].append(metrics)
        entry["seconds"].append(seconds)
        entry["parameters"] = last["parameters"]

    for number, (seed, arm) in enumerate(jobs, 1):
        cfg = replace(arms[arm], seed=seed, loop=replace(arms[arm].loop, **loop_changes))
        print(f"[{number}/{len(jobs)}] {arm}, seed {seed}", file=sys.stderr, flush=True)
        folder = runs / f"{arm.replace(' ', '-')}-seed{seed}"
        last = train(name, cls, "claim", cfg, folder)
        steps[arm] = sum(stage["steps"] for stage in last["stages"])
        notes = [n for n in last["notes"] if number == 1 or n in notes]  # true of all runs
        note_result(arm, seed, last["metrics"], last["seconds"])
        for other in rows[arm]:
            note_result(other.name, seed, last["baselines"][other.row], last["seconds"])
    shown = {arm.row for arm in named.values()}
    for reference, metrics in last["baselines"].items():
        if reference in shown:
            continue
        methods[reference] = {"seeds": [0], "metrics": [metrics], "seconds": [0.0], "parameters": 0}
    results = {
        "claims": [
            {
                "says": c.says,
                "metric": c.metric,
                "better": c.better,
                "paper": None if c.paper is None else asdict(c.paper),
                "baseline": c.baseline.name,
                "method": c.method.name,
            }
            for c in claims
        ],
        "methods": methods,
        # of the runs, which may be older than this table
        "environment": checkpoint.read_json(folder / "environment.json"),
        "data": last["data"],
        "better": cls.better,
        "units": last["units"],
        "labels": last["labels"],
        "budget": _budget(steps),
        "notes": [*notes, *dict.fromkeys(c.setting for c in claims if c.setting)],
    }
    write_claim(name, results, out)
    return results


def _refuse_others(out: Path, name: str) -> None:
    """Raise ValueError if the files of the claim are there and tenfold did not write them."""
    table, page = out / f"{name}.json", out / f"{name}.md"
    ours = table.is_file() and "methods" in read_object(table, {})
    for file in (table, page):
        if file.exists() and not ours:
            raise ValueError(f"{file} was not written by tenfold; give another --out")


def _budget(steps: dict[str, int]) -> str:
    """The steps of every arm, in a word where they are equal."""
    counts = set(steps.values())
    if len(counts) == 1:
        return f"{counts.pop()} steps each, same batches and seeds"
    each = ", ".join(f"{arm}: {count}" for arm, count in steps.items())
    return f"steps of each ({each}), same batch size and seeds"
