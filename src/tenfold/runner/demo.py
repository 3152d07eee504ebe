"""`tenfold demo`: every system at demo scale, and whether it learns, on one page."""

from __future__ import annotations

import math
import multiprocessing
import os
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import torch

from tenfold.core import checkpoint
from tenfold.core.config import differences, to_json
from tenfold.core.errors import exit_code, message
from tenfold.printable import printable
from tenfold.report.html import write_demo_page, write_run_page
from tenfold.systems import SYSTEMS, system_class

from .train import train
from .weights import completed, construct

UNTRAINED = "untrained"
"""Row of a table for the network as it was before the training."""
AT_ONCE = 2
"""Systems trained at the same time, where there are as many cores: small networks do not fill
several cores each."""


def run_demo(names: Sequence[str], out: Path) -> tuple[Path, list[dict[str, Any]]]:
    """Train each system's demo, and write the page; returns page and rows.

    Runs that are finished are kept unless their configuration changed. A system that fails does not
    stop the others: its row has `error`, and the `exit_code` of that error.
    """
    jobs = min(AT_ONCE, os.cpu_count() or 1, len(names))
    minutes = math.ceil(sum(SYSTEMS[name].minutes for name in names) / jobs)
    print(
        f"tenfold demo: {len(names)} systems, about {minutes} min on {AT_ONCE} idle cores",
        file=sys.stderr,
    )
    rows: dict[str, dict[str, Any]] = {}
    for row in _rows(names, out, jobs):
        rows[row["system"]] = row
        said = row.get("error") or f"done in {row['seconds']:.0f} s"
        line = printable(f"[{len(rows)}/{len(names)}] {row['system']}: {said}")
        print(line, file=sys.stderr, flush=True)
    ordered = [rows[name] for name in names]
    checkpoint.write_json(out / "demo.json", ordered)
    return write_demo_page(ordered, out / "report.html"), ordered


def _rows(names: Sequence[str], out: Path, jobs: int) -> Iterable[dict[str, Any]]:
    if jobs == 1:
        yield from (_caught(name, out) for name in names)
        return
    threads = max(1, (os.cpu_count() or 1) // jobs)
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, spawn, torch.set_num_threads, (threads,)) as pool:
        # the longest first: what is left for the end is short
        ordered = sorted(names, key=lambda name: -SYSTEMS[name].minutes)
        for future in as_completed([pool.submit(_caught, name, out) for name in ordered]):
            yield future.result()


def _caught(name: str, out: Path) -> dict[str, Any]:
    try:
        return _demo_of(name, out)
    except Exception as error:
        return {
            "system": name,
            "task": SYSTEMS[name].task,
            "error": f"{type(error).__name__}: {message(error)}",
            "exit_code": exit_code(error),
        }


def _demo_of(name: str, out: Path) -> dict[str, Any]:
    began = time.monotonic()
    cls = system_class(name)
    cfg, folder = completed(cls, cls.recipes["demo"]), out / f"{name}-demo"
    identity = {"system": name, "recipe": "demo", "config": to_json(cfg)}
    file = folder / "config.json"
    changed = file.exists() and differences(checkpoint.read_json(file), identity)
    result = train(name, cls, "demo", cfg, folder, fresh=bool(changed))
    if UNTRAINED not in result["baselines"]:
        before = construct(cls, cfg)
        before.model.eval()
        result["baselines"][UNTRAINED] = before.evaluate("test").metrics
        checkpoint.write_json(folder / "result.json", result)
        write_run_page(folder, to_json(cfg))
    metric = result["main"][0]
    return {
        "system": name,
        "task": cls.task,
        "run": str(folder),
        "metric": metric,
        "data": f"{result['data']['name']} ({result['data']['kind']})",
        UNTRAINED: result["baselines"][UNTRAINED][metric],
        "trained": result["metrics"][metric],
        "seconds": round(time.monotonic() - began, 1),
    }
