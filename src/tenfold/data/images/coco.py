"""COCO's instance files: pictures with boxes and masks of objects, decoded when asked for."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Bool, Int64, UInt8

from tenfold.structures import Instances

from ..io.problems import some
from .decode import MAX_BYTES, MAX_PIXELS, inside_of, read_picture

T = TypeVar("T")
Item = dict[str, Any]

MOST_BYTES = 2 * 2**30
"""Largest annotation file that is read (COCO's training file has 450 MB)."""
MOST_OBJECTS = 2000
"""Objects of one picture: their masks are held as an array."""
FAR = 1e6
"""Pixels: a coordinate beyond is a mistake."""
LONG_OUTLINE = 100
"""Times height plus width; COCO's outlines reach 3. pycocotools holds every step along it."""


@dataclass(frozen=True)
class Scene:
    """A picture and its objects, crowds last."""

    picture: UInt8[np.ndarray, "height width 3"]
    objects: Instances
    """Areas are as the file states them (COCO's small, medium and large)."""


@dataclass(frozen=True)
class Entry:
    """One picture of an annotation file."""

    file: Path
    height: int
    width: int
    image_id: int
    objects: list[Item]


@dataclass(frozen=True)
class SceneSet:
    """A set of scenes."""

    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    has_masks: bool
    entries: tuple[Entry, ...] = ()
    held: tuple[Scene, ...] = field(default=(), repr=False)
    """Scenes in memory, of a set without files."""
    file: Path = Path()
    """Of the annotations; `.` for a set in memory."""

    def __len__(self) -> int:
        return len(self.entries) or len(self.held)

    @property
    def files(self) -> list[tuple[Path]]:
        """The pictures' files."""
        return [(entry.file,) for entry in self.entries]

    def at(self, rows: Sequence[int]) -> SceneSet:
        """The scenes of these rows."""
        entries = tuple(self.entries[i] for i in rows) if self.entries else ()
        held = tuple(self.held[i] for i in rows) if self.held else ()
        return replace(self, entries=entries, held=held)

    def scene(self, index: int) -> Scene:
        """Decode a picture and the masks of its objects."""
        if self.held:
            return self.held[index]
        entry = self.entries[index]
        picture = read_picture(entry.file)
        if picture.shape[:2] != (entry.height, entry.width):
            raise ValueError(
                f"{entry.file} has {picture.shape[1]} x {picture.shape[0]} pixels, its annotation "
                f"says {entry.width} x {entry.height}. Use the pictures that {self.file} was made "
                "for, saved upright if an EXIF note turns them."
            )
        label = {number: i for i, number in enumerate(self.category_ids)}
        chosen = sorted(entry.objects, key=lambda o: o.get("iscrowd", 0))
        boxes = np.array([_corners(o["bbox"], entry) for o in chosen], dtype=np.float32)
        objects = Instances(
            boxes.reshape(-1, 4),
            np.array([label[o["category_id"]] for o in chosen], dtype=np.int64),
            masks=_masks(chosen, entry) if self.has_masks else None,
            areas=np.array([_area(o) for o in chosen], dtype=np.float32),
            crowd=np.array([o.get("iscrowd", 0) == 1 for o in chosen], dtype=bool),
        )
        return Scene(picture, objects)


def of_arrays(classes: tuple[str, ...], scenes: Sequence[tuple[np.ndarray, Instances]]) -> SceneSet:
    """A set in memory, of pictures and their objects, which have masks."""
    held = tuple(Scene(picture, objects) for picture, objects in scenes)
    return SceneSet(classes, tuple(range(len(classes))), True, (), held)


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


def open_coco(annotations: Path, images: Path, skip_broken: bool = False) -> SceneSet:
    """Open an instance file; whatever does not fit is a ValueError that names it.

    With `skip_broken`, pictures that are missing and annotations that do not fit are left out
    instead, with one warning. Pictures and masks are decoded, and refused, later.
    """
    content = _content(annotations)
    names, ids = _categories(content, annotations)
    broken: list[str] = []
    kept = partial(_kept, broken=broken if skip_broken else None)
    listed = _listed(content, "images", annotations)
    entries = {e.image_id: e for e in kept(partial(_entry, annotations, images), listed)}
    if not entries:
        raise ValueError(f"{annotations} lists no image" + (f": {some(broken)}" if broken else ""))
    lost = {item["id"] for item in listed if isinstance(item.get("id"), int)} - set(entries)
    every = _listed(content, "annotations", annotations)
    if lost:  # a picture that is left out takes its objects along
        every = [o for o in every if not isinstance(n := o.get("image_id"), int) or n not in lost]
    every = kept(partial(_object, annotations, entries, set(ids)), every)
    whole = [item for item in every if _has_area(item["bbox"], entries[item["image_id"]])]
    for item in whole:
        entries[item["image_id"]].objects.append(item)
    most = max(entries.values(), key=lambda entry: len(entry.objects))
    if (count := len(most.objects)) > MOST_OBJECTS:
        where = f"{annotations}: image {most.image_id}"
        raise ValueError(f"{where} has {count} objects, more than {MOST_OBJECTS}. Cut it.")
    shapes = [item.get("segmentation") for item in whole]
    bare = sum(not shape for shape in shapes)
    has_masks = bool(shapes) and not bare
    is_mixed = 0 < bare < len(shapes)
    short = sum(isinstance(s, list) and len(_polygons(s)) < len(s) for s in shapes)
    notes = {
        f"pictures and annotations left out: {some(broken)}": len(broken),
        "boxes without area left out, or without any in the picture": len(every) - len(whole),
        "objects have polygons of too few corners, of which only the others are read": short,
        "objects have no segmentation, so that the set is one of boxes only": bare * is_mixed,
    }
    for note, count in notes.items():
        if count:
            warnings.warn(f"{annotations}: {count} {note}", stacklevel=2)
    return SceneSet(names, ids, has_masks, tuple(entries.values()), file=annotations)


def _kept(check: Callable[[Item], T], items: list[Item], broken: list[str] | None) -> list[T]:
    """Apply `check` to the items; its errors are raised, or collected in `broken`."""
    found = []
    for item in items:
        try:
            found.append(check(item))
        except (ValueError, FileNotFoundError) as error:
            if broken is None:
                raise
            broken.append(str(error))
    return found


def _content(file: Path) -> Item:
    if not file.is_file():
        raise FileNotFoundError(f"{file} is not there. Give COCO's instance file.")
    size = file.stat().st_size
    if size > MOST_BYTES:
        raise ValueError(f"{file} has {size} bytes, more than {MOST_BYTES}. Split it.")
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{file} holds a {type(found).__name__}, not an object of COCO's form")
    return found


def _listed(content: Item, key: str, file: Path) -> list[Item]:
    found = content.get(key)
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise ValueError(f"{file} has no list of {key}; it is not of COCO's instance form")
    ids = [item["id"] for item in found if isinstance(item.get("id"), int)]
    if len(set(ids)) < len(ids):
        twice = [number for number, times in Counter(ids).items() if times > 1]
        raise ValueError(f"{file}: ids of {key} must be unique; there twice: {some(twice)}")
    return found


def _categories(content: Item, file: Path) -> tuple[tuple[str, ...], tuple[int, ...]]:
    found = _listed(content, "categories", file)
    for item in found:
        if not isinstance(item.get("id"), int) or not isinstance(item.get("name"), str):
            raise ValueError(f"{file}: category {item} needs a whole id and a name")
    if not found:
        raise ValueError(f"{file} lists no category")
    found = sorted(found, key=lambda item: item["id"])
    return tuple(item["name"] for item in found), tuple(item["id"] for item in found)


def _entry(file: Path, images: Path, item: Item) -> Entry:
    name, number = item.get("file_name"), item.get("id")
    if not isinstance(name, str) or not isinstance(number, int):
        raise ValueError(f"{file}: image {number} needs a whole id and a file_name")
    height, width = item.get("height"), item.get("width")
    where = f"{file}: image {number} has"
    if not isinstance(height, int) or not isinstance(width, int) or min(height, width) < 1:
        raise ValueError(f"{where} size {width} x {height}")
    if height * width > MAX_PIXELS:
        raise ValueError(f"{where} {width} x {height} pixels, more than {MAX_PIXELS}")
    try:
        if "\0" in name:
            raise OSError("it holds a zero byte")
        path = inside_of(images, images / name)
        is_there = path.is_file()
    except OSError as error:
        raise ValueError(f"{where} an impossible file_name, {name[:40]!r}") from error
    if not is_there:
        raise FileNotFoundError(f"{path}, image {number} of {file}, is not there.")
    return Entry(path, height, width, number, [])


def _object(file: Path, entries: dict[int, Entry], ids: set[int], item: Item) -> Item:
    """The annotation, if it fits."""
    where = f"{file}: annotation {item.get('id')}"
    if not isinstance(item.get("id"), int):
        raise ValueError(f"{where} needs a whole number as its id")
    category, image, box = (item.get(key) for key in ("category_id", "image_id", "bbox"))
    if not isinstance(category, int) or category not in ids:
        known = f"{min(ids)}..{max(ids)} ({len(ids)} of them)"
        raise ValueError(f"{where} has category {category}, the file's categories are {known}")
    if not isinstance(image, int):
        raise ValueError(f"{where} has image_id {image}, expected a whole number")
    if image not in entries:
        raise ValueError(f"{where} is of image {image}, which is not listed")
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
        raise ValueError(f"{where} has bbox {str(box)[:80]}, expected x, y, width, height")
    if item.get("iscrowd", 0) not in (0, 1):
        raise ValueError(f"{where} has iscrowd {item['iscrowd']}, expected 0 or 1")
    shape = item.get("segmentation") or []
    if isinstance(shape, dict):
        return item
    if not isinstance(shape, list) or not all(isinstance(part, list) for part in shape):
        raise ValueError(f"{where} has a segmentation that is no list of polygons and no code")
    if shape and not _polygons(shape):
        raise ValueError(f"{where} has no polygon of x, y of 3 corners or more")
    return item


def _polygons(shape: list[list[Any]]) -> list[list[Any]]:
    """Those with corners enough."""
    return [part for part in shape if len(part) >= 6 and len(part) % 2 == 0]


def _is_number(value: object, most: int | float = FAR) -> bool:
    return isinstance(value, int | float) and -most <= value <= most  # NaN is not


def _area(item: Item) -> float:
    area, (_, _, wide, tall) = item.get("area", 0), item["bbox"]
    return float(area if _is_number(area, MAX_PIXELS) and area > 0 else wide * tall)


def _has_area(box: list[int | float], entry: Entry) -> bool:
    x0, y0, x1, y1 = _corners(box, entry)
    return box[2] > 0 and box[3] > 0 and x1 > x0 and y1 > y0


def _corners(box: list[int | float], entry: Entry) -> list[int | float]:
    """x0 y0 x1 y1 of x, y, width, height, cut at the picture's borders."""
    x, y, wide, tall = box
    return [
        min(max(x, 0), entry.width), min(max(y, 0), entry.height),
        min(max(x + wide, 0), entry.width), min(max(y + tall, 0), entry.height),
    ]  # fmt: skip


def _masks(objects: list[Item], entry: Entry) -> Bool[np.ndarray, "object height width"]:
    """Masks of polygons or run-length codes."""
    need = len(objects) * entry.height * entry.width
    if need > MAX_BYTES:
        raise ValueError(
            f"{entry.file}: masks of {len(objects)} objects need {need / 2**30:.1f} GiB, more than "
            f"{MAX_BYTES / 2**30:.0f} GiB. Make the picture smaller, or cut it."
        )
    found = np.zeros((len(objects), entry.height, entry.width), dtype=bool)
    for row, item in enumerate(objects):
        shape = item["segmentation"]
        try:
            is_code = isinstance(shape, dict)
            found[row] = _painted(shape, entry) if is_code else _filled(_polygons(shape), entry)
        except (ValueError, OverflowError, TypeError, KeyError) as error:
            raise ValueError(
                f"{entry.file}: annotation {item.get('id')} has a segmentation that cannot be "
                f"read: {error}"
            ) from error
    return found


def _filled(polygons: list[list[Any]], entry: Entry) -> Bool[np.ndarray, "height width"]:
    from pycocotools import mask

    if not all(_is_number(value) for part in polygons for value in part):
        raise ValueError(f"its polygons hold what is no number from {-FAR:.0f} to {FAR:.0f}")
    # from the origin, so that an outline that is short but far away counts as well
    steps = [np.diff(np.reshape(p, (-1, 2)), axis=0, prepend=0.0) for p in polygons]
    length = max(float(np.abs(step).max(1).sum()) for step in steps)
    limit = LONG_OUTLINE * (entry.height + entry.width)
    if length > limit:
        raise ValueError(f"its outline is {length:.0f} pixels long, more than {limit}")
    code = mask.merge(mask.frPyObjects(polygons, entry.height, entry.width))
    return mask.decode([code])[..., 0].astype(bool)


def _painted(code: Item, entry: Entry) -> Bool[np.ndarray, "height width"]:
    """The mask of a run-length code: down the columns, first a run of zeros.

    Not by pycocotools: where the runs of a code end early, it leaves memory as it was.
    """
    if code["size"] != [entry.height, entry.width]:
        raise ValueError(f"its run-length code is of size {str(code['size'])[:40]}")
    counts, pixels = code["counts"], entry.height * entry.width
    runs = _unpacked(counts) if isinstance(counts, str) else np.array(counts)
    if runs.ndim != 1 or runs.dtype.kind != "i":
        raise ValueError("its runs are no list of whole numbers")
    if runs.min() < 0 or runs.max() > pixels or runs.sum() != pixels:
        raise ValueError(f"its runs do not add up to the {pixels} pixels of the picture")
    values = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return values.reshape(entry.width, entry.height).T


def _unpacked(text: str) -> Int64[np.ndarray, " run"]:
    """Runs of COCO's compressed code (pycocotools, rleToString).

    A number is characters of five bits from character 48 on, lowest first; bit 5 says that more
    follow, bit 4 of the last is the sign. From the fourth on they are differences to the run
    before the last.
    """
    bits = np.frombuffer(text.encode("utf-8"), dtype=np.uint8).astype(np.int64) - 48
    if not len(bits) or bits.min() < 0 or bits.max() > 63 or bits[-1] & 32:
        raise ValueError("its run-length code holds other characters, or ends too early")
    ends = np.flatnonzero(bits & 32 == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > 7:
        raise ValueError("its run-length code holds a number of more than 35 bits")
    places = 5 * (np.arange(len(bits)) - np.repeat(starts, lengths))
    runs = np.add.reduceat((bits & 31) << places, starts)
    runs -= (bits[ends] >> 4 & 1) << (5 * lengths)
    runs[1::2], runs[2::2] = runs[1::2].cumsum(), runs[2::2].cumsum()
    return runs
