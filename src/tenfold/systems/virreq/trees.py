"""Trees of recognised or labelled pictures as JSON, held against a knowledge base, and changed.

A file is {"image", "hw": [height, width], "kb", "units": [{"id", "class", "parent", "mask",
"score", "state", "source"}]}, masks in COCO's run-length code of the whole picture; "void" (a mask)
and a unit's "crowd" may be there. `state` makes it explicit where someone stopped: what was not
annotated is never read as "nothing there".
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from tenfold.data.images import runs
from tenfold.files import NUMBER, misfit, parse_json, require_bounded, write_text
from tenfold.structures import MOST_UNITS, Code, Origin, State, Tree, Unit

from .knowledge import KnowledgeBase

SHAPE = {
    "image": str, "hw": [int], "kb": str, "void": (dict, None),
    "units": [{
        "id": int, "class": str, "parent": (int, None), "mask": dict, "score": NUMBER,
        "state": str, "source": str, "crowd": bool,
    }],
}  # fmt: skip
MOST_BYTES = 256 * 2**20
"""Of a file of one tree."""


def read(file: Path) -> Tree:
    """Read a tree.

    Raises:
        ValueError: It is too large, no JSON of this form, a mask does not fit the picture, or the
            units are no tree; the error names file and unit.
    """
    require_bounded(file, MOST_BYTES)
    try:
        return of(parse_json(file.read_text(encoding="utf-8")))
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def of(content: Any) -> Tree:
    """The tree of a parsed JSON file."""
    problem = misfit(content, SHAPE, "")
    if not problem and not {"hw", "units"} <= content.keys():
        problem = "it lacks hw or units"
    if not problem and len(content["hw"]) != 2:
        problem = f"hw is [height, width], got {str(content['hw'])[:40]}"
    if not problem and len(content["units"]) > MOST_UNITS:
        problem = f"it has more than {MOST_UNITS} units"
    if problem:
        raise ValueError(f"{problem}; it is no tree of units")
    size = (content["hw"][0], content["hw"][1])
    units = tuple(unit_of(item, size) for item in content["units"])
    void = content.get("void")
    return Tree(
        size, units, content.get("image", ""), content.get("kb", ""),
        None if void is None else runs.checked(void, size),
    )  # fmt: skip


def unit_of(item: dict[str, Any], size: tuple[int, int]) -> Unit:
    """The unit of a parsed JSON object, in a picture of that height and width."""
    lost = {"id", "class", "parent", "mask"} - item.keys()
    if lost:
        raise ValueError(f"unit {item.get('id')} lacks {', '.join(sorted(lost))}")
    try:
        mask = runs.checked(item["mask"], size)
    except ValueError as error:
        raise ValueError(f"unit {item['id']} ({item['class'][:40]}): {error}") from error
    state, source = item.get("state", "not-annotated"), item.get("source", "human")
    for name, value, known in (("state", state, State), ("source", source, Origin)):
        if value not in get_args(known):
            raise ValueError(
                f"unit {item['id']} has the {name} {value[:40]!r}, known are "
                f"{', '.join(get_args(known))}"
            )
    score = float(item.get("score", 1.0))
    if not 0 <= score <= 1:
        raise ValueError(f"unit {item['id']} has the score {score}, allowed are 0 to 1")
    return Unit(
        item["id"], item["class"], item["parent"], mask, score, state, source,
        item.get("crowd", False),
    )  # fmt: skip


def item_of(tree: Tree) -> dict[str, Any]:
    """The JSON object of a tree."""
    units = [unit_item(unit) for unit in tree.units]
    found = {"image": tree.image, "hw": [*tree.size], "kb": tree.kb, "units": units}
    return found | ({"void": tree.void} if tree.void else {})


def unit_item(unit: Unit) -> dict[str, Any]:
    """The JSON object of a unit."""
    item = {
        "id": unit.id, "class": unit.name, "parent": unit.parent, "mask": unit.mask,
        "score": round(unit.score, 6), "state": unit.state, "source": unit.source,
    }  # fmt: skip
    return item | ({"crowd": True} if unit.crowd else {})


def write(file: Path, tree: Tree) -> None:
    """Write a tree."""
    write_text(file, json.dumps(item_of(tree), ensure_ascii=False) + "\n")


# --- held against a knowledge base ---------------------------------------------------------------


def check(tree: Tree, kb: KnowledgeBase) -> None:
    """Refuse a tree with a class that the knowledge base does not have there.

    Raises:
        ValueError: A unit's class is no part of its whole's; the error names the unit and the
            nearest names.
    """
    for unit in tree.units:
        if unit.parent is not None:
            try:
                kb.node_of(tree, unit)
            except ValueError as error:
                raise ValueError(f"{tree.image or 'the tree'}, unit {unit.id}: {error}") from error


def as_truth(tree: Tree, kb: KnowledgeBase) -> Tree:
    """The tree with regions of countable classes that nobody divided into objects as crowds.

    Without it such a region counts as one object, and who finds its objects is punished.
    """
    units = []
    for unit in tree.units:
        parts = tree.parts(unit.id)
        whole = unit.parent is None or tree.by_id[unit.parent].name == unit.name
        region = unit.source == "type1" and not whole and kb.node_of(tree, unit).thing
        undivided = unit.state != "done" or not any(p.name == unit.name for p in parts)
        units.append(replace(unit, crowd=unit.crowd or (region and undivided)))
    return replace(tree, units=tuple(units))


def apart(tree: Tree, kb: KnowledgeBase) -> Tree:
    """A tree for files that know no regions: objects stand for themselves, and what is left of a
    region that was not told apart whole is a crowd.

    Where nothing is left of it, its other parts go to the object that they share most with.
    """
    units: list[Unit] = []
    above: dict[int, int | None] = {}
    for unit in as_truth(tree, kb).told_apart().walk():
        objects = [part for part in tree.parts(unit.id) if part.name == unit.name]
        if objects and unit.parent is not None:
            rest = runs.mask_of(unit.mask)
            masks = {one.id: runs.mask_of(one.mask) for one in objects}
            for number, mask in masks.items():
                rest &= ~mask
                above[number] = unit.parent
            if not rest.any():
                for part in tree.parts(unit.id):
                    own = runs.mask_of(part.mask)
                    nearest = max(masks, key=lambda number: int((masks[number] & own).sum()))
                    above.setdefault(part.id, nearest)
                continue
            unit = replace(unit, mask=runs.code_of(rest), crowd=True)
        units.append(replace(unit, parent=above.get(unit.id, unit.parent)))
    return replace(tree, units=tuple(units))


# --- changed -------------------------------------------------------------------------------------


def begun(image: str, size: tuple[int, int], kb: KnowledgeBase, name: str = "") -> Tree:
    """A picture of which nothing is known yet; `name` is the file of the knowledge base."""
    root = Unit(0, kb.root.name, None, runs.full(*size), state="open")
    return Tree(size, (root,), image, f"{name}+{kb.sha}")


def changed(tree: Tree, number: int, change: Callable[[Unit], Unit]) -> Tree:
    """A tree with one unit changed."""
    _known(tree, number)
    units = tuple(change(unit) if unit.id == number else unit for unit in tree.units)
    return replace(tree, units=units)


def with_state(tree: Tree, number: int, state: State) -> Tree:
    """A tree in which the division of a unit has another state."""
    return changed(tree, number, lambda unit: replace(unit, state=state))


def without(tree: Tree, number: int) -> Tree:
    """A tree without a unit and its parts; what it was a part of is open again."""
    unit = _known(tree, number)
    if unit.parent is None:
        raise ValueError("the whole picture cannot be taken out of its tree")
    gone, left = set(), [number]
    while left:
        at = left.pop()
        gone.add(at)
        left += [part.id for part in tree.parts(at)]
    kept = replace(tree, units=tuple(unit for unit in tree.units if unit.id not in gone))
    return with_state(kept, unit.parent, "open")


def with_parts(
    tree: Tree,
    number: int,
    parts: Sequence[tuple[str, Code, float]],
    source: Origin,
    state: State = "done",
    first: int | None = None,
) -> Tree:
    """A tree with parts (class, mask, score) put behind those of a unit, whose state changes.

    first: number of the first of them; without, one more than the largest.
    """
    _known(tree, number)
    first = max(tree.by_id) + 1 if first is None else first
    new = [
        Unit(first + i, name, number, mask, score, "not-annotated", source)
        for i, (name, mask, score) in enumerate(parts)
    ]
    return with_state(replace(tree, units=(*tree.units, *new)), number, state)


def incomplete(tree: Tree, kept: Iterable[int]) -> Tree:
    """A tree in which only these units keep their parts; the others were not annotated.

    So a set of full labels becomes one in which most people stopped early.
    """
    keep = set(kept)
    reached, left = [], [tree.root]
    while left:
        unit = left.pop(0)
        if unit.id in keep or not tree.parts(unit.id):
            reached.append(unit)
            left += tree.parts(unit.id)
        else:
            reached.append(replace(unit, state="not-annotated"))
    return replace(tree, units=tuple(reached))


def _known(tree: Tree, number: int) -> Unit:
    if number not in tree.by_id:
        raise ValueError(f"{tree.image or 'the tree'} has no unit {number}")
    return tree.by_id[number]
