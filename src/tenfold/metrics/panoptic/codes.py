"""Sets of pixels as run-length codes: joined, cut and compared without a map in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment

from tenfold.structures import Code

from ..ap import decode_mask, encode_mask


def area(code: Code) -> int:
    """Pixels."""
    from pycocotools import mask as rle

    return int(rle.area(code))


def union(masks: Sequence[Code], size: tuple[int, int]) -> Code:
    """Pixels of any of these masks of pictures of one size."""
    from pycocotools import mask as rle

    if not masks:
        return _text(encode_mask(np.zeros(size, dtype=bool)))
    return _text(rle.merge(list(masks)))


def both(first: Code, second: Code) -> Code:
    """Pixels of the one and the other."""
    from pycocotools import mask as rle

    return _text(rle.merge([first, second], intersect=True))


def inverted(code: Code) -> Code:
    """All other pixels."""
    return _text(encode_mask(~decode_mask(code)))


def iou(truth: Sequence[Code], found: Sequence[Code]) -> Float[np.ndarray, "true seen"]:
    """IoU of each two; 0 if both are without a pixel."""
    from pycocotools import mask as rle

    if not truth or not found:
        return np.zeros((len(truth), len(found)))
    shares = rle.iou(list(truth), list(found), [0] * len(found))
    return np.nan_to_num(np.asarray(shares, dtype=np.float64))


def assigned(quality: Float[np.ndarray, "true seen"]) -> list[tuple[int, int]]:
    """One-to-one pairs with the largest sum, rows in order."""
    rows, columns = linear_sum_assignment(quality, maximize=True)
    return [(int(i), int(j)) for i, j in zip(rows, columns, strict=True)]


def _text(code: dict[str, Any]) -> Code:
    counts = code["counts"]
    return {"size": list(code["size"]), "counts": counts.decode("ascii")}
