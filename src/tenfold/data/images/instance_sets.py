"""Sets whose pictures have objects: of COCO's form, of label maps, photos without objects."""

from __future__ import annotations

import struct
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64
from PIL import Image

from tenfold.files import misfit

from ..io.problems import BROKEN, some
from . import coco_files
from .coco import SceneSet, open_coco
from .coco_masks import Entry, Item, crop_of_item, is_number
from .crops import Crop, crop_of
from .decode import ENDINGS, FORMATS, MAX_PIXELS, USUAL, Reading, read_header
from .folders import photos_below, visible
from .instances import Objects, ObjectSet, Shape, cut
from .own import kinds_of, open_objects
from .points import points_of
from .segmentation import read_labels, read_names

SETS = ("clothing_parsing", "car_parts", "nuclei_dsb2018", "coco_tiny", "coco2017", "folder")
LEAST_PIXELS = 150
"""A tag region of clothing_parsing that has fewer is no object."""


def open_instances(
    name: str, folder: Path, split: str, reading: Reading = USUAL, test_share: float = 0.2,
    seed: int = 0,
) -> ObjectSet:  # fmt: skip
    """Open a split ("train", "val", "test") of one of SETS.

    "folder" is a set of the user's own: JSON of COCO's form, with points or without, YOLO's text
    files, or photos without objects. car_parts and coco_tiny have two splits: "val" and "test" are
    the same.

    Raises:
        ValueError: Something does not fit; the error names file, object, limit and way out. With
            `reading.skip_broken` it is left out and noted.
        FileNotFoundError: The set, or a picture of it, is not there.
    """
    if name not in SETS:
        raise ValueError(f"no set of objects is called {name!r}; there are {', '.join(SETS)}")
    if split not in ("train", "val", "test"):
        raise ValueError(f"{name} has no split {split!r}; it has train, val and test")
    if name == "clothing_parsing":
        return _clothing(folder, split, reading)
    if name == "nuclei_dsb2018":
        return _nuclei(folder, split, reading)
    if name == "folder":
        if not kinds_of(folder, reading).count("objects"):
            return open_photos(folder, reading)
        return of_scenes(open_objects(folder, split, test_share, seed, reading), folder)
    try:
        files = coco_files.find_split(folder, split)
    except FileNotFoundError:
        if split == "train":
            raise
        files = coco_files.find_split(folder, "test" if split == "val" else "val")
    return open_boxes(*files, reading)


def open_boxes(annotations: Path, images: Path, reading: Reading = USUAL) -> ObjectSet:
    """Open a file of COCO's form, with masks, points, or boxes alone, and its folder of pictures.

    Boxes that leave the picture are cut at its borders; empty ones, and those outside of it, are
    left out. Both are named in a warning, and in the set's notes.
    """
    return of_scenes(open_coco(annotations, images, reading), images)


def open_photos(folder: Path, reading: Reading = USUAL, classes: tuple[str, ...] = ()) -> ObjectSet:
    """Photos of a folder and of those in it, without objects."""
    pictures: list[Objects] = []
    notes: list[str] = []
    for number, file in enumerate(photos_below(folder, reading.follow_links), 1):
        try:
            height, width, turn = read_header(file)
        except (ValueError, OSError) as error:
            if not reading.skip_broken:
                raise
            notes.append(str(error))
            continue
        if turn > 4 and not reading.ignore_exif:
            height, width = width, height
        pictures.append(Objects(file, _name(file, folder), number, height, width))
    if not pictures:
        raise ValueError(f"{folder}: no picture can be read: {some(notes)}")
    ids = tuple(range(1, len(classes) + 1))
    return _noted(ObjectSet(classes, ids, tuple(pictures), reading), str(folder), notes)


# --- COCO's form ---------------------------------------------------------------------------------


def of_scenes(scenes: SceneSet, folder: Path) -> ObjectSet:
    """The objects of a set of scenes whose pictures lie below `folder`."""
    label = {number: i for i, number in enumerate(scenes.category_ids)}
    notes: list[str] = []
    pictures = []
    for entry in scenes.entries:
        shapes = []
        for item in entry.objects:
            try:
                shapes.append(_shape(item, entry, label, notes))
            except ValueError as error:
                if not scenes.reading.skip_broken:
                    raise
                notes.append(f"left out: {error}")
        pictures.append(
            Objects(
                entry.file, _name(entry.file, folder), entry.image_id, entry.height, entry.width,
                tuple(shapes),
            )
        )  # fmt: skip
    found = ObjectSet(scenes.classes, scenes.category_ids, tuple(pictures), scenes.reading)
    found = _noted(found, str(scenes.file), notes)
    return replace(found, notes=(*scenes.notes, *found.notes))


def _shape(item: Item, entry: Entry, label: dict[int, int], notes: list[str]) -> Shape:
    x, y, wide, tall = item["bbox"]
    box = cut((x, y, x + wide, y + tall), entry.height, entry.width)
    where = f"annotation {item['id']} of {entry.file}"
    beyond = max(abs(a - b) for a, b in zip(box, (x, y, x + wide, y + tall), strict=True))
    if beyond > 1:  # tools round: a pixel is no news
        notes.append(f"{where} has a box that leaves the picture by {beyond:.0f} pixels: cut")
    area: Any = item.get("area")
    return Shape(
        id=item["id"],
        label=label[item["category_id"]],
        box=box,
        mask=crop_of_item(item, entry),
        points=points_of(item, entry),
        is_crowd=item["iscrowd"] == 1,
        area=float(area) if is_number(area) and area > 0 else float(wide * tall),
    )


# --- sets of label maps --------------------------------------------------------------------------


def regions(
    numbers: Int64[np.ndarray, "height width"], least: int = 0
) -> list[tuple[int, Crop, int]]:
    """Number, mask and pixels of each region above 0 of a map with `least` pixels or more."""
    from scipy.ndimage import find_objects

    counts = np.bincount(numbers.ravel())
    found = []
    for number, place in enumerate(find_objects(numbers), 1):
        if place is not None and counts[number] >= least:
            rows, columns = place
            mask = crop_of(numbers[place] == number, columns.start, rows.start)
            found.append((number, mask, int(counts[number])))
    return found


def _clothing(folder: Path, split: str, reading: Reading) -> ObjectSet:
    """Regions of a tag, of which each is one object; every tenth picture is test, and val."""
    file = folder / "labels.json"
    content = read_names(file, "names the tags")
    problem = misfit(content, {"labels": [str]}, "")
    tags = [] if problem else content.get("labels", [])
    if problem or not tags:
        raise ValueError(f"{file}: {problem or 'it lists no labels'}. Copy the set again.")
    wanted = {"test": (0,), "val": (1,), "train": tuple(range(2, 10))}[split]
    pictures = []
    for row, image in enumerate(_images(folder, reading)):
        if row % 10 in wanted:
            numbers = read_labels(folder / "labels" / f"{image.stem}.png")
            if numbers.max() >= len(tags):
                raise ValueError(
                    f"{folder}/labels/{image.stem}.png holds label {numbers.max()}, but {file} "
                    f"lists {len(tags)}. Copy the set again."
                )
            shapes = [
                Shape(100 * row + number, number - 1, mask.box, mask, area=float(area))
                for number, mask, area in regions(numbers.astype(np.int64), LEAST_PIXELS)
            ]
            height, width = numbers.shape
            name = _name(image, folder)
            pictures.append(Objects(image, name, row + 1, height, width, tuple(shapes)))
    classes = tuple(tags[1:])
    return ObjectSet(classes, tuple(range(1, len(tags))), tuple(pictures), reading)


def _nuclei(folder: Path, split: str, reading: Reading) -> ObjectSet:
    """16-bit maps that number the nuclei of a picture from 1; index.json has the splits."""
    file = folder / "index.json"
    index = read_names(file, "lists the pictures and their splits")
    if problem := misfit(index, [{"name": str, "split": str}], ""):
        raise ValueError(f"{file}: {problem}. Copy the set again.")
    pictures = []
    files = {image.stem: image for image in _images(folder, reading)}
    for row, item in enumerate(index):
        if item["split"] != split:
            continue
        if item["name"] not in files:
            raise FileNotFoundError(f"{folder}/images has no picture {item['name']}, as {file} has")
        image = files[item["name"]]
        numbers = _numbers(folder / "masks" / f"{image.stem}.png")
        shapes = [
            Shape(100_000 * row + number, 0, mask.box, mask, area=float(area))
            for number, mask, area in regions(numbers)
        ]
        height, width = numbers.shape
        pictures.append(Objects(image, _name(image, folder), row + 1, height, width, tuple(shapes)))
    if not pictures:
        raise ValueError(f"{file} lists no picture of the split {split}. Copy the set again.")
    return ObjectSet(("nucleus",), (1,), tuple(pictures), reading)


def _numbers(file: Path) -> Int64[np.ndarray, "height width"]:
    """A map of whole numbers up to 65535."""
    height, width, _ = read_header(file)
    if height * width > MAX_PIXELS:
        raise ValueError(f"{file} has {width} x {height} pixels, more than {MAX_PIXELS}")
    try:
        with Image.open(file, formats=FORMATS) as image:
            found = np.asarray(image).astype(np.int64)
    except (*BROKEN, struct.error, TypeError, IndexError, ArithmeticError, MemoryError) as error:
        raise ValueError(f"{file} cannot be read: {error}. Copy the set again.") from error
    if found.ndim != 2 or found.min() < 0 or found.max() > 65535:
        raise ValueError(f"{file} is no map of one whole number a pixel up to 65535")
    return found


def _images(folder: Path, reading: Reading) -> list[Path]:
    place = folder / "images"
    if not place.is_dir():
        raise FileNotFoundError(f"{place} is not there. Give the folder that holds the set.")
    return [
        file
        for file in visible(place, folder, reading.follow_links)
        if file.suffix.lower() in ENDINGS
    ]


def _name(file: Path, folder: Path) -> str:
    return file.relative_to(folder).as_posix() if folder in file.parents else file.name


def _noted(found: ObjectSet, where: str, notes: list[str]) -> ObjectSet:
    if notes:
        warnings.warn(f"{where}: {len(notes)} notes: {some(notes)}", stacklevel=4)
    return replace(found, notes=tuple(notes))
