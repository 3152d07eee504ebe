"""Boxes and outlines in YOLO's text files: a line an object, a file a picture.

A line is the number of a class, then centre, width and height of a box, or the corners of a
polygon, all as shares of the picture's sides. A picture without a file has no object.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..io.problems import some
from .coco import SceneSet, assembled
from .coco_files import WHOLE
from .coco_masks import Entry, Item
from .decode import SPLITS, Reading, read_header
from .folders import files_below, inside_of, pictures_of, split_folders, visible

MOST_TEXT = 2**24
"""Bytes of a list or a label file that is read."""
BEYOND = 0.01
"""Share of a side by which a coordinate may lie outside of the picture: rounding of tools."""
MOST_CLASSES = 100_000
ODD = (ValueError, TypeError, AttributeError, KeyError, IndexError, ArithmeticError, RecursionError)
"""What PyYAML raises besides its own error, on dates and numbers that are none."""
NAMES = ("classes.txt", "obj.names", "labels.txt", "class_names.txt")
"""Lists of classes, a name a line."""


@dataclass(frozen=True)
class YoloFiles:
    """Pictures of each split, and what their labels mean."""

    source: Path
    """`data.yaml`, or the folder."""
    classes: tuple[str, ...]
    """Empty where nothing names them."""
    parts: dict[str, list[Path]]
    is_pose: bool = False
    """True if corners of keypoints follow each box."""


def find_yolo(folder: Path, follow_links: bool = False) -> YoloFiles | None:
    """What there is of YOLO's in a folder; None if there are no labels of its form."""
    about = _about(folder)
    content: dict[str, Any] = about[1] if about else {}
    parts: dict[str, list[Path]] = {}
    for split, names in SPLITS.items():
        for name in names:
            if content.get(name):
                found = _given(about[0].parent if about else folder, content, name, follow_links)
                if found:
                    parts.setdefault(split, found)
    if "train" not in parts:
        parts = _by_folders(folder, follow_links)
    every = [picture for pictures in parts.values() for picture in pictures]
    # who names classes in data.yaml means YOLO, even if no label can be read
    means_it = _is_there if "names" in content else _is_label
    if not any(means_it(label_of(picture)) for picture in every):
        return None
    return YoloFiles(
        about[0] if about else folder, _names(folder, content), parts, "kpt_shape" in content
    )


def label_of(picture: Path) -> Path:
    """The label file of a picture: in `labels` instead of `images`, or beside the picture."""
    parts = list(picture.parts)
    for place in range(len(parts) - 2, -1, -1):
        if parts[place] == "images":
            swapped = Path(*parts[:place], "labels", *parts[place + 1 :]).with_suffix(".txt")
            if swapped.parent.is_dir():
                return swapped
    return picture.with_suffix(".txt")


def open_yolo(found: YoloFiles, pictures: Sequence[Path], reading: Reading) -> SceneSet:
    """The set of some of the pictures; what does not fit is a ValueError, or left out."""
    broken: list[str] = []
    entries: dict[int, Entry] = {}
    items: list[Item] = []
    for number, picture in enumerate(pictures):
        try:
            height, width, turn = read_header(picture)
            if turn > 4 and not reading.ignore_exif:
                height, width = width, height
            own = _objects(found, label_of(picture), number, height, width)
        except (ValueError, OSError) as error:
            if not reading.skip_broken:
                raise
            broken.append(str(error))
            continue
        entries[number] = Entry(picture, height, width, number, [])
        # from 1: pycocotools takes an object of number 0 for one that nobody found
        items += [item | {"id": len(items) + i} for i, item in enumerate(own, 1)]
    if not entries:
        raise ValueError(f"{found.source}: no picture can be read: {some(broken)}")
    highest = max((item["category_id"] for item in items), default=-1)
    classes = found.classes or tuple(f"class {i}" for i in range(highest + 1))
    if highest >= len(classes):
        raise ValueError(
            f"{found.source} names {len(classes)} classes, but label files hold class {highest}. "
            "Name all of them."
        )
    ids = tuple(range(len(classes)))
    return assembled(found.source, classes, ids, entries, items, broken, reading, is_sized=False)


def _objects(found: YoloFiles, file: Path, image: int, height: int, width: int) -> list[Item]:
    """The objects of a label file, in COCO's form."""
    items: list[Item] = []
    if not file.is_file():
        return items
    seen: set[str] = set()
    for number, line in enumerate(_text(file).splitlines(), 1):
        if not line.strip() or line in seen:  # some tools write an object twice
            continue
        seen.add(line)
        values, where = _numbers(line), f"{file} line {number}"
        count = len(values)
        is_box = count == 5 or (found.is_pose and count > 5)
        if not is_box and not (count >= 7 and count % 2):
            raise ValueError(
                f"{where} is {line[:60]!r}, expected a class and 4 numbers of a box, or x y of 3 "
                "or more corners"
            )
        label, shares = values[0], values[1:5] if is_box else values[1:]
        if not 0 <= label < MOST_CLASSES or label != int(label):
            raise ValueError(f"{where} has class {label:g}, expected a whole number from 0 on")
        if min(shares) < -BEYOND or max(shares) > 1 + BEYOND:
            raise ValueError(
                f"{where} holds numbers outside of 0 to 1; YOLO's are shares of the picture's sides"
            )
        item = {"image_id": image, "category_id": int(label), "iscrowd": 0}
        if is_box:
            x, y, w, h = shares
            box = [(x - w / 2) * width, (y - h / 2) * height, w * width, h * height]
            items.append(item | {"bbox": box, "segmentation": []})
        else:
            items.append(item | _outline(np.array(shares).reshape(-1, 2), height, width))
    return items


def _outline(corners: np.ndarray, height: int, width: int) -> Item:
    """Polygon, the box around it, and its area."""
    points = corners.clip(0, 1) * (width, height)
    low, high = points.min(0), points.max(0)
    x, y = points.T
    area = abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2
    return {
        "bbox": [*low.tolist(), *(high - low).tolist()],
        "segmentation": [points.ravel().tolist()],
        "area": area,
    }


# --- what lies where -----------------------------------------------------------------------------


def _about(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """A YAML file that names classes, and what it says."""
    import yaml

    files = [f for f in visible(folder, folder, True) if f.suffix.lower() in (".yaml", ".yml")]
    for file in sorted(files, key=lambda f: f.stem != "data"):
        text = _text(file)
        try:
            content = yaml.safe_load(text)
        except (yaml.YAMLError, *ODD) as error:
            if file.stem != "data":  # of something else
                continue
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"{file} is no YAML: {reason}") from error
        if isinstance(content, dict) and "names" in content:
            return file, content
    return None


def _names(folder: Path, content: dict[str, Any]) -> tuple[str, ...]:
    """Names of the classes in order: a list, or a mapping from numbers."""
    names = content.get("names")
    if isinstance(names, dict):
        numbers = [int(k) if str(k).isdecimal() else -1 for k in names]
        if sorted(numbers) != list(range(len(numbers))):
            raise ValueError(f"{folder}: names are numbered {some(list(names))}, expected 0, 1, ..")
        by_number = dict(zip(numbers, names.values(), strict=True))
        names = [by_number[i] for i in range(len(numbers))]
    if isinstance(names, list) and names and all(isinstance(n, str | int | float) for n in names):
        return tuple(str(name) for name in names)
    if names is not None:
        raise ValueError(f"{folder}: names must be a list or a mapping, got {str(names)[:80]}")
    for place in (folder, folder / "labels", folder / "images"):
        for name in NAMES:
            if (place / name).is_file():
                return tuple(x.strip() for x in _text(place / name).splitlines() if x.strip())
    return ()


def _given(base: Path, content: dict[str, Any], name: str, follow_links: bool) -> list[Path]:
    """Pictures of a split that a YAML file gives as a folder, a list of them, or a text file.

    Paths of another machine and of Roboflow's `../train/images` are looked for in the folder.
    """
    values = content[name] if isinstance(content[name], list) else [content[name]]
    found: list[Path] = []
    missing = []
    for value in values:
        text = str(value).replace("\\", "/")
        short = re.sub(r"^(\.\./|\./)+", "", text)
        places = [base / str(content.get("path") or "") / text, base / text, base / short]
        place = next((p for p in places if _is_there(p)), None)
        if place is None:
            missing.append(str(value))
            continue
        if place.is_file():
            lines = [line.strip() for line in _text(place).splitlines() if line.strip()]
            files = [next((p for p in (place.parent / x, base / x) if _is_there(p)), place / x)
                     for x in lines]  # fmt: skip
            found += [inside_of(base, file, follow_links) for file in files]
        else:
            inside_of(base, place, follow_links)
            found += pictures_of(files_below(place, base, follow_links))
    if missing and found:  # of one alone nothing is lost: folders tell the splits
        raise ValueError(
            f"{base}: {name} lists {some(missing)}, which is not there. Put it there, or take it "
            "out of the list."
        )
    return found


def _by_folders(folder: Path, follow_links: bool) -> dict[str, list[Path]]:
    """Pictures by split, where folders tell: `images/train`, `train/images`, or not divided."""

    def below(place: Path) -> list[Path]:
        return pictures_of(files_below(place, folder, follow_links)) if place.is_dir() else []

    if (folder / "images").is_dir():
        parts = split_folders(folder / "images", follow_links)
        if "train" in parts:
            return {split: below(place) for split, place in parts.items()}
        return {WHOLE: below(folder / "images")}
    parts = split_folders(folder, follow_links)
    if "train" in parts:
        return {
            split: below(place / "images" if (place / "images").is_dir() else place)
            for split, place in parts.items()
        }
    return {WHOLE: below(folder)}


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # no possible name
        return False


def _text(file: Path) -> str:
    if file.stat().st_size > MOST_TEXT:
        raise ValueError(f"{file} has more than {MOST_TEXT} bytes; it should be a short list")
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is no UTF-8 text: {error.reason}. Save it as UTF-8.") from error


def _numbers(line: str) -> list[float]:
    """The numbers of a line; none if it holds something else."""
    try:
        values = [float(word) for word in line.split()]
    except ValueError:
        return []
    return values if np.isfinite(values).all() else []


def _is_label(file: Path) -> bool:
    """Return True if the first line is one of an object."""
    if not file.is_file() or file.stat().st_size > MOST_TEXT:
        return False
    lines = file.read_text(encoding="utf-8-sig", errors="replace").split("\n", 1)
    return len(_numbers(lines[0])) >= 5
