"""From a knowledge base to what training tells apart: concepts, groups, and labels of each.

A label map stores one number a pixel; the knowledge base says which node a number is of, and which
wholes that node is part of. So every level's labels follow from one map by a table of 256 entries,
and a crop is cut from one map before any level is made of it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool, UInt8
from torch import Tensor

from .knowledge import KnowledgeBase, Node
from .loss import UNLABELLED
from .text import Concept

NUMBERS = 256
"""Of a label map of bytes; the last, 255, is of pixels that do not count."""
Grouping = Literal["parent", "level"]


@dataclass(frozen=True)
class Group:
    """Concepts that are told apart together, with others."""

    name: str
    """Of the whole, with its id where several have that name, or of the level."""
    level: int
    """Of the concepts; 1 is below the root."""
    parents: tuple[int, ...]
    """Ids of the nodes that they divide."""
    rows: tuple[int, ...]
    """Rows of the concepts in the table of texts."""
    wanted: UInt8[Tensor, " number"]
    """Number in a label map -> concept of the group, 255 for none."""
    inside: Bool[Tensor, " number"]
    """Number in a label map -> whether the pixel is of a parent."""


def keys(kb: KnowledgeBase) -> dict[int, str]:
    """Id -> name in the table of texts, of all nodes but the root: unique, and readable."""
    nodes = [node for node in kb.nodes if node.id != kb.root.id]
    names = [node.name for node in nodes]
    return {n.id: n.name if names.count(n.name) == 1 else f"{n.name} ({n.id})" for n in nodes}


def concepts(kb: KnowledgeBase) -> list[Concept]:
    """What the table of texts is of, in the knowledge base's order."""
    found = []
    for number, key in keys(kb).items():
        node = kb.node(number)
        wholes = [kb.node(p).name for p in kb.parents(number) if p != kb.root.id]
        parts = tuple(text for child in kb.children(number) for text in child.texts)
        found.append(Concept(key, node.name, node.synonyms, tuple(wholes), parts))
    return found


def paths(kb: KnowledgeBase, whole: str = "") -> dict[int, tuple[int, ...]]:
    """Number in a label map -> ids from below the root down to its node.

    `whole` names the node that has all other numbers from 1 to 254.

    Raises:
        ValueError: A node with a number is part of several wholes: a label map cannot say which.
    """
    found: dict[int, tuple[int, ...]] = {}
    for node in kb.nodes:
        for code in node.codes:
            if not 0 < code < UNLABELLED or code in found:
                raise ValueError(
                    f"the code {code} of {node.name!r} in the knowledge base is not one of 1 to "
                    "254, or of two nodes"
                )
            found[code] = _path(kb, node)
    if whole:
        top = (kb.child(kb.root.id, whole).id,)
        found = {code: top for code in range(1, UNLABELLED)} | found
    return found


def _path(kb: KnowledgeBase, node: Node) -> tuple[int, ...]:
    chain = [node.id]
    while chain[-1] != kb.root.id:
        parents = kb.parents(chain[-1])
        if len(parents) != 1:
            wholes = ", ".join(kb.node(parent).name for parent in parents)
            raise ValueError(
                f"{kb.node(chain[-1]).name!r} of the knowledge base is part of {wholes}; a label "
                "map does not say of which, so give it a node for each"
            )
        chain.append(parents[0])
    return tuple(chain[-2::-1])


def groups(
    kb: KnowledgeBase,
    of_codes: dict[int, tuple[int, ...]],
    how: Grouping,
    hidden: frozenset[str] = frozenset(),
    numbers: int = NUMBERS,
) -> list[Group]:
    """The groups of a knowledge base, from the root down.

    Args:
        kb: What is part of what.
        of_codes: As `paths` gives it.
        how: parent: a group for each node with parts; level: one for each level.
        hidden: Names of concepts that have no label.
        numbers: Those that a label map can have; the last is of pixels that do not count.
    """
    row = {number: place for place, number in enumerate(keys(kb))}
    unknown = sorted(hidden - {node.name for node in kb.nodes})
    if unknown:
        raise ValueError(f"data.hidden has {unknown[0]!r}, which the knowledge base does not have")
    found: list[Group] = []
    parents, level = [kb.root], 1
    while parents:
        divided = [node for node in parents if node.children]
        for own in [[node] for node in divided] if how == "parent" else [divided]:
            children = dict.fromkeys(child for node in own for child in node.children)
            if not children:
                continue
            place = {child: i for i, child in enumerate(children)}
            wanted = torch.full((numbers,), UNLABELLED, dtype=torch.uint8)
            inside = torch.zeros(numbers, dtype=torch.bool)
            ids = {node.id for node in own}
            inside[:-1] = kb.root.id in ids
            for code, path in of_codes.items():
                above = path[level - 2] if level > 1 and len(path) >= level - 1 else None
                if above in ids:
                    inside[code] = True
                if inside[code] and len(path) >= level and path[level - 1] in place:
                    if kb.node(path[level - 1]).name not in hidden:
                        wanted[code] = place[path[level - 1]]
            name = kb.node(own[0].id).name if how == "parent" else f"level {level}"
            rows = tuple(row[child] for child in children)
            found.append(Group(name, level, tuple(ids), rows, wanted, inside))
        below = dict.fromkeys(child for node in divided for child in node.children)
        parents, level = [kb.node(child) for child in below], level + 1
    # wholes of one name, as ADE20K's door and a cabinet's door, are two
    names = [group.name for group in found]
    return [
        group if names.count(group.name) == 1
        else replace(group, name=f"{group.name} ({group.parents[0]})")
        for group in found
    ]  # fmt: skip
