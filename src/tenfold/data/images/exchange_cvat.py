"""Objects as CVAT's XML 1.1 for images (cvat/apps/dataset_manager/formats/cvat.py).

An object is a box, a mask of run lengths by rows and a `points` element for each point, joined by
`group_id`. CVAT keeps attributes that the label of the task declares; `meta` has what to declare.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

import numpy as np

from tenfold.files import write_bytes

from .crops import Crop, crop_of
from .exchange_parts import (
    MOST_BYTES,
    MOST_SHAPES,
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
from .instances import FROM_FILE, Objects, ObjectSet, Point, Shape

FILE = "annotations.xml"
SOURCES = {"human": "manual", "model": "auto"}
LABELS = {1: "yes", 0: "no", -1: "not sure"}
"""Of points: the value of their attribute `on_object`."""
CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
KINDS: dict[Any, Callable[[str], Any]] = {str: str, int: int, bool: lambda text: text == "true"}
"""How an attribute becomes a value of a record; all others are numbers."""
SHAPES = ("box", "mask", "polygon", "points")


def write_cvat(objects: ObjectSet, out: Path) -> Exported:
    """Write `annotations.xml`, which CVAT reads as "CVAT 1.1" into a task of the same pictures."""
    for name in (*objects.classes, *(picture.name for picture in objects.pictures)):
        if CONTROL.search(name):
            raise ValueError(f"XML cannot hold the name {name!r}. Rename it.")
    root = Element("annotations")
    SubElement(root, "version").text = "1.1"
    task = SubElement(SubElement(root, "meta"), "task")
    SubElement(task, "name").text = "tenfold"
    SubElement(task, "size").text = str(len(objects))
    SubElement(task, "mode").text = "annotation"
    labels = SubElement(task, "labels")
    for name in objects.classes:
        label = SubElement(labels, "label")
        SubElement(label, "name").text = name
        attributes = SubElement(label, "attributes")
        for key in (*RECORD, "on_object"):
            one = SubElement(attributes, "attribute")
            SubElement(one, "name").text = key
            SubElement(one, "mutable").text = "False"
            SubElement(one, "input_type").text = "text"
            SubElement(one, "default_value")
            SubElement(one, "values")
    every = [shape.id for picture in objects.pictures for shape in picture.shapes]
    spare = max(every, default=0) + 1
    for number, picture in enumerate(objects.pictures):
        image = SubElement(
            root, "image", id=str(number), name=picture.name, width=str(picture.width),
            height=str(picture.height),
        )  # fmt: skip
        for shape in picture.shapes:
            # group 0 is none in CVAT, and would leave the elements of object 0 apart
            _write(image, shape, objects.classes[shape.label], shape.id or spare)
    ElementTree.indent(root)
    file = out / FILE
    write_bytes(file, ElementTree.tostring(root, encoding="utf-8", xml_declaration=True))
    notes = lacking(
        objects,
        "carry who said them as attributes, which CVAT keeps only if the task's labels declare "
        "them (they are listed in the file)",
        lambda shape: shape.said != FROM_FILE or bool(shape.points),
    )
    return Exported((file,), tuple(notes))


def _write(image: Element, shape: Shape, label: str, group: int) -> None:
    common = {"label": label, "occluded": "0", "z_order": "0", "group_id": str(group)}
    x0, y0, x1, y1 = (str(round(value, 4)) for value in shape.box)
    source = SOURCES[shape.said.source]
    box = SubElement(image, "box", common | {"source": source}, xtl=x0, ytl=y0, xbr=x1, ybr=y1)
    _attributes(box, record_of(shape, shape.said))
    if shape.mask is not None and shape.mask.area:
        mask = shape.mask
        place = {"left": mask.x, "top": mask.y, "width": mask.width, "height": mask.height}
        element = SubElement(
            image, "mask", common | {"source": SOURCES[shape.mask_said.source]},
            rle=", ".join(map(str, runs_of_rows(mask))), **{k: str(v) for k, v in place.items()},
        )  # fmt: skip
        _attributes(element, record_of(shape, shape.mask_said))
    for point in shape.points:
        element = SubElement(
            image, "points", common | {"source": SOURCES[point.said.source]},
            points=f"{point.x + 0.5:.2f},{point.y + 0.5:.2f}",
        )  # fmt: skip
        _attributes(element, record_of(shape, point.said, point))
        _attributes(element, {"on_object": LABELS[point.label]})


def _attributes(element: Element, record: dict[str, Any]) -> None:
    for key, value in record.items():
        text = str(value).lower() if isinstance(value, bool) else str(value)
        SubElement(element, "attribute", name=key).text = text


def runs_of_rows(mask: Crop) -> list[int]:
    """Runs of a crop along its rows, first one of zeros."""
    flat = mask.decode().ravel()
    ends = np.flatnonzero(np.diff(flat, append=~flat[-1:])) + 1
    runs: list[int] = np.diff(ends, prepend=0).tolist()
    return [0, *runs] if flat[0] else runs


def of_runs(runs: list[int], x: int, y: int, height: int, width: int) -> Crop:
    """The crop of runs along rows; ValueError if they do not add up to its pixels."""
    if min(height, width) < 1:
        raise ValueError(f"its mask is {width} x {height} pixels")
    if min(runs) < 0 or max(runs) > height * width or sum(runs) != height * width:
        raise ValueError(f"its runs do not add up to the {width} x {height} pixels of its mask")
    values = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return crop_of(values.reshape(height, width), x, y)


# --- reading -------------------------------------------------------------------------------------


def read_cvat(file: Path, known: ObjectSet, skip: bool = False) -> ObjectSet:
    """Read boxes, masks, polygons and points of a CVAT for images file (or a folder with one)."""
    file = file / FILE if file.is_dir() else file
    size = file.stat().st_size
    if size > MOST_BYTES:
        raise ValueError(f"{file} has {size} bytes, more than {MOST_BYTES}. Export fewer pictures.")
    content = file.read_bytes()
    if b"<!DOCTYPE" in content or b"<!ENTITY" in content:
        raise ValueError(f"{file} defines entities, which CVAT's files do not. Remove them.")
    try:
        root = ElementTree.fromstring(content)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise ValueError(f"{file} is no XML: {error}. Export it again.") from error
    if root.tag != "annotations" or root.find("track") is not None:
        raise ValueError(f"{file} is no CVAT for images 1.1. Export the task in that format.")
    parts: list[Part] = []
    notes: list[str] = []
    others: dict[str, int] = {}
    names = by_name(known.pictures)
    for image in root.iter("image"):
        picture = _picture(image, names, known, file)
        for number, element in enumerate(image):
            where = f"image {image.get('name', '')[:80]!r}, {element.tag} {number + 1}"
            if element.tag not in SHAPES:
                others[element.tag] = others.get(element.tag, 0) + 1
                continue
            try:
                parts += _parts(element, image, where, picture)
            except (ValueError, OverflowError) as error:
                if not skip:
                    raise ValueError(f"{file}: {where}: {error}") from error
                notes.append(f"left out: {where}: {error}")
            if len(parts) > MOST_SHAPES:
                raise ValueError(f"{file} has more than {MOST_SHAPES} elements. Split it.")
    notes += [f"{file.name}: {n} {tag} left out: not read" for tag, n in others.items()]
    return joined(parts, known, file, skip, notes)


def _picture(image: Element, names: dict[str, int], known: ObjectSet, file: Path) -> Objects | None:
    """The picture of an element; ValueError if it is of another size."""
    name = image.get("name", "")
    row = names.get(name, names.get(PurePosixPath(name).name))
    if row is None:
        return None
    one = known.pictures[row]
    size = (str(one.width), str(one.height))
    stated = (image.get("width", size[0]), image.get("height", size[1]))
    if stated != size:
        raise ValueError(
            f"{file}: image {name[:80]!r} has {stated[0][:9]} x {stated[1][:9]} pixels, {one.name} "
            f"has {size[0]} x {size[1]}. Use the pictures that were annotated."
        )
    return one


def _parts(element: Element, image: Element, where: str, picture: Objects | None) -> Iterator[Part]:
    label, group = element.get("label", ""), element.get("group_id", "0")
    given = {a.get("name", ""): a.text or "" for a in element.iter("attribute")}
    on_object = given.get("on_object", "yes")
    record = checked_record(_typed(given), where)
    source = "model" if element.get("source") in ("auto", "semi-auto") else "human"
    part = Part(
        image.get("name", ""), label, where, "" if group == "0" else group,
        said=said_of(record, source), record=record,
    )  # fmt: skip
    if picture is None:  # said of all together
        part.box = (0.0, 0.0, 0.0, 0.0)
    elif element.tag == "box":
        if float(element.get("rotation", "0")):
            raise ValueError("it is a turned box; only upright ones are read")
        part.box = tuple(_number(element, key) for key in ("xtl", "ytl", "xbr", "ybr"))  # type: ignore[assignment]
    elif element.tag == "mask":
        runs = [int(text) for text in element.get("rle", "").split(",")]
        left, top, high, wide = (
            int(element.get(key, "")) for key in ("left", "top", "height", "width")
        )
        if min(left, top) < 0 or left + wide > picture.width or top + high > picture.height:
            raise ValueError(f"its mask of {wide} x {high} pixels leaves {picture.name}")
        part.mask = of_runs(runs, left, top, high, wide)
    else:
        pairs = [pair.split(",") for pair in element.get("points", "").split(";")]
        corners = [(float(x), float(y)) for x, y in pairs]
        if not all(math.isfinite(v) and abs(v) < 1e6 for corner in corners for v in corner):
            raise ValueError("its points are no numbers below 1e6")
        if element.tag == "polygon":
            part.polygons = [[value for corner in corners for value in corner]]
        else:
            values = {name: value for value, name in LABELS.items()}
            for across, down in corners:
                yield Part(
                    part.picture, label, where, part.key, said=part.said, record=record,
                    point=Point(
                        math.floor(across), math.floor(down), values.get(on_object, 1), part.said,  # type: ignore[arg-type]
                        float(record.get("seconds", 0.0)), record.get("chosen", "human"),
                    ),
                )  # fmt: skip
            return
    yield part


def _number(element: Element, key: str) -> float:
    value = float(element.get(key, "nan"))
    if not abs(value) < 1e6:
        raise ValueError(f"its {key} is {element.get(key)!r}, no number below 1e6")
    return value


def _typed(given: dict[str, str]) -> dict[str, Any]:
    """Attributes as the types of a record; what is empty says nothing."""
    found: dict[str, Any] = {}
    for key, kind in RECORD.items():
        text = given.get(key, "")
        if text:
            found[key] = KINDS.get(kind, float)(text)
    return found
