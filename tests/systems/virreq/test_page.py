"""The page of ViRReq in a real browser: click, split, add a concept, mark, reload, kill, export."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from systems.virreq.painted import Painted, base, draw
from web.browser import Served, chromium, free_port
from web.look import CALM, opened, place, wait

from tenfold.data.images import runs
from tenfold.journal import events
from tenfold.systems.virreq import knowledge, trees
from tenfold.systems.virreq.config import PageOptions
from tenfold.systems.virreq.labelling import Labelling

UNIT, SAID = "document.querySelector('#unit').textContent", "document.querySelector('#said')"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[list[Served]]:
    """Two servers of the same page, one to begin when the other was killed."""
    draw(tmp_path / "photos")
    port, out = free_port(), tmp_path / "out"

    def make() -> Labelling:
        return Labelling(Painted(), base(), tmp_path / "photos", out, PageOptions())

    every = [Served(make, out, port) for _ in range(2)]
    yield every
    for one in every:
        one.close()


def click(page: Any, x: int, y: int) -> None:
    page.mouse.click(*place(page, x + 0.5, y + 0.5))


def says(page: Any, words: str) -> None:
    wait(page, f"!tenfold.page.busy && {SAID}.textContent.includes({json.dumps(words)})")


def units(page: Any) -> list[str]:
    """Rows of the tree, as a screen reader tells them."""
    return page.eval_on_selector_all("#tree li", "all => all.map(x => x.ariaLabel)")


def test_the_whole_loop(browser: Any, servers: list[Served], tmp_path: Path) -> None:
    page = browser.new_page(**CALM)
    errors = opened(page, servers[0].begin())
    click(page, 30, 40)  # a person
    says(page, "person 2.")
    assert page.text_content("#unit") == "person 2"
    page.keyboard.press("Enter")  # into parts
    says(page, "Found: head, body.")
    page.keyboard.press("2")
    wait(page, f"{UNIT} === 'body'")
    page.keyboard.press("Enter")  # again
    says(page, "Found: shirt, trousers.")
    page.keyboard.press("n")
    page.keyboard.type("pocket")
    page.keyboard.press("Enter")  # a concept that the knowledge base lacks
    says(page, "pocket was added. Found: pocket.")
    page.keyboard.press("3")  # it has the focus no more
    wait(page, f"{UNIT} === 'pocket'")
    page.click("#undo")
    says(page, "Taken back: what was found.")
    page.keyboard.press("3")
    says(page, "Found: pocket.")
    page.click("#tree li:has-text('trousers')")
    page.click("#wrong")
    says(page, "trousers 6 is taken out")
    page.keyboard.press("d")
    says(page, "body is done: what is not here")
    rows = [
        "scene, done, 1 part", "person (region), open, 1 part", "person 2, done, 2 parts",
        "head, not annotated", "body, done, 2 parts, finished there",
        "shirt, no parts known, finished there", "pocket, no parts known, finished there",
    ]  # fmt: skip
    assert units(page) == rows
    page.reload()
    wait(page, "tenfold.numbers")
    assert units(page) == rows and page.text_content("#unit") == "person (region)"
    assert not errors

    servers[0].kill()
    page.click("#split")  # nobody hears it yet
    page.wait_for_selector("#connection:not([hidden])")
    servers[1].begin()
    says(page, "Found: person.")  # sent again: the other one is told apart
    assert page.locator("#connection").is_hidden()
    assert units(page)[1] == "person (region), done, 2 parts" and len(units(page)) == 8
    kept = [e["kind"] for e in events(tmp_path / "out" / "requests.jsonl")]
    assert kept == ["found"] * 3 + ["concept", "found", "undo", "found", "wrong", "finish", "found"]

    with page.expect_download() as coming:
        page.click("#export")
    assert coming.value.suggested_filename == "trees.zip"
    with zipfile.ZipFile(io.BytesIO(Path(coming.value.path()).read_bytes())) as archive:
        archive.extractall(tmp_path / "read")
    kb = knowledge.read(tmp_path / "read" / "knowledge.json")
    assert kb.text == (tmp_path / "out" / "knowledge.json").read_text()
    tree = trees.read(tmp_path / "read" / "a.png-tree.json")
    trees.check(tree, kb)
    states = {(unit.name, unit.state) for unit in tree.units}
    assert {("head", "not-annotated"), ("body", "done"), ("person", "done")} <= states
    shirt, pocket = (next(u for u in tree.units if u.name == n) for n in ("shirt", "pocket"))
    assert (runs.area(shirt.mask), runs.area(pocket.mask)) == (24 * 28 - 36, 36)
    assert servers[1].end() == 0
    page.close()


def test_units_of_another_picture_are_not_closed(browser: Any, servers: list[Served]) -> None:
    """Which have the same numbers as those that were closed in this one."""
    page = browser.new_page(**CALM)
    errors = opened(page, servers[0].begin())
    click(page, 30, 40)
    says(page, "person 2.")
    page.keyboard.press("Enter")
    says(page, "Found: head, body.")
    page.keyboard.press("t")
    page.keyboard.press("ArrowLeft")
    assert not any(row.startswith("head") for row in units(page))
    page.keyboard.press("]")
    wait(page, "tenfold.page.picture && tenfold.page.image === 1")
    click(page, 60, 40)
    says(page, "person 2.")
    page.keyboard.press("Enter")
    says(page, "Found: head, body.")
    assert any(row.startswith("head") for row in units(page)), units(page)
    assert not errors
    page.close()


@pytest.mark.parametrize("way", ["keys", "touch"])
def test_keys_alone_and_fingers_alone(
    browser: Any, servers: list[Served], tmp_path: Path, way: str
) -> None:
    context = browser.new_context(
        viewport={"width": 390, "height": 844}, has_touch=way == "touch", reduced_motion="reduce"
    )
    page = context.new_page()
    errors = opened(page, servers[0].begin())
    if way == "keys":
        assert page.evaluate("document.activeElement.id") == "picture"
        page.evaluate("tenfold.view.cursor = [30, 39]")  # as many arrows would
        for key in ("Shift+ArrowDown", "Enter"):
            page.keyboard.press(key)
        says(page, "person 2.")
        for key in ("t", "Enter"):  # in the tree Enter splits, arrows walk
            page.keyboard.press(key)
        says(page, "Found: head, body.")
        for key in ("ArrowRight", "Shift+Digit2"):  # no face in the head
            page.keyboard.press(key)
        says(page, "No face here.")
        page.keyboard.press("1")
        says(page, "Found: hair.")
        page.keyboard.press("ArrowLeft")  # closes it
        assert page.get_attribute("#tree [aria-selected=true]", "aria-expanded") == "false"
        page.keyboard.press("ArrowRight")
    else:
        page.touchscreen.tap(*place(page, 30.5, 40.5))
        says(page, "person 2.")
        page.tap("#split")
        says(page, "Found: head, body.")
        page.tap("#concepts li:first-child .concept")
        wait(page, f"{UNIT} === 'head'")
        page.tap("#concepts li:has-text('face') .no-part")
        says(page, "No face here.")
        page.tap("#concepts li:has-text('hair') .concept")
        says(page, "Found: hair.")
        page.tap("#zoom")
    assert "head, done, 1 part" in units(page)
    for press in ("u", "#undo"):
        before = page.evaluate("tenfold.page.picture.revision")
        page.keyboard.press(press) if way == "keys" else page.tap("#undo")
        wait(page, f"!tenfold.page.busy && tenfold.page.picture.revision > {before}")
        if way == "keys" and press == "u":
            break
    assert page.evaluate("document.documentElement.scrollWidth") == 390 and not errors
    context.close()
