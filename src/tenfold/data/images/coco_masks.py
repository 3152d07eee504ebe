"""Masks of COCO's objects: polygons and run-length codes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64

from .crops import Crop, crop_of
from .decode import MAX_BYTES

Item = dict[str, Any]

FAR = 1e6
"""Pixels: a coordinate beyond is a mistake."""
LONG_OUTLINE = 100
"""Times height plus width; COCO's outlines reach 3. pycocotools holds every step along it."""


@dataclass(frozen=True)
class Entry:
    """One picture of an annotation file."""

    file: Path
    height: int
    width: int
    image_id: int
    objects: list[Item]


def is_number(value: object, most: int | float = FAR) -> bool:
    """Return True for a number that is neither NaN nor beyond `most`."""
    return isinstance(value, int | float) and -most <= value <= most


def polygons_of(shape: list[list[Any]]) -> list[list[Any]]:
    """Those polygons of an object that have corners enough."""
    return [part for part in shape if len(part) >= 6 and len(part) % 2 == 0]


def masks_of(
    objects: Sequence[Item], entry: Entry, unread: dict[str, str] | None = None
) -> Bool[np.ndarray, "object height width"]:
    """Masks of polygons or run-length codes; an object without either has an empty one.

    One that cannot be read is a ValueError, or empty as well and noted in `unread`.
    """
    need = len(objects) * entry.height * entry.width
    if need > MAX_BYTES:
        raise ValueError(
            f"{entry.file}: masks of {len(objects)} objects need {need / 2**30:.1f} GiB, more than "
            f"{MAX_BYTES / 2**30:.0f} GiB. Make the picture smaller, or cut it."
        )
    found = np.zeros((len(objects), entry.height, entry.width), dtype=bool)
    for row, item in enumerate(objects):
        try:
            found[row] = _mask(item, entry)
        except ValueError as error:
            if unread is None:
                raise
            unread[f"mask of annotation {item.get('id')} of {entry.file.name}"] = str(error)
    return found


def crop_of_item(item: Item, entry: Entry) -> Crop | None:
    """The mask of one object as the code of its crop; None for an object without one.

    Raises:
        ValueError: It cannot be read; the error names picture and annotation.
    """
    return crop_of(_mask(item, entry)) if item.get("segmentation") else None


def _mask(item: Item, entry: Entry) -> Bool[np.ndarray, "height width"]:
    shape = item.get("segmentation")
    if not shape:
        return np.zeros((entry.height, entry.width), dtype=bool)
    try:
        is_code = isinstance(shape, dict)
        return _painted(shape, entry) if is_code else _filled(polygons_of(shape), entry)
    except (ValueError, ArithmeticError, TypeError, KeyError) as error:
        raise ValueError(
            f"{entry.file}: annotation {item.get('id')} has a segmentation that cannot be read: "
            f"{error}"
        ) from error


def _filled(polygons: list[list[Any]], entry: Entry) -> Bool[np.ndarray, "height width"]:
    from pycocotools import mask

    if not all(is_number(value) for part in polygons for value in part):
        raise ValueError(f"its polygons hold what is no number from {-FAR:.0f} to {FAR:.0f}")
    # from the origin, so that an outline that is short but far away counts as well
    steps = [np.diff(np.reshape(p, (-1, 2)), axis=0, prepend=0.0) for p in polygons]
    length = max(float(np.abs(step).max(1).sum()) for step in steps)
    limit = LONG_OUTLINE * (entry.height + entry.width)
    if length > limit:
        raise ValueError(f"its outline is {length:.0f} pixels long, more than {limit}")
    code = mask.merge(mask.frPyObjects(polygons, entry.height, entry.width))
    return mask.decode([code])[..., 0].astype(bool)


def _painted(code: Item, entry: Entry) -> Bool[np.ndarray, "height width"]:
    """The mask of a run-length code: down the columns, first a run of zeros.

    Not by pycocotools: where the runs of a code end early, it leaves memory as it was.
    """
    if code["size"] != [entry.height, entry.width]:
        raise ValueError(f"its run-length code is of size {str(code['size'])[:40]}")
    counts, pixels = code["counts"], entry.height * entry.width
    runs = _unpacked(counts) if isinstance(counts, str) else np.array(counts)
    if runs.ndim != 1 or runs.dtype.kind != "i":
        raise ValueError("its runs are no list of whole numbers")
    if runs.min() < 0 or runs.max() > pixels or runs.sum() != pixels:
        raise ValueError(f"its runs do not add up to the {pixels} pixels of the picture")
    values = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return values.reshape(entry.width, entry.height).T


def _unpacked(text: str) -> Int64[np.ndarray, " run"]:
    """Runs of COCO's compressed code (pycocotools, rleToString).

    A number is characters of five bits from character 48 on, lowest first; bit 5 says that more
    follow, bit 4 of the last is the sign. From the fourth on they are differences to the run
    before the last.
    """
    bits = np.frombuffer(text.encode("utf-8"), dtype=np.uint8).astype(np.int64) - 48
    if not len(bits) or bits.min() < 0 or bits.max() > 63 or bits[-1] & 32:
        raise ValueError("its run-length code holds other characters, or ends too early")
    ends = np.flatnonzero(bits & 32 == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > 7:
        raise ValueError("its run-length code holds a number of more than 35 bits")
    places = 5 * (np.arange(len(bits)) - np.repeat(starts, lengths))
    runs = np.add.reduceat((bits & 31) << places, starts)
    runs -= (bits[ends] >> 4 & 1) << (5 * lengths)
    runs[1::2], runs[2::2] = runs[1::2].cumsum(), runs[2::2].cumsum()
    return runs
