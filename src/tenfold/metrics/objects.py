"""Found objects in the forms that other tools read: COCO results, YOLO text, rows of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tenfold.structures import Instances

from . import ap

Row = dict[str, Any]

HEADER = ("file", "class", "score", "x0", "y0", "x1", "y1", "width", "height", "area")
"""Columns of a table of objects; pixels of their picture, the area is the mask's if there is one.
"""


@dataclass(frozen=True)
class Image:
    """A picture in which objects were looked for."""

    name: str
    height: int
    width: int


def results(objects: Instances, classes: Sequence[str]) -> list[Row]:
    """Return the objects of one picture as COCO results, but for the numbers (see `numbered`)."""
    rows: list[Row] = []
    for row in ap.coded(objects):
        x, y, wide, tall = (round(float(v), 2) for v in row["bbox"])
        made: Row = {
            "category": classes[row["category_id"]],
            "label": row["category_id"],
            "bbox": [x, y, wide, tall],
            "score": round(row["score"], 4),
            "area": round(row["area"], 2),
        }
        if "segmentation" in row:
            code = row["segmentation"]
            made["segmentation"] = {
                "size": list(code["size"]), "counts": code["counts"].decode("ascii")
            }  # fmt: skip
        rows.append(made)
    return rows


def numbered(
    images: Sequence[Image],
    rows: Sequence[Sequence[Row]],
    classes: Sequence[str],
    image_ids: Sequence[int] = (),
    category_ids: Sequence[int] = (),
) -> tuple[list[Row], Row]:
    """Return COCO results, and the file of pictures and categories that they refer to.

    `COCO(the file).loadRes(the results)` of pycocotools takes them.

    Args:
        images: Pictures in order.
        rows: Their `results`.
        classes: Names in label order.
        image_ids: Number of each picture; empty counts from 1.
        category_ids: Number of each class; empty counts from 1.
    """
    image_ids = image_ids or range(1, len(images) + 1)
    category_ids = category_ids or range(1, len(classes) + 1)
    found = [
        {
            "image_id": number,
            "category_id": category_ids[row["label"]],
            "file_name": image.name,
            **{key: value for key, value in row.items() if key not in ("label", "area")},
        }
        for number, image, some in zip(image_ids, images, rows, strict=True)
        for row in some
    ]
    file = {
        "info": {"description": "pictures and categories of objects.json"},
        "images": [
            {"id": number, "file_name": one.name, "height": one.height, "width": one.width}
            for number, one in zip(image_ids, images, strict=True)
        ],
        "categories": [
            {"id": number, "name": name} for number, name in zip(category_ids, classes, strict=True)
        ],
        "annotations": [],
    }
    return found, file


def table_row(name: str, row: Mapping[str, Any]) -> list[str]:
    """Cells of one object under HEADER."""
    x, y, wide, tall = row["bbox"]
    numbers = (x, y, x + wide, y + tall, wide, tall, row["area"])
    return [name, row["category"], f"{row['score']:.4f}", *(f"{v:.2f}" for v in numbers)]


def yolo_lines(image: Image, rows: Sequence[Row]) -> str:
    """Lines of class, centre, size (as shares of the picture's sides) and score, one an object."""
    lines = []
    for row in rows:
        x, y, wide, tall = row["bbox"]
        shares = (
            (x + wide / 2) / image.width, (y + tall / 2) / image.height,
            wide / image.width, tall / image.height,
        )  # fmt: skip
        lines.append(" ".join([str(row["label"]), *(f"{min(v, 1.0):.6f}" for v in shares),
                               f"{row['score']:.4f}"]))  # fmt: skip
    return "".join(f"{line}\n" for line in lines)
