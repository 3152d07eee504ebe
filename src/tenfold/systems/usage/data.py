"""From files to batches: pictures with labels of the whole picture, and crops with pseudo masks."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from tenfold.core import dist
from tenfold.core.epochs import Epochs
from tenfold.core.seed import generator
from tenfold.core.system import DataUsed
from tenfold.data import catalog
from tenfold.data.images import class_maps, mixing, views
from tenfold.data.images.decode import Reading
from tenfold.data.images.folders import held_out
from tenfold.data.images.image_labels import (
    Item,
    MultiLabelSet,
    check_seen,
    read_image,
    read_mask,
)
from tenfold.data.images.multilabel import open_set
from tenfold.data.images.rand_augment import rand_augment
from tenfold.data.images.scene_views import MEAN, segmentation_view
from tenfold.data.images.tags import NoSplit
from tenfold.generated import shapes_wsss

from .config import Config, Data, Refine, Segment, SetName
from .views import square

Rgb = UInt8[np.ndarray, "_ _ 3"]
LabelMap = UInt8[np.ndarray, "_ _"]
GENERATED: SetName = "shapes_wsss"
OWN_TEST = ("clothing_parsing",)
"""Sets that have a test split beside their validation split."""
SPLIT_SEED = 0
"""Of the pictures that are held out: the same in all runs."""
MASKS_READ = 200
"""Masks whose numbers are looked at when a set is opened."""
WHOLE = 1.0
"""Share of a crop that one class may fill: all of it."""


@dataclass(frozen=True)
class Sets:
    """Pictures of a run: to train on, to choose by, to measure on."""

    train: MultiLabelSet
    validation: MultiLabelSet
    test: MultiLabelSet

    def split(self, name: str) -> MultiLabelSet:
        """One of them by its name."""
        found: MultiLabelSet = getattr(self, name)
        return found


SPLITS = ("train", "validation", "test")


def complete(cfg: Config) -> Config:
    """Choose the data, generated where none is found; take classes, and what has masks, from it."""
    data = cfg.data
    is_public = data.name not in (GENERATED, "folder")
    if is_public and catalog.find(data.name, data.path) is None:
        data = replace(data, name=GENERATED, path="")
        cfg = replace(cfg, data=data)
    sets = open_sets(data)
    if cfg.classes:
        require_classes(cfg)
    masked = tuple(name for name in SPLITS if sets.split(name).has_masks)
    cfg = replace(cfg, classes=sets.train.classes, masked=masked)
    _require_masks(cfg)
    return cfg


def require_classes(cfg: Config) -> None:
    """Refuse data of other classes than the run has."""
    found = open_sets(cfg.data).train.classes
    class_maps.require_those_of_run(cfg.classes, found, cfg.data.path or cfg.data.name)


def _require_masks(cfg: Config) -> None:
    """Refuse what needs masks where there are none, before anything is trained."""
    needs = {
        "train": ("--threshold.how swept" if cfg.threshold.how == "swept" else "")
        or ("--segment.labels true" if cfg.segment.labels == "true" else ""),
        "validation": "--threshold.how validation" if cfg.threshold.how == "validation" else "",
    }
    for split, option in needs.items():
        if option and split not in cfg.masked:
            raise ValueError(
                f"{option} looks at masks of the {split} pictures of {cfg.data.name}, which has "
                "none; use a choice that needs no mask, such as --threshold.how total"
            )


@lru_cache(maxsize=4)
def open_sets(data: Data) -> Sets:
    """Open the pictures of a run; some of those for training are held out for validation."""
    found = _opened(data, "train")
    test, validation = _tests(data)
    check_seen(found, test, "test")
    if data.limit and len(found) > data.limit:
        step = len(found) / data.limit
        found = _some(found, [int(i * step) for i in range(data.limit)])
    if validation is not None:
        return Sets(found, validation, test)
    if not data.holdout or len(found) < 2:
        return Sets(found, _some(found, []), test)
    names = [item.name for item in found.items]
    held = held_out(names, f"{SPLIT_SEED}/validation", data.holdout)
    rows = {
        is_held: [row for row, name in enumerate(names) if (name in held) == is_held]
        for is_held in (False, True)
    }
    return Sets(_some(found, rows[False]), _some(found, rows[True]), test)


def _some(found: MultiLabelSet, rows: Sequence[int]) -> MultiLabelSet:
    return replace(found, items=tuple(found.items[row] for row in rows))


def _tests(data: Data) -> tuple[MultiLabelSet, MultiLabelSet | None]:
    """Pictures for the test, and those for validation of a folder that has both."""
    if data.name == "folder":
        try:
            return _part(data, "test"), _part(data, "val")
        except NoSplit:
            pass
    return _opened(data, "test"), None


def _opened(data: Data, split: str) -> MultiLabelSet:
    if data.name == GENERATED:
        return shapes_wsss.open_set(split, data.generated[split == "test"])
    return _part(data, "val" if split == "test" and data.name not in OWN_TEST else split)


def _part(data: Data, name: str) -> MultiLabelSet:
    """A split by the set's own name of it; numbers in its masks are looked at now."""
    reading = Reading(data.skip_broken, data.follow_links, data.ignore_exif)
    found = open_set(
        data.name, data.path, name, reading, data.unlabelled, data.test_share, SPLIT_SEED
    )
    return _with_known_numbers(found, data.skip_broken)


def _with_known_numbers(found: MultiLabelSet, skip_broken: bool) -> MultiLabelSet:
    """The set, of which up to MASKS_READ masks hold no number that stands for no class.

    Raises ValueError, which names file and pixel; with `skip_broken` such pictures are left out,
    and all masks are read. Masks that are drawn of outlines have none.
    """
    step = 1 if skip_broken else max(1, len(found) // MASKS_READ)
    broken: dict[int, str] = {}
    for row in range(0, len(found), step):
        item = found.items[row]
        if item.mask is None or item.outlines is not None:
            continue
        try:
            read_mask(item)
        except ValueError as error:
            if not skip_broken:
                raise
            broken[row] = str(error)
    if not broken:
        return found
    first = next(iter(broken.values()))
    warnings.warn(f"{found.name}: {len(broken)} pictures left out: {first}", stacklevel=4)
    return _some(found, [row for row in range(len(found)) if row not in broken])


def used(data: Data) -> DataUsed:
    """The data that results rest on."""
    if data.name == GENERATED:
        return DataUsed(data.name, "generated", "pictures of our own generator", "MIT")
    if data.name == "folder":
        return DataUsed(data.name, "real", _labels_from(data), "your own")
    entry = catalog.entry(data.name)
    return DataUsed(data.name, entry.kind, _labels_from(data), entry.licence)


def _labels_from(data: Data) -> str:
    """What the labels are from; of data that are not there any more that cannot be said."""
    try:
        return open_sets(data).train.labels_from
    except FileNotFoundError:
        return "not there any more"


# --- batches of the seed network -----------------------------------------------------------------


def one_hot(labels: Sequence[int], num_classes: int) -> Tensor:
    """1 for the classes of a picture, else 0."""
    found = torch.zeros(num_classes)
    found[list(labels)] = 1
    return found


class LabelledBatches:
    """Views of pictures with their labels, a function of (seed, index) and the process's share."""

    def __init__(self, cfg: Config, found: MultiLabelSet) -> None:
        self.cfg, self.found = cfg, found
        self.order = Epochs(len(found), cfg.data.batch_size, cfg.seed, "seed", repeats=True)

    def __call__(self, index: int) -> dict[str, Any]:
        """Pictures of bytes, labels, and the number of the optimiser step."""
        size = self.cfg.data.batch_size
        places = range(size)[dist.current().share(size)]
        rows = self.order.rows(index)
        images, labels = [], []
        for place in places:
            item = self.found.items[rows[place]]
            draw = generator(self.cfg.seed, "view", index, place)
            images.append(view(read_image(item), self.cfg.data, draw))
            labels.append(one_hot(item.labels, len(self.found.classes)))
        step = index // self.cfg.loop.accumulate
        return {"images": torch.stack(images), "labels": torch.stack(labels), "step": step}


def view(picture: Rgb, data: Data, draw: torch.Generator) -> UInt8[Tensor, "3 side side"]:
    """A training view of a picture: a square of `data.crop`, mirrored half of the time."""
    side, numbers = data.crop, torch.rand(4, generator=draw).tolist()
    is_flipped = numbers[0] < 0.5
    height, width = picture.shape[:2]
    if data.rand_augment:
        picture = rand_augment(picture, draw)
    if data.view == "crop":
        low, high = data.longest
        longest = low + numbers[1] * (high - low)
        scale = longest / max(height, width)
        size = max(1, round(height * scale)), max(1, round(width * scale))
        found = _placed(picture, size, side, numbers[2:], is_flipped)
    else:
        box: views.Crop = (0, 0, width, height)
        if data.view == "inception":
            box = views.crop_box(height, width, (0.08, 1.0), (3 / 4, 4 / 3), draw)
        found = views.view(picture, box, is_flipped, side)
    if not data.jitter:
        return found
    strong = mixing.draw_strong(1, draw, 1.0, data.jitter, 0.0)
    jitter = replace(strong.jitters[0], hue=strong.jitters[0].hue / 3)
    return (mixing.jitter(found[None] / 255, [jitter])[0] * 255).round().byte()


def _placed(
    picture: Rgb, size: tuple[int, int], side: int, where: Sequence[float], is_flipped: bool
) -> UInt8[Tensor, "3 side side"]:
    """A resized picture cut to a square at random, or placed on one of the mean colour (PSA)."""
    image = Image.fromarray(picture).resize(size[::-1], Image.Resampling.BICUBIC)
    pixels = np.asarray(image)
    whole = np.empty((side, side, 3), dtype=np.uint8)
    whole[:] = MEAN
    parts = []
    for length, share in zip(size, where, strict=True):
        room = int(share * (abs(length - side) + 1))  # of the picture, or beside it
        cut = slice(room, room + side) if length > side else slice(None)
        place = slice(None) if length > side else slice(room, room + length)
        parts.append((cut, place))
    (rows, down), (columns, right) = parts
    whole[down, right] = pixels[rows, columns]
    whole = whole[:, ::-1] if is_flipped else whole
    return torch.from_numpy(np.ascontiguousarray(whole.transpose(2, 0, 1)))


# --- batches with masks --------------------------------------------------------------------------


class MaskedBatches:
    """Views of pictures with the masks that are made of seeds, as `LabelledBatches`."""

    def __init__(
        self, cfg: Config, found: MultiLabelSet, mask: Callable[[Item], LabelMap], own: Views
    ) -> None:
        self.cfg, self.found, self.mask, self.own = cfg, found, mask, own
        self.order = Epochs(len(found), own.batch_size, cfg.seed, own.name, repeats=True)

    def __call__(self, index: int) -> dict[str, Tensor]:
        """Pictures of bytes, and labels of their pixels: 0 background, 255 does not count."""
        own = self.own
        places = range(own.batch_size)[dist.current().share(own.batch_size)]
        rows = self.order.rows(index)
        images, labels = [], []
        for place in places:
            item = self.found.items[rows[place]]
            draw = generator(self.cfg.seed, own.name, index, place)
            picture, mask = read_image(item), self.mask(item)
            require_size(mask, picture, item, own.name)
            image, label = own.view(picture, mask, draw)
            images.append(image)
            labels.append(label)
        return {"images": torch.stack(images), "labels": torch.stack(labels).long()}


@dataclass(frozen=True)
class Views:
    """How a stage sees pictures with masks."""

    name: str
    batch_size: int
    crop: int
    scales: tuple[float, float] = (1.0, 1.0)
    """Range of the random size of crops."""
    longest: int = 0
    """Longer side before the random size; 0 keeps the picture's."""
    is_whole: bool = False
    """Whole pictures brought to a square, instead of crops."""

    def view(
        self, picture: Rgb, mask: LabelMap, draw: torch.Generator
    ) -> tuple[UInt8[Tensor, "3 side side"], UInt8[Tensor, "side side"]]:
        """A view of both, mirrored half of the time."""
        if not self.is_whole:
            resize = (self.longest, self.longest) if self.longest else (0, 0)
            return segmentation_view(picture, mask, self.crop, draw, self.scales, WHOLE, resize)
        image = square(picture, self.crop)
        size = (self.crop, self.crop)
        label = torch.from_numpy(
            np.array(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))
        )
        if bool(torch.rand((), generator=draw) < 0.5):
            image, label = image.flip(2), label.flip(1)
        return image, label


def refine_views(refine: Refine) -> Views:
    """Views of the network of affinities."""
    is_whole = refine.view == "whole"
    return Views("affinity", refine.batch_size, refine.crop, is_whole=is_whole)


def segment_views(segment: Segment) -> Views:
    """Views of the segmentation network."""
    return Views(
        "segment", segment.batch_size, segment.crop, segment.scales, segment.size,
        segment.view == "whole",
    )  # fmt: skip


def require_size(mask: np.ndarray, picture: Rgb, item: Item, what: str) -> None:
    """Raise ValueError, naming both, for a mask that is not of its picture's size."""
    if mask.shape[-2:] != picture.shape[:2]:
        (tall, wide), (height, width) = mask.shape[-2:], picture.shape[:2]
        raise ValueError(
            f"stage {what}: the mask of {item.name} has {wide} x {tall} pixels, its picture "
            f"{item.image} {width} x {height}; give masks of the pictures' own size"
        )
