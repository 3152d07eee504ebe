"""Pictures with boxes and masks of objects, decoded when asked for; COCO's instance files."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import UInt8

from tenfold.structures import Instances

from ..io.problems import some
from .class_maps import require_known
from .coco_files import located
from .coco_masks import Entry, Item, is_number, masks_of, polygons_of
from .decode import MAX_PIXELS, USUAL, Reading, damage, first_sound, read_header, read_picture
from .folders import inside_of

S = TypeVar("S")
T = TypeVar("T")

MOST_BYTES = 2 * 2**30
"""Largest annotation file that is read (COCO's training file has 450 MB)."""
MOST_OBJECTS = 2000
"""Objects of one picture: their masks are held as an array."""
CHECKED = 2000
"""Pictures whose headers are looked at when a set is opened."""
WHOLE = ("id", "image_id", "category_id", "height", "width", "iscrowd")
"""Fields of whole numbers, which some tools write as 1.0 or "1"."""
MOST_DIGITS = 18


@dataclass(frozen=True)
class Scene:
    """A picture and its objects, crowds last."""

    picture: UInt8[np.ndarray, "height width 3"]
    objects: Instances
    """Areas are as the file states them (COCO's small, medium and large). In a set with masks, an
    object without one has a mask without a pixel: its box counts, its mask does not."""


@dataclass(frozen=True)
class SceneSet:
    """A set of scenes."""

    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    has_masks: bool
    """True if any object has a mask."""
    entries: tuple[Entry, ...] = ()
    held: tuple[Scene, ...] = field(default=(), repr=False)
    """Scenes in memory, of a set without files."""
    file: Path = Path()
    """Of the annotations; `.` for a set in memory."""
    reading: Reading = USUAL
    replaced: dict[str, str] = field(default_factory=dict, repr=False, compare=False)
    """Name -> reason, of pictures in whose place another was put so far, and of lost masks."""
    notes: tuple[str, ...] = field(default=(), repr=False, compare=False)
    """What was left out when the set was opened, as it was warned of."""

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

    @property
    def num_objects(self) -> int:
        """Objects of all pictures, crowds included."""
        counts = [len(e.objects) for e in self.entries] or [len(s.objects) for s in self.held]
        return sum(counts)

    @property
    def has_objects(self) -> bool:
        """True if a picture has an object that is no crowd, so that there is something to find."""
        of_files = (o["iscrowd"] != 1 for entry in self.entries for o in entry.objects)
        return any(of_files) or any(not s.objects.is_crowd.all() for s in self.held)

    @property
    def used(self) -> tuple[str, ...]:
        """The classes that objects of files have."""
        numbers = {o["category_id"] for entry in self.entries for o in entry.objects}
        pairs = zip(self.classes, self.category_ids, strict=True)
        return tuple(name for name, number in pairs if number in numbers)

    def aligned(self, classes: tuple[str, ...]) -> SceneSet:
        """The same set with labels in another list of classes, which must have all that occur."""
        if self.classes == classes:
            return self
        require_known(self.used, classes, self.file)
        known = dict(zip(self.classes, self.category_ids, strict=True))
        # a class that is not in this file gets a number that no object has
        least = min(self.category_ids)
        ids = tuple(known.get(name, least - 1 - row) for row, name in enumerate(classes))
        return replace(self, classes=classes, category_ids=ids)

    def scene(self, index: int) -> Scene:
        """Decode a picture and the masks of its objects.

        With `skip_broken`, the next picture that can be read is put in place of one that cannot.
        """
        if self.held:
            return self.held[index]
        if not self.reading.skip_broken:
            return self._decoded(index, None)
        rows = [*range(index, len(self)), *range(index)]
        read = partial(self._decoded, unread=self.replaced)
        return first_sound(read, rows, lambda row: str(self.entries[row].file), self.replaced)

    def _decoded(self, index: int, unread: dict[str, str] | None) -> Scene:
        entry = self.entries[index]
        picture = self._picture(entry)
        label = {number: i for i, number in enumerate(self.category_ids)}
        chosen = sorted(entry.objects, key=lambda o: o["iscrowd"])
        boxes = np.array([corners(o["bbox"], entry) for o in chosen], dtype=np.float32)
        objects = Instances(
            boxes.reshape(-1, 4),
            np.array([label[o["category_id"]] for o in chosen], dtype=np.int64),
            masks=masks_of(chosen, entry, unread) if self.has_masks else None,
            areas=np.array([_area(o) for o in chosen], dtype=np.float32),
            crowd=np.array([o["iscrowd"] == 1 for o in chosen], dtype=bool),
        )
        return Scene(picture, objects)

    def _picture(self, entry: Entry) -> UInt8[np.ndarray, "height width 3"]:
        """The picture as its annotation sees it: upright, or as stored if only that fits."""
        size = (entry.height, entry.width)
        picture = read_picture(entry.file, self.reading.ignore_exif)
        if picture.shape[:2] != size and picture.shape[1::-1] == size:
            picture = read_picture(entry.file, not self.reading.ignore_exif)
        if picture.shape[:2] != size:
            raise ValueError(_mismatch(entry, (picture.shape[0], picture.shape[1]), self.file))
        return picture


def _mismatch(entry: Entry, size: tuple[int, int], source: Path) -> str:
    return (
        f"{entry.file} has {size[1]} x {size[0]} pixels, its annotation says {entry.width} x "
        f"{entry.height}. Use the pictures that {source} was made for, or set data.skip_broken."
    )


def of_arrays(classes: tuple[str, ...], scenes: Sequence[tuple[np.ndarray, Instances]]) -> SceneSet:
    """A set in memory, of pictures and their objects, which have masks."""
    held = tuple(Scene(picture, objects) for picture, objects in scenes)
    return SceneSet(classes, tuple(range(len(classes))), True, (), held)


def open_coco(annotations: Path, images: Path, reading: Reading = USUAL) -> SceneSet:
    """Open an instance file; whatever does not fit is a ValueError that names it.

    With `skip_broken`, pictures that are missing or damaged and annotations that do not fit are
    left out instead, with one warning. Masks are decoded, and refused, later.
    """
    content = read_json(annotations)
    names, ids, notes = categories_of(content, annotations)
    for note in notes:
        warnings.warn(note, stacklevel=2)
    broken: list[str] = []
    kept = partial(_kept, broken=broken if reading.skip_broken else None)
    every_image = listed(content, "images", annotations)
    found = kept(partial(_entry, annotations, images, reading), every_image)
    entries = {entry.image_id: entry for entry in kept(_alone(annotations), found)}
    if not entries:
        raise ValueError(f"{annotations} lists no image" + (f": {some(broken)}" if broken else ""))
    every = listed(content, "annotations", annotations)
    lost = {item["id"] for item in every_image if isinstance(item.get("id"), int)} - set(entries)
    if lost:  # a picture that is left out takes its objects along
        every = [o for o in every if not isinstance(n := o.get("image_id"), int) or n not in lost]
    every = kept(partial(checked_object, annotations, entries, set(ids)), every)
    made = assembled(annotations, names, ids, entries, every, broken, reading)
    return replace(made, notes=(*notes, *made.notes))


def assembled(
    source: Path, names: tuple[str, ...], ids: tuple[int, ...], entries: Mapping[int, Entry],
    items: Sequence[Item], broken: list[str], reading: Reading, is_sized: bool = True,
) -> SceneSet:  # fmt: skip
    """A set of pictures by number and checked annotations in COCO's form, after a look at both.

    source: named in what is said of them; broken: what was left out already; is_sized: annotations
    say of what size the picture was that they were made on.
    """
    kept = _looked_at(source, entries, broken, reading, is_sized)
    items = [item for item in items if item["image_id"] in kept]
    whole = [item for item in items if _has_area(item["bbox"], kept[item["image_id"]])]
    for item in whole:
        kept[item["image_id"]].objects.append(item)
    if not whole:
        why = f": {some(broken)}" if broken else ""
        raise ValueError(
            f"{source} has {len(kept)} pictures, but no object in any of them{why}. Annotate them "
            "first, or leave this part of the set away."
        )
    most = max(kept.values(), key=lambda entry: len(entry.objects))
    if (count := len(most.objects)) > MOST_OBJECTS:
        where = f"{source}: image {most.image_id}"
        raise ValueError(f"{where} has {count} objects, more than {MOST_OBJECTS}. Cut it.")
    shapes = [item.get("segmentation") for item in whole]
    bare = sum(not shape for shape in shapes)
    is_mixed = 0 < bare < len(shapes)
    short = sum(isinstance(s, list) and len(polygons_of(s)) < len(s) for s in shapes)
    is_whole, bad = {id(item) for item in whole}, len(items) - len(whole)
    lost = some([item["id"] for item in items if id(item) not in is_whole])
    notes = {
        f"pictures and annotations left out: {some(broken)}": len(broken),
        f"boxes without area left out, or without any in the picture: annotations {lost}": bad,
        "objects have polygons of too few corners, of which only the others are read": short,
        f"of {len(shapes)} objects have no segmentation: their boxes count, masks do not": bare
        * is_mixed,
    }
    said = tuple(f"{source}: {count} {note}" for note, count in notes.items() if count)
    for text in said:
        warnings.warn(text, stacklevel=3)
    has_masks = bare < len(shapes)
    every = tuple(kept.values())
    return SceneSet(names, ids, has_masks, every, file=source, reading=reading, notes=said)


def _looked_at(
    source: Path, entries: Mapping[int, Entry], broken: list[str], reading: Reading, is_sized: bool
) -> dict[int, Entry]:
    """The pictures whose headers fit the annotations: up to CHECKED are read, or all."""
    numbers, unsure, turned = list(entries), [], []
    step = 1 if reading.skip_broken else max(1, len(numbers) // CHECKED)
    kept = dict(entries)
    for number in numbers[::step]:
        entry = entries[number]
        try:
            if reading.skip_broken and (problem := damage(entry.file)):
                raise ValueError(problem)
            height, width, turn = read_header(entry.file)
            stored, upright = (height, width), (width, height) if turn > 4 else (height, width)
            size = (entry.height, entry.width)
            if size not in (stored, upright):
                raise ValueError(_mismatch(entry, upright, source))
        except (ValueError, OSError) as error:
            if not reading.skip_broken:
                raise
            broken.append(str(error))
            del kept[number]
            continue
        if turn > 1 and (size == upright == stored or not is_sized):
            unsure.append(entry.file.name)
        elif turn > 1 and size == stored:
            turned.append(entry.file.name)
    if not kept:
        raise ValueError(f"{source}: no picture can be read: {some(broken)}")
    if turned and not reading.ignore_exif:
        warnings.warn(
            f"{source}: {len(turned)} pictures have EXIF notes that turn them, but annotations of "
            f"their stored sizes: they are read as stored ({some(turned)})",
            stacklevel=4,
        )
    if unsure and not reading.ignore_exif:
        warn_of_turns(source, unsure)
    return kept


def warn_of_turns(source: Path, names: Sequence[str]) -> None:
    """Say that annotations of these pictures may be of their pixels as stored."""
    warnings.warn(
        f"{source}: {len(names)} pictures have EXIF notes that turn them, and are read upright; if "
        f"they were annotated as stored, set data.ignore_exif ({some(names)})",
        stacklevel=4,
    )


def _kept(check: Callable[[S], T], items: list[S], broken: list[str] | None) -> list[T]:
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


def read_json(file: Path) -> Item:
    """The object that a JSON file of at most MOST_BYTES holds."""
    if not file.is_file():
        raise FileNotFoundError(f"{file} is not there. Give COCO's instance file.")
    size = file.stat().st_size
    if size > MOST_BYTES:
        raise ValueError(f"{file} has {size} bytes, more than {MOST_BYTES}. Split it.")
    try:
        found = json.loads(file.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{file} holds a {type(found).__name__}, not an object of COCO's form")
    return found


def listed(content: Item, key: str, file: Path) -> list[Item]:
    """A list of a file's objects, whole numbers made whole (texts of them, too).

    Ids that are there twice are a ValueError.
    """
    found = content.get(key)
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise ValueError(f"{file} has no list of {key}; it is not of COCO's instance form")
    for item in found:
        for name in WHOLE:
            value = item.get(name)
            is_whole = isinstance(value, float) and value.is_integer()
            if isinstance(value, str) and len(value) <= MOST_DIGITS:
                is_whole = value.isascii() and value.isdecimal()
            if is_whole:
                item[name] = int(value)
    ids = [item["id"] for item in found if isinstance(item.get("id"), int)]
    if len(set(ids)) < len(ids):
        twice = [number for number, times in Counter(ids).items() if times > 1]
        raise ValueError(f"{file}: ids of {key} must be unique; there twice: {some(twice)}")
    return found


def categories_of(
    content: Item, file: Path
) -> tuple[tuple[str, ...], tuple[int, ...], tuple[str, ...]]:
    """Names and numbers of a file's categories, in the order of the numbers, and notes on them.

    Categories of one name are one class: their objects get the number of the first, and a note
    says so. Roboflow's category 0 is called as the project, which may be as a class.
    """
    found = listed(content, "categories", file)
    for item in found:
        if not isinstance(item.get("id"), int) or not isinstance(item.get("name"), str):
            raise ValueError(f"{file}: category {item} needs a whole id and a name")
    if not found:
        raise ValueError(f"{file} lists no category")
    found = sorted(found, key=lambda item: item["id"])
    first: dict[str, int] = {}
    twice: dict[int, int] = {}
    for item in found:
        if first.setdefault(item["name"], item["id"]) != item["id"]:
            twice[item["id"]] = first[item["name"]]
    if not twice:
        return tuple(first), tuple(first.values()), ()
    for item in listed(content, "annotations", file):
        if isinstance(number := item.get("category_id"), int):
            item["category_id"] = twice.get(number, number)
    pairs = [f"{number} as {other}" for number, other in twice.items()]
    note = f"{file}: categories that have the name of another are the same class: {some(pairs)}"
    return tuple(first), tuple(first.values()), (note,)


def _alone(file: Path) -> Callable[[Entry], Entry]:
    """A check that no picture is listed twice: its objects could be trained on and tested by."""
    seen: dict[Path, int] = {}

    def check(entry: Entry) -> Entry:
        if (other := seen.setdefault(entry.file, entry.image_id)) != entry.image_id:
            raise ValueError(
                f"{file}: images {other} and {entry.image_id} are both of {entry.file}. List each "
                "picture once, with all of its objects."
            )
        return entry

    return check


def image_of(item: Item, file: Path) -> tuple[int, str]:
    """Number and `file_name` of an image of a file."""
    number, name = item.get("id"), item.get("file_name")
    if not isinstance(name, str) or not isinstance(number, int):
        raise ValueError(
            f"{file}: image {str(number)[:40]} ({str(name)[:40]}) needs a whole id and a "
            "file_name. Number the images 1, 2, ..., and the image_id of annotations likewise."
        )
    return number, name


def _entry(file: Path, images: Path, reading: Reading, item: Item) -> Entry:
    number, name = image_of(item, file)
    height, width = item.get("height"), item.get("width")
    where = f"{file}: image {number} has"
    if not isinstance(height, int) or not isinstance(width, int) or min(height, width) < 1:
        raise ValueError(f"{where} size {width} x {height}")
    if height * width > MAX_PIXELS:
        raise ValueError(f"{where} {width} x {height} pixels, more than {MAX_PIXELS}")
    try:
        if "\0" in name:
            raise OSError("it holds a zero byte")
        path = located(images, name)
        is_there = inside_of(images, path, reading.follow_links).is_file()
    except OSError as error:
        raise ValueError(f"{where} an impossible file_name, {name[:40]!r}") from error
    if not is_there:
        raise FileNotFoundError(f"{path}, image {number} of {file}, is not there.")
    return Entry(path, height, width, number, [])


def checked_object(file: Path, entries: dict[int, Entry], ids: set[int], item: Item) -> Item:
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
    if not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)):
        raise ValueError(
            f"{where} has bbox {str(box)[:80]}, expected x, y, width, "
            "height. Give it a box, or remove the annotation."
        )
    if (item.get("iscrowd") or 0) not in (0, 1):
        raise ValueError(f"{where} has iscrowd {item['iscrowd']}, expected 0 or 1")
    item["iscrowd"] = int(item.get("iscrowd") or 0)
    shape = item.get("segmentation") or []
    if isinstance(shape, dict):
        return item
    if not isinstance(shape, list) or not all(isinstance(part, list) for part in shape):
        raise ValueError(f"{where} has a segmentation that is no list of polygons and no code")
    if shape and not polygons_of(shape):
        raise ValueError(f"{where} has no polygon of x, y of 3 corners or more")
    return item


def _area(item: Item) -> float:
    area, (_, _, wide, tall) = item.get("area", 0), item["bbox"]
    return float(area if is_number(area, MAX_PIXELS) and area > 0 else wide * tall)


def _has_area(box: list[int | float], entry: Entry) -> bool:
    x0, y0, x1, y1 = corners(box, entry)
    return box[2] > 0 and box[3] > 0 and x1 > x0 and y1 > y0


def corners(box: list[int | float], entry: Entry) -> list[int | float]:
    """Return x0 y0 x1 y1 of x, y, width, height, cut at the picture's borders."""
    x, y, wide, tall = box
    return [
        min(max(x, 0), entry.width), min(max(y, 0), entry.height),
        min(max(x + wide, 0), entry.width), min(max(y + tall, 0), entry.height),
    ]  # fmt: skip
