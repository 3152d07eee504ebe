"""From pictures to batches of every task; which pictures, and what is said of them."""

from __future__ import annotations

import sys
import warnings
from dataclasses import replace
from functools import cached_property, lru_cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from tenfold.core import dist
from tenfold.core.epochs import Epochs
from tenfold.core.seed import generator, seed_of
from tenfold.core.system import DataUsed
from tenfold.data import catalog
from tenfold.data.images import (
    augment,
    class_maps,
    classification,
    coco,
    own,
    scene_views,
    segmentation,
    views,
)
from tenfold.data.images.classification import Photos
from tenfold.data.images.coco import SceneSet
from tenfold.data.images.decode import Reading
from tenfold.data.images.rand_augment import rand_augment
from tenfold.data.images.segmentation import Segmented
from tenfold.generated import scenes
from tenfold.structures import Instances

from .config import SETS, Config, Data
from .masking import blocks_of

CONSTANTS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}
"""Mean and deviation of the channels of pictures in [0, 1]."""
GENERATED = {"train": 800, "test": 160}
"""Pictures of the generated set."""
SPLIT_SEED = 0
"""Of the division of a dense set that has no test part: the same in all runs."""
RATIO = (3 / 4, 4 / 3)
"""Width over height of random crops."""


def find(data: Data) -> Path | None:
    """The folder of the data, or None where it is not there; a path that was given must exist."""
    if data.name == "scenes":
        return None
    if data.name in ("folder", "photos"):  # pictures of the user's own, which no catalogue knows
        if not data.path:
            raise ValueError(f"data.name is {data.name}; say where they are: --data.path FOLDER")
        if not Path(data.path).is_dir():
            raise FileNotFoundError(f"data.path {data.path} is not a folder")
        return Path(data.path)
    folder = catalog.find(data.name, data.path)
    if data.name == "tiny_imagenet_20" and folder and not (folder / "train.npz").exists():
        raise FileNotFoundError(
            f"{folder} has no train.npz, which {data.name} consists of. Pictures without classes, "
            "for pre-training alone, are --data.name photos."
        )
    return folder


def complete(cfg: Config) -> Config:
    """Choose the data (generated where none is found) and take the classes from it."""
    if find(cfg.data) is None and cfg.data.name != "scenes":
        cfg = replace(cfg, data=replace(cfg.data, name="scenes"))
    is_drawn = cfg.data.name == "scenes"  # with masks
    wants_masks = "detect" in cfg.tasks and cfg.dense.masks
    if wants_masks and not is_drawn and not instances(cfg.data, "train").has_masks:
        warnings.warn("the set has boxes only: no masks are trained", stacklevel=2)
        cfg = replace(cfg, dense=replace(cfg.dense, masks=False))
    if cfg.tasks == ("pretrain",):
        return cfg
    if not cfg.classes:
        cfg = replace(cfg, classes=_classes(cfg, "train"))
    require_classes(cfg, "train")
    if cfg.data.path and dist.current().is_first:
        _say_what_was_found(cfg)
    return cfg


def _say_what_was_found(cfg: Config) -> None:
    """Print a line on a dense set of the user's own, whose test part is opened now as well."""
    for task in cfg.tasks:
        if task == "detect":
            test: SceneSet | Segmented = instances(cfg.data, "test").aligned(cfg.classes)
            train: SceneSet | Segmented = instances(cfg.data, "train")
        elif task == "segment" and cfg.data.name == "folder":
            train, test = (segmented(cfg.data, split) for split in ("train", "test"))
        else:
            continue
        line = own.described(Path(cfg.data.path), {"train": train, "test": test})
        print(f"tenfold: {line}", file=sys.stderr)


def require_classes(cfg: Config, split: str) -> None:
    """Refuse data of other classes than the run has."""
    where = cfg.data.path or cfg.data.name
    class_maps.require_those_of_run(cfg.classes, _classes(cfg, split), where)


def _classes(cfg: Config, split: str) -> tuple[str, ...]:
    if cfg.data.name == "scenes":  # known before they are drawn, which takes seconds
        return ("background", *scenes.NAMES) if "segment" in cfg.tasks else scenes.NAMES
    if "segment" in cfg.tasks:
        return segmented(cfg.data, split).classes
    if "detect" in cfg.tasks:
        found = instances(cfg.data, split)
        return (found if split == "train" else found.aligned(cfg.classes)).classes
    return photographs(cfg.data, split, cfg.seed).classes


# --- sets ------------------------------------------------------------------------------------


def _folder(data: Data) -> Path | None:
    """The folder that is read, or None for generated scenes; one that is gone is an error."""
    return None if data.name == "scenes" else find(data) or catalog.find_or_explain(data.name)


@lru_cache(maxsize=8)
def photographs(data: Data, split: str, seed: int) -> Photos:
    """Pictures for pre-training, classification and localisation: "train" or "test"."""
    folder = _folder(data)
    if folder is None:
        return _drawn(split)
    if data.name == "tiny_imagenet_20":
        return classification.open_tiny_imagenet_20(folder, "train" if split == "train" else "val")
    if data.name in ("imagenet", "folder"):
        part = "train" if split == "train" else "val"
        return classification.open_class_folders(
            folder, part, data.test_share, seed, reading_of(data)
        )
    if data.name == "photos":
        found = classification.open_flat(folder, reading_of(data))
        return found.at(_parts(len(found), data.test_share, seed)[split])
    dense = segmented(data, split) if "segment" in SETS[data.name] else instances(data, split)
    return classification.of_files([pair[0] for pair in dense.files], reading=reading_of(data))


def reading_of(data: Data) -> Reading:
    """The choices about reading."""
    return Reading(data.skip_broken, data.follow_links, data.ignore_exif)


def replaced(cfg: Config, split: str) -> dict[str, str]:
    """Name -> reason, of pictures and masks that could not be read when they were needed."""
    found: dict[str, str] = {}
    for task in cfg.tasks if cfg.data.skip_broken else ():
        if task == "segment":
            found |= segmented(cfg.data, split).replaced
        elif task == "detect":
            found |= instances(cfg.data, split).replaced
        else:
            found |= photographs(cfg.data, split, cfg.seed).replaced
    return found


def _parts(count: int, share: float, seed: int) -> dict[str, np.ndarray]:
    """Rows of a set without splits."""
    order = torch.randperm(count, generator=generator(seed, "split")).numpy()
    held = max(1, round(count * share))
    return {"train": np.sort(order[held:]), "test": np.sort(order[:held])}


def _drawn(split: str) -> Photos:
    pictures, labels, boxes = scenes.photos(split, GENERATED[split], 0)
    return classification.of_arrays(pictures, labels, scenes.NAMES, boxes, f"scenes/{split}")


@lru_cache(maxsize=8)
def segmented(data: Data, split: str) -> Segmented:
    """Pictures with label maps."""
    folder = _folder(data)
    if folder is None:
        return _drawn_maps(split)
    if data.name == "folder":
        found = own.open_maps(folder, split, data.test_share, SPLIT_SEED, reading_of(data))
    else:
        name = _split_of(data.name, split)
        found = segmentation.open_segmentation(folder, data.name, name, reading_of(data))
    return segmentation.fitting(found, folder)


def _drawn_maps(split: str) -> Segmented:
    made = [scenes.scene(split, i) for i in range(GENERATED[split])]
    pairs = [(one.picture, scenes.label_map(one)) for one in made]
    return segmentation.of_arrays(("background", *scenes.NAMES), pairs)


@lru_cache(maxsize=8)
def instances(data: Data, split: str) -> SceneSet:
    """Pictures with boxes and masks of objects."""
    folder = _folder(data)
    if folder is None:
        made = [scenes.scene(split, i) for i in range(GENERATED[split])]
        return coco.of_arrays(scenes.NAMES, [(one.picture, _objects(one)) for one in made])
    return own.open_objects(folder, split, data.test_share, SPLIT_SEED, reading_of(data))


def _objects(drawn: scenes.Drawn) -> Instances:
    areas = drawn.masks.sum((1, 2)).astype(np.float32)
    return Instances(drawn.boxes, drawn.labels, masks=drawn.masks, areas=areas)


def _split_of(name: str, split: str) -> str:
    """A set's own name of a split: the public benchmarks report on their validation set."""
    has_test = name in ("camvid", "car_parts")
    return "train" if split == "train" else "test" if has_test else "val"


def used(data: Data) -> DataUsed:
    """The data that results rest on, by name and kind."""
    if data.name == "scenes":
        return DataUsed("scenes", "generated", "drawn scenes of our own, 64 pixels", "MIT")
    if data.name in ("folder", "photos"):
        return DataUsed(data.name, "real", "pictures of your own", "your own")
    return DataUsed(data.name, "real", "", catalog.entry(data.name).licence)


# --- batches ---------------------------------------------------------------------------------


def normalised(
    pictures: UInt8[Tensor, "batch 3 height width"], how: str
) -> Float[Tensor, "batch 3 height width"]:
    """Pictures of bytes as the network takes them."""
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in CONSTANTS[how])
    return (pictures / 255 - mean) / std


def shown(
    images: Float[Tensor, "batch 3 height width"], how: str
) -> UInt8[np.ndarray, "batch height width 3"]:
    """The way back, to be looked at."""
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in CONSTANTS[how])
    pixels = (images.detach().float().cpu() * std + mean).clamp(0, 1)
    return (pixels * 255).round().byte().permute(0, 2, 3, 1).numpy()


LEAST_SEEN = 0.5
"""Share of an object that a crop must keep in localisation."""


def _area(box: np.ndarray) -> float:
    return float((box[2] - box[0]) * (box[3] - box[1]))


class Feed:
    """The rows of every batch of a task: shuffled anew in each pass, this process's share."""

    def __init__(self, cfg: Config, task: str, rows: Int[np.ndarray, " row"]) -> None:
        self.cfg, self.task, self.rows = cfg, task, rows
        self.epochs = Epochs(len(rows), cfg.data.batch_size, cfg.seed, task)

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in one pass; a short last one is dropped."""
        return self.epochs.steps

    def at(self, index: int) -> tuple[list[int], list[int]]:
        """(rows of micro-batch `index` of this process, their places in the whole batch)."""
        size = self.cfg.data.batch_size
        mine = dist.current().share(size)
        rows = self.rows[self.epochs.rows(index)][mine]
        return rows.tolist(), list(range(size))[mine]

    def draw(self, index: int, place: int) -> torch.Generator:
        """Randomness of one picture: any number of processes gives the same batch."""
        return generator(self.cfg.seed, self.task, index, place)


class PhotoBatches:
    """Batches of pre-training, classification and localisation."""

    def __init__(self, cfg: Config, set_: Photos, held: Int[np.ndarray, " row"]) -> None:
        self.cfg, self.photos = cfg, set_
        self.rows = np.setdiff1d(np.arange(len(set_)), held)

    def feed(self, task: str) -> Feed:
        """Rows of a task's batches."""
        return Feed(self.cfg, task, self.rows)

    def view(
        self, row: int, draw: torch.Generator
    ) -> tuple[UInt8[Tensor, "3 side side"], views.Crop, bool]:
        """A random crop and flip of a picture, with what was drawn."""
        cfg, picture = self.cfg, self.photos.picture(row)
        height, width = picture.shape[:2]
        box = views.crop_box(height, width, cfg.data.crop_scale, RATIO, draw)
        is_flipped = bool(torch.rand((), generator=draw) < 0.5)
        return views.view(picture, box, is_flipped, cfg.model.size), box, is_flipped

    def pixels(self, feed: Feed, index: int) -> dict[str, Tensor]:
        """Pictures and the noise that decides which units are kept."""
        rows, places = feed.at(index)
        draws = [feed.draw(index, place) for place in places]
        pictures = [self.view(row, draw)[0] for row, draw in zip(rows, draws, strict=True)]
        units = (self.cfg.model.size // self.cfg.model.patch_size) ** 2
        noise = torch.stack([torch.rand(units, generator=draw) for draw in draws])
        how = self.cfg.data.normalise
        return {"images": normalised(torch.stack(pictures), how), "noise": noise}

    def tokens(self, feed: Feed, index: int, side: int) -> dict[str, Tensor]:
        """Pictures, masked units, and what the teacher sees: the same crops, `side` pixels wide."""
        rows, places = feed.at(index)
        model, pictures, masks = self.cfg.model, [], []
        units = model.size // model.patch_size
        own = self.cfg.pretrain
        make = blocks_of(units, own.masked_share, own.max_mask_patches_per_block)
        for row, place in zip(rows, places, strict=True):
            pictures.append(self.view(row, feed.draw(index, place))[0])
            random = Random(seed_of(self.cfg.seed, "masks", index, place))
            masks.append(torch.from_numpy(make.draw(random)).flatten())
        images = torch.stack(pictures)
        teacher = images / 255
        if side != model.size:
            teacher = torch.nn.functional.interpolate(
                teacher, (side, side), mode="bicubic", antialias=True, align_corners=False
            ).clamp(0, 1)
        return {
            "images": normalised(images, self.cfg.data.normalise),
            "masked": torch.stack(masks),
            "pictures": teacher,
        }

    def classes(self, feed: Feed, index: int) -> dict[str, Tensor]:
        """Augmented pictures and soft labels."""
        rows, places = feed.at(index)
        settings, how, pictures = self.cfg.finetune, self.cfg.data.normalise, []
        for row, place in zip(rows, places, strict=True):
            draw = feed.draw(index, place)
            picture = self.view(row, draw)[0]
            if settings.rand_augment:
                changed = rand_augment(picture.permute(1, 2, 0).numpy(), draw)
                picture = torch.from_numpy(changed.copy()).permute(2, 0, 1)
            pictures.append(picture)
        images = normalised(torch.stack(pictures), how)
        labels = torch.from_numpy(self.photos.labels[rows])
        # one mix for the whole batch, whose partner is taken within a process's share
        draw = generator(self.cfg.seed, "mix", index, dist.current().rank)
        if settings.erasing:
            images = augment.erase(images, settings.erasing, draw)
        images, targets = augment.mix(
            images, labels, len(self.cfg.classes), settings.mixup, settings.cutmix,
            settings.smoothing, draw,
        )  # fmt: skip
        return {"images": images, "targets": targets}

    def boxes(self, feed: Feed, index: int) -> dict[str, Tensor]:
        """Pictures and the box of each one's object, as shares of the sides."""
        assert self.photos.boxes is not None
        rows, places = feed.at(index)
        size, pictures, boxes = self.cfg.model.size, [], []
        for row, place in zip(rows, places, strict=True):
            picture, crop, is_flipped = self.view(row, feed.draw(index, place))
            box = self.photos.boxes[row]
            seen = views.view_box(box, crop, is_flipped, size)
            share = _area(seen) / (size * size) * _area(np.array(crop)) / _area(box)
            if share < LEAST_SEEN:  # a crop without the object teaches nothing: the whole picture
                whole = self.photos.picture(row)
                crop = (0.0, 0.0, float(whole.shape[1]), float(whole.shape[0]))
                picture = views.view(whole, crop, is_flipped, size)
                seen = views.view_box(box, crop, is_flipped, size)
            pictures.append(picture)
            boxes.append(seen / size)
        images = normalised(torch.stack(pictures), self.cfg.data.normalise)
        return {"images": images, "boxes": torch.from_numpy(np.stack(boxes)).float()}


class DenseBatches:
    """Batches of segmentation or of detection."""

    def __init__(self, cfg: Config, set_: Any, held: Int[np.ndarray, " row"]) -> None:
        self.cfg, self.set = cfg, set_
        self.rows = np.setdiff1d(np.arange(len(set_)), held)
        if isinstance(set_, SceneSet) and cfg.dense.masks and not set_.has_masks:
            raise ValueError(f"{set_.file} has boxes only; set --dense.no-masks")

    def feed(self, task: str) -> Feed:
        """Rows of a task's batches."""
        return Feed(self.cfg, task, self.rows)

    def maps(self, feed: Feed, index: int) -> dict[str, Tensor]:
        """Random crops with label maps."""
        rows, places = feed.at(index)
        dense, pictures, labels = self.cfg.dense, [], []
        for row, place in zip(rows, places, strict=True):
            picture, known = self.set.scene(row)
            draw = feed.draw(index, place)
            one = scene_views.segmentation_view(
                picture, known, dense.size, draw, dense.scales, resize=dense.resize
            )
            pictures.append(one[0])
            labels.append(one[1])
        images = normalised(torch.stack(pictures), self.cfg.data.normalise)
        return {"images": images, "labels": torch.stack(labels).long()}

    def objects(self, feed: Feed, index: int) -> dict[str, Any]:
        """Pictures of random sizes, padded, with their objects."""
        rows, places = feed.at(index)
        dense, found = self.cfg.dense, []
        for row, place in zip(rows, places, strict=True):
            scene = self.set.scene(row)
            found.append(
                scene_views.detection_view(
                    scene.picture, scene.objects, feed.draw(index, place), dense.short_sides,
                    dense.longest, crop=dense.crop,
                )
            )  # fmt: skip
        pictures, sizes = scene_views.collate(found, self.multiple)
        keys = ("boxes", "labels", "ignored") + (("masks",) if dense.masks else ())
        return {
            "images": normalised(pictures, self.cfg.data.normalise),
            "sizes": sizes,
            "objects": [{key: getattr(view, key) for key in keys} for view in found],
            "draw": torch.tensor(index * dist.current().size + dist.current().rank),
        }

    @cached_property
    def multiple(self) -> int:
        """Sides of a batch of detection are multiples of this: the coarsest map halves twice."""
        return 4 * self.cfg.model.patch_size
