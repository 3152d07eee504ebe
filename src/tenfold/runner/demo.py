"""`tenfold demo`: every system at demo scale, and whether it learns, on one page."""

from __future__ import annotations

import math
import multiprocessing
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import torch

from tenfold.core import checkpoint, host, lock, run_folder
from tenfold.core.config import to_json
from tenfold.core.dist import pick_device
from tenfold.core.errors import exit_code, message
from tenfold.files import read_json
from tenfold.printable import printable
from tenfold.report.html import write_demo_page, write_run_page
from tenfold.report.results import read_result, read_run
from tenfold.systems import SYSTEMS, system_class
from tenfold.viz.page import require_own_page

from .train import train, with_precision
from .weights import completed, construct

UNTRAINED = "untrained"
"""Row of a table for the network as it was before the training."""
AT_ONCE = 2
"""Systems trained at the same time, where there are as many cores: small networks do not fill
several cores each."""


def run_demo(
    names: Sequence[str], out: Path, fresh: bool = False
) -> tuple[Path, list[dict[str, Any]]]:
    """Train each system's demo, and write the page; returns page and rows.

    Runs that are finished are kept; with `fresh`, one of another configuration is deleted and
    started over. A system that fails does not stop the others: its row has `error`, and the
    `exit_code` of that error. The page keeps what earlier calls left in the folder, of systems
    that are not among `names` too; the rows that are returned are of `names`.

    Raises:
        ValueError: `out` holds files of others that would be in the way; nothing was touched.
    """
    names = list(dict.fromkeys(names))  # twice the same would be two trainings of one folder
    with lock.locked(out, "making the demo"):
        return _made(names, out, fresh, _own_rows(names, out))


def _own_rows(names: Sequence[str], out: Path) -> list[dict[str, Any]]:
    """The rows of an earlier call; ValueError if what would be written to is not the demo's."""
    require_own_page(out / "report.html")
    rows = read_json(out / "demo.json") if (out / "demo.json").exists() else []
    if not isinstance(rows, list) or not all(
        isinstance(row, dict) and "system" in row for row in rows
    ):
        raise ValueError(f"{out / 'demo.json'} was not written by tenfold; give another --out")
    for folder in sorted(f for name in names for f in out.glob(f"{name}-demo*")):
        if folder.is_symlink() or not folder.is_dir():
            raise ValueError(f"{folder} is no folder of this demo; give another --out")
        if run_folder.read_config(folder) is None:
            run_folder.require_new(folder)
    return rows


def _made(
    names: Sequence[str], out: Path, fresh: bool, before: list[dict[str, Any]]
) -> tuple[Path, list[dict[str, Any]]]:
    jobs = min(AT_ONCE, host.cores(), len(names))
    minutes = math.ceil(sum(SYSTEMS[name].minutes for name in names) / jobs)
    print(
        f"tenfold demo: {len(names)} systems, about {minutes} min on {AT_ONCE} idle cores",
        file=sys.stderr,
    )
    rows: dict[str, dict[str, Any]] = {}
    for row in _rows(names, out, jobs, fresh):
        rows[row["system"]] = row
        said = row.get("error") or f"done in {row['seconds']:.0f} s"
        line = printable(f"[{len(rows)}/{len(names)}] {row['system']}: {said}")
        print(line, file=sys.stderr, flush=True)
    every = rows | _others(names, out, before)
    ordered = [every[name] for name in SYSTEMS if name in every]
    checkpoint.write_json(out / "demo.json", ordered)
    return write_demo_page(ordered, out / "report.html"), [rows[name] for name in names]


def _others(
    names: Sequence[str], out: Path, before: list[dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Rows of systems that are not among the names: as their runs are now, else as they failed."""
    failed = {row["system"]: str(row["error"]) for row in before if "error" in row}
    found = {}
    for name in SYSTEMS.keys() - set(names):
        try:
            row = _finished(name, out)
        except (ValueError, OSError) as error:
            failed[name], row = f"{type(error).__name__}: {message(error)}", None
        if row is not None:
            found[name] = row
        elif name in failed:
            found[name] = {"system": name, "task": SYSTEMS[name].task, "error": failed[name]}
    return found


def _rows(names: Sequence[str], out: Path, jobs: int, fresh: bool) -> Iterable[dict[str, Any]]:
    if jobs == 1:
        yield from (_caught(name, out, fresh) for name in names)
        return
    threads = max(1, host.cores() // jobs)
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, spawn, torch.set_num_threads, (threads,)) as pool:
        # the longest first: what is left for the end is short
        ordered = sorted(names, key=lambda name: -SYSTEMS[name].minutes)
        for future in as_completed([pool.submit(_caught, name, out, fresh) for name in ordered]):
            yield future.result()


def _caught(name: str, out: Path, fresh: bool) -> dict[str, Any]:
    try:
        return _demo_of(name, out, fresh)
    except Exception as error:
        failed = {
            "system": name,
            "task": SYSTEMS[name].task,
            "error": f"{type(error).__name__}: {message(error)}",
            "exit_code": exit_code(error),
        }
    try:  # what an earlier call made is still to be seen
        return (_finished(name, out) or {}) | failed
    except (ValueError, OSError):  # it may be why this one failed
        return failed


def _demo_of(name: str, out: Path, fresh: bool) -> dict[str, Any]:
    began = time.monotonic()
    cls = system_class(name)
    cfg, folder = completed(cls, cls.recipes["demo"]), out / f"{name}-demo"
    # a run says what "auto" was where it was trained
    same, _ = with_precision(cfg, folder, False, pick_device(cfg.loop.device))
    identity = {"system": name, "recipe": "demo", "config": to_json(same)}
    saved = run_folder.read_config(folder)
    changed = saved is not None and run_folder.changes(saved, identity, same)
    if changed and not fresh:
        raise ValueError(
            f"{folder} holds a run of another configuration ({changed[0]}); --fresh deletes it and "
            "starts over, or give another --out"
        )
    result = train(name, cls, "demo", cfg, folder, fresh=bool(changed))
    if UNTRAINED not in result["baselines"]:
        before = construct(cls, cfg)
        before.model.eval()
        result["baselines"][UNTRAINED] = before.evaluate("test").metrics
        with lock.locked(folder, "making the demo"):
            checkpoint.write_json(folder / "result.json", result)
            write_run_page(folder, to_json(cfg))
    row = _finished(name, out)
    assert row is not None
    row["seconds"] = max(round(time.monotonic() - began, 1), row["seconds"])
    return row


def _finished(name: str, out: Path) -> dict[str, Any] | None:
    """The row of a system whose demo is trained; None if it is not.

    Raises:
        ValueError: A file of the run that the page shows is damaged.
    """
    folder = out / f"{name}-demo"
    saved = run_folder.read_config(folder)
    is_demo = saved is not None and (saved["system"], saved["recipe"]) == (name, "demo")
    if not is_demo or not (folder / "result.json").exists():
        return None
    read_run(folder)  # the page reads all of it
    result = read_result(folder / "result.json")
    metric = result["main"][0]
    untrained = result["baselines"].get(UNTRAINED, {})
    return {
        "system": name,
        "task": SYSTEMS[name].task,
        "run": str(folder),
        "metric": metric,
        "data": f"{result['data']['name']} ({result['data']['kind']})",
        UNTRAINED: untrained.get(metric),  # not yet there if a call was killed before
        "trained": result["metrics"][metric],
        "seconds": round(result["seconds"] + result.get("seconds_evaluation", 0.0), 1),
    }
