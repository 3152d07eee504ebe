"""`tenfold demo`: every system at demo scale, method and baseline, one page."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from tenfold.core import checkpoint
from tenfold.core.config import differences, to_json
from tenfold.core.system import System
from tenfold.report.html import write_demo_page, write_run_page

from . import train


def run_demo(classes: dict[str, type[System[Any]]], out: Path) -> tuple[Path, list[dict[str, Any]]]:
    """Train each system's demo and its baseline, and write the page; returns page and rows.

    Runs that are finished are kept unless their configuration changed.
    """
    rows = []
    for name, cls in classes.items():
        print(f"{name}: training the method and its baseline at demo scale", file=sys.stderr)
        rows.append(_demo_of(name, cls, out))
    checkpoint.write_json(out / "demo.json", rows)
    return write_demo_page(rows, out / "report.html"), rows


def _demo_of(name: str, cls: type[System[Any]], out: Path) -> dict[str, Any]:
    began = time.monotonic()
    results = {}
    for recipe in ("demo-baseline", "demo"):
        cfg, folder = cls.complete(cls.recipes[recipe]), out / f"{name}-{recipe}"
        identity = {"system": name, "recipe": recipe, "config": to_json(cfg)}
        file = folder / "config.json"
        changed = file.exists() and differences(checkpoint.read_json(file), identity)
        results[recipe] = train.train(name, cls, recipe, cfg, folder, fresh=bool(changed))
    claim = train.construct(cls, cls.complete(cls.recipes["demo"])).claims()[0]
    baseline, ours = claim.baseline.name, results["demo"]
    ours["baselines"][f"{baseline}, trained alike"] = results["demo-baseline"]["metrics"]
    folder = out / f"{name}-demo"
    checkpoint.write_json(folder / "result.json", ours)
    write_run_page(folder)
    return {
        "system": name,
        "task": cls.task,
        "run": str(folder),
        "metric": claim.metric,
        "baseline": f"{baseline}, trained alike",
        "data": f"{ours['data']['name']} ({ours['data']['kind']})",
        "method value": ours["metrics"][claim.metric],
        "baseline value": results["demo-baseline"]["metrics"][claim.metric],
        "seconds": round(time.monotonic() - began, 1),
    }
