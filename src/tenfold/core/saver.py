"""Checkpoints written while training goes on: a copy in memory, and a thread that writes it.

torch's own `async_save` writes a divided model; the folder is renamed into place when it is whole,
as that of any other checkpoint, so that a crash leaves the one before.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from . import checkpoint
from .dist import World
from .watchdog import watched


class Saver:
    """Writes the checkpoints of a stage, one at a time."""

    def __init__(self, folder: Path, world: World, behind: bool) -> None:
        """Prepare to write; all processes call this.

        Args:
            folder: Of the stage's checkpoints.
            world: All processes.
            behind: Let training go on meanwhile.
        """
        self.folder, self.world, self.behind = folder, world, behind
        self.writing: Future[None] | None = None
        self.group: Any = None
        if behind and world.size > 1:  # the thread's exchanges must not mix with those of training
            self.group = dist.new_group(backend="gloo")

    def save(self, step: int, state: dict[str, Any], parts: dict[str, torch.Tensor]) -> None:
        """Save the state after `step` steps (see `checkpoint.save`), when the last one is written.

        Raises what went wrong with the last one, too.
        """
        self.wait()
        if not self.behind:
            checkpoint.save(self.folder, step, state, parts, self.world)
            return
        from torch.distributed.checkpoint.staging import BlockingAsyncStager

        temporary = checkpoint.begin(self.folder, step, self.world)
        written: Callable[[], object] | None = None
        if parts or self.world.size > 1:
            written = checkpoint.write_parts_behind(temporary, parts, self.world, self.group)
        copy = BlockingAsyncStager().stage(state) if self.world.is_first else {}

        def write() -> None:
            with checkpoint.removed_on_error(temporary, self.world):
                if written is not None:  # first, so that an error removes nothing that still grows
                    written()
                if self.world.is_first:
                    checkpoint.write_state(temporary / "state.pt", copy)
            if self.world.is_first:
                checkpoint.complete_save(self.folder, step)

        thread = ThreadPoolExecutor(1, "checkpoint")
        self.writing = thread.submit(write)
        thread.shutdown(wait=False)

    def wait(self) -> None:
        """Wait until what is being written is whole, or raise what went wrong."""
        if self.writing is None:
            return
        writing, self.writing = self.writing, None
        with watched("writing of the last checkpoint", "all"):
            writing.result()
