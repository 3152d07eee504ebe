"""Batches made ahead by threads, and moved to the device."""

from __future__ import annotations

from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import torch

from .stage import Batch

CPU = torch.device("cpu")


def prefetched(
    batches: Callable[[int], Batch], first: int, end: int, workers: int,
    device: torch.device = CPU,
) -> Generator[Batch]:  # fmt: skip
    """Batches first..end-1 in order, made ahead by threads; neither order nor content changes.

    For a GPU they lie in memory that it reads from by itself.
    """
    pins = device.type == "cuda"
    begin = partial(torch.cuda.set_device, device) if pins else None  # a thread begins with GPU 0

    def made(index: int) -> Batch:
        return _mapped(torch.Tensor.pin_memory, batches(index)) if pins else batches(index)

    if workers == 0:
        for index in range(first, end):
            yield made(index)
        return
    with ThreadPoolExecutor(workers, thread_name_prefix="batches", initializer=begin) as pool:
        ahead: list[Future[Batch]] = []
        following = first
        try:
            for _ in range(first, end):
                while following < end and len(ahead) < 2 * workers:
                    ahead.append(pool.submit(made, following))
                    following += 1
                yield ahead.pop(0).result()
        finally:
            for future in ahead:
                future.cancel()


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Move every tensor of a batch (dicts, lists and tuples of them) to the device."""
    return _mapped(lambda tensor: tensor.to(device, non_blocking=True), batch)


class Copies:
    """Copies of batches to a device that go on while it makes the step before."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def __call__(self, batch: Batch) -> Batch:
        """Return the batch on the device, for what is asked of the device from now on."""
        if self.stream is None:
            return to_device(batch, self.device)
        with torch.cuda.stream(self.stream):
            moved = to_device(batch, self.device)
        current = torch.cuda.current_stream(self.device)
        current.wait_stream(self.stream)

        def used(tensor: torch.Tensor) -> torch.Tensor:
            tensor.record_stream(current)  # its memory is not given to a later batch before
            return tensor

        return _mapped(used, moved)


def _mapped(change: Callable[[torch.Tensor], torch.Tensor], batch: Batch) -> Batch:
    """A batch with every tensor changed, in dicts, lists and tuples, too."""
    if isinstance(batch, torch.Tensor):
        return change(batch)
    if isinstance(batch, dict):
        return {k: _mapped(change, v) for k, v in batch.items()}
    if isinstance(batch, (list, tuple)):
        moved = [_mapped(change, v) for v in batch]
        return type(batch)(*moved) if hasattr(batch, "_fields") else type(batch)(moved)
    return batch
