"""Writes docs/systems/<name>.md and README's tables from code and committed results.

`python docs/generate.py` writes; `--check` fails if a file is out of date (a test runs it).
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import sys
from pathlib import Path
from typing import Any, get_type_hints

from tenfold.core.config import differences, to_json
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
    """What was committed of claims and benchmarks."""
    lines: list[str] = []
    claims = ROOT / "claims" / f"{name}.json"
    if claims.exists():
        found: dict[str, Any] = json.loads(claims.read_text())
        data = found["data"]
        lines += [f"Claims (data: {data['name']}, {data['kind']}; {found['budget']}):", ""]
        for claim in found["claims"]:
            verdict = claim["verdict"]
            lines.append(
                f"- {claim['says']} **{verdict['name']}**: {claim['metric']} "
                f"{verdict['method']:.2f} against {verdict['baseline']:.2f} ({claim['baseline']})."
            )
        lines += ["", f"All rows: [claims/{name}.md](../../claims/{name}.md).", ""]
    long = read("claims", f"{name}-long").get("result")
    if long:
        average = {k: v for k, v in long["metrics"].items() if "/average/" in k}
        numbers = ", ".join(f"{v:.1f} at {k.split('/')[-1]}" for k, v in average.items())
        lines += [
            f"One longer run of the published size, one seed: {numbers} "
            f"({long['data']['kind']} data; [claims/{name}-long.md](../../claims/{name}-long.md)).",
            "",
            f"![Training loss and held-out error](../../claims/{name}-long.png)",
            "",
        ]
    for file in sorted((ROOT / "claims").glob(f"{name}-*.md")):
        if file.stem != f"{name}-long":
            title = file.read_text().splitlines()[0].lstrip("# ")
            lines += [f"[{title}](../../claims/{file.name}).", ""]
    speed = read("benchmarks/results", name)
    if speed:
        parts = [
            f"{row['what']} {seen[1]:.2f} times as fast as the {side} computation"
            for row in speed["timings"]
            for side, seen in row["ratio"].items()
        ]
        link = f"[benchmarks/results/{name}.md](../../benchmarks/results/{name}.md)"
        same = speed.get("compares", "in one process with equal outputs")
        lines += [f"Speed, {same}: {'; '.join(parts)} ({link}).", ""]
    return lines or ["No committed results yet.", ""]


def read(folder: str, name: str) -> dict[str, Any]:
    """A committed result file, empty if there is none."""
    file = ROOT / folder / f"{name}.json"
    found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    return found


def systems_table() -> list[str]:
    """README's table: a row a system, its first claim as measured."""
    lines = ["| system | what it does | paper's claim, as tested | measured | verdict | demo |"]
    lines.append("|---|---|---|---|---|---|")
    for name, entry in SYSTEMS.items():
        claims = read("claims", name).get("claims", [])
        says, measured, verdict = "", "", "not run"
        if claims:
            first, found = claims[0], claims[0]["verdict"]
            says, verdict = first["says"], found["name"]
            measured = f"{found['method']:.2f} against {found['baseline']:.2f} {first['metric']}"
        page_link = f"[{name}](docs/systems/{name}.md)"
        minutes = f"{entry.minutes} min"
        lines.append(
            f"| {page_link} | {entry.task} | {says} | {measured} | {verdict} | {minutes} |"
        )
    return lines


def fill(text: str, mark: str, lines: list[str]) -> str:
    """Replace what stands between `<!-- mark: ... -->` and the next `<!-- end -->`."""
    start = text.index(f"<!-- {mark}:")
    start = text.index("\n", start) + 1
    return text[:start] + "\n".join(lines) + "\n" + text[text.index("<!-- end -->", start) :]


def readme() -> str:
    """README with its written parts renewed."""
    text = fill((ROOT / "README.md").read_text(), "systems", systems_table())
    lines: list[str] = []
    for name in SYSTEMS:
        lines += [f"### {name}", "", *results(name)]
    return fill(text, "results", lines[:-1]).replace("(../../", "(")


def main() -> None:
    """Write the pages, or check them."""
    stale = []
    pages = {ROOT / "docs" / "systems" / f"{name}.md": page(name) for name in SYSTEMS}
    for target, text in {**pages, ROOT / "README.md": readme()}.items():
        if "--check" in sys.argv:
            if not target.exists() or target.read_text() != text:
                stale.append(target.name)
        else:
            target.write_text(text)
    if stale:
        sys.exit(f"out of date: {', '.join(stale)}; run python docs/generate.py")


if __name__ == "__main__":
    main()
