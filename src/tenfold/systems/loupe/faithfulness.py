"""Measures of how good an explanation is, with standard errors.

- How much of what the score does on fresh coalitions a polynomial says (R2; FIxLIP, sec. 5):
  one of first order is a heat map, one of second order has the pairs.
- Insertion and deletion (Petsiuk et al. 2018): players come, or go, the most important first; a
  good order makes the score rise, or fall, early. By pairs, the next player is the one that counts
  most where those before it have come or gone.
- The pointing game (Zhang et al. 2018): whether the strongest place of a map lies on the object.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .games.crossed import Polynomial, Side

Score = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Measured:
    """A number with its standard error."""

    value: float
    standard_error: float


def mean_of(values: Sequence[float]) -> Measured:
    """The mean of independent values; without a second one the error is infinite."""
    if not values:
        raise ValueError("a mean needs a value")
    x = torch.tensor(values, dtype=torch.double)
    error = float(x.std() / math.sqrt(len(x))) if len(x) > 1 else math.inf
    return Measured(float(x.mean()), error)


# --- R2 ------------------------------------------------------------------------------------------


def explained_share(
    found: Float[Tensor, "row column"],
    predicted: Float[Tensor, "row column"],
    first: Side,
    second: Side,
) -> Measured:
    """R2 of predictions: 1 is perfect, 0 no better than the mean, below 0 worse than the mean.

    The standard error is by leaving out a row, and a column, at a time (jackknife); a side of which
    all coalitions are there has no part in it.

    Args:
        found: Values of coalitions that were not used for the predictions.
        predicted: What an explanation says of them.
        first: The coalitions of rows.
        second: Those of columns.
    """
    variance, value = 0.0, 0.0
    sides = ((found, predicted, first, second), (found.T, predicted.T, second, first))
    for values, said, own, other in sides:
        chances = _chances(other, values.shape[1], values.dtype)
        mean, square, missed = (
            part @ chances for part in (values, values.square(), (values - said).square())
        )
        weight = _chances(own, len(values), values.dtype)
        value = float(_share(weight @ mean, weight @ square, weight @ missed))
        if own.chances is None and len(values) > 2:
            count = len(values)
            without = [(part.sum() - part) / (count - 1) for part in (mean, square, missed)]
            shares = _share(*without)
            variance += float((count - 1) * shares.var(correction=0))
    return Measured(value, math.sqrt(variance))


def _chances(side: Side, count: int, dtype: torch.dtype) -> Tensor:
    if side.chances is None:
        return torch.full((count,), 1 / count, dtype=dtype)
    return side.chances.to(dtype)


def _share(mean: Tensor, square: Tensor, missed: Tensor) -> Tensor:
    """1 - what is missed / variance; of a score that is constant 0."""
    variance = square - mean.square()
    is_flat = variance <= 1e-12 * square
    return torch.where(is_flat, 0.0, 1 - missed / variance.clamp(min=1e-300))


# --- insertion and deletion ----------------------------------------------------------------------


@dataclass(frozen=True)
class Curves:
    """Values of a score while players come and while they go, from 0 to all that have."""

    insertion: Float[Tensor, " count"]
    deletion: Float[Tensor, " count"]

    @property
    def gain(self) -> float:
        """Area under insertion less that under deletion, over the share of players: the more the
        better, 0 for an order that says nothing."""
        return area(self.insertion) - area(self.deletion)


def area(values: Float[Tensor, " count"]) -> float:
    """Mean height of a curve whose points lie at equal distances."""
    return float(torch.trapezoid(values) / (len(values) - 1))


def curves(score: Score, come: Sequence[int], go: Sequence[int]) -> Curves:
    """A score along two orders of all players.

    Args:
        score: Masks of coalitions (coalition, player) to their values.
        come: Players in the order in which they are put in, from none on.
        go: Players in the order in which they are taken out, from all on.
    """
    inserted = _first_players(come)
    values = score(torch.cat([inserted, ~_first_players(go)]))
    return Curves(*values.split(len(inserted)))


def _first_players(order: Sequence[int]) -> Bool[Tensor, "count player"]:
    """Masks of none, the first, the first two, ... of an order."""
    if sorted(order) != list(range(len(order))):
        raise ValueError(f"an order names each of its {len(order)} players once")
    masks = torch.zeros(len(order) + 1, len(order), dtype=torch.bool)
    for count, player in enumerate(order, 1):
        masks[count:, player] = True
    return masks


def by_value(values: Float[Tensor, " player"]) -> list[int]:
    """Players by their value alone, the highest first, as a heat map has them."""
    return values.argsort(descending=True, stable=True).tolist()


def by_pairs(game: Polynomial, insert: bool) -> list[int]:
    """Players in the order in which a polynomial would put them in, or take them out.

    Next is who adds the most where the game is, from none on; or, since pairs say nothing before
    there is one of each side, last is who by going takes the least from all (for taking out the
    other way round). Of these two the order is taken of which the polynomial itself says more.
    """
    up, down = _greedy(game, add=True, most=insert), _greedy(game, add=False, most=not insert)
    orders = [up, down[::-1]] if insert else [down, up[::-1]]
    areas = []
    for order in orders:
        masks = _first_players(order)
        areas.append(area(game(masks if insert else ~masks)))
    return orders[0] if (areas[0] >= areas[1]) == insert or areas[0] == areas[1] else orders[1]


def _greedy(game: Polynomial, add: bool, most: bool) -> list[int]:
    """Players added one by one (or taken away), each time the one that counts most (or least)."""
    players = len(game.players)
    there = torch.full((players,), not add)
    order: list[int] = []
    for _ in range(players):
        change = game.players + game.pairs @ (there.to(game.centre.dtype) - game.centre)
        if not most:
            change = -change
        best = int(change.masked_fill(there == add, -torch.inf).argmax())
        there[best] = add
        order.append(best)
    return order


def random_orders(players: int, count: int, generator: torch.Generator) -> list[list[int]]:
    """Orders that know nothing."""
    return [torch.randperm(players, generator=generator).tolist() for _ in range(count)]


# --- pointing ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pointing:
    """A map beside an object that it should show."""

    hit: float
    """1 if the strongest place lies on the object; where several are, the share that does."""
    inside: float
    """Share of what is positive on the map that lies on the object; 0 if nothing is."""
    chance: float
    """Share of places that lie on the object: what a map without sense would have of both."""


def pointing(map_: Float[Tensor, " place"], on_object: Bool[Tensor, " place"]) -> Pointing:
    """Whether a map shows an object.

    Raises:
        ValueError: The object has no place.
    """
    if map_.shape != on_object.shape or not on_object.any():
        raise ValueError(
            f"an object needs one or more of the map's {len(map_)} places, got "
            f"{int(on_object.sum())} of {len(on_object)}"
        )
    inside = on_object.to(map_.dtype)
    strongest = map_ == map_.max()
    positive = map_.clamp(min=0)
    total = float(positive.sum())
    return Pointing(
        float(inside[strongest].mean()),
        float(positive @ inside) / total if total else 0.0,
        float(inside.mean()),
    )
