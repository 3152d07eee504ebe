"""Pixels of each class in each label map, counted once.

Counts are kept under $TENFOLD_CACHE/class_statistics (by default ~/.cache/tenfold/...), in a file
whose name is a hash of all label maps and of how they are read: whatever changes, they are counted
anew. The statistics files of the official preparation (DAFormer, tools/convert_datasets), which may
lie beside the set, are taken instead.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from ..io import cache
from ..io.problems import some
from .segmentation import IGNORED, SUFFIX, Segmented

SAMPLES, WITH_CLASS = "sample_class_stats.json", "samples_with_class.json"
"""Official names: [{class: pixels, "file": path}] and {class: [[path, pixels]]}."""
MOST = 2**30
"""Bytes of a statistics file that is read (GTA5's has 6 million)."""

Pixels = Int64[np.ndarray, "picture class"]


def class_statistics(found: Segmented, folder: Path | None = None) -> Pixels:
    """Count the pixels of each class in each label map of a set.

    Args:
        found: The set.
        folder: The set's own, in which official statistics are looked for.

    Raises:
        ValueError: A label map cannot be read (with `skip_broken`, it counts as empty), or official
            statistics are damaged or not of these maps.
    """
    if folder is not None and found.files:
        for name in (SAMPLES, WITH_CLASS):
            if (folder / name).is_file():
                return _official(found, folder / name)
    if not found.files:
        return _counted(found, range(len(found)))
    file = cache.folder("class_statistics") / f"{_key(found)}.json"
    kept = _read_kept(file, (len(found), len(found.classes)))
    if kept is None:
        kept = _counted(found, range(len(found)))
        _keep(file, kept)
    return kept


def _counted(found: Segmented, rows: Iterable[int]) -> Pixels:
    kinds = len(found.classes)
    lines = []
    for row in rows:
        try:
            labels = found.labels(row)
        except (ValueError, OSError):
            if not found.reading.skip_broken:
                raise
            labels = np.full((1, 1), IGNORED, dtype=np.uint8)
        lines.append(np.bincount(labels.ravel(), minlength=IGNORED + 1)[:kinds])
    return np.array(lines, dtype=np.int64).reshape(-1, kinds)


# --- our file ------------------------------------------------------------------------------------


def _key(found: Segmented) -> str:
    """Hash of everything that the counts follow from."""
    how = (found.classes, found.shift, found.void, found.values, found.table, found.first_channel,
           found.colours, found.reading.skip_broken)  # fmt: skip
    digest = hashlib.sha256(repr(how).encode())
    for _, file in found.files:
        # a map that is not there is named when it is counted
        content = file.read_bytes() if file.is_file() else b""
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()


def _read_kept(file: Path, shape: tuple[int, int]) -> Pixels | None:
    """The counts of a file; None if it is not there or damaged (then it is written anew)."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        found = np.array(content["pixels"])
        whole = found.shape == shape and found.dtype.kind == "i"
        sound = whole and content["sha256"] == _sum(found.astype(np.int64))
    except (OSError, ValueError, TypeError, KeyError, RecursionError, OverflowError):
        return None
    return found.astype(np.int64) if sound else None


def _sum(pixels: Pixels) -> str:
    return hashlib.sha256(pixels.tobytes()).hexdigest()


def _keep(file: Path, pixels: Pixels) -> None:
    """Write counts; several processes may."""
    content = json.dumps({"sha256": _sum(pixels), "pixels": pixels.tolist()})
    cache.keep(file, lambda place: place.write_text(content, encoding="utf-8"), "class statistics")


# --- official files ------------------------------------------------------------------------------


def _official(found: Segmented, file: Path) -> Pixels:
    """The counts of an official file, in the order of the set; some are compared."""
    counts: dict[str, dict[int, int]] = {}
    for name, kind, pixels in _entries(file):
        if not 0 <= kind < len(found.classes) or pixels < 0:
            raise ValueError(
                f"{file}: {name[:100]!r} has {pixels} pixels of class {kind}, but the set has "
                f"{len(found.classes)} classes. Delete the file: they are counted then."
            )
        counts.setdefault(_stem(name), {})[kind] = pixels
    stems = [_stem(label.name) for _, label in found.files]
    if counts.keys().isdisjoint(stems):
        raise ValueError(
            f"{file} has no entry for any of {len(stems)} label maps: {some(stems)}. Delete it: "
            "they are counted then."
        )
    result = np.zeros((len(stems), len(found.classes)), dtype=np.int64)
    for row, stem in enumerate(stems):
        if stem not in counts:  # one in which nothing counts has no entry
            result[row] = _counted(found, [row])[0]
        for kind, pixels in counts.get(stem, {}).items():
            result[row, kind] = pixels
    for row in sorted({0, len(stems) // 2, len(stems) - 1}):
        if not np.array_equal(_counted(found, [row])[0], result[row]):
            raise ValueError(
                f"{file} is not of these label maps: {found.files[row][1].name} has other counts "
                "(another class map, or other sizes). Delete it: they are counted then."
            )
    return result


def _stem(name: str) -> str:
    """Name of a label map without folder and ending, and without `_labelTrainIds` and the like."""
    return SUFFIX.sub("", Path(name).stem)


def _entries(file: Path) -> list[tuple[str, int, int]]:
    """Name, class and pixels, one by one, of either official file."""
    if file.stat().st_size > MOST:
        raise ValueError(f"{file} has more than {MOST} bytes; delete it, and classes are counted")
    try:
        content: Any = json.loads(file.read_text(encoding="utf-8-sig"))
        if file.name == SAMPLES:
            return [
                (_text(one["file"]), int(kind), _whole(pixels))
                for one in content
                for kind, pixels in one.items()
                if kind != "file"
            ]
        return [
            (_text(name), int(kind), _whole(pixels))
            for kind, pictures in content.items()
            for name, pixels in pictures
        ]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{file} is no list of class statistics ({type(error).__name__}: {error}). Delete it: "
            "they are counted then."
        ) from error


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{str(value)[:40]!r} is no name")
    return value


def _whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value >= 2**62:
        raise TypeError(f"{str(value)[:40]!r} is no count of pixels")
    return value


def shares(pixels: Pixels, classes: Sequence[str]) -> dict[str, float]:
    """Share of each class in all counted pixels, by name."""
    total = max(1, int(pixels.sum()))
    return {name: float(count) / total for name, count in zip(classes, pixels.sum(0), strict=True)}
