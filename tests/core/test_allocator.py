"""Memory that stays with the process."""

from __future__ import annotations

import resource

import pytest
import torch

from tenfold.core.allocator import keep_freed_memory


def faults() -> int:
    """Pages that the system gave to this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def test_freed_memory_is_taken_again() -> None:
    if not keep_freed_memory():
        pytest.skip("the C library is not glibc")
    torch.ones(2**22)
    before = faults()
    for _ in range(20):
        torch.ones(2**22)  # 4096 pages
    assert faults() - before < 20 * 4096 / 2
