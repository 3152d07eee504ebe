"""Folders of BVH files as motion clips of one skeleton."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterable
from pathlib import Path

from .bodies import fitted, height_mm, is_likely, matched, skeleton_of
from .bvh import read_bvh
from .bvh_motion import SAME_RATE
from .clips import Clip, check_names
from .skeleton import Skeleton


def files_below(
    folder: Path, endings: Iterable[str] = (".bvh",), unread: list[Path] | None = None
) -> list[Path]:
    """Files of these endings, in any letter case, in a folder and those in it; hidden ones not.

    Archives made on a Mac hold a hidden `._walk.bvh` beside `walk.bvh`. `unread` gets the folders
    in it that may not be looked into, which are an error without it, and links to folders
    elsewhere, which are not followed.
    """

    def failed(error: OSError) -> None:  # os.walk would leave the folder out without a word
        if unread is None or Path(error.filename) == folder:
            raise error
        unread.append(Path(error.filename))

    if not folder.is_dir():
        return []
    known, found = tuple(endings), []
    for at, folders, files in os.walk(folder, onerror=failed):
        folders[:] = [name for name in folders if not name.startswith(".")]
        if unread is not None:
            unread += [link for name in folders if _leads_out(link := Path(at) / name, folder)]
        found += [
            Path(at) / name  # a pipe is refused by its reader, by name
            for name in files
            if Path(name).suffix.lower() in known and not name.startswith(".")
        ]
    return sorted(found)


def _leads_out(path: Path, folder: Path) -> bool:
    """Return True for a link to a place outside of a folder; os.walk does not go there."""
    return path.is_symlink() and not path.resolve().is_relative_to(folder.resolve())


def read(
    path: Path,
    split: str,
    skeleton: Skeleton,
    length: int = 0,
    unit: float = 10.0,
    any_rate: bool = True,
) -> list[Clip]:
    """Clips of a split ("train" or "test") of a folder of BVH files, the body's root dropped.

    Splits are the subfolders train and test, else the last fifth of the files is the test, or of
    the frames of a single file. The action is the subfolder's name, or the file name without its
    number. Joints are found by name; every body gets the skeleton's lengths of bones. (ours)

    Args:
        path: Folder, or one file.
        split: Of the two.
        skeleton: Body and frame rate of the clips, as `read_skeleton` finds it.
        length: Frames that a clip must have.
        unit: Millimetres in the files' unit of length, where the skeleton has no lengths of bones
            (10: centimetres, the common case; the CMU conversion: 56.4).
        any_rate: Resample files of other rates; False refuses them.

    Raises:
        ValueError: A file cannot be read or is too short, or has another skeleton or rate.
    """
    check_names([split], ("train", "test"), "split", "bvh")
    clips = []
    for file, is_shared in split_files(path, split):
        bvh = read_bvh(file)
        joints = matched(bvh, skeleton, file)
        if not any_rate and abs(bvh.fps / skeleton.fps - 1) >= SAME_RATE:
            raise ValueError(
                f"{file} has {bvh.fps:.6g} frames a second, the first training file "
                f"{skeleton.fps:.6g}. Name one rate that all are resampled to: --data.fps"
            )
        bvh = bvh.resample(skeleton.fps)
        positions = fitted(bvh, skeleton, joints, unit, file)
        source = f"{file} has {len(positions)} frames"
        if is_shared:
            cut = len(positions) - len(positions) // 5
            positions = positions[:cut] if split == "train" else positions[cut:]
            part = "last fifth, the test split," if split == "test" else "first four fifths"
            source = f"{file}: the {part} of its {len(bvh.motion)} frames has {len(positions)}"
        if len(positions) < length:
            raise ValueError(
                f"{source}, but data.past + data.future = {length} are needed. Reduce data.past or "
                "data.future, or give longer takes, or folders train and test"
            )
        is_named = file.parent not in (path, split_folders(path).get(split), path.parent)
        stem = re.sub(r"[\W_]*\d+$", "", file.stem) or file.stem
        action = file.parent.name if is_named else stem
        clips.append(Clip(f"{split}/{action}/{file.stem}", action, positions, skeleton.fps))
    return clips


def read_skeleton(path: Path, unit: float = 10.0) -> Skeleton:
    """The skeleton of a BVH file, or of the first training file of a folder, with its body parts.

    Args:
        path: File or folder.
        unit: Millimetres in the file's unit of length; a body that is no human's size by it is
            warned of.
    """
    first = split_files(path, "train")[0][0]
    bvh = read_bvh(first)
    tall = height_mm(bvh, unit)
    if not is_likely(tall):
        warnings.warn(
            f"{first} holds a body of {tall:.4g} mm at {unit:g} mm a unit; is --data.mm-per-unit "
            "right (1000 for metres, 10 for centimetres, 25.4 for inches)?",
            stacklevel=2,
        )
    try:
        return skeleton_of(bvh, unit)
    except ValueError as error:
        raise ValueError(f"{first}, of which the skeleton is taken: {error}") from None


def split_folders(path: Path) -> dict[str, Path]:
    """Sub-folders train and test of a folder, in any letter case, where there is one of them."""
    # where a disk tells case apart, the lower one comes last, and wins
    folders = {folder.name.lower(): folder for folder in sorted(path.glob("*")) if folder.is_dir()}
    return {split: folders[split] for split in ("train", "test") if split in folders}


def split_files(path: Path, split: str) -> list[tuple[Path, bool]]:
    """Files of a split, and whether the one file is shared between both splits."""
    if path.is_file():
        return [(path, True)]
    splits = split_folders(path)
    has_splits = bool(splits)
    if has_splits and split not in splits:
        raise ValueError(
            f"{path} has a sub-folder {', '.join(f.name for f in splits.values())}, but none for "
            f"the split {split!r}. Add it, or put all files in one folder without sub-folders "
            "train and test."
        )
    files = files_below(splits[split] if has_splits else path)
    if not files:
        raise ValueError(
            f"{path} holds no .bvh file for the split {split!r}. Set data.path to a BVH file or a "
            "folder of them."
        )
    if has_splits or len(files) == 1:
        return [(file, not has_splits) for file in files]
    cut = len(files) - max(len(files) // 5, 1)
    return [(file, False) for file in (files[:cut] if split == "train" else files[cut:])]
