"""Pictures with labels of the whole picture, and masks that only measuring looks at."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import UInt8

from ..io.problems import some
from .class_maps import NUMBERS, UNKNOWN
from .coco_masks import Entry, masks_of
from .decode import USUAL, Reading, read_header, read_picture
from .segmentation import IGNORED, read_labels

Unlabelled = Literal["refuse", "skip", "keep"]
Picture = UInt8[np.ndarray, "height width 3"]
Mask = UInt8[np.ndarray, "height width"]

MOST_CLASSES = IGNORED - 1
"""A mask has a byte a pixel: 0 is background, 255 does not count."""
CHECKED = 2000
"""Pairs whose sizes are compared when a set is opened."""


@dataclass(frozen=True)
class Item:
    """One picture: what training may know of it, and where the truth lies for measuring."""

    name: str
    image: Path
    labels: tuple[int, ...]
    """Classes that are in the picture, from 0 on and rising; background is none."""
    mask: Path | None = None
    """Label map, or the file of outlines from which one is drawn."""
    table: tuple[int, ...] = field(default=(), repr=False)
    """Class of each number 0-255 that the label map stores: 0 is background, class c is c + 1, 255
    does not count, -1 must not be there."""
    outlines: Entry | None = field(default=None, repr=False, compare=False)
    """Objects whose `category_id` is class + 1, to draw the mask from."""
    ignore_exif: bool = False
    """Read the picture as it is stored."""
    held: tuple[Picture, Mask] | None = field(default=None, repr=False, compare=False)
    """Picture and mask in memory, of a set without files."""

    @property
    def has_mask(self) -> bool:
        """True if the picture can be measured."""
        return self.mask is not None or self.held is not None


@dataclass(frozen=True)
class MultiLabelSet:
    """One split of a set of pictures with image-level labels."""

    name: str
    kind: Literal["real", "generated"]
    classes: tuple[str, ...]
    """Names without background; class c is c + 1 in a mask."""
    items: tuple[Item, ...]
    labels_from: str
    """Origin of the labels, in words for reports."""

    def __len__(self) -> int:
        return len(self.items)

    @property
    def positives(self) -> tuple[int, ...]:
        """Number of pictures of each class."""
        counts = [0] * len(self.classes)
        for item in self.items:
            for label in item.labels:
                counts[label] += 1
        return tuple(counts)

    @property
    def has_masks(self) -> bool:
        """True if any picture can be measured."""
        return any(item.has_mask for item in self.items)


# --- reading -------------------------------------------------------------------------------------


def read_image(item: Item) -> Picture:
    """The picture in RGB: upright, or as it is stored if only that fits its mask.

    Raises ValueError if it cannot be read, or has another size than its mask.
    """
    if item.held is not None:
        return item.held[0].copy()
    picture, size = read_picture(item.image, item.ignore_exif), _mask_size(item)
    if size and picture.shape[:2] != size and picture.shape[1::-1] == size:
        picture = read_picture(item.image, not item.ignore_exif)
    if size and picture.shape[:2] != size:
        raise ValueError(_mismatch(item, size, (picture.shape[0], picture.shape[1])))
    return picture


def read_mask(item: Item) -> Mask | None:
    """The truth: 0 background, class + 1, 255 does not count; None if the picture has no mask.

    Raises ValueError, which names file and pixel, for a number that stands for no class.
    """
    if item.held is not None:
        return item.held[1].copy()
    if item.outlines is not None:
        return draw(item.outlines)
    if item.mask is None:
        return None
    stored = read_labels(item.mask)
    if not item.table:
        return stored
    places = np.array(item.table, dtype=np.int16)[stored]
    wrong = np.argwhere(places == UNKNOWN)
    if len(wrong):
        row, column = wrong[0]
        known = [number for number, place in enumerate(item.table) if place != UNKNOWN]
        raise ValueError(
            f"mask {item.mask} holds {stored[row, column]} at row {row}, column {column}; the "
            f"numbers that stand for classes are {some(known, 12)}. Remap it, or list more classes."
        )
    return places.astype(np.uint8)


def draw(entry: Entry) -> Mask:
    """The mask of a picture's outlines: small objects over large ones, crowds do not count."""
    found = np.zeros((entry.height, entry.width), dtype=np.uint8)
    areas = []
    for item in entry.objects:
        inside = masks_of([item], entry)[0]
        areas.append((item["iscrowd"] != 1, -int(inside.sum()), item["category_id"], inside))
    for is_object, _, number, inside in sorted(areas, key=lambda one: one[:3]):
        found[inside] = number if is_object else IGNORED
    return found


def plain_table(num_classes: int, ignored: Sequence[int] = ()) -> tuple[int, ...]:
    """The table of label maps that store 0, class + 1, and 255 or `ignored`."""
    found = [*range(num_classes + 1), *[UNKNOWN] * (NUMBERS - num_classes - 1)]
    for number in (*ignored, IGNORED):
        found[number] = IGNORED
    return tuple(found)


def _mask_size(item: Item) -> tuple[int, int] | None:
    """Height and width of an item's mask."""
    if item.outlines is not None:
        return item.outlines.height, item.outlines.width
    if item.mask is None:
        return None
    height, width, _ = read_header(item.mask)
    return height, width


def _mismatch(item: Item, mask: tuple[int, int], picture: tuple[int, int]) -> str:
    return (
        f"{item.mask} has a mask of {mask[1]} x {mask[0]} pixels, its picture {item.image} "
        f"{picture[1]} x {picture[0]}. Resize one (masks without interpolation), or set "
        "data.skip_broken."
    )


# --- what is wrong, said before training ---------------------------------------------------------


def checked(
    found: MultiLabelSet, split: str, reading: Reading = USUAL, unlabelled: Unlabelled = "refuse"
) -> MultiLabelSet:
    """The set after a look at it, without what is to be left out.

    Named are pictures without labels (for training: `unlabelled` skips them, or keeps them as
    pictures of background alone), damaged headers and masks of another size (left out with
    `reading.skip_broken`), and, as a warning, classes that no picture of training has.
    """
    if len(found.classes) > MOST_CLASSES:
        raise ValueError(
            f"{found.name} has {len(found.classes)} classes ({some(found.classes)}), more than "
            f"{MOST_CLASSES}. Are these labels?"
        )
    found = _with_sound(found, reading)
    bare = [item.name for item in found.items if not item.labels]
    if split == "train" and bare and unlabelled != "keep":
        text = f"{found.name}: {len(bare)} of {len(found)} pictures have no label ({some(bare)})"
        if unlabelled == "refuse":
            raise ValueError(
                f"{text}. Label them, or set data.unlabelled: skip leaves them out, keep takes "
                "them as pictures of background alone."
            )
        warnings.warn(f"{text}: left out", stacklevel=3)
        found = replace(found, items=tuple(item for item in found.items if item.labels))
    if not found.items:
        raise ValueError(f"{found.name}: split {split!r} holds no picture")
    never = [name for name, count in zip(found.classes, found.positives, strict=True) if not count]
    if split == "train" and len(never) == len(found.classes):
        raise ValueError(f"{found.name}: no picture has a label. Label some.")
    if split == "train" and never:
        warnings.warn(
            f"{found.name}: {len(never)} of {len(found.classes)} classes are in no picture of "
            f"training and cannot be learned: {some(never)}",
            stacklevel=3,
        )
    return found


def check_seen(train: MultiLabelSet, other: MultiLabelSet, split: str) -> None:
    """ValueError if a split has other classes than training, or labels that it never sees."""
    if other.classes != train.classes:
        raise ValueError(
            f"{other.name}: the classes of split {split!r} are {some(other.classes)}, those of "
            f"training {some(train.classes)}. List the same ones in the same order."
        )
    never = [count == 0 for count in train.positives]
    lost = [i for i, count in enumerate(other.positives) if count and never[i]]
    if lost:
        label = lost[0]
        names = [item.name for item in other.items if label in item.labels]
        raise ValueError(
            f"{other.name}: {some([other.classes[i] for i in lost])} is a label of split {split!r} "
            f"({some(names)}), but never seen in training. Move pictures of it to training, or "
            "remove the label."
        )


def _with_sound(found: MultiLabelSet, reading: Reading) -> MultiLabelSet:
    """The set without items whose headers do not fit; up to CHECKED are read, or all to skip."""
    step = 1 if reading.skip_broken else max(1, len(found) // CHECKED)
    broken: dict[int, str] = {}
    unsure: list[str] = []
    for row in range(0, len(found), step):
        try:
            if _is_unsure(found.items[row]):
                unsure.append(found.items[row].name)
        except (ValueError, OSError) as error:
            if not reading.skip_broken:
                raise
            broken[row] = str(error)
    if unsure and not reading.ignore_exif:
        warnings.warn(
            f"{found.name}: {len(unsure)} pictures have EXIF notes that turn them, and are read "
            "upright; if their masks are of the pictures as stored, set data.ignore_exif "
            f"({some(unsure)})",
            stacklevel=4,
        )
    if broken:
        warnings.warn(
            f"{found.name}: {len(broken)} pictures left out: {some(list(broken.values()))}",
            stacklevel=4,
        )
    return replace(found, items=tuple(i for r, i in enumerate(found.items) if r not in broken))


def _is_unsure(item: Item) -> bool:
    """Compare the sizes of picture and mask; return True if they do not tell which way is up."""
    if item.held is not None:
        return False
    height, width, turn = read_header(item.image)
    size = _mask_size(item)
    stored, upright = (height, width), (width, height) if turn > 4 else (height, width)
    if size and size not in (stored, upright):
        raise ValueError(_mismatch(item, size, upright))
    return turn > 1 and size is not None and stored == upright
