"""Trees in the form of COCOTree: instances with a parent, and classes of such with a parent.

`cocotree_prediction_v1` (melonkick3090/COCOTree, benchmark/docs/PREDICTION_FORMAT.md): one JSON
object a picture, in a file of its own or a line of a `.jsonl`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from tenfold.files import misfit, parse_json, require_bounded, write_text
from tenfold.structures import MOST_UNITS, Tree, Unit

from . import runs

SCHEMA = "cocotree_prediction_v1"
ROOT = "ROOT"
SHAPE = {"schema": str, "image_id": (int, str), "nodes": [dict]}
NODE = {
    "instance_id": str, "semantic_id": str, "label": str, "parent_instance_id": str,
    "parent_semantic_id": str, "segmentation": dict,
}  # fmt: skip
MOST_BYTES = 512 * 2**20
"""Of a file."""
Parents = Literal["submitted", "overlap"]

Item = dict[str, Any]


def read(
    file: Path, parents: Parents = "submitted", size: tuple[int, int] | None = None
) -> list[Tree]:
    """The trees of a file; their `image` is the number of the picture.

    Args:
        file: One JSON object, or a `.jsonl` with one a line.
        parents: Whose part an instance is: as it says, or, as in the published evaluation, of the
            instance with the largest IoU at the nearest class above that has any overlap.
        size: Height and width of a picture for which nothing was found.

    Raises:
        ValueError: It is no such file, or its nodes are no tree; the error names file and node.
    """
    require_bounded(file, MOST_BYTES)
    try:
        text = file.read_text(encoding="utf-8")
        lines = text.splitlines() if file.suffix == ".jsonl" else [text]
        found = [tree_of(parse_json(line), parents, size) for line in lines if line.strip()]
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    twice = {tree.image for tree in found if sum(t.image == tree.image for t in found) > 1}
    if twice:
        raise ValueError(f"{file}: picture {min(twice)} is there twice")
    return found


def read_folder(folder: Path, parents: Parents = "submitted") -> list[Tree]:
    """The trees below a folder: `<number>/prediction.json`, `<number>/tree.json`, `<number>.json`.

    Raises:
        ValueError: There are none, or two for one picture.
    """
    files = [
        file for pattern in ("*/prediction.json", "*/tree.json", "*.json")
        for file in sorted(folder.glob(pattern))
        if (file.stem if file.parent == folder else file.parent.name).isdecimal()
    ]  # fmt: skip
    found: dict[str, Tree] = {}
    for file in files:
        for tree in read(file, parents):
            if tree.image in found:
                raise ValueError(f"{file}: picture {tree.image} is there twice")
            found[tree.image] = tree
    if not found:
        raise ValueError(f"{folder} holds no <number>/prediction.json, nor <number>.json")
    return [found[name] for name in sorted(found)]


def tree_of(
    content: Any, parents: Parents = "submitted", size: tuple[int, int] | None = None
) -> Tree:
    """The tree of one parsed object; see `read`."""
    problem = misfit(content, SHAPE, "") or misfit(content.get("nodes", []), [NODE], "nodes")
    if not problem and not SHAPE.keys() <= content.keys():
        problem = f"it lacks {', '.join(sorted(SHAPE.keys() - content.keys()))}"
    if not problem and content["schema"] != SCHEMA:
        problem = f"its schema is {content['schema']!r}, not {SCHEMA!r}"
    if problem:
        raise ValueError(problem)
    nodes: list[Item] = sorted(content["nodes"], key=lambda n: _natural(n.get("instance_id", "")))
    image = str(content["image_id"])
    if not image.isascii() or not image.isdecimal():
        raise ValueError(f"image_id must be a whole number, got {image[:40]!r}")
    if len(nodes) > MOST_UNITS:
        raise ValueError(f"it has {len(nodes)} nodes, more than {MOST_UNITS}")
    for node in nodes:
        if not NODE.keys() <= node.keys() or not all(node[k] for k in ("label", "instance_id")):
            absent = [key for key in NODE if not node.get(key)]
            raise ValueError(f"node {node.get('instance_id')!r} lacks {', '.join(absent)}")
    sides = [_size(node) for node in nodes] or [size]
    if sides[0] is None:
        raise ValueError("it has no node, so that the size of its picture is not known: give size")
    whole = size or sides[0]
    semantic = _semantic(nodes)
    masks = []
    for node in nodes:
        try:
            masks.append(runs.checked(node["segmentation"], whole))
        except ValueError as error:
            raise ValueError(f"node {node['instance_id']!r}: {error}") from error
    place = {node["instance_id"]: i for i, node in enumerate(nodes, 1)}
    if len(place) < len(nodes) or ROOT in place:
        raise ValueError(f"two nodes have one instance_id, or one is named {ROOT}")
    number = {ROOT: 0} | place
    above = [_parent(node, number) for node in nodes]
    if parents == "overlap":
        above = _by_overlap(nodes, masks, semantic)
    divided = set(above)
    units = [Unit(0, "scene", None, runs.full(*whole), state="done")]
    for i, (node, mask, parent) in enumerate(zip(nodes, masks, above, strict=True), 1):
        state: Any = "done" if i in divided else "not-annotated"
        units.append(Unit(i, node["label"], parent, mask, state=state))
    return Tree(whole, tuple(units), image.zfill(12))


def _natural(name: str) -> tuple[str, int, str]:
    """Order of instances in the published evaluation: by the number at the end of a name."""
    digits = re.search(r"[0-9]{0,18}$", name)
    number = digits.group() if digits else ""
    return name[: len(name) - len(number)], int(number) if number else -1, name


def _size(node: Item) -> tuple[int, int] | None:
    sides = node["segmentation"].get("size")
    is_size = isinstance(sides, list) and len(sides) == 2 and all(type(s) is int for s in sides)
    if not is_size:
        raise ValueError(f"node {node['instance_id']!r}: the size of its mask is {str(sides)[:40]}")
    return sides[0], sides[1]


def _parent(node: Item, number: dict[str, int]) -> int:
    name = node["parent_instance_id"]
    if name not in number:
        raise ValueError(f"node {node['instance_id']!r}: its parent {name!r} is not there")
    return number[name]


def _semantic(nodes: Sequence[Item]) -> dict[str, str]:
    """Class -> the class above it; classes must have one name, and form a tree."""
    above: dict[str, str] = {}
    names: dict[str, str] = {}
    for node in nodes:
        key, label = node["semantic_id"], node["label"].strip().lower()
        parent = node["parent_semantic_id"]
        if above.setdefault(key, parent) != parent or names.setdefault(key, label) != label:
            raise ValueError(f"nodes of semantic_id {key!r} differ in label or parent_semantic_id")
    for key in above:
        seen, at = set(), key
        while at != ROOT:
            if at not in above:
                raise ValueError(f"parent_semantic_id {at!r} is not there")
            if at in seen:
                raise ValueError(f"semantic_id {at!r} is part of itself: a cycle")
            seen.add(at)
            at = above[at]
    return above


def _by_overlap(
    nodes: Sequence[Item], masks: Sequence[dict[str, Any]], above: dict[str, str]
) -> list[int]:
    """Parents by overlap, as COCOTree's evaluator derives them."""
    from pycocotools import mask

    members: dict[str, list[int]] = {}
    for i, node in enumerate(nodes):
        members.setdefault(node["semantic_id"], []).append(i)
    found = []
    for i, node in enumerate(nodes):
        at, parent = node["parent_semantic_id"], 0
        while at != ROOT and not parent:
            others = members[at]
            shares = mask.iou([masks[i]], [masks[j] for j in others], [0] * len(others))[0]
            if shares.max() > 0:
                parent = others[int(shares.argmax())] + 1
            at = above[at]
        found.append(parent)
    return found


def item_of(tree: Tree, image_id: int) -> Item:
    """The JSON object of a tree; units of one class below one class are one semantic node."""
    tree = tree.told_apart()
    paths: dict[tuple[str, ...], str] = {(): ROOT}
    of_unit: dict[int, tuple[str, ...]] = {tree.root.id: ()}
    name = {tree.root.id: ROOT}
    nodes = []
    for unit in tree.walk():
        if unit.parent is None:
            continue
        above = of_unit[unit.parent]
        path = (*above, " ".join(unit.name.lower().split()))
        of_unit[unit.id] = path
        paths.setdefault(path, f"{unit.name}:s{len(paths)}")
        name[unit.id] = f"{unit.name}:{unit.id}"
        nodes.append(
            {
                "instance_id": name[unit.id],
                "semantic_id": paths[path],
                "label": unit.name,
                "parent_instance_id": name[unit.parent],
                "parent_semantic_id": paths[above],
                "segmentation": unit.mask,
            }
        )
    return {"schema": SCHEMA, "image_id": image_id, "nodes": nodes}


def write(file: Path, trees: Iterable[Tree], image_ids: Sequence[int] = ()) -> None:
    """Write trees, one a line; numbers of the pictures count from 1 unless they are given."""
    every = list(trees)
    numbers = image_ids or range(1, len(every) + 1)
    lines = [json.dumps(item_of(tree, n)) for tree, n in zip(every, numbers, strict=True)]
    write_text(file, "".join(f"{line}\n" for line in lines))
