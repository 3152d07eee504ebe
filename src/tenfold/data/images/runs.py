"""COCO's run-length codes of masks: checked, made of maps of numbers, painted."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64, Integer

from tenfold.structures import Code

from .coco_masks import unpacked
from .decode import MAX_PIXELS


def checked(code: Any, size: tuple[int, int] | None = None) -> Code:
    """A code of a file, compressed, its runs found to fill the picture.

    Raises:
        ValueError: It is no code, or not of that size (height, width).
    """
    if not isinstance(code, dict) or not {"size", "counts"} <= code.keys():
        raise ValueError("a mask is an object of size and counts (COCO's run-length code)")
    sides, counts = code["size"], code["counts"]
    if not (isinstance(sides, list | tuple) and len(sides) == 2
            and all(type(side) is int and side > 0 for side in sides)):  # fmt: skip
        raise ValueError(f"the size of a mask is [height, width], got {str(sides)[:40]}")
    if size is not None and tuple(sides) != size:
        raise ValueError(
            f"a mask is of {sides[0]} x {sides[1]} pixels (height x width), the picture of "
            f"{size[0]} x {size[1]}"
        )
    pixels = sides[0] * sides[1]
    if pixels > MAX_PIXELS:
        raise ValueError(f"a mask has {pixels} pixels, more than {MAX_PIXELS}")
    runs = unpacked(counts) if isinstance(counts, str) else _listed(counts, pixels)
    if not len(runs) or runs.min() < 0 or runs.max() > pixels or runs.sum() != pixels:
        raise ValueError(f"the runs of a mask do not add up to the {pixels} pixels of its picture")
    return packed(runs, (sides[0], sides[1]))


def _listed(counts: Any, pixels: int) -> Int64[np.ndarray, " run"]:
    if not isinstance(counts, list) or not all(type(run) is int for run in counts):
        raise ValueError("the counts of a mask are a text, or a list of whole numbers")
    if any(not 0 <= run <= pixels for run in counts):
        raise ValueError(f"a run of a mask is negative, or longer than its {pixels} pixels")
    return np.array(counts, dtype=np.int64)


def packed(runs: Int64[np.ndarray, " run"], size: tuple[int, int]) -> Code:
    """The code of runs down the columns, the first of zeros."""
    from pycocotools import mask

    found = mask.frPyObjects({"size": list(size), "counts": runs.tolist()}, *size)
    return {"size": list(size), "counts": found["counts"].decode("ascii")}


def code_of(pixels: Bool[np.ndarray, "height width"]) -> Code:
    """The code of a mask."""
    found = codes_of(pixels.astype(np.int64))
    return found.get(1) or empty(pixels.shape[0], pixels.shape[1])


def empty(height: int, width: int) -> Code:
    """A mask without a pixel."""
    return packed(np.array([height * width]), (height, width))


def full(height: int, width: int) -> Code:
    """A mask of all pixels."""
    return packed(np.array([0, height * width]), (height, width))


def mask_of(code: Code) -> Bool[np.ndarray, "height width"]:
    """The mask of a code that was `checked`."""
    lengths = unpacked(code["counts"])
    height, width = code["size"]
    return np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(width, height).T


def pixels_of(code: Code) -> Int64[np.ndarray, " pixel"]:
    """Places of a mask's pixels, down the columns: of `array.ravel("F")` or `array.T.ravel()`."""
    lengths = unpacked(code["counts"])
    ends = lengths.cumsum()[1::2]
    ones = lengths[1::2]
    return np.arange(ones.sum()) + np.repeat(ends - ones.cumsum(), ones)


def merged(codes: Iterable[Code], height: int, width: int) -> Code:
    """Pixels of any of these masks of pictures of that size."""
    from pycocotools import mask

    every = list(codes)
    if not every:
        return empty(height, width)
    found = mask.merge(every)
    return {"size": [height, width], "counts": found["counts"].decode("ascii")}


def area(code: Code) -> int:
    """Pixels of a mask."""
    from pycocotools import mask

    return int(mask.area(code))


def codes_of(labels: Integer[np.ndarray, "height width"]) -> dict[int, Code]:
    """Number -> code of its pixels, of all numbers that occur; in one pass over the map."""
    height, width = labels.shape
    flat = labels.T.ravel()
    starts = np.flatnonzero(np.diff(flat, prepend=flat[:1] - 1)) if flat.size else np.zeros(0, int)
    lengths = np.diff(starts, append=flat.size)
    numbers = flat[starts]
    order = np.argsort(numbers, kind="stable")
    first = np.flatnonzero(np.diff(numbers[order], prepend=numbers[order][:1] - 1))
    found = {}
    for rows in np.split(order, first[1:]):
        if not len(rows):
            continue
        ends = np.stack([starts[rows], starts[rows] + lengths[rows]], axis=1).ravel()
        runs = np.diff(ends, prepend=0, append=flat.size)
        found[int(numbers[rows[0]])] = packed(runs, (height, width))
    return found
