"""Trees of units as JSON, their states, and what may be changed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from systems.virreq.test_knowledge import street

from tenfold.data.images import runs
from tenfold.metrics.panoptic import hpq
from tenfold.structures import Tree, Unit
from tenfold.systems.virreq import trees

SIZE = (12, 16)


def box(x0: int, y0: int, x1: int, y1: int) -> dict:
    found = np.zeros(SIZE, dtype=bool)
    found[y0:y1, x0:x1] = True
    return runs.code_of(found)


def sample() -> Tree:
    """A region of two cars, one with a wheel; a house that nobody divided."""
    units = (
        Unit(0, "scene", None, runs.full(*SIZE), state="done", source="type1"),
        Unit(1, "car", 0, box(0, 0, 10, 6), 0.9, "done", "type1"),
        Unit(2, "car", 1, box(0, 0, 5, 6), 0.8, "done", "type2"),
        Unit(3, "car", 1, box(5, 0, 10, 6), 0.7, "open", "type2"),
        Unit(4, "wheel", 2, box(1, 4, 3, 6), 1.0, "not-annotated", "human"),
        Unit(5, "house", 0, box(10, 0, 16, 12), 1.0, "not-annotated", "human", crowd=True),
    )
    return Tree(SIZE, units, "a.jpg", f"kb.json+{street().sha}", box(0, 6, 10, 12))


def test_a_file_gives_the_tree_back(tmp_path: Path) -> None:
    trees.write(tmp_path / "a.json", sample())
    assert trees.read(tmp_path / "a.json") == sample()
    content = json.loads((tmp_path / "a.json").read_text())
    assert content["hw"] == [12, 16] and content["units"][3]["state"] == "open"
    assert set(content["units"][1]) == {
        "id", "class", "parent", "mask", "score", "state", "source",
    }  # fmt: skip
    # plain runs are a mask too, and what may be left out has a value
    unit = content["units"][4]
    content["units"][4] = {key: unit[key] for key in ("id", "class", "parent")}
    content["units"][4]["mask"] = {"size": [12, 16], "counts": [16, 2, 10, 2, 162]}
    again = trees.of(content)
    assert again.by_id[4] == sample().by_id[4]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c["units"][0].update(parent=4), "0 units without a parent"),
        (lambda c: c["units"][2].update(parent=None), r"2 units without a parent \(\[0, 2\]\)"),
        (lambda c: c["units"][1].update(parent=4), r"unit 1 \(car\) is part of itself: a cycle"),
        (lambda c: c["units"][4].update(parent=77), r"the parent 77 of unit 4 \(wheel\)"),
        (lambda c: c["units"][4].update(id=3), "two units have the number 3"),
        (lambda c: c["units"][4]["mask"].update(size=[16, 12]), r"unit 4 \(wheel\): a mask is of"),
        (lambda c: c["units"][4]["mask"].update(counts=[5]), r"unit 4 \(wheel\): the runs"),
        (lambda c: c["units"][4].pop("mask"), "unit 4 lacks mask"),
        (lambda c: c["units"][4].update(state="finished"), "known are done, open, not-annotated"),
        (lambda c: c["units"][4].update(source="robot"), "known are type1, type2, human"),
        (lambda c: c["units"][4].update(score=1.5), "the score 1.5, allowed are 0 to 1"),
        (lambda c: c["units"][4].update(score=float("nan")), "the score nan"),
        (lambda c: c.update(void={"size": [1, 1], "counts": [1]}), "a mask is of 1 x 1"),
        (lambda c: c.update(hw=[12]), "hw is .height, width."),
        (lambda c: c.pop("units"), "lacks hw or units"),
        (lambda c: c.update(units=[7]), r"units\[0\] must be an object"),
        (lambda c: c.update(units=[]), "0 units without a parent"),
    ],
)
def test_what_is_no_tree_is_named(tmp_path: Path, change: object, words: str) -> None:
    content = trees.item_of(sample())
    content = json.loads(json.dumps(content))
    change(content)  # type: ignore[operator]
    (tmp_path / "t.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf"t.json: .*{words}"):
        trees.read(tmp_path / "t.json")


def test_a_deep_chain_is_refused() -> None:
    code = runs.full(1, 1)
    chain = tuple(Unit(i, "x", i - 1 if i else None, code) for i in range(300))
    with pytest.raises(ValueError, match="deeper than 64 levels"):
        Tree((1, 1), chain)


def test_only_parts_of_what_is_done_count() -> None:
    truth = sample()
    assert hpq([truth], [truth]).hpq == 1
    assert [len(level.present) for level in hpq([truth], [truth]).levels] == [1, 1]
    less = trees.without(truth, 4)
    assert less.by_id[2].state == "open" and 4 not in less.by_id
    assert hpq([truth], [less]).hpq == pytest.approx(0.5)  # of the two cars one lost its wheel
    assert hpq([less], [truth]).hpq == 1


def test_undivided_regions_are_crowds_of_the_truth() -> None:
    kb = street()
    region = replace(sample(), units=sample().units[:2])
    region = trees.with_state(region, 1, "open")
    assert trees.as_truth(region, kb).by_id[1].crowd
    assert not any(unit.crowd for unit in trees.as_truth(sample(), kb).units[:5])
    assert hpq([trees.as_truth(region, kb)], [sample()]).classes["car"].weight == 0


def test_files_without_regions_have_objects_and_crowds() -> None:
    kb = street()
    half = trees.with_state(trees.without(sample(), 3), 1, "open")
    told = trees.apart(half, kb)
    cars = [(unit.id, unit.parent, unit.crowd) for unit in told.units if unit.name == "car"]
    assert sorted(cars) == [(1, 0, True), (2, 0, False)]
    assert told.by_id[1].mask == box(5, 0, 10, 6) and told.by_id[4].parent == 2
    # parts of the region beside its objects: the region's, or, when nothing of it is left, theirs
    wheel = Unit(6, "wheel", 1, box(6, 4, 8, 6))
    for tree, whole in ((half, 1), (sample(), 3)):
        told = trees.apart(replace(tree, units=(*tree.units, wheel)), kb)
        assert told.by_id[6].parent == whole


def test_a_tree_grows_by_requests() -> None:
    kb = street()
    tree = trees.begun("a.jpg", SIZE, kb, "kb.json")
    assert tree.kb == f"kb.json+{kb.sha}" and tree.root.state == "open"
    tree = trees.with_parts(tree, 0, [("car", box(0, 0, 10, 6), 0.9)], "type1")
    tree = trees.with_parts(tree, 1, [("car", box(0, 0, 5, 6), 0.8)], "type2", "open")
    assert [(u.id, u.parent, u.state) for u in tree.units] == [
        (0, None, "done"), (1, 0, "open"), (2, 1, "not-annotated"),
    ]  # fmt: skip
    trees.check(tree, kb)
    assert trees.changed(tree, 2, lambda u: replace(u, score=0.1)).by_id[2].score == 0.1
    assert len(trees.without(tree, 1).units) == 1
    with pytest.raises(ValueError, match="the whole picture cannot be taken out"):
        trees.without(tree, 0)
    with pytest.raises(ValueError, match="a.jpg has no unit 9"):
        trees.with_state(tree, 9, "done")


def test_labels_are_made_incomplete() -> None:
    tree = sample()
    less = trees.incomplete(tree, kept=[0, 1])
    assert [(u.id, u.state) for u in less.units] == [
        (0, "done"), (1, "done"), (5, "not-annotated"), (2, "not-annotated"), (3, "open"),
    ]  # fmt: skip
    assert trees.incomplete(tree, kept=[]).units == (replace(tree.root, state="not-annotated"),)
