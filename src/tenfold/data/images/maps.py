"""A folder of pictures and label maps: which of its folders hold what, and what the numbers mean.

Looked for are `images/` beside `masks/`, `labels/` or `annotations/`, with folders of splits inside
or around them; `train/` beside `trainannot/`; and maps beside their pictures as `NAME_mask.png`.
"""

from __future__ import annotations

import csv
import re
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..io.problems import BROKEN, some
from ..io.spreadsheets import delimiter_of, without_sep
from .class_maps import ClassMap, class_map_of, is_class_map
from .coco import warn_of_turns
from .coco_files import WHOLE
from .decode import ENDINGS, SPLITS, USUAL, Reading, read_header
from .folders import inside_of, split_folders, visible
from .segmentation import (
    IGNORED,
    SUFFIX,
    Pair,
    Segmented,
    paired,
    read_labels,
    read_names,
    read_text,
)

PICTURES = ("images", "image", "imgs", "img", "jpegimages", "pictures", "photos")
"""Names of folders of pictures, in small letters."""
MAPS = (
    "masks", "mask", "labels", "label", "annotations", "annotation", "segmentationclass", "annots",
    "labelmaps", "gt", "groundtruth",
)  # fmt: skip
"""Names of folders of label maps."""
BESIDE = ("annot", "_annot", "_labels", "_label", "_masks", "_mask", "-masks", "labels", "masks")
"""What the folder of maps is called more than that of the pictures beside it."""
NAMES = (
    "class_map.json", "classes.txt", "labelmap.txt", "labels.txt", "class_names.txt",
    "_classes.csv", "class_dict.csv", "classes.csv", "classes.json", "labels.json",
    "labelmap.json", "label_map.json", "names.json", "id2label.json",
)  # fmt: skip
"""Files that name the classes."""
SCANNED = 1000
"""Maps that are read to learn which numbers there are."""
MOST_UNNAMED = 64
"""Numbers that are taken for classes without a list of names."""

Folders = tuple[Path, Path]
Colours = tuple[tuple[int, int, int], ...]


def find_maps(folder: Path, follow_links: bool = False) -> dict[str, Folders]:
    """Split -> (folder of pictures, folder of label maps); `WHOLE` if it is not divided."""
    found: dict[str, Folders] = {}
    sides = _child(folder, PICTURES), _child(folder, MAPS)
    if all(sides):
        inside = [split_folders(side, follow_links) for side in sides if side]
        for split in inside[0].keys() & inside[1].keys():
            found[split] = inside[0][split], inside[1][split]
    around = split_folders(folder, follow_links)
    for split, place in () if found else around.items():
        own = _child(place, PICTURES), _child(place, MAPS)
        beside = [folder / f"{place.name}{more}" for more in BESIDE]
        if own[0] and own[1]:
            found[split] = own[0], own[1]
        elif maps := next((other for other in beside if _has_maps(other)), None):
            found[split] = place, maps
        elif _is_mixed(place):
            found[split] = place, place
    found = found or _by_words(folder)
    if not found and sides[0] and sides[1]:
        found[WHOLE] = sides[0], sides[1]
    elif not found and _is_mixed(folder):
        found[WHOLE] = folder, folder
    for pair in found.values():
        for place in pair:
            inside_of(folder, place, follow_links)
    return {split: pair for split, pair in found.items() if _has_maps(pair[1])}


def open_maps(
    folder: Path, reading: Reading = USUAL, class_map: ClassMap | None = None
) -> dict[str, Segmented]:
    """The set of each split that is there; the meaning of the numbers is that of all together.

    class_map: the meaning, where it does not lie in the folder or is to be another.
    """
    parts = {
        split: paired(*pair, split, reading)
        for split, pair in find_maps(folder, reading.follow_links).items()
    }
    if not any(parts.values()):
        raise FileNotFoundError(
            f"{folder} holds no pictures with label maps: images/ beside masks/, labels/ or "
            "annotations/ of the same names, with train/ and val/ inside or around them"
        )
    every = [pair for pairs in parts.values() for pair in pairs]
    _look_at_turns(folder, every, reading)
    kinds = _kinds(folder, every, reading, class_map or _class_map(folder))
    return {
        split: replace(kinds, files=files, reading=reading)
        for split, files in parts.items()
        if files
    }


def _kinds(
    folder: Path, every: Sequence[Pair], reading: Reading, given: ClassMap | None
) -> Segmented:
    """The classes and how they are stored, in a set without pictures."""
    if given:
        is_coloured = bool(given.colours) and _in_colours(every[0][1])
        if is_coloured:
            return Segmented(given.names, colours=given.colours)
        return Segmented(given.names, table=given.table)
    names, colours = class_names(folder)
    seen = _numbers(every, colours, reading)
    if seen == [0, IGNORED] and len(names) in (0, 2):
        # no map has a 1: 255 is the object, not what is ignored
        warnings.warn(
            f"{folder}: label maps hold 0 and 255 alone, taken as two classes", stacklevel=3
        )
        names = names or ("background", "foreground")
        return Segmented(names, values=(0, IGNORED))
    return Segmented(_named(folder, names, seen), colours=colours)


def _in_colours(file: Path) -> bool:
    """Return True if a label map has channels of colour; one that cannot be read has none."""
    try:
        with Image.open(file, formats=("PNG", "BMP", "TIFF")) as image:
            return image.mode in ("RGB", "RGBA")
    except BROKEN:
        return False


def _look_at_turns(folder: Path, pairs: Sequence[Pair], reading: Reading) -> None:
    """Warn of pictures that an EXIF note turns, where the size of the map does not tell of what."""
    unsure = []
    for picture, _ in pairs[:: max(1, len(pairs) // SCANNED)]:
        try:
            height, width, turn = read_header(picture)
        except (ValueError, OSError):
            if not reading.skip_broken:
                raise
            continue
        if 1 < turn <= 4 or (turn > 4 and height == width):
            unsure.append(picture.name)
    if unsure and not reading.ignore_exif:
        warn_of_turns(folder, unsure)


def _numbers(pairs: Sequence[Pair], colours: Colours, reading: Reading) -> list[int]:
    """The numbers in (up to SCANNED of) the maps."""
    step = max(1, len(pairs) // SCANNED)
    seen: set[int] = set()
    for _, file in pairs[::step]:
        try:
            seen |= set(np.unique(read_labels(file, colours)).tolist())
        except (ValueError, OSError):
            if not reading.skip_broken:
                raise
    return sorted(seen)


def _named(folder: Path, names: tuple[str, ...], seen: list[int]) -> tuple[str, ...]:
    """Names of the classes, of a list or by number."""
    labels = [number for number in seen if number != IGNORED]
    highest = max(labels, default=0)
    if not names:
        if len(labels) > MOST_UNNAMED:
            raise ValueError(
                f"{folder}: label maps hold {len(labels)} different numbers. If these are classes, "
                "list their names in classes.txt, one a line; masks that were resized with "
                "interpolation, or saved as JPEG, must be made anew."
            )
        return tuple(f"class {i}" for i in range(max(2, highest + 1)))
    if highest == len(names) and 0 in labels:
        warnings.warn(
            f"{folder}: label maps hold 0-{highest}, and {len(names)} classes are named: 0 is "
            "taken as background",
            stacklevel=3,
        )
        names = ("background", *names)
    if highest >= len(names):
        raise ValueError(
            f"{folder}: label maps hold label {highest}, but {len(names)} classes are named "
            f"({some(names)}). Name all of them, or remap the maps."
        )
    if not 2 <= len(names) <= IGNORED:
        raise ValueError(f"{folder} names {len(names)} classes, allowed are 2 to {IGNORED}")
    return names


# --- names of classes ----------------------------------------------------------------------------


def class_names(folder: Path) -> tuple[tuple[str, ...], Colours]:
    """Names of the classes in order, and their colours where these are listed; empty if not."""
    file = _list_of_names(folder)
    return class_names_in(file) if file else ((), ())


def class_names_in(file: Path) -> tuple[tuple[str, ...], Colours]:
    """The same of one file."""
    if file.suffix == ".json":
        return _of_json(file), ()
    return _of_csv(file) if file.suffix == ".csv" else _of_lines(file)


def _list_of_names(folder: Path) -> Path | None:
    """The first file that names the classes."""
    places = [folder, *split_folders(folder).values()]
    places += [place for place in (_child(folder, PICTURES), _child(folder, MAPS)) if place]
    files = (place / name for place in places for name in NAMES)
    return next((file for file in files if file.is_file()), None)


def _class_map(folder: Path) -> ClassMap | None:
    """The class map of a folder, if what names its classes is one."""
    file = _list_of_names(folder)
    if file is None or file.suffix != ".json":
        return None
    content = read_names(file, "names the classes")
    return class_map_of(content, file) if is_class_map(content) else None


def _of_lines(file: Path) -> tuple[tuple[str, ...], Colours]:
    """A name a line, or CVAT's `name:red,green,blue:parts:actions`."""
    lines = [line.strip() for line in read_text(file, "names the classes").splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    fields = [line.split(":") for line in lines]
    if lines and all(len(parts) >= 2 for parts in fields):
        return tuple(parts[0] for parts in fields), _colours(
            file, [p[1].split(",") for p in fields]
        )
    return tuple(lines), ()


def _of_csv(file: Path) -> tuple[tuple[str, ...], Colours]:
    """Roboflow's `Pixel Value, Class`, or name, red, green, blue; split by semicolons, too."""
    lines = without_sep(read_text(file, "names the classes")).strip().splitlines()
    delimiter = delimiter_of("".join(lines[:1]))
    try:
        rows = list(csv.reader(lines, delimiter=delimiter))
    except csv.Error as error:
        raise ValueError(f"{file} cannot be read as csv: {error}") from error
    rows = [[word.strip() for word in row] for row in rows[1:] if row]
    if rows and all(len(row) == 2 and row[0].isdecimal() for row in rows):
        by_number = {int(number): name for number, name in rows}
        if sorted(by_number) == list(range(len(by_number))):
            return tuple(by_number[i] for i in range(len(by_number))), ()
    if rows and all(len(row) == 4 for row in rows):
        return tuple(row[0] for row in rows), _colours(file, [row[1:] for row in rows])
    raise ValueError(f"{file} is no table of number, class or of class, red, green, blue")


def _colours(file: Path, rows: Sequence[Sequence[str]]) -> Colours:
    if not all(len(row) == 3 and all(word.strip().isdecimal() for word in row) for row in rows):
        return ()
    found = [tuple(int(word) for word in row) for row in rows]
    if len(set(found)) < len(found) or max(max(colour) for colour in found) > 255:
        raise ValueError(f"{file} must give each class a colour of its own, of numbers up to 255")
    return tuple((red, green, blue) for red, green, blue in found)


def _of_json(file: Path) -> tuple[str, ...]:
    """A list of names or of {id, name}, number -> name or name -> number, alone or under a key."""
    content = read_names(file, "names the classes")
    for key in ("labels", "classes", "names", "categories", "id2label"):
        if isinstance(content, dict) and isinstance(content.get(key), list | dict):
            content = content[key]
    pairs: list[tuple[Any, Any]] = []
    if isinstance(content, list):
        pairs = list(enumerate(content))
        if content and all(isinstance(item, dict) for item in content):
            pairs = [(item.get("id"), item.get("name")) for item in content]
    elif isinstance(content, dict):
        pairs = list(content.items())
        if all(isinstance(value, int) for value in content.values()):
            pairs = [(number, name) for name, number in content.items()]
    named = {int(n): name for n, name in pairs if isinstance(n, int) or str(n).isdecimal()}
    is_whole = sorted(named) == list(range(len(pairs)))
    if not pairs or not is_whole or not all(isinstance(name, str) for name in named.values()):
        raise ValueError(
            f"{file} is no list of names, nor a mapping between names and the numbers 0, 1, ..."
        )
    return tuple(named[i] for i in range(len(named)))


# --- folders -------------------------------------------------------------------------------------


def _child(folder: Path, names: Sequence[str]) -> Path | None:
    """The first of these folders that is there, whatever its capitals."""
    inside = {item.name.casefold(): item for item in visible(folder, folder, True) if item.is_dir()}
    return next((inside[name] for name in names if name in inside), None)


def _by_words(folder: Path) -> dict[str, Folders]:
    """Folders whose names tell both split and content: `train_images` and `train_masks`."""
    sides: dict[str, dict[str, Path]] = {split: {} for split in SPLITS}
    for item in visible(folder, folder, True):
        words = set(re.findall("[a-z]+", item.name.casefold())) if item.is_dir() else set()
        for split, names in SPLITS.items():
            for kind, of_kind in (("pictures", PICTURES), ("maps", MAPS)):
                if words & set(names) and words & set(of_kind):
                    sides[split].setdefault(kind, item)
    return {s: (pair["pictures"], pair["maps"]) for s, pair in sides.items() if len(pair) == 2}


def _has_maps(folder: Path) -> bool:
    """Return True if a folder holds pictures, which maps are."""
    return folder.is_dir() and any(
        item.suffix.lower() in ENDINGS for item in visible(folder, folder, True)
    )


def _is_mixed(folder: Path) -> bool:
    """Return True if maps lie beside their pictures, told apart by how their names end."""
    stems = {i.stem for i in visible(folder, folder, True) if i.suffix.lower() in ENDINGS}
    maps = {stem for stem in stems if SUFFIX.search(stem)}
    return bool(maps) and {SUFFIX.sub("", stem) for stem in maps} <= stems
