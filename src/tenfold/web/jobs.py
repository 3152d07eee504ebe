"""Long work beside a page: one piece at a time, in a thread, with progress and an end on demand."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal


class Stopped(Exception):
    """Raised in the work when its end is asked for."""


Report = Callable[[float, str], None]
"""Takes the share that is done and what is being done; raises Stopped."""


@dataclass(frozen=True)
class Progress:
    """State of the last work."""

    state: Literal["idle", "running", "done", "failed", "stopped"] = "idle"
    share: float = 0.0
    text: str = ""


class Job:
    """One piece of work at a time."""

    def __init__(self) -> None:
        self._now = Progress()
        self._guard = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, work: Callable[[Report], str]) -> None:
        """Begin work, whose result is a line about it.

        Raises:
            ValueError: Another piece is not done.
        """
        with self._guard:
            if self._now.state == "running":
                raise ValueError("training is under way already; wait for its end, or stop it")
            self._now = Progress("running")
            self._stop.clear()
            self._thread = threading.Thread(target=self._run, args=(work,), daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Ask the work to end, which it does at its next report."""
        self._stop.set()

    def join(self, seconds: float | None = None) -> None:
        """Wait for the work's end."""
        if self._thread is not None:
            self._thread.join(seconds)

    @property
    def progress(self) -> dict[str, Any]:
        """How far the work is, as JSON has it."""
        return asdict(self._now)

    def _report(self, share: float, text: str) -> None:
        if self._stop.is_set():
            raise Stopped
        self._now = Progress("running", min(max(share, 0.0), 1.0), text)

    def _run(self, work: Callable[[Report], str]) -> None:
        try:
            self._now = Progress("done", 1.0, work(self._report))
        except Stopped:
            self._now = replace(self._now, state="stopped", text="stopped; nothing was changed")
        except Exception as error:  # a thread has nobody else to tell
            traceback.print_exc()
            self._now = replace(self._now, state="failed", text=f"training failed: {error}")
