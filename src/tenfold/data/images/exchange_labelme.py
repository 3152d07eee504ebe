"""Objects as JSON of LabelMe and X-AnyLabeling, a file a picture.

Elements of an object share `group_id`. LabelMe has masks (labelme/_label_file.py), X-AnyLabeling
outlines (anylabeling/views/labeling/label_file.py) and rectangles of four corners. Both carry
fields along that they do not know.
"""

from __future__ import annotations

import base64
import binascii
import io
import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from tenfold.files import NUMBER, misfit, write_json

from ..io.problems import some
from .crops import Crop, crop_of
from .exchange_parts import (
    MOST_SHAPES,
    OWN,
    Exported,
    Part,
    by_name,
    checked_record,
    joined,
    lacking,
    record_of,
    said_of,
)  # fmt: skip
from .folders import files_below
from .instances import Objects, ObjectSet, Point, Said, Shape
from .outlines import outlines
from .tag_files import labelme_content

VERSIONS = {"labelme": "5.5.0", "x_anylabeling": "2.4.0"}
"""Of the tools, the first whose files are of this form."""
FLAGS = {1: {"on_object": True}, 0: {"on_object": False}, -1: {"not_sure": True}}
"""Of points."""
READ = ("rectangle", "polygon", "mask", "point")
SHAPE = {
    "label": str, "points": [[NUMBER]], "shape_type": (str, type(None)),
    "group_id": (int, type(None)), "flags": (dict, type(None)), "mask": (str, type(None)),
}  # fmt: skip


def write_labelme(objects: ObjectSet, out: Path) -> Exported:
    """Write a file a picture with rectangles, masks and points."""
    return _written(objects, out, "labelme")


def write_x_anylabeling(objects: ObjectSet, out: Path) -> Exported:
    """Write a file a picture with rectangles, outlines and points."""
    return _written(objects, out, "x_anylabeling")


def _written(objects: ObjectSet, out: Path, dialect: str) -> Exported:
    """Write the files under the pictures' names below `out`.

    Raises:
        ValueError: A file there has shapes that are not of tenfold.
    """
    made: list[tuple[Path, dict[str, Any]]] = []
    same: list[str] = []
    for picture in objects.pictures:
        file = out / PurePosixPath(picture.name).with_suffix(".json")
        taken = {other for other, _ in made}
        if file in taken:  # a.png and a.jpg; the file states its picture
            file = out / f"{picture.name}.json"
            same.append(picture.name)
        if file in taken:
            raise ValueError(
                f"{file.name} would be of two pictures, such as {picture.name}. Rename one."
            )
        _own(file)
        shapes = [
            one for s in picture.shapes for one in _shapes(s, objects.classes[s.label], dialect)
        ]
        content: dict[str, Any] = {
            "version": VERSIONS[dialect],
            "flags": {},
            "shapes": shapes,
            "imagePath": Path(os.path.relpath(picture.file, file.parent)).as_posix(),
            "imageData": None,
            "imageHeight": picture.height,
            "imageWidth": picture.width,
        }
        made.append((file, content))
    for file, content in made:
        write_json(file, content)
    notes = []
    if same:
        notes.append(
            f"pictures that differ from another in their ending alone have files that keep it "
            f"({PurePosixPath(same[0]).name}.json), which tools do not open with the picture: "
            f"{some(same)}"
        )
    if out.resolve() not in {p for picture in objects.pictures for p in picture.file.parents}:
        notes.append(
            "files lie apart from their pictures, which X-AnyLabeling looks for beside them"
        )
    if dialect == "x_anylabeling":
        notes += lacking(
            objects, "have masks as outlines along their pixels, holes cut open",
            lambda shape: shape.mask is not None,
        )  # fmt: skip
    return Exported(tuple(file for file, _ in made), tuple(notes))


def _own(file: Path) -> None:
    """Refuse to write over what others drew."""
    if not file.is_file():
        return
    content = labelme_content(file) or {}
    if any(OWN not in shape for shape in content.get("shapes", [{}])):
        raise ValueError(
            f"{file} has shapes of another tool, which would be lost. Read them first, and write "
            "into another folder."
        )


def _shapes(shape: Shape, label: str, dialect: str) -> Iterator[dict[str, Any]]:
    def one(kind: str, points: list[list[float]], said: Said, point: Point | None = None) -> Any:
        found: dict[str, Any] = {
            "label": label,
            "points": points,
            "group_id": shape.id,
            "description": "",
            "shape_type": kind,
            "flags": {} if point is None else FLAGS[point.label],
        }
        if dialect == "labelme":
            found["mask"] = None
        else:
            found |= {"score": shape.score, "difficult": False, "attributes": {}, "kie_linking": []}
        return found | {OWN: record_of(shape, said, point)}

    x0, y0, x1, y1 = shape.box
    corners = [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]
    yield one("rectangle", corners[::2] if dialect == "labelme" else corners, shape.said)
    if shape.mask is not None and shape.mask.area:
        mask = shape.mask
        if dialect == "labelme":
            last = [float(mask.x + mask.width - 1), float(mask.y + mask.height - 1)]
            found = one("mask", [[float(mask.x), float(mask.y)], last], shape.mask_said)
            yield found | {"mask": _png(mask)}
        else:
            for outline in outlines(mask):
                yield one("polygon", outline.astype(float).tolist(), shape.mask_said)
    for point in shape.points:
        yield one("point", [[point.x + 0.5, point.y + 0.5]], point.said, point)


def _png(mask: Crop) -> str:
    made = io.BytesIO()
    Image.fromarray(mask.decode().astype(np.uint8)).save(made, format="PNG")
    return base64.b64encode(made.getvalue()).decode("ascii")


# --- reading -------------------------------------------------------------------------------------


def read_labelme(path: Path, known: ObjectSet, skip: bool = False) -> ObjectSet:
    """Read a file, or all files of a folder, of either tool."""
    files = (
        [f for f in files_below(path, path) if f.suffix.lower() == ".json"]
        if path.is_dir()
        else [path]
    )
    rows = by_name(known.pictures)
    parts: list[Part] = []
    notes: list[str] = []
    for file in files:
        content = labelme_content(file)
        if content is None:
            if file == path:
                raise ValueError(f"{file} is not of LabelMe's form")
            continue
        name = _name(file, path, content, rows)
        row = rows.get(name)
        picture = None if row is None else known.pictures[row]
        size = (content.get("imageWidth"), content.get("imageHeight"))
        if picture is not None and None not in size and size != (picture.width, picture.height):
            raise ValueError(
                f"{file} is of a picture of {size[0]} x {size[1]} pixels, {picture.name} has "
                f"{picture.width} x {picture.height}. Use the picture that it was made for."
            )
        for number, shape in enumerate(content.get("shapes", [])):
            where = f"{file.name}, shape {number + 1}"
            try:
                if problem := misfit(shape, SHAPE, ""):
                    raise ValueError(problem)
                if shape.get("shape_type") not in (*READ, None):
                    notes.append(f"left out: {where} is a {shape['shape_type']}")
                    continue
                parts.append(_part(shape, name, where, picture))
            except ValueError as error:
                if not skip:
                    raise ValueError(f"{file}: {where}: {error}") from error
                notes.append(f"left out: {where}: {error}")
        if len(parts) > MOST_SHAPES:
            raise ValueError(f"{path} has more than {MOST_SHAPES} shapes. Split it.")
    return joined(parts, known, path, skip, notes)


def _name(file: Path, root: Path, content: dict[str, Any], rows: dict[str, int]) -> str:
    """Name of a file's picture: the one of its own place and name, else the one that it states."""
    stated = PurePosixPath((content.get("imagePath") or "").replace("\\", "/"))
    place = file.parent.relative_to(root).as_posix() if root in file.parents else "."
    tried = [(PurePosixPath(place) / stated.name).as_posix(), stated.as_posix(), stated.name]
    return next((name for name in tried if name in rows), stated.name or file.stem)


def _part(shape: dict[str, Any], name: str, where: str, picture: Objects | None) -> Part:
    record = checked_record(shape.get(OWN), where)
    if isinstance(shape.get("score"), int | float) and "score" not in record:
        record["score"] = shape["score"]
    group = shape.get("group_id")
    part = Part(
        name, shape.get("label", ""), where, "" if group is None else str(group),
        said=said_of(record), record=record,
    )  # fmt: skip
    points = shape.get("points", [])
    kind = shape.get("shape_type") or "polygon"
    if not points or any(len(p) != 2 or not all(abs(v) < 1e6 for v in p) for p in points):
        raise ValueError("its points are no x, y below 1e6")
    if kind == "rectangle":
        if len(points) not in (2, 4):
            raise ValueError(f"it is a rectangle of {len(points)} points, expected 2 or 4")
        x, y = zip(*points, strict=True)
        part.box = (float(min(x)), float(min(y)), float(max(x)), float(max(y)))
    elif kind == "point":
        flags = shape.get("flags") or {}
        label = -1 if flags.get("not_sure") else int(flags.get("on_object", True) is not False)
        (x, y), *_ = points
        part.point = Point(
            math.floor(x), math.floor(y), label, part.said,  # type: ignore[arg-type]
            float(record.get("seconds", 0.0)), record.get("chosen", "human"),
        )  # fmt: skip
    elif kind == "mask":
        part.mask = _mask(shape.get("mask") or "", points, picture)
    else:
        if len(points) < 3:
            raise ValueError(f"it is a polygon of {len(points)} corners")
        part.polygons = [[float(v) for p in points for v in p]]
    return part


def _mask(text: str, points: list[list[float]], picture: Objects | None) -> Crop:
    """The crop of a PNG between two corners, the second of which is within it."""
    if len(points) != 2:
        raise ValueError(f"it is a mask of {len(points)} corners, expected 2")
    (x0, y0), (x1, y1) = ([round(v) for v in point] for point in points)
    size = (x1 - x0 + 1, y1 - y0 + 1)
    if picture is None:  # said of all together
        return Crop(0, 0, 1, 1, b"")
    if x0 < 0 or y0 < 0 or x1 >= picture.width or y1 >= picture.height or min(size) < 1:
        raise ValueError(f"its mask from {x0}, {y0} to {x1}, {y1} leaves {picture.name}")
    try:
        content = base64.b64decode(text, validate=True)
        with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
            if image.size != size:
                raise ValueError(f"it is {image.size[0]} x {image.size[1]} pixels, not {size}")
            pixels = np.asarray(image)
    except (
        binascii.Error,
        OSError,
        SyntaxError,
        ValueError,
        Image.DecompressionBombError,
    ) as error:
        raise ValueError(f"its mask cannot be read: {error}") from error
    on = np.atleast_3d(pixels).max(2) > 0
    return crop_of(on, x0, y0)
