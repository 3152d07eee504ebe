"""Human3.6M as exponential maps: the text tree `S<k>/<action>_<1|2>.txt` of earlier papers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .clips import Clip, check_frames, check_names, read_table
from .kinematics import forward_kinematics
from .skeleton import H36M, H36M_OFFSETS

ACTIONS = tuple(
    "walking eating smoking discussion directions greeting phoning posing purchases sitting "
    "sittingdown takingphoto waiting walkingdog walkingtogether".split()
)
"""The 15 actions (official `utils/h36motion3d.py`)."""
SUBJECTS = {"train": (1, 6, 7, 8, 9), "validation": (11,), "test": (5,)}
"""Subjects of each split (official `utils/h36motion3d.py`)."""


def read(path: Path, split: str, actions: Sequence[str] = (), length: int = 0) -> list[Clip]:
    """Clips of a split (train, validation, test), of all actions found or of those named.

    ``path`` holds the folders S1, S5, ...; what a folder lacks is not read, but a named action
    must be there. Every 2nd of 50 frames a second is kept, global translation and rotation are
    dropped, positions are in mm. ``length``: frames that a clip must have after that.
    Source: official `load_data_3d`.
    """
    check_names([split], SUBJECTS, "split", "h36m")
    check_names(actions, ACTIONS, "action", str(path))
    for inner in ("dataset", "h3.6m/dataset"):  # as the archive that papers share unpacks
        if (path / inner).is_dir():
            path = path / inner
    clips = []
    for subject in SUBJECTS[split]:
        folder = path / f"S{subject}"
        found = {file.stem.rpartition("_")[0] for file in folder.glob("[!.]*_[12].txt")}
        check_names(sorted(found), ACTIONS, "action", str(folder))
        for action in actions or ACTIONS:
            for take in (1, 2):
                file = folder / f"{action}_{take}.txt"
                if file.is_file():
                    table = read_table(file, 99)[::2]
                    check_frames(len(table), length, str(file), every=2)
                    table[:, :6] = 0
                    positions = forward_kinematics(table, H36M_OFFSETS, H36M.parents)
                    name = f"S{subject}/{action}_{take}"
                    clips.append(Clip(name, action, positions.astype(np.float32), H36M.fps))
    missing = sorted(set(actions) - {clip.action for clip in clips})
    if missing or not clips:
        raise ValueError(
            f"{path} has no {split} file of {', '.join(missing) or 'any action'}; looked for "
            f"{', '.join(f'S{subject}' for subject in SUBJECTS[split])}/<action>_<1|2>.txt. "
            "Set data.path to the folder that holds S1, S5, ..."
        )
    return clips
