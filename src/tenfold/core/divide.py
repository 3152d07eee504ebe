"""Work that the processes of a job share: files to predict, batches to measure."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

from tenfold.printable import printable

from . import dist
from .log import Bar

T = TypeVar("T")
X = TypeVar("X")


class Recorded(Protocol):
    """The part of an answer that is kept when the next input is read."""

    @property
    def problem(self) -> str:
        """Reason why the input cannot be read; empty if it was answered."""


R = TypeVar("R", bound=Recorded)


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


def answered(
    inputs: Path,
    count: int,
    read: Callable[[int], X],
    answer: Callable[[int, X], R],
    unread: Callable[[int, str], R],
) -> list[R]:
    """Read and answer pictures, each by one process, with one in memory at a time.

    Args:
        inputs: A picture or a film, or the folder of them.
        count: Number of pictures.
        read: Number of a picture -> the picture.
        answer: Number and picture -> what is kept of the answer, when its files are written.
        unread: Number and reason -> what is kept of one that cannot be read.

    Returns:
        What is kept of each, on every process.

    Raises:
        ValueError: A lone picture cannot be read, or none of a folder.
        OSError: A lone picture is gone, or may not be read.
    """

    def work(row: int) -> R:
        try:
            picture = read(row)
        except (ValueError, OSError) as error:  # OSError: it is gone, or may not be read
            if not inputs.is_dir():
                raise
            return unread(row, printable(str(error)))
        return answer(row, picture)

    records = divided(count, work, "pictures" if count > 1 else "")
    if all(record.problem for record in records):
        raise ValueError(f"{inputs}: none of {len(records)} pictures can be read")
    return records
