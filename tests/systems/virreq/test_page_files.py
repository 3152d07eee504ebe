"""What the page keeps and gives: logs, exports that are read again, kills, strangers."""

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
from starlette.testclient import TestClient
from systems.virreq.painted import (
    PEOPLE,
    TAB,
    Painted,
    base,
    do,
    fresh,
    pages,
    person,
    states,
    unit,
)

from tenfold.data.images import coco_panoptic, coco_tree, panoptic_parts, relations, runs
from tenfold.journal import events
from tenfold.metrics.panoptic import hpq
from tenfold.systems.virreq import knowledge, trees
from tenfold.systems.virreq.exports import TITLES
from tenfold.systems.virreq.labelling import Labelling
from tenfold.web import guard, server

Open = Callable[..., Labelling]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    with pages(tmp_path) as open_page:
        yield open_page


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
    assert dict(found.names) == {1: "person", 2: "tree"} and found.images[2] == "more/b.png"
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
