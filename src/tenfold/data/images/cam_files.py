"""Class activation maps on disk: ours, and those of PSA, MCTformer, SEAM and IRN.

Ours are `.npz` of plain arrays. Theirs are `.npy` that hold a pickled dict, class -> map, or (IRN)
`keys`, `cam` and `high_res`; they are read by a list of what may be in them.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float32
from numpy.lib import format as npy

from tenfold.files import parse_json, replacing

from ..io.npz import read_npz
from ..io.pickles import load_npy
from ..io.problems import some
from .decode import MAX_PIXELS

Maps = Float32[np.ndarray, "class height width"]

MOST_BYTES = 2**30
"""Largest array of maps, in memory."""
MOST_SETTING = 2**16
"""Characters of a setting."""
LARGEST = float(np.finfo(np.float16).max)
KEYS = ("maps", "keys", "setting")


def write(
    path: Path,
    maps: Mapping[int, Float[np.ndarray, "height width"]],
    setting: Mapping[str, Any] | None = None,
) -> None:
    """Write the maps of a picture as `.npz`: float16, the same bytes each time.

    Args:
        path: The file.
        maps: Class, from 0 on -> map. Of one size; none for a picture without labels.
        setting: How the maps were made (scales, flips, normalisation, ...), as JSON.

    Raises:
        ValueError: The maps differ in size, or hold NaN or more than float16 can.
    """
    keys = sorted(maps)
    shapes = {maps[key].shape for key in keys}
    if len(shapes) > 1:
        raise ValueError(f"{path}: maps of a picture have several sizes: {some(sorted(shapes))}")
    values = np.stack([maps[key] for key in keys]) if keys else np.zeros((0, 0, 0))
    if not np.isfinite(values).all() or np.abs(values).max(initial=0) > LARGEST:
        raise ValueError(f"{path}: maps hold NaN, or more than {LARGEST:.0f}. Normalise them.")
    arrays = {
        "maps": values.astype(np.float16),
        "keys": np.array(keys, dtype=np.int64),
        "setting": np.frombuffer(json.dumps(dict(setting or {})).encode(), dtype=np.uint8),
    }
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "x") as archive:
        for name, array in arrays.items():
            content = io.BytesIO()
            npy.write_array(content, array, allow_pickle=False)
            member = zipfile.ZipInfo(f"{name}.npy")  # dated 1980
            archive.writestr(member, content.getvalue(), zipfile.ZIP_DEFLATED, 1)


def read(path: Path, num_classes: int) -> Maps:
    """The maps of a picture, ours or a peer's; those of classes that the file lacks are 0.

    Of IRN's two sizes, the picture's own is taken. Values are as they are stored: PSA, MCTformer
    and IRN divide by the largest of each map.

    Args:
        path: `.npz` of `write`, or `.npy` of a peer.
        num_classes: Number of classes, which the file does not say.

    Raises:
        ValueError: The file is damaged, too large, asks for code to be run, or has a class or a
            shape that cannot be; the error says what.
        FileNotFoundError: It is not there.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there. Give the activation maps of the picture.")
    if path.suffix == ".npz":
        keys, maps = _ours(path)
    else:
        keys, maps = _theirs(path)
    wrong = [key for key in keys if not 0 <= key < num_classes]
    if wrong:
        raise ValueError(
            f"{path} has maps of class {some(wrong)}, but there are {num_classes} classes, counted "
            "from 0. Are its classes counted from 1, or COCO's numbers up to 90?"
        )
    if len(set(keys)) < len(keys):
        raise ValueError(f"{path} has two maps of one class among {some(keys)}.")
    need = 4 * num_classes * maps.shape[1] * maps.shape[2]
    if need > MOST_BYTES or maps.shape[1] * maps.shape[2] > MAX_PIXELS:
        raise ValueError(
            f"{path}: {num_classes} maps of {maps.shape[2]} x {maps.shape[1]} need {need} bytes, "
            f"more than {MOST_BYTES}. Make the picture smaller."
        )
    found = np.zeros((num_classes, *maps.shape[1:]), dtype=np.float32)
    found[list(keys)] = maps
    if not np.isfinite(found).all():
        raise ValueError(f"{path} holds values that are no finite numbers. Make it anew.")
    return found


def read_setting(path: Path) -> dict[str, Any]:
    """How the maps of a file were made; empty where a peer's file does not say it."""
    if path.suffix != ".npz":
        return {}
    return _setting(path, read_npz(path, ("setting",), MOST_SETTING)[0])


def _setting(path: Path, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    try:
        found = parse_json(arrays["setting"].tobytes().decode())
    except (KeyError, ValueError) as error:
        raise ValueError(f"{path} does not say how its maps were made: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path}: its setting is no JSON object")
    return found


def _ours(path: Path) -> tuple[list[int], np.ndarray]:
    arrays, names = read_npz(path, KEYS, MOST_BYTES)
    lost = [key for key in KEYS if key not in arrays]
    if lost:
        raise ValueError(
            f"{path} lacks {some(lost)}; it has {some(names)}. It has no maps of ours."
        )
    maps, keys = arrays["maps"], arrays["keys"]
    if maps.dtype != np.float16 or maps.ndim != 3 or keys.dtype != np.int64:
        raise ValueError(f"{path}: maps must be float16 of three dimensions, keys int64.")
    return _fitting(path, keys.tolist() if keys.ndim == 1 else [], maps)


def _theirs(path: Path) -> tuple[list[int], np.ndarray]:
    content = load_npy(path, tensors=True)
    if isinstance(content, np.ndarray):
        return _fitting(path, list(range(len(content))) if content.ndim else [], content)
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, not maps by class.")
    if "keys" in content:
        maps = content.get("high_res", content.get("cam"))
        keys = content["keys"]
        if isinstance(keys, list) and all(isinstance(key, int) for key in keys):
            keys = np.array(keys, dtype=np.int64)
        is_list = isinstance(keys, np.ndarray) and keys.dtype.kind in "iu" and keys.ndim == 1
        if not isinstance(maps, np.ndarray) or not is_list:
            raise ValueError(f"{path}: keys must be class numbers, and cam or high_res their maps.")
        return _fitting(path, keys.tolist(), maps)
    shapes = {value.shape for value in content.values() if isinstance(value, np.ndarray)}
    if len(shapes) != 1 or not all(isinstance(v, np.ndarray) for v in content.values()):
        raise ValueError(f"{path} must hold maps of one size by class; sizes: {some(shapes)}.")
    if any(value.dtype.kind not in "biuf" for value in content.values()):
        raise ValueError(f"{path} holds maps that are no numbers.")
    return _fitting(path, [_number(path, key) for key in content], _stacked(path, content))


def _stacked(path: Path, content: Mapping[Any, np.ndarray]) -> np.ndarray:
    size = sum(value.size for value in content.values())
    if 4 * size > MOST_BYTES:
        raise ValueError(f"{path} has maps of {4 * size} bytes, more than {MOST_BYTES}.")
    return np.stack([value.astype(np.float32) for value in content.values()])


def _number(path: Path, key: object) -> int:
    """The class of a key, which may be a text or a number of numpy."""
    if isinstance(key, np.integer) or (isinstance(key, int) and not isinstance(key, bool)):
        return int(key)
    if isinstance(key, str) and key.isascii() and key.isdecimal() and len(key) < 6:
        return int(key)
    raise ValueError(f"{path}: {str(key)[:40]!r} is no number of a class.")


def _fitting(path: Path, keys: Sequence[int], maps: np.ndarray) -> tuple[list[int], np.ndarray]:
    if maps.ndim != 3 or len(maps) != len(keys) or maps.dtype.kind not in "biuf":
        raise ValueError(
            f"{path} has maps of shape {maps.shape} and type {maps.dtype} for {len(keys)} classes; "
            "expected numbers of class, height and width."
        )
    if len(keys) and 0 in maps.shape:
        raise ValueError(f"{path} has maps without a pixel, of shape {maps.shape}.")
    return list(keys), maps
