"""One process or many: the same code under `torchrun` (gloo on CPU, NCCL on GPU)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

import torch
import torch.distributed as dist


@dataclass(frozen=True)
class World:
    """Who this process is among all; a lone process is rank 0 of 1."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """True on the process that writes files and speaks."""
        return self.rank == 0

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.size > 1:
            dist.barrier()

    def largest(self, values: list[int]) -> list[int]:
        """Element-wise maximum over all processes: how they agree to stop."""
        if self.size == 1:
            return values
        shared = torch.tensor(values, dtype=torch.int64, device=self.device)
        dist.all_reduce(shared, op=dist.ReduceOp.MAX)
        return [int(v) for v in shared.tolist()]

    def mean(self, values: dict[str, float]) -> dict[str, float]:
        """Mean of each value over all processes, which must have the same keys."""
        if self.size == 1:
            return values
        shared = torch.tensor(list(values.values()), dtype=torch.float64, device=self.device)
        dist.all_reduce(shared)
        return dict(zip(values, (shared / self.size).tolist(), strict=True))

    def share(self, batch_size: int) -> slice:
        """The rows of a global batch that belong to this process; sizes must divide."""
        if batch_size % self.size:
            raise ValueError(
                f"the batch of {batch_size} cannot be shared by {self.size} processes equally; "
                f"use a multiple of {self.size}"
            )
        own = batch_size // self.size
        return slice(self.rank * own, (self.rank + 1) * own)


def pick_device(wish: Literal["auto", "cpu", "cuda"], local_rank: int = 0) -> torch.device:
    """The device to train on; asking for a GPU that is not there is an error."""
    if wish == "cuda" and not torch.cuda.is_available():
        raise ValueError("loop.device is cuda, but torch sees no GPU; use loop.device=cpu")
    if wish == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", local_rank)


def current() -> World:
    """The world as it stands, for code that is not handed one (batches, metrics)."""
    if dist.is_initialized():
        local = int(os.environ.get("LOCAL_RANK", "0"))
        gpu = dist.get_backend() == "nccl"
        device = torch.device("cuda", local) if gpu else torch.device("cpu")
        return World(dist.get_rank(), dist.get_world_size(), device)
    return World(0, 1, torch.device("cpu"))


@contextmanager
def started(
    wish: Literal["auto", "cpu", "cuda"] = "auto", minutes: float = 30.0
) -> Iterator[World]:
    """Join the process group that `torchrun` announces, if any; leave it at the end.

    `minutes` is how long a collective may wait before it is an error.
    """
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    device = pick_device(wish, local_rank)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or dist.is_initialized():
        here = current()
        yield World(here.rank, here.size, device)
        return
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo", timeout=timedelta(minutes=minutes)
    )
    try:
        yield World(dist.get_rank(), dist.get_world_size(), device)
    finally:
        dist.destroy_process_group()
