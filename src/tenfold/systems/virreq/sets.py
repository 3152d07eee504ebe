"""Sets to train on: pictures with labels, and the knowledge base that says what the labels mean.

A set of label maps has a number a pixel. A set of trees (Cityscapes Panoptic Parts, ADE20K with
parts) has units, which are painted into one map: the number of the path of concepts from below the
picture down, and the number of the object, of 16 bits each.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Int64, UInt8

from tenfold.data import catalog
from tenfold.data.images import ade20k, panoptic_parts, runs
from tenfold.data.images.decode import Reading, first_sound
from tenfold.data.images.folders import inside_of
from tenfold.data.images.segmentation import fitting_pairs, read_as, read_labels, read_names
from tenfold.files import misfit
from tenfold.generated import dolls
from tenfold.structures import Tree
from tenfold.viz.predictions import spread

from . import knowledge, knowledge_sets
from .config import Data, SetName
from .groups import paths
from .knowledge import KnowledgeBase, Node

Picture = UInt8[np.ndarray, "height width 3"]
LabelMap = UInt8[np.ndarray, "height width"] | UInt8[np.ndarray, "height width 4"]
"""Numbers of one byte; or number of path and number of object, the higher byte of each first."""
GENERATED: SetName = "dolls"
OF_TREES: tuple[SetName, ...] = ("cityscapes_parts", "ade20k_parts")
WHOLES: dict[SetName, str] = {"clothing_parsing": "person", "car_parts": "car"}
"""Node that has the pixels of every number which no other node has."""
SPLITS = ("train", "validation", "test")
OUTSIDE, WIDE_OUTSIDE = 255, 2**16 - 1
"""Numbers of pixels that do not count, in maps of one byte and of 16 bits."""
LOOKED_AT = 1000
"""Pictures of ADE20K whose parts make its knowledge base: what occurs in none of them is no part.
All 20,000 would take half an hour each time."""
OFFICIAL_CLASSES = (
    "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign",
    "vegetation", "terrain", "sky", "person", "rider", "car", "truck", "bus", "train",
    "motorcycle", "bicycle",
)  # fmt: skip
"""Of Cityscapes: those that are evaluated, in the order of train numbers."""
Path_ = tuple[str, ...]


@dataclass(frozen=True)
class MapItem:
    """A picture and its label map: files, or arrays of a set without files."""

    name: str
    image: Path | None = None
    labels: Path | None = None
    held: tuple[Picture, UInt8[np.ndarray, "height width"]] | None = field(
        default=None, repr=False, compare=False
    )
    whole: str = ""
    """Node of every number that no other node has."""
    ignore_exif: bool = False

    def read(self) -> tuple[Picture, LabelMap]:
        """Both, of one size; ValueError names the file that is damaged or does not fit."""
        if self.held is not None:
            return self.held
        assert self.image is not None and self.labels is not None
        labels = read_labels(self.labels)
        return read_as(self.image, self.labels, labels.shape, self.ignore_exif), labels

    def truth(self, kb: KnowledgeBase) -> Tree:
        """What the knowledge base knows of the labels, as a tree."""
        return knowledge_sets.tree_of_labels(self.read()[1].astype(np.int64), kb, whole=self.whole)


@dataclass(frozen=True)
class TreeItem:
    """A picture of a set of trees."""

    name: str
    labels: Path
    image: Path | None
    """None: the labels say it."""
    numbers: Mapping[Path_, int] = field(repr=False, compare=False)
    """Path of names from below the root down -> number."""
    ignore_exif: bool = False
    follow_links: bool = False

    def read(self) -> tuple[Picture, LabelMap]:
        """As `MapItem.read`."""
        image, tree = self._labelled()
        picture = read_as(image, self.labels, tree.size, self.ignore_exif)
        return picture, painted(tree, self.numbers)

    def truth(self, kb: KnowledgeBase) -> Tree:
        """As `MapItem.truth`."""
        return known_to(kb, self._labelled()[1])

    def _labelled(self) -> tuple[Path, Tree]:
        """The picture, and all that is labelled in it."""
        if self.image is None:
            found = ade20k.read(self.labels, self.follow_links)
            return found.file, ade20k.scene_tree(found)
        uids = panoptic_parts.read(self.labels)
        tree = panoptic_parts.tree_of(uids, classes=OFFICIAL_CLASSES, image=self.labels.name)
        return self.image, tree


Item = MapItem | TreeItem


@dataclass(frozen=True)
class Pictures:
    """One split of a set."""

    name: str
    kind: Literal["real", "generated"]
    items: tuple[Item, ...]
    skip_broken: bool = False
    replaced: dict[str, str] = field(default_factory=dict, repr=False, compare=False)
    """Name -> reason, of pictures in whose place another was put so far."""

    def __len__(self) -> int:
        return len(self.items)

    def read(self, row: int) -> tuple[Item, Picture, LabelMap]:
        """A picture with its labels, or, with `skip_broken`, the next one that can be read."""
        if not self.skip_broken:
            return self._decoded(row)
        rows = [*range(row, len(self)), *range(row)]
        return first_sound(self._decoded, rows, lambda i: self.items[i].name, self.replaced)

    def _decoded(self, row: int) -> tuple[Item, Picture, LabelMap]:
        return self.items[row], *self.items[row].read()


# --- numbers -------------------------------------------------------------------------------------


def codes_of(data: Data, kb: KnowledgeBase) -> dict[int, tuple[int, ...]]:
    """Number in a label map -> ids of nodes from below the root down."""
    if data.name not in OF_TREES:
        return paths(kb, WHOLES.get(data.name, ""))
    return {number: _ids(kb, path) for path, number in numbers_of(kb).items()}


def numbers_of(kb: KnowledgeBase) -> dict[Path_, int]:
    """Path of names from below the root down -> number, of all paths there are.

    Raises:
        ValueError: There are more than 16 bits can tell.
    """
    found: dict[Path_, int] = {}
    left: list[tuple[Path_, int]] = [((), kb.root.id)]
    while left:
        above, number = left.pop(0)
        for child in kb.children(number):
            path = (*above, child.name)
            found[path] = len(found) + 1
            left.append((path, child.id))
            if len(found) >= WIDE_OUTSIDE:
                raise ValueError(f"the knowledge base has {len(found)} paths or more, too many")
    return found


def _ids(kb: KnowledgeBase, path: Path_) -> tuple[int, ...]:
    found, above = [], kb.root.id
    for name in path:
        above = kb.child(above, name).id
        found.append(above)
    return tuple(found)


def path_of(tree: Tree, number: int) -> Path_:
    """Names of a unit and of what it is a part of, from below the picture down."""
    found: list[str] = []
    unit = tree.by_id[number]
    while unit.parent is not None:
        found.append(unit.name)
        unit = tree.by_id[unit.parent]
    return tuple(reversed(found))


def known_to(kb: KnowledgeBase, tree: Tree) -> Tree:
    """The units that a knowledge base knows; of the first level the others are void.

    A whole of whose parts it knows none is not annotated.
    """
    numbers = numbers_of(kb)
    is_known = {u.id: u.parent is None or path_of(tree, u.id) in numbers for u in tree.units}
    divided = {unit.parent for unit in tree.units if is_known[unit.id]}
    kept = [
        unit if unit.id in divided or not tree.parts(unit.id)
        else replace(unit, state="not-annotated")
        for unit in tree.units
        if is_known[unit.id]
    ]  # fmt: skip
    lost = [unit.mask for unit in tree.parts(tree.root.id) if not is_known[unit.id]]
    void = runs.merged([*lost, *([tree.void] if tree.void else [])], *tree.size)
    return replace(tree, units=tuple(kept), void=void if runs.area(void) else None)


def painted(tree: Tree, numbers: Mapping[Path_, int]) -> UInt8[np.ndarray, "height width 4"]:
    """A map of the numbers of paths and of objects; what is not known counts to its whole.

    Objects are the units of the first level that are no crowds, numbered from 1; void does not
    count, pixels of no unit have 0.
    """
    size = tree.size[0] * tree.size[1]
    code, objects = np.zeros(size, dtype=np.int64), np.zeros(size, dtype=np.int64)
    if tree.void is not None:
        code[runs.pixels_of(tree.void)] = WIDE_OUTSIDE
    count = 0
    for unit in tree.walk():
        number = numbers.get(path_of(tree, unit.id))
        if number is None:
            continue
        place = runs.pixels_of(unit.mask)
        code[place] = number
        if unit.parent == tree.root.id:
            count += not unit.crowd
            objects[place] = 0 if unit.crowd else count
    if count > WIDE_OUTSIDE:
        raise ValueError(f"{tree.image} has {count} objects, more than {WIDE_OUTSIDE}")
    bytes_ = np.stack([code >> 8, code & 255, objects >> 8, objects & 255], -1).astype(np.uint8)
    return np.ascontiguousarray(bytes_.reshape(*tree.size[::-1], 4).transpose(1, 0, 2))


def numbers_in(labels: LabelMap) -> Int64[np.ndarray, "height width"]:
    """The number of each pixel of a label map."""
    if labels.ndim == 2:
        return labels.astype(np.int64)
    return labels[..., 0].astype(np.int64) * 256 + labels[..., 1]


def objects_in(labels: LabelMap) -> Int64[np.ndarray, "height width"] | None:
    """The object of each pixel, 0 for none; None if the labels do not tell objects apart."""
    if labels.ndim == 2:
        return None
    return labels[..., 2].astype(np.int64) * 256 + labels[..., 3]


def table_size(data: Data) -> int:
    """Numbers that a label map can have; the last does not count."""
    return WIDE_OUTSIDE + 1 if data.name in OF_TREES else OUTSIDE + 1


# --- opening -------------------------------------------------------------------------------------


def knowledge_in(data: Data) -> KnowledgeBase:
    """The knowledge base of a set, or the one that is given in its place."""
    if data.knowledge:
        return knowledge.read(Path(data.knowledge))
    if data.name == GENERATED:
        return _of_dolls()
    folder = _folder(data)
    if data.name == "cityscapes_parts":
        return knowledge_sets.of_parts(classes=OFFICIAL_CLASSES)
    if data.name == "ade20k_parts":
        files = [f for f, split in _of_ade20k(folder, data.follow_links) if split == "train"]
        chosen = spread(files, LOOKED_AT)
        return knowledge_sets.of_ade20k(_looked_at(chosen, reading_of(data)))
    names = _names(folder)
    if data.name == "car_parts":
        return knowledge_sets.of_car_parts(names)
    return knowledge_sets.of_clothing(names)


def _looked_at(files: Iterable[Path], reading: Reading) -> Iterator[ade20k.Picture]:
    """The objects of pictures; those that cannot be read are left out where that is asked for."""
    for file in files:
        try:
            yield ade20k.read(file, reading.follow_links)
        except (ValueError, OSError):
            if not reading.skip_broken:
                raise


def _of_dolls() -> KnowledgeBase:
    nodes: list[Node] = []
    wholes: list[Node] = []
    for whole, parts in dolls.PARTS.items():
        number = 1 + len(wholes)
        own = [
            Node(10 + dolls.NAMES.index(part), part, (), part in ("shoe", "wheel"), (),
                 (dolls.NAMES.index(part) + 1,))
            for part in parts
        ]  # fmt: skip
        wholes.append(Node(number, whole, thing=True, children=tuple(node.id for node in own)))
        nodes += own
    root = Node(0, knowledge_sets.ROOT, children=tuple(node.id for node in wholes))
    return KnowledgeBase((root, *wholes, *nodes))


def _folder(data: Data) -> Path:
    return catalog.find_or_explain(data.name, data.path)


def _names(folder: Path) -> list[str]:
    """Names of the numbers of a set's label maps."""
    content = read_names(folder / "labels.json", "names the labels")
    problem = misfit(content, {"labels": [str]}, "") or (
        "" if content.get("labels") else "it lacks labels"
    )
    if problem:
        raise ValueError(f"{folder / 'labels.json'}: {problem}. Copy the set again.")
    return list(content["labels"])


@lru_cache(maxsize=8)
def open_pictures(data: Data, split: str, kb: KnowledgeBase | None = None) -> Pictures:
    """The pictures of a split; ValueError if a set has no such split, or no pictures.

    Labels of sets of trees are those that `kb` knows.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; known: {', '.join(SPLITS)}")
    if data.name == GENERATED:
        count = data.generated[split != "train"]
        held = dolls.pairs(split, count)
        return Pictures(data.name, "generated", tuple(
            MapItem(f"{split} {i}", held=one) for i, one in enumerate(held)
        ))  # fmt: skip
    folder = _folder(data)
    if data.name in OF_TREES:
        chosen = list(_tree_items(data, folder, split, kb or knowledge_in(data)))
    else:
        chosen = list(_map_items(data, folder, split))
    if not chosen:
        raise ValueError(f"{folder} holds no picture for {split}; copy the set again")
    return Pictures(data.name, "real", tuple(chosen), data.skip_broken)


def _map_items(data: Data, folder: Path, split: str) -> Iterable[Item]:
    """Every tenth picture of the clothes is test, and validation; cars have their own test."""
    place = "labels" if data.name == "clothing_parsing" else "parts"
    chosen = []
    for row, image in enumerate(sorted((folder / "images").glob("*.webp"))):
        inside_of(folder, image, data.follow_links)
        if data.name == "clothing_parsing":
            found = {0: "test", 1: "validation"}.get(row % 10, "train")
        elif image.stem.startswith("test_"):
            found = "test"
        else:
            found = "validation" if row % 10 == 1 else "train"
        if found == split:
            chosen.append((image, folder / place / f"{image.stem}.png"))
    for image, labels in fitting_pairs(chosen, folder, reading_of(data)):
        whole = WHOLES.get(data.name, "")
        yield MapItem(image.stem, image, labels, whole=whole, ignore_exif=data.ignore_exif)


def _tree_items(data: Data, folder: Path, split: str, kb: KnowledgeBase) -> Iterable[Item]:
    """Their own validation pictures are the test here; every tenth for training is validation."""
    numbers = numbers_of(kb)
    if data.name == "cityscapes_parts":
        reading = reading_of(data)
        pairs = panoptic_parts.find(folder, "val" if split == "test" else "train", reading)
        pairs = [
            pair
            for row, pair in enumerate(pairs)
            if split == "test" or (row % 10 == 1) == (split == "validation")
        ]
        for image, labels in fitting_pairs(pairs, folder, reading):
            yield TreeItem(labels.stem, labels, image, numbers, data.ignore_exif)
        return
    for file, found in _of_ade20k(folder, data.follow_links):
        if found == split:
            yield TreeItem(file.stem, file, None, numbers, data.ignore_exif, data.follow_links)


def reading_of(data: Data) -> Reading:
    """The choices about reading."""
    return Reading(data.skip_broken, data.follow_links, data.ignore_exif)


def _of_ade20k(folder: Path, follow_links: bool) -> list[tuple[Path, str]]:
    """Files of pictures with their splits; a folder without their splits is divided by order."""
    files = ade20k.find(folder, follow_links)
    own = [file for file in files if "validation" in file.relative_to(folder).parts]
    found = []
    for row, file in enumerate(files):
        split = "validation" if row % 10 == 1 else "train"
        if file in own or (not own and row % 10 == 2):
            split = "test"
        found.append((file, split))
    return found
