"""Work that the processes of a job share: files to predict, batches to measure."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from . import dist
from .log import Bar

T = TypeVar("T")


def divided(count: int, work: Callable[[int], T], title: str = "") -> list[T]:
    """Return [work(0), ..., work(count - 1)] on every process, each item computed by one of them.

    Item i is the work of process i modulo their number; results are put in order before anything
    is made of them, so that a sum over them is equal for any number of processes. They travel
    between processes: let `work` write what is large and return what is small.

    Args:
        count: Number of items; the same on all processes.
        work: Index of an item -> its result, which must survive pickling. An error in it ends the
            job.
        title: What a progress bar of work that takes long says; empty shows none.
    """
    world = dist.current()
    own: list[T] = []
    bar = Bar(title, count, 0, bool(title) and world.is_first)
    try:
        for index in range(world.rank, count, world.size):
            own.append(work(index))
            bar.update(index + 1, "")
    finally:
        bar.close()
    if world.size == 1:
        return own
    world.barrier(patient=True)  # shares need not take equally long
    shares = world.gather_objects(own)
    return [shares[index % world.size][index // world.size] for index in range(count)]
