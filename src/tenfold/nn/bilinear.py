"""Bilinear enlarging by parts: where pixels lie between the cells of a map, on one side.

As `torch.nn.functional.interpolate` with corners not aligned; a part of the pixels needs a part of
the cells, and both directions, of values and of gradients, are products with small matrices.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor


class Between(NamedTuple):
    """The two cells that each of some pixels of a side lies between."""

    low: Int64[Tensor, " pixel"]
    high: Int64[Tensor, " pixel"]
    """Numbers of the cells, from the first of those that are needed."""
    share: Float[Tensor, " pixel"]
    """Of the second."""
    first: int
    last: int
    """The cells that are needed."""

    def nearest(self) -> Int64[Tensor, " pixel"]:
        """The nearer cell of each pixel."""
        return torch.where(self.share < 0.5, self.low, self.high)

    def matrix(self) -> Float[Tensor, "cell pixel"]:
        """Shares of all cells in all pixels."""
        found = torch.zeros(self.last - self.first, len(self.low))
        found.scatter_add_(0, self.low[None], (1 - self.share)[None])
        return found.scatter_add_(0, self.high[None], self.share[None])


def between(pixels: slice, side: int, cells: int) -> Between:
    """Where some pixels of a side lie between its cells.

    Bilinear, corners not aligned, as the whole side would be enlarged.
    """
    at = (torch.arange(pixels.start, pixels.stop) + 0.5) * (cells / side) - 0.5
    at = at.clamp(min=0)
    low = at.long().clamp(max=cells - 1)
    high = (low + 1).clamp(max=cells - 1)
    first, last = int(low[0]), int(high[-1]) + 1
    return Between(low - first, high - first, at - low, first, last)
