"""Interactions between two sides that are encoded apart, such as patches and words of CLIP.

The value of a coalition is a similarity of what is left of both sides, so that u coalitions of one
and w of the other take u + w encodings and give u * w values. Baniecki et al. (2025, FIxLIP) fit a
second-order polynomial to such values by least squares; its coefficients are then the weighted
Banzhaf interactions. For those between the sides any function of one side alone is fitted with
them, not only one of second order, since it is the mean of a row or of a column.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .draws import Estimate
from .exact import MOST, all_coalitions, check_probability, weights


@dataclass(frozen=True)
class Side:
    """Coalitions of the players of one side."""

    masks: Bool[Tensor, "coalition player"]
    chances: Float[Tensor, " coalition"] | None = None
    """Probability of each, if these are all that there are; None: they were drawn."""


Coalitions = Side | Bool[Tensor, "_ _"]
"""A side, or masks that were drawn."""


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


def side(
    players: int, samples: int, p: float = 0.5, generator: torch.Generator | None = None
) -> Side:
    """All coalitions of one side if they are at most `samples`, else so many drawn by `masks`."""
    check_probability(p)
    if players > MOST or 2**players > samples:
        return Side(masks(players, samples, p, generator))
    every = all_coalitions(players)
    chances = torch.tensor(weights(players, p), dtype=torch.double)
    return Side(every, chances[every.sum(1)])


def interactions(
    found: Float[Tensor, "row column"], first: Coalitions, second: Coalitions
) -> Estimate:
    """Weighted Banzhaf interaction of each player of one side with each of the other.

    Least squares of values on a_i b_j, beside any functions of a and of b alone. Standard errors
    allow for errors that are common to a row or to a column (Cameron, Gelbach and Miller 2011).

    Args:
        found: Score of each coalition of one side with each of the other.
        first: Coalitions of rows.
        second: Those of columns.
    """
    a, b = _fits(found, first, second)
    by_rows, by_columns = a.chances @ found, found @ b.chances
    centred = found - by_rows - by_columns[:, None] + by_columns @ a.chances
    index = a.inverse @ centred @ b.inverse.T
    left = centred - a.design @ index @ b.design.T
    # residuals of the rows that a fit follows most are too small (HC3)
    left = left / (a.free[:, None] * b.free)
    by_row = a.inverse.square() @ (left @ b.inverse.T).square()
    by_column = (a.inverse @ left).square() @ b.inverse.square().T
    by_cell = a.inverse.square() @ left.square() @ b.inverse.square().T
    if a.is_whole or b.is_whole:  # of a side without chance nothing varies
        variance = by_row * (not a.is_whole) + by_column * (not b.is_whole)
    else:
        variance = torch.maximum(by_row + by_column - by_cell, torch.maximum(by_row, by_column))
    return Estimate(index, variance.sqrt(), found.numel())


def values(
    found: Float[Tensor, "row column"], first: Coalitions, second: Coalitions
) -> tuple[Estimate, Estimate]:
    """Weighted Banzhaf value of each player of both sides, in the game of both.

    Arguments and errors are those of `interactions`; one of a few coalitions has a rough error.
    """
    a, b = _fits(found, first, second)
    return _of_side(found, a, b), _of_side(found.T, b, a)


def _of_side(found: Tensor, fit: _Fit, other: _Fit) -> Estimate:
    each = fit.inverse @ found  # by every coalition of the other side
    value = each @ other.chances
    variance = fit.variance((found @ other.chances)[:, None])[:, 0]
    if not other.is_whole:
        variance = variance + each.var(1) / found.shape[1]
    return Estimate(value, variance.sqrt(), found.numel())


def values_of_side(found: Float[Tensor, "coalition score"], coalitions: Coalitions) -> Estimate:
    """Weighted Banzhaf value of each player of one side under several scores; (player, score).

    The other side is as it is. The same coalitions serve all scores, so that the difference of two
    scores, as a score of its own, is of little variance.
    """
    fit = _Fit(coalitions, found.dtype)
    fit.check(found)
    return Estimate(fit.inverse @ found, fit.variance(found).sqrt(), len(found))


def pairs(found: Float[Tensor, " coalition"], coalitions: Coalitions) -> Estimate:
    """Weighted Banzhaf interaction of each two players of one side, symmetric.

    Least squares on all pairs beside all players: as many coalitions as `enough` says.
    """
    fit = _Fit(coalitions, found.dtype, second_order=True)
    fit.check(found[:, None])
    players = fit.players
    upper = torch.triu_indices(players, players, 1)
    both = torch.stack([fit.inverse @ found, fit.variance(found[:, None])[:, 0].sqrt()])
    table = found.new_zeros(2, players, players)
    table[:, upper[0], upper[1]] = table[:, upper[1], upper[0]] = both[:, players:]
    return Estimate(table[0], table[1], len(found))


def enough(coalitions: Coalitions) -> bool:
    """Whether the coalitions of a side are enough for `pairs`: all, or two for each number."""
    one = _side(coalitions)
    players = one.masks.shape[1]
    numbers = 1 + players + players * (players - 1) // 2
    return one.chances is not None or len(one.masks) >= 2 * numbers


# --- the polynomial ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Polynomial:
    """A game of the players of both sides, of second order at most; rows' players come first."""

    constant: float
    players: Float[Tensor, " player"]
    pairs: Float[Tensor, "player player"]
    """Symmetric, without a diagonal."""
    centre: Float[Tensor, " player"]
    """Is subtracted from the masks before they are multiplied."""

    def __call__(self, masks: Bool[Tensor, "coalition player"]) -> Float[Tensor, " coalition"]:
        """Values of coalitions of both sides."""
        x = masks.to(self.players.dtype) - self.centre
        return self.constant + x @ self.players + (x @ self.pairs * x).sum(1) / 2

    def crossed(
        self, first: Bool[Tensor, "row one"], second: Bool[Tensor, "column other"]
    ) -> Float[Tensor, "row column"]:
        """Values of each coalition of one side with each of the other."""
        cut = first.shape[1]
        a, b = first.to(self.centre.dtype), second.to(self.centre.dtype)
        a, b = a - self.centre[:cut], b - self.centre[cut:]
        alone = [
            x @ self.players[part] + (x @ self.pairs[part, part] * x).sum(1) / 2
            for x, part in ((a, slice(cut)), (b, slice(cut, None)))
        ]
        between = a @ self.pairs[:cut, cut:] @ b.T
        return self.constant + alone[0][:, None] + alone[1] + between


def polynomial(
    found: Float[Tensor, "row column"], first: Coalitions, second: Coalitions, order: int = 2
) -> Polynomial:
    """The polynomial that is nearest to the values, as FIxLIP's.

    Args:
        found: As for `interactions`.
        first: As for `interactions`.
        second: As for `interactions`.
        order: 1: players alone, what a heat map shows; 2: pairs too, those between the sides and
            those within each side whose coalitions are `enough`.
    """
    if order not in (1, 2):
        raise ValueError(f"a polynomial is of order 1 or 2, got {order}")
    a, b = _fits(found, first, second)
    cut = a.players
    table = found.new_zeros(cut + b.players, cut + b.players)
    alone = []
    sides = ((a, first, found @ b.chances, slice(cut)),
             (b, second, a.chances @ found, slice(cut, None)))  # fmt: skip
    for fit, coalitions, mean, part in sides:
        if order == 2 and fit.players > 1 and enough(coalitions):
            fit = _Fit(coalitions, found.dtype, second_order=True)
            table[part, part] = pairs(mean, coalitions).value
        alone.append((fit.inverse @ mean)[: fit.players])
    if order == 2:
        between = interactions(found, first, second).value
        table[:cut, cut:], table[cut:, :cut] = between, between.T
    centre = torch.cat([a.centre, b.centre])
    # products of centred masks are not 0 in the mean over coalitions that were drawn
    made = Polynomial(0.0, torch.cat(alone), table, centre)
    left = found - made.crossed(a.masks, b.masks)
    return Polynomial(float(a.chances @ left @ b.chances), made.players, table, centre)


# --- least squares -------------------------------------------------------------------------------


def _side(coalitions: Coalitions) -> Side:
    return coalitions if isinstance(coalitions, Side) else Side(coalitions)


def _fits(found: Tensor, first: Coalitions, second: Coalitions) -> tuple[_Fit, _Fit]:
    rows, columns = len(_side(first).masks), len(_side(second).masks)
    if found.shape != (rows, columns):
        raise ValueError(
            f"{rows} and {columns} coalitions need as many rows and columns of values, got "
            f"{tuple(found.shape)}"
        )
    return _Fit(first, found.dtype), _Fit(second, found.dtype)


class _Fit:
    """Least squares on the masks of one side, beside a constant."""

    def __init__(
        self, coalitions: Coalitions, dtype: torch.dtype, second_order: bool = False
    ) -> None:
        one = _side(coalitions)
        self.masks, self.players = one.masks, one.masks.shape[1]
        self.is_whole = one.chances is not None
        count = len(one.masks)
        even = torch.full((count,), 1 / count, dtype=dtype)
        self.chances = even if one.chances is None else one.chances.to(dtype)
        inside = one.masks.to(dtype)
        self.centre = self.chances @ inside
        design = inside - self.centre
        if second_order:
            upper = torch.triu_indices(self.players, self.players, 1)
            design = torch.cat([design, design[:, upper[0]] * design[:, upper[1]]], 1)
            design = design - self.chances @ design
        self.design = design
        weighted = design.T * self.chances
        gram = (weighted @ design).double()
        self.inverse = (torch.linalg.pinv(gram, hermitian=True) @ weighted.double()).to(dtype)
        used = (design * self.inverse.T).sum(1) + self.chances
        self.free = torch.ones_like(even) if self.is_whole else (1 - used).clamp(min=1e-3)

    def check(self, found: Tensor) -> None:
        """ValueError unless there is a row of values for every coalition."""
        if len(found) != len(self.masks):
            raise ValueError(f"{len(self.masks)} coalitions need as many values, got {len(found)}")

    def variance(self, found: Float[Tensor, "coalition score"]) -> Float[Tensor, "number score"]:
        """Variance of the fit of each score, by its residuals (HC3); 0 of all coalitions."""
        if self.is_whole:
            return found.new_zeros(len(self.inverse), found.shape[1])
        left = found - self.chances @ found - self.design @ (self.inverse @ found)
        return self.inverse.square() @ (left / self.free[:, None]).square()
