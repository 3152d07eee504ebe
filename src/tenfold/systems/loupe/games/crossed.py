"""Interactions between two sides that are encoded apart, such as patches and words of CLIP.

The value of a coalition is a similarity of what is left of both sides, so that u coalitions of one
and w of the other take u + w encodings and give u * w values. Baniecki et al. (2025, FIxLIP) fit a
second-order polynomial to such values by least squares; its coefficients between the sides are then
the weighted Banzhaf interactions. Here any function of one side alone is fitted with them, not only
one of second order, since it is the mean of a row or of a column.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .draws import Estimate
from .exact import check_probability


def masks(
    players: int,
    samples: int,
    p: float = 0.5,
    generator: torch.Generator | None = None,
    device: torch.device | None = None,
) -> Bool[Tensor, "sample player"]:
    """Coalitions of one side in which each player is with probability p."""
    check_probability(p)
    if samples <= players + 1:
        raise ValueError(
            f"{samples} coalitions cannot tell {players} players apart: draw at least "
            f"{players + 2}, better several times as many"
        )
    return torch.rand(samples, players, generator=generator, device=device) < p


def interactions(
    found: Float[Tensor, "row column"],
    first: Bool[Tensor, "coalition one"],
    second: Bool[Tensor, "opposite other"],
) -> Estimate:
    """Weighted Banzhaf interaction of each player of one side with each of the other.

    Least squares of values on a_i b_j, beside any functions of a and of b alone. Standard errors
    allow for errors that are common to a row or to a column (Cameron, Gelbach and Miller 2011).

    Args:
        found: Score of each coalition of one side with each of the other.
        first: Players of the coalitions of rows, drawn by `masks`.
        second: Those of columns.
    """
    _check(found, first, second)
    a, b = _Fit(first, found.dtype), _Fit(second, found.dtype)
    centred = found - found.mean(0) - found.mean(1, keepdim=True) + found.mean()
    index = a.inverse @ centred @ b.inverse.T
    left = centred - a.design @ index @ b.design.T
    # residuals of the rows that a fit follows most are too small (HC3)
    left = left / (a.free[:, None] * b.free)
    by_row = a.inverse.square() @ (left @ b.inverse.T).square()
    by_column = (a.inverse @ left).square() @ b.inverse.square().T
    by_cell = a.inverse.square() @ left.square() @ b.inverse.square().T
    variance = torch.maximum(by_row + by_column - by_cell, torch.maximum(by_row, by_column))
    return Estimate(index, variance.sqrt(), found.numel())


def values(
    found: Float[Tensor, "row column"],
    first: Bool[Tensor, "coalition one"],
    second: Bool[Tensor, "opposite other"],
) -> tuple[Estimate, Estimate]:
    """Weighted Banzhaf value of each player of both sides, in the game of both.

    Arguments and errors are those of `interactions`; one of a few coalitions has a rough error.
    """
    _check(found, first, second)
    return _of_side(found, first), _of_side(found.T, second)


def _of_side(found: Tensor, chosen: Tensor) -> Estimate:
    fit = _Fit(chosen, found.dtype)
    each = fit.inverse @ found  # by every coalition of the other side
    value = each.mean(1)
    mean = found.mean(1)
    left = (mean - mean.mean() - fit.design @ value) / fit.free
    variance = fit.inverse.square() @ left.square() + each.var(1) / found.shape[1]
    return Estimate(value, variance.sqrt(), found.numel())


def _check(found: Tensor, first: Tensor, second: Tensor) -> None:
    if found.shape != (len(first), len(second)):
        raise ValueError(
            f"{len(first)} and {len(second)} coalitions need as many rows and columns of values, "
            f"got {tuple(found.shape)}"
        )


class _Fit:
    """Least squares on the masks of one side, beside a constant."""

    def __init__(self, chosen: Bool[Tensor, "sample player"], dtype: torch.dtype) -> None:
        self.design = chosen.to(dtype) - chosen.to(dtype).mean(0)
        self.inverse = torch.linalg.pinv(self.design)
        used = (self.design * self.inverse.T).sum(1) + 1 / len(chosen)
        self.free = (1 - used).clamp(min=1e-3)
