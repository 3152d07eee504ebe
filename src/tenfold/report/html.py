"""Pages that open from disk: one run, several runs compared, and the demo of all systems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tenfold.viz.page import (
    Badge,
    Cell,
    Figure,
    Page,
    Section,
    Table,
    footer,
    picture_figure,
    relative,
    uri,
    write_page,
)

from .history import MOST_PANELS, Panel, overlays, panels
from .results import Run, duration, flatten, is_number, lookup, number, numbers, read_run, show
from .tables import delta, delta_tables, main_keys, metric_tables, rival, tiles, title

OPEN_ROWS, OPEN_PANELS = 16, 2
"""Rows of metrics and curves that a page shows at once; longer ones are folded."""
WAITING = {
    "config.json": "no configuration was written",
    "environment.json": "nothing is known about the machine",
    "metrics.jsonl": "nothing was logged, so there are no curves",
    "result.json": "the run is not finished, so there are no final numbers",
}


def write_run_page(run: Path, recipe: Mapping[str, Any] | None = None) -> Path:
    """Write `report.html` into a run folder, finished or not.

    `recipe` is the recipe's configuration as shipped (a nested dictionary; `recipe_config` in
    `config.json` will do too): with it the page shows which fields this run changed.
    """
    one = read_run(Path(run))
    kind, lead = _data(one)
    warnings = [f"{name} is missing: {WAITING[name]}." for name in one.missing]
    warnings += [f"{name} is a link, which is not followed: it is left out." for name in one.links]
    sections = [
        Section("Pictures", figures=[picture_figure(p, one.folder) for p in one.pictures]),
        *_curves(panels(one.metrics, one.result.get("units"))),
        *_metrics(one),
        _notes(one),
        _config(one, recipe),
        _environment(one),
    ]
    page = Page(
        title=f"{one.system} · {one.recipe}",
        lead=lead,
        badges=[kind],
        lines=_summary(one),
        warnings=warnings,
        tiles=tiles(one.result),
        sections=[s for s in sections if s.text or s.bullets or s.tables or s.figures],
        footer=footer(f"run folder {one.folder.resolve().name}"),
    )
    return write_page(page, one.folder / "report.html")


def write_comparison_page(runs: Sequence[Path], out: Path) -> Path:
    """Write one page over several runs: what differs in them, and what came of it.

    Differences are to the first run.
    """
    if len(runs) < 2:
        raise ValueError(f"a comparison needs at least two runs, got {len(runs)}")
    read = [read_run(Path(run)) for run in runs]
    names = _labels([run.folder for run in read])
    by_name = dict(zip(names, read, strict=True))
    better: dict[str, Any] = {}
    units: dict[str, Any] = {}
    for run in reversed(read):
        better.update(run.result.get("better") or {})
        units.update(run.result.get("units") or {})
    warnings = [
        f"{name}: {missing} is missing: {WAITING[missing]}."
        for name, run in by_name.items()
        for missing in run.missing
    ]
    for what, values in (
        ("systems", {run.system for run in read}),
        ("data", {f"{r.data.get('name')} ({r.data.get('kind')})" for r in read if r.result}),
    ):
        if len(values) > 1:
            warnings.insert(
                0,
                f"These runs used different {what}: {', '.join(sorted(values))}. "
                "Their numbers are not comparable.",
            )
    results = {name: numbers(run.result.get("metrics")) for name, run in by_name.items()}
    drawn = overlays({name: run.metrics for name, run in by_name.items()}, units)
    changed = _differences({n: flatten(r.config.get("config") or {}) for n, r in by_name.items()})
    where = _differences({n: flatten(r.environment) for n, r in by_name.items()})
    sections = [
        Section("Runs", tables=[_run_table(by_name, Path(out).parent)]),
        Section(
            "What differs in the configuration",
            text=[] if changed.rows else ["Nothing: the configurations are equal."],
            tables=[changed] if changed.rows else [],
        ),
        Section(
            "Metrics",
            text=[f"Small: the difference to {names[0]}. Shaded: the best."],
            tables=delta_tables(results, better, units),
        ),
        *_curves(drawn),
    ]
    if where.rows:
        sections.append(Section("What differs in the environment", tables=[where], closed=True))
    page = Page(
        title=f"Comparison of {len(read)} runs",
        badges=list(dict.fromkeys(_data(run)[0] for run in read)),
        lead=", ".join(dict.fromkeys(run.system for run in read)),
        warnings=warnings,
        sections=[s for s in sections if s.text or s.tables or s.figures],
        footer=footer("one run a column; one run is not a claim (see tenfold claim)"),
    )
    return write_page(page, Path(out))


def write_demo_page(rows: Sequence[Mapping[str, Any]], out: Path) -> Path:
    """Write the page of `tenfold demo`: a table over all systems, then each one's pictures.

    A row is a dictionary with `system`, and as far as known `task` (what it does, in words),
    `run` (the run folder), `metric` (a flat key; else the run's first headline), `untrained` (the
    metric before the training), `seconds` (else the run's), `error` (why it has no result).
    """
    out, lines, sections = Path(out), [], []
    for row in rows:
        run = read_run(Path(row["run"])) if row.get("run") else None
        report = relative(run.folder / "report.html", out) if run else ""
        lines.append(_demo_row(row, run, report))
        error = [f"Failed: {row['error']}"] if row.get("error") else []
        missing = [] if not run or run.result or error else ["This run is not finished."]
        shown = [picture_figure(p, out.parent) for p in run.pictures[:3]] if run else []
        curve = _curves(panels(run.metrics, run.result.get("units")))[0].figures[:1] if run else []
        more = f" ({len(run.pictures) - 3} more pictures)" if run and len(run.pictures) > 3 else ""
        section = Section(
            title=f"{row['system']}: {row['task']}" if row.get("task") else str(row["system"]),
            text=error
            + missing
            + ([str(run.data["note"])] if run and run.data.get("note") else []),
            figures=[*shown, *curve],
            href=report if run and (run.folder / "report.html").is_file() else "",
            href_text=f"Full report{more}",
        )
        sections.append(section)
    head = [
        "system",
        "task",
        "data",
        "metric",
        "untrained",
        "trained",
        "",
        "simple baseline",
        "time",
    ]
    table = Table("", head, lines, text=True)
    failed = sum(bool(row.get("error")) for row in rows)
    page = Page(
        title=f"tenfold demo: {len(rows)} system" + ("s" if len(rows) > 1 else ""),
        lead="Each trained from nothing on this machine, at demo scale: does it learn?",
        lines=[
            "Whether a paper's method beats its rival takes longer runs and several seeds: "
            "tenfold claim SYSTEM trains them and judges; README shows the committed results."
        ],
        warnings=[f"{failed} of {len(rows)} systems failed."] if failed else [],
        sections=[Section("All systems", tables=[table]), *sections],
        footer=footer("tenfold demo"),
    )
    return write_page(page, out)


def _demo_row(row: Mapping[str, Any], run: Run | None, report: str) -> list[Cell]:
    result = run.result if run else {}
    metrics, labels = numbers(result.get("metrics")), result.get("labels")
    key = str(row.get("metric") or next(iter(main_keys(result, 1)), ""))
    way, unit = lookup(key, result.get("better")), lookup(key, result.get("units"))
    value, before = metrics.get(key), row.get("untrained")
    others = {n: f for n, f in (result.get("baselines") or {}).items() if n != "untrained"}
    against = rival(key, {**result, "baselines": others})
    change, tone = delta(value, before, way)
    verdict = {"good": "it learns", "bad": "it does not learn"}.get(tone, "")
    if row.get("error"):
        verdict, tone = "failed", "bad"
    elif not result:
        verdict = "not finished"
    seconds = row.get("seconds", result.get("seconds"))
    data = run.data if run else {}
    return [
        Cell(
            str(row["system"]),
            href=report if run and (run.folder / "report.html").is_file() else "",
        ),
        Cell(str(row.get("task") or "")),
        Cell(str(data.get("kind") or "–"), str(data.get("name") or "")),
        Cell(
            (title(key, labels) + (f" [{unit}]" if unit else "")) if key else "–",
            f"{way} is better" if way else "",
        ),
        Cell(number(before)),
        Cell(number(value), change, best=tone == "good"),
        Cell(verdict, tone=tone),
        Cell(number(against[1]), against[0]) if against else Cell("–"),
        Cell(duration(float(seconds)) if is_number(seconds) else "–"),
    ]


def _data(run: Run) -> tuple[Badge, str]:
    """The badge that says what the numbers were measured on, and the name beside it."""
    kind = str(run.data.get("kind") or "")
    if not kind:
        return Badge("data unknown", "unknown"), ""
    tone = kind if kind in ("real", "generated", "simulated") else "unknown"
    return Badge(f"{kind} data", tone), str(run.data.get("name") or "")


def _summary(run: Run) -> list[str]:
    """The lines under the title: what the data are, how large, how long, when."""
    facts = []
    if is_number(run.result.get("parameters")):
        facts.append(f"{run.result['parameters']:,} parameters")
    if is_number(run.result.get("seconds")):
        facts.append(duration(float(run.result["seconds"])))
    environment = run.environment
    facts += [str(environment[k]) for k in ("device", "date") if environment.get(k)]
    if environment.get("commit"):
        facts.append(f"commit {str(environment['commit'])[:12]}")
    if not run.result and run.metrics:
        last = run.metrics[-1]
        facts.append(f"last logged: stage {last['stage']}, step {last['step']}")
    note = [str(run.data["note"])] if run.data.get("note") else []
    return note + ([" · ".join(facts)] if facts else [])


def _notes(run: Run) -> Section:
    return Section("Notes", bullets=[str(note) for note in run.result.get("notes") or []])


def _metrics(run: Run) -> list[Section]:
    """The headline numbers, and behind a fold all of them where they are many."""
    ours, result = numbers(run.result.get("metrics")), run.result
    methods = {f"{run.system} (this run)": ours} if ours else {}
    baselines = result.get("baselines") or {}
    methods.update({str(name): numbers(flat) for name, flat in baselines.items()})
    about = result.get("better"), result.get("units"), result.get("labels")
    every = metric_tables(methods, *about)
    text = ["Shaded: the best of each number."] if len(methods) > 1 and every else []
    sections = [Section("Metrics", text=text, tables=every)]
    if sum(len(table.rows) for table in every) > OPEN_ROWS:
        keys = main_keys(result)
        first = {n: {k: v for k, v in flat.items() if k in keys} for n, flat in methods.items()}
        tables = metric_tables({n: flat for n, flat in first.items() if flat}, *about)
        sections = [
            Section("Metrics", text=text, tables=tables),
            Section("All metrics", tables=every, closed=True),
        ]
    rows = []
    for stage in result.get("stages") or []:
        top = stage.get("best") or {}
        best = f"{top.get('metric')} {number(top.get('value'))} at step {top.get('step')}"
        seconds = stage.get("seconds")
        rows.append(
            [
                Cell(str(stage.get("name", ""))),
                Cell(f"{stage['steps']:,}" if is_number(stage.get("steps")) else "–"),
                Cell(duration(float(seconds)) if is_number(seconds) else "–"),
                Cell(best if top else "–"),
            ]
        )
    if rows:
        table = Table("", ["stage", "steps", "time", "best"], rows, text=True)
        sections.append(Section("Stages", tables=[table], closed=True))
    return sections


def _curves(list_: Sequence[Panel]) -> list[Section]:
    """The first panels, and behind a fold the others."""
    hidden = len(list_) - MOST_PANELS
    text = [f"{hidden} more were logged; see metrics.jsonl."] if hidden > 0 else []
    figures = [
        Figure(
            light=uri(panel.png("light"), "image/png"),
            dark=uri(panel.png("dark"), "image/png"),
            caption=panel.caption,
            alt=f"{panel.title} over training steps: {', '.join(panel.lines)}",
        )
        for panel in list_[:MOST_PANELS]
    ]
    return [
        Section("Curves", figures=figures[:OPEN_PANELS], kind="curves"),
        Section(
            "More curves", text=text, figures=figures[OPEN_PANELS:], kind="curves", closed=True
        ),
    ]


def _config(run: Run, recipe: Mapping[str, Any] | None) -> Section:
    """The configuration by groups; with the recipe at hand, what this run changed comes first."""
    config = run.config.get("config") or {}
    recipe = recipe or run.config.get("recipe_config")
    flat, shipped = flatten(config), flatten(recipe or {})
    changed = [k for k in flat if recipe and (k not in shipped or shipped[k] != flat[k])]
    found = []
    if changed:
        rows = [
            [
                Cell(k, code=True),
                Cell(show(flat[k]), code=True),
                Cell(show(shipped.get(k)), code=True),
            ]
            for k in changed
        ]
        head = ["field", "this run", f"recipe {run.recipe}"]
        found.append(Table("changed from the recipe", head, rows, text=True))
    plain = {k: v for k, v in config.items() if not isinstance(v, Mapping)}
    groups = {"": plain, **{k: v for k, v in config.items() if isinstance(v, Mapping)}}
    for group, values in groups.items():
        rows = [
            [
                Cell(k, code=True),
                Cell(show(v), code=True, best=f"{group}.{k}".lstrip(".") in changed),
            ]
            for k, v in flatten(values).items()
        ]
        if rows:
            found.append(Table(group or "general", [], rows, text=True))
    same = ["As the recipe has it: nothing was changed."] if recipe and flat and not changed else []
    return Section("Configuration", text=same, tables=found, closed=not changed)


def _environment(run: Run) -> Section:
    rows = [
        [Cell(key.replace("_", " ")), Cell(show(value), code=True)]
        for key, value in flatten(run.environment).items()
    ]
    tables = [Table("", [], rows, text=True)] if rows else []
    return Section("Environment", tables=tables, closed=True)


def _run_table(runs: Mapping[str, Run], base: Path) -> Table:
    rows = []
    for name, run in runs.items():
        seconds, steps = run.result.get("seconds"), run.metrics[-1]["step"] if run.metrics else None
        report = run.folder / "report.html"
        rows.append(
            [
                Cell(name, href=relative(report, base / "x") if report.is_file() else ""),
                Cell(f"{run.system} {run.recipe}"),
                Cell(str(run.data.get("name") or "–"), str(run.data.get("kind") or "")),
                Cell("finished" if run.result else "unfinished", f"last step {steps}"),
                Cell(duration(float(seconds)) if is_number(seconds) else "–"),
                Cell(number(run.result.get("parameters"))),
            ]
        )
    head = ["run", "system, recipe", "data", "state", "time", "parameters"]
    return Table("", head, rows, text=True)


def _differences(flat: Mapping[str, Mapping[str, Any]]) -> Table:
    """Only the fields in which the runs differ; an absent field is a dash."""
    keys = list(dict.fromkeys(k for one in flat.values() for k in one))
    rows = []
    for key in keys:
        values = [show(one[key]) if key in one else "–" for one in flat.values()]
        if len(set(values)) > 1:
            cells = [Cell(v, code=True, best=v != values[0]) for v in values]
            rows.append([Cell(key, code=True), *cells])
    return Table("", ["field", *flat], rows, text=True)


def _labels(folders: Sequence[Path]) -> list[str]:
    """The shortest path endings that tell the runs apart."""
    parts = [folder.resolve().parts for folder in folders]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(p[-depth:]) for p in parts]
        if len(set(names)) == len(names):
            return names
    raise ValueError(f"a run is given twice: {', '.join(map(str, folders))}")
