"""`tenfold demo`: every system at demo scale, method and baseline, one page."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from . import run
from .core import checkpoint
from .core.system import System
from .report.html import write_demo_page


def run_demo(
    classes: dict[str, type[System[Any]]], out: Path
) -> tuple[Path, list[dict[str, Any]]]:
    """Train each system's demo and its baseline, and write the page; returns page and rows.

    Runs that are finished are kept unless their configuration changed.
    """
    rows = []
    for name, cls in classes.items():
        print(f"{name}: training the method and its baseline at demo scale", file=sys.stderr)
        rows.append(_demo_of(name, cls, out))
    checkpoint.write_json(out / "demo.json", rows)
    return write_demo_page(rows, out), rows


def _demo_of(name: str, cls: type[System[Any]], out: Path) -> dict[str, Any]:
    began = time.monotonic()
    results = {}
    for recipe in ("demo", "demo-baseline"):
        cfg, folder = cls.complete(cls.recipes[recipe]), out / f"{name}-{recipe}"
        identity = {"system": name, "recipe": recipe, "config": run.to_json(cfg)}
        file = folder / "config.json"
        changed = file.exists() and run.differences(checkpoint.read_json(file), identity)
        results[recipe] = run.train(name, cls, recipe, cfg, folder, fresh=bool(changed))
    method, baseline = results["demo"], results["demo-baseline"]
    claim = run.construct(cls, cls.complete(cls.recipes["demo"])).claims()[0]
    ours, theirs = method["metrics"][claim.metric], baseline["metrics"][claim.metric]
    ahead = ours < theirs if claim.better == "lower" else ours > theirs
    return {
        "system": name,
        "task": cls.paper.says,
        "data": f"{method['data']['name']} ({method['data']['kind']})",
        "metric": f"{claim.metric} ({claim.better} is better)",
        "method": round(ours, 3),
        "baseline": round(theirs, 3),
        "verdict": ("ahead" if ahead else "behind") + " after a demo, one seed: shows nothing",
        "minutes": round((time.monotonic() - began) / 60, 1),
        "run": str((out / f"{name}-demo").relative_to(out)),
    }
