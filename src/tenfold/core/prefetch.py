"""Batches made ahead by threads, and moved to the device."""

from __future__ import annotations

from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from .stage import Batch


def prefetched(
    batches: Callable[[int], Batch], first: int, end: int, workers: int
) -> Generator[Batch]:
    """Batches first..end-1 in order, made ahead by threads; neither order nor content changes."""
    if workers == 0:
        for index in range(first, end):
            yield batches(index)
        return
    with ThreadPoolExecutor(workers, thread_name_prefix="batches") as pool:
        ahead: list[Future[Batch]] = []
        following = first
        try:
            for _ in range(first, end):
                while following < end and len(ahead) < 2 * workers:
                    ahead.append(pool.submit(batches, following))
                    following += 1
                yield ahead.pop(0).result()
        finally:
            for future in ahead:
                future.cancel()


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Move every tensor of a batch (dicts, lists and tuples of them) to the device."""
    if isinstance(batch, torch.Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, dict):
        return {k: to_device(v, device) for k, v in batch.items()}
    if isinstance(batch, (list, tuple)):
        moved = [to_device(v, device) for v in batch]
        return type(batch)(*moved) if hasattr(batch, "_fields") else type(batch)(moved)
    return batch
