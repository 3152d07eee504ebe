"""Memory that is freed stays with the process while it trains on a CPU."""

from __future__ import annotations

import ctypes
import platform

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Numbers of the settings in glibc's malloc.h."""
KEPT, FROM_HEAP = 2**31 - 1, 2**25
"""Bytes: free memory that is not given back; largest tensor that takes such memory (glibc allows no
more in all its versions)."""


def keep_freed_memory() -> bool:
    """Let glibc keep what is freed for what is allocated next; True if it will.

    By default it gives memory back to the system after most steps, and the page faults of the next
    one can be a sixth of its time. The peak of memory stays the same.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    # the second first: set alone, the first would fix the other at 128 kB, which is worse
    return bool(libc.mallopt(MMAP_THRESHOLD, FROM_HEAP) and libc.mallopt(TRIM_THRESHOLD, KEPT))
