"""Seeds that follow from names: (seed, stage, step, rank) -> generator, independent of history."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def seed_of(*parts: int | str) -> int:
    """A 63-bit seed that depends on every part and on nothing else (not on `PYTHONHASHSEED`)."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(*parts: int | str) -> torch.Generator:
    """A CPU generator seeded by `seed_of(*parts)`."""
    return torch.Generator().manual_seed(seed_of(*parts))


def seed_everything(*parts: int | str) -> None:
    """Seed Python, NumPy and torch (all devices): once before a system is built, then every step.

    Seeding every step is what makes resume exact: no generator state has to be saved.
    """
    value = seed_of(*parts)
    random.seed(value)
    np.random.seed(value % 2**32)
    torch.manual_seed(value)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Give Python's, NumPy's and torch's generators back as they were: they are the caller's."""
    ours, arrays, tensors = random.getstate(), np.random.get_state(), torch.get_rng_state()
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    try:
        yield
    finally:
        random.setstate(ours)
        np.random.set_state(arrays)
        torch.set_rng_state(tensors)
        if devices:
            torch.cuda.set_rng_state_all(devices)
        else:  # a seed waits there for the first use of a device
            torch.cuda.manual_seed_all(torch.initial_seed())
