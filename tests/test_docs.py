"""Documentation that is written from the code is up to date; documents hold what they promise."""

import dataclasses
import re
from pathlib import Path

import forked

from tenfold.systems import SYSTEMS, system_class

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def test_generated_pages_are_up_to_date() -> None:
    done = forked.run(ROOT / "docs" / "generate.py", "--check")
    assert done.returncode == 0, done.stderr


def test_links_between_documents_lead_somewhere() -> None:
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("src/**/README.md")]
    broken = []
    for page in pages:
        text = page.read_text()
        for link in re.findall(r"\]\(([^)]+)\)|(?:href|src)=\"([^\"]+)\"", text):
            target, _, heading = (link[0] or link[1]).partition("#")
            if target.startswith(("http", "mailto")):
                continue
            file = page.parent / target if target else page
            if not file.exists() or (heading and heading not in headings(file)):
                broken.append(f"{page.relative_to(ROOT)} links to {target}#{heading}")
    assert not broken, broken


def headings(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_readme_begins_with_the_two_commands_and_has_no_long_lines() -> None:
    block = README.split("```")[1].strip().splitlines()
    assert [line.split("#")[0].strip() for line in block] == ["make demo", "make test"]
    long = [x for x in README.splitlines() if len(x) > (180 if x.startswith("|") else 160)]
    assert not long, long


def test_hooks_before_a_commit_are_the_commands_of_lint() -> None:
    hooks = re.findall(r"entry: (.+)", (ROOT / ".pre-commit-config.yaml").read_text())
    lint = (ROOT / "Makefile").read_text().split("\nlint:")[1].split("\n\n")[0]
    assert hooks == [line.strip() for line in lint.splitlines()[1:]]


def test_the_page_of_the_api_has_every_system_with_its_options() -> None:
    page = (ROOT / "docs" / "api.md").read_text()
    named = page.split("\n- `name`: a name of `tenfold list`: ")[1].split("\n")[0]
    assert re.findall(r'"(\w+)"', named) == [*SYSTEMS]
    table = page.split("## system.predict\n")[1].split("## system.evaluate\n")[0]
    rows = re.findall(r"^\| (\w+) \|.*\| ([^|]+) \|$", table, re.MULTILINE)
    options = {name: cell for name, cell in rows if name in SYSTEMS}
    assert [*options] == [*SYSTEMS]
    for name, cell in options.items():
        there = [field.name for field in dataclasses.fields(system_class(name).options)]
        said = re.findall(r"`(\w+)`", cell)
        assert said == there or (cell.endswith("...") and {*said} <= {*there}), name
