"""Where annotation files of COCO's form and their pictures lie: as published, or as tools export.

Roboflow writes `{train,valid,test}/_annotations.coco.json` beside the pictures, CVAT
`annotations/instances_default.json` and `images/`, Label Studio `result.json` and `images/`,
FiftyOne `labels.json` and `data/`.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Sequence
from pathlib import Path, PureWindowsPath
from typing import Any, Literal

from ..io.problems import some
from .decode import SPLITS
from .folders import files_below, inside_of

WHOLE = "all"
"""Name of the one part of a set that is not divided."""
MOST_LOOKED_AT = 64 * 2**20
"""Bytes of a JSON file that is read to see what it is; a larger one is judged by its beginning."""
MOST_FILES = 100
"""JSON files of a folder: one with more has one for each picture."""
DEPTH = 3
"""Folders that a file may lie in, from the set's own on."""
SAMPLED = 20
"""Pictures of a file that are looked for."""
KEYS = ("images", "annotations", "categories")
"""Lists of a file of COCO's form."""
NAMED = re.compile("coco|instances|annotations", re.IGNORECASE)
"""What tools call such a file."""

Files = tuple[Path, Path]


def find_split(folder: Path, split: str) -> Files:
    """(annotation file, folder of pictures) of a split: "train", "val" or "test"."""
    for found in _published(folder, split):
        if found[0].exists():
            return found
    parts = find(folder)
    if split in parts:
        return parts[split]
    compact, original = (found[0].name for found in _published(folder, split))
    here = f"; here are files for {', '.join(parts)}" if parts else ""
    raise FileNotFoundError(
        f"{folder} holds neither {compact} (with images/) nor annotations/{original} (with "
        f"{split}2017/), nor another JSON file of COCO's form for {split}{here}. Give the folder "
        "that holds one of them."
    )


def _published(folder: Path, split: str) -> list[Files]:
    """The compact and the original layout."""
    original = folder / "annotations" / f"instances_{split}2017.json"
    return [
        (folder / f"instances_{split}.json", folder / "images"),
        (original, folder / f"{split}2017"),
    ]


def find(folder: Path, follow_links: bool = False) -> dict[str, Files]:
    """Split -> (annotation file, folder of pictures); `WHOLE` is a file that names no split."""
    found: dict[str, list[Path]] = {}
    for split in SPLITS:
        for file, pictures in _published(folder, split):
            if file.is_file() and pictures.is_dir():
                found.setdefault(split, [file])
    if "train" not in found or len(found) == 1:  # other names, or other names of the others
        found = {}
        files = [
            file for file in files_below(folder, folder, follow_links, depth=DEPTH)
            if file.suffix.lower() == ".json"
        ]  # fmt: skip
        for file in files if len(files) <= MOST_FILES else [f for f in files if "coco" in f.name]:
            if is_coco(file):
                found.setdefault(split_of(folder, file), []).append(file)
    if "train" in found:
        unnamed = found.pop(WHOLE, [])
        warn_of_unnamed(folder, unnamed, sum(map(_pictures_in, unnamed)), "pictures")
    elif WHOLE in found and len(found) > 1:
        found["train"] = found.pop(WHOLE)
    parts = {}
    for split, files in found.items():
        file = _only(folder, split, files)
        parts[split] = (file, find_pictures(folder, file, split, follow_links))
    return parts


def split_of(folder: Path, file: Path) -> str:
    """The split that a file's name tells, or that of the nearest folder around it."""
    inside = file.relative_to(folder)
    for name in (inside.stem, *(part.name for part in inside.parents)):
        words = set(re.findall("[a-z]+", name.lower()))
        named = [split for split, names in SPLITS.items() if words & set(names)]
        if len(named) == 1:
            return named[0]
    return WHOLE


def warn_of_unnamed(folder: Path, files: Sequence[Path], count: int, what: str) -> None:
    """Say which files are of no split: they name none, and another one is for training.

    Often they are a list of all, so that they are not taken for training, too.
    """
    if files:
        shown = some([file.relative_to(folder).as_posix() for file in files])
        warnings.warn(
            f"{folder}: left out: {shown} ({count} {what}), whose name tells no split, where "
            "another file is for train. Name it by its split (train, val, test) if it is of one.",
            stacklevel=5,
        )


def _pictures_in(file: Path) -> int:
    """About how many pictures a file of COCO's form lists: each has one `file_name`."""
    with file.open("rb") as opened:
        return opened.read(MOST_LOOKED_AT).count(b'"file_name"')


def is_coco(file: Path) -> bool:
    """Return True for a JSON file with images, annotations and categories.

    Raises:
        ValueError: It is no JSON, but was meant to be such a file, by its name or its beginning:
            without it another set would be read.
    """
    try:
        with file.open("rb") as opened:
            head = opened.read(2**16)
        seems = any(f'"{key}"'.encode() in head for key in KEYS)
        if file.stat().st_size > MOST_LOOKED_AT:
            return seems
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except OSError:
        return False
    except (ValueError, RecursionError) as error:
        if seems or NAMED.search(file.stem):
            raise ValueError(
                f"{file} is no JSON: {error}. Export it again, or take it out of the folder."
            ) from error
        return False
    return isinstance(content, dict) and all(isinstance(content.get(key), list) for key in KEYS)


def _only(folder: Path, split: str, files: Sequence[Path]) -> Path:
    """The one of several files that has instances, by its name."""
    if len(files) > 1:
        files = [file for file in files if "instances" in file.stem] or files
    if len(files) > 1:
        names = some([file.relative_to(folder).as_posix() for file in files])
        raise ValueError(
            f"{folder} holds several annotation files{'' if split == WHOLE else f' for {split}'}: "
            f"{names}. Keep one, or name the others by their splits."
        )
    return files[0]


def find_pictures(folder: Path, file: Path, split: str, follow_links: bool = False) -> Path:
    """The folder of a set that holds most of the pictures that a file lists.

    The file may lie elsewhere: pictures beside it are not the set's.
    """
    names = _listed(file)
    near = [file.parent, folder] if file.is_relative_to(folder) else [folder]
    places = [folder / "images" / name for name in (*SPLITS.get(split, ()), "default", "Train")]
    places += [folder / name / "images" for name in SPLITS.get(split, ())]
    places += [folder / f"{name}2017" for name in SPLITS.get(split, ())]
    places += [folder / name for name in SPLITS.get(split, ())]
    places += [root / name for root in near for name in ("images", "data", "imgs", "JPEGImages")]
    places += near
    best, most = folder / "images", (0, 0)
    for place in places:
        if place.is_dir():
            found = [_found(place, name) for name in names]
            # valid/a.jpg is train/a.jpg by its end alone: whole names come first
            count = found.count("whole"), found.count("whole") + found.count("end")
            if count > most:
                best, most = inside_of(folder, place, follow_links), count
    return best


def located(images: Path, name: str) -> Path:
    """The file below a folder of pictures that a `file_name` means; where it should be if none is.

    Tools write \\ for /, and whole paths of the machine that the export was made on: of these the
    end is looked for, the longest first, before the path itself.
    """
    slashed = name.replace("\\", "/")
    parts = [part for part in slashed.split("/") if part]
    ends = ["/".join(parts[start:]) for start in range(len(parts))]
    is_whole = slashed.startswith("/") or bool(PureWindowsPath(name).drive)
    tried = [images / end for end in ([*ends, name] if is_whole else [name, *ends])]
    return next((path for path in tried if path.is_file()), images / name)


def _found(place: Path, name: str) -> Literal["whole", "end", ""]:
    """Whether a `file_name` is of a file below a folder, as it stands or by its end."""
    try:
        found = located(place, name)
        if place not in found.parents or not found.is_file():
            return ""
        return "whole" if found == place / name.replace("\\", "/") else "end"
    except (OSError, ValueError):  # no possible name: the reader says so
        return ""


def _listed(file: Path) -> list[str]:
    """Some of the names of pictures in a file."""
    try:
        with file.open(encoding="utf-8-sig", errors="replace") as opened:
            text = opened.read(MOST_LOOKED_AT)
    except OSError:
        return []
    try:
        content: Any = json.loads(text)
        images = content["images"]
        names = [item.get("file_name") for item in images if isinstance(item, dict)]
    except (ValueError, RecursionError, KeyError, TypeError):  # cut, of a file that is larger
        names = re.findall(r'"file_name"\s*:\s*"([^"]+)"', text)
    step = max(1, len(names) // SAMPLED)
    return [name for name in names[::step] if isinstance(name, str)]
