"""Elements of the files of other tools, and the objects that they make: shared by all formats."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from tenfold.files import NUMBER, misfit

from ..io.problems import some
from .coco_masks import Entry, crop_of_item
from .crops import Crop, crop_of
from .instances import FROM_FILE, Objects, ObjectSet, Point, Said, Shape, cut

OWN = "tenfold"
"""Field of a shape that has what a tool has no field for; all of these tools carry it along."""
MOST_BYTES = 512 * 2**20
"""Largest file that is read."""
MOST_SHAPES = 2_000_000
"""Elements of one file."""
SAID = {"source": str, "who": str, "model": str, "time": str}
RECORD = {"id": int, "crowd": bool, "score": NUMBER, "seconds": NUMBER, "chosen": str, **SAID}


@dataclass
class Part:
    """One element of a tool's file: a box, a mask or a point, and of which object it is."""

    picture: str
    """Name of the picture, as the file has it."""
    label: str
    """Class; empty for an element of an object that has one elsewhere."""
    where: str
    """The element, for errors."""
    key: str = ""
    """Elements of one picture with the same key are one object; empty: an object of its own."""
    box: tuple[float, float, float, float] | None = None
    mask: Crop | None = None
    polygons: list[list[float]] = field(default_factory=list)
    """Outlines x y x y ... of the mask, in place of it."""
    point: Point | None = None
    said: Said = FROM_FILE
    record: dict[str, Any] = field(default_factory=dict)
    """Of RECORD, so far as the file has it."""


# --- who said what -------------------------------------------------------------------------------


def record_of(shape: Shape, said: Said, point: Point | None = None) -> dict[str, Any]:
    """The fields that a tool carries along, without those that say nothing."""
    found: dict[str, Any] = {"id": shape.id}
    if shape.is_crowd:
        found["crowd"] = True
    if shape.score is not None:
        found["score"] = shape.score
    if point is not None:
        found |= {"seconds": point.seconds, "chosen": point.chosen}
    return found | {key: value for key, value in asdict(said).items() if value}


def said_of(record: dict[str, Any], source: str = "human") -> Said:
    """Who said something, from a record; `source` where it does not say that."""
    found = {key: record[key] for key in SAID if key in record}
    found["source"] = "model" if found.get("source", source) == "model" else "human"
    return Said(**found)


def checked_record(value: Any, where: str) -> dict[str, Any]:
    """The record of an element, {} if there is none.

    Raises:
        ValueError: A field is of another type than it should be.
    """
    if value is None:
        return {}
    problem = misfit(value, RECORD, OWN)
    if problem:
        raise ValueError(f"{where}: {problem}. Take the field {OWN} out, or restore the file.")
    return {key: value[key] for key in RECORD if key in value}


# --- one object from its elements ----------------------------------------------------------------


def joined(
    parts: Sequence[Part],
    known: ObjectSet,
    source: Path,
    skip: bool = False,
    notes: Sequence[str] = (),
) -> ObjectSet:
    """The pictures of `known` with the objects that a file's elements make.

    Args:
        parts: Elements of the file.
        known: Pictures that the file can mean, whatever objects they have now; classes that it
            has beyond theirs are added.
        source: The file, for errors and notes.
        skip: Leave out, and note, what does not fit.
        notes: What was left out already.

    Raises:
        ValueError: A box or mask lies outside of its picture or is empty, a point lies outside; an
            id is there twice.
        FileNotFoundError: A picture of the file is not among those known.
    """
    classes = list(known.classes)
    notes = list(notes)
    rows = by_name(known.pictures)
    shapes: dict[int, list[tuple[Shape, bool]]] = {}
    lost: set[str] = set()
    taken: dict[int, str] = {}
    for group in _groups(parts):
        row = rows.get(group[0].picture, rows.get(PurePosixPath(group[0].picture).name, -1))
        if row < 0:
            lost.add(group[0].picture)
            continue
        try:
            shape = _object(group, known.pictures[row], classes, notes)
            if shape is None:
                continue
            has_id = "id" in _first(group).record  # 0 is one: many tools count from it
            if has_id and shape.id in taken:
                raise ValueError(
                    f"{group[0].where} has the id {shape.id}, and so has {taken[shape.id]}. "
                    "Give one of them another."
                )
        except ValueError as error:
            if not skip:
                raise ValueError(f"{source}: {error}") from error
            notes.append(f"left out: {error}")
            continue
        if has_id:
            taken[shape.id] = group[0].where
        shapes.setdefault(row, []).append((shape, has_id))
    if lost:
        text = f"{source} has objects of pictures that are not there: {some(sorted(lost))}"
        if not skip:
            raise FileNotFoundError(f"{text}. Put them back, or take them out of the file.")
        notes.append(text)
    fresh = max((0, *taken))
    pictures = []
    for row, picture in enumerate(known.pictures):
        own = []
        for shape, has_id in shapes.get(row, []):
            fresh += not has_id
            own.append(shape if has_id else replace(shape, id=fresh))
        pictures.append(replace(picture, shapes=tuple(own)))
    ids = list(known.category_ids)
    ids += range(max(ids, default=0) + 1, max(ids, default=0) + 1 + len(classes) - len(ids))
    return replace(
        known, classes=tuple(classes), category_ids=tuple(ids), pictures=tuple(pictures),
        notes=(*known.notes, *notes),
    )  # fmt: skip


def by_name(pictures: Sequence[Objects]) -> dict[str, int]:
    """Row of each picture by its name, and by the last part of it where that is one's alone."""
    rows = {picture.name: row for row, picture in enumerate(pictures)}
    last: dict[str, list[int]] = {}
    for row, picture in enumerate(pictures):
        last.setdefault(PurePosixPath(picture.name).name, []).append(row)
    return {name: found[0] for name, found in last.items() if len(found) == 1} | rows


def _groups(parts: Sequence[Part]) -> list[list[Part]]:
    """Elements of one object each; elements of a key that has two boxes are objects of their own.

    So are a tool's groups of several objects, which have boxes (or masks without a box) of several
    classes.
    """
    found: dict[tuple[str, ...], list[Part]] = {}
    for number, part in enumerate(parts):
        key = (part.picture, part.key) if part.key else (part.picture, "", str(number))
        found.setdefault(key, []).append(part)
    result = []
    for group in found.values():
        boxes = sum(part.box is not None for part in group)
        labels = {part.label for part in group if part.label}
        result += [[part] for part in group] if boxes > 1 or len(labels) > 1 else [group]
    return result


def _first(group: list[Part]) -> Part:
    """The element that gives an object its class and number: its box, else a mask, else a point."""
    masks = [part for part in group if part.mask is not None or part.polygons]
    return next((part for part in group if part.box), (masks or group)[0])


def _object(
    group: list[Part], picture: Objects, classes: list[str], notes: list[str]
) -> Shape | None:
    masks = [part for part in group if part.mask is not None or part.polygons]
    first = _first(group)
    mask = union([_mask(part, picture) for part in masks])
    if mask is not None and not mask.area:
        raise ValueError(f"{masks[0].where} has a mask without a pixel. Remove it.")
    box = first.box or (mask.box if mask is not None else None)
    if box is None:
        notes.append(f"left out: {first.where} is a point of no object")
        return None
    if not first.label:
        raise ValueError(f"{first.where} has no class")
    inside = cut(box, picture.height, picture.width)
    if inside[2] <= inside[0] or inside[3] <= inside[1]:
        size = f"{picture.width} x {picture.height}"
        raise ValueError(
            f"{first.where} has the box {tuple(round(v, 2) for v in box)}, of which nothing lies "
            f"in {picture.name} ({size} pixels). Correct or remove it."
        )
    beyond = max(abs(a - b) for a, b in zip(box, inside, strict=True))
    if beyond > 1:  # tools round: a pixel is no news
        notes.append(f"{first.where} has a box that leaves the picture by {beyond:.0f}: cut")
    if mask is not None and not _is_inside(mask, picture):
        raise ValueError(f"{masks[0].where} has a mask that leaves {picture.name}. Correct it.")
    points = tuple(part.point for part in group if part.point is not None)
    for point in points:
        if not (0 <= point.x < picture.width and 0 <= point.y < picture.height):
            raise ValueError(f"{first.where} has a point {point.x}, {point.y} outside its picture")
    if first.label not in classes:
        classes.append(first.label)
    wide, tall = inside[2] - inside[0], inside[3] - inside[1]
    score = first.record.get("score")
    return Shape(
        id=first.record.get("id", 0),
        label=classes.index(first.label),
        box=inside,
        mask=mask,
        points=points,
        is_crowd=first.record.get("crowd", False),
        area=float(mask.area) if mask is not None else wide * tall,
        score=None if score is None else float(score),
        said=first.said,
        mask_said=masks[0].said if masks else FROM_FILE,
    )


def union(masks: Sequence[Crop]) -> Crop | None:
    """The mask of all pixels of several; None of none."""
    if len(masks) < 2:
        return masks[0] if masks else None
    x0, y0 = min(m.x for m in masks), min(m.y for m in masks)
    x1, y1 = max(m.x + m.width for m in masks), max(m.y + m.height for m in masks)
    whole = masks[0].within((x0, y0, x1, y1))
    for mask in masks[1:]:
        whole |= mask.within((x0, y0, x1, y1))
    return crop_of(whole, x0, y0)


def _mask(part: Part, picture: Objects) -> Crop:
    if part.mask is not None:
        return part.mask
    entry = Entry(picture.file, picture.height, picture.width, picture.image_id, [])
    try:
        found = crop_of_item({"id": part.key, "segmentation": part.polygons}, entry)
    except ValueError as error:
        raise ValueError(f"{part.where}: {error}. Correct or remove it.") from error
    assert found is not None
    return found


def _is_inside(mask: Crop, picture: Objects) -> bool:
    return (
        mask.x >= 0 and mask.y >= 0
        and mask.x + mask.width <= picture.width and mask.y + mask.height <= picture.height
    )  # fmt: skip


# --- files ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Exported:
    """Files that were written, and what they cannot hold."""

    files: tuple[Path, ...]
    notes: tuple[str, ...] = ()


def lacking(objects: ObjectSet, what: str, misses: Callable[[Shape], bool]) -> list[str]:
    """A note of how many objects lose something, if any do."""
    ids = [shape.id for picture in objects.pictures for shape in picture.shapes if misses(shape)]
    return [f"{len(ids)} objects {what} (annotations {some(ids)})"] if ids else []
