"""Variables of files that are not read, each with the reason: none is lost in silence."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from . import names
from .source import Part, Stored


def left_out(
    parts: list[Part],
    upper: Collection[str],
    levels: Collection[int],
    surface: Collection[str],
    constants: Collection[str],
) -> tuple[str, ...]:
    """One line for each variable (and level) of the files that is none of those chosen."""
    chosen = {"upper": upper, "surface": surface, "constants": constants}
    used, reasons = set[tuple[str, str]](), dict[tuple[str, str], str]()
    for part in parts:
        reasons |= {(name, ""): reason for name, reason in part.skipped.items()}
        for claims in _claims(part):
            # By kind, too: where z is read on levels, another z may be that of the ground.
            taken = {
                (stored.name, kind)
                for stored, kind, ours, level in claims
                if ours in chosen[kind] and (kind != "upper" or level in levels)
            }
            used |= taken
            stored, kind, ours, _ = claims[-1]
            if not taken:
                reasons.setdefault((stored.name, kind), _reason(stored.name, ours))
    lines = [f"{key[0]} {reason}" for key, reason in sorted(reasons.items()) if key not in used]
    return (*lines, *_levels(parts, upper, levels))


def _claims(part: Part) -> Iterable[list[tuple[Stored, str, str, int]]]:
    """For each stored variable what it may be: its kind, our name, a level or 0."""
    found: dict[int, list[tuple[Stored, str, str, int]]] = {}
    for name, by_level in part.upper.items():
        for level, (stored, _) in by_level.items():
            found.setdefault(id(stored), []).append((stored, "upper", name, level))
    for kind, table in (("surface", part.surface), ("constants", part.constants)):
        for name, stored in table.items():
            found.setdefault(id(stored), []).append((stored, kind, name, 0))
    return found.values()


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
