"""The model card beside a weights file: what it is, what it may be used for, how to load it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tenfold.viz.page import write_whole

from .claim import md, md_table
from .results import duration, is_number, read_run
from .tables import metric_tables

UNSTATED = "not stated"


def card_info(run: Path) -> dict[str, Any]:
    """Collect what a run folder says for its card; the caller adds paper, licences and limits."""
    one = read_run(Path(run))
    # the run's own: apis has one of its random points, which comes before it
    seed = (one.config.get("config") or {}).get("seed")
    return {
        "system": one.system,
        "recipe": one.recipe,
        "data": one.data,
        "parameters": one.result.get("parameters"),
        "seconds": one.result.get("seconds"),
        "metrics": one.result.get("metrics") or {},
        "baselines": one.result.get("baselines") or {},
        "better": one.result.get("better") or {},
        "units": one.result.get("units") or {},
        "labels": one.result.get("labels") or {},
        "notes": one.result.get("notes") or [],
        "seeds": [] if seed is None else [seed],
        "date": one.environment.get("date"),
        "commit": one.environment.get("commit"),
        "command": one.environment.get("command"),
        "tenfold": one.environment.get("tenfold"),
        "load": f'tenfold.load("{one.folder.as_posix()}")',
    }


def write_model_card(run_or_dir: Path, info: Mapping[str, Any]) -> Path:
    """Write `MODEL_CARD.md` into a folder, from `info` alone; what it lacks reads "not stated".

    Keys of `info` (only `system` is needed; `card_info` fills many of them from a run)::

        system, recipe, parameters (int), seeds (list), seconds, date, commit, command, tenfold
        paper: {"arxiv": "2207.12345", "title": ..., "says": ...}
        data: {"name", "kind": "real" | "generated" | "simulated", "licence", "note"}
        metrics: {flat}, baselines: {name: {flat}}, better: {...}, units: {...}
        intended: str or list      limits: str or list      licence: of these weights
        load: the line of Python that loads them            notes: list
    """
    if not info.get("system"):
        raise ValueError('a model card needs info["system"]')
    folder = Path(run_or_dir)
    return write_whole(folder / "MODEL_CARD.md", "\n".join(_card(info, folder)))


def _card(info: Mapping[str, Any], folder: Path) -> list[str]:
    data, paper = info.get("data") or {}, info.get("paper") or {}
    system, recipe = md(info["system"]), md(info.get("recipe") or UNSTATED)
    load = str(info.get("load") or f'tenfold.load("{folder.as_posix()}")')
    title = md(paper.get("title") or UNSTATED)
    arxiv = md(paper.get("arxiv") or "")
    if arxiv:
        title += f" ([arXiv:{arxiv}](https://arxiv.org/abs/{arxiv}))"
    lines = [f"# Model card: {system}, recipe {recipe}", ""]
    if data.get("kind") in ("generated", "simulated"):
        lines += [
            f"> Trained on **{data['kind']}** data: the numbers below say nothing about real data.",
            "",
        ]
    rows = [
        ["system", system],
        ["paper", title],
        ["recipe", recipe],
        [
            "data",
            f"{md(data.get('name') or UNSTATED)} ({md(data.get('kind') or 'kind not stated')})",
        ],
        ["licence of the data", md(data.get("licence") or UNSTATED)],
        ["licence of the weights", md(info.get("licence") or UNSTATED)],
        [
            "parameters",
            f"{info['parameters']:,}" if is_number(info.get("parameters")) else UNSTATED,
        ],
        ["seeds", md(", ".join(map(str, info.get("seeds") or [])) or UNSTATED)],
        [
            "training took",
            duration(info["seconds"]) if is_number(info.get("seconds")) else UNSTATED,
        ],
        *([key, md(info.get(key) or UNSTATED)] for key in ("date", "commit", "tenfold", "command")),
    ]
    lines += [*md_table(["", ""], rows, words=2), ""]
    if paper.get("says"):
        lines += [f"What the paper says: {md(paper['says'])}", ""]
    if data.get("note"):
        lines += [f"About the data: {md(data['note'])}", ""]
    lines += ["## Load", "", "```python", "import tenfold", "", f"system = {load}", "```", ""]
    lines += ["## Intended use", "", *_prose(info.get("intended")), ""]
    lines += ["## Limits", "", *_prose(info.get("limits")), ""]
    lines += ["## Metrics", "", *_metrics(info)]
    if info.get("notes"):
        lines += ["## Notes", "", *_prose(list(info["notes"])), ""]
    return lines


def _prose(value: Any) -> list[str]:
    if not value:
        return [UNSTATED.capitalize() + "."]
    return [f"- {md(one)}" for one in value] if isinstance(value, list | tuple) else [md(value)]


def _metrics(info: Mapping[str, Any]) -> list[str]:
    ours = info.get("metrics") or {}
    if not ours:
        return ["Not measured.", ""]
    methods = {f"{info['system']} (these weights)": ours, **(info.get("baselines") or {})}
    lines: list[str] = []
    for table in metric_tables(methods, info.get("better"), info.get("units"), info.get("labels")):
        rows = [[f"**{c.text}**" if c.best else md(c.text) for c in row] for row in table.rows]
        words = sum(not name for name in table.head)
        lines += [
            f"### {md(table.caption)}",
            "",
            *md_table([md(h) for h in table.head], rows, words),
            "",
        ]
    return lines
