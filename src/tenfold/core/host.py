"""What of its host this process may use: a container or a queue may grant it a part only."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

OWN_GROUPS = Path("/proc/self/cgroup")
GROUPS = Path("/sys/fs/cgroup")
"""Where Linux shows the control groups, the first version's in a folder for each controller."""


def cores() -> int:
    """Cores that may run at full rate: those it is bound to, no more than its groups grant time."""
    bound = getattr(os, "sched_getaffinity", None)  # Linux has it
    found = len(bound(0)) if bound else os.cpu_count() or 1
    for group in _groups("cpu"):
        words = _text(group / "cpu.max").split()
        if not words:  # the first version's
            words = [_text(group / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")]
        if len(words) == 2 and all(word.isdecimal() for word in words):  # else it has no limit
            found = min(found, int(words[0]) // max(1, int(words[1])))
    return max(1, found)


def memory_bytes() -> int:
    """Memory of the host, or less where its groups grant less."""
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for group in _groups("memory"):
        limit = _text(group / "memory.max") or _text(group / "memory.limit_in_bytes")
        if limit.strip().isdecimal():
            found = min(found, int(limit))
    return found


def _groups(controller: str) -> Iterator[Path]:
    """Folders of the groups that limit this process: its own, and all above."""
    for line in _text(OWN_GROUPS).splitlines():
        _, kinds, path = line.split(":", 2)
        if kinds and controller not in kinds.split(","):
            continue
        root = GROUPS / controller if kinds else GROUPS
        own = root / path.lstrip("/")
        yield from (place for place in (own, *own.parents) if place.is_relative_to(root))


def _text(file: Path) -> str:
    try:
        return file.read_text("utf-8", errors="replace")
    except OSError:  # not Linux, or not this version's
        return ""
