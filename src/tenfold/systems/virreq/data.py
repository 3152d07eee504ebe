"""Files to batches: pictures with a label map, and the knowledge base that says what it means."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Integer
from scipy import ndimage
from torch import Tensor

from tenfold.core import dist
from tenfold.core.epochs import Epochs
from tenfold.core.seed import generator
from tenfold.core.system import DataUsed
from tenfold.data import catalog
from tenfold.data.images.folders import held_out
from tenfold.data.images.scene_views import segmentation_view
from tenfold.files import parse_json
from tenfold.generated import dolls

from . import knowledge, sets
from .config import Config, Data
from .knowledge import KnowledgeBase
from .sets import GENERATED, Pictures, knowledge_in, open_pictures

ENTIRE = 1.0
"""Share of a crop that one number may fill: all of it."""
SPLIT_SEED = 0
"""Of the pictures without parts: the same in all runs of a share."""


def complete(cfg: Config) -> Config:
    """Choose the data, generated where none is found, and take the knowledge base from it."""
    data = cfg.data
    if data.name != GENERATED and catalog.find(data.name, data.path) is None:
        data = replace(data, name=GENERATED, path="", crop=min(data.crop, dolls.SIDE))
    kb = knowledge_in(data)
    if cfg.knowledge and cfg.knowledge != kb.text:
        kb = knowledge.of(parse_json(cfg.knowledge))
    sets.codes_of(data, kb)  # says what does not fit
    return replace(cfg, data=data, knowledge=kb.text)


def knowledge_of(cfg: Config) -> KnowledgeBase:
    """The knowledge base of a completed configuration."""
    return knowledge.of(parse_json(cfg.knowledge))


def codes_of(cfg: Config) -> dict[int, tuple[int, ...]]:
    """Number in a label map -> ids of nodes from below the root down."""
    return sets.codes_of(cfg.data, knowledge_of(cfg))


def open_split(cfg: Config, split: str) -> Pictures:
    """The pictures of a split of a completed configuration, labelled as its knowledge base has it;
    ValueError if the set has no such split, or no pictures."""
    return open_pictures(cfg.data, split, knowledge_of(cfg))


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
    chosen: list[sets.Item] = []
    for row in order:
        if not lacking:
            break
        item, _, labels = found.read(row)
        if item in chosen:  # it stands in for a broken one
            continue
        seen = np.unique(sets.numbers_in(labels))
        shown = [name for name, numbers in lacking.items() if np.isin(seen, numbers).any()]
        if shown:
            chosen.append(item)
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
        self.found = open_split(cfg, "train")
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
        """Pictures of bytes, their label maps (the last number is outside of a picture), whether
        the wholes of a picture are divided into parts, and the number of the optimiser step; of
        labels that tell objects apart also the object of each pixel, 0 for none."""
        data = self.cfg.data
        places = range(self.batch_size)[dist.current().share(self.batch_size)]
        rows = self.order.rows(index)
        images, codes, divided = [], [], []
        for place in places:
            item, picture, labels = self.found.read(int(rows[place]))
            draw = generator(self.cfg.seed, self.stage, "view", index, place)
            image, code = segmentation_view(picture, labels, data.crop, draw, data.scales, ENTIRE)
            images.append(image)
            codes.append(code)
            divided.append(item.name not in self.bare)
        maps = torch.stack(codes)
        batch = {
            "images": torch.stack(images),
            "codes": maps,
            "divided": torch.tensor(divided),
            "step": index // self.cfg.loop.accumulate,
        }
        if maps.ndim == 4:
            maps = maps.long()
            batch["codes"] = maps[..., 0] * 256 + maps[..., 1]
            batch["objects"] = maps[..., 2] * 256 + maps[..., 3]
        return batch


class ObjectBatches(Batches):
    """The same, with the objects of each picture."""

    def __init__(self, cfg: Config) -> None:
        super().__init__(cfg, "separate", cfg.separate.batch_size)
        self.things = things_of(knowledge_of(cfg), codes_of(cfg), sets.table_size(cfg.data))

    def __call__(self, index: int) -> dict[str, Any]:
        """For the map of objects a list, for each picture, of their boxes, labels and masks."""
        batch = super().__call__(index)
        known = batch.get("objects", [None] * len(batch["codes"]))
        batch["objects"] = [
            objects_of(
                code.numpy(), self.things, self.cfg.separate.least, bool(divided),
                None if objects is None else objects.numpy(),
            )
            for code, divided, objects in zip(batch["codes"], batch["divided"], known, strict=True)
        ]  # fmt: skip
        return batch


@dataclass(frozen=True)
class Things:
    """Countable concepts of a knowledge base."""

    ids: tuple[int, ...]
    """Nodes; their places are the labels of objects."""
    levels: tuple[int, ...]
    inside: Bool[np.ndarray, "thing number"]
    """Whether a number in a label map is of the thing."""
    are_leaves: tuple[bool, ...]
    """Things without parts."""


def things_of(
    kb: KnowledgeBase, of_codes: dict[int, tuple[int, ...]], numbers: int = 256
) -> Things:
    """The countable concepts, in the knowledge base's order; `numbers` a label map can have."""
    ids = [node.id for node in kb.nodes if node.thing and node.id != kb.root.id]
    inside = np.zeros((len(ids), numbers), dtype=bool)
    levels = [1] * len(ids)
    for code, path in of_codes.items():
        for level, number in enumerate(path, 1):
            if number in ids:
                inside[ids.index(number), code] = True
                levels[ids.index(number)] = level
    leaves = tuple(not kb.node(number).children for number in ids)
    return Things(tuple(ids), tuple(levels), inside, leaves)


def objects_of(
    codes: Integer[np.ndarray, "height width"],
    things: Things,
    least: int,
    divided: bool = True,
    objects: Integer[np.ndarray, "height width"] | None = None,
) -> dict[str, Tensor]:
    """Boxes, labels and masks of a picture's objects; without parts, those of the first level.

    Where `objects` tells those of the first level apart (0 is none), that is believed. Else pixels
    of a thing that touch are one object; of a thing without parts those of one number, so that the
    front and back door of a car are two.
    """
    boxes, labels, masks = [], [], []
    for label, level in enumerate(things.levels):
        if level > 1 and not divided:
            continue
        for mask in _apart(codes, things, label, objects if level == 1 else None):
            if mask.sum() < least:
                continue
            rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
            boxes.append([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
            labels.append(label)
            masks.append(torch.from_numpy(mask))
    shape = (0, *codes.shape)
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32).view(-1, 4),
        "labels": torch.tensor(labels, dtype=torch.int64),
        "masks": torch.stack(masks) if masks else torch.zeros(shape, dtype=torch.bool),
    }


def _apart(
    codes: np.ndarray, things: Things, label: int, objects: np.ndarray | None
) -> Iterator[Bool[np.ndarray, "height width"]]:
    """Masks of a thing's objects."""
    inside = things.inside[label]
    region = inside[codes]
    if objects is not None:
        for number in np.unique(objects[region]):
            if number:
                yield region & (objects == number)
        return
    shown = np.unique(codes[region]) if things.are_leaves[label] else [None]
    for code in shown:
        numbers, count = ndimage.label(region if code is None else codes == code, np.ones((3, 3)))
        for number in range(1, count + 1):
            yield numbers == number
