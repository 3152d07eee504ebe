"""COCO's instance files with points in place of masks, and the points that PointSup draws.

The file is the instance file whose annotations have lost `segmentation` and gained `point_coords`
(x, y) and `point_labels` (detectron2, projects/PointSup/tools/
prepare_coco_point_annotations_without_masks.py).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from tenfold.files import NUMBER, misfit

from .coco_masks import Entry, Item, crop_of_item, is_number
from .instances import Point

SEED, COUNT = 12345, 10
"""Of the points that PointSup draws for each object."""
MOST_POINTS = 10_000
"""Points of one object."""

Labelled = tuple[list[list[int]], list[int]]
"""x y of an object's points, and their labels."""


def drawn_points(
    content: Mapping[str, Any], count: int = COUNT, seed: int = SEED
) -> dict[int, Int64[np.ndarray, "count 2"]]:
    """Pixels that PointSup draws in the box of each annotation, crowds too, by annotation id.

    All draws are from one stream in the order of the file: fewer points of the same objects are
    the first of these, never a draw of their own. Where rounding leads out of the picture, which
    the published tool does not survive, the pixel is the last one in it.

    Raises:
        ValueError: A box is no box, or has no pixel in its picture.
    """
    rng = np.random.RandomState(seed)
    sizes = {image["id"]: (image["width"], image["height"]) for image in content["images"]}
    found = {}
    for item in content["annotations"]:
        box = item.get("bbox")
        if not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)):
            raise ValueError(f"annotation {item.get('id')} has bbox {str(box)[:80]}, no x y w h")
        if item["image_id"] not in sizes:
            raise ValueError(f"annotation {item['id']} is of image {item['image_id']}, not listed")
        size = np.array(sizes[item["image_id"]])
        low, side = np.array(box[:2], dtype=np.float64), np.array(box[2:], dtype=np.float64)
        if (low >= size).any() or (low + side <= 0).any() or (side < 0).any():
            raise ValueError(
                f"annotation {item['id']} has the box {box}, of which nothing lies in its picture "
                f"of {size[0]} x {size[1]} pixels. Correct or remove it."
            )
        places = np.floor(rng.rand(count, 2) * side + low).astype(np.int64)
        found[item["id"]] = places.clip(0, size - 1)
    return found


def true_labels(
    content: Mapping[str, Any], points: Mapping[int, Int64[np.ndarray, "count 2"]]
) -> dict[int, list[int]]:
    """1 for each point on the mask of its annotation, else 0.

    Raises:
        ValueError: A mask cannot be read.
    """
    images = {image["id"]: image for image in content["images"]}
    found = {}
    for item in content["annotations"]:
        if item["id"] in points:
            image = images[item["image_id"]]
            name = Path(str(image.get("file_name", image["id"])))
            mask = crop_of_item(item, Entry(name, image["height"], image["width"], image["id"], []))
            found[item["id"]] = [
                int(mask is not None and mask.at(x, y)) for x, y in points[item["id"]].tolist()
            ]
    return found


def with_points(content: Mapping[str, Any], points: Mapping[int, Labelled]) -> dict[str, Any]:
    """The content of an instance file with points in place of masks, fields in PointSup's order.

    Objects without an entry have no point. Points belong to annotation ids: the released merge
    (APIS, scripts/entropy.py) counts an image's annotations with crowds where its loader counted
    without, and gives points to other objects.
    """
    annotations = []
    for item in content["annotations"]:
        places, labels = points.get(item["id"], ([], []))
        kept = {key: value for key, value in item.items() if key != "segmentation"}
        annotations.append(kept | {"point_coords": places, "point_labels": labels})
    rest = {key: value for key, value in content.items() if key != "annotations"}
    return rest | {"annotations": annotations}


def text_of(content: Mapping[str, Any]) -> str:
    """The text of such a file, byte for byte as the published tools write it."""
    return json.dumps(content)


def padded(
    points: Mapping[int, Labelled], picture_of: Mapping[int, int], boxes: Mapping[int, list[float]]
) -> dict[int, Labelled]:
    """The points, as many for all objects of a picture as PointSup's loader needs.

    What is missing is the centre of the box with label -1, which its loss leaves out.
    """
    most = Counter[int]()
    for number, (_, labels) in points.items():
        most[picture_of[number]] = max(most[picture_of[number]], len(labels))
    found = {}
    for number, picture in picture_of.items():
        places, labels = points.get(number, ([], []))
        more = most[picture] - len(labels)
        x, y, wide, tall = boxes[number]
        centre = [int(x + wide / 2), int(y + tall / 2)]
        found[number] = (places + [centre] * more, labels + [-1] * more)
    return found


def points_of(item: Item, entry: Entry) -> tuple[Point, ...]:
    """Points of an annotation, () if it has none.

    Raises:
        ValueError: They do not fit each other or the picture; the error names the annotation.
    """
    given = {key: item[key] for key in ("point_coords", "point_labels") if key in item}
    if not given:
        return ()
    where = f"annotation {item['id']} of {entry.file}"
    problem = misfit(given, {"point_coords": [[NUMBER]], "point_labels": [int]}, "")
    if problem or len(given) < 2:
        raise ValueError(f"{where}: {problem or 'point_coords or point_labels is missing'}")
    places, labels = given["point_coords"], given["point_labels"]
    if len(places) != len(labels) or any(len(place) != 2 for place in places):
        raise ValueError(f"{where} needs point_coords of x, y and as many point_labels")
    if len(places) > MOST_POINTS:
        raise ValueError(f"{where} has {len(places)} points, more than {MOST_POINTS}")
    for (x, y), value in zip(places, labels, strict=True):
        if not (0 <= x < entry.width and 0 <= y < entry.height) or value not in (0, 1, -1):
            raise ValueError(
                f"{where} has the point {x}, {y} of label {value}; a point lies within "
                f"{entry.width} x {entry.height} pixels, its label is 0, 1 or -1"
            )
    return tuple(Point(int(x), int(y), v) for (x, y), v in zip(places, labels, strict=True))
