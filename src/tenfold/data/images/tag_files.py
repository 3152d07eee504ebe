"""Image-level labels beside pictures: JSON of LabelMe and X-AnyLabeling, and class folders."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tenfold.files import misfit, parse_json

from ..io.problems import some
from .folders import class_folders
from .picture_names import PictureNames

MOST_BYTES = 128 * 2**20
"""Largest file that is read; it may hold its picture as text."""
SHAPE = {"flags": (dict, type(None)), "shapes": [{"label": str}], "imagePath": (str, type(None))}

LABELME = "not of LabelMe's form"

Labels = dict[Path, tuple[str, ...]]


def read_tags(files: Sequence[Path], names: PictureNames, skip_broken: bool = False) -> Labels:
    """Labels by picture of those JSON files that are of LabelMe's form.

    A label is a flag of the picture that is true, or the label of a shape. The picture is the one
    that the file names, beside it or of the same name.

    Raises:
        ValueError: A file is damaged or a field of another type than it should be; left out, with
            a warning, with `skip_broken`.
        FileNotFoundError: A file has no picture; left out likewise.
    """
    found: Labels = {}
    broken: list[str] = []
    for file in files:
        try:
            content = labelme_content(file)
            if content is None:
                continue
            picture = _picture(file, content, names)
            if picture in found:
                raise ValueError(f"{file}: another file has labels of {picture.name}. Keep one.")
            found[picture] = _labels(file, content)
        except (ValueError, OSError) as error:
            if not skip_broken:
                raise
            broken.append(str(error))
    if broken:
        warnings.warn(
            f"{names.root}: {len(broken)} label files left out: {some(broken)}", stacklevel=3
        )
    return found


def is_tag_file(file: Path) -> bool:
    """Return True for a JSON file that is, or was meant to be, of LabelMe's form."""
    try:
        return labelme_content(file) is not None
    except ValueError as error:
        return LABELME in str(error)


def labelme_content(file: Path) -> dict[str, Any] | None:
    """The object of a file; None if it is of another form."""
    size = file.stat().st_size
    if size > MOST_BYTES:
        raise ValueError(f"{file} has {size} bytes, more than {MOST_BYTES}. Save it without data.")
    try:
        content = parse_json(file.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"{file} is no JSON: {error}") from error
    if not isinstance(content, dict) or not {"flags", "shapes"} & content.keys():
        return None
    problem = misfit(content, SHAPE, "")
    if problem:
        raise ValueError(f"{file}: {problem}; it is {LABELME}")
    return content


def _picture(file: Path, content: dict[str, Any], names: PictureNames) -> Path:
    stated = (content.get("imagePath") or "").replace("\\", "/").rpartition("/")[2]
    here = file.parent.relative_to(names.root).as_posix() if names.root in file.parents else "."
    for name in (stated, file.stem):
        for place in (f"{here}/{name}", name):
            picture = names.find(place) if name else None
            if picture is not None:
                return picture
    raise FileNotFoundError(f"{file} has labels, but its picture {stated or file.stem} is missing")


def _labels(file: Path, content: dict[str, Any]) -> tuple[str, ...]:
    flags = content.get("flags") or {}
    problem = misfit(flags, {"*": bool}, "flags")
    if problem:
        raise ValueError(f"{file}: {problem}. A flag is true or false.")
    tags = [name.strip() for name, value in flags.items() if value]
    tags += [shape["label"].strip() for shape in content.get("shapes", []) if "label" in shape]
    return tuple(dict.fromkeys(tag for tag in tags if tag))


# --- class folders -------------------------------------------------------------------------------


def read_class_folders(folder: Path, follow_links: bool = False) -> Labels:
    """Labels by picture of a folder with a sub-folder a class.

    A picture may lie in several: copies of one name and of the same bytes are one picture with the
    labels of all, the first of which is read. Others of the same name are different pictures.
    """
    found: Labels = {}
    first: dict[tuple[str, int, bytes], Path] = {}
    every = [
        (name, file, file.stat().st_size)
        for name, files in class_folders(folder, follow_links).items()
        for file in files
    ]
    places: dict[tuple[str, int], set[str]] = {}
    for name, file, size in every:
        places.setdefault((file.name, size), set()).add(name)
    for name, file, size in every:
        alone = len(places[file.name, size]) == 1
        key = (file.name, size, b"" if alone else _digest(file))
        original = file if alone else first.setdefault(key, file)
        found[original] = tuple(dict.fromkeys((*found.get(original, ()), name)))
    return found


def _digest(file: Path) -> bytes:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").digest()
