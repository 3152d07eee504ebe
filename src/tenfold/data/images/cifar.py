"""CIFAR-100 as its authors give it: `cifar-100-python` or `cifar-100-binary`, unpickled safely."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ..io.pickles import load_arrays
from .decode import Pictures

CLASSES = 100
SIDE = 32
PIXELS = 3 * SIDE * SIDE
RECORD = 2 + PIXELS
"""Bytes of one picture of the binary version: coarse label, fine label, pixels."""
MAX_BYTES = 2**29


def read(folder: Path, split: str) -> Pictures:
    """All pictures of `train` or `test` in the order of the file, with their fine labels."""
    root, is_binary = find(folder)
    file = root / (f"{split}.bin" if is_binary else split)
    pixels, labels, names = (_binary if is_binary else _pickled)(file)
    if len(labels) == 0:
        raise ValueError(f"{file} holds no picture. Fetch it again.")
    wrong = np.flatnonzero((labels < 0) | (labels >= CLASSES))
    if len(wrong):
        raise ValueError(
            f"{file} row {wrong[0]} has label {labels[wrong[0]]}, allowed are 0-{CLASSES - 1}. "
            "Fetch it again."
        )
    images = torch.from_numpy(np.ascontiguousarray(pixels).reshape(-1, 3, SIDE, SIDE))
    return Pictures(images, torch.from_numpy(labels.astype(np.int64)), names)


def class_names(folder: Path) -> tuple[str, ...]:
    """The 100 fine labels in label order."""
    root, is_binary = find(folder)
    file = root / ("fine_label_names.txt" if is_binary else "meta")
    _need(file)
    if is_binary:
        names: object = file.read_text(encoding="utf-8").split()
    else:
        content = load_arrays(file)
        names = content.get("fine_label_names") if isinstance(content, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{file} has no list of fine_label_names. Fetch it again.")
    if len(set(names)) != CLASSES or len(names) != CLASSES:
        raise ValueError(
            f"{file} names {len(set(names))} classes, expected {CLASSES}. Fetch it again."
        )
    return tuple(names)


def find(folder: Path) -> tuple[Path, bool]:
    """Find the folder of the files, and whether they are the binary version."""
    for root in (folder, folder / "cifar-100-python", folder / "cifar-100-binary"):
        for name in ("train", "train.bin"):
            if (root / name).is_file():
                return root, name == "train.bin"
    raise FileNotFoundError(
        f"{folder} holds neither cifar-100-python/train nor cifar-100-binary/train.bin. Unpack the "
        "archive of CIFAR-100 there (`tenfold data info cifar100`)."
    )


def _need(file: Path) -> None:
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing. Unpack the archive of CIFAR-100 again.")
    if file.stat().st_size > MAX_BYTES:
        raise ValueError(
            f"{file} has {file.stat().st_size} bytes, more than the {MAX_BYTES} that a file of "
            "CIFAR-100 may have. Check where it comes from."
        )


def _binary(file: Path) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    _need(file)
    size = file.stat().st_size
    if size % RECORD:
        raise ValueError(
            f"{file} has {size} bytes, which is no multiple of {RECORD} (a picture): it is cut off "
            "or not of CIFAR-100. Fetch it again."
        )
    records = np.fromfile(file, dtype=np.uint8).reshape(-1, RECORD)
    names = tuple(f"{file.name}:{row}" for row in range(len(records)))
    return records[:, 2:], records[:, 1], names


def _pickled(file: Path) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    _need(file)
    content = load_arrays(file)
    if not isinstance(content, dict) or not {"data", "fine_labels"} <= content.keys():
        raise ValueError(f"{file} has no data and fine_labels. Fetch it again.")
    pixels, labels = content["data"], content["fine_labels"]
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.ndim != 2:
        raise ValueError(f"{file}: data is no table of uint8. Fetch it again.")
    if pixels.shape[1] != PIXELS:
        raise ValueError(f"{file}: data has {pixels.shape[1]} columns, expected {PIXELS}.")
    if not isinstance(labels, list) or not all(type(label) is int for label in labels):
        raise ValueError(f"{file}: fine_labels is no list of whole numbers. Fetch it again.")
    names = content.get("filenames", [f"{file.name}:{row}" for row in range(len(labels))])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{file}: filenames is no list of names. Fetch it again.")
    if not len(pixels) == len(labels) == len(names):
        raise ValueError(
            f"{file} has {len(pixels)} pictures, {len(labels)} labels and {len(names)} file names: "
            "it is damaged. Fetch it again."
        )
    if any(not -(2**31) <= label < 2**31 for label in labels):
        raise ValueError(f"{file} has a label outside 0-{CLASSES - 1}. Fetch it again.")
    return pixels, np.array(labels, dtype=np.int64), tuple(names)
