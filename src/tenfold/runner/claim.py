"""`tenfold claim`: every variant with every seed, then a verdict."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tenfold.core import checkpoint
from tenfold.core.claim import Claim, Variant
from tenfold.files import require_own
from tenfold.report.claim import write_claim

from .train import train
from .weights import AnySystem, completed, construct

Arm = Variant[Any]
Job = tuple[str, int]
"""Name of a variant, and a seed."""


def claim(
    name: str, cls: type[AnySystem], runs: Path, out: Path, loop_changes: dict[str, Any]
) -> dict[str, Any]:
    """Train every arm of a system's claims with every seed (or take finished runs), and judge.

    Writes `<out>/<name>.json` and `.md`; returns what is in the JSON.
    """
    require_own(out / f"{name}.json", "methods", out / f"{name}.md")
    system = construct(cls, completed(cls, cls.recipes["small"]))
    return measure(name, name, cls, system.claims(), runs, out, loop_changes)


def measure(
    title: str, name: str, cls: type[AnySystem], claims: Sequence[Claim[Any]], runs: Path,
    out: Path, loop_changes: dict[str, Any], command: str = "",
) -> dict[str, Any]:  # fmt: skip
    """Train the arms of claims and judge: `claim`, for claims that are not the system's own list.

    Args:
        title: Name of the two files that are written to `out`.
        name: Name of the system.
        cls: Class of the system.
        claims: The claims, whose variants are told apart by their names.
        runs: Folder of the runs; finished ones are kept, an interrupted one goes on.
        out: Folder of `<title>.json` and `<title>.md`.
        loop_changes: Fields of `loop` that the caller decides, as `threads`.
        command: What was called, if that is not `tenfold`.
    """
    require_own(out / f"{title}.json", "methods", out / f"{title}.md")
    named = {arm.name: arm for c in claims for arm in (c.baseline, *c.also, c.method)}
    arms = {arm.name: arm for arm in named.values() if not arm.row}
    jobs = jobs_of(claims, arms)
    done: dict[Job, dict[str, Any]] = {}
    for number, (arm, seed) in enumerate(jobs, 1):
        print(f"[{number}/{len(jobs)}] {arm}, seed {seed}", file=sys.stderr, flush=True)
        cfg = arms[arm].config
        cfg = replace(cfg, seed=seed, loop=replace(cfg.loop, **loop_changes))
        if arms[arm].after:
            cfg = replace(cfg, start=str(_folder(runs, arms[arm].after, seed)))
        done[arm, seed] = train(name, cls, "claim", cfg, _folder(runs, arm, seed))
    methods = {v.name: _method(v, _run_of(v, arms), done) for v in named.values()}
    # what is said of data and machine is of the first claim's method
    first = _run_of(claims[0].method, arms)
    seed = methods[first]["seeds"][-1]
    told = done[first, seed]
    for reference, metrics in told["baselines"].items():
        if reference not in {variant.row for variant in named.values()}:
            methods[reference] = {
                "seeds": [0], "metrics": [metrics], "seconds": [0.0], "parameters": 0,
            }  # fmt: skip
    # of the runs, which may be older than this table
    environment = checkpoint.read_json(_folder(runs, first, seed) / "environment.json")
    every = [one["notes"] for one in done.values()]
    # a committed table holds no path of one machine: the setting says what runs start from
    places = [arm.config.start for arm in arms.values() if arm.config.start]
    results = {
        "claims": [_judged(c) for c in claims],
        "methods": methods,
        "columns": list(dict.fromkeys(column for c in claims for column in c.columns)),
        "environment": {**environment, **({"command": command} if command else {})},
        "data": told["data"],
        "better": cls.better,
        "units": told["units"],
        "labels": told["labels"],
        "budget": budget({arm: methods[arm] for arm in arms}),
        "notes": [
            *[
                note
                for note in every[0]
                if all(note in notes for notes in every)
                and not any(place in note for place in places)
            ],
            *dict.fromkeys(c.setting for c in claims if c.setting),
        ],
    }
    write_claim(title, results, out)
    return results


def _method(variant: Arm, own: str, done: Mapping[Job, dict[str, Any]]) -> dict[str, Any]:
    """What was measured of a variant in the runs of the arm `own`, a value a seed."""
    found = {seed: one for (arm, seed), one in sorted(done.items()) if arm == own}
    some = next(iter(found.values()))
    return {
        "seeds": [*found],
        "metrics": [
            one["baselines"][variant.row] if variant.row else one["metrics"]
            for one in found.values()
        ],
        "seconds": [one["seconds"] for one in found.values()],
        "parameters": some["parameters"],
        "steps": sum(stage["steps"] for stage in some["stages"]),
        "after": variant.after,
    }


def _judged(c: Claim[Any]) -> dict[str, Any]:
    """A claim as the table keeps it."""
    found = {
        "says": c.says,
        "metric": c.metric,
        "better": c.better,
        "paper": None if c.paper is None else asdict(c.paper),
        "baseline": c.baseline.name,
        "method": c.method.name,
    }
    return {**found, "min_effect": c.min_effect} if c.min_effect else found


def jobs_of(claims: Sequence[Claim[Any]], arms: Mapping[str, Arm]) -> list[Job]:
    """Runs in order: what verdicts need comes first, and each after the run that it starts from.

    Raises:
        ValueError: An arm starts from one that is not there, or in the end from itself.
    """
    seeds = sorted({seed for c in claims for seed in c.seeds})
    judged = {_run_of(arm, arms) for c in claims for arm in (c.baseline, c.method)}
    first = [(arm, seed) for seed in seeds for arm in arms if arm in judged]
    then = [(arm, seed) for arm in arms if arm not in judged for seed in seeds]
    chains = [(one, seed) for arm, seed in (*first, *then) for one in _chain(arm, arms)]
    return list(dict.fromkeys(chains))


def _chain(arm: str, arms: Mapping[str, Arm]) -> list[str]:
    """The arms that an arm starts from, the earliest first, and itself."""
    found = [arm]
    while before := arms[found[0]].after:
        if before not in arms or before in found:
            reason = "starts from itself" if before in found else "is no arm with a run of its own"
            raise ValueError(f"{arm!r} is trained after {before!r}, which {reason}")
        found.insert(0, before)
    return found


def _run_of(variant: Arm, arms: Mapping[str, Arm]) -> str:
    """The arm in whose run a variant is found: its own, or that of the same configuration."""
    if not variant.row:
        return variant.name
    return next(
        arm.name
        for arm in arms.values()
        if arm.config == variant.config and arm.after == variant.after
    )


def _folder(runs: Path, arm: str, seed: int) -> Path:
    return runs / f"{arm.replace(' ', '-')}-seed{seed}"


def budget(arms: Mapping[str, Mapping[str, Any]]) -> str:
    """The steps of every arm, in a word where they are equal; those before it are its own, too."""
    if not any(one["after"] for one in arms.values()):
        counts = {one["steps"] for one in arms.values()}
        if len(counts) == 1:
            return f"{counts.pop()} steps each, same batches and seeds"
    each = []
    for arm, one in arms.items():
        before, more = one["after"], ""
        while before:
            more += f" after the {arms[before]['steps']} of {before}"
            before = arms[before]["after"]
        each.append(f"{arm}: {one['steps']}{more}")
    return f"steps of each ({', '.join(each)}), same batch size and seeds"
