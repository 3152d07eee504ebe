"""The semantics game: regions of an image and phrases of its text are the players.

Its score of regions r and phrases c is half the mean over r of the best share in c and half the
mean over c of the best share in r, with shares from a softmax over all phrases, and 0 if one side
is empty. A coalition's value is a mean of maxima, so that the mean over all coalitions of a size
needs only the order of each row and column: interactions are exact, at the price of a sort.
"""

from __future__ import annotations

from functools import lru_cache
from math import comb
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from .games.exact import Score, weights

TEMPERATURE = 0.1
"""Of the softmax over phrases."""
Form = Literal["relu", "softmax"]
Shares = Float[Tensor, "image region phrase"]


def cosines(
    regions: Float[Tensor, "*image region dim"], phrases: Float[Tensor, "*image phrase dim"]
) -> Float[Tensor, "*image region phrase"]:
    """Alignment A of regions and phrases."""
    return F.normalize(regions, dim=-1) @ F.normalize(phrases, dim=-1).mT


def shares(
    alignment: Float[Tensor, "*image region phrase"],
    is_phrase: Bool[Tensor, "*image phrase"] | None = None,
    temperature: float = TEMPERATURE,
) -> Float[Tensor, "*image region phrase"]:
    """Softmax over an image's phrases; those of padding have the share 0."""
    if is_phrase is not None:
        alignment = alignment.masked_fill(~is_phrase[..., None, :], -torch.inf)
    return (alignment / temperature).softmax(-1).nan_to_num(0)  # an image without a phrase


def score(one: Float[Tensor, "region phrase"]) -> Score:
    """Score of coalitions of one image's regions, then phrases."""

    def of(masks: Tensor) -> Tensor:
        regions, phrases = masks.split(list(one.shape), 1)
        best_phrase = (one * phrases[:, None]).amax(2)  # shares are at least 0
        best_region = (one * regions[:, :, None]).amax(1)
        halves = [
            (best * there).sum(1) / there.sum(1).clamp(min=1)
            for best, there in ((best_phrase, regions), (best_region, phrases))
        ]
        return (halves[0] + halves[1]) / 2

    return of


def interactions(
    found: Shares,
    is_region: Bool[Tensor, "image region"] | None = None,
    is_phrase: Bool[Tensor, "image phrase"] | None = None,
    p: float | None = None,
) -> Shares:
    """Interaction index of each region with each phrase; 0 where one of them is padding.

    Args:
        found: Shares, at least 0.
        is_region: False for regions of padding.
        is_phrase: False for phrases of padding.
        p: Probability of Banzhaf's weights; None: Shapley's.
    """
    images, regions, phrases = found.shape
    if is_region is None:
        is_region = found.new_ones(images, regions, dtype=torch.bool)
    if is_phrase is None:
        is_phrase = found.new_ones(images, phrases, dtype=torch.bool)
    of_rows = _half(found, is_region, is_phrase, p)
    of_columns = _half(found.mT, is_phrase, is_region, p).mT
    both = is_region[:, :, None] & is_phrase[:, None]
    return ((of_rows + of_columns) / 2).masked_fill(~both, 0)


def _half(
    found: Float[Tensor, "image row column"],
    is_row: Bool[Tensor, "image row"],
    is_column: Bool[Tensor, "image column"],
    p: float | None,
) -> Float[Tensor, "image row column"]:
    """Interactions of the mean over the rows r of the best of the columns c.

    With X_k(c) the best of row k, row i joining a others changes the mean, on the average over all
    such r, by (X_i(c) - [a > 0] mean over k != i of X_k(c)) / (a + 1). Column j joining b others
    changes X_k by how much it is above the best of them, which is the one of rank r in
    C(r - 1, b - 1) of the C(n - 1, b) cases.
    """
    rows, columns = found.shape[1:]
    factors = found.new_tensor(_factors(rows, columns, p))
    mine, others = factors[is_row.sum(1), is_column.sum(1)].unbind(1)  # each: image, 1 + rank
    ranked = found.masked_fill(~is_column[:, None], torch.inf).sort(2).values
    above = (found[..., None] - ranked[:, :, None]).clamp(min=0)

    def change(factor: Tensor) -> Tensor:
        return found * factor[:, :1, None] + (above @ factor[:, None, 1:, None])[..., 0]

    of_others = change(others) * is_row[..., None]
    rest = (is_row.sum(1)[:, None, None] - 1).clamp(min=1)
    return change(mine) - (of_others.sum(1, keepdim=True) - of_others) / rest


@lru_cache
def _factors(rows: int, columns: int, p: float | None) -> list[list[list[list[float]]]]:
    """By number of rows and columns: factors of row i and of the other rows, each for a column that
    joins none, and for one that is above the column of each rank."""
    found = [[2 * [(columns + 1) * [0.0]] for _ in range(columns + 1)] for _ in range(rows + 1)]
    for m in range(1, rows + 1):
        for n in range(1, columns + 1):
            weight = weights(m + n - 2, p)
            sets = [[weight[a + b] * comb(m - 1, a) / (a + 1) for a in range(m)] for b in range(n)]
            found[m][n] = [
                [comb(n - 1, 0) * sum(sets[0][skip:])]
                + [
                    sum(comb(r, b - 1) * sum(sets[b][skip:]) for b in range(1, n)) if r < n else 0.0
                    for r in range(columns)
                ]
                for skip in (0, 1)
            ]
    return found


def targets(interaction: Shares, how: Form = "relu", temperature: float = 0.05) -> Shares:
    """Soft labels of each region's phrases, by its interactions; all 0 where none is above 0.

    relu: interactions above 0 by their sum. softmax: softmax of all by a temperature.
    """
    if how == "softmax":
        return (interaction / temperature).softmax(-1)
    positive = interaction.clamp(min=0)
    return positive / positive.sum(-1, keepdim=True).clamp(min=1e-30)
