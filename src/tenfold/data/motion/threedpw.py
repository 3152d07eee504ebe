"""3DPW: joint positions from `sequenceFiles/{train,validation,test}/*.pkl`, unpickled safely."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..io.pickles import load_arrays
from .bvh_folder import files_below
from .clips import Clip, check_frames, check_names, check_table
from .skeleton import THREEDPW

SPLITS = ("train", "validation", "test")


def read(path: Path, split: str, length: int = 0) -> list[Clip]:
    """Clips of a split, one a person and sequence, 24 joints relative to the pelvis, in mm.

    ``path`` holds the three split folders (or `sequenceFiles` does). All frames are kept: the test
    rule "the last frames of 50 observed" is `protocol_windows(..., "3dpw", "all", ...)`. The set
    has no actions, and errors are means over all windows, so the action of every clip is "all".
    Source: official `utils/pose3dpw3d.py`.
    """
    check_names([split], SPLITS, "split", "3dpw")
    folder = path / "sequenceFiles" if (path / "sequenceFiles").is_dir() else path
    files = files_below(folder / split, (".pkl",))
    if not files:
        raise ValueError(
            f"{folder / split} holds no .pkl file. Set data.path to the folder that holds "
            "train, validation and test."
        )
    clips = []
    for file in files:
        content = load_arrays(file)
        people = content.get("jointPositions") if isinstance(content, dict) else None
        if not isinstance(people, (list, tuple)) or not people:
            raise ValueError(
                f"{file} has no list 'jointPositions'. Use the sequence files of 3DPW as they are."
            )
        for person, table in enumerate(people):
            source = f"{file} jointPositions[{person}]"
            if not isinstance(table, np.ndarray):
                raise ValueError(f"{source} is a {type(table).__name__}, expected an array.")
            check_table(table, 72, source)
            check_frames(len(table), length, source)
            joints = table.reshape(-1, 24, 3).astype(np.float64)
            metres = joints - joints[:, :1]
            clips.append(
                Clip(
                    f"{split}/{file.stem}/{person}",
                    "all",
                    (1000 * metres).astype(np.float32),
                    THREEDPW.fps,
                )
            )
    return clips
