"""Recipe of CMU Mocap: the benchmark's text files to one archive."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..io.problems import BROKEN
from .cmu_files import COLUMNS


def cmu_mocap(source: Path, out: Path) -> None:
    """Text tree to benchmark.npz; `walking_extra` folders, if any, to walking_extra.npz."""
    main: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    for split in ("train", "test"):
        for file in sorted(
            (source / split).glob("[!.]*/[!.]*.txt"),
            key=lambda file: (file.parent.name, _number(file)),
        ):
            key = f"{split}/{file.parent.name}/{file.stem}"
            (extra if file.parent.name == "walking_extra" else main)[key] = _frames(file)
    if not main:
        raise FileNotFoundError(
            f"{source} holds no {{train,test}}/<action>/<action>_<i>.txt: give the folder "
            "data/cmu_mocap of the repository."
        )
    np.savez_compressed(out / "benchmark.npz", allow_pickle=False, **main)
    if extra:
        np.savez_compressed(out / "walking_extra.npz", allow_pickle=False, **extra)


def _frames(file: Path) -> np.ndarray:
    try:
        frames = np.loadtxt(file, delimiter=",", dtype=np.float32, ndmin=2)
    except BROKEN as error:
        raise ValueError(
            f"{file} cannot be read as comma-separated numbers: {error}. Fetch it again."
        ) from error
    if frames.shape[1:] != (COLUMNS,) or not np.isfinite(frames).all():
        raise ValueError(
            f"{file} has shape {frames.shape} and {(~np.isfinite(frames)).sum()} non-finite "
            f"values, expected (frames, {COLUMNS}) finite numbers. Fetch it again."
        )
    return frames


def _number(file: Path) -> int:
    """Trailing number of a file name: walking_12 -> 12, val_8.JPEG -> 8."""
    digits = file.stem.rpartition("_")[2]
    if not digits.isdigit():
        raise ValueError(f"{file} does not end in _<number>: rename or remove it.")
    return int(digits)
