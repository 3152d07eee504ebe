"""Knowledge bases of published sets, and the trees of their label maps."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int64, Integer

from tenfold.data.images import runs
from tenfold.data.images.ade20k import Picture, class_of, part_of
from tenfold.data.images.ade20k_names import PARTS, SCENE, THINGS
from tenfold.data.images.panoptic_parts import CITYSCAPES_PARTS, PartSpec
from tenfold.structures import Code, Tree, Unit

from .knowledge import KnowledgeBase, Node

ROOT = "scene"
CLOTHES = {
    "head": "hair hat sunglasses glasses earrings",
    "body": "skin",
    "upper": "coat jacket blazer blouse shirt t-shirt sweater sweatshirt top vest cardigan cape "
    "scarf suit hoodie jumper tie necklace",
    "lower": "pants jeans skirt shorts leggings stockings tights belt",
    "whole": "dress romper bodysuit",
    "feet": "shoes boots heels pumps sandals sneakers loafers flats wedges socks",
    "carried": "bag purse wallet watch bracelet ring gloves",
}
"""Groups of the tags of clothing_parsing; accessories and tags that no group has are others."""
CLOTHES_SYNONYMS = {
    "pants": ("trousers",), "shorts": ("short pants",), "bag": ("handbag",),
    "glasses": ("spectacles",), "swimwear": ("swimsuit",), "bra": ("brassiere",),
    "t-shirt": ("tee shirt", "jersey"),
}  # fmt: skip
"""Words of the same thing under which lists of texts have it."""
SIDES = ("back", "front", "left", "right")
"""Words that say where a part of car_parts is, left out of the short ones."""


def of_parts(
    spec: PartSpec = CITYSCAPES_PARTS, classes: Collection[str] | None = None
) -> KnowledgeBase:
    """Classes and parts of a panoptic-parts set; one node serves all wholes that have a part word.

    Args:
        spec: Names of the set.
        classes: Those that are asked for; all without.

    Raises:
        ValueError: A class is not of the set.
    """
    chosen = [*spec.classes] if classes is None else [*classes]
    alien = [name for name in chosen if name not in spec.classes]
    if alien:
        raise ValueError(f"{alien[0]!r} is no class of {spec.name}")
    sids = {name: sid for sid, name in spec.sids.items()}
    words = [*dict.fromkeys(part for name in chosen for part in spec.classes[name])]
    number = {word: len(chosen) + 1 + i for i, word in enumerate(words)}
    nodes = [Node(0, ROOT, children=tuple(range(1, len(chosen) + 1)))]
    for i, name in enumerate(chosen, 1):
        parts = tuple(number[part] for part in spec.classes[name])
        nodes.append(Node(i, name, (), name in spec.things, parts, (sids[name],)))
    return KnowledgeBase((*nodes, *(Node(number[word], word) for word in words)))


def of_ade20k(pictures: Iterable[Picture], known: bool = True) -> KnowledgeBase:
    """Classes and parts as they occur in pictures of ADE20K; synonyms as they are listed.

    A part word is one node for each level, however many wholes have it, so that there is no cycle.

    Args:
        pictures: What occurs in them below each class.
        known: All 150 classes and, of the parts, the 83 words (codes are their numbers in ViRReq's
            maps); else every name that occurs, countable throughout.
    """
    found: dict[tuple[int, str], Node] = {}
    below: dict[tuple[int, str], dict[tuple[int, str], None]] = {}
    if known:
        for i, name in enumerate(SCENE, 1):
            found[0, name] = Node(i, name, (), name in THINGS, (), (i,))
    for picture in pictures:
        for one in picture.objects:
            chain = [_key(above, known) for above in picture.chain(one.id)]
            whole = [key for key in chain if key is not None]
            if len(whole) < len(chain):
                continue
            name = whole[0][1]
            if whole[0] not in found:
                codes = (PARTS.index(name) + 1,) if known else ()
                texts = tuple(w for w in one.words if w != name)
                found[whole[0]] = Node(len(found) + 1, name, texts, not known, (), codes)
            for part, above in zip(whole, whole[1:], strict=False):
                below.setdefault(above, {})[part] = None
    number = {key: node.id for key, node in found.items()}
    tops = tuple(node.id for (level, _), node in found.items() if level == 0)
    nodes = [Node(0, ROOT, children=tops)]
    for key, node in found.items():
        parts = tuple(number[part] for part in below.get(key, ()))
        nodes.append(Node(node.id, node.name, node.synonyms, node.thing, parts, node.codes))
    return KnowledgeBase(tuple(_without_shared_synonyms(nodes)))


def _key(one: Any, known: bool) -> tuple[int, str] | None:
    """Level and name of an object's node; None: it is not among the known ones."""
    if not known:
        return one.level, one.name
    if one.level:
        word = part_of(one)
        return (one.level, PARTS[word - 1]) if word else None
    number = class_of(one)
    return (0, SCENE[number - 1]) if number else None


def _without_shared_synonyms(nodes: Sequence[Node]) -> list[Node]:
    """Nodes without those synonyms that another child of one of their wholes has too."""
    by_id = {node.id: node for node in nodes}
    clash: set[tuple[int, str]] = set()
    for node in nodes:
        owner: dict[str, int] = {}
        for child in node.children:
            for text in by_id[child].texts:
                other = owner.setdefault(text, child)
                if other != child:
                    clash |= {(child, text), (other, text)}
    return [
        Node(
            node.id, node.name, tuple(s for s in node.synonyms if (node.id, s) not in clash),
            node.thing, node.children, node.codes,
        )
        for node in nodes
    ]  # fmt: skip


def of_clothing(labels: Sequence[str]) -> KnowledgeBase:
    """Person, groups and tags of clothing_parsing; `labels` are its names in order of numbers."""
    number = {name: i for i, name in enumerate(labels)}
    nodes = [Node(0, ROOT, children=(1,))]
    groups: list[Node] = []
    tags: list[Node] = []
    first = 2 + len(CLOTHES)
    for group, words in CLOTHES.items():
        missing = [word for word in words.split() if word not in number]
        if missing:
            raise ValueError(f"the labels of clothing_parsing lack {missing[0]!r}")
        here = [
            Node(first + len(tags) + i, word, CLOTHES_SYNONYMS.get(word, ()), codes=(number[word],))
            for i, word in enumerate(words.split())
        ]
        groups.append(Node(2 + len(groups), group, children=tuple(node.id for node in here)))
        tags += here
    person = Node(1, "person", thing=True, children=tuple(group.id for group in groups))
    return KnowledgeBase((*nodes, person, *groups, *tags))


def of_car_parts(labels: Sequence[str], short: bool = True) -> KnowledgeBase:
    """Car and its parts of car_parts; `labels` are its names in order of numbers.

    short: words without the side, so that a door is one concept; else the 18 names.
    """
    codes: dict[str, list[int]] = {}
    for i, name in enumerate(labels):
        if i:
            words = [word for word in name.split("_") if not short or word not in SIDES]
            codes.setdefault(" ".join(words), []).append(i)
    parts = [
        Node(i, name, (), True, (), tuple(numbers))
        for i, (name, numbers) in enumerate(codes.items(), 2)
    ]
    car = Node(1, "car", (), True, tuple(node.id for node in parts))
    return KnowledgeBase((Node(0, ROOT, children=(1,)), car, *parts))


def tree_of_labels(
    labels: Integer[np.ndarray, "height width"],
    kb: KnowledgeBase,
    image: str = "",
    whole: str = "",
) -> Tree:
    """The tree of a label map: a region for each node that has a pixel, all `done`.

    A node without codes has the pixels of its parts, and the one named `whole` all that are not 0.
    """
    height, width = labels.shape
    codes = runs.codes_of(labels)
    masks: dict[int, Code | None] = {}
    everything = runs.merged([c for n, c in codes.items() if n], height, width)

    def mask_of(node: Node) -> Code | None:
        if node.id not in masks:
            own = [codes[number] for number in node.codes if number in codes]
            own += [m for child in kb.children(node.id) if (m := mask_of(child)) is not None]
            if node.name == whole and runs.area(everything):
                own = [everything]
            masks[node.id] = runs.merged(own, height, width) if own else None
        return masks[node.id]

    units = [Unit(0, kb.root.name, None, runs.full(height, width), state="done")]
    level: list[tuple[int, Node]] = [(0, kb.root)]
    while level:
        below = []
        for parent, node in level:
            for child in kb.children(node.id):
                mask = mask_of(child)
                if mask is not None:
                    below.append((len(units), child))
                    units.append(Unit(len(units), child.name, parent, mask, state="done"))
        level = below
    return Tree((height, width), tuple(units), image)


def label_map(
    tree: Tree, kb: KnowledgeBase, codes: Mapping[int, int]
) -> Int64[np.ndarray, "height width"]:
    """A label map of units whose node has a number in `codes` (node's id -> number); 0 elsewhere.

    Deeper units lie over those that they are parts of.
    """
    found = np.zeros(tree.size[0] * tree.size[1], dtype=np.int64)
    for unit in tree.walk():
        node = kb.node_of(tree, unit)
        if node.id in codes:
            found[runs.pixels_of(unit.mask)] = codes[node.id]
    return np.ascontiguousarray(found.reshape(tree.size[::-1]).T)
