"""The page of evidence: what was run, what was not, what could not be tried."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tenfold.report.claim import write_claim
from tenfold.report.evidence import hours, markdown, read_evidence, write_evidence

Call = Callable[..., tuple[int, str, str]]
SYSTEMS = {"one": "does <one> thing", "two": "does another"}


def results(seconds: list[float]) -> dict:
    """A small table of a claim: two arms, and a row that shares the run of one."""
    arm = {"seeds": [0, 1, 2], "seconds": seconds, "parameters": 5}
    return {
        "claims": [{
            "says": "It is | better.", "metric": "mpjpe/average/400ms", "better": "lower",
            "baseline": "plain", "method": "ours", "paper": None,
        }],
        "methods": {
            "plain": {**arm, "metrics": [{"mpjpe/average/400ms": 10.0 + i / 9} for i in range(3)]},
            "shared": {**arm, "metrics": [{"mpjpe/average/400ms": 9.5}] * 3},
            "ours": {
                **arm, "seconds": [3600.0] * 3,
                "metrics": [{"mpjpe/average/400ms": 9.0 + i / 8} for i in range(3)],
            },
        },
        "environment": {"cpu": "made-up", "date": "2026-01-02", "commit": "abc",
                        "command": "tenfold claim one"},
        "data": {"name": "walkers", "kind": "generated", "note": ""},
        "budget": "300 steps each, same batches and seeds", "units": {"mpjpe": "mm"},
    }  # fmt: skip


@pytest.fixture
def claims(tmp_path: Path) -> Path:
    folder = tmp_path / "claims"
    folder.mkdir()
    write_claim("one", results([1800.0, 1800.0, 3600.0]), folder)
    (folder / "one-more.json").write_text(json.dumps({"environment": {"command": "make it"}}))
    (folder / "one-more.md").write_text("# One: more\n\nOf six, **not confirmed**, and so on.\n")
    (folder / "one-curves.md").write_text("# One: curves\n")
    (folder / "untried.toml").write_text(
        '[[untried]]\nsystem = "two"\nwhat = "a cluster"\nwhy = "none | here"\n'
    )
    return folder


def test_the_page_has_what_was_run_what_was_not_and_why(claims: Path, tmp_path: Path) -> None:
    page, html = write_evidence(SYSTEMS, claims, tmp_path / "docs")
    text = page.read_text()
    assert "| [one](#one) | 1 | 1 | 0 | 0 | generated | 6 | 5.0 |" in text
    assert "| [two](#two) | not run yet |" in text
    row = next(line for line in text.splitlines() if line.startswith("| It is"))
    assert row.startswith("| It is \\| better. | joint error, 400 ms [mm]\u00a0↓ | ours 9.12 |")
    assert row.endswith("−0.99 [−1.02, −0.95] | **shown** |")
    assert "Again: `tenfold claim one`." in text and "made-up, 2026-01-02, commit abc" in text
    assert "| [One: more](../claims/one-more.md) | not confirmed | `make it` |" in text
    assert "| [One: curves](../claims/one-curves.md) |  |  |" in text
    assert "| a cluster | none \\| here |" in text
    shown = html.read_text()
    assert "joint error, 400 ms [mm] ↓" in shown
    assert "does &lt;one&gt; thing" in shown and "a cluster" in shown and "not run yet" in shown
    links = re.findall(r"\]\((\.\./[^)]+)\)", text) + re.findall(r'href="(\.\./[^"]+)"', shown)
    assert links and all((page.parent / link).exists() for link in links)
    assert write_evidence(SYSTEMS, claims, tmp_path / "docs")[0].read_text() == text


def test_a_single_seed_has_no_interval(claims: Path, tmp_path: Path) -> None:
    one = results([60.0])
    for arm in one["methods"].values():
        arm.update({key: arm[key][:1] for key in ("seeds", "metrics", "seconds")})
    write_claim("two", one, claims)
    found = read_evidence(SYSTEMS, claims)
    assert any(line.endswith("| −1.000 | not shown |") for line in markdown(found, tmp_path))


def test_hours() -> None:
    assert [hours([360.0]), hours([3600.0] * 12), hours([])] == ["0.1", "12", "0.0"]


@pytest.mark.parametrize(("name", "content", "says"), [
    ("one.json", "[]", "one.json"),
    ("one.json", '{"claims": [{"says": 1}]}', "one.json"),
    ("one.json", '{"claims": [{}], "methods": {}, "data": {}, "budget": ""}', "claim 1 lacks says"),
    ("one.json", '{"claims": [{}]}', "lacks methods"),
    ("untried.toml", "[[", "untried.toml is no TOML"),
    ("untried.toml", "untried = 1", "untried"),
    ("untried.toml", '[[untried]]\nsystem = "one"', "entry 1 needs the texts system, what and why"),
    ("untried.toml", '[[untried]]\nsystem = "x"\nwhat = "a"\nwhy = "b"', "'x', which is no system"),
])  # fmt: skip
def test_what_is_damaged_is_named(claims: Path, name: str, content: str, says: str) -> None:
    (claims / name).write_text(content)
    with pytest.raises(ValueError, match=re.escape(says)):
        read_evidence(SYSTEMS, claims)


def test_a_page_of_others_is_not_replaced(claims: Path, tmp_path: Path) -> None:
    (tmp_path / "evidence.md").write_text("mine")
    with pytest.raises(ValueError, match="was not written by tenfold"):
        write_evidence(SYSTEMS, claims, tmp_path)
    assert (tmp_path / "evidence.md").read_text() == "mine"
    with pytest.raises(FileNotFoundError, match="give it by --out"):
        read_evidence(SYSTEMS, tmp_path / "none")
