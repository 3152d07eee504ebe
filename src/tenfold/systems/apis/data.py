"""From files to batches: pictures with objects, each with what is known of it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from tenfold.core import dist
from tenfold.core.epochs import Epochs
from tenfold.core.seed import generator
from tenfold.core.system import DataUsed
from tenfold.data import catalog
from tenfold.data.images import class_maps, coco_files
from tenfold.data.images.coco import listed, read_json
from tenfold.data.images.decode import Reading
from tenfold.data.images.exchange_coco import content_of
from tenfold.data.images.instance_sets import open_boxes, open_instances
from tenfold.data.images.instances import ObjectSet, Point, Shape
from tenfold.data.images.scene_views import channels_first, resized, size_for
from tenfold.generated import hollows

from . import settings
from .config import Config, Data, SetName

GENERATED: SetName = "hollows"
OWN_VALIDATION = ("clothing_parsing", "nuclei_dsb2018")
"""Sets that have a validation split beside their test split."""
COCO_LAYOUT = ("coco2017", "coco_tiny", "car_parts")
"""Sets that are an instance file of COCO's form."""
SPLIT_SEED = 0
"""Of the division of a folder that is not divided: the same in all runs."""
UNKNOWN = -1
"""Label of a point that fills up a row."""
ONE = "object"
"""Name of the class of all objects."""
Known = Callable[[int], tuple[Point, ...]]
"""Annotation -> the points that were answered about it."""


def complete(cfg: Config) -> Config:
    """Choose the data, generated where none is found, and take the classes from it."""
    if not cfg.steps and not cfg.start:
        raise ValueError("steps is 0, but there is no start: nothing is trained to ask by")
    data = cfg.data
    if data.name not in (GENERATED, "folder") and catalog.find(data.name, data.path) is None:
        if data.points_path:  # whose pictures are the set's
            catalog.find_or_explain(data.name)
        data = replace(data, name=GENERATED, path="")
        cfg = replace(cfg, data=data)
    train = open_set(data, "train")
    if not train.num_objects:
        raise ValueError(_nothing(data))
    if cfg.classes:
        require_classes(cfg)
    if cfg.asks or cfg.loss.supervision == "mask" or cfg.loss.masked_share:
        _require_masks(train, data)
    answers = sum(len(shape.points) for one in train.pictures for shape in one.asked)
    if answers and cfg.loss.supervision in ("mask", "box"):
        warnings.warn(
            f"{answers} answers about pixels in {data.points_path or data.path or data.name} are "
            f"not learned from: loss.supervision is {cfg.loss.supervision}. Add --loss.supervision "
            "box+points.",
            stacklevel=2,
        )
    cfg = replace(cfg, classes=train.classes, is_masked=has_masks(open_set(data, "test")))
    if data.name == "folder":  # recipes of public sets leave out what the user may mean to learn
        for line in settings.left_aside(data):
            warnings.warn(f"{data.path}: {line}", stacklevel=2)
    return cfg


def require_classes(cfg: Config) -> None:
    """Refuse data of other classes than the run has."""
    found = open_set(cfg.data, "train").classes
    class_maps.require_those_of_run(cfg.classes, found, cfg.data.path or cfg.data.name)


def _nothing(data: Data) -> str:
    """Why no object is left to train on, and what to do."""
    areas = [shape.area for one in _training(data).pictures for shape in one.asked]
    if areas:
        return (
            f"all {len(areas)} training objects of {data.points_path or data.name} have fewer than "
            f"{data.least} pixels (the largest {max(areas):.0f}), and are left out; lower "
            "--data.least"
        )
    return (
        f"{data.points_path or data.name} has no object to train on; draw boxes first (tenfold "
        "serve apis), and give what it exports as data.points_path"
    )


def has_masks(some: ObjectSet) -> bool:
    """True if there are masks to measure by."""
    return any(shape.mask is not None for one in some.pictures for shape in one.asked)


def _require_masks(train: ObjectSet, data: Data) -> None:
    """Refuse to ask a truth that is not there."""
    bare = sum(shape.mask is None for one in train.pictures for shape in one.asked)
    if bare:
        raise ValueError(
            f"{bare} of {train.num_objects} training objects of {data.name} have no mask to answer "
            "by; answer yourself (tenfold serve apis), or train with --points.rounds 0 "
            "--points.initial 0 --loss.supervision box"
        )


@lru_cache(maxsize=8)
def open_set(data: Data, split: str) -> ObjectSet:
    """Open the "train", "validation" or "test" pictures of a run.

    Raises:
        ValueError: There is no such split.
    """
    if split not in ("train", "test") and not (
        split == "validation" and (data.name in OWN_VALIDATION or data.name == GENERATED)
    ):
        raise ValueError(
            f"unknown split {split!r} of {data.name}; known: test"
            + (", validation" if data.name in (*OWN_VALIDATION, GENERATED) else "")
        )
    if split == "train":
        found = _trained_on(_training(data), data.least)
    else:
        found = _published(data, split)
        if not data.one_class:  # labels mean what they mean in training, as the network learned it
            found = found.aligned(open_set(data, "train").classes, Path(data.path or data.name))
    limit = data.limit if split == "train" else data.test_limit
    if limit and len(found) > limit:
        found = found.at([int(i * len(found) / limit) for i in range(limit)])
    return _of_one_class(found) if data.one_class else found


@lru_cache(maxsize=8)
def _published(data: Data, split: str) -> ObjectSet:
    """A split as the set itself has it."""
    if data.name == GENERATED:
        return hollows.open_set(split, data.generated[split != "train"])
    name = "val" if split == "validation" else split
    return open_instances(
        data.name, _folder(data), name, _reading(data), data.test_share, SPLIT_SEED
    )


def _training(data: Data) -> ObjectSet:
    """The training pictures with all of their objects: the set's, or those of `points_path`.

    Of the latter, pictures that are measured on are taken out.
    """
    if not data.points_path:
        return _published(data, "train")
    file, folder = Path(data.points_path), _folder(data)
    split = coco_files.split_of(folder if file.is_relative_to(folder) else file.parent, file)
    split = "train" if split == coco_files.WHOLE else split
    pictures = coco_files.find_pictures(folder, file, split, data.follow_links)
    found = open_boxes(file, pictures, _reading(data))
    held: set[Path] = set()
    for split in ("test", "validation") if data.name in OWN_VALIDATION else ("test",):
        measured = _published(data, split)
        if measured.num_objects:  # photos alone are both, as nothing is measured on them
            held |= {one.file.resolve() for one in measured.pictures}
    rows = [row for row, one in enumerate(found.pictures) if one.file.resolve() not in held]
    if not rows:
        raise ValueError(
            f"{file}: all {len(found)} pictures are of the test or validation split of "
            f"{data.path or data.name}, which is not trained on; add answers about others"
        )
    if left := len(found) - len(rows):
        warnings.warn(
            f"{file}: {left} of {len(found)} pictures are of the test or validation split of "
            f"{data.path or data.name}, and are not trained on",
            stacklevel=2,
        )
    return found.at(rows)


def _reading(data: Data) -> Reading:
    return Reading(data.skip_broken, data.follow_links, data.ignore_exif)


def _folder(data: Data) -> Path:
    if data.name == "folder":
        if not data.path:
            raise ValueError("data.name is folder; say where it is: --data.path FOLDER")
        if not Path(data.path).is_dir():
            raise FileNotFoundError(f"data.path {data.path} is not a folder")
        return Path(data.path)
    return catalog.find_or_explain(data.name, data.path)


def _trained_on(found: ObjectSet, least: int) -> ObjectSet:
    """Without objects that are too small, crowds, and pictures in which nothing is left."""
    pictures = []
    for one in found.pictures:
        kept = tuple(shape for shape in one.asked if shape.area >= least)
        if kept:
            pictures.append(replace(one, shapes=kept))
    return replace(found, pictures=tuple(pictures))


def _of_one_class(found: ObjectSet) -> ObjectSet:
    pictures = [
        replace(one, shapes=tuple(replace(shape, label=0) for shape in one.shapes))
        for one in found.pictures
    ]
    return replace(found, classes=(ONE,), category_ids=(1,), pictures=tuple(pictures))


def content(data: Data, found: ObjectSet) -> dict[str, Any]:
    """The training set as an instance file of COCO's form, whose order decides what is drawn.

    Of sets in COCO's own layout it is the published file, whose crowds and small objects draw, too:
    so the random points are the published ones.
    """
    if data.name in COCO_LAYOUT and not data.points_path:
        file = coco_files.find_split(_folder(data), "train")[0]
        read = read_json(file)
        for key in ("images", "annotations"):  # numbers as the set's own reader has them
            listed(read, key, file)
        return read
    return content_of(found)


def used(data: Data) -> DataUsed:
    """The data that results rest on."""
    if data.name == GENERATED:
        return DataUsed(data.name, "generated", "pictures of our own generator", "MIT")
    one = ["all objects are one class"] * data.one_class
    if data.name == "folder":
        note = "; ".join(["pictures of your own", *one])
        return DataUsed(data.name, "real", note, "your own")
    entry = catalog.entry(data.name)
    return DataUsed(data.name, entry.kind, "".join(one), entry.licence)


# --- views ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class View:
    """A picture as the network sees it, with its objects; row i of everything is of object i."""

    picture: UInt8[Tensor, "3 height width"]
    boxes: Float[Tensor, "object 4"]
    labels: Int64[Tensor, " object"]
    points: Float[Tensor, "object point 2"]
    """x y in pixels of the view."""
    answers: Int64[Tensor, "object point"]
    """1 on the object, 0 not, -1 for what fills up a row."""
    masks: Bool[Tensor, "some height width"]
    """Nothing of objects whose mask is not known; of no object if none is known."""
    has_mask: Bool[Tensor, " object"]
    original: int
    """Height of the picture itself."""


def view(
    picture: UInt8[np.ndarray, "_ _ 3"],
    shapes: Sequence[Shape],
    points: Sequence[Sequence[Point]],
    masked: Sequence[bool],
    side: int,
    longest: int,
    is_flipped: bool = False,
) -> View:
    """Bring a picture and its objects to a size.

    Args:
        picture: The picture itself.
        shapes: Objects.
        points: Answers about each.
        masked: Whether the mask of each is known.
        side: Pixels of the shorter side.
        longest: Pixels of the longer side, at most.
        is_flipped: Mirror both.
    """
    height, width = picture.shape[:2]
    tall, wide = size_for(height, width, side, longest)
    seen = resized(picture, tall, wide)
    factor = torch.tensor([wide / width, tall / height])
    boxes = torch.tensor([shape.box for shape in shapes]).view(-1, 4) * factor.repeat(2)
    most = max(map(len, points), default=0)
    places = torch.zeros(len(shapes), most, 2)
    answers = torch.full((len(shapes), most), UNKNOWN)
    for row, some in enumerate(points):
        for column, point in enumerate(some):
            places[row, column] = torch.tensor([point.x + 0.5, point.y + 0.5]) * factor
            answers[row, column] = point.label
    rows, columns = _nearest(tall, height, False), _nearest(wide, width, is_flipped)
    masks = torch.zeros(len(shapes) if any(masked) else 0, tall, wide, dtype=torch.bool)
    for row, (shape, is_known) in enumerate(zip(shapes, masked, strict=True)):
        if is_known and shape.mask is not None:
            whole = shape.mask.whole(height, width)
            masks[row] = torch.from_numpy(whole[rows][:, columns])
    if is_flipped:
        seen = seen[:, ::-1]
        boxes[:, [0, 2]] = wide - boxes[:, [2, 0]]
        places[:, :, 0] = wide - places[:, :, 0]
    labels = torch.tensor([shape.label for shape in shapes], dtype=torch.int64)
    return View(
        channels_first(seen), boxes, labels, places, answers, masks,
        torch.tensor(list(masked), dtype=torch.bool), height,
    )  # fmt: skip


def _nearest(new: int, old: int, is_flipped: bool) -> Int64[np.ndarray, " pixel"]:
    """The pixel of the picture for each pixel of the view, along one axis."""
    places = np.arange(new)
    places = new - 1 - places if is_flipped else places
    found: np.ndarray = ((places + 0.5) * old / new).astype(np.int64)
    return found


def collate(views: Sequence[View]) -> dict[str, Any]:
    """Views filled up to the largest, as nested dicts and lists of tensors."""
    sizes = torch.tensor([list(one.picture.shape[1:]) for one in views])
    images = torch.zeros(len(views), 3, *sizes.amax(0).tolist(), dtype=torch.uint8)
    objects = []
    for row, one in enumerate(views):
        images[row, :, : one.picture.shape[1], : one.picture.shape[2]] = one.picture
        names = ("boxes", "labels", "points", "answers", "masks", "has_mask")
        objects.append({name: getattr(one, name) for name in names})
    originals = torch.tensor([one.original for one in views])
    return {"images": images, "sizes": sizes, "originals": originals, "objects": objects}


class Batches:
    """Training batches of a stage, a function of (seed, index) and the process's share."""

    def __init__(self, cfg: Config, found: ObjectSet, stage: str, known: Known) -> None:
        self.cfg, self.found, self.stage, self.known = cfg, found, stage, known
        self.order = Epochs(len(found), cfg.data.batch_size, cfg.seed, stage, repeats=True)

    def __call__(self, index: int) -> dict[str, Any]:
        """Pictures of bytes with their objects, and the number of the optimiser step."""
        size = self.cfg.data.batch_size
        places = range(size)[dist.current().share(size)]
        rows = self.order.rows(index)
        views = [self._view(int(rows[place]), index, place) for place in places]
        return {**collate(views), "step": index // self.cfg.loop.accumulate}

    def _view(self, row: int, index: int, place: int) -> View:
        own, one = self.cfg.data, self.found.pictures[row]
        draw = torch.rand(2, generator=generator(self.cfg.seed, self.stage, index, place)).tolist()
        side = own.short_sides[int(draw[0] * len(own.short_sides))]
        shapes = one.asked
        return view(
            self.found.picture(row),
            shapes,
            [self.known(shape.id) for shape in shapes],
            [is_masked(self.cfg, shape) for shape in shapes],
            side,
            own.longest,
            own.flip and draw[1] < 0.5,
        )


def is_masked(cfg: Config, shape: Shape) -> bool:
    """True if the mask of an object is trained on; the same in all stages and runs of a seed."""
    if cfg.loss.supervision == "mask" or (cfg.data.points_masks and shape.mask is not None):
        return True
    share = cfg.loss.masked_share
    if not share:
        return False
    draw = generator(cfg.seed, "masked", shape.id)
    return bool(torch.rand((), generator=draw) < share)
