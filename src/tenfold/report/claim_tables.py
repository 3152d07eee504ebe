"""The tables of a claim: a row a method with its cost, and every metric of every method."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import fmean, median, stdev
from typing import Any

from .markdown import md, md_table, spread
from .results import best, decimals, duration, is_number, lookup, numbers
from .tables import layout, marks_of, title


def overview(results: Mapping[str, Any]) -> list[str]:
    """A row a method: what it starts from, its cost, and the metrics of `results["columns"]`.

    Those that start from nothing come first.
    """
    columns, methods = results.get("columns") or [], results["methods"]
    if not columns:
        return []
    cells = {
        key: _marked(_values(methods, key), methods, results.get("better") or {}, key)
        for key in columns
    }
    rows = [
        [md(name), *_cost(one), *(cells[key][name] for key in columns)]
        for name, one in sorted(methods.items(), key=lambda item: bool(item[1].get("after")))
    ]
    titles = [md(title(key, results.get("labels"))) for key in columns]
    head = ["method", "starts from", "steps", "time of a run", *titles]
    return ["## A row a method", "", "Mean ± standard deviation over the seeds.", "",
            *md_table(head, rows, words=2), ""]  # fmt: skip


def _values(methods: Mapping[str, Any], key: str) -> dict[str, list[float]]:
    """One metric of every method that has it, a value a seed."""
    found = {
        name: [numbers(metrics)[key] for metrics in one["metrics"] if key in numbers(metrics)]
        for name, one in methods.items()
    }
    return {name: values for name, values in found.items() if values}


def _cost(method: Mapping[str, Any]) -> list[str]:
    """Start, steps and median time of a method's own runs."""
    times = [float(s) for s in method.get("seconds") or [] if is_number(s) and s]
    return [
        md(method.get("after") or "–"),
        str(method.get("steps") or "–"),
        duration(median(times)) if times else "–",
    ]


def metric_tables(results: Mapping[str, Any]) -> list[str]:
    """All metrics: a table a group, in which every method has a line beside the others."""
    methods = results["methods"]
    values: dict[str, dict[str, list[float]]] = {}
    for name, one in methods.items():
        for metrics in one["metrics"]:
            for key, value in numbers(metrics).items():
                values.setdefault(key, {}).setdefault(name, []).append(value)
    better = dict(results.get("better") or {})
    for claim in results["claims"]:
        better.setdefault(claim["metric"], claim["better"])
    titles = results.get("labels") or {}
    lines: list[str] = []
    for grid in layout(list(values)):
        marked = {
            key: _marked(values[key], methods, better, key)
            for _, r in grid.rows
            for key in r.values()
        }
        marks = marks_of(grid, better, results.get("units"))
        group = titles.get(grid.group, grid.group) or "metrics"
        lines += [f"### {md(group + marks.caption)}", ""]
        if not grid.columns:
            head = ["metric", *map(md, methods)]
            rows = [
                [
                    md(titles.get(row[""], label) + mark),
                    *(marked[row[""]][name] for name in methods),
                ]
                for (label, row), mark in zip(grid.rows, marks.rows, strict=True)
            ]
            lines += [*md_table(head, rows), ""]
            continue
        rows = [
            [
                md(titles.get(f"{grid.group}/{label}", label) + mark),
                md(name),
                *(marked[row[c]][name] if c in row else "–" for c in grid.columns),
            ]
            for (label, row), mark in zip(grid.rows, marks.rows, strict=True)
            for name in methods
            if any(name in values[key] for key in row.values())
        ]
        shown = [
            md(titles.get(c, c) + mark) for c, mark in zip(grid.columns, marks.columns, strict=True)
        ]
        head, words = ["", "method", *shown], 2
        if not any(label for label, _ in grid.rows):
            head, rows, words = head[1:], [row[1:] for row in rows], 1
        lines += [*md_table(head, rows, words), ""]
    return lines


def _marked(
    values: Mapping[str, list[float]],
    methods: Mapping[str, Any],
    better: Mapping[str, Any],
    key: str,
) -> dict[str, str]:
    """Mean ± spread of one metric for every method, the best in bold."""
    means = {name: fmean(values[name]) if name in values else None for name in methods}
    deviations = {
        name: stdev(every) if len(every) > 1 and all(map(math.isfinite, every)) else None
        for name, every in values.items()
    }
    known = [v for v in (*means.values(), *deviations.values()) if v is not None]
    places, marks = decimals(known), best(list(means.values()), lookup(key, better))
    out = {}
    for (name, mean), mark in zip(means.items(), marks, strict=True):
        text = "–" if mean is None else spread(mean, deviations[name], places)
        out[name] = f"**{text}**" if mark else text
    return out
