"""Markdown of results: text that stays in its cell, tables, numbers with their spread."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .results import decimals, number


def md(text: object) -> str:
    """Text that stays in its Markdown table cell and brings no HTML."""
    flat = " ".join(str(text).split())
    return flat.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")


def md_table(head: Sequence[str], rows: Sequence[Sequence[str]], words: int = 1) -> list[str]:
    """A Markdown table; the first `words` columns are text, the others numbers."""
    rule = ["---" if i < words else "---:" for i in range(len(head))]
    return [f"| {' | '.join(line)} |" for line in (list(head), rule, *map(list, rows))]


def spread(mean: float, deviation: float | None, places: int | None = None) -> str:
    """Mean ± standard deviation over the seeds, both with the same decimals."""
    if not math.isfinite(mean):
        return "–"
    places = decimals([mean, deviation or 0.0]) if places is None else places
    return number(mean, places) + ("" if deviation is None else f" ± {number(deviation, places)}")


def signed(value: int | float) -> str:
    """A difference with its sign."""
    return ("+" if value > 0 else "") + number(value)
