"""Requests on a picture whose truth answers them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from systems.virreq.test_knowledge import street
from systems.virreq.test_trees import SIZE, box

from tenfold.data.images import runs
from tenfold.metrics.panoptic import hpq
from tenfold.structures import Tree, Unit
from tenfold.systems.virreq import requests, trees
from tenfold.systems.virreq.knowledge import KnowledgeBase, Node
from tenfold.systems.virreq.requests import Divided, Object, Opened, Recognition


def truth() -> Tree:
    """A house with a door; two cars that touch, one with a window and a wheel with a rim."""
    rows = [
        ("scene", None, runs.full(*SIZE)), ("house", 0, box(9, 0, 16, 7)),
        ("door", 1, box(11, 2, 13, 7)), ("car", 0, box(0, 6, 5, 12)), ("car", 0, box(5, 6, 9, 12)),
        ("window", 3, box(0, 6, 5, 8)), ("wheel", 3, box(1, 9, 4, 12)),
        ("rim", 6, box(2, 10, 3, 11)),
    ]  # fmt: skip
    whole = {parent for _, parent, _ in rows}
    units = [
        Unit(i, name, parent, mask, state="done" if i in whole else "not-annotated")
        for i, (name, parent, mask) in enumerate(rows)
    ]
    return Tree(SIZE, tuple(units))


class Knows:
    """Answers with a true tree; counts what it is asked."""

    def __init__(self, tree: Tree, blur: int = 0) -> None:
        self.tree, self.size, self.blur, self.asked = tree, tree.size, blur, 0

    def _masks(self, name: str) -> list[np.ndarray]:
        return [runs.mask_of(unit.mask) for unit in self.tree.units if unit.name == name]

    def divide(self, whole: Node, parts: list[Node], unit: np.ndarray) -> Divided:
        self.asked += 1
        labels = np.zeros(self.size, dtype=np.int16)
        for place, node in enumerate(parts, 1):
            for mask in self._masks(node.name):
                labels[mask] = place
        return Divided(labels, np.full(len(parts), 0.8))

    def probe(self, x: int, y: int, node: Node) -> Object:
        hits = [mask for mask in self._masks(node.name) if mask[y, x]]
        if not hits:
            return Object(self._masks(node.name)[0], 0.2, confident=False)
        return Object(hits[0], 0.9)

    def objects(self, node: Node) -> list[Object]:
        return [Object(mask, 0.9 - 0.1 * i) for i, mask in enumerate(self._masks(node.name))]


def opened(kb: KnowledgeBase | None = None) -> Recognition:
    return Recognition(Knows(truth()), kb or street(), "a.jpg", "kb.json")


def test_a_picture_is_divided_to_a_depth() -> None:
    picture = opened()
    assert isinstance(picture.opened, Opened)
    assert hpq([truth()], [picture.run(3)]).hpq == 1
    levels = [level.pq for level in hpq([truth()], [picture.tree]).levels]
    assert levels == [1, 1, 1]
    sources = {(unit.name, unit.source, unit.state) for unit in picture.tree.units}
    assert ("car", "type1", "done") in sources and ("car", "type2", "done") in sources
    trees.check(picture.tree, picture.kb)
    first = opened()
    assert {unit.name for unit in first.run(1).units} == {"scene", "house", "car"}
    again = first.run(3)  # asked once more, the same is found
    assert hpq([picture.tree], [again]).hpq == 1
    with pytest.raises(ValueError, match="depth must be at least 1"):
        first.run(0)


def test_a_request_without_a_unit_is_of_the_whole_picture(tmp_path: Path) -> None:
    """Whatever its concept is called: `--data.knowledge` may name it otherwise."""
    kb = street()
    picture = opened(kb.rename(kb.root.id, "picture"))
    assert [unit.name for unit in picture.recognise(names=["car"]).units] == ["car"]
    (tmp_path / "requests.json").write_text(json.dumps([{"names": ["house"]}]))
    (asked,) = requests.read(tmp_path / "requests.json")
    assert [unit.name for unit in picture.answer(asked).units] == ["house"]
    assert picture.recognise("picture", names=["car"]).units


def test_requests_one_by_one() -> None:
    picture = opened()
    (cars,) = picture.recognise(names=["automobile"]).units
    assert picture.tree.root.state == "open" and cars.source == "type1" and cars.score == 0.8
    assert runs.area(cars.mask) == 54
    (left,) = picture.recognise(cars.id, "instance", probe=(2, 8)).units
    assert runs.area(left.mask) == 30 and picture.tree.by_id[cars.id].state == "open"
    assert picture.recognise(cars.id, "instance", probe=(4, 6)).units == (left,)  # the same one
    parts = picture.recognise(left.id).units
    assert [unit.name for unit in parts] == ["wheel", "window"]
    assert picture.tree.by_id[left.id].state == "done"
    both = picture.recognise(cars.id, "instance").units
    assert len(both) == 2 and picture.tree.by_id[cars.id].state == "done"
    assert len({unit.id for unit in (cars, left, *parts, *both)}) == 6  # numbers are not used again
    more = picture.recognise().units
    assert {unit.name for unit in more} == {"house", "car"} and picture.tree.root.state == "done"
    new = picture.kb.add("door", picture.kb.at(("car",)).id)
    picture.kb = new
    trees.check(picture.tree, new)


def test_a_new_concept_answers_at_once() -> None:
    picture = opened()
    house = next(unit for unit in picture.recognise().units if unit.name == "house")
    picture.kb = picture.kb.add("wheel", picture.kb.at(("house",)).id)
    assert picture.recognise(house.id, names=["wheel"]).units == ()
    assert picture.tree.by_id[house.id].state == "open"
    (door,) = picture.recognise(house.id, names=["door"]).units
    assert picture.tree.by_id[door.id].parent == house.id


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({"names": ["cra"]}, "'scene' has no part 'cra' .* did you mean 'car'"),
        ({"names": ["rim"]}, "it is a part of wheel"),
        ({"names": []}, "names is empty"),
        ({"unit": 77}, "no unit 77; units are numbered 0"),
        ({"unit": "screen"}, "no unit 'screen'; .* the whole is 'scene'"),
        ({"kind": "parts"}, "kind is semantic or instance, got 'parts'"),
        ({"probe": (1, 1)}, "a Type-I request has no probe"),
        ({"kind": "instance", "probe": (1, 1)}, "'scene' is not countable"),
        ({"unit": 2, "kind": "instance", "probe": (12, 9)}, "x 12, y 9 is outside of unit 2"),
        ({"unit": 2, "kind": "instance", "probe": (2, 12)}, "outside of the 16 x 12 picture"),
        ({"unit": 2, "kind": "instance", "names": ["car"]}, "the unit's own class, not for names"),
        ({"unit": 3, "kind": "instance", "probe": (2, 8)}, "unit 3 is one car already"),
        ({"unit": 4}, "'window' has no parts in the knowledge base"),
    ],
)
def test_what_cannot_be_asked_is_named(request_: dict, words: str) -> None:
    picture = opened()
    picture.recognise(names=["house", "car"])
    picture.recognise(2, "instance", probe=(2, 8))
    picture.recognise(3, names=["window"])
    names = [(u.id, u.name, u.parent) for u in picture.tree.units]
    assert names == [
        (0, "scene", None), (1, "house", 0), (2, "car", 0), (3, "car", 2), (4, "window", 3),
    ]  # fmt: skip
    before = picture.tree
    with pytest.raises(ValueError, match=words):
        picture.recognise(**request_)
    assert picture.tree is before


def test_a_probe_that_hits_nothing_says_so() -> None:
    picture = opened()
    picture.recognise(names=["car"])
    picture.opened._masks = lambda name: [np.ones(SIZE, dtype=bool)] * (name == "car")  # type: ignore
    region = picture.tree.by_id[1]
    assert picture.recognise(region.id, "instance", probe=(2, 8)).confident
    other = opened()
    (region,) = other.recognise(names=["car"]).units
    masks = [box(0, 6, 3, 12)]
    other.opened._masks = lambda name: [runs.mask_of(m) for m in masks]  # type: ignore
    assert not other.recognise(region.id, "instance", probe=(8, 8)).confident
    with pytest.raises(ValueError, match="no car was found at x 8, y 8"):
        other.recognise(region.id, "instance", probe=(8, 8))


def test_the_panoptic_merge() -> None:
    """The best object first; one that is mostly of another class is given up."""
    picture = opened()
    picture.recognise()
    house, cars = (next(u for u in picture.tree.units if u.name == n) for n in ("house", "car"))
    found = [
        Object(runs.mask_of(box(0, 6, 6, 12)), 0.5), Object(runs.mask_of(box(5, 5, 10, 12)), 0.9),
        Object(runs.mask_of(box(8, 0, 16, 8)), 0.99),
    ]  # fmt: skip
    picture.opened.objects = lambda node: found  # type: ignore[method-assign]
    first, second = picture.recognise(cars.id, "instance").units
    assert runs.area(first.mask) == 35 and runs.area(second.mask) == 30
    region, other = (picture.tree.by_id[one.id] for one in (cars, house))
    assert runs.area(region.mask) == 65  # with the row and column that the object took
    assert runs.area(other.mask) == 49 - 2
    assert not (runs.mask_of(region.mask) & runs.mask_of(other.mask)).any()


def test_parts_never_leave_their_whole() -> None:
    picture = opened()
    (house,) = picture.recognise(names=["house"]).units
    everywhere = Divided(np.ones(SIZE, dtype=np.int16), np.array([2.0]))
    picture.opened.divide = lambda *of: everywhere  # type: ignore[method-assign]
    (door,) = picture.recognise(house.id).units
    assert door.mask == house.mask and door.score == 1


def test_a_tree_is_gone_on_with(tmp_path: Path) -> None:
    picture = opened()
    picture.run(1)
    trees.write(tmp_path / "a.json", picture.tree)
    kept = trees.read(tmp_path / "a.json")
    more = Recognition(picture.opened, street(), tree=kept)
    assert more.recognise(1).units[0].id == len(kept.units)
    small = Knows(Tree((2, 2), (Unit(0, "scene", None, runs.full(2, 2)),)))
    with pytest.raises(ValueError, match="the tree is of a picture of 12 x 16"):
        Recognition(small, street(), tree=kept)
    less = street().remove(1)
    with pytest.raises(ValueError, match="'scene' has no part 'car'"):
        Recognition(picture.opened, less, tree=kept)


def test_requests_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "requests.json"
    asked = [{"names": ["car"]}, {"unit": 1, "kind": "instance", "probe": [2, 8]}, {"unit": 2}]
    file.write_text(json.dumps(asked))
    picture = opened()
    replies = [picture.answer(one) for one in requests.read(file)]
    assert [len(reply.units) for reply in replies] == [1, 1, 2]
    for content, words in (
        ({}, "requests must be a list"), ([{"unit": 1.5}], "unit must be a whole number or a text"),
        ([{"kind": "x"}], r"requests\[0\].kind is 'x'"),
        ([{"probe": [1]}], r"probe is not \[x, y\]"),
        ([{"box": 1}], r"has the field 'box'"), ([{"names": [1]}], r"names\[0\] must be a text"),
    ):  # fmt: skip
        file.write_text(json.dumps(content))
        with pytest.raises(ValueError, match=rf"requests.json: .*{words}"):
            requests.read(file)
