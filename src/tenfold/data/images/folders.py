"""The pictures of a folder, of folders in it, of class folders: listed, never opened."""

from __future__ import annotations

import hashlib
import unicodedata
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from tenfold.files import require_no_folder

from ..io.problems import some
from .decode import ENDINGS, JUNK, SPLITS, read_picture

MOST_DEPTH = 64
"""Folders within one another that are looked into."""


def plain(name: str) -> str:
    """A class name without what may differ in another way of writing it: capitals, blanks, and how
    Unicode composes letters, which file systems change."""
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def photos(folder: str | Path, follow_links: bool = False) -> list[Path]:
    """The pictures that lie in a folder, by name; hidden files and its sub-folders do not count.

    A symbolic link that leaves the folder is refused, or followed with `follow_links`. Files of
    other endings are counted in a warning.
    """
    folder = _folder(folder)
    files = [item for item in visible(folder, folder, follow_links) if item.is_file()]
    found = pictures_of(files)
    if not found:
        raise ValueError(f"{folder} holds no picture{_instead(files)}. Put some in, or remove it.")
    warn_of_others(folder, files)
    return found


def photos_below(
    folder: str | Path,
    follow_links: bool = False,
    aside: Path | None = None,
    unread: list[Path] | None = None,
) -> list[Path]:
    """The pictures of a folder and of all folders in it, by path; hidden ones do not count.

    A symbolic link that leaves the folder is refused, or followed with `follow_links`. Files of
    other endings are counted in a warning; the folder `aside` is not looked into. With `unread` as
    in `files_below`.
    """
    folder = _folder(folder)
    is_aside = aside is not None and folder.resolve().is_relative_to(aside.resolve())
    files = [] if is_aside else files_below(folder, folder, follow_links, aside, unread=unread)
    found = pictures_of(files)
    if not found and aside and aside.is_dir():
        raise ValueError(f"{folder} holds no picture but those of {aside}")
    if not found:
        raise ValueError(f"{folder} holds no picture{_instead(files)}, nor do the folders in it.")
    warn_of_others(folder, files)
    return found


def offered(folder: Path, aside: Path | None = None) -> list[Path]:
    """What a folder offers to be predicted from, by path: the pictures below it, and what
    `read_offered` gives the reason for that it cannot be read: a link that leads out or nowhere, a
    pipe, a folder that may not be looked into.
    """
    unread: list[Path] = []
    found = photos_below(folder, aside=aside, unread=unread)
    return sorted([*found, *(i for i in unread if i.is_dir() or i.suffix.lower() in ENDINGS)])


def read_offered(inputs: Path, file: Path) -> UInt8[np.ndarray, "height width 3"]:
    """A picture that is predicted from: `inputs` itself, or of that folder.

    Raises:
        ValueError: It is damaged, or a link that leads out of the folder.
        FileNotFoundError: It is no file.
        PermissionError: It may not be read.
    """
    if inputs.is_dir():
        if not _is_inside(inputs, file):
            raise ValueError(f"{file} leads out of {inputs}. Copy what it leads to there instead.")
        require_no_folder(file)
    return read_picture(file)


def class_folders(folder: str | Path, follow_links: bool = False) -> dict[str, list[Path]]:
    """Class name -> its pictures, for a folder with one sub-folder a class; sorted by name.

    Folders inside a class folder count to the class, as in torchvision's ImageFolder.
    """
    folder = _folder(folder)
    found = [item for item in visible(folder, folder, follow_links) if item.is_dir()]
    if len(found) < 2:
        raise ValueError(
            f"{folder} holds {'one class folder' if found else 'no class folder'}, at least 2 are "
            "needed. Give the folder "
            "that has one sub-folder of pictures a class."
        )
    same: dict[str, str] = {}
    for name in (item.name for item in found):
        key = plain(name)
        if key in same:
            raise ValueError(
                f"{folder} holds two folders for one class: {same[key]!r} and {name!r} differ in "
                "capitals or spaces only. Join or rename them."
            )
        same[key] = name
    every: list[Path] = []
    classes: dict[str, list[Path]] = {}
    nested = []
    for item in found:
        files = files_below(item, folder, follow_links)
        classes[item.name] = pictures_of(files)
        if not classes[item.name]:
            raise ValueError(
                f"{item} holds no picture{_instead(files)}. Put some in, or remove it."
            )
        below = sorted({file.parent.relative_to(item).as_posix() for file in classes[item.name]})
        nested += [f"{item.name} ({some([b for b in below if b != '.'])})"] * (below != ["."])
        every += files
    if nested:
        warnings.warn(
            f"{folder}: pictures in sub-folders count to their class folder: {some(nested)}",
            stacklevel=2,
        )
    warn_of_others(folder, every)
    return classes


def split_folders(folder: Path, follow_links: bool = False) -> dict[str, Path]:
    """Of "train", "val" and "test" those that a folder has, under any of the names of SPLITS."""
    inside = {item.name.casefold(): item for item in visible(folder, folder, True) if item.is_dir()}
    found = {}
    for split, names in SPLITS.items():
        for name in names:
            if name in inside and split not in found:
                found[split] = inside_of(folder, inside[name], follow_links)
    return found


def files_below(
    folder: Path, root: Path, follow_links: bool = False, aside: Path | None = None,
    depth: int = MOST_DEPTH, unread: list[Path] | None = None,
) -> list[Path]:  # fmt: skip
    """All files of a folder and of the folders in it, by path; hidden ones do not count.

    `unread` gets links that lead out and folders in it that may not be looked into, which are no
    error then, and what is no file.
    """
    found: list[Path] = []
    waiting, seen = [(folder, 1)], {folder.resolve()}
    aside = aside.resolve() if aside else None
    while waiting:
        here, level = waiting.pop()
        try:
            items = visible(here, root, follow_links or unread is not None)
        except PermissionError:
            if unread is None or here == folder:
                raise
            unread.append(here)
            continue
        for item in items:
            if unread is not None and not (follow_links or _is_inside(root, item)):
                unread.append(item)
            elif not item.is_dir():
                if item.is_file():
                    found.append(item)
                elif unread is not None:
                    unread.append(item)
            elif level < depth and (follow_links or not item.is_symlink()):
                place = item.resolve()
                if place not in seen and place != aside:  # a link may lead round in a circle
                    seen.add(place)
                    waiting.append((item, level + 1))
    return sorted(found)


def pictures_of(files: Sequence[Path]) -> list[Path]:
    """Those of the files that are pictures by their ending."""
    return [file for file in files if file.suffix.lower() in ENDINGS]


def warn_of_others(folder: Path, files: Sequence[Path]) -> None:
    """Count by ending, in one warning, the files that are left out since no such ending is read."""
    others = _others(files)
    if others:
        warnings.warn(
            f"{folder}: {others.total()} of {len(files)} files are left out, of endings that are "
            f"not read as pictures: {_counted(others)}. Convert those that are pictures.",
            stacklevel=3,
        )


def _others(files: Sequence[Path]) -> Counter[str]:
    left = [f for f in files if f.suffix.lower() not in ENDINGS and f.name.casefold() not in JUNK]
    return Counter(f.suffix.lower() or "no ending" for f in left)


def _counted(others: Counter[str]) -> str:
    return some([f"{count} {ending}" for ending, count in others.most_common()], 8)


def _instead(files: Sequence[Path]) -> str:
    others = _others(files)
    known = " ".join(sorted(ENDINGS))
    return f" ({known}), but {_counted(others)}" if others else f" ({known})"


def _folder(folder: str | Path) -> Path:
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not there, or is not a folder. Give one of pictures.")
    return folder


def visible(folder: Path, root: Path, follow_links: bool = False) -> list[Path]:
    """Entries by name, but hidden ones and those that archives of macOS leave."""
    inside = [item for item in folder.iterdir() if not item.name.startswith((".", "__MACOSX"))]
    return [
        inside_of(root, item, follow_links) for item in sorted(inside, key=lambda item: item.name)
    ]


def inside_of(root: Path, path: Path, follow_links: bool = False) -> Path:
    """Return `path`; ValueError if it, or what it links to, lies outside of `root`.

    With `follow_links` only links may lead out of it, no name that goes up or starts elsewhere.
    """
    if _is_inside(root, path):
        return path
    if not path.is_relative_to(root) or ".." in path.relative_to(root).parts:
        raise ValueError(
            f"{path} leads out of {root} by its name. Copy the picture there, and name it as it is "
            "called in that folder."
        )
    if not follow_links:
        raise ValueError(
            f"{path} leads out of {root}. Copy the pictures there instead of linking to them, or, "
            "for training, set data.follow_links."
        )
    return path


def _is_inside(root: Path, path: Path) -> bool:
    """Return True if a path, or what it links to, lies in a folder."""
    try:
        return path.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError):  # a link to itself leads nowhere
        return True


def held_out(names: Sequence[str], key: str, share: float) -> set[str]:
    """Some of the names, chosen by themselves and a key: adding a picture moves no other one."""
    order = sorted(names, key=lambda name: hashlib.blake2b(f"{key}/{name}".encode()).digest())
    return set(order[: max(1, round(share * len(names)))])
