"""`cls_labels.npy`: image-level labels as PSA, SEAM, MCTformer and others hand them on.

A pickled dict, name of a picture -> numbers of 0 and 1. Names are texts (`2007_000032`, with an
ending or without) or whole numbers (IRN: 2007000032), in files of numpy 1 and 2.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from ..io.pickles import load_npy
from .picture_names import is_picture_name

NAMES = ("cls_labels.npy", "cls_labels_onehot.npy")
"""Names of the file."""
MOST_PICTURES = 2_000_000

ClsLabels = dict[str, tuple[int, ...]]
"""Name of a picture without ending -> classes from 0 on."""


def find_cls_labels(*folders: Path) -> Path | None:
    """The first of these folders' files."""
    return next((p / name for p in folders for name in NAMES if (p / name).is_file()), None)


def read_cls_labels(file: Path, num_classes: int, year: int = 4) -> ClsLabels:
    """Read the labels of all pictures.

    Args:
        file: The `.npy`.
        num_classes: Numbers that each picture must have.
        year: Digits before the underline of VOC's names, which whole numbers lost; 0: none.

    Raises:
        ValueError: The file is no such dict, is damaged, asks for code to be run, or a picture has
            another number of classes or other values than 0 and 1.
    """
    content = load_npy(file)
    if not isinstance(content, dict):
        raise ValueError(f"{file} holds a {type(content).__name__}, not labels by picture.")
    if len(content) > MOST_PICTURES:
        raise ValueError(f"{file} has {len(content)} pictures, more than {MOST_PICTURES}.")
    found: ClsLabels = {}
    for key, value in content.items():
        name = _name(file, key, year)
        row = _row(file, name, value, num_classes)
        labels = tuple(np.flatnonzero(row).tolist())
        if found.setdefault(name, labels) != labels:
            raise ValueError(f"{file} has two rows for {name}, which differ.")
    return found


def _name(file: Path, key: Any, year: int) -> str:
    if isinstance(key, bytes):
        key = key.decode("utf-8", "replace")
    if isinstance(key, str) and key:
        name = key.replace("\\", "/").rpartition("/")[2]
        name = name.rpartition(".")[0] if is_picture_name(name) else name
    elif isinstance(key, int | np.integer) and not isinstance(key, bool) and key >= 0:
        name = str(int(key))
    else:
        raise ValueError(f"{file}: {str(key)[:40]!r} is no name of a picture.")
    is_bare = name.isdecimal() and len(name) == 10
    return f"{name[:year]}_{name[year:]}" if year and is_bare else name


def _row(file: Path, name: str, value: Any, num_classes: int) -> Bool[np.ndarray, " class"]:
    is_list = isinstance(value, list | tuple) and all(isinstance(n, int | float) for n in value)
    row = np.array(value) if is_list or isinstance(value, np.ndarray) else np.empty(0)
    if row.ndim != 1 or row.dtype.kind not in "biuf" or len(row) != num_classes:
        hint = ""
        if num_classes == 80 and row.shape in ((90,), (91,)):
            hint = " These are COCO's numbers up to 90: convert them to the 80 classes in order."
        raise ValueError(
            f"{file}: {name} has values of shape {row.shape} and type {row.dtype}, expected "
            f"{num_classes} of 0 and 1.{hint}"
        )
    if ((row != 0) & (row != 1)).any():
        wrong = row[(row != 0) & (row != 1)][0]
        raise ValueError(f"{file}: {name} has the value {wrong}, expected 0 or 1.")
    return row == 1
