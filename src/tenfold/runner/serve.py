"""A labelling page of a trained system: opened, served, and its network trained on the answers."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import DEVNULL, STDOUT, Popen, TimeoutExpired
from typing import Any

from tenfold.core import dist
from tenfold.core.capabilities import Serves
from tenfold.core.errors import require_file_or_folder
from tenfold.core.system import System
from tenfold.systems import refusal, system_class
from tenfold.web.jobs import Report
from tenfold.web.server import require_packages
from tenfold.web.server import serve as serve_page

from .use import Device
from .weights import load, system_of, weights_of

MODELS = "models"
"""Folder of the runs that were trained on a page's answers, numbered from 1."""


def serve(
    name: str, run: Path, images: Path, out: Path | None, port: int, options: Any = None,
    device: Device = "auto", say: Callable[[str], None] = print,
) -> None:  # fmt: skip
    """Serve the labelling page of a run until SIGINT or SIGTERM.

    Args:
        name: System that the run is of.
        run: A run folder or a weights file.
        images: Folder of photos.
        out: Where answers are kept; None is <name of the folder>-labels beside it.
        port: Where to listen on 127.0.0.1; 0 is any that is free.
        options: Options of the class of the system's `page_options`; None takes the defaults.
        device: Device to compute on; auto takes a GPU if there is one.
        say: Told the addresses.

    Raises:
        FileNotFoundError: The run or the photos are not there.
        ValueError: The run is of another system, or one without a page; the photos, the answers or
            the port cannot be used.
        ModuleNotFoundError: The extra `web` is not installed.
    """
    require_packages()
    require_file_or_folder(images, "--images")
    images = images.resolve()
    folder = out if out is not None else images.with_name(f"{images.name}-labels")
    found = system_of(run)
    if found != name:
        raise ValueError(f"{run} is a run of {found}, not of {name}: tenfold serve {found} {run}")
    cls = system_class(name)
    with dist.started(device) as world:
        last = newest(folder)
        is_own = last is not None and system_of(last) == name  # a folder may have two pages
        system = load(cls, last if last is not None and is_own else run)
        if not isinstance(system, Serves):
            raise refusal(name, "serve")
        system.model.to(world.device)

        def train(words: list[str], report: Report) -> System[Any]:
            made = trained(name, words, folder, report)
            made.model.to(world.device)
            return made

        page = system.labelling(images, folder, options or system.page_options, train)
        try:
            serve_page(page, port, folder, say)
        finally:
            page.close()


def newest(folder: Path) -> Path | None:
    """The last run that was trained on the answers of a page; None if there is none."""
    runs = [path for path in (folder / MODELS).glob("*") if path.name.isdecimal()]
    done = [path for path in runs if (path / "result.json").is_file()]
    return max(done, key=lambda path: int(path.name), default=None)


def trained(name: str, words: list[str], folder: Path, report: Report) -> System[Any]:
    """Train in a process of its own, which the page does not wait for, and open the result.

    Args:
        name: The system.
        words: What `tenfold train NAME` is to be told, but for the run folder.
        folder: Folder of the page.
        report: Told how far it is; what it raises ends the training.

    Raises:
        ValueError: The training failed; the error is its last line.
    """
    last = newest(folder)
    run = folder / MODELS / str(1 if last is None else int(last.name) + 1)
    log = run.with_suffix(".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    # an interrupted training of other answers is not continued
    command = [sys.executable, "-m", "tenfold", "train", name, *words, "--run.folder", str(run)]
    if (run / "config.json").is_file():
        command.append("--run.fresh")
    with log.open("wb") as output:
        child = Popen(
            command, stdin=DEVNULL, stdout=output, stderr=STDOUT,
            preexec_fn=_politely,
        )  # fmt: skip
    try:
        while True:
            try:
                code = child.wait(0.3)
                break
            except TimeoutExpired:
                report(*_progress(run))
    except BaseException:
        child.send_signal(signal.SIGTERM)
        child.wait()
        raise
    if code:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise ValueError(f"{lines[-1] if lines else f'exit code {code}'} ({log})")
    weights_of(run)
    return load(system_class(name), run)


def _politely() -> None:
    """Leave the processor to the page, and Ctrl-C to it too."""
    os.nice(10)
    os.setpgid(0, 0)


def _progress(run: Path) -> tuple[float, str]:
    """How far a training is, by the log that it writes."""
    try:
        lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        last = json.loads(lines[-1])
        planned = json.loads((run / "config.json").read_text(encoding="utf-8"))["config"]["steps"]
        if last["step"] >= planned:
            return 1.0, "measuring and writing"
        return last["step"] / max(1, planned), f"step {last['step']} of {planned}"
    except (OSError, ValueError, LookupError, TypeError):
        return 0.0, "opening the pictures"
