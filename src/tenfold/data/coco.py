"""COCO's instance files: pictures with boxes and masks of objects, decoded when asked for."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int64, UInt8

from .pictures import MAX_PIXELS, inside_of, read_picture

MOST_BYTES = 2 * 2**30
"""Largest annotation file that is read (COCO's training file has 450 MB)."""
MOST_OBJECTS = 2000
"""Objects of one picture: their masks are held as an array."""


@dataclass(frozen=True)
class Scene:
    """A picture and its objects."""

    picture: UInt8[np.ndarray, "height width 3"]
    boxes: Float[np.ndarray, "object 4"]
    """x0 y0 x1 y1 in pixels."""
    labels: Int64[np.ndarray, " object"]
    masks: Bool[np.ndarray, "object height width"] | None
    ignored: Float[np.ndarray, "region 4"]
    """Boxes of crowds: not to be found, and not wrong if found."""
    ignored_labels: Int64[np.ndarray, " region"]
    ignored_masks: Bool[np.ndarray, "region height width"] | None


@dataclass(frozen=True)
class Entry:
    """One picture of an annotation file."""

    file: Path
    height: int
    width: int
    image_id: int
    objects: list[dict[str, Any]]


@dataclass(frozen=True)
class Instances:
    """A set of scenes."""

    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    has_masks: bool
    entries: tuple[Entry, ...] = ()
    held: tuple[Scene, ...] = field(default=(), repr=False)
    """Scenes in memory, of a set without files."""

    def __len__(self) -> int:
        return len(self.entries) or len(self.held)

    @property
    def files(self) -> list[tuple[Path]]:
        """The pictures' files."""
        return [(entry.file,) for entry in self.entries]

    def at(self, rows: Sequence[int]) -> Instances:
        """The scenes of these rows."""
        entries = tuple(self.entries[i] for i in rows) if self.entries else ()
        held = tuple(self.held[i] for i in rows) if self.held else ()
        return Instances(self.classes, self.category_ids, self.has_masks, entries, held)

    def scene(self, index: int) -> Scene:
        """Decode a picture and the masks of its objects."""
        if self.held:
            return self.held[index]
        entry = self.entries[index]
        picture = read_picture(entry.file)
        if picture.shape[:2] != (entry.height, entry.width):
            raise ValueError(
                f"{entry.file} has {picture.shape[1]} x {picture.shape[0]} pixels, its annotation "
                f"says {entry.width} x {entry.height}. Use the pictures that the file was made for."
            )
        label = {number: i for i, number in enumerate(self.category_ids)}
        parts = []
        for crowd in (0, 1):
            some = [o for o in entry.objects if o.get("iscrowd", 0) == crowd]
            boxes = np.array([_corners(o["bbox"], entry) for o in some], dtype=np.float32)
            labels = np.array([label[o["category_id"]] for o in some], dtype=np.int64)
            masks = _masks(some, entry) if self.has_masks else None
            parts.append((boxes.reshape(-1, 4), labels, masks))
        (boxes, labels, masks), (ignored, ignored_labels, ignored_masks) = parts
        return Scene(picture, boxes, labels, masks, ignored, ignored_labels, ignored_masks)


def of_arrays(
    classes: tuple[str, ...],
    rows: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]],
) -> Instances:
    """A set in memory, of (picture, boxes, labels, masks)."""
    none = np.zeros((0, 4), dtype=np.float32)
    nothing = np.zeros(0, dtype=np.int64)
    held = tuple(
        Scene(picture, boxes, labels, masks, none, nothing, masks[:0])
        for picture, boxes, labels, masks in rows
    )
    return Instances(classes, tuple(range(len(classes))), True, (), held)


def find_split(folder: Path, split: str) -> tuple[Path, Path]:
    """(annotation file, folder of pictures) of a split, in the compact or the original layout."""
    compact = folder / f"instances_{split}.json"
    if compact.exists():
        return compact, folder / "images"
    original = folder / "annotations" / f"instances_{split}2017.json"
    if original.exists():
        return original, folder / f"{split}2017"
    raise FileNotFoundError(
        f"{folder} holds neither {compact.name} (with images/) nor annotations/{original.name} "
        f"(with {split}2017/). Give the folder that holds one of them."
    )


def open_coco(annotations: Path, images: Path) -> Instances:
    """Open an instance file; whatever does not fit is a ValueError that names it."""
    content = _content(annotations)
    categories = _listed(content, "categories", annotations)
    for item in categories:
        if not isinstance(item.get("id"), int) or not isinstance(item.get("name"), str):
            raise ValueError(f"{annotations}: category {item} needs a whole id and a name")
    categories = sorted(categories, key=lambda item: item["id"])
    ids = tuple(item["id"] for item in categories)
    if not ids or len(set(ids)) < len(ids):
        raise ValueError(f"{annotations}: category ids {ids[:5]} are missing or not unique")
    objects = _objects(content, set(ids), annotations)
    entries = [
        _entry(item, objects, annotations, images)
        for item in _listed(content, "images", annotations)
    ]
    if not entries:
        raise ValueError(f"{annotations} lists no image")
    known = {entry.image_id for entry in entries}
    if len(known) < len(entries):
        raise ValueError(f"{annotations} has two images of one id")
    lost = sorted(set(objects) - known)
    if lost:
        raise ValueError(f"{annotations}: annotations are of image {lost[0]}, which is not listed")
    every = [o for some in objects.values() for o in some]
    has_masks = bool(every) and all(o.get("segmentation") for o in every)
    names = tuple(item["name"] for item in categories)
    return Instances(names, ids, has_masks, tuple(entries))


def _content(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise FileNotFoundError(f"{file} is not there. Give COCO's instance file.")
    size = file.stat().st_size
    if size > MOST_BYTES:
        raise ValueError(f"{file} has {size} bytes, more than {MOST_BYTES}.")
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{file} holds a {type(found).__name__}, not an object of COCO's form")
    return found


def _listed(content: dict[str, Any], key: str, file: Path) -> list[dict[str, Any]]:
    found = content.get(key)
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise ValueError(f"{file} has no list of {key}; it is not of COCO's instance form")
    return found


def _objects(content: dict[str, Any], ids: set[int], file: Path) -> dict[int, list[dict[str, Any]]]:
    """Annotations by image; degenerate boxes are left out with one warning."""
    found: dict[int, list[dict[str, Any]]] = {}
    empty = 0
    for item in _listed(content, "annotations", file):
        where = f"{file}: annotation {item.get('id')}"
        if item.get("category_id") not in ids:
            known = f"{min(ids)}..{max(ids)} ({len(ids)} of them)"
            raise ValueError(
                f"{where} has category {item.get('category_id')}, the file's categories are {known}"
            )
        box = item.get("bbox")
        if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
            raise ValueError(f"{where} has bbox {box}, expected x, y, width, height")
        if not isinstance(item.get("image_id"), int):
            raise ValueError(
                f"{where} has image_id {item.get('image_id')}, expected a whole number"
            )
        if item.get("iscrowd", 0) not in (0, 1):
            raise ValueError(f"{where} has iscrowd {item['iscrowd']}, expected 0 or 1")
        if box[2] <= 0 or box[3] <= 0:
            empty += 1
            continue
        found.setdefault(item["image_id"], []).append(item)
    if empty:
        warnings.warn(f"{file}: {empty} boxes without area left out", stacklevel=3)
    return found


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _entry(
    item: dict[str, Any], objects: dict[int, list[dict[str, Any]]], file: Path, images: Path
) -> Entry:
    name, number = item.get("file_name"), item.get("id")
    if not isinstance(name, str) or not isinstance(number, int):
        raise ValueError(f"{file}: image {number} needs a whole id and a file_name")
    height, width = item.get("height"), item.get("width")
    if not isinstance(height, int) or not isinstance(width, int) or min(height, width) < 1:
        raise ValueError(f"{file}: image {number} has size {width} x {height}")
    if height * width > MAX_PIXELS:
        raise ValueError(
            f"{file}: image {number} has {width} x {height} pixels, more than {MAX_PIXELS}"
        )
    path = inside_of(images, images / name)
    if not path.is_file():
        raise FileNotFoundError(f"{path}, image {number} of {file}, is not there.")
    own = objects.get(number, [])
    if len(own) > MOST_OBJECTS:
        raise ValueError(f"{file}: image {number} has {len(own)} objects, more than {MOST_OBJECTS}")
    return Entry(path, height, width, number, own)


def _corners(box: list[int | float], entry: Entry) -> list[int | float]:
    """x0 y0 x1 y1 of x, y, width, height, cut at the picture's borders."""
    x, y, wide, tall = box
    return [
        min(max(x, 0), entry.width), min(max(y, 0), entry.height),
        min(max(x + wide, 0), entry.width), min(max(y + tall, 0), entry.height),
    ]  # fmt: skip


def _masks(objects: list[dict[str, Any]], entry: Entry) -> Bool[np.ndarray, "object height width"]:
    """Masks of polygons or run-length codes."""
    from pycocotools import mask

    found = np.zeros((len(objects), entry.height, entry.width), dtype=bool)
    for row, item in enumerate(objects):
        shape, where = item["segmentation"], f"{entry.file}: annotation {item.get('id')}"
        try:
            if isinstance(shape, list):
                polygons = [p for p in shape if len(p) >= 6 and len(p) % 2 == 0]
                if not polygons or not all(map(_is_number, (v for p in polygons for v in p))):
                    raise ValueError("its polygons have fewer than 3 corners, or no numbers")
                code = mask.merge(mask.frPyObjects(polygons, entry.height, entry.width))
            else:
                if list(shape["size"]) != [entry.height, entry.width]:
                    raise ValueError(f"its run-length code is of size {shape['size']}")
                code = shape
                if isinstance(shape["counts"], list):
                    code = mask.frPyObjects(shape, entry.height, entry.width)
            found[row] = mask.decode(code)
        except (ValueError, TypeError, KeyError, MemoryError) as error:
            raise ValueError(f"{where} has a segmentation that cannot be read: {error}") from error
    return found
