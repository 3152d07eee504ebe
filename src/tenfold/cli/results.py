"""Metrics in the terminal: one table a group."""

from __future__ import annotations

from typing import Any

from .arguments import add_row, say, show, table_of

MOST_ROWS = 16
"""Rows of a table in the terminal; of longer ones only those that the system shows first."""


def number(value: float) -> str:
    """Two digits after the point, or four that count where that would be nothing."""
    return f"{value:.2f}" if abs(value) >= 0.1 or value == 0 else f"{value:.4g}"


def show_result(result: dict[str, Any]) -> None:
    """Print metrics: one table a group, rows by the middle part, methods side by side."""
    data = result["data"]
    say(f"data: {data['name']} ({data['kind']}{', ' + data['note'] if data['note'] else ''})")
    named = {result["recipe"]: result["metrics"], **result["baselines"]}
    labels = result.get("labels", {})
    groups: dict[str, None] = {k.split("/")[0]: None for k in result["metrics"]}
    for group in groups:
        columns = list(dict.fromkeys(
            k.split("/")[-1] for k in result["metrics"] if k.startswith(group + "/")
        ))  # fmt: skip
        table = table_of(group, "", "by", *[labels.get(c, c) for c in columns])
        rows = list(dict.fromkeys(
            k.rsplit("/", 1)[0] for k in result["metrics"] if k.startswith(group + "/")
        ))  # fmt: skip
        if len(rows) > MOST_ROWS:  # the page has them all
            first = {k.split("/")[1] for k in result.get("main", [])}
            rows = [r for r in rows if r.partition("/")[2] in first] or rows[:MOST_ROWS]
        for row in rows:
            for method, metrics in named.items():
                cells = [metrics.get(f"{row}/{c}") for c in columns]
                shown = ["" if v is None else number(v) for v in cells]
                add_row(table, row.partition("/")[2], method, *shown)
        show(table)
    for note in result["notes"]:
        say(f"* {note}")
