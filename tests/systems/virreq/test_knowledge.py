"""Knowledge bases: what is one, looking up, changing, files, published sets."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tenfold.data.images import ade20k, runs
from tenfold.data.images.panoptic_parts import PartSpec
from tenfold.structures import Tree, Unit
from tenfold.systems.virreq import knowledge, knowledge_sets, trees
from tenfold.systems.virreq.knowledge import KnowledgeBase, Node


def street() -> KnowledgeBase:
    """Wheels serve car and bus; the bus has a door, and so has the house."""
    return KnowledgeBase(
        (
            Node(0, "scene", (), False, (1, 2, 3)),
            Node(1, "car", ("automobile",), True, (4, 5)),
            Node(2, "bus", (), True, (4, 6)),
            Node(3, "house", (), True, (7,)),
            Node(4, "wheel", (), True, (8,)),
            Node(5, "window"),
            Node(6, "door", ("entrance",), True),
            Node(7, "door", (), True),
            Node(8, "rim"),
        )
    )


def changed(**nodes: object) -> dict:
    """The JSON of `street` with fields of nodes changed: `n4={"children": []}`."""
    content = json.loads(street().text)
    for name, fields in nodes.items():
        next(n for n in content["nodes"] if n["id"] == int(name[1:])).update(fields)
    return content


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (changed(n8={"children": [1]}), "a cycle: (car -> wheel -> rim -> car|.*rim.*car)"),
        (changed(n8={"children": [8]}), "a cycle: rim -> rim"),
        (changed(n0={"children": [1, 2]}), r"2 nodes that are in nothing \('scene', 'house'\)"),
        (changed(n8={"children": [0]}), "a cycle"),
        (changed(n1={"children": [4, 99]}), r"node 1 \(car\) .* has the child 99, which is not"),
        (changed(n5={"id": 4}), "two nodes .* have the id 4"),
        (changed(n5={"name": "Wheel"}), "two children of 'car' .* are named 'wheel'"),
        (changed(n5={"synonyms": ["wheel"]}), "two children of 'car' .* are named 'wheel'"),
        (changed(n1={"children": [4, 4]}), "two children of 'car' .* are named 'wheel'"),
        (changed(n5={"name": " "}), "has the name ' '"),
        (changed(n5={"name": "a\u202eb"}), "printable characters"),
        (changed(n5={"name": "Others"}), "is named 'others'"),
        (changed(n5={"name": 7}), r"nodes\[5\].name must be a text, got 7"),
        (changed(n5={"thing": 1}), "thing must be true or false"),
        ({"nodes": [{"id": 1}]}, r"nodes\[0\] lacks id or name"),
        ({"nodes": []}, "1 to 20000 nodes, got 0"),
        ({}, "lacks nodes"),
        ([], "it must be an object"),
    ],
)
def test_what_is_no_knowledge_base_is_named(tmp_path: Path, content: object, words: str) -> None:
    file = tmp_path / "kb.json"
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf"kb.json: .*{words}"):
        knowledge.read(file)


def test_a_file_gives_it_back(tmp_path: Path) -> None:
    kb = street()
    kb.write(tmp_path / "kb.json")
    again = knowledge.read(tmp_path / "kb.json")
    assert again == kb and again.sha == kb.sha and kb.depth == 3
    assert set(json.loads(kb.text)["nodes"][4]) == {"id", "name", "synonyms", "thing", "children"}


def test_names_are_looked_up_below_their_whole() -> None:
    kb = street()
    assert kb.at(("automobile", "Wheel", "rim")).id == 8
    assert kb.at(("bus", "door")).id == 6 and kb.at(("house", "door")).id == 7
    assert kb.parents(4) == [1, 2] and kb.at(("bus", "entrance")).id == 6
    for path, words in (
        (("car", "whel"), "'car' has no part 'whel' .* did you mean 'wheel'"),
        (("car", "rim"), "it is a part of wheel"),
        (("car", "sail"), "its parts are wheel, window"),
        (("house", "door", "x"), "its parts are none"),
    ):
        with pytest.raises(ValueError, match=words):
            kb.at(path)
    with pytest.raises(ValueError, match="has no node 99; ids are 0, 1, 2"):
        kb.node(99)


def test_concepts_are_added_renamed_and_removed() -> None:
    kb = street()
    more = kb.add("mirror", 1, ["looking glass"], thing=True)
    assert more.at(("car", "looking glass")) == Node(9, "mirror", ("looking glass",), True)
    assert more.nodes[0] == kb.nodes[0] and kb == street()
    assert more.link(9, 2).parents(9) == [1, 2]
    other = kb.rename(5, "pane", ["glass"], thing=True)
    assert other.at(("car", "glass")).thing and other.node(5).texts == ("pane", "glass")
    assert kb.rename(5).node(5) == kb.node(5)
    with pytest.raises(ValueError, match="two children of 'car'"):
        kb.add("WHEEL", 1)
    with pytest.raises(ValueError, match="two children of 'bus'"):
        kb.rename(6, "wheel")
    with pytest.raises(ValueError, match="a cycle"):
        kb.link(1, 8)
    less = kb.remove(4, parent=1)
    assert [n.name for n in less.children(1)] == ["window"] and less.at(("bus", "wheel", "rim"))
    gone = kb.remove(4)
    assert {n.name for n in gone.nodes} == {"scene", "car", "bus", "house", "window", "door"}
    with pytest.raises(ValueError, match="the whole picture, which cannot be removed"):
        kb.remove(0)
    with pytest.raises(ValueError, match=r"'wheel' \(4\) is no part of house"):
        kb.remove(4, parent=3)


def test_units_find_their_node_through_regions() -> None:
    code = runs.full(2, 2)
    units = (Unit(0, "scene", None, code), Unit(1, "bus", 0, code), Unit(2, "bus", 1, code),
             Unit(3, "door", 2, code))  # fmt: skip
    tree = Tree((2, 2), units)
    kb = street()
    assert [kb.node_of(tree, unit).id for unit in units] == [0, 2, 2, 6]
    trees.check(tree, kb)
    wrong = Tree((2, 2), (*units, Unit(4, "windos", 1, code)), "a.jpg")
    with pytest.raises(ValueError, match="a.jpg, unit 4: 'bus' has no part 'windos'"):
        trees.check(wrong, kb)


# --- published sets ------------------------------------------------------------------------------


def test_parts_of_cityscapes() -> None:
    kb = knowledge_sets.of_parts()
    assert len(kb.children(0)) == 34 and len(kb.nodes) == 1 + 34 + 9
    assert kb.at(("person",)).codes == (24,) and kb.at(("bus",)).codes == (28,)
    assert kb.parents(kb.at(("bus", "wheel")).id) == [26, 27, 28]
    few = knowledge_sets.of_parts(classes=["sky", "car"])
    assert [node.name for node in few.children(0)] == ["sky", "car"] and len(few.nodes) == 8
    with pytest.raises(ValueError, match="'boat' is no class"):
        knowledge_sets.of_parts(classes=["boat"])
    own = knowledge_sets.of_parts(PartSpec("ours", {"boat": ("sail",)}, frozenset({"boat"})))
    assert own.at(("boat", "sail")).id == 2 and own.at(("boat",)).thing


def picture(*objects: tuple[int, str, str, int | None]) -> ade20k.Picture:
    levels: dict[int | None, int] = {None: -1}
    found = []
    for number, raw, words, whole in objects:
        levels[number] = levels[whole] + 1
        texts = tuple(words.split(", "))
        found.append(
            ade20k.Object(number, raw, texts, levels[number], whole, runs.full(2, 2), number)
        )
    return ade20k.Picture(Path("a.jpg"), (2, 2), tuple(found))


def test_classes_and_parts_of_ade20k() -> None:
    pictures = [
        picture((0, "car", "car, auto", None), (1, "door", "door, pane", 0),
                (2, "window", "window", 1), (3, "whatsit", "gadget", 0), (4, "rim", "rim", 1)),
        picture((0, "house", "house", None), (1, "window", "window, pane", 0),
                (2, "door", "door, pane", 0), (3, "kite", "kite", None)),
    ]  # fmt: skip
    kb = knowledge_sets.of_ade20k(pictures)
    assert len(kb.children(0)) == 150 and kb.at(("car",)).codes == (21,)
    assert [node.name for node in kb.children(kb.at(("car",)).id)] == ["door"]
    assert kb.at(("house", "door")) is kb.at(("car", "door"))
    assert kb.at(("car", "door", "window")) is not kb.at(("house", "window"))  # of another level
    assert not any("pane" in node.synonyms for node in kb.children(kb.at(("house",)).id)[:1])
    every = knowledge_sets.of_ade20k(pictures, known=False)
    assert {node.name for node in every.children(0)} == {"car", "house", "kite"}
    assert every.at(("auto", "gadget")).thing and every.at(("car", "door", "rim"))
    for one in pictures:
        trees.check(ade20k.tree_of(one), every)


LABELS = ["null", "accessories", *sorted({w for g in knowledge_sets.CLOTHES.values()
                                          for w in g.split()})]  # fmt: skip


def test_clothes() -> None:
    kb = knowledge_sets.of_clothing(LABELS)
    labels = np.zeros((6, 8), dtype=np.uint8)
    labels[1:3, 2:6], labels[3:5, 2:4], labels[3:5, 4:6] = (
        LABELS.index(name) for name in ("hair", "coat", "accessories")
    )
    tree = knowledge_sets.tree_of_labels(labels, kb, "a.webp", whole="person")
    trees.check(tree, kb)
    areas = {unit.name: runs.area(unit.mask) for unit in tree.units}
    assert areas == {"scene": 48, "person": 16, "head": 8, "upper": 4, "hair": 8, "coat": 4}
    codes = {node.id: node.codes[0] for node in kb.nodes if node.codes}
    again = knowledge_sets.label_map(tree, kb, codes)
    assert (again == np.where(labels == 1, 0, labels)).all()
    nobody = knowledge_sets.tree_of_labels(np.zeros((3, 3), np.uint8), kb, whole="person")
    assert len(nobody.units) == 1
    with pytest.raises(ValueError, match="lack 'hair'"):
        knowledge_sets.of_clothing(["null", "coat"])


def test_car_parts() -> None:
    names = ["background", "back_left_door", "front_left_door", "hood", "left_mirror"]
    kb = knowledge_sets.of_car_parts(names)
    assert [(n.name, n.codes) for n in kb.children(1)] == [
        ("door", (1, 2)), ("hood", (3,)), ("mirror", (4,)),
    ]  # fmt: skip
    assert len(knowledge_sets.of_car_parts(names, short=False).children(1)) == 4
    labels = np.array([[0, 1, 2], [3, 3, 0]])
    tree = knowledge_sets.tree_of_labels(labels, kb)
    assert {unit.name: runs.area(unit.mask) for unit in tree.units} == {
        "scene": 6, "car": 4, "door": 2, "hood": 2,
    }  # fmt: skip
