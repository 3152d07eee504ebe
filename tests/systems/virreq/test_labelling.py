"""Requests and verdicts of the page, without a browser: states, undo, kills, words, strangers."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from systems.virreq.painted import (
    OTHER,
    Painted,
    base,
    concepts,
    do,
    fresh,
    pages,
    person,
    states,
    unit,
)

from tenfold.journal import events
from tenfold.systems.virreq import knowledge
from tenfold.systems.virreq.labelling import Labelling
from tenfold.web.session import Stale

Open = Callable[..., Labelling]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    with pages(tmp_path) as open_page:
        yield open_page


def test_a_click_takes_an_object_out_of_a_region_that_is_found_first(opened: Open) -> None:
    network = Painted()
    page = opened(network)
    said = do(page, "click", x=30, y=40)
    assert said["said"] == "person 2." and set(said["masks"]) == {
        one["mask"] for one in said["picture"]["units"][1:]
    }
    again = do(page, "click", x=31, y=80)  # the same person: chosen, and nothing is kept
    assert again["select"] == 2 and again["picture"] == said["picture"] and not again["masks"]
    other = do(page, "click", x=90, y=40)
    assert other["select"] == 3 and states(page)[1, "person"] == "open"
    assert (
        do(page, "click", x=60, y=5)["said"] == "Nothing that is asked for is there (person, tree)."
    )
    done = do(page, "split", unit=1)
    assert states(page)[1, "person"] == "done" and done["said"] == "Nothing new was found."
    assert network.opened == 1  # features are kept: a request costs a head


def test_where_no_network_tells_objects_apart_connected_pieces_are_taken(opened: Open) -> None:
    page = opened(Painted(objects=False))
    said = do(page, "click", x=90, y=40)
    assert said["said"].endswith("it is a connected piece of the region.")
    one = unit(said, "person")
    assert one["area"] == 1524 and one["source"] == "type1"
    both = do(page, "split", unit=1)
    assert len(both["picture"]["units"]) == 3  # what is there stays, and nothing is left
    do(page, "undo"), do(page, "undo")
    do(page, "split", unit=0)
    assert "person" in do(page, "split", unit=1)["said"] and len(states(page)) == 4


def test_a_unit_is_done_when_all_of_its_concepts_are_known_whoever_says_so(opened: Open) -> None:
    """Asked one by one, found or not; said not to be there; finished by a person."""
    page = opened()
    do(page, "ask", unit=0, name="tree")  # not found
    assert states(page)[0, "scene"] == "open"
    said = do(page, "ask", unit=0, name="human")  # a synonym
    assert concepts(unit(said, "scene")) == {"person": "there", "tree": "missed"}
    assert states(page)[0, "scene"] == "done"
    two = person(page)
    head = unit(do(page, "split", unit=two), "head")["id"]
    do(page, "absent", unit=head, name="face")
    assert states(page)[head, "head"] == "open"
    said = do(page, "ask", unit=head, name="hair")
    assert unit(said, "head")["state"] == "done"
    assert concepts(unit(said, "head")) == {"hair": "there", "face": "absent"}
    body = unit(said, "body")["id"]
    do(page, "ask", unit=body, name="shirt")
    said = do(page, "finish", unit=body)
    assert unit(said, "body")["state"] == "done"
    assert concepts(unit(said, "body")) == {"shirt": "there", "trousers": "missed"}
    said = do(page, "concept", unit=body, path=["person", "body"], name="hat")
    assert unit(said, "body")["state"] == "done"  # asked for at once
    said = do(page, "concept", unit=0, path=["person", "body"], name="pocket")
    assert unit(said, "body")["state"] == "open"  # nobody looked for it yet
    assert said["said"] == "pocket was added. It is asked for where it can be a part."
    later = [e["level"] for e in events(page.folder / "requests.jsonl") if e["kind"] == "finish"]
    assert later == [3]


def test_who_stops_early_says_nothing_of_parts(opened: Open) -> None:
    page = opened()
    two = person(page)
    said = do(page, "finish", unit=two)
    assert said["said"] == "person is finished, its parts are not annotated."
    assert unit(said, "person")["state"] == "not-annotated" and unit(said, "person")["stopped"]
    assert said["select"] == 1  # the region is still open
    said = do(page, "finish", unit=1)
    assert (
        said["said"].endswith("not there. Nothing is left in this picture.")
        and said["progress"]["finished"] == 1
    )
    assert states(page) == {
        (0, "scene"): "done", (1, "person"): "done", (two, "person"): "not-annotated",
    }  # fmt: skip
    assert not unit(do(page, "split", unit=two), "person")["stopped"]  # someone went on


def test_wrong_takes_out_and_is_remembered(opened: Open) -> None:
    page = opened()
    two = person(page)
    head = unit(do(page, "split", unit=two), "head")["id"]
    do(page, "split", unit=head)
    said = do(page, "wrong", unit=head)
    assert said["select"] == two and unit(said, "person")["state"] == "open"
    assert {name for _, name in states(page)} == {"scene", "person", "body"}
    assert concepts(unit(said, "person"))["head"] == "wrong"
    again = do(page, "split", unit=two)  # asks for the others alone
    assert "head" not in {u["class"] for u in again["picture"]["units"]}
    assert unit(again, "person")["state"] == "open"
    asked = do(page, "ask", unit=two, name="head")
    assert unit(asked, "person")["state"] == "done"
    number = unit(asked, "head")["id"]
    assert number > head  # numbers are not used again
    do(page, "wrong", unit=two)
    assert states(page)[1, "person"] == "open"
    do(page, "split", unit=1)
    assert [u for u in states(page) if u[1] == "person"] == [(1, "person"), (number + 1, "person")]
    with pytest.raises(ValueError, match="whole picture is never wrong"):
        do(page, "wrong", unit=0)
    with pytest.raises(ValueError, match="nothing left to ask for: parts that are here were gone"):
        for name in ("tree", "person"):
            do(page, "absent", unit=0, name=name)
        do(page, "split", unit=0)
    assert states(page) == {(0, "scene"): "done"}


def test_work_is_not_replaced_by_later_requests(opened: Open) -> None:
    page = opened()
    two = person(page)
    parts = unit(do(page, "split", unit=two), "body")["id"]
    do(page, "split", unit=parts)
    before = states(page)
    said = do(page, "split", unit=two)  # the body was divided: it stays; the head is found anew
    assert {k for k in before if k[1] != "head"} <= set(states(page))
    assert unit(said, "head")["id"] not in {number for number, _ in before}
    with pytest.raises(ValueError, match="'body' is there, and divided; take it out"):
        do(page, "ask", unit=two, name="body")
    shirt = unit(do(page, "concept", unit=parts, path=["person", "body"], name="pouch"), "shirt")
    assert shirt["area"] == 24 * 28 - 36
    do(page, "undo"), do(page, "undo")
    # a concept that competes takes pixels from what nobody went on with
    said = do(page, "concept", unit=two, path=["person"], name="shirt")
    assert "Nothing new was found" in said["said"]  # all of it is the body's, which stays


def test_undo_goes_back_step_by_step_and_a_restart_changes_nothing(opened: Open) -> None:
    page = opened()
    seen = [states(page)]
    two = person(page)
    seen.append(states(page))
    body = unit(do(page, "split", unit=two), "body")["id"]
    seen.append(states(page))
    do(page, "concept", unit=body, path=["person", "body"], name="pocket", synonyms=["pouch"])
    do(page, "finish", unit=body)
    whole = states(page)
    again = opened()
    assert states(again) == whole
    assert [n.name for n in again.kb.children(4)] == ["shirt", "trousers", "pocket"]
    assert knowledge.read(again.folder / "knowledge.json").text == again.kb.text
    words = [do(again, "undo")["said"] for _ in range(3)]
    assert words[-1] == "Taken back: a new concept. pocket is gone."
    assert knowledge.read(again.folder / "knowledge.json").text == base().text
    for expected in reversed(seen):
        assert states(again) == expected
        do(again, "undo")
    assert do(again, "undo")["said"] == "There is nothing to take back."
    number = do(again, "click", image=1, x=60, y=40)["picture"]["image"]
    assert number == 1 and do(again, "undo", image=0)["picture"]["image"] == 1  # where it was done


def test_what_hangs_on_something_taken_back_is_gone(opened: Open) -> None:
    """Two tabs: one divides what the other found, who then takes it back."""
    page = opened()
    two = person(page)
    head = unit(do(page, "split", unit=two, tab=OTHER), "head")["id"]
    do(page, "concept", unit=head, path=["person", "head"], name="hat", tab=OTHER)
    do(page, "finish", unit=head, tab=OTHER)
    do(page, "undo")
    assert states(page) == {(0, "scene"): "not-annotated"}
    two = person(page)
    assert states(page)[two, "person"] == "not-annotated" and len(states(page)) == 3
    with pytest.raises(Stale, match=f"unit {head} is not there any more"):
        do(page, "split", unit=head)


def test_who_is_late_is_told_and_nothing_counts_twice(opened: Open) -> None:
    page = opened()
    two = person(page)
    old = page.annotations.revision("a.png")
    first = {"id": fresh(), "revision": old, "unit": two}
    said = do(page, "split", **first)
    asked = page.network.asked
    assert do(page, "split", **first)["picture"] == said["picture"]  # sent again
    assert (
        page.network.asked == asked and do(opened(), "split", **first)["picture"] == said["picture"]
    )
    page = opened()
    for name, more in (("split", {"unit": two}), ("click", {"x": 1, "y": 1}),
                       ("wrong", {"unit": two})):  # fmt: skip
        with pytest.raises(Stale, match=r"a\.png was changed meanwhile"):
            do(page, name, revision=old, **more)


def test_words_that_the_network_does_not_know_and_bases_that_do_not_fit(
    opened: Open, tmp_path: Path
) -> None:
    page = opened()
    said: dict[str, Any] = {"unit": 0, "path": ["person", "head"]}
    for more, words in (
        ({"name": "xylophone"}, "no text 'xylophone': the nearest are hat, hair"),
        ({"name": "hair"}, "two children of 'head' .* are named 'hair'"),
        ({"name": " "}, "1 to 200 printable"), ({"name": "a\x1b[2J"}, "printable"),
        ({"name": "others"}, "which is what is left over"),
        ({"name": "hat", "path": ["person", "haed"]}, "did you mean 'head'"),
        ({"name": "hat", "synonyms": [f"w{n}" for n in range(21)]}, "at most 20 other words"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            do(page, "concept", **{**said, **more})
    for path, name, words in (
        ([], "all", "is asked for by no word"), (["person"], "HUMAN", "has the word 'HUMAN'"),
        (["person", "head"], "body", "two children of 'person'"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            do(page, "synonym", path=path, name=name)
    assert not list(events(page.folder / "requests.jsonl"))
    told = do(page, "synonym", path=["person", "head"], name="  crown ")
    assert told["knowledge"]["nodes"][2]["synonyms"] == ["crown"]
    assert told["said"].endswith("This run has no text for crown: answers heed none.")
    heard = do(page, "synonym", path=["person", "head"], name="hat")["said"]
    assert heard == "head is also called hat now."
    page.close()
    (tmp_path / "out" / "requests.jsonl").unlink()
    with pytest.raises(ValueError, match=r"knowledge\.json is not of this page, and would be writ"):
        opened()
    (tmp_path / "out" / "knowledge.json").unlink()
    learned = opened(Painted(refusal="this run takes no words"))
    assert learned.state()["refusal"] == "this run takes no words"
    with pytest.raises(ValueError, match="this run takes no words"):
        do(learned, "concept", unit=0, path=["person"], name="hat")


def test_a_picture_that_vanished_or_changed_is_named_and_its_tree_stays(
    opened: Open, tmp_path: Path
) -> None:
    page = opened()
    person(page)
    do(page, "click", image=1, x=60, y=40)
    Image.fromarray(np.zeros((50, 50, 3), np.uint8)).save(tmp_path / "photos" / "a.png")
    (tmp_path / "photos" / "more" / "b.png").unlink()
    page = opened()
    with pytest.raises(ValueError, match="the tree is of a picture of 96 x 128 pixels .* 50 x 50"):
        do(page, "split", unit=2)
    assert len(states(page)) == len(states(page, "more/b.png")) == 3
    with zipfile.ZipFile(io.BytesIO(page.export("trees").content)) as archive:
        assert len(archive.namelist()) == 3
