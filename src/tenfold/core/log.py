"""Logs of a run: a line of JSON a step in `metrics.jsonl`, a progress bar for the person."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tenfold.extras import install
from tenfold.files import append_line, parse_json, write_text

from . import host
from .dist import World


class MetricsLog:
    """Appends to `metrics.jsonl`; a resumed stage first drops what it will write again.

    With a board, the same numbers go to TensorBoard's files beside it, a folder a stage.
    """

    def __init__(self, path: Path, write: bool, board: bool = False) -> None:
        """Raises ModuleNotFoundError if a board is wanted and TensorBoard is not installed."""
        self.path = path
        self.enabled = write
        self._board = _board() if board else None
        self._writers: dict[str, Any] = {}

    def rewind(self, stage: str, step: int, known: list[str]) -> None:
        """Drop lines of `stage` after `step`, of stages not in `known`, and a half-written line."""
        if not self.enabled:
            return
        if self._board is not None:  # TensorBoard then hides what was written after that step
            folder = self.path.parent / "tensorboard" / stage
            self._writers[stage] = self._board(str(folder), purge_step=step + 1)
        if not self.path.exists():
            return
        kept = []
        text = self.path.read_text(encoding="utf-8", errors="replace")
        for number, line in enumerate(text.splitlines(), 1):
            try:
                entry = parse_json(line)
            except ValueError:
                continue
            try:
                known_stage, own_step = entry["stage"] in known, entry["step"] + 0
            except (TypeError, KeyError) as error:
                raise ValueError(
                    f"{self.path} line {number} has no stage or no number as its step: "
                    f"{line[:60]}; delete that line"
                ) from error
            if known_stage or (entry["stage"] == stage and own_step <= step):
                kept.append(line)
        write_text(self.path, "".join(line + "\n" for line in kept))

    def add(self, stage: str, step: int, split: str, values: Mapping[str, float]) -> None:
        """Write one line."""
        if not self.enabled:
            return
        entry = {"stage": stage, "step": step, "split": split, **values}
        append_line(self.path, json.dumps(entry))
        if stage in self._writers:
            for key, value in values.items():
                self._writers[stage].add_scalar(f"{split}/{key}", value, step)
            self._writers[stage].flush()


def _board() -> Any:
    """TensorBoard's writer, by torch."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ModuleNotFoundError(
            f"--loop.tensorboard needs the package tensorboard: {install('tensorboard')}",
            name="tensorboard",
        ) from error
    return SummaryWriter


def say(line: str) -> None:
    """Tell the person who waits."""
    print(line, file=sys.stderr, flush=True)


class Bar:
    """Progress of one stage: a bar with ETA on a terminal, a line every ten seconds elsewhere."""

    def __init__(self, title: str, total: int, start: int, show: bool) -> None:
        self.title, self.total, self.start = title, total, start
        self.show = show
        self.began = self.spoke = time.monotonic()
        console = Console(stderr=True)
        self.rich: Progress | None = None
        if show and console.is_terminal:
            self.rich = Progress(
                TextColumn("{task.description}"),
                BarColumn(16),  # what stands beside it is longer
                MofNCompleteColumn(),
                TextColumn("{task.fields[note]}"),
                TimeRemainingColumn(),
                console=console,
            )
            self.rich.start()
            self.task = self.rich.add_task(title, total=total, completed=start, note="")

    def update(self, done: int, note: str) -> None:
        """Show that `done` steps are behind us."""
        if self.rich is not None:
            self.rich.update(self.task, completed=done, note=note)
        elif self.show and time.monotonic() - self.spoke > 10:
            self.spoke = time.monotonic()
            rate = (self.spoke - self.began) / max(1, done - self.start)
            left = int(rate * (self.total - done))
            say(f"{self.title}: {done}/{self.total}  {note}  {left // 60}:{left % 60:02d} left")

    def close(self) -> None:
        """Take the bar off the screen."""
        if self.rich is not None:
            self.rich.stop()


def cpu_name() -> str:
    """Name of the CPU as its maker gives it, or whatever the platform says."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _commit() -> str:
    """The commit of the source tree that runs, with a mark if it was changed; empty if unknown."""
    here = Path(__file__).parent
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude", "*"],
            cwd=here, capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def environment(world: World) -> dict[str, Any]:
    """Machine, versions, command, date and commit of a run, for `environment.json` and claims."""
    from tenfold import __version__

    gpu = torch.cuda.get_device_name(world.device) if world.device.type == "cuda" else ""
    return {
        "tenfold": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "cpu": cpu_name(),
        "cores": host.cores(),
        "threads": torch.get_num_threads(),
        "device": gpu or str(world.device),
        "world_size": world.size,
        "commit": _commit(),
        "command": " ".join(["tenfold", *sys.argv[1:]]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
