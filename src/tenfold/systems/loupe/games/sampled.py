"""Games of any number of players, by coalitions drawn at random.

One coalition serves a player and all members of its region, or every player and every pair: the
values that are subtracted from each other are of the same coalition. Where a score can say how it
changes by players (`Changes`), no mask of a changed coalition is made.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .draws import Draws, Estimate, Sampling, draw, until
from .exact import BATCH, Regions, Score, check_regions, evaluate

Masks = Bool[Tensor, "draw player"]
CELLS = 2**26
"""Entries of the masks that are made at once."""
DEFAULT = Sampling()


@runtime_checkable
class Changes(Protocol):
    """A score that knows its values at changed coalitions from those at the coalition."""

    def __call__(self, masks: Tensor, /) -> Tensor:
        """Values of coalitions."""

    def flipped(self, masks: Masks) -> tuple[Tensor, Tensor]:
        """Values of coalitions, and of each with one player changed: (draw), (draw, player)."""

    def flipped_twice(self, masks: Masks) -> Float[Tensor, "draw player player"]:
        """Values of coalitions with two players changed; those of one player twice are not used."""

    def joined(
        self, masks: Bool[Tensor, "region draw player"], regions: Regions
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Values (region, draw) of S, of S with the region, and the sum over members of S + i."""


def interactions(
    score: Score,
    regions: Regions,
    plan: Sampling = DEFAULT,
    p: float | None = None,
    generator: torch.Generator | None = None,
    draws: Draws | None = None,
    batch: int = BATCH,
) -> Estimate:
    """Multivariate interaction J(R) of each region, as `exact.interactions`; (region).

    Args:
        score: Masks of coalitions (coalition, player) to their values (coalition).
        regions: Players of each region; what is drawn are the players outside.
        plan: How many coalitions, how they are drawn and when to stop.
        p: Probability of Banzhaf's weights; None: Shapley's.
        generator: On the device of `regions`.
        draws: Coalitions that are given, one group a region; `plan` is not used.
        batch: Coalitions that the score is given at once.
    """
    counts = regions.sum(1, keepdim=True)

    def bracket(masks: Tensor) -> Tensor:
        alone, whole, members = _joined(score, masks, regions, batch)
        return whole + (counts - 1) * alone - members

    return _of_regions(bracket, regions, plan, p, generator, draws)


def group_values(
    score: Score,
    regions: Regions,
    plan: Sampling = DEFAULT,
    p: float | None = None,
    generator: torch.Generator | None = None,
    draws: Draws | None = None,
    batch: int = BATCH,
) -> Estimate:
    """Value of each region as one player, as `exact.group_values`; arguments of `interactions`."""

    def bracket(masks: Tensor) -> Tensor:
        if isinstance(score, Changes):
            alone, whole, _ = score.joined(masks, regions)
        else:
            both = torch.stack([masks, masks | regions[:, None]])
            alone, whole = evaluate(score, both, batch)
        return whole - alone

    return _of_regions(bracket, regions, plan, p, generator, draws)


def _of_regions(
    bracket: Callable[[Tensor], Tensor],
    regions: Regions,
    plan: Sampling,
    p: float | None,
    generator: torch.Generator | None,
    draws: Draws | None,
) -> Estimate:
    check_regions(regions, regions.shape[1])
    outside = ~regions
    at_ends = bracket(torch.stack([torch.zeros_like(outside), outside], 1))
    if draws is not None:
        if draws.masks.shape[::2] != regions.shape or (draws.masks & regions[:, None]).any():
            raise ValueError(
                f"given coalitions are masks (region, draw, player) without members of the region, "
                f"got {tuple(draws.masks.shape)} for regions of shape {tuple(regions.shape)}"
            )
        return draws.mean(bracket(draws.masks), at_ends)

    def once() -> Estimate:
        drawn = draw(outside, plan, p, generator)
        return drawn.mean(bracket(drawn.masks), at_ends)

    return until(once, plan)


def _joined(
    score: Score, masks: Bool[Tensor, "region draw player"], regions: Regions, batch: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Values of S, of S with the region, and the sum over members i of those of S + i."""
    if isinstance(score, Changes):
        return score.joined(masks, regions)
    alone, whole = evaluate(score, torch.stack([masks, masks | regions[:, None]]), batch)
    region, member = regions.nonzero(as_tuple=True)
    single = torch.zeros(len(member), 1, regions.shape[1], dtype=torch.bool, device=masks.device)
    single[torch.arange(len(member)), 0, member] = True
    one = [
        evaluate(score, masks[some] | with_it, batch)
        for some, with_it in zip(
            region.split(_rows(masks[0])), single.split(_rows(masks[0])), strict=True
        )
    ]
    return alone, whole, torch.zeros_like(alone).index_add_(0, region, torch.cat(one))


def _rows(masks: Tensor) -> int:
    return max(1, CELLS // masks.numel())


def values(
    score: Score,
    players: int,
    plan: Sampling = DEFAULT,
    p: float | None = None,
    generator: torch.Generator | None = None,
    batch: int = BATCH,
    device: torch.device | None = None,
) -> Estimate:
    """Value of each player, as `exact.values`; (player). One coalition serves all players."""

    def changes(masks: Masks) -> Tensor:
        if isinstance(score, Changes):
            alone, one = score.flipped(masks)
        else:
            flips = torch.eye(players, dtype=torch.bool, device=masks.device)
            found = evaluate(score, torch.cat([masks[:, None], masks[:, None] ^ flips], 1), batch)
            alone, one = found[:, 0], found[:, 1:]
        sign = 2 * masks.to(alone.dtype) - 1
        return sign * (alone[:, None] - one)

    def others(masks: Masks) -> Tensor:
        return masks.sum(1, keepdim=True) - masks.long()

    return _of_players(changes, others, players, 1, plan, p, generator, device)


def pairs(
    score: Score,
    players: int,
    plan: Sampling = DEFAULT,
    p: float | None = None,
    generator: torch.Generator | None = None,
    batch: int = BATCH,
    device: torch.device | None = None,
) -> Estimate:
    """Interaction of each two players, as `exact.pairs`; (player, player), symmetric.

    One coalition serves all pairs, by its own value, those with one and those with two changes.
    """
    if players < 2:
        raise ValueError(f"a pair needs 2 players, the game has {players}")

    def changes(masks: Masks) -> Tensor:
        sign = 2 * masks.long() - 1
        if isinstance(score, Changes):
            (alone, one), two = score.flipped(masks), score.flipped_twice(masks)
        else:
            alone, one, two = _flipped_twice(score, masks, batch)
        change = alone[:, None, None] - one[:, :, None] - one[:, None] + two
        return sign[:, :, None] * sign[:, None] * change

    def others(masks: Masks) -> Tensor:
        inside = masks.long()
        return masks.sum(1)[:, None, None] - inside[:, :, None] - inside[:, None]

    found = _of_players(changes, others, players, 2, plan, p, generator, device)
    same = torch.eye(players, dtype=torch.bool, device=found.value.device)
    value = found.value.masked_fill(same, 0)
    return Estimate(value, found.standard_error.masked_fill(same, 0), found.samples)


def _flipped_twice(score: Score, masks: Masks, batch: int) -> tuple[Tensor, Tensor, Tensor]:
    """Values of coalitions, with one player and with two players changed."""
    players = masks.shape[1]
    first, second = torch.triu_indices(players, players, 1, device=masks.device)
    one = torch.eye(players, dtype=torch.bool, device=masks.device)
    flips = torch.cat([torch.zeros_like(one[:1]), one, one[first] | one[second]])
    found = torch.cat(
        [evaluate(score, some[:, None] ^ flips, batch) for some in masks.split(_rows(flips))]
    )
    two = found.new_zeros(len(masks), players, players)
    two[:, first, second] = two[:, second, first] = found[:, 1 + players :]
    return found[:, 0], found[:, 1 : 1 + players], two


def _of_players(
    changes: Callable[[Masks], Tensor],
    others: Callable[[Masks], Tensor],
    players: int,
    asked: int,
    plan: Sampling,
    p: float | None,
    generator: torch.Generator | None,
    device: torch.device | None,
) -> Estimate:
    """Mean change over coalitions of all players, of which each is one of the others, too.

    A coalition of all players whose size is uniform (or binomial) has that distribution without any
    of the players asked for. Where nobody or everybody else is there, the change is known exactly.
    """
    everyone = torch.ones(players, dtype=torch.bool, device=device)
    at_ends = changes(torch.stack([~everyone, everyone])).movedim(0, -1)
    rest = players - asked
    low, high = (1 / (rest + 1),) * 2 if p is None else ((1 - p) ** rest, p**rest)
    exact = low * at_ends[..., 0] + (high if rest else 0) * at_ends[..., 1]

    def once() -> Estimate:
        drawn = draw(everyone, plan, p, generator)
        change = changes(drawn.masks).movedim(0, -1)
        if not plan.stratified:
            return drawn.mean(change, torch.zeros_like(at_ends))
        there = others(drawn.masks).movedim(0, -1)
        inner = change.masked_fill((there == 0) | (there == rest), 0)
        found = drawn.mean(inner, torch.zeros_like(at_ends))
        return Estimate(exact + found.value, found.standard_error, found.samples)

    return until(once, plan)
