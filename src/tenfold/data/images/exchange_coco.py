"""Objects as COCO's instance files, with masks or with PointSup's points in place of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from tenfold.files import misfit, write_text

from .coco import categories_of, checked_object, image_of, listed, read_json
from .coco_masks import Entry, Item, crop_of_item
from .exchange_parts import (
    OWN,
    RECORD,
    Exported,
    Part,
    by_name,
    checked_record,
    joined,
    lacking,
    record_of,
    said_of,
)  # fmt: skip
from .instances import Objects, ObjectSet, Point, Shape
from .points import Labelled, padded, points_of, text_of, with_points

FILE, POINTS_FILE = "instances.json", "instances_points.json"
LABELS = (0, 1, -1)


def write_coco(objects: ObjectSet, out: Path) -> Exported:
    """Write masks as run-length codes, which pycocotools and detectron2 read, boxes and classes."""
    file = out / FILE
    write_text(file, text_of(content_of(objects)) + "\n")
    notes = lacking(
        objects, "have no mask: their segmentation is empty", lambda shape: shape.mask is None
    )
    notes += lacking(
        objects, f"have points, which tools see in coco_points only (here in {OWN})",
        lambda shape: bool(shape.points),
    )  # fmt: skip
    return Exported((file,), tuple(notes))


def write_coco_points(objects: ObjectSet, out: Path, with_masks: bool = False) -> Exported:
    """Write PointSup's form, each object of a picture with as many points as its loader needs.

    `with_masks`: keep the masks beside them, which that form lacks and our training reads.
    """
    content = content_of(objects)
    shapes = [(shape, p.image_id) for p in objects.pictures for shape in p.shapes]
    points: dict[int, Labelled] = {
        shape.id: ([[p.x, p.y] for p in shape.points], [p.label for p in shape.points])
        for shape, _ in shapes
    }
    boxes = {item["id"]: item["bbox"] for item in content["annotations"]}
    even = padded(points, {shape.id: image for shape, image in shapes}, boxes)
    file = out / POINTS_FILE
    written = with_points(content, even)
    if with_masks:
        for item, whole in zip(written["annotations"], content["annotations"], strict=True):
            item["segmentation"] = whole["segmentation"]
    write_text(file, text_of(written) + "\n")
    uneven = sum(even[number] != points[number] for number in even)
    notes = [f"{uneven} objects are filled up with points of label -1, which count for nothing"] * (
        uneven > 0
    )
    if not with_masks:
        notes += lacking(
            objects, "have a mask, which this file lacks: see coco", lambda s: s.mask is not None
        )
    return Exported((file,), tuple(notes))


def content_of(objects: ObjectSet) -> dict[str, Any]:
    """The content of an instance file.

    Raises:
        ValueError: An id is of two objects or pictures, which no reader takes.
    """
    ids = Counter(shape.id for picture in objects.pictures for shape in picture.shapes)
    twice = [number for number, times in ids.items() if times > 1]
    twice += [n for n, times in Counter(p.image_id for p in objects.pictures).items() if times > 1]
    if twice:
        raise ValueError(f"ids must be unique in COCO's files; there twice: {twice[:5]}")
    return {
        "info": {"description": "written by tenfold"},
        "images": [
            {"id": p.image_id, "file_name": p.name, "width": p.width, "height": p.height}
            for p in objects.pictures
        ],
        "annotations": [
            _item(shape, picture, objects.category_ids)
            for picture in objects.pictures
            for shape in picture.shapes
        ],
        "categories": [
            {"id": number, "name": name}
            for number, name in zip(objects.category_ids, objects.classes, strict=True)
        ],
    }


def _item(shape: Shape, picture: Objects, category_ids: tuple[int, ...]) -> Item:
    x0, y0, x1, y1 = shape.box
    item: Item = {
        "id": shape.id,
        "image_id": picture.image_id,
        "category_id": category_ids[shape.label],
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "area": shape.area,
        "iscrowd": int(shape.is_crowd),
        "segmentation": [],
    }
    if shape.mask is not None and shape.mask.area:
        item["segmentation"] = shape.mask.code(picture.height, picture.width)
    if shape.score is not None:
        item["score"] = shape.score
    item[OWN] = {
        "shape": record_of(shape, shape.said),
        "mask": record_of(shape, shape.mask_said),
        "points": [
            {"x": p.x, "y": p.y, "label": p.label} | record_of(shape, p.said, p)
            for p in shape.points
        ],
    }
    return item


def read_coco(file: Path, known: ObjectSet, skip: bool = False) -> ObjectSet:
    """Read an instance file for known pictures, which are found by `file_name`."""
    if file.is_dir():
        file = file / (FILE if (file / FILE).is_file() else POINTS_FILE)
    content = read_json(file)
    names, numbers, said = categories_of(content, file)
    if not known.classes:
        known = replace(known, classes=names, category_ids=numbers)
    rows = by_name(known.pictures)
    entries: dict[int, Entry] = {}
    lost: set[int] = set()
    for image in listed(content, "images", file):
        number, name = image_of(image, file)
        path = PurePosixPath(name.replace("\\", "/"))
        row = rows.get(str(path), rows.get(path.name))
        if row is None:
            lost.add(number)
            entries[number] = Entry(Path(path), 1, 1, number, [])
            continue
        one = known.pictures[row]
        size = (image.get("width", one.width), image.get("height", one.height))
        if size != (one.width, one.height):
            raise ValueError(
                f"{file}: image {number} has {size[0]} x {size[1]} pixels, {one.name} has "
                f"{one.width} x {one.height}. Use the pictures that the file was made for."
            )
        entries[number] = Entry(Path(one.name), one.height, one.width, number, [])
    classes = dict(zip(numbers, names, strict=True))
    parts: list[Part] = []
    notes = list(said)
    for item in listed(content, "annotations", file):
        try:
            checked_object(file, entries, set(numbers), item)
            parts += _parts(item, entries[item["image_id"]], classes, item["image_id"] in lost)
        except ValueError as error:
            if not skip:
                raise ValueError(f"{file}: {error}") from error
            notes.append(f"left out: {error}")
    return joined(parts, known, file, skip, notes)


def _parts(item: Item, entry: Entry, classes: dict[int, str], is_lost: bool) -> list[Part]:
    """The elements of one annotation; of a picture that is not there, its box alone."""
    where = f"annotation {item['id']}"
    both = item[OWN] if isinstance(item.get(OWN), dict) else {}
    record = checked_record(both.get("shape"), where) | {"id": item["id"]}
    record["crowd"] = item["iscrowd"] == 1
    if isinstance(item.get("score"), int | float):
        record["score"] = item["score"]
    x, y, wide, tall = (float(value) for value in item["bbox"])
    box = (x, y, x + wide, y + tall)
    part = partial(Part, str(entry.file), classes[item["category_id"]], where, str(item["id"]))
    parts = [part(box=box, said=said_of(record), record=record)]
    if is_lost:
        return parts
    mask = crop_of_item(item, entry)
    if mask is not None:
        parts.append(part(mask=mask, said=said_of(checked_record(both.get("mask"), where))))
    return parts + [part(point=p, said=p.said) for p in _points(item, both, entry, where)]


def _points(item: Item, own: Item, entry: Entry, where: str) -> list[Point]:
    """Points with who said them where the file has that, else as PointSup's fields have them."""
    found = points_of(item, entry)
    if "points" not in own:
        return list(found)
    if problem := misfit(own["points"], [{"x": int, "y": int, "label": int}], OWN):
        raise ValueError(f"{where}: {problem}")
    points = []
    for one in own["points"]:
        given = {"x": None, "y": None, "label": None} | one
        record = checked_record({k: v for k, v in one.items() if k in RECORD}, where)
        if None in given.values() or given["label"] not in LABELS:
            raise ValueError(f"{where} has a point in {OWN} that is not x, y, label")
        seconds, chosen = float(record.get("seconds", 0.0)), record.get("chosen", "")
        points.append(
            Point(given["x"], given["y"], given["label"], said_of(record), seconds, chosen)
        )
    return points
