"""The page of evidence: what of the papers was shown here, by which runs, and what was not tried.

It is made of the files that `tenfold claim` and the scripts of `claims/` have written, and of
`untried.toml` beside them, which people keep.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tenfold.files import misfit, read_object, require_bounded
from tenfold.viz.page import Cell, Page, Section, Table, Tile, footer, relative, write_page
from tenfold.viz.page import write_whole as write

from .claim_rows import (
    ARROWS,
    NO_BREAK,
    VERDICTS,
    claim_cells,
    claims_table,
    metric_title,
    outcome,
    setting,
)
from .claim_rows import verdict_counts as counts
from .markdown import md, md_table

OWN = "*Written by `tenfold claim --all --report`"
UNTRIED = "untried.toml"
LARGEST = 2**20
"""Bytes of `untried.toml`, at most."""
SHAPE: dict[str, Any] = {
    "claims": [{"says": str, "metric": str, "better": str, "method": str, "baseline": str,
                "verdict": {"name": str, "seeds": int}}],
    "methods": dict, "data": {"name": str, "kind": str}, "budget": str,
}  # fmt: skip
NOT_RUN = "not run yet"
TONES = {"shown": "good", "contradicted": "bad"}
LEAD = (
    "Ours, on small data and few cores; they are not the papers' tables. A verdict is *shown* if "
    "the 95 % interval of the paired difference over seeds lies wholly on the claimed side, "
    "*contradicted* if on the other, *not shown* otherwise. Hours are those of all runs of a "
    "table, one after the other, some beside other work."
)


@dataclass(frozen=True)
class Judged:
    """A table of claims with their verdicts."""

    file: Path
    found: dict[str, Any]

    @property
    def claims(self) -> list[dict[str, Any]]:
        """The claims, each with its verdict."""
        return list(self.found["claims"])

    @property
    def seconds(self) -> list[float]:
        """Seconds of every run; methods that share what a run learned count it once."""
        methods = self.found["methods"].values()
        each = dict.fromkeys(tuple(one.get("seconds") or ()) for one in methods)
        return [taken for times in each for taken in times if taken]

    @property
    def cost(self) -> str:
        """How many runs, their hours, where and when, and the command that makes them again."""
        seen = self.found.get("environment") or {}
        place = [str(seen["cpu"])] if seen.get("cpu") else []
        place += [str(seen["date"])[:10]] if seen.get("date") else []
        commit = [f"commit {seen['commit']}"] if seen.get("commit") else []
        runs = f"{len(self.seconds)} runs, {hours(self.seconds)} h"
        return f"{runs}; {', '.join([*place, *commit])}. Again: `{seen.get('command', '')}`."


@dataclass(frozen=True)
class Further:
    """Another table of a system: what its page is called, what it says first, its command."""

    page: Path
    title: str
    says: str
    command: str


@dataclass(frozen=True)
class Evidence:
    """What there is of a system."""

    name: str
    task: str
    judged: list[Judged]
    further: list[Further]
    untried: list[tuple[str, str]]
    """What could not be tried here, and why."""

    @property
    def claims(self) -> list[dict[str, Any]]:
        """All claims that were judged."""
        return [claim for one in self.judged for claim in one.claims]


def write_evidence(systems: Mapping[str, str], claims: Path, out: Path) -> list[Path]:
    """Write `evidence.md` and `evidence.html` to `out`.

    Args:
        systems: Name of each system -> what it does, in words.
        claims: Folder of the results and of `untried.toml`.
        out: Folder of the two pages.

    Raises:
        ValueError: A result is damaged, `untried.toml` says what it may not, or a page is there
            that was not written by this.
    """
    page = out / "evidence.md"
    if page.exists() and OWN not in page.read_text(encoding="utf-8", errors="replace"):
        raise ValueError(f"{page} was not written by tenfold; give another --pages")
    found = read_evidence(systems, claims)
    html = write_page(_page(found, out), out / "evidence.html")
    return [write(page, "\n".join(markdown(found, out)) + "\n"), html]


def read_evidence(systems: Mapping[str, str], claims: Path) -> list[Evidence]:
    """What was committed of each system; one that was not run yet has nothing."""
    if not claims.is_dir():
        raise FileNotFoundError(f"{claims} is no folder of results; give it by --out")
    untried = read_untried(claims / UNTRIED, systems)
    every = []
    for name, task in systems.items():
        judged, further = [], []
        files = [file for file in claims.glob(f"{name}-*") if file.suffix in (".json", ".md")]
        for stem in [name, *sorted({file.stem for file in files})]:
            file = claims / f"{stem}.json"
            found = read_object(file, {}) if file.exists() else {}
            if found.get("claims"):
                judged.append(Judged(file, _judged(file)))
            elif found or stem != name:
                further.append(_further(file, found))
        every.append(Evidence(name, task, judged, further, untried.get(name, [])))
    return every


def _judged(file: Path) -> dict[str, Any]:
    """A table of claims, with all that its rows need."""
    found = read_object(file, SHAPE, SHAPE)
    wanted = SHAPE["claims"][0]
    for number, claim in enumerate(found["claims"], 1):
        if absent := [key for key in wanted if key not in claim]:
            raise ValueError(f"{file}: claim {number} lacks {', '.join(absent)}")
    return found


def _further(file: Path, found: Mapping[str, Any]) -> Further:
    """A table of another form, by its page: the heading, and what stands out first below it."""
    page = file.with_suffix(".md")
    lines = page.read_text(encoding="utf-8").splitlines() if page.exists() else []
    title = lines[0].lstrip("# ") if lines else file.stem
    first = next((line for line in lines[1:] if line.strip()), "")
    bold = re.search(r"\*\*(.+?)\*\*", first)
    command = str((found.get("environment") or {}).get("command", ""))
    return Further(page if lines else file, title, bold[1] if bold else "", command)


def read_untried(file: Path, systems: Mapping[str, str]) -> dict[str, list[tuple[str, str]]]:
    """System -> what could not be tried, and why, of tables `[[untried]]`; none if no file."""
    if not file.exists():
        return {}
    require_bounded(file, LARGEST)
    try:
        told = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is no TOML: {error}") from None
    problem = misfit(told, {"untried": [dict]}, "")
    if problem:
        raise ValueError(f"{file}: {problem}")
    found: dict[str, list[tuple[str, str]]] = {}
    for number, one in enumerate(told.get("untried", []), 1):
        if sorted(one) != ["system", "what", "why"] or not all(
            isinstance(text, str) for text in one.values()
        ):
            raise ValueError(f"{file}: entry {number} needs the texts system, what and why")
        if one["system"] not in systems:
            raise ValueError(f"{file}: entry {number} is of {one['system']!r}, which is no system")
        found.setdefault(one["system"], []).append((one["what"], one["why"]))
    return found


def hours(seconds: Sequence[float]) -> str:
    """Hours of some runs: "0.3", "12"."""
    total = sum(seconds) / 3600
    return f"{total:.1f}" if total < 9.95 else f"{total:.0f}"


def _overview(found: Sequence[Evidence]) -> list[list[str]]:
    """A row a system: verdicts, data, runs and hours."""
    rows = []
    for one in found:
        data = dict.fromkeys(
            str(table.found["data"].get("kind", "unknown")) for table in one.judged
        )
        seconds = [taken for table in one.judged for taken in table.seconds]
        seen = counts(one.claims)
        numbers = [str(len(one.claims)), *(str(seen.get(name, 0)) for name in VERDICTS)]
        cost = [", ".join(data), str(len(seconds)), hours(seconds)]
        rows.append([one.name, *(numbers + cost if one.judged else [NOT_RUN, *[""] * 6])])
    return rows


HEAD = ["system", "claims", *VERDICTS, "data", "runs", "hours"]
FURTHER, REASONS = ["further", "in short", "again"], ["not tried here", "why"]


def markdown(found: Sequence[Evidence], out: Path) -> list[str]:
    """The page's lines; links lead from the folder `out`."""
    here = out / "evidence.md"
    rows = [[f"[{name}](#{name})", *rest] for name, *rest in _overview(found)]
    lines = [
        "# Evidence", "",
        f"{OWN} from the results in claims/; do not edit.*", "",
        LEAD, "", *md_table(HEAD, rows, words=1), "",
    ]  # fmt: skip
    for one in found:
        lines += [f"## {one.name}", "", f"{one.task[0].upper()}{one.task[1:]}.", ""]
        if not one.judged:
            lines += [f"No claim was judged: {NOT_RUN}. `tenfold claim {one.name}` does.", ""]
        for table in one.judged:
            link = f"[{table.file.stem}]({relative(table.file.with_suffix('.md'), here)})"
            lines += [f"{link}. {setting(table.found)} {table.cost}", ""]
            lines += [*claims_table(table.found, sentences=True), ""]
        if one.further:
            each = [
                [
                    f"[{md(f.title)}]({relative(f.page, here)})",
                    md(f.says),
                    f.command and f"`{f.command}`",
                ]
                for f in one.further
            ]
            lines += [*md_table(FURTHER, each, words=3), ""]
        if one.untried:
            each = [[md(what), md(why)] for what, why in one.untried]
            lines += [*md_table(REASONS, each, words=2), ""]
    return [*lines, ARROWS]


def _page(found: Sequence[Evidence], out: Path) -> Page:
    """The same for a browser."""
    here = out / "evidence.html"
    seen = counts([claim for one in found for claim in one.claims])
    overview = [
        [Cell(name), *(Cell(text, tone="" if text else "empty") for text in rest)]
        for name, *rest in _overview(found)
    ]
    return Page(
        title="Evidence",
        lead="What of the papers was shown here, by which runs, and what was not tried.",
        lines=[LEAD.replace("*", "")],
        tiles=[Tile(name, str(seen.get(name, 0))) for name in VERDICTS],
        sections=[
            Section("All systems", tables=[Table("", HEAD, overview)]),
            *(_section(one, here) for one in found),
        ],
        footer=footer("tenfold claim --all --report"),
    )


def _section(one: Evidence, here: Path) -> Section:
    """A system's part of the page for a browser."""
    tables = [_claims(table, here) for table in one.judged]
    if one.further:
        rows = [
            [Cell(f.title, href=relative(f.page, here)), Cell(f.says), Cell(f.command, code=True)]
            for f in one.further
        ]
        tables.append(Table("Further", FURTHER, rows, text=True))
    if one.untried:
        reasons = [[Cell(what), Cell(why)] for what, why in one.untried]
        tables.append(Table("What could not be tried here", REASONS, reasons, text=True))
    missing = [] if one.judged else [f"No claim was judged: {NOT_RUN}."]
    return Section(f"{one.name}: {one.task}", text=missing, tables=tables)


def _claims(table: Judged, here: Path) -> Table:
    """A table of claims for a browser."""
    rows = []
    for claim in table.claims:
        *cells, _ = claim_cells(claim, metric_title(claim["metric"], table.found))
        name = claim["verdict"]["name"]
        verdict = Cell(outcome(claim), tone=TONES.get(name, ""))
        link = relative(table.file.with_suffix(".md"), here)
        spaced = [cell.replace(NO_BREAK, " ") for cell in cells]
        rows.append([Cell(claim["says"], href=link), *map(Cell, spaced), verdict])
    head = ["claim", "metric", "method", "baseline", "difference [95 %]", "verdict"]
    plain = f"{setting(table.found)} {table.cost}".replace("**", "").replace("`", "")
    return Table(table.file.stem, head, rows, note=plain, text=True)
