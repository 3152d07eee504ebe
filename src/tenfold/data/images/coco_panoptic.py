"""COCO's panoptic form: a PNG of segments' numbers a picture, and one JSON that says what they are.

A number is red + 256 green + 65536 blue; 0 is void (cocodataset/panopticapi).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import Int32, UInt8
from PIL import Image

from tenfold.files import NUMBER, misfit, read_json, replacing, require_bounded, write_json
from tenfold.structures import Segments, Tree, Unit

from ..io.problems import some
from . import runs
from .decode import MAX_PIXELS
from .folders import inside_of

SHAPE = {
    "images": [{"id": int, "file_name": str, "width": int, "height": int}],
    "annotations": [{
        "image_id": int, "file_name": str,
        "segments_info": [{
            "id": int, "category_id": int, "area": NUMBER, "bbox": [NUMBER], "iscrowd": int,
        }],
    }],
    "categories": [{"id": int, "name": str, "isthing": int}],
}  # fmt: skip
MOST_BYTES = 2 * 2**30
LARGEST = 2**24
"""Numbers are below it."""
LONGEST_STEM = 50
"""Characters that a PNG has of its picture's name: file systems allow 255 bytes."""


@dataclass(frozen=True)
class PanopticSet:
    """Pictures with segments, decoded one at a time."""

    file: Path
    maps: Path
    """Folder of the PNG files."""
    names: Mapping[int, str]
    """Class by its number."""
    things: frozenset[str]
    entries: tuple[Mapping[str, Any], ...]
    images: Mapping[int, str]
    """File of each picture by its number."""

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[Segments]:
        return (self.segments(row) for row in range(len(self)))

    def segments(self, row: int) -> Segments:
        """One picture.

        Raises:
            ValueError: Its PNG is damaged, has a number that is not listed or lacks one that is, or
                a segment is of no category; the error names file and pixel.
        """
        entry = self.entries[row]
        file = inside_of(self.maps, self.maps / entry["file_name"], False)
        ids = _read(file)
        listed = entry["segments_info"]
        alien = [s["id"] for s in listed if s["category_id"] not in self.names]
        if alien:
            raise ValueError(f"{self.file}: segment {alien[0]} of {file.name} is of no category")
        wrong = [s["id"] for s in listed if not 0 < s["id"] < LARGEST]
        if wrong or len({s["id"] for s in listed}) < len(listed):
            raise ValueError(
                f"{self.file}: the segments of {file.name} are numbered {some(wrong) or 'twice'}; "
                f"numbers are 1 to {LARGEST - 1}, each once"
            )
        counts = np.bincount(ids.ravel())
        counts[0] = 0
        names = {s["id"]: self.names[s["category_id"]] for s in listed}
        absent = [n for n in names if n >= len(counts) or not counts[n]]
        if absent:
            raise ValueError(f"{file} has no pixel of segment {absent[0]}, which {self.file} lists")
        counts[[*names]] = 0
        if counts.any():
            number = int(counts.argmax())
            y, x = (int(i) for i in np.argwhere(ids == number)[0])
            raise ValueError(
                f"{file}: pixel x {x}, y {y} has the number {number}, which is none of its "
                f"{len(names)} segments in {self.file}"
            )
        crowd = frozenset(s["id"] for s in listed if s.get("iscrowd"))
        return Segments(ids, names, crowd, title=str(file))

    def tree(self, row: int) -> Tree:
        """One picture as a tree of one level, in which nothing was divided further."""
        found = self.segments(row)
        height, width = found.ids.shape
        codes = runs.codes_of(found.ids)
        void = codes.pop(0, None)
        units = [Unit(0, "scene", None, runs.full(height, width), state="done")]
        units += [
            Unit(number, found.names[number], 0, code, crowd=number in found.crowd)
            for number, code in codes.items()
        ]
        image = self.images.get(self.entries[row]["image_id"], "")
        return Tree((height, width), tuple(units), image, void=void)


def open_panoptic(file: Path, maps: Path) -> PanopticSet:
    """Open a set by its JSON file and the folder of its PNG files.

    Raises:
        ValueError: It is no such file; the error names it and the field.
    """
    require_bounded(file, MOST_BYTES)
    content = read_json(file)
    problem = misfit(content, SHAPE, "")
    if not problem and not {"annotations", "categories"} <= content.keys():
        problem = "it lacks annotations or categories"
    if not problem:
        problem = _incomplete(content)
    if problem:
        raise ValueError(f"{file}: {problem}; it is not of COCO's panoptic form")
    categories = content["categories"]
    names = {item["id"]: item["name"] for item in categories}
    things = frozenset(item["name"] for item in categories if item.get("isthing", 1))
    images = {item["id"]: item.get("file_name", "") for item in content.get("images", [])}
    return PanopticSet(file, maps, names, things, tuple(content["annotations"]), images)


def _incomplete(content: Mapping[str, Any]) -> str:
    """The first item that lacks a field without which it cannot be read."""
    needs: dict[str, set[str]] = {
        "images": {"id"}, "categories": {"id", "name"},
        "annotations": {"image_id", "file_name", "segments_info"},
    }  # fmt: skip
    for part, fields in needs.items():
        for i, item in enumerate(content.get(part, [])):
            if not fields <= item.keys():
                return f"{part}[{i}] lacks {', '.join(sorted(fields - item.keys()))}"
    for i, item in enumerate(content["annotations"]):
        for segment in item["segments_info"]:
            if not {"id", "category_id"} <= segment.keys():
                return f"a segment of annotations[{i}] lacks id or category_id"
    return ""


def _read(file: Path) -> Int32[np.ndarray, "height width"]:
    if not file.is_file():
        raise FileNotFoundError(f"{file} is not there: a PNG of segments' numbers")
    try:
        with Image.open(file, formats=("PNG",)) as image:
            if image.width * image.height > MAX_PIXELS or image.mode not in ("RGB", "RGBA"):
                raise ValueError(f"it is {image.width} x {image.height} of mode {image.mode}")
            pixels = np.asarray(image)
    except (ValueError, OSError, SyntaxError, ArithmeticError, KeyError, TypeError,
            Image.DecompressionBombError) as error:  # fmt: skip
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{file} cannot be read as numbers of segments: {reason}") from error
    return pixels[..., :3].astype(np.int32) @ np.array([1, 256, 65536], dtype=np.int32)


def coloured(ids: Int32[np.ndarray, "height width"]) -> UInt8[np.ndarray, "height width 3"]:
    """Numbers as the colours by which they are stored."""
    return np.stack([ids >> shift & 255 for shift in (0, 8, 16)], -1).astype(np.uint8)


def write(
    folder: Path, trees: Sequence[Tree], classes: Sequence[str], things: Collection[str]
) -> list[Path]:
    """Write `panoptic.json` and `panoptic/*.png` of the first level of trees.

    Where units overlap, the later one has the pixel; a unit without a pixel left is not listed.

    Args:
        folder: Where to.
        trees: Their `image` is the file name of the picture, and the PNG is called after it.
        classes: Names of the categories, numbered from 1.
        things: Those that are countable.

    Returns:
        The files that were written, `panoptic.json` the last.

    Raises:
        ValueError: A unit is of another class, or two trees are of one picture.
    """
    number_of = {name: i for i, name in enumerate(classes, 1)}
    twice = [name for name, times in Counter(t.image for t in trees).items() if times > 1 and name]
    if twice:
        raise ValueError(f"two trees are of the picture {twice[0]}: leave one out")
    files = _png_names([tree.image for tree in trees])
    images, annotations = [], []
    for row, (tree, name) in enumerate(zip(trees, files, strict=True), 1):
        ids, listed = _painted(tree, number_of)
        with replacing(folder / "panoptic" / name) as temporary:
            Image.fromarray(coloured(ids)).save(temporary, format="PNG")
        height, width = tree.size
        images.append({"id": row, "file_name": tree.image, "height": height, "width": width})
        annotations.append({"image_id": row, "file_name": name, "segments_info": listed})
    categories = [
        {"id": n, "name": name, "supercategory": "", "isthing": int(name in things)}
        for name, n in number_of.items()
    ]
    found = {"images": images, "annotations": annotations, "categories": categories}
    write_json(folder / "panoptic.json", found)
    return [*(folder / "panoptic" / name for name in files), folder / "panoptic.json"]


def _png_names(pictures: Sequence[str]) -> list[str]:
    """Names in one folder for the PNG files of pictures, numbered if two would be one."""
    names = [
        PurePosixPath(picture.replace("/", "__")).stem[:LONGEST_STEM] or str(row)
        for row, picture in enumerate(pictures, 1)
    ]
    if len({name.casefold() for name in names}) < len(names):
        names = [f"{row:06}-{name}" for row, name in enumerate(names, 1)]
    return [f"{name}.png" for name in names]


def _painted(
    tree: Tree, number_of: Mapping[str, int]
) -> tuple[Int32[np.ndarray, "height width"], list[dict[str, Any]]]:
    """Numbers of a tree's first level, and what is said of each."""
    flat = np.zeros(tree.size[0] * tree.size[1], dtype=np.int32)
    tree = tree.told_apart()
    units = tree.parts(tree.root.id)
    for number, unit in enumerate(units, 1):
        if unit.name not in number_of:
            raise ValueError(
                f"{tree.image}: {unit.name!r} is none of the classes {some([*number_of])}"
            )
        flat[runs.pixels_of(unit.mask)] = number
    ids = np.ascontiguousarray(flat.reshape(tree.size[::-1]).T)
    listed = []
    for number, unit in enumerate(units, 1):
        mask = ids == number
        if not mask.any():
            continue
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        box = [columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1]
        listed.append(
            {
                "id": number, "category_id": number_of[unit.name], "area": int(mask.sum()),
                "bbox": [int(side) for side in box], "iscrowd": int(unit.crowd),
            }
        )  # fmt: skip
    return ids, listed
