"""CMU Mocap, the part that motion prediction papers use: text tree or `benchmark.npz`."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tenfold.data.io.npz import BROKEN, read_npz

from .clips import Clip, check_frames, check_names, check_table, read_table
from .kinematics import forward_kinematics
from .skeleton import CMU, CMU_OFFSETS

ACTIONS = tuple(
    "basketball basketball_signal directing_traffic jumping running soccer walking "
    "washwindow".split()
)
"""The benchmark's 8 actions (official `define_actions_cmu`)."""
EXTRA = ("walking_extra",)  # in the source repository, but used by no paper: read only if asked for
SPLITS = ("train", "test")
MAX_ARCHIVE_BYTES = 2**31


def read(path: Path, split: str, actions: Sequence[str] = (), length: int = 0) -> list[Clip]:
    """Clips of a split ("train" or "test"), of all benchmark actions found or of those named.

    ``path`` is the set's folder, `benchmark.npz`, or the tree `{train,test}/<action>/*.txt`.
    Every 2nd frame is kept, so 60 frames a second remain of 120; frame 0, a T-pose, is kept as in
    the official code. Positions are in the benchmark's mm (about 1.24 real mm). ``length``: frames
    that a clip must have after that. Source: official `load_data_cmu_3d`.
    """
    files = _files(path, split)
    check_names(actions, (*ACTIONS, *EXTRA), "action", str(path))
    check_names((key.split("/")[1] for key in files), (*ACTIONS, *EXTRA), "action", str(path))
    clips = []
    for key, file in files.items():
        action = key.split("/")[1]
        if action in (actions or ACTIONS):
            source = f"{file} {key}" if file.suffix == ".npz" else str(file)
            table = _table(file, key) if file.suffix == ".npz" else read_table(file, 117)
            check_table(table, 117, source)
            # kinematics are frame by frame, so sub-sampling first gives the same and costs half
            positions = forward_kinematics(table[::2], CMU_OFFSETS, CMU.parents)
            check_frames(len(positions), length, source, every=2)
            clips.append(Clip(key, action, positions.astype(np.float32), CMU.fps))
    missing = sorted(set(actions) - {clip.action for clip in clips})
    if missing or not clips:
        raise ValueError(
            f"{path} has no {split} file of {', '.join(missing) or 'any action'}; it has "
            f"{', '.join(dict.fromkeys(key.split('/')[1] for key in files)) or 'none'}. "
            "Name other actions, or complete the data set."
        )
    return clips


def _files(path: Path, split: str) -> dict[str, Path]:
    """Keys `<split>/<action>/<file>` in natural order, and the file (npz or text) of each."""
    check_names([split], SPLITS, "split", "cmu_mocap")
    if path.is_dir() and not any((path / name).is_dir() for name in SPLITS):
        path = path / "benchmark.npz"
    if path.is_dir():
        texts = (path / split).glob("[!.]*/[!.]*.txt")
        found = {f"{split}/{file.parent.name}/{file.stem}": file for file in texts}
    elif path.is_file():
        try:
            with zipfile.ZipFile(path) as archive:
                size = sum(entry.file_size for entry in archive.infolist())
                names = [name.removesuffix(".npy") for name in archive.namelist()]
        except BROKEN as error:
            raise ValueError(f"{path} is damaged or cut off: {error}. Copy it again.") from error
        if size > MAX_ARCHIVE_BYTES:
            raise ValueError(
                f"{path} unpacks to {size} bytes, more than the {MAX_ARCHIVE_BYTES} that this data "
                "set may have. Check that it is benchmark.npz."
            )
        found = {n: path for n in names if re.fullmatch(rf"{split}/[^/]+/[^/]+", n)}
    else:
        raise ValueError(
            f"{path} does not exist: expected benchmark.npz, or folders train and test of "
            "<action>/<action>_<i>.txt. Set data.path. BVH files of your own are --data.name bvh."
        )
    return dict(sorted(found.items(), key=lambda item: _natural(item[0])))


def _table(path: Path, key: str) -> np.ndarray:
    """One array of an npz; pickled objects are refused."""
    try:
        return read_npz(path, (key,), MAX_ARCHIVE_BYTES)[0][key]
    except ValueError as error:
        raise ValueError(
            f"{path} {key} cannot be read: {error}. Only plain number arrays are read; if the file "
            "is damaged, copy it again."
        ) from error


def _natural(key: str) -> list[tuple[int, str]]:
    """Sort key that puts walking_2 before walking_10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", key)]
