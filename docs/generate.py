"""Writes docs/systems/<name>.md, evidence, pages of claims, README's tables from code and results.

`python docs/generate.py` writes; `--check` fails if a file is out of date (a test runs it).
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import re
import sys
from pathlib import Path
from typing import Any, get_type_hints

import speed

from tenfold.core.config import differences, to_json
from tenfold.report import evidence
from tenfold.report.claim import claim_page
from tenfold.report.claim_rows import (
    ARROWS,
    claims_table,
    metric_title,
    number,
    setting,
    verdict_counts,
)
from tenfold.systems import SYSTEMS, system_class

ROOT = Path(__file__).resolve().parent.parent


def field_texts(cls: type) -> dict[str, str]:
    """The docstring under each field of a dataclass, from its source."""
    tree = ast.parse(inspect.getsource(cls)).body[0]
    assert isinstance(tree, ast.ClassDef)
    texts = {}
    for one, following in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(one, ast.AnnAssign) and isinstance(following, ast.Expr):
            if isinstance(following.value, ast.Constant):
                texts[one.target.id] = " ".join(str(following.value.value).split())  # type: ignore[union-attr]
    return texts


def fields(cls: type, prefix: str = "") -> list[tuple[str, str, str]]:
    """(dotted name, default, text) of every field."""
    hints, texts = get_type_hints(cls), field_texts(cls)
    rows: list[tuple[str, str, str]] = []
    for f in dataclasses.fields(cls):
        if dataclasses.is_dataclass(hints[f.name]):
            rows += fields(hints[f.name], f"{prefix}{f.name}.")
        else:
            default = "" if f.default is dataclasses.MISSING else repr(f.default)
            rows.append((prefix + f.name, default, texts.get(f.name, "")))
    return rows


def page(name: str) -> str:
    """The page of one system."""
    cls = system_class(name)
    paper, recipes = cls.paper, cls.recipes
    file, alt = picture(name)
    lines = [
        f"# {name}: {cls.task}",
        "",
        "*Written by `docs/generate.py` from the code and the committed results; do not edit.*",
        "",
        f"**{paper.title}**, arXiv {paper.arxiv}. {paper.says}",
        "",
        f"- Official code: {paper.code}. Official weights: {paper.weights_licence}.",
        f"- Use: {cls.intended}",
        f"- Read the code: `src/tenfold/systems/{name}/` (its README says how we differ).",
        "",
        *([f"![{alt}](../pictures/{file})", ""] if file else []),
        *guide(name),
        "## Results",
        "",
        *results(name),
        "## Recipes",
        "",
        "Each is the published setting, changed as listed.",
        "",
    ]
    published = to_json(recipes["paper"])
    for recipe, cfg in recipes.items():
        changed = "; ".join(f"`{d}`" for d in differences(published, to_json(cfg)))
        lines.append(f"- **{recipe}**: {changed or 'the published setting'}")
    lines += ["", "## Fields", "", "| field | default | meaning |", "|---|---|---|"]
    for field, default, text in fields(type(recipes["paper"])):
        text = text.replace("|", "\\|")
        shown = f"`{default}`" if default else "set by the recipe"
        lines.append(f"| `--{field.replace('_', '-')}` | {shown} | {text} |")
    lines += ["", "## Cite", "", "```bibtex", paper.cite, "```", ""]
    return "\n".join(lines)


def guide(name: str) -> list[str]:
    """How to start with data of one's own, where somebody wrote that down."""
    file = ROOT / "docs" / "guides" / f"{name}.md"
    return ["## Start", "", *file.read_text().splitlines(), ""] if file.exists() else []


def results(name: str) -> list[str]:
    """What was committed of claims and benchmarks, as tables."""
    lines: list[str] = []
    found = read("claims", name)
    if found:
        lines += [setting(found), "", *claims_table(found, sentences=True), ""]
        lines += [f"{ARROWS} All rows: [claims/{name}.md](../../claims/{name}.md).", ""]
    lines += long_run(name)
    others = further(name)
    if others:
        lines += ["Further:", "", *[f"- [{title}](../../claims/{file})" for file, title in others]]
        lines += [""]
    lines += speed.section(name)
    return lines or ["No committed results yet.", ""]


def long_run(name: str) -> list[str]:
    """A run of the published size, where one was committed."""
    result = read("claims", f"{name}-long").get("result")
    if not result:
        return []
    average = {k: v for k, v in result["metrics"].items() if "/average/" in k}
    titles = [metric_title(key, result).split(", ", 1) for key in average]
    columns = [rest.split(" [")[0] for _, rest in titles]
    unit = titles[0][1].rpartition(" ")[2]
    return [
        f"One longer run of the published size, one seed, {result['data']['kind']} data "
        f"([claims/{name}-long.md](../../claims/{name}-long.md)):",
        "",
        f"| | {' | '.join(columns)} |",
        f"|---|{'--:|' * len(columns)}",
        f"| {titles[0][0]} {unit} | {' | '.join(number(v, 1) for v in average.values())} |",
        "",
        f"![Training loss and held-out error](../../claims/{name}-long.png)",
        "",
    ]


def further(name: str) -> list[tuple[str, str]]:
    """(file, title) of what else was measured for a system."""
    files = sorted((ROOT / "claims").glob(f"{name}-*.md"))
    heads = [(file.name, file.read_text().splitlines()[0].lstrip("# ")) for file in files]
    return [(file, title) for file, title in heads if file != f"{name}-long.md"]


def read(folder: str, name: str) -> dict[str, Any]:
    """A committed result file, empty if there is none."""
    file = ROOT / folder / f"{name}.json"
    found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    return found


def picture(name: str) -> tuple[str, str]:
    """(file in docs/pictures, what it shows) as the README beside the system's code has it."""
    text = (ROOT / "src" / "tenfold" / "systems" / name / "README.md").read_text()
    shown = re.search(r"!\[(.*?)\]\(\S*docs/pictures/(\S+)\)", text)
    return (shown[2], shown[1]) if shown else ("", "")


def systems_table() -> list[str]:
    """README's table: a row a system, with its picture, its first claim and the verdict on it.

    HTML, because a row of Markdown is one line, and these would be long ones; two columns, because
    more do not fit a telephone.
    """
    lines = ["<table>"]
    for name, entry in SYSTEMS.items():
        (file, alt), small = picture(name), f"docs/pictures/small/{name}"
        thumb = next((end for end in (".png", ".gif") if (ROOT / f"{small}{end}").exists()), "")
        image = [
            f'<td width="150"><a href="docs/pictures/{file}">',
            f'<img src="{small}{thumb}" width="150" alt="{alt}"></a></td>',
        ]
        lines += [
            "<tr>",
            *(image if thumb else ['<td width="150"></td>']),
            f'<td><b><a href="docs/systems/{name}.md">{name}</a></b>: {entry.task}<br>',
            *verdicts(read("claims", name).get("claims", [])),
            "</td></tr>",
        ]
    return [*lines, "</table>"]


def verdicts(claims: list[dict[str, Any]]) -> list[str]:
    """The first claim and the verdict on it, and how many of all have which."""
    if not claims:
        return ["no claim was run yet"]
    counts = [f"{count} {name}" for name, count in verdict_counts(claims).items()]
    first = f"“{claims[0]['says'].rstrip('.')}”: <b>{claims[0]['verdict']['name']}</b>"
    return [f"{first}<br>", f"all {len(claims)} claims: {', '.join(counts)}"]


def results_tables() -> list[str]:
    """README's results: the claims of each system."""
    lines: list[str] = []
    for name in SYSTEMS:
        found = read("claims", name)
        lines += [f"### {name}", ""]
        if found:
            lines += [setting(found), "", *claims_table(found, sentences=False), ""]
        more = [f"[every row](claims/{name}.md)"] if found else []
        if read("claims", f"{name}-long"):
            more.append(f"[a run of the published size](claims/{name}-long.md)")
        more += [f"[{title}](claims/{file})" for file, title in further(name)]
        lines += ["More: " + ",\n".join([*more, f"[its page](docs/systems/{name}.md)."]), ""]
    return lines[:-1]


def fill(text: str, mark: str, lines: list[str]) -> str:
    """Replace what stands between `<!-- mark: ... -->` and the next `<!-- end -->`."""
    start = text.index(f"<!-- {mark}:")
    start = text.index("\n", start) + 1
    return text[:start] + "\n".join(lines) + "\n" + text[text.index("<!-- end -->", start) :]


def readme() -> str:
    """README with its written parts renewed."""
    text = fill((ROOT / "README.md").read_text(), "systems", systems_table())
    text = fill(text, "results", results_tables())
    return fill(text, "speed", [*speed.table([*SYSTEMS]), *speed.compiled()])


def main() -> None:
    """Write the pages, or check them."""
    stale = []
    pages = {ROOT / "docs" / "systems" / f"{name}.md": page(name) for name in SYSTEMS}
    tasks = {name: entry.task for name, entry in SYSTEMS.items()}
    found = evidence.read_evidence(tasks, ROOT / "claims")
    pages[ROOT / "docs" / "evidence.md"] = "\n".join(evidence.markdown(found, ROOT / "docs")) + "\n"
    pages |= {
        table.file.with_suffix(".md"): claim_page(table.found["system"], table.found)
        for one in found
        for table in one.judged
    }
    pages[ROOT / "README.md"] = readme()
    for target, text in pages.items():
        if "--check" in sys.argv:
            if not target.exists() or target.read_text() != text:
                stale.append(target.name)
        else:
            target.write_text(text)
    if stale:
        sys.exit(f"out of date: {', '.join(stale)}; run python docs/generate.py")


if __name__ == "__main__":
    main()
