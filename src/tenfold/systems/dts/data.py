"""From files to batches: labelled source crops, target crops, and what is said of the data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, UInt8
from PIL import Image
from torch import Tensor

from tenfold.core import dist
from tenfold.core.epochs import Epochs
from tenfold.core.seed import generator
from tenfold.core.system import DataUsed
from tenfold.data import catalog
from tenfold.data.images import class_maps, maps, mixing, own, segmentation, streets
from tenfold.data.images.class_statistics import class_statistics
from tenfold.data.images.decode import USUAL, Reading, first_sound, read_picture
from tenfold.data.images.folders import photos_below
from tenfold.data.images.rare_classes import RareClasses, rare_classes, source_crop
from tenfold.data.images.segmentation import Segmented
from tenfold.generated import streets as rendered

from . import few_labels
from .config import Config, Data, SetName
from .loss import IGNORED, border

Rgb = UInt8[np.ndarray, "_ _ 3"]
LabelMap = UInt8[np.ndarray, "_ _"]
STYLES = {"streets": rendered.DAY, "streets-dusk": rendered.DUSK}
"""Generated sets -> style of the renderer."""
MEAN = (124, 116, 104)
"""Filled in where an image is smaller than a crop: the mean colour, 0 when normalised."""
SPLIT_SEED = 0
"""Of the division of a folder of the user's own: the same in all runs."""


def find(name: SetName, path: str) -> Path | None:
    """The folder of a set, or None for one that is generated or not there."""
    if name in STYLES:
        return None
    if name == "folder":
        if not path:
            raise ValueError(
                "a set is named folder; say where it is: --data.source-path or --data.target-path"
            )
        if not Path(path).is_dir():
            raise FileNotFoundError(f"{path} is not a folder")
        return Path(path)
    return catalog.find(streets.whole_of(name), path)


def complete(cfg: Config) -> Config:
    """Choose the data (generated where any is not found) and take the classes from it."""
    data = cfg.data
    pairs = ((data.source, data.source_path), (data.target, data.target_path))
    missing = [name for name, path in pairs if name not in STYLES and find(name, path) is None]
    if missing:
        if data.source_path or data.target_path:
            raise FileNotFoundError(
                f"data set {missing[0]} was not found; give its folder too, or name another set"
            )
        data = replace(data, source="streets", target="streets-dusk")
        cfg = replace(cfg, data=data)
    classes = _classes(data, "source", "train")
    if is_labelled(data):
        where = (f"the source {data.source}", f"the target {data.target}")
        class_maps.agree(classes, _classes(data, "target", "test"), where)
    if cfg.classes:
        require_classes(cfg)
    return replace(cfg, classes=classes)


def require_classes(cfg: Config) -> None:
    """Refuse a source of other classes than the run has."""
    found, where = _classes(cfg.data, "source", "train"), cfg.data.source_path or cfg.data.source
    class_maps.require_those_of_run(cfg.classes, found, where)


def _classes(data: Data, role: str, split: str) -> tuple[str, ...]:
    """Names of a set's classes; nothing is rendered for them."""
    is_generated = _named(data, role)[0] in STYLES
    return rendered.NAMES if is_generated else labelled(data, role, split).classes


# --- sets ----------------------------------------------------------------------------------------


def labelled(data: Data, role: str, split: str) -> Segmented:
    """Images with labels of the source or the target: "train" or "test".

    Of a set without splits, the last `test_share` are for the test if it is the one measured, be it
    the source and the target at once.
    """
    name, path, size = _named(data, role)
    if not any(size):
        size = rendered.SIZE
    found = _opened(name, path, split, data.generated, size, data.test_share, reading_of(data))
    measured, measured_path, _ = _named(data, "target" if is_labelled(data) else "source")
    is_measured = name == measured and find(name, path) == find(measured, measured_path)
    if name not in streets.WHOLE or not is_measured or len(found) < 2:
        return found
    first = len(found) - max(1, round(len(found) * data.test_share))
    return found.at(range(first) if split == "train" else range(first, len(found)))


@lru_cache(maxsize=8)
def _opened(
    name: SetName, path: str, split: str, generated: tuple[int, int], size: tuple[int, int],
    test_share: float, reading: Reading,
) -> Segmented:  # fmt: skip
    """The set; sizes of all its pictures and label maps are compared now, not when one is drawn."""
    if name in STYLES:
        count = generated[split == "test"]
        scenes = [
            rendered.scene(f"{name}/{split}", row, style=STYLES[name], size=size)
            for row in range(count)
        ]
        return segmentation.of_arrays(rendered.NAMES, scenes)
    folder = find(name, path) or catalog.find_or_explain(streets.whole_of(name))
    if name == "folder":
        found = own.open_maps(folder, split, test_share, SPLIT_SEED, reading)
    else:
        ours = "val" if split == "test" and name == "cityscapes" else split
        found = streets.open_streets(
            folder, name, "train" if name in streets.WHOLE else ours, reading
        )
    return segmentation.fitting(found, folder)


def reading_of(data: Data) -> Reading:
    """The choices about reading."""
    return Reading(data.skip_broken, data.follow_links, data.ignore_exif)


def _named(data: Data, role: str) -> tuple[SetName, str, tuple[int, int]]:
    if role == "source":
        return data.source, data.source_path, data.source_size
    return data.target, data.target_path, data.target_size


def is_labelled(data: Data) -> bool:
    """True if the target has labels by which a result can be measured, or is not there any more."""
    if data.target != "folder" or (data.target_path and not Path(data.target_path).exists()):
        return True  # who measures is told that it is gone, and a run predicts without it
    folder = find(data.target, data.target_path)
    return folder is not None and bool(maps.find_maps(folder, data.follow_links))


@dataclass(frozen=True)
class Pictures:
    """Target images without labels."""

    files: tuple[Path, ...] = ()
    held: Segmented | None = None
    """Images in memory."""
    reading: Reading = USUAL
    replaced: dict[str, str] = field(default_factory=dict, repr=False, compare=False)
    """Name -> reason, of images in whose place another was put so far."""

    def __len__(self) -> int:
        return len(self.files) if self.held is None else len(self.held)

    def picture(self, row: int) -> Rgb:
        """An image; with `skip_broken`, the next one in place of one that cannot be read."""
        if self.held is not None:
            return self.held.scene(row)[0]
        if not self.reading.skip_broken:
            return self._decoded(row)
        rows = [*range(row, len(self)), *range(row)]
        return first_sound(self._decoded, rows, lambda i: str(self.files[i]), self.replaced)

    def _decoded(self, row: int) -> Rgb:
        return read_picture(self.files[row], self.reading.ignore_exif)


@lru_cache(maxsize=4)
def target_pictures(data: Data) -> Pictures:
    """The images that are adapted to; their labels are not opened."""
    if data.target in STYLES:
        return Pictures(held=labelled(data, "target", "train"))
    folder, reading = find(data.target, data.target_path), reading_of(data)
    folder = folder or catalog.find_or_explain(streets.whole_of(data.target))
    if data.target in streets.WHOLE or (data.target == "folder" and is_labelled(data)):
        found = labelled(data, "target", "train")
        files = [pair[0] for pair in found.files]
    elif data.target == "folder":
        files = photos_below(folder, reading.follow_links)
    else:
        files = streets.pictures_of(folder, data.target, "train", reading)
    return Pictures(tuple(files), reading=reading)


def source_pixels(data: Data) -> Int64[np.ndarray, "image class"]:
    """Pixels of each class in each labelled source image."""
    folder = find(data.source, data.source_path)
    return class_statistics(labelled(data, "source", "train"), folder)


def used(data: Data) -> DataUsed:
    """The data that results rest on; their kind is that of the images that are measured."""
    source, target = (_said(name) for name in (data.source, data.target))
    notes = [f"labels of {data.source} ({source.kind})"]
    if data.target in STYLES:
        notes.append("the target is a second style of our renderer, with its own labels")
    measured = target if is_labelled(data) else source
    if not is_labelled(data):
        notes.append(f"measured on images of {data.source}, as the target has no labels")
    names = f"{data.source} ({source.kind}) to {data.target}"
    return DataUsed(names, measured.kind, "; ".join(notes), measured.licence)


def _said(name: SetName) -> DataUsed:
    """Kind and licence of a set."""
    if name in STYLES:
        return DataUsed(name, "generated", "streets of our own renderer", "MIT")
    if name == "folder":
        return DataUsed(name, "real", "images of your own", "your own")
    entry = catalog.entry(streets.whole_of(name))
    return DataUsed(name, entry.kind, "", entry.licence)


# --- views ---------------------------------------------------------------------------------------


def resized(picture: Rgb, size: tuple[int, int]) -> Rgb:
    """An image at height and width `size`, bilinear; (0, 0) keeps its own."""
    if not any(size) or picture.shape[:2] == size:
        return picture
    image = Image.fromarray(picture)
    return np.asarray(image.resize(size[::-1], Image.Resampling.BILINEAR))


def resized_labels(labels: LabelMap, size: tuple[int, int]) -> LabelMap:
    """Labels at height and width `size`, without interpolation; (0, 0) keeps theirs."""
    if not any(size) or labels.shape == size:
        return labels
    return np.asarray(Image.fromarray(labels).resize(size[::-1], Image.Resampling.NEAREST))


def padded(part: np.ndarray, size: tuple[int, int], value: Any) -> np.ndarray:
    """A crop filled up to its size at the right and below."""
    if part.shape[:2] == size:
        return part
    whole = np.empty((*size, *part.shape[2:]), dtype=part.dtype)
    whole[:] = value
    whole[: part.shape[0], : part.shape[1]] = part
    return whole


def normalised(
    pictures: list[Rgb],
) -> Float[Tensor, "batch 3 height width"]:
    """Images of bytes as networks take them."""
    stacked = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
    return mixing.normalise(stacked.contiguous() / 255)


class Kept:
    """Images at the size at which they are used, so that those of a small set are decoded once."""

    def __init__(self, room: int = 2**28) -> None:
        """`room` is in bytes; what comes when they are full is not kept."""
        self.room = room
        self.views: dict[tuple[str, int], tuple[np.ndarray, ...]] = {}

    def get(
        self, name: str, row: int, make: Callable[[], tuple[np.ndarray, ...]]
    ) -> tuple[np.ndarray, ...]:
        """The arrays of a row of a set, made where they are not kept."""
        found = self.views.get((name, row))
        if found is None:
            found = make()
            size = sum(array.nbytes for array in found)
            if size <= self.room:
                self.room -= size
                self.views[name, row] = found
        return found


# --- batches -------------------------------------------------------------------------------------


class Batches:
    """Batches of a run, each a function of (seed, index) and of the process's share."""

    def __init__(self, cfg: Config) -> None:
        self.cfg, data = cfg, cfg.data
        self.source = labelled(data, "source", "train")
        self.few = few_labels.of_target(data, partial(labelled, data, "target", "train"))
        self.rare: RareClasses | None = None
        if data.rare_temperature and cfg.host.name != "dacs":
            self.rare = rare_classes(source_pixels(data), data.rare_temperature, data.rare_pixels)
        self.targets = Pictures() if cfg.method == "source" else target_pictures(data)
        self._sides: dict[str, Epochs] = {}
        self._kept = Kept()

    @property
    def replaced(self) -> dict[str, str]:
        """Name -> reason, of images in whose place others were put so far."""
        few = {} if self.few is None else self.few.replaced
        return self.source.replaced | few | self.targets.replaced

    def _places(self) -> list[int]:
        size = self.cfg.data.batch_size
        return list(range(size))[dist.current().share(size)]

    def supervised(self, index: int) -> dict[str, Any]:
        """Source crops alone, for the stage before adaptation."""
        images, labels = self._labelled_crops("pre-training", 1, index)
        return {"index": index, "places": self._places(), "source1": images, "labels1": labels}

    def adaptation(self, sides: str, index: int) -> dict[str, Any]:
        """Source crops of each group, and the target crops of both.

        Args:
            sides: "a", or "ab" where target images are mixed with target images.
            index: Number of the micro-batch.
        """
        found: dict[str, Any] = {"index": index, "places": self._places()}
        groups = 2 if self.cfg.method == "dts" else 1
        for group in range(1, groups + 1):
            images, labels = self._labelled_crops("source", group, index)
            found |= {f"source{group}": images, f"labels{group}": labels}
        for side in sides:
            images, valid = self._target_crops(side, index)
            found |= {f"target_{side}": images, f"valid_{side}": valid}
        return found

    def _rows(self, what: str, count: int, index: int) -> list[int]:
        """This process's rows of a batch that goes through a set in random order."""
        if what not in self._sides:
            size = self.cfg.data.batch_size
            self._sides[what] = Epochs(count, size, self.cfg.seed, what, repeats=True)
        rows: list[int] = self._sides[what].rows(index)[self._places()].tolist()
        return rows

    def _labelled_crops(
        self, what: str, group: int, index: int
    ) -> tuple[Float[Tensor, "batch 3 height width"], UInt8[Tensor, "batch height width"]]:
        places = self._places()
        rows = [-1] * len(places)
        if self.rare is None:
            rows = self._rows(f"{what} {group}", len(self.source), index)
        views = [
            self._labelled_crop(row, generator(self.cfg.seed, what, group, index, place))
            for row, place in zip(rows, places, strict=True)
        ]
        pictures, labels = zip(*views, strict=True)
        return normalised(list(pictures)), torch.from_numpy(np.stack(labels))

    def _labelled_crop(self, row: int, draw: torch.Generator) -> tuple[Rgb, LabelMap]:
        """A crop of the source, or, half of the time, of a labelled target image if there are."""
        data, wanted, least = self.cfg.data, IGNORED, 0.0
        name, found, size = "source", self.source, data.source_size
        if self.few is not None and bool(torch.rand((), generator=draw) < 0.5):
            name, found, size = "few", self.few, data.target_size
            row = int(torch.randint(len(found), (), generator=draw))
        elif self.rare is not None:
            wanted, row = self.rare.draw(draw)
            least = data.rare_pixels * data.rare_share

        def scene() -> tuple[Rgb, LabelMap]:
            picture, labels = found.scene(row)
            return resized(picture, size), resized_labels(labels, size)

        picture, labels = self._kept.get(name, row, scene)
        top, left = source_crop(labels, data.crop, draw, wanted, least)
        return _cut(picture, labels, data.crop, top, left, draw)

    def _target_crops(
        self, side: str, index: int
    ) -> tuple[Float[Tensor, "batch 3 height width"], Bool[Tensor, "batch height width"]]:
        rows = self._rows(f"target {side}", len(self.targets), index)
        views = [
            self._target_crop(row, generator(self.cfg.seed, "target", side, index, place))
            for row, place in zip(rows, self._places(), strict=True)
        ]
        pictures, valid = zip(*views, strict=True)
        return normalised(list(pictures)), torch.from_numpy(np.stack(valid)) > 0

    def _target_crop(self, row: int, draw: torch.Generator) -> tuple[Rgb, LabelMap]:
        """A crop, and 1 where its pseudo labels count."""
        data = self.cfg.data
        size = data.target_size
        (picture,) = self._kept.get(
            "target", row, lambda: (resized(self.targets.picture(row), size),)
        )
        height, width = picture.shape[:2]
        margins = data.border if data.border_of == "image" else (0, 0, 0, 0)
        valid = border(height, width, margins).numpy().astype(np.uint8)
        shares = torch.rand(2, generator=draw, dtype=torch.float64).tolist()
        room = [
            max(0, side - wanted) + 1 for side, wanted in zip(valid.shape, data.crop, strict=True)
        ]
        top, left = (int(share * count) for share, count in zip(shares, room, strict=True))
        shown, known = _cut(picture, valid, data.crop, top, left, draw, outside=0)
        if data.border_of == "crop":
            known = known * border(*data.crop, data.border).numpy()
        return shown, known


def _cut(
    picture: Rgb, labels: LabelMap, crop: tuple[int, int], top: int, left: int,
    draw: torch.Generator, outside: int = IGNORED,
) -> tuple[Rgb, LabelMap]:  # fmt: skip
    """A crop of both, mirrored half of the time."""
    part = slice(top, top + crop[0]), slice(left, left + crop[1])
    shown, known = padded(picture[part], crop, MEAN), padded(labels[part], crop, outside)
    if bool(torch.rand((), generator=draw) < 0.5):
        shown, known = shown[:, ::-1], known[:, ::-1]
    return np.ascontiguousarray(shown), np.ascontiguousarray(known)
