"""Variables of files that are not read, each with the reason: none is lost in silence."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from . import names
from .source import Part


def left_out(
    parts: list[Part],
    upper: Collection[str],
    levels: Collection[int],
    surface: Collection[str],
    constants: Collection[str],
) -> tuple[str, ...]:
    """One line for each variable (and level) of the files that is none of those chosen."""
    used, reasons = set[str](), dict[str, str]()
    for part in parts:
        for name, by_level in part.upper.items():
            for level, (stored, _) in by_level.items():
                if name in upper and level in levels:
                    used.add(stored.name)
        for table, chosen in ((part.surface, surface), (part.constants, constants)):
            used |= {stored.name for name, stored in table.items() if name in chosen}
        reasons |= part.skipped
        for own, ours in _held(part):
            reasons.setdefault(own, _reason(own, ours))
    lines = [f"{name} {reason}" for name, reason in sorted(reasons.items()) if name not in used]
    return (*lines, *_levels(parts, upper, levels))


def _held(part: Part) -> Iterator[tuple[str, str]]:
    """Name in the file and ours of all that the part offers."""
    for name, by_level in part.upper.items():
        yield from ((stored.name, name) for stored, _ in by_level.values())
    for table in (part.surface, part.constants):
        yield from ((stored.name, name) for name, stored in table.items())


def _reason(own: str, ours: str) -> str:
    called = f" ({ours})" if ours != own else ""
    if ours == names.HEIGHT:
        return (
            f"{called} is geopotential height; geopotential is there, or was not asked for".strip()
        )
    if ours in (*names.UPPER, *names.SURFACE, *names.CONSTANTS):
        return f"{called} was not asked for".strip()
    if names.canonical(own) in (*names.UPPER, *names.SURFACE):
        return f"is another {names.canonical(own)}, and one is enough"
    return f"{called} is no variable of the paper: name it to take it".strip()


def _levels(parts: list[Part], upper: Collection[str], levels: Collection[int]) -> Iterator[str]:
    """Levels of chosen variables that are not read."""
    for name in upper:
        there = {level for part in parts for level in part.upper.get(name, ())}
        if more := sorted(there - set(levels), reverse=True):
            at = ", ".join(map(str, more))
            yield f"{name} at {at} hPa: not all variables have it, or it was not asked for"
