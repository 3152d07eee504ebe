"""One process or many: the same code under `torchrun` (gloo on CPU, NCCL on GPU)."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

import torch
import torch.distributed as dist

from tenfold.printable import Lines

from . import flight, watchdog
from .config import differences
from .watchdog import watched


@dataclass(frozen=True)
class World:
    """Place of this process among all; a lone process is rank 0 of 1."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """True on the process that writes files and speaks."""
        return self.rank == 0

    def barrier(self, patient: bool = False) -> None:
        """Wait for all processes; `patient` if one may work for long (reading data, writing).

        A patient wait has no time limit, but ends like all others when a process dies or fails.
        """
        if self.size == 1 or (patient and watchdog.meet()):
            return
        with watched("barrier", "all"):
            dist.barrier()

    def maximum(self, values: torch.Tensor) -> torch.Tensor:
        """Element-wise maximum over all processes, in place: how they agree to stop."""
        if self.size > 1:
            with watched("maximum of the stop flags", "all"):
                dist.all_reduce(values, op=dist.ReduceOp.MAX)
        return values

    def mean(self, values: dict[str, float]) -> dict[str, float]:
        """Mean of each value over all processes, which must have the same keys."""
        if self.size == 1:
            return values
        shared = torch.tensor(list(values.values()), dtype=torch.float64, device=self.device)
        with watched("mean of the losses", "all"):
            dist.all_reduce(shared)
            return dict(zip(values, (shared / self.size).tolist(), strict=True))

    def gather(self, value: Any) -> list[Any]:
        """A small value (what JSON can hold) of every process, in order of rank."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        with watched("all_gather of a value", "all"):
            dist.all_gather_object(found, json.dumps(value))
        return [json.loads(v) for v in found]

    def gather_objects(self, value: Any) -> list[Any]:
        """A value of every process, in order of rank: results of work that they shared."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        with watched("all_gather of results", "all"):
            dist.all_gather_object(found, value)
        return found

    def to_first(self, value: Any) -> list[Any]:
        """A value of every process, in order of rank, on the first; nothing on the others.

        For what is large: `gather_objects` sends everything to everyone.
        """
        if self.size == 1:
            return [value]
        found: list[Any] | None = [None] * self.size if self.is_first else None
        with watched("gather to the first process", "all"):
            dist.gather_object(value, found)
        return found or []

    def from_first(self, values: list[Any]) -> Any:
        """Its own of the values, one a process, that the first has; the others give any list."""
        if self.size == 1:
            return values[0]
        own: list[Any] = [None]
        with watched("scatter from the first process", "all"):
            dist.scatter_object_list(own, values if self.is_first else None)
        return own[0]

    def require_same(self, what: dict[str, Any]) -> None:
        """Raise on every process, naming ranks and fields, unless all hold the same values.

        `what` is anything JSON can hold, nested as one likes.
        """
        first, *others = self.gather(what)
        found = {rank: differences(first, other) for rank, other in enumerate(others, 1)}
        # usually all of a host differ in the same way
        groups: dict[str, list[str]] = {}
        for rank, lines in found.items():
            if lines:
                groups.setdefault("\n  ".join(lines), []).append(str(rank))
        if groups:
            said = [
                f"rank {', '.join(ranks)} differs from rank 0 in\n  {text}"
                for text, ranks in groups.items()
            ]
            said.append("All processes must be started with the same command and the same code.")
            raise ValueError(Lines("\n".join(said)))

    def share(self, batch_size: int) -> slice:
        """The rows of a global batch that belong to this process; sizes must divide."""
        if batch_size % self.size:
            raise ValueError(
                f"the batch of {batch_size} cannot be shared by {self.size} processes equally; "
                f"use a multiple of {self.size}"
            )
        own = batch_size // self.size
        return slice(self.rank * own, (self.rank + 1) * own)


def local(x: torch.Tensor) -> torch.Tensor:
    """This process's share of a tensor that several hold together (a DTensor); else the tensor.

    Shares memory with it; what is asked of it is no exchange between processes.
    """
    own = getattr(x, "to_local", None)
    return x if own is None else own()


def pick_device(wish: Literal["auto", "cpu", "cuda"], local_rank: int = 0) -> torch.device:
    """The device to train on; asking for a GPU that is not there is an error.

    Each process of a host has a GPU of its own, that of its `local_rank`.
    """
    if wish == "cuda" and not torch.cuda.is_available():
        raise ValueError("loop.device is cuda, but torch sees no GPU; use loop.device=cpu")
    if wish == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    count = torch.cuda.device_count()
    if local_rank >= count:
        raise ValueError(
            f"process {local_rank} of this host has no GPU of its own: torch sees {count}; start "
            f"{count} processes a host at most, or compute on the CPU (train: --loop.device cpu, "
            "evaluate and predict: --device cpu)"
        )
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
    wish: Literal["auto", "cpu", "cuda"] = "auto",
    minutes: float | None = None,
    limit: float = 600.0,
    knob: str = "",
) -> Iterator[World]:
    """Join the process group that `torchrun` announces, if any; all leave it together.

    After `limit` seconds in one watched operation the watch names who is not there and ends the
    job; `knob` is how a user changes that limit. `minutes` is how long torch itself lets any
    collective wait, by default a little longer. What the body raises on one process ends all.
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
    patience = timedelta(seconds=limit + 30 if minutes is None else 60 * minutes)
    rank = int(os.environ["RANK"])
    with watchdog.over(rank, size, limit, knob):
        watchdog.meet()  # some may start later
        if device.type == "cuda":
            flight.switch_on()
        with watched("joining of the process group", "all"):
            dist.init_process_group(
                "nccl" if device.type == "cuda" else "gloo",
                store=watchdog.job_store("group", patience),
                rank=rank,
                world_size=size,
                timeout=patience,
            )
        watchdog.meet()  # who fails before all are connected makes torch complain elsewhere
        yield World(rank, size, device)
    # not after an error: collectives that will never end would be waited for
    dist.destroy_process_group()
