"""Trees as label maps, one a level, for pictures; and names for those of two levels in one."""

from __future__ import annotations

import numpy as np
import yaml
from jaxtyping import UInt8

from tenfold.data.images import runs
from tenfold.data.images.panoptic_parts import PartSpec
from tenfold.structures import Tree

from .knowledge import KnowledgeBase

OTHERS = 255
"""In the maps: of no concept of the level."""


def part_spec(kb: KnowledgeBase) -> PartSpec | None:
    """Names of the first two levels in panoptic-parts' form; None if it has no numbers for them."""
    tops = kb.children(kb.root.id)
    classes = {node.name: tuple(child.name for child in kb.children(node.id)) for node in tops}
    try:
        return PartSpec("knowledge base", classes, frozenset(n.name for n in tops if n.thing))
    except ValueError:
        return None


def spec_text(spec: PartSpec) -> str:
    """The YAML of a spec, as `panoptic_parts.read_spec` reads it."""
    content = {
        "name": spec.name,
        "scene_class2part_classes": {name: [*parts] for name, parts in spec.classes.items()},
        "scene_classes_with_instances": sorted(spec.things),
    }
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def names_of(kb: KnowledgeBase, level: int) -> list[str]:
    """The concepts of a level below the root, in order, each once; 254 at most."""
    found = [kb.root.id]
    for _ in range(level):
        found = [child for number in found for child in kb.node(number).children]
    return list(dict.fromkeys(kb.node(number).name for number in found))[:OTHERS]


def level_map(tree: Tree, names: list[str], level: int) -> UInt8[np.ndarray, "height width"]:
    """Place in `names` of the concept that each pixel has at a level; 255 where it has none.

    Objects of a region count as the region that they are part of.
    """
    tree = tree.told_apart()
    flat = np.full(tree.size[0] * tree.size[1], OTHERS, dtype=np.uint8)
    place = {name: i for i, name in enumerate(names)}
    for unit in tree.walk():
        if level_of(tree, unit.id) == level and unit.name in place:
            flat[runs.pixels_of(unit.mask)] = place[unit.name]
    return np.ascontiguousarray(flat.reshape(tree.size[::-1]).T)


def level_of(tree: Tree, number: int) -> int:
    """Levels of concepts above a unit: one of its whole's own class is none of its own."""
    unit, level = tree.by_id[number], 0
    while unit.parent is not None:
        above = tree.by_id[unit.parent]
        level += unit.name != above.name
        unit = above
    return level
