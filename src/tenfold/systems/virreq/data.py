"""Files to batches: pictures with a label map, and the knowledge base that says what it means."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, UInt8
from scipy import ndimage
from torch import Tensor

from tenfold.core import dist
from tenfold.core.epochs import Epochs
from tenfold.core.seed import generator
from tenfold.core.system import DataUsed
from tenfold.data import catalog
from tenfold.data.images.decode import read_picture
from tenfold.data.images.folders import held_out
from tenfold.data.images.scene_views import segmentation_view
from tenfold.data.images.segmentation import read_labels, read_names
from tenfold.files import misfit, parse_json
from tenfold.generated import dolls

from . import knowledge, knowledge_sets
from .config import Config, Data, SetName
from .groups import paths
from .knowledge import KnowledgeBase, Node

Picture = UInt8[np.ndarray, "height width 3"]
LabelMap = UInt8[np.ndarray, "height width"]
GENERATED: SetName = "dolls"
WHOLES: dict[SetName, str] = {"clothing_parsing": "person", "car_parts": "car"}
"""Node that has the pixels of every number which no other node has."""
SPLITS = ("train", "validation", "test")
ENTIRE = 1.0
"""Share of a crop that one number may fill: all of it."""
SPLIT_SEED = 0
"""Of the pictures without parts: the same in all runs of a share."""


@dataclass(frozen=True)
class Item:
    """One picture and its label map: files, or arrays of a set without files."""

    name: str
    image: Path | None = None
    labels: Path | None = None
    held: tuple[Picture, LabelMap] | None = field(default=None, repr=False, compare=False)

    def read(self) -> tuple[Picture, LabelMap]:
        """Both, of one size; ValueError names the file that is damaged or does not fit."""
        if self.held is not None:
            return self.held
        assert self.image is not None and self.labels is not None
        picture, labels = read_picture(self.image), read_labels(self.labels)
        if labels.shape != picture.shape[:2]:
            raise ValueError(
                f"label map {self.labels} has {labels.shape[1]} x {labels.shape[0]} pixels, its "
                f"picture {picture.shape[1]} x {picture.shape[0]}"
            )
        return picture, labels


@dataclass(frozen=True)
class Pictures:
    """One split of a set."""

    name: str
    kind: Literal["real", "generated"]
    items: tuple[Item, ...]

    def __len__(self) -> int:
        return len(self.items)


# --- opening -------------------------------------------------------------------------------------


def complete(cfg: Config) -> Config:
    """Choose the data, generated where none is found, and take the knowledge base from it."""
    data = cfg.data
    if data.name != GENERATED and catalog.find(data.name, data.path) is None:
        data = replace(data, name=GENERATED, path="", crop=min(data.crop, dolls.SIDE))
    kb = _knowledge(data)
    if cfg.knowledge and cfg.knowledge != kb.text:
        kb = knowledge.of(parse_json(cfg.knowledge))
    paths(kb, WHOLES.get(data.name, ""))  # says what does not fit
    return replace(cfg, data=data, knowledge=kb.text)


def knowledge_of(cfg: Config) -> KnowledgeBase:
    """The knowledge base of a completed configuration."""
    return knowledge.of(parse_json(cfg.knowledge))


def codes_of(cfg: Config) -> dict[int, tuple[int, ...]]:
    """Number in a label map -> ids of nodes from below the root down."""
    return paths(knowledge_of(cfg), WHOLES.get(cfg.data.name, ""))


def _knowledge(data: Data) -> KnowledgeBase:
    if data.knowledge:
        return knowledge.read(Path(data.knowledge))
    if data.name == GENERATED:
        return _of_dolls()
    names = _names(_folder(data))
    if data.name == "car_parts":
        return knowledge_sets.of_car_parts(names)
    return knowledge_sets.of_clothing(names)


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
    folder = catalog.find(data.name, data.path)
    if folder is None:
        raise FileNotFoundError(f"the data set {data.name} is not there any more: {data.path}")
    return folder


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
def open_pictures(data: Data, split: str) -> Pictures:
    """The pictures of a split; ValueError if a set has no such split, or no pictures."""
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; known: {', '.join(SPLITS)}")
    if data.name == GENERATED:
        count = data.generated[split != "train"]
        held = dolls.pairs(split, count)
        return Pictures(data.name, "generated", tuple(
            Item(f"{split} {i}", held=one) for i, one in enumerate(held)
        ))  # fmt: skip
    folder = _folder(data)
    place = "labels" if data.name == "clothing_parsing" else "parts"
    images = sorted((folder / "images").glob("*.webp"))
    items = [Item(image.stem, image, folder / place / f"{image.stem}.png") for image in images]
    chosen = [item for row, item in enumerate(items) if _split(data, row, item.name) == split]
    if not chosen:
        raise ValueError(f"{folder / 'images'} holds no picture for {split}. Copy the set again.")
    return Pictures(data.name, "real", tuple(chosen))


def _split(data: Data, row: int, name: str) -> str:
    """Every tenth picture of the clothes is test, and validation; cars have their own test."""
    if data.name == "clothing_parsing":
        return {0: "test", 1: "validation"}.get(row % 10, "train")
    if name.startswith("test_"):
        return "test"
    return "validation" if row % 10 == 1 else "train"


def without_parts(data: Data, found: Pictures) -> frozenset[str]:
    """Names of training pictures whose wholes are not divided."""
    if data.labelled >= 1:
        return frozenset()
    names = [item.name for item in found.items]
    if data.labelled <= 0:
        return frozenset(names)
    return frozenset(held_out(names, f"{SPLIT_SEED}/parts", 1 - data.labelled))


def examples_of(cfg: Config, found: Pictures) -> Pictures:
    """For each hidden concept so many pictures that have it, or all there are; chosen by the seed.

    Raises:
        ValueError: No picture has one of them.
    """
    kb, codes = knowledge_of(cfg), codes_of(cfg)
    order = torch.randperm(len(found), generator=generator(cfg.seed, "examples")).tolist()
    lacking = {
        name: [c for c, path in codes.items() if any(kb.node(i).name == name for i in path)]
        for name in cfg.data.hidden
    }
    count = dict.fromkeys(lacking, 0)
    chosen = []
    for row in order:
        if not lacking:
            break
        labels = found.items[row].read()[1]
        shown = [name for name, numbers in lacking.items() if np.isin(labels, numbers).any()]
        if shown:
            chosen.append(found.items[row])
        for name in shown:
            count[name] += 1
            if count[name] == cfg.data.examples:
                del lacking[name]
    never = [name for name, seen in count.items() if not seen]
    if never:
        raise ValueError(f"no training picture has {never[0]!r} of data.hidden")
    return replace(found, items=tuple(chosen))


def used(data: Data) -> DataUsed:
    """The data that results rest on."""
    if data.name == GENERATED:
        return DataUsed(data.name, "generated", "pictures of our own generator", "MIT")
    entry = catalog.entry(data.name)
    note = f"parts of {data.labelled:.0%} of the training pictures are labelled"
    return DataUsed(data.name, entry.kind, note, entry.licence)


# --- batches -------------------------------------------------------------------------------------


class Batches:
    """Crops of pictures and label maps, a function of (seed, index) and the process's share."""

    def __init__(self, cfg: Config, stage: str, batch_size: int) -> None:
        self.cfg, self.stage, self.batch_size = cfg, stage, batch_size
        self.found = open_pictures(cfg.data, "train")
        if cfg.data.examples:
            self.found = examples_of(cfg, self.found)
        self.bare = without_parts(cfg.data, self.found)
        if len(self.bare) == len(self.found) and cfg.data.labelled > 0:
            warnings.warn(
                f"data.labelled {cfg.data.labelled} of {len(self.found)} pictures is none",
                stacklevel=2,
            )
        self.order = Epochs(len(self.found), batch_size, cfg.seed, stage, repeats=True)

    def __call__(self, index: int) -> dict[str, Any]:
        """Pictures of bytes, their label maps (255 outside of a picture), whether the wholes of a
        picture are divided into parts, and the number of the optimiser step."""
        data = self.cfg.data
        places = range(self.batch_size)[dist.current().share(self.batch_size)]
        rows = self.order.rows(index)
        images, codes, divided = [], [], []
        for place in places:
            item = self.found.items[rows[place]]
            draw = generator(self.cfg.seed, self.stage, "view", index, place)
            picture, labels = item.read()
            image, code = segmentation_view(picture, labels, data.crop, draw, data.scales, ENTIRE)
            images.append(image)
            codes.append(code)
            divided.append(item.name not in self.bare)
        return {
            "images": torch.stack(images),
            "codes": torch.stack(codes),
            "divided": torch.tensor(divided),
            "step": index // self.cfg.loop.accumulate,
        }


class ObjectBatches(Batches):
    """The same, with the objects of each picture: pixels of a thing that touch are one."""

    def __init__(self, cfg: Config) -> None:
        super().__init__(cfg, "separate", cfg.separate.batch_size)
        self.things = things_of(knowledge_of(cfg), codes_of(cfg))

    def __call__(self, index: int) -> dict[str, Any]:
        """Also a list, for each picture, of boxes, labels and masks of its objects."""
        batch = super().__call__(index)
        batch["objects"] = [
            objects_of(code.numpy(), self.things, self.cfg.separate.least, bool(divided))
            for code, divided in zip(batch["codes"], batch["divided"], strict=True)
        ]
        return batch


@dataclass(frozen=True)
class Things:
    """Countable concepts of a knowledge base."""

    ids: tuple[int, ...]
    """Nodes; their places are the labels of objects."""
    levels: tuple[int, ...]
    inside: Bool[np.ndarray, "thing 256"]
    """Whether a number in a label map is of the thing."""


def things_of(kb: KnowledgeBase, of_codes: dict[int, tuple[int, ...]]) -> Things:
    """The countable concepts, in the knowledge base's order."""
    ids = [node.id for node in kb.nodes if node.thing and node.id != kb.root.id]
    inside = np.zeros((len(ids), 256), dtype=bool)
    levels = [1] * len(ids)
    for code, path in of_codes.items():
        for level, number in enumerate(path, 1):
            if number in ids:
                inside[ids.index(number), code] = True
                levels[ids.index(number)] = level
    return Things(tuple(ids), tuple(levels), inside)


def objects_of(
    codes: LabelMap, things: Things, least: int, divided: bool = True
) -> dict[str, Tensor]:
    """Boxes, labels and masks of a picture's objects; without parts, those of the first level."""
    boxes, labels, masks = [], [], []
    for label, (level, inside) in enumerate(zip(things.levels, things.inside, strict=True)):
        if level > 1 and not divided:
            continue
        numbers, count = ndimage.label(inside[codes], np.ones((3, 3)))
        for number, place in enumerate(ndimage.find_objects(numbers), 1):
            mask = numbers == number
            if place is None or mask.sum() < least:
                continue
            boxes.append([place[1].start, place[0].start, place[1].stop, place[0].stop])
            labels.append(label)
            masks.append(torch.from_numpy(mask))
    shape = (0, *codes.shape)
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32).view(-1, 4),
        "labels": torch.tensor(labels, dtype=torch.int64),
        "masks": torch.stack(masks) if masks else torch.zeros(shape, dtype=torch.bool),
    }
