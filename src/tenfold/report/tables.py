"""Flat metrics (`mpjpe/walking/80ms`) to tables, deltas and headline numbers; no HTML here."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tenfold.viz.page import Cell, Table, Tile

from .results import best, decimals, in_order, lookup, number, numbers

ARROW = {"lower": " ↓", "higher": " ↑", "": ""}
AVERAGES = ("mean", "average", "avg", "all", "overall")


@dataclass(frozen=True)
class Grid:
    """Layout of one group's keys: rows by columns, or a plain list if `columns` is empty."""

    group: str
    columns: list[str]
    rows: list[tuple[str, dict[str, str]]]  # label, column -> key; a list has the one column ""


def layout(keys: Iterable[str]) -> list[Grid]:
    """Sort flat keys into grids: `a/b/c` is group a, row b, column c; one grid lists plain keys."""
    keys = list(dict.fromkeys(keys))
    groups: dict[str, list[str]] = {}
    for key in keys:
        groups.setdefault(key.split("/")[0] if "/" in key else "", []).append(key)
    grids = []
    for group, members in groups.items():
        if not group:
            grids.append(Grid("", [], [(key, {"": key}) for key in members]))
            continue
        rows: dict[str, dict[str, str]] = {}
        for key in members:
            parts = key.split("/")
            if len(parts) > 2:
                rows.setdefault("/".join(parts[1:-1]), {})[parts[-1]] = key
        columns = in_order([column for row in rows.values() for column in row])
        loose: dict[str, str] = {}
        overall: dict[str, str] = {}
        for key in members:
            parts = key.split("/")
            if len(parts) == 2:
                if parts[1] in columns:
                    overall[parts[1]] = key  # mpjpe/80ms beside mpjpe/walking/80ms
                elif parts[1] in rows:
                    rows[parts[1]]["overall"] = key
                else:
                    loose[parts[1]] = key
        if any("overall" in row for row in rows.values()) and "overall" not in columns:
            columns.append("overall")
        if overall:
            rows["overall"] = overall
        if rows:
            grids.append(Grid(group, columns, list(rows.items())))
        names = in_order(list(loose))
        if group in keys:  # `miou` beside `miou/car`
            names, loose = [*names, "overall"], {**loose, "overall": group}
        if len(names) > 8 or len(names) == 1:
            grids.append(Grid(group, [], [(name, {"": loose[name]}) for name in names]))
        elif names:
            grids.append(Grid(group, names, [("", {name: loose[name] for name in names})]))
    return [grid for grid in _without_repeats(grids) if grid.rows]


def _without_repeats(grids: list[Grid]) -> list[Grid]:
    """Leave out of the list of plain keys what a group already shows as its overall."""
    shown = {k for grid in grids if grid.group for _, row in grid.rows for k in row.values()}
    return [
        grid if grid.group else Grid("", [], [row for row in grid.rows if row[1][""] not in shown])
        for grid in grids
    ]


def shared(keys: Iterable[str], table: Mapping[str, Any] | None) -> str:
    """The direction or unit that these keys have in common, or nothing."""
    found = {lookup(key, table) for key in keys}
    return found.pop() if len(found) == 1 else ""


def title(key: str, labels: Mapping[str, str] | None = None) -> str:
    """A metric's name for people: its own title, or its parts with the titles they have."""
    titles = labels or {}
    if key in titles:
        return titles[key]
    first, *rest = key.split("/")
    if not rest:
        return first.replace("_", " ")
    row = "/".join(rest[:-1])
    parts = [
        titles.get(first, first),
        *([titles.get(f"{first}/{row}", row)] if row else []),
        titles.get(rest[-1], rest[-1]),
    ]
    return ", ".join(part.replace("_", " ") for part in parts)


@dataclass(frozen=True)
class Marks:
    """Units and directions of a grid: once above (`caption`), or at each row, or at each column."""

    caption: str
    rows: list[str]
    columns: list[str]


def marks_of(
    grid: Grid, better: Mapping[str, Any] | None, units: Mapping[str, Any] | None
) -> Marks:
    """Units and directions of a grid's numbers, said once where they are all alike."""
    by_row = [list(row.values()) for _, row in grid.rows]
    by_column = [[row[c] for _, row in grid.rows if c in row] for c in grid.columns]
    inside = [key for keys in by_row for key in keys]
    caption, rows, columns = "", [""] * len(by_row), [""] * len(by_column)
    for table, above, at in (
        (units, lambda unit: f", {unit}", lambda unit: f" [{unit}]"),
        (better, lambda way: f" ({way} is better)", lambda way: ARROW.get(way, "")),
    ):
        if grid.group and shared(inside, table):
            caption += above(shared(inside, table))
            continue
        in_columns = [shared(keys, table) for keys in by_column]
        # a column may have none, as a rank among shares, but must not have several
        is_one_each = all(len({lookup(key, table) for key in keys}) == 1 for keys in by_column)
        if any(in_columns) and (grid.rows == grid.rows[:1] or is_one_each):
            columns = [c + (at(x) if x else "") for c, x in zip(columns, in_columns, strict=True)]
        else:
            in_rows = [shared(keys, table) for keys in by_row]
            rows = [r + (at(x) if x else "") for r, x in zip(rows, in_rows, strict=True)]
    return Marks(caption, rows, columns)


def metric_tables(
    methods: Mapping[str, Mapping[str, float]],
    better: Mapping[str, Any] | None = None,
    units: Mapping[str, Any] | None = None,
    labels: Mapping[str, str] | None = None,
) -> list[Table]:
    """All metrics of all methods side by side; the best of each number is marked.

    `labels` are titles: of a whole key, of a group, of `group/row`, or of a column.
    """
    titles = labels or {}
    keys = [key for one in methods.values() for key in one]
    names, tables = list(methods), []
    for grid in layout(keys):
        marks = marks_of(grid, better, units)
        group = titles.get(grid.group, grid.group.replace("_", " ")) or "metrics"
        rows: list[list[Cell]] = []
        row_titles = [
            (titles.get(f"{grid.group}/{label}", label) if grid.columns else
             titles.get(row[""], label)) + mark
            for (label, row), mark in zip(grid.rows, marks.rows, strict=True)
        ]  # fmt: skip
        if not grid.columns:
            for name, (_, row) in zip(row_titles, grid.rows, strict=True):
                rows.append([Cell(name), *_compete(row[""], methods, better)])
            tables.append(Table(group + marks.caption, ["", *names], rows))
            continue
        cells = {
            (key, name): cell
            for column in grid.columns
            for key, places in _column(grid, column, methods)
            for name, cell in zip(names, _compete(key, methods, better, places), strict=True)
        }
        has_label = any(label for label, _ in grid.rows)
        for label, (_, row) in zip(row_titles, grid.rows, strict=True):
            for i, name in enumerate(names):
                line = [Cell(label if i == 0 else "")] if has_label else []
                line += [Cell(name)] if len(names) > 1 or not has_label else []
                line += [cells[row[c], name] if c in row else Cell("–") for c in grid.columns]
                rows.append(line)
        heads = [""] * (len(rows[0]) - len(grid.columns))
        shown = [titles.get(c, c) + m for c, m in zip(grid.columns, marks.columns, strict=True)]
        tables.append(Table(group + marks.caption, [*heads, *shown], rows))
    return tables


def _column(
    grid: Grid, column: str, methods: Mapping[str, Mapping[str, float]]
) -> list[tuple[str, int]]:
    """The keys of a column, with the decimals that suit all its numbers."""
    keys = [row[column] for _, row in grid.rows if column in row]
    places = decimals([one[key] for one in methods.values() for key in keys if key in one])
    return [(key, places) for key in keys]


def _compete(
    key: str,
    methods: Mapping[str, Mapping[str, float]],
    better: Mapping[str, Any] | None,
    places: int | None = None,
) -> list[Cell]:
    values = [one.get(key) for one in methods.values()]
    if places is None:
        places = decimals([v for v in values if v is not None])
    marks = best(values, lookup(key, better))
    return [Cell(number(v, places), best=mark) for v, mark in zip(values, marks, strict=True)]


def delta(value: float | None, base: float | None, better: str) -> tuple[str, str]:
    """The difference to a base, absolute and in percent, and whether it is good."""
    if value is None or base is None or not math.isfinite(value) or not math.isfinite(base):
        return "", ""
    change = value - base
    if change == 0:
        return "same", ""
    text = ("+" if change > 0 else "") + number(change)
    if base > 0:
        text += f" ({change / base:+.1%})".replace("-", "−")
    tone = ""
    if better in ("lower", "higher"):
        tone = "good" if (change < 0) == (better == "lower") else "bad"
    return text, tone


def delta_tables(
    runs: Mapping[str, Mapping[str, float]],
    better: Mapping[str, Any] | None = None,
    units: Mapping[str, Any] | None = None,
) -> list[Table]:
    """A column a run; under each number the difference to the first run; the best is marked."""
    tables, base = [], next(iter(runs.values()))
    for grid in layout([key for one in runs.values() for key in one]):
        inside = [
            (label, c, row[c]) for label, row in grid.rows for c in grid.columns or [""] if c in row
        ]
        flat = Grid(grid.group, [], [(key, {"": key}) for _, _, key in inside])
        marks = marks_of(flat, better, units)
        rows = []
        for (label, column, key), mark in zip(inside, marks.rows, strict=True):
            line = [Cell(" ".join(part for part in (label, column) if part) + mark)]
            for i, (one, cell) in enumerate(
                zip(runs.values(), _compete(key, runs, better), strict=True)
            ):
                under, tone = (
                    delta(one.get(key), base.get(key), lookup(key, better)) if i else ("", "")
                )
                line.append(Cell(cell.text, under, tone, cell.best))
            rows.append(line)
        tables.append(Table((grid.group or "metrics") + marks.caption, ["", *runs], rows))
    return tables


def main_keys(result: Mapping[str, Any], limit: int = 4) -> list[str]:
    """The headline metrics: `result["main"]` if given, else one for each entry of `better`.

    Of a group, an average is preferred, then a number over all rows (`mpjpe/80ms`).
    """
    metrics = numbers(result.get("metrics"))
    given = result.get("main") or []
    given = [given] if isinstance(given, str) else list(given)
    keys = [key for key in given if key in metrics]
    for prefix in {} if keys else result.get("better") or {}:
        inside = [k for k in metrics if k == prefix or k.startswith(prefix + "/")]

        def rank(key: str, prefix: str = prefix) -> tuple[bool, bool, int]:
            return key != prefix, key.split("/")[-1] not in AVERAGES, key.count("/")

        keys += [k for k in sorted(inside, key=rank)[:1] if k not in keys]
    return (keys or list(metrics))[:limit]


def rival(key: str, result: Mapping[str, Any], name: str = "") -> tuple[str, float] | None:
    """The best baseline for a metric (or the named one); the first if no direction is known."""
    found = {
        label: numbers(flat)[key]
        for label, flat in (result.get("baselines") or {}).items()
        if key in numbers(flat) and (not name or label == name)
    }
    finite = {label: value for label, value in found.items() if math.isfinite(value)}
    if not finite:
        return None
    sign = {"lower": 1, "higher": -1}.get(lookup(key, result.get("better")), 0)
    label = min(finite, key=lambda one: sign * finite[one])
    return label, finite[label]


def tiles(result: Mapping[str, Any]) -> list[Tile]:
    """The headline numbers of a run, each beside the best baseline, and the score over all."""
    metrics, better = numbers(result.get("metrics")), result.get("better") or {}
    out = []
    for key in main_keys(result):
        unit, way = lookup(key, result.get("units")), lookup(key, better)
        lines, against = [], rival(key, result)
        if against:
            places = decimals([metrics[key], against[1]])
            lines.append((f"{against[0]}: {number(against[1], places)}", ""))
            text, tone = delta(metrics[key], against[1], way)
            word = {"good": ", better", "bad": ", worse"}.get(tone, "")
            if text:
                lines.append((text + word, tone))
        elif way:
            lines.append((f"{way} is better", ""))
        name = title(key, result.get("labels"))
        out.append(Tile(name, number(metrics[key]) + (f" {unit}" if unit else ""), lines))
    won = total = 0
    for key, value in metrics.items():
        against, way = rival(key, result), lookup(key, better)
        if against and way in ("lower", "higher") and math.isfinite(value):
            total += 1
            won += value != against[1] and (value < against[1]) == (way == "lower")
    if total > len(out):
        text = "numbers better than every baseline"
        out.append(Tile("over all metrics", f"{won} of {total}", [(text, "")]))
    return out
