"""Requests and verdicts of the page, without a browser: states, undo, kills, words, strangers."""

from __future__ import annotations

import io
import json
import os
import shutil
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient
from systems.virreq.painted import OTHER, PEOPLE, TAB, Painted, base, fresh, pages

from tenfold.data.images import coco_panoptic, coco_tree, panoptic_parts, relations, runs
from tenfold.journal import events
from tenfold.metrics.panoptic import hpq
from tenfold.systems.virreq import knowledge, trees
from tenfold.systems.virreq.exports import TITLES
from tenfold.systems.virreq.labelling import Labelling
from tenfold.web import guard, server
from tenfold.web.session import Stale

Open = Callable[..., Labelling]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    with pages(tmp_path) as open_page:
        yield open_page


def do(page: Labelling, verb: str, **more: Any) -> dict[str, Any]:
    """A command about picture 0 as it is now."""
    image = more.setdefault("image", 0)
    if verb not in ("undo", "synonym"):
        more.setdefault("revision", page.tree(image)["picture"]["revision"])
    return page.commands[verb].run(**{"id": fresh(), "tab": TAB, **more})


def person(page: Labelling) -> int:
    return int(do(page, "click", x=30, y=40)["select"])


def unit(said: dict[str, Any], name: str) -> dict[str, Any]:
    """The last unit of a name that a page shows."""
    return next(u for u in reversed(said["picture"]["units"]) if u["class"] == name)


def concepts(one: dict[str, Any]) -> dict[str, str]:
    return {concept["name"]: concept["is"] for concept in one["concepts"]}


def states(page: Labelling, image: str = "a.png") -> dict[tuple[int, str], str]:
    return {(u.id, u.name): u.state for u in page.annotations.picture(image).tree.units}


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


@pytest.mark.parametrize(
    ("event", "words"),
    [
        ({"subject": "picture ../../x", "kind": "finish"}, "'../../x' is no picture below"),
        ({"subject": "picture /etc/x", "kind": "finish"}, "is no picture below a folder"),
        ({"subject": "picture a.png", "kind": "finish"}, "has the size None, no picture's"),
        ({"subject": "picture a.png", "kind": "finish", "size": [10**6, 10**6]}, "no picture's"),
        ({"subject": "picture a.png", "kind": "finish", "size": [96, 128]}, "lacks 'unit'"),
        ({"subject": "knowledge", "kind": "concept", "path": 3}, "lacks 'int' object"),
        ({"subject": "knowledge", "kind": "concept", "path": ["person"]}, "lacks 'name'"),
        ({"subject": "picture a.png", "kind": "bite", "size": [96, 128], "unit": 0}, "bite"),
        ({"subject": "picture a.png", "kind": "found", "size": [96, 128], "answers": [
            {"what": "parts", "unit": 0, "names": ["tree"], "gone": [], "masks": [], "units": [
                {"id": 1, "class": "tree", "parent": 0, "mask": {"size": [2, 2], "counts": "4"}}]}
        ]}, "a mask is of 2 x 2 pixels"),
    ],
)  # fmt: skip
def test_a_log_that_is_none_of_this_page_is_named(
    opened: Open, tmp_path: Path, event: dict[str, Any], words: str
) -> None:
    (tmp_path / "out").mkdir()
    line = json.dumps({"id": "event-x", "tab": TAB, **event})
    (tmp_path / "out" / "requests.jsonl").write_text(f"{line}\n")
    with pytest.raises(ValueError, match=words):
        opened().export("trees")
    assert not (tmp_path / "x-tree.json").exists()


# --- exports -------------------------------------------------------------------------------------


def labelled(opened: Open) -> Labelling:
    """One of two people divided to the end; the person of the other picture, and all said there."""
    page = opened()
    two = person(page)
    for name in ("head", "body"):
        do(page, "split", unit=unit(do(page, "split", unit=two), name)["id"])
    do(page, "click", image=1, x=60, y=40)
    do(page, "finish", image=1, unit=1)
    return page


def read_back(page: Labelling, form: str, place: Path) -> Path:
    media = page.export(form)
    assert media.name.startswith(form)
    if media.kind == "application/zip":
        zipfile.ZipFile(io.BytesIO(media.content)).extractall(place)
    else:
        place.mkdir()
        (place / media.name).write_bytes(media.content)
    return place


def test_exports_are_read_again(opened: Open, tmp_path: Path) -> None:
    page = labelled(opened)
    now = [page.annotations.picture(name).tree for name in PEOPLE]
    place = read_back(page, "trees", tmp_path / "trees")
    kb = knowledge.read(place / "knowledge.json")
    for name, tree in zip(PEOPLE, now, strict=True):
        read = trees.read(place / f"{name}-tree.json")
        assert read == tree and kb.sha in read.kb

    place = read_back(page, "coco_panoptic", tmp_path / "panoptic")
    found = coco_panoptic.open_panoptic(place / "panoptic.json", place / "panoptic")
    assert dict(found.names) == {1: "person", 2: "tree"} and found.images[2] == "more__b.png"
    first, second = found
    # one object, and what nobody told apart of the region beside it
    assert sorted(first.names.values()) == ["person", "person"] and len(first.crowd) == 1
    assert list(second.names.values()) == ["person"] and not second.crowd

    place = read_back(page, "panoptic_parts", tmp_path / "parts")
    spec = panoptic_parts.read_spec(place / "parts.yaml")
    uids = panoptic_parts.read(place / "a.png-parts.tif")
    tree = panoptic_parts.tree_of(uids, spec)
    whole = next(u for u in tree.parts(0) if not u.crowd)
    assert {part.name for part in tree.parts(whole.id)} == {"head", "body"}
    assert runs.area(whole.mask) == 1524 and sum(u.crowd for u in tree.units) == 1

    place = read_back(page, "cocotree", tmp_path / "cocotree")
    one, two = coco_tree.read(place / "predictions.jsonl")
    assert {u.name for u in one.units} == {"scene", "person", "head", "body", "hair", "face",
                                           "shirt", "trousers"}  # fmt: skip
    assert hpq([now[1]], [two]).hpq == 1

    place = read_back(page, "x_anylabeling", tmp_path / "relations")
    linked = relations.read(place / "a.json")
    body = next(u for u in linked.units if u.name == "body")
    assert {u.name for u in linked.parts(body.id)} == {"shirt", "trousers"}
    assert (place / "more" / "b.json").is_file()
    with pytest.raises(LookupError, match="no form 'docx'; there are trees"):
        page.export("docx")


def test_nothing_asked_and_too_many_concepts_for_a_form(opened: Open) -> None:
    page = opened()
    with pytest.raises(ValueError, match="nothing was asked for yet"):
        page.export("trees")
    many = base()
    for number in range(100):
        many = many.add(f"thing {number}", 0)
    network = Painted()
    network.adopt = lambda kb: None  # type: ignore[method-assign]
    page = opened(network, kb=many)
    do(page, "finish", unit=0)
    with pytest.raises(ValueError, match="numbers for 99 concepts side by side"):
        page.export("panoptic_parts")
    assert page.export("coco_panoptic").name == "coco_panoptic.zip"


# --- kills and strangers -------------------------------------------------------------------------


def test_killed_anywhere_and_tried_again_nothing_is_lost_or_doubled(
    opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log cut at 100 places; the client sends again what it heard nothing of."""
    page = opened()
    sent: list[tuple[str, dict[str, Any]]] = []
    log = tmp_path / "out" / "requests.jsonl"
    sizes = []

    def send(verb: str, **more: Any) -> dict[str, Any]:
        if verb != "undo":
            more["revision"] = page.annotations.revision("a.png")
        sent.append((verb, {"id": fresh(), "tab": TAB, "image": 0, **more}))
        said = page.commands[verb].run(**sent[-1][1])
        sizes.append(log.stat().st_size)
        return said

    two = int(send("click", x=30, y=40)["select"])
    body = unit(send("split", unit=two), "body")["id"]
    send("concept", unit=body, path=["person", "body"], name="pocket")
    pocket = unit(page.tree(0), "pocket")["id"]
    send("wrong", unit=pocket)
    send("undo")
    send("absent", unit=body, name="trousers")
    send("finish", unit=body)
    wanted, kinds = states(page), [event["kind"] for event in events(log)]
    page.close()
    whole = log.read_bytes()
    monkeypatch.setattr(os, "fsync", lambda file: None)  # what is cut is cut here
    for cut in np.linspace(0, len(whole) - 1, 100).astype(int).tolist():
        shutil.rmtree(tmp_path / "out")
        log.parent.mkdir()
        log.write_bytes(whole[:cut])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            page = opened()
        for (name, more), size in zip(sent, sizes, strict=True):
            if size > cut:
                page.commands[name].run(**more)
        page.close()
        assert states(page) == wanted
        assert [event["kind"] for event in events(log)] == kinds


PORT, TOKEN = 8765, "t" * 43


@pytest.fixture
def client(opened: Open) -> Iterator[tuple[TestClient, Labelling]]:
    page = opened()
    app = server.application(page, TOKEN, PORT)
    own = f"http://127.0.0.1:{PORT}"
    yield TestClient(app, base_url=own, headers={guard.TOKEN: TOKEN}), page  # type: ignore[arg-type]


GOOD: dict[str, Any] = {"id": "event-good", "tab": TAB, "image": 0, "revision": 0}


@pytest.mark.parametrize(
    ("name", "more", "status", "says"),
    [
        ("click", {"x": 30, "y": 400}, 400, "outside of the 128 x 96 picture"),
        ("click", {"x": -1, "y": 4}, 400, "outside"),
        ("click", {"x": 10**30, "y": 4}, 400, "outside"),
        ("click", {"x": 1.5, "y": 4}, 400, "x must be a whole number"),
        ("click", {"x": True, "y": 4}, 400, "x must be a whole number"),
        ("click", {"x": 1, "y": 4, "image": 9}, 404, "no picture 9"),
        ("click", {"x": 1, "y": 4, "image": -1}, 404, "no picture -1"),
        ("click", {"x": 1, "y": 4, "revision": 7}, 409, "changed meanwhile"),
        ("click", {"x": 1, "y": 4, "id": "../../x"}, 400, "id must be 8 to 64"),
        ("click", {"x": 1, "y": 4, "tab": "<b>"}, 400, "tab must be 8 to 64"),
        ("split", {"unit": 77}, 409, "unit 77 is not there"), ("split", {}, 400, "unit is missing"),
        ("ask", {"unit": 0, "name": "cart"}, 400, "has no part 'cart'"),
        ("ask", {"unit": 0, "name": ["person"]}, 400, "name must be a text"),
        ("absent", {"unit": 0, "name": "cart"}, 400, "has no part 'cart'"),
        ("finish", {"unit": 0, "level": 9}, 400, "'level' is unknown"),
        ("concept", {"unit": 0, "path": "person", "name": "hat"}, 400, "path must be a list"),
        ("concept", {"unit": 0, "path": ["x"] * 5000, "name": "hat"}, 400, "has no part 'x'"),
        ("concept", {"unit": 0, "path": [], "name": "h" * 201}, 400, "1 to 200 printable"),
        ("concept", {"unit": 0, "path": [], "name": "h" * 70_000}, 413, "more than 65536"),
        ("concept", {"unit": 0, "path": [], "name": "\u202ehat"}, 400, "printable"),
        ("concept", {"unit": 0, "path": [], "name": "hat", "thing": 1}, 400, "thing must be true"),
    ],
)  # fmt: skip
def test_what_is_not_taken(
    client: tuple[TestClient, Labelling], name: str, more: dict[str, Any], status: int, says: str
) -> None:
    asks, page = client
    found = asks.post(f"/api/{name}", json={**GOOD, **more})
    assert found.status_code == status and says in found.json()["error"]
    assert not list(events(page.folder / "requests.jsonl"))
    assert page.kb.text == base().text


def test_the_routes_are_behind_the_same_guard(client: tuple[TestClient, Labelling]) -> None:
    asks, page = client
    body = {**GOOD, "x": 30, "y": 40}
    for headers, status in (
        ({guard.TOKEN: "x"}, 401), ({"host": "evil.example"}, 403),
        ({"origin": "http://evil.example"}, 403), ({"sec-fetch-site": "cross-site"}, 403),
    ):  # fmt: skip
        assert asks.post("/api/click", json=body, headers=headers).status_code == status
        assert asks.get("/api/tree?image=0", headers=headers).status_code == status
    assert not page.network.opened
    found = asks.post("/api/click", json=body)
    assert found.status_code == 200 and found.json()["select"] == 2
    assert found.headers["content-security-policy"] == guard.POLICY
    for form in TITLES:
        assert asks.get(f"/api/export/{form}").status_code == 200
    assert asks.get("/api/export/..%2f..%2fetc").status_code in (400, 404)
    assert asks.get("/api/tree?image=99").status_code == 404
    assert asks.get(f"/studio/{TOKEN}/health").status_code == 404  # not of this page
    text = asks.get("/").text
    assert "virreq.js" in text and "<script>" not in text
