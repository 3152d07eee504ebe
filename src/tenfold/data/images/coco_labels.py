"""COCO 2014 and 2017 with image-level labels, and masks as PNG or drawn from the outlines.

COCO numbers its 80 classes up to 90. Label maps made of it hold 1 to 80 in the order of these
numbers, or the numbers themselves: which of the two is found out, and a mixture refused.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..io.problems import some
from .class_maps import NUMBERS, UNKNOWN
from .coco import open_coco
from .coco_files import Files, find_split
from .decode import ENDINGS, Reading
from .folders import visible
from .image_labels import Item, MultiLabelSet, plain_table
from .segmentation import IGNORED, read_labels

SPLITS = ("train", "val")
LOOKED_AT = 200
"""Label maps that are read to find out how they are numbered."""
PLACES = (
    "SegmentationClass", "SegmentationClass/{split}{year}", "masks", "masks/{split}{year}",
    "coco_seg_anno", "mask/{split}{year}", "voc_format/class_labels", "annotations/masks",
)  # fmt: skip
"""Folders of label maps."""

Numbers = dict[int, int]
"""COCO's number of a class -> its place, from 1 on."""


def open_coco_labels(folder: Path, split: str, reading: Reading, year: str) -> MultiLabelSet:
    """Open a split of a year ("2014"), or of what else the folder has.

    Labels are the classes of a picture's objects, crowds too. Pictures without an object are left
    out of training. Masks are those of a folder of PNG, else drawn from the outlines when asked
    for: small objects over large ones, crowds do not count.

    Raises:
        ValueError: Something does not fit, or label maps mix COCO's numbers with 1 to 80.
        FileNotFoundError: The annotations or pictures are not there.
    """
    if split not in SPLITS:
        raise ValueError(f"COCO has no split {split!r} with labels; it has {', '.join(SPLITS)}")
    files = find_year(folder, split, year)
    scenes = open_coco(*files, reading)
    place = {number: row + 1 for row, number in enumerate(scenes.category_ids)}
    items = []
    for entry in scenes.entries:
        for one in entry.objects:
            one["category_id"] = place[one["category_id"]]
        labels = tuple(sorted({one["category_id"] - 1 for one in entry.objects}))
        if labels or split != "train":
            items.append(
                Item(
                    entry.file.stem, entry.file, labels, files[0], outlines=entry,
                    ignore_exif=reading.ignore_exif,
                )
            )  # fmt: skip
    left = len(scenes) - len(items)
    if left:
        warnings.warn(
            f"{files[0]}: {left} pictures have no object, and are left out of training",
            stacklevel=3,
        )
    pngs = _masks(folder, split, year)
    if pngs:
        items = _with_masks(items, pngs, place)
    how = f"classes of the objects in {files[0].name}, crowds too"
    return MultiLabelSet(f"coco{year}", "real", scenes.classes, tuple(items), how)


def find_year(folder: Path, split: str, year: str) -> Files:
    """(annotation file, folder of pictures) of a year, or of what else the folder has."""
    published = folder / "annotations" / f"instances_{split}{year}.json"
    if published.is_file():
        return published, folder / f"{split}{year}"
    return find_split(folder, split)


def _masks(folder: Path, split: str, year: str) -> dict[str, Path]:
    """Label maps by the stem of their picture's name; none if there is no folder of them."""
    for form in PLACES:
        place = folder / form.format(split=split, year=year)
        if place.is_dir():
            found = {f.stem: f for f in visible(place, folder) if f.suffix.lower() in ENDINGS}
            if found:
                return found
    return {}


def _with_masks(items: Sequence[Item], pngs: Mapping[str, Path], place: Numbers) -> list[Item]:
    """The items with their label maps; those that have none keep their outlines."""
    paired = {item.name: pngs[item.name] for item in items if item.name in pngs}
    table = _table([item for item in items if item.name in paired], paired, place)
    return [
        replace(item, mask=paired[item.name], table=table, outlines=None)
        if item.name in paired
        else item
        for item in items
    ]


def _table(items: Sequence[Item], pngs: Mapping[str, Path], place: Numbers) -> tuple[int, ...]:
    """What the numbers of label maps mean, found out by the labels of the pictures.

    Numbers above 80, and those that belong to no class of COCO (12, 26, 29, ...), tell; so do
    classes of a map that its picture does not have.
    """
    count = len(place)
    in_order = np.array(plain_table(count))
    by_number = np.full(NUMBERS, UNKNOWN)
    by_number[[0, IGNORED]] = 0, IGNORED
    for number, row in place.items():
        if 0 < number < IGNORED:
            by_number[number] = row
    against: dict[str, list[str]] = {"1 to 80 in order": [], "COCO's numbers up to 90": []}
    step = max(1, len(items) // LOOKED_AT)
    for item in items[::step]:
        stored = np.unique(read_labels(pngs[item.name]))
        labels = {label + 1 for label in item.labels}
        for name, table in zip(against, (in_order, by_number), strict=True):
            found = set(table[stored].tolist()) - {0, IGNORED}
            if not found <= labels:
                number = next(int(n) for n in stored if table[n] in found - labels)
                against[name].append(f"{pngs[item.name].name} holds {number}")
    fits = [name for name, wrong in against.items() if not wrong]
    if not fits:
        words = "; ".join(f"against {name}: {some(w, 3)}" for name, w in against.items())
        raise ValueError(
            f"label maps beside {pngs[items[0].name]} are numbered neither as 1 to {count} nor by "
            f"COCO's numbers up to 90, or both are mixed ({words}). Make all of them in one way."
        )
    return tuple((in_order if fits[0] == "1 to 80 in order" else by_number).tolist())
