"""Sets of captions by name, and those of a user's own, whose form is found by looking."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

from ..images.coco_files import split_of, warn_of_unnamed
from ..images.decode import USUAL, Reading
from ..images.folders import files_below, held_out, pictures_of
from ..images.picture_names import picture_names
from ..io.problems import some
from . import coco, flickr30k, refer, tables
from .emoji import SPLITS as EMOJI
from .emoji import open_emoji_scenes
from .files import CaptionFiles, assembled
from .records import Captions
from .shards import open_shards

Form = Literal["shards", "flickr30k", "refer", "coco", "table"]
FORMS = (
    "shards *.tar of WebDataset's layout; Sentences/ and Annotations/ of Flickr30k Entities; "
    "instances.json and refs*.p of RefCOCO; annotations/captions_*.json of COCO; or a table (.csv, "
    ".tsv, .jsonl, .json) of pictures and captions"
)
OWN = "folder"
"""Stands for a set of the user's own."""
THREE = ("train", "validation", "test")
WHOLE = "all"
DEPTH = 3
"""Folders that a table or a shard may lie in, from the set's own on."""
MOST_FILES = 100
"""Files that are looked at to find the tables among them."""
SPLIT_SEED = 0
"""Of the division of what is not divided: the same in all runs."""


def form_of(path: Path, reading: Reading = USUAL) -> Form:
    """The form of a folder, or of a file.

    Raises:
        FileNotFoundError: It is none that is read; the error says those that are.
    """
    if path.is_file():
        if path.suffix.lower() == ".tar":
            return "shards"
        if path.suffix.lower() in tables.ENDINGS:
            return "table"
        raise FileNotFoundError(f"{path} is neither a shard (.tar) nor a table of captions")
    if flickr30k.is_flickr30k(path):
        return "flickr30k"
    if refer.find_refs(path):
        return "refer"
    if coco.find_parts(path):
        return "coco"
    if _tables(path, reading):
        return "table"
    files = files_below(path, path, reading.follow_links, depth=DEPTH)
    if _tars(files) and not pictures_of(files):  # an archive beside its pictures is no shard
        return "shards"
    reasons = [text for file in files if (text := tables.reason(file))]
    said = f" {reasons[0]}." if reasons else ""
    raise FileNotFoundError(f"{path} holds no captions.{said} Read are: {FORMS}.")


def splits_of(name: str, path: Path, reading: Reading = USUAL) -> tuple[str, ...]:
    """Splits of a set, training first if it has one."""
    if name == "emoji_scenes":
        return tuple(EMOJI)
    form = form_of(path, reading)
    if form == "flickr30k":
        return flickr30k.splits_of(path)
    if form == "refer":
        return refer.splits_of(path)
    if form == "coco":
        parts = coco.find_parts(path)
        if "train" in parts:
            return THREE
        return ("validation",) if parts == ["val"] else ("test",)
    return THREE


def open_set(
    name: str, path: Path, split: str, reading: Reading = USUAL, test_share: float = 0.2
) -> Captions:
    """Open a split of a set of captions.

    Args:
        name: "emoji_scenes", "folder" for a set of the user's own, or another of the catalogue;
            the form of these is found by looking.
        path: Folder, or of a set of one's own the file.
        split: One of `splits_of`. A set without a validation split gives that of the test, and one
            that is not divided is, by the names of its pictures.
        reading: With `skip_broken`, what does not fit is left out, counted and named in `notes`.
        test_share: Share of what is not divided, for the test.

    Raises:
        ValueError: Something does not fit; the error names file, record and way out.
        FileNotFoundError: A file is not there, or nothing in the folder is a set of captions.
    """
    known = splits_of(name, path, reading)
    if split not in known:
        raise ValueError(f"{path} has no split {split!r}; it has {', '.join(known)}")
    if name == "emoji_scenes":
        return open_emoji_scenes(path, split)
    form = form_of(path, reading)
    if form == "flickr30k":
        return flickr30k.open_flickr30k(path, split, reading)
    if form == "refer":
        return refer.open_refer(name, path, split, reading)
    if form == "coco":
        files = coco.find_captions(path, _part(path, split, coco.find_parts(path)))
        assert files is not None
        return coco.open_coco_captions(name, *files, reading)
    if form == "shards":
        files_of = _divided_shards(path, _shards(path, reading), test_share)
        return open_shards(name, files_of[_part(path, split, files_of)], reading)
    return _open_table(name, path, split, reading, test_share)


def _part(path: Path, split: str, parts: Sequence[str] | dict[str, list[Path]]) -> str:
    """The part that serves as a split: the test for validation too, and the other way round."""
    order = {"train": ("train",), "validation": ("val", "test"), "test": ("test", "val")}[split]
    for name in order:
        if name in parts:
            return name
    raise ValueError(
        f"{path} has no part for {split}, only {', '.join(parts)}. Name files by their splits "
        "(train, val, test), or give a set that is not divided."
    )


# --- shards --------------------------------------------------------------------------------------


def _shards(path: Path, reading: Reading) -> list[Path]:
    if path.is_file():
        return [path]
    return _tars(files_below(path, path, reading.follow_links, depth=DEPTH))


def _tars(files: Sequence[Path]) -> list[Path]:
    return [file for file in files if file.suffix.lower() == ".tar"]


def _divided_shards(path: Path, files: Sequence[Path], test_share: float) -> dict[str, list[Path]]:
    """Shards by the splits that their names or folders tell; else whole shards are held out."""
    root = path if path.is_dir() else path.parent
    found: dict[str, list[Path]] = {}
    for file in files:
        found.setdefault(split_of(root, file), []).append(file)
    if WHOLE not in found or "train" in found:
        unnamed = found.pop(WHOLE, [])
        warn_of_unnamed(root, unnamed, len(unnamed), "shards")
        return found
    if {"val", "test"} & set(found):
        found["train"] = found.pop(WHOLE)
        return found
    if len(files) < 2:
        raise ValueError(
            f"{files[0]} is the only shard, so that none is left for the test. Give two or more, "
            "or name them by their splits (train, val, test)."
        )
    names = [file.relative_to(root).as_posix() for file in files]
    held = held_out(names, f"{SPLIT_SEED}/captions", test_share)
    return {
        "train": [f for f, n in zip(files, names, strict=True) if n not in held],
        "test": [f for f, n in zip(files, names, strict=True) if n in held],
    }


# --- tables --------------------------------------------------------------------------------------


def _tables(path: Path, reading: Reading) -> list[Path]:
    if path.is_file():
        return [path]
    every = files_below(path, path, reading.follow_links, depth=DEPTH)
    return [
        file for file in every if file.suffix.lower() in tables.ENDINGS and tables.is_table(file)
    ]


def _records_in(file: Path) -> int:
    count = 0
    with suppress(ValueError):  # it is not read: what is wrong with it ends nothing
        for _ in tables.read_table(file):
            count += 1
    return count


def _open_table(
    name: str, path: Path, split: str, reading: Reading, test_share: float
) -> CaptionFiles:
    root = path if path.is_dir() else path.parent
    files: dict[str, list[Path]] = {}
    for file in _tables(path, reading):
        files.setdefault(split_of(root, file) if path.is_dir() else WHOLE, []).append(file)
    if WHOLE in files and len(files) > 1:
        if "train" in files:
            unnamed = files.pop(WHOLE)
            warn_of_unnamed(root, unnamed, sum(map(_records_in, unnamed)), "records")
        else:
            files["train"] = files.pop(WHOLE)
    part = WHOLE if WHOLE in files else _part(path, split, files)
    if len(files[part]) > 1:
        shown = some([file.relative_to(root).as_posix() for file in files[part]])
        raise ValueError(
            f"{path} holds several tables{'' if part == WHOLE else f' for {part}'}: {shown}. Keep "
            "one, name them by their splits, or give the file."
        )
    (file,) = files[part]
    pictures = pictures_of(files_below(root, root, reading.follow_links))
    names = picture_names(root, pictures, file)
    found = assembled(name, file, tables.read_table(file), names, reading)
    return _divided(found, split, test_share) if part == WHOLE else found


def _divided(found: CaptionFiles, split: str, test_share: float) -> CaptionFiles:
    """The split's photos: as records state it, else by the names of photos."""
    stated = [photo.split for photo in found.photos]
    if any(stated):
        part = _part(found.source, split, [one for one in dict.fromkeys(stated) if one])
        for photo in found.photos:
            if not photo.split:  # it would be of no split, and nobody would know
                found.left.add(f"{photo.key}: no split is stated, as it is of others")
        return found.at([row for row, one in enumerate(stated) if one == part])
    if len(found.photos) == 1:
        warnings.warn(
            f"{found.photos[0].key} is the only picture: it is for training and test alike",
            stacklevel=3,
        )
        return found
    held = held_out([p.key for p in found.photos], f"{SPLIT_SEED}/captions", test_share)
    return found.at(
        [row for row, p in enumerate(found.photos) if (p.key in held) == (split != "train")]
    )
