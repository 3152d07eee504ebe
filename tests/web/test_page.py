"""The whole loop in a real browser: boxes, answers, a reload, a kill, training, an export."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pycocotools.coco import COCO
from web.browser import Served, chromium, free_port
from web.discs import DISCS, Discs, box_of, draw
from web.look import CALM, opened, place, wait

from tenfold.journal import events
from tenfold.systems.apis.answers import standing
from tenfold.systems.apis.config import PageOptions
from tenfold.systems.apis.labelling import Labelling, Trained

SAID = "document.querySelector('#said').textContent"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


def train(page: Labelling, report: Callable[[float, str], None]) -> Trained:
    for step in range(4):
        report(step / 4, f"step {step} of 4")
        time.sleep(0.02)
    return Trained(Discs(), 40.0)


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[list[Served]]:
    """Two servers of the same page, one to begin when the other was killed."""
    draw(tmp_path / "photos")
    port, out = free_port(), tmp_path / "out"

    def make() -> Labelling:
        return Labelling(
            Discs(finds=True), tmp_path / "photos", out, PageOptions(ahead=False), train
        )

    every = [Served(make, out, port) for _ in range(2)]
    yield every
    for one in every:
        one.close()


def drag(page: Any, box: list[float]) -> None:
    page.mouse.move(*place(page, *box[:2]))
    page.mouse.down()
    page.mouse.move(*place(page, *box[2:]), steps=2)
    page.mouse.up()


def answered(page: Any, count: int) -> None:
    """Wait until the page has drawn what follows so many answers."""
    wait(page, f"tenfold.numbers?.answers === {count}")


def test_the_whole_loop(browser: Any, servers: list[Served], tmp_path: Path) -> None:
    page = browser.new_page(**CALM)
    errors = opened(page, servers[0].begin())
    assert "#" not in page.url  # the token is not kept where it can be seen
    for number, disc in enumerate(DISCS["a.png"], 1):
        drag(page, box_of(disc))
        wait(page, f"tenfold.numbers.objects === {number}")
    page.keyboard.press("a")
    assert page.text_content("#question") == "Is the marked pixel part of this disc?"
    for number in range(12):
        page.keyboard.press("yn"[number % 2])
        answered(page, number + 1)
    page.reload()
    answered(page, 12)
    assert page.locator("#objects li").count() == 3 and not errors
    assert page.evaluate("document.activeElement.id") == "picture"

    servers[0].kill()
    page.keyboard.press("y")  # nobody hears it yet
    page.wait_for_selector("#connection:not([hidden])")
    assert "kept here and sent" in page.text_content("#connection")
    servers[1].begin()
    answered(page, 13)
    assert page.locator("#connection").is_hidden()
    for number, key in enumerate(["n", "Space", "s", "y", "n", "y", "n"], 14):
        page.keyboard.press(key)
        answered(page, number)
    page.keyboard.press("u")
    answered(page, 19)
    page.keyboard.press("y")
    answered(page, 20)
    kept = standing(events(tmp_path / "out" / "answers.jsonl"))
    assert len(kept) == 20 and len({a.id for a in kept}) == 20
    assert [a.label for a in kept[12:16]] == [1, 0, None, "skip"]

    page.click("#train")
    wait(page, "tenfold.numbers.model === 'model 1'")
    assert page.text_content("#job") == "model 1 answers now"
    assert page.get_attribute("#curve svg", "aria-label") == "Mask AP 40.0 after 20 answers"
    with page.expect_download() as coming:
        page.click("#export")
    assert coming.value.suggested_filename == "coco.json"
    read = COCO(coming.value.path())
    assert len(read.imgs) == 1 and len(read.anns) == 3
    for one, (x, y, r) in zip(read.anns.values(), DISCS["a.png"], strict=True):
        assert read.annToMask(one)[y, x] and one["area"] > 2 * r * r
    assert servers[1].end() == 0
    assert not (tmp_path / "out" / "token").exists()


@pytest.mark.parametrize("way", ["pointer", "touch"])
def test_without_keys(browser: Any, servers: list[Served], tmp_path: Path, way: str) -> None:
    """Boxes, answers, free clicks on and off the object, undo: by a mouse alone, or a finger."""
    context = browser.new_context(
        viewport={"width": 390, "height": 844}, has_touch=way == "touch", reduced_motion="reduce"
    )
    page = context.new_page()
    errors = opened(page, servers[0].begin())
    x, y, r = disc = DISCS["a.png"][0]
    press = page.tap if way == "touch" else page.click
    if way == "pointer":
        drag(page, box_of(disc))
    else:
        x0, y0, x1, y1 = box_of(disc)
        _touches(page, (x0, y0), (x, y), (x1, y1))
    wait(page, "tenfold.numbers.objects === 1")
    press("#answering")
    wait(page, "document.querySelector('#answering').ariaPressed === 'true'")
    for number, button in enumerate(["yes", "no", "unsure", "skip"], 1):
        press(f"#{button}")
        answered(page, number)
    press("#undo")
    answered(page, 3)
    page.wait_for_timeout(500)  # the picture stands where the next tap is aimed
    if way == "pointer":
        page.mouse.click(*place(page, x + 0.5, y + 0.5))
        answered(page, 4)
        page.mouse.click(*place(page, x - r - 0.5, y - r - 0.5), button="right")
    else:
        page.touchscreen.tap(*place(page, x + 0.5, y + 0.5))
        answered(page, 4)
        _touches(page, (x - r - 0.5, y - r - 0.5), hold="tenfold.numbers.answers === 5")
    answered(page, 5)
    clicks = standing(events(tmp_path / "out" / "answers.jsonl"))[3:]
    assert [(a.x, a.y, a.label, a.source) for a in clicks] == [
        (x, y, 1, "human"), (x - r - 1, y - r - 1, 0, "human"),
    ]  # fmt: skip
    if way == "pointer":
        _clicked_as_on_macos(page, x - r - 0.5, y - r - 0.5)
        answered(page, 6)
        last = standing(events(tmp_path / "out" / "answers.jsonl"))[-1]
        assert (last.x, last.y, last.label) == (x - r - 1, y - r - 1, 0)
    assert page.evaluate("document.documentElement.scrollWidth") == 390 and not errors
    context.close()


def _clicked_as_on_macos(page: Any, x: float, y: float) -> None:
    """A click with Ctrl, the right click there: the left button, and a menu that is asked for."""
    menu = "new MouseEvent('contextmenu', {ctrlKey: true, bubbles: true, cancelable: true})"
    page.mouse.move(*place(page, x, y))
    page.keyboard.down("Control")
    page.mouse.down()
    assert page.evaluate(f"!document.querySelector('canvas').dispatchEvent({menu})")  # prevented
    page.mouse.up()
    page.keyboard.up("Control")


def _touches(page: Any, *points: tuple[float, float], hold: str = "true") -> None:
    """A finger put down at the first pixel, moved along the others, held until `hold`, lifted."""
    session = page.context.new_cdp_session(page)
    for number, (x, y) in enumerate(points):
        left, top = place(page, x, y)
        kind = "touchMove" if number else "touchStart"
        sent = {"type": kind, "touchPoints": [{"x": left, "y": top}]}
        session.send("Input.dispatchTouchEvent", sent)
    # a finger that is lifted while it moves begins a fling, and the next tap only stops that
    page.wait_for_timeout(150)
    wait(page, hold)
    session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


def test_boxes_and_clicks_by_keys_alone(
    browser: Any, servers: list[Served], tmp_path: Path
) -> None:
    page = browser.new_page(**CALM)
    errors = opened(page, servers[0].begin())
    page.evaluate("tenfold.view.cursor = [18, 18]")  # as many arrows would
    for keys in (
        ["Shift+ArrowLeft", "Enter"],
        ["Shift+ArrowRight", *["ArrowRight", "ArrowDown"] * 20],
    ):
        for key in keys:
            page.keyboard.press(key)
    page.keyboard.press("Enter")
    wait(page, "tenfold.numbers.objects === 1")
    page.keyboard.press("a")
    page.evaluate("tenfold.view.cursor = [40, 40]")
    page.keyboard.press("Shift+ArrowDown")
    assert page.text_content("#said") == "column 40, row 41"
    page.keyboard.press("Shift+Enter")
    answered(page, 1)
    (click,) = standing(events(tmp_path / "out" / "answers.jsonl"))
    assert (click.x, click.y, click.label) == (40, 41, 0)
    page.focus("#yes")
    page.keyboard.press("Space")  # presses the button that has the focus
    answered(page, 2)
    assert standing(events(tmp_path / "out" / "answers.jsonl"))[1].label == 1 and not errors


@pytest.mark.parametrize("way", ["pointer", "touch", "keys"])
def test_a_box_is_changed_and_boxes_are_suggested(
    browser: Any, servers: list[Served], tmp_path: Path, way: str
) -> None:
    """A corner dragged, the box moved; what the model finds is added and can be changed."""
    context = browser.new_context(**CALM, has_touch=way == "touch")
    page = context.new_page()
    errors = opened(page, servers[0].begin())
    page.click("#suggest")
    wait(page, "tenfold.numbers.objects === 1")
    assert page.text_content("#said").startswith("1 object found")
    assert page.get_attribute("#picture", "aria-label") == "Picture a.png with 1 object"
    first = page.evaluate("tenfold.page.objects[0].box")
    assert first == [40.0, 36.0, 120.0, 108.0]
    page.click("#editing")
    page.keyboard.press("z")
    wanted = [30.0, 30.0, 120.0, 108.0], [35.0, 33.0, 125.0, 111.0]
    if way == "pointer":
        drag(page, [40.0, 36.0, 30.0, 30.0])
    elif way == "touch":
        _touches(page, (41.0, 37.0), (36.0, 34.0), (31.0, 31.0))
    else:
        page.focus("#picture")
        for key in ["ArrowLeft"] * 10 + ["ArrowUp"] * 6 + ["Shift+ArrowRight"] * 10:
            page.keyboard.press(key)
        assert "Columns 30 to 120, rows 30 to 102" in page.text_content("#said")
        for key in ["Shift+ArrowDown"] * 6 + ["Enter"]:
            page.keyboard.press(key)
    near = "tenfold.page.objects[0].box.every((v, i) => Math.abs(v - {}[i]) < 1.1)".format
    wait(page, near(wanted[0]))
    if way == "pointer":
        drag(page, [80.0, 80.0, 85.0, 83.0])
    elif way == "touch":
        _touches(page, (80.0, 80.0), (82.0, 81.0), (85.0, 83.0))
    else:
        for key in ["ArrowRight"] * 5 + ["ArrowDown"] * 3 + ["Enter"]:
            page.keyboard.press(key)
    wait(page, near(wanted[1]))
    kinds = [event["kind"] for event in events(tmp_path / "out" / "answers.jsonl")]
    assert kinds == ["object", "change", "change"] and not errors
    page.keyboard.press("u")
    wait(page, near(wanted[0]))
    context.close()


def test_what_was_begun_on_one_picture_is_not_kept_of_another(
    browser: Any, servers: list[Served], tmp_path: Path
) -> None:
    """A box that is being dragged, and its first corner by keys."""
    page = browser.new_page(**CALM)
    errors = opened(page, servers[0].begin())
    shown = "tenfold.view.picture && tenfold.page.image === {}".format
    page.mouse.move(*place(page, 20, 20))
    page.mouse.down()
    page.mouse.move(*place(page, 60, 60), steps=2)
    page.keyboard.press("]")
    wait(page, shown(1))
    page.mouse.move(*place(page, 90, 90), steps=2)
    page.mouse.up()
    page.keyboard.press("u")  # what is asked for is asked in order
    wait(page, f"{SAID}.includes('There is nothing to take back')")

    page.evaluate("tenfold.view.cursor = [18, 18]")  # as many arrows would
    page.keyboard.press("Enter")
    page.keyboard.press("[")
    wait(page, shown(0))
    page.evaluate("tenfold.view.cursor = [60, 50]")
    for key in ("Enter", "ArrowRight", "ArrowDown", "Enter"):
        page.keyboard.press(key)
    wait(page, "tenfold.numbers.objects === 1")
    assert page.evaluate("tenfold.page.objects[0].box.slice(0, 2)") == [60, 50]
    assert not errors
    page.close()


def test_no_box_is_kept_of_a_picture_that_is_not_there_yet(
    browser: Any, servers: list[Served], tmp_path: Path
) -> None:
    page = browser.new_page(**CALM)
    errors = opened(page, servers[0].begin())
    held: list[Any] = []
    page.route("**/api/image/1", lambda route: held.append(route))
    corners = place(page, 20, 20), place(page, 60, 60)
    page.keyboard.press("]")
    while not held:
        page.wait_for_timeout(20)
    page.mouse.move(*corners[0])
    page.mouse.down()
    page.mouse.move(*corners[1], steps=2)
    page.mouse.up()
    page.keyboard.press("u")
    wait(page, f"{SAID}.includes('There is nothing to take back')")
    held[0].continue_()
    wait(page, "tenfold.view.picture && tenfold.page.image === 1")
    assert not errors
    page.close()


def test_a_second_finger_does_not_move_what_the_first_one_draws(
    browser: Any, servers: list[Served], tmp_path: Path
) -> None:
    context = browser.new_context(**CALM, has_touch=True)
    page = context.new_page()
    errors = opened(page, servers[0].begin())
    session = context.new_cdp_session(page)

    def touch(kind: str, *points: tuple[float, float]) -> None:
        at = [place(page, *point) for point in points]
        fingers = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(at)]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": fingers})

    touch("touchStart", (20.0, 20.0))
    touch("touchMove", (60.0, 60.0))
    touch("touchStart", (60.0, 60.0), (120.0, 20.0))
    touch("touchMove", (60.0, 60.0), (140.0, 120.0))
    page.wait_for_timeout(150)
    touch("touchEnd")
    wait(page, "tenfold.numbers.objects === 1")
    box = page.evaluate("tenfold.page.objects[0].box")
    assert all(abs(a - b) < 1.5 for a, b in zip(box, [20, 20, 60, 60], strict=True)), box
    assert not errors
    context.close()


def test_an_object_that_another_tab_removed_is_named(
    browser: Any, servers: list[Served], tmp_path: Path
) -> None:
    address = servers[0].begin()
    one, other = (browser.new_page(**CALM) for _ in range(2))
    errors = opened(one, address)
    for number, disc in enumerate(DISCS["a.png"][:2], 1):
        drag(one, box_of(disc))
        wait(one, f"tenfold.numbers.objects === {number}")
    opened(other, address)
    other.click("#objects button[aria-label='Remove disc 1']")
    wait(other, "tenfold.numbers.objects === 1")
    one.click("#objects button[aria-label='Ask about disc 1']")
    wait(one, f"{SAID}.includes('object 1 is not there')")
    wait(one, "tenfold.page.objects.length === 1")
    assert not [line for line in errors if "409" not in line]  # the browser's own line of it
    for page in (one, other):
        page.close()


def test_two_tabs_and_a_stranger(browser: Any, servers: list[Served], tmp_path: Path) -> None:
    address = servers[0].begin()
    one, other = (browser.new_page(**CALM) for _ in range(2))
    opened(one, address)
    for disc in DISCS["a.png"][:2]:
        drag(one, box_of(disc))
        one.wait_for_timeout(50)
    wait(one, "tenfold.numbers.objects === 2")
    opened(other, address)
    names = [page.evaluate("tenfold.page.question.object.id") for page in (one, other)]
    assert sorted(names) == [1, 2]
    other.evaluate("id => { tenfold.page.question = { ...tenfold.page.question, id }; }",
                   one.evaluate("tenfold.page.question.id"))  # fmt: skip
    one.keyboard.press("a")
    one.keyboard.press("y")
    answered(one, 1)
    other.keyboard.press("a")
    other.keyboard.press("n")
    wait(other, "document.querySelector('#said').textContent.includes('meanwhile')")
    assert len(standing(events(tmp_path / "out" / "answers.jsonl"))) == 1

    stranger = browser.new_page(**CALM)
    stranger.goto(address.partition("#")[0])
    stranger.wait_for_selector("#connection:not([hidden])")
    assert "Open the address that the server printed" in stranger.text_content("#connection")
    stranger.evaluate("hash => { location.hash = hash; }", address.partition("#")[2])
    wait(stranger, "tenfold.numbers?.answers === 1")  # pasted into the same tab

    busy = browser.new_page(**CALM)
    busy.goto(address.partition("#")[0])
    busy.wait_for_selector("#connection:not([hidden])")
    pasted_meanwhile = """hash => {
      const real = window.fetch;
      window.fetch = async (...request) => {
        window.fetch = real;
        location.hash = hash;
        await new Promise((go) => setTimeout(go, 50));
        return real(...request);
      };
    }"""
    busy.evaluate(pasted_meanwhile, address.partition("#")[2])
    wait(busy, "tenfold.numbers?.answers === 1")
