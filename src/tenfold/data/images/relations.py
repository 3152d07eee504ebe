"""Trees as X-AnyLabeling's shapes with directed links: a `.json` of LabelMe's form a picture.

A shape has a `group_id`, shapes of one are the pieces of one unit; `kie_linking` lists pairs of
group numbers [whole, part] (examples/optical_character_recognition/key_information_extraction).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from tenfold.files import NUMBER, misfit, read_json, write_json
from tenfold.structures import MOST_UNITS, Tree, Unit

from . import runs
from .coco_masks import Entry, filled
from .crops import crop_of
from .decode import MAX_PIXELS
from .outlines import outlines

POINTS = {"rectangle": (2, 4), "polygon": (3, 10_000_000), "rotation": (4, 4), "circle": (2, 2)}
"""Kind of shape that has an area -> least and most points."""
SHAPE = {
    "imagePath": (str, None), "imageHeight": int, "imageWidth": int,
    "shapes": [{
        "label": str, "points": [[NUMBER]], "shape_type": str, "group_id": (int, None),
        "kie_linking": (list, None), "score": (*NUMBER, None), "description": (str, None),
        "attributes": (dict, None),
    }],
}  # fmt: skip
MOST_BYTES = 256 * 2**20
CIRCLE = 64
"""Corners of the polygon of a circle."""
VERSION = "4.0.0"
"""Of the form that is written."""


def read(file: Path) -> Tree:
    """The tree of a picture; shapes that no link makes a part are parts of the whole picture.

    Raises:
        ValueError: It is no such file, or its links are no tree: two wholes of one part, a cycle, a
            group that is not there; the error names file and group.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file} is not there, or is not a file")
    if file.stat().st_size > MOST_BYTES:
        raise ValueError(f"{file} has more than {MOST_BYTES} bytes")
    content = read_json(file)
    problem = misfit(content, SHAPE, "")
    if not problem and not {"shapes", "imageHeight", "imageWidth"} <= content.keys():
        problem = "it lacks shapes, imageHeight or imageWidth"
    if problem:
        raise ValueError(f"{file}: {problem}; it is not of X-AnyLabeling's form")
    try:
        return _tree(content)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def _tree(content: Mapping[str, Any]) -> Tree:
    height, width = content["imageHeight"], content["imageWidth"]
    if not (height > 0 and width > 0 and height * width <= MAX_PIXELS):
        raise ValueError(f"the picture is {height} x {width} pixels, allowed are 1 to {MAX_PIXELS}")
    shapes = content["shapes"]
    if len(shapes) > MOST_UNITS:
        raise ValueError(f"it has {len(shapes)} shapes, more than {MOST_UNITS}")
    groups: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for i, item in enumerate(shapes):
        number = item.get("group_id")
        key = ("shape", i) if number is None else ("group", number)
        groups.setdefault(key, []).append(item)
    place = {key: i for i, key in enumerate(groups, 1)}
    above = _links(shapes, place)
    units = [Unit(0, "scene", None, runs.full(height, width), state="done")]
    divided = set(above.values())
    for key, pieces in groups.items():
        names = {piece.get("label", "") for piece in pieces}
        if len(names) > 1 or "" in names:
            raise ValueError(f"{' '.join(map(str, key))} has the labels {sorted(names)[:5]}")
        masks = [runs.code_of(_painted(piece, height, width)) for piece in pieces]
        number = place[key]
        score = pieces[0].get("score")
        state: Any = "done" if number in divided else "not-annotated"
        said = (pieces[0].get("attributes") or {}).get("state")
        state = said if said in ("done", "open", "not-annotated") else state
        units.append(
            Unit(number, names.pop(), above.get(number, 0), runs.merged(masks, height, width),
                 1.0 if score is None else float(score), state)
        )  # fmt: skip
    return Tree((height, width), tuple(units), content.get("imagePath") or "")


def _links(shapes: list[Mapping[str, Any]], place: Mapping[tuple[str, int], int]) -> dict[int, int]:
    """Part -> whole."""
    above: dict[int, int] = {}
    for item in shapes:
        for pair in item.get("kie_linking") or []:
            if not (isinstance(pair, list) and [type(n) for n in pair] == [int, int]):
                raise ValueError(f"a link is [whole, part] of group numbers, got {str(pair)[:40]}")
            missing = [n for n in pair if ("group", n) not in place]
            if missing:
                raise ValueError(f"the link {pair} is of group {missing[0]}, which is not there")
            whole, part = (place["group", n] for n in pair)
            if above.setdefault(part, whole) != whole:
                raise ValueError(f"group {pair[1]} is part of two wholes; in a tree it has one")
    return above


def _painted(item: Mapping[str, Any], height: int, width: int) -> Bool[np.ndarray, "height width"]:
    kind, points = item.get("shape_type", "polygon"), item.get("points", [])
    if kind not in POINTS:
        raise ValueError(
            f"a shape is a {str(kind)[:40]}, which has no area; allowed are {', '.join(POINTS)}"
        )
    least, most = POINTS[kind]
    if not least <= len(points) <= most or any(len(point) != 2 for point in points):
        raise ValueError(f"a {kind} has {len(points)} points, or one that is not [x, y]")
    corners = np.array(points, dtype=np.float64)
    if not np.isfinite(corners).all():
        raise ValueError(f"a {kind} has a point that is no number")
    if kind == "rectangle":
        (x0, y0), (x1, y1) = corners.min(0), corners.max(0)
        corners = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])
    if kind == "circle":
        turn = 2 * np.pi * np.arange(CIRCLE) / CIRCLE
        radius = float(np.hypot(*(corners[1] - corners[0])))
        corners = corners[0] + radius * np.stack([np.cos(turn), np.sin(turn)], 1)
    return filled([corners.ravel().tolist()], Entry(Path(), height, width, 0, []))


def write(file: Path, tree: Tree) -> None:
    """Write the shapes of a tree beside its picture, and a link from each whole to each part.

    A region that was divided into objects is left out, and so are units without a pixel; states
    stand in the shapes' attributes.
    """
    tree = tree.told_apart()
    polygons = {unit.id: outlines(crop_of(runs.mask_of(unit.mask))) for unit in tree.units}
    shapes = [
        {
            "label": unit.name,
            "score": unit.score,
            "points": polygon.astype(float).tolist(),
            "group_id": unit.id,
            "description": "",
            "difficult": False,
            "shape_type": "polygon",
            "flags": {},
            "attributes": {"state": unit.state},
            "kie_linking": [
                [unit.id, part.id] for part in tree.parts(unit.id) if not i and polygons[part.id]
            ],
        }
        for unit in tree.walk()
        if unit.parent is not None
        for i, polygon in enumerate(polygons[unit.id])
    ]
    height, width = tree.size
    write_json(
        file,
        {
            "version": VERSION, "flags": {}, "shapes": shapes, "imagePath": tree.image,
            "imageData": None, "imageHeight": height, "imageWidth": width,
        },
    )  # fmt: skip
