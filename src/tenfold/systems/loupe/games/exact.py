"""Games of up to 16 players, solved by the values of all their coalitions.

Values and indices are sums over coalitions S of the other players: of v(S + i) - v(S) for a player,
of v(S + i + j) - v(S + i) - v(S + j) + v(S) for a pair. Weighted by |S|! (q - |S|)! / (q + 1)!,
with q others, they are Shapley's value (Shapley 1953) and the Shapley interaction index (Grabisch
and Roubens 1999); weighted by p^|S| (1 - p)^(q - |S|), where each other player is there with a
probability p of its own, Banzhaf's. Shapley's are the mean of Banzhaf's over p from 0 to 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

MOST = 16
"""Players of a game that is solved exactly; each further one doubles the work."""
BATCH = 8192
"""Coalitions that a score is given at once."""

Score = Callable[[Tensor], Tensor]
"""Masks of coalitions, (coalition, player), to their values (coalition): any function."""
Table = Float[Tensor, "*game coalition"]
"""Values of all coalitions; bit i of the number of a coalition says whether player i is in it."""
Regions = Bool[Tensor, "region player"]
"""Coalitions that are looked at as one player."""


def all_coalitions(players: int, device: torch.device | None = None) -> Bool[Tensor, "coalition n"]:
    """Masks of all coalitions in the order of a table."""
    if not 1 <= players <= MOST:
        raise ValueError(
            f"an exact solution is for 1 to {MOST} players, got {players}: it takes the values of "
            "2^players coalitions. Use the sampled functions, or merge players into fewer."
        )
    numbers = torch.arange(2**players, device=device)
    return (numbers[:, None] >> torch.arange(players, device=device) & 1).bool()


def evaluate(
    score: Score, masks: Bool[Tensor, "*some player"], batch: int = BATCH
) -> Float[Tensor, "*some"]:
    """Values of coalitions by a score, which is given at most `batch` at once."""
    rows = masks.flatten(0, -2)
    parts = [score(some) for some in rows.split(batch)]
    for part, some in zip(parts, rows.split(batch), strict=True):
        if part.shape != some.shape[:1] or not part.is_floating_point():
            raise ValueError(
                f"a score of {len(some)} coalitions must be as many floating-point numbers, got "
                f"{part.dtype} of shape {tuple(part.shape)}"
            )
    return torch.cat(parts).view(masks.shape[:-1])


def table(
    score: Score, players: int, batch: int = BATCH, device: torch.device | None = None
) -> Float[Tensor, " coalition"]:
    """Values of all coalitions of a game, less that of the empty one."""
    values = evaluate(score, all_coalitions(players, device), batch)
    return values - values[0]


def _players(values: Table, least: int = 1) -> int:
    count = values.shape[-1].bit_length() - 1
    if values.shape[-1] != 2**count or not least <= count <= MOST:
        raise ValueError(
            f"a table holds the values of 2^n coalitions, n from {least} to {MOST}, got "
            f"{values.shape[-1]} values"
        )
    return count


def check_probability(p: float | None) -> None:
    """ValueError unless p is None (Shapley) or a probability that leaves both possible."""
    if p is not None and not 0 < p < 1:
        raise ValueError(
            f"the probability p of Banzhaf's weights must lie between 0 and 1, got {p}; None takes "
            "Shapley's weights"
        )


def weights(others: int, p: float | None) -> list[float]:
    """Weight of one coalition of 0, 1, ... of `others` players; those of all coalitions sum to 1.

    Args:
        others: Players beside those whose value or interaction is asked.
        p: Probability that each other player is there (Banzhaf's weights; 0.5 are the usual ones),
            or None: every size equally probable (Shapley's).
    """
    check_probability(p)
    if p is None:
        return [1 / ((others + 1) * math.comb(others, size)) for size in range(others + 1)]
    return [p**size * (1 - p) ** (others - size) for size in range(others + 1)]


def values(found: Table, p: float | None = None) -> Float[Tensor, "*game player"]:
    """Shapley value of each player, or Banzhaf's with p."""
    players = _players(found)
    masks = all_coalitions(players, found.device)
    size = masks.sum(1)
    weight = found.new_tensor([*weights(players - 1, p), 0.0])
    # a coalition with the player is S + i of one pair, one without is S of another
    share = torch.where(masks, weight[(size - 1).clamp(min=0)][:, None], -weight[size][:, None])
    return found @ share


def pairs(found: Table, p: float | None = None) -> Float[Tensor, "*game player player"]:
    """Interaction index of each two players, Shapley's or Banzhaf's; 0 of a player with itself."""
    players = _players(found, 2)
    masks = all_coalitions(players, found.device)
    size = masks.sum(1)
    weight = found.new_tensor([*weights(players - 2, p), 0.0, 0.0])
    inside = masks.to(found.dtype)
    outside = 1 - inside
    both = found * weight[(size - 2).clamp(min=0)]
    one = found * weight[(size - 1).clamp(min=0)]
    none = found * weight[size]
    mixed = inside.T @ (one[..., None] * outside)
    index = inside.T @ (both[..., None] * inside) + outside.T @ (none[..., None] * outside)
    index = index - mixed - mixed.mT
    return index.masked_fill(torch.eye(players, device=found.device, dtype=torch.bool), 0)


def moebius(found: Table) -> Table:
    """Harsanyi dividends: what each coalition has beyond all coalitions within it."""
    result = found.clone()
    for player in range(_players(found)):
        halves = result.view(*found.shape[:-1], -1, 2, 2**player)
        halves[..., 1, :] -= halves[..., 0, :]
    return result


def interactions(
    found: Table, regions: Regions, p: float | None = None
) -> Float[Tensor, "*game region"]:
    """Multivariate interaction J(R) of each region: its value as one player, less its members'.

    The value of R as one player among the others, less the value of each member where the other
    members are absent (Zhang et al. 2021). Of two players it is their interaction index, of more it
    is not the index of that order; of one player it is 0.
    """
    size, inside, count, weight = _split(found, regions, p)
    kept = (inside == count) + (count - 1) * (inside == 0) - (inside == 1).long()
    return found @ (weight.gather(1, size.T).T * kept)


def group_values(
    found: Table, regions: Regions, p: float | None = None
) -> Float[Tensor, "*game region"]:
    """Value of each region as one player among the others."""
    size, inside, count, weight = _split(found, regions, p)
    kept = (inside == count).long() - (inside == 0).long()
    return found @ (weight.gather(1, size.T).T * kept)


def _split(
    found: Table, regions: Regions, p: float | None
) -> tuple[Tensor, Tensor, Tensor, Float[Tensor, "region size"]]:
    """Of coalitions and regions: players outside, players inside; a region's; weights by size."""
    players = _players(found)
    check_regions(regions, players)
    masks = all_coalitions(players, found.device)
    inside = (masks.to(found.dtype) @ regions.to(found.dtype).T).round().long()
    count = regions.sum(1)
    table = [weights(players - k, p) + k * [0.0] for k in count.tolist()]
    return masks.sum(1)[:, None] - inside, inside, count, found.new_tensor(table)


def check_regions(regions: Bool[Tensor, "*region player"], players: int) -> None:
    """ValueError unless each region is a part of the players that is not empty."""
    if regions.shape[-1] != players:
        raise ValueError(
            f"regions are masks of {regions.shape[-1]} players, the game has {players}"
        )
    if not regions.any(-1).all():
        empty = int((~regions.flatten(0, -2).any(-1)).nonzero()[0])
        raise ValueError(f"region {empty} has no player; leave it out, or give it one")
