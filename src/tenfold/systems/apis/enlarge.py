"""Masks of objects in pixels of the original picture, of the box alone.

The published chain enlarges a map of stride 4 to the network's input, cuts off the padding and
brings it to the picture's size. Each step works on rows and on columns alike, so that the whole
chain is one matrix an axis, of which only the rows inside a box are needed: O(box), not O(picture).
"""

from __future__ import annotations

from functools import lru_cache

import torch
from jaxtyping import Float, Int64
from torch import Tensor

STRIDE = 4
"""Pixels of the network's input that a cell of a mask is wide (MASK_OUT_STRIDE)."""
Pixels = tuple[int, int, int, int]
"""x0 y0 x1 y1 in whole pixels of a picture, ends exclusive."""


def enlarged(
    maps: Float[Tensor, "k h w"],
    resized: tuple[int, int],
    original: tuple[int, int],
    box: Pixels,
) -> Float[Tensor, "k rows columns"]:
    """Values of maps of stride 4 at the pixels of a box.

    Args:
        maps: Of the padded input, such as probabilities.
        resized: Height and width of the input without its padding.
        original: Height and width of the picture.
        box: Pixels of the picture that are asked for.
    """
    x0, y0, x1, y1 = box
    down, top = _axis(maps.shape[1], resized[0], original[0], y0, y1)
    right, left = _axis(maps.shape[2], resized[1], original[1], x0, x1)
    part = maps[:, top : top + down.shape[1], left : left + right.shape[1]]
    return down.to(part) @ part @ right.to(part).T


def _axis(
    cells: int, resized: int, original: int, first: int, last: int
) -> tuple[Float[Tensor, "pixel cell"], int]:
    """Weights of the cells in the pixels first..last-1 of one axis, and the first such cell."""
    columns, weights = (part[first:last] for part in _taps(cells, resized, original))
    start, end = int(columns[0].min()), int(columns[-1].max()) + 1
    dense = weights.new_zeros(last - first, end - start)
    return dense.scatter_add_(1, columns - start, weights).float(), start


@lru_cache(maxsize=8)
def _taps(
    cells: int, resized: int, original: int
) -> tuple[Int64[Tensor, "pixel 4"], Float[Tensor, "pixel 4"]]:
    """The cells that each pixel of an axis is made of, and their weights; kept for all its boxes.

    aligned_bilinear by 4: input pixel j lies at cell max(j - 2, 0) / 4, cells past the end repeat
    the last; then bilinear interpolation without aligned corners between input pixels.
    """
    pixels = torch.arange(original, dtype=torch.float64)
    at = ((pixels + 0.5) * resized / original - 0.5).clamp(min=0)
    low = at.floor()
    share = at - low
    low = low.long().clamp(max=resized - 1)
    columns, weights = [], []
    for pixel, part in ((low, 1 - share), ((low + 1).clamp(max=resized - 1), share)):
        place = (pixel - STRIDE // 2).clamp(min=0)
        cell = (place // STRIDE).clamp(max=cells - 1)
        rest = (place % STRIDE).double() / STRIDE
        columns += [cell, (cell + 1).clamp(max=cells - 1)]
        weights += [part * (1 - rest), part * rest]
    return torch.stack(columns, 1), torch.stack(weights, 1)
