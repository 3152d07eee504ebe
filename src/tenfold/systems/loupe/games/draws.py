"""Coalitions drawn at random, so that means over them are unbiased and their errors are known.

The coalitions without any and with all of the players that may be in one are few and count much
(each as much as a whole size under Shapley's weights): their part is computed, not drawn. The other
sizes are stratified, and each coalition comes with its partner of the size from the other end,
which has the players that it has not (antithetic).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .exact import check_probability


@dataclass(frozen=True)
class Sampling:
    """Effort of an estimate."""

    samples: int = 64
    """Coalitions of a round, a pair of antithetic ones counted twice."""
    antithetic: bool = True
    """Draw each coalition with its partner."""
    stratified: bool = True
    """Draw sizes evenly, and compute the part of the empty and of the full coalition."""
    standard_error: float = 0.0
    """Rounds follow until every standard error is at most this; 0: one round."""
    most: int = 65536
    """Coalitions after which no further round begins."""

    def __post_init__(self) -> None:
        step = 2 if self.antithetic else 1
        if self.samples < 2 * step or self.samples % step:
            raise ValueError(
                f"samples must be {'an even number of ' if self.antithetic else ''}at least "
                f"{2 * step}, got {self.samples}: a standard error needs two independent draws"
            )
        if not self.standard_error >= 0:
            raise ValueError(f"standard_error must be at least 0, got {self.standard_error}")
        if self.most < self.samples:
            raise ValueError(
                f"most must be at least the {self.samples} samples of a round, got {self.most}"
            )


@dataclass(frozen=True)
class Estimate:
    """Means with their standard errors, and the coalitions that were drawn for each."""

    value: Tensor
    standard_error: Tensor
    samples: int


@dataclass(frozen=True)
class Draws:
    """Coalitions drawn for each group, from players of its own."""

    masks: Bool[Tensor, "*group draw player"]
    """With antithetic pairs all first coalitions, then all partners."""
    ends: Float[Tensor, "*group 2"]
    """Weights of the empty and the full coalition where they are not drawn."""
    antithetic: bool
    stratified: bool
    """Draws lie in the order of their sizes."""

    def mean(
        self, drawn: Float[Tensor, "*some draw"], at_ends: Float[Tensor, "*some 2"]
    ) -> Estimate:
        """Mean of quantities over all coalitions, by their values at those drawn and at the ends.

        The groups are the last axes of `some`.

        The standard error is that of independent pairs. If they are stratified it is taken from
        differences of neighbours, which leaves out what differs between sizes (Cochran 1977,
        section 8.11, has this for systematic samples); it errs on the safe side.
        """
        units = drawn
        if self.antithetic:
            first, partner = drawn.chunk(2, -1)
            units = (first + partner) / 2
        count = units.shape[-1]
        if self.stratified:
            error = (units.diff(dim=-1).square().mean(-1) / (2 * count)).sqrt()
        else:
            deviation = units - units.mean(-1, keepdim=True)
            error = (deviation.square().sum(-1) / max(count - 1, 1) / count).sqrt()
        ends = self.ends.to(drawn.dtype)
        share = 1 - ends.sum(-1)
        value = share * units.mean(-1) + (ends * at_ends).sum(-1)
        return Estimate(value, share * error, drawn.shape[-1])


def draw(
    allowed: Bool[Tensor, "*group player"],
    plan: Sampling,
    p: float | None = None,
    generator: torch.Generator | None = None,
) -> Draws:
    """Coalitions of the players that each group allows.

    Args:
        allowed: Players that may be in a coalition, at least none.
        plan: Number and kind of draws.
        p: Probability that a player is there; None: all sizes equally probable.
        generator: On the device of `allowed`.
    """
    check_probability(p)
    device, players = allowed.device, allowed.shape[-1]
    count = allowed.sum(-1, keepdim=True)  # *group 1
    base = plan.samples // 2 if plan.antithetic else plan.samples
    shape = (*allowed.shape[:-1], base)
    u = torch.rand(shape, generator=generator, device=device)
    if plan.stratified:  # pairs: only from the lower half, the partner is of the other
        u = (torch.arange(base, device=device) + u) / (2 * base if plan.antithetic else base)
    chance = _size_chances(players, p, plan.stratified).to(device)
    ends = chance.new_zeros(*allowed.shape[:-1], 2)
    if plan.stratified:
        low = 1 / (count.double() + 1) if p is None else (1 - p) ** count.double()
        high = low if p is None else p ** count.double()
        ends = torch.cat([low, torch.where(count == 0, 0, high)], -1).double()
    cumulative = chance[count[..., 0]]  # *group size
    sizes = _sizes(cumulative, u, count)
    keys = torch.rand(*shape, players, generator=generator, device=device)
    keys.masked_fill_(~allowed[..., None, :], 2.0)
    ranked = _sort(keys)
    masks = _lowest(keys, ranked, sizes) & allowed[..., None, :]
    if plan.antithetic:
        if p is None or p == 0.5:
            partner = ~masks
        else:
            partner = ~_lowest(keys, ranked, count - _sizes(cumulative, 1 - u, count))
        masks = torch.cat([masks, partner & allowed[..., None, :]], -2)
    return Draws(masks, ends, plan.antithetic, plan.stratified)


def given(
    orders: list[list[int]], sizes: list[int], players: int, antithetic: bool = False
) -> Draws:
    """Coalitions of one group that are the first `size` of each order of its players."""
    masks = torch.zeros(len(orders), players, dtype=torch.bool)
    for row, (order, size) in enumerate(zip(orders, sizes, strict=True)):
        masks[row, order[:size]] = True
    if antithetic:
        allowed = torch.zeros(players, dtype=torch.bool)
        allowed[orders[0]] = True
        masks = torch.cat([masks, ~masks & allowed])
    return Draws(masks[None], torch.zeros(1, 2), antithetic, stratified=False)


def until(once: Callable[[], Estimate], plan: Sampling) -> Estimate:
    """Rounds until the standard errors are small enough, or the coalitions are used up."""
    found = once()
    mean, square, rounds = found.value, found.standard_error.square(), 1
    while plan.standard_error and (rounds + 1) * found.samples <= plan.most:
        if float(square.max()) <= (rounds * plan.standard_error) ** 2:
            break
        found = once()
        rounds += 1
        mean = mean + (found.value - mean) / rounds
        square = square + found.standard_error.square()
    return Estimate(mean, square.sqrt() / rounds, rounds * found.samples)


@lru_cache(64)
def _size_chances(players: int, p: float | None, without_ends: bool) -> Tensor:
    """Cumulative probability of each size, (players allowed, size): uniform or binomial."""
    rows = []
    for count in range(players + 1):
        if p is None:
            row = np.ones(count + 1)
        else:
            row = np.array(
                [math.comb(count, k) * p**k * (1 - p) ** (count - k) for k in range(count + 1)]
            )
        if without_ends:
            row[[0, -1]] = 0
        total = row.cumsum() / max(row.sum(), 1e-300)
        rows.append(np.pad(total, (0, players - count), constant_values=1.0))
    return torch.from_numpy(np.stack(rows))


def _sizes(cumulative: Tensor, u: Tensor, count: Tensor) -> Tensor:
    """Sizes by the inverse of their distribution."""
    found = torch.searchsorted(
        cumulative.contiguous(), u.double().clamp(max=1 - 2.0**-26), right=True
    )
    return torch.minimum(found, count)


def _sort(keys: Tensor) -> Tensor:
    """Rows in ascending order; NumPy sorts short rows thirty times as fast as torch on a CPU."""
    if keys.device.type == "cpu":
        return torch.from_numpy(np.sort(keys.numpy(), -1))
    return keys.sort(-1).values


def _lowest(keys: Tensor, ranked: Tensor, sizes: Tensor) -> Tensor:
    """Players with the `sizes` lowest keys."""
    last = ranked.gather(-1, (sizes - 1).clamp(min=0)[..., None])
    return (keys <= last) & (sizes > 0)[..., None]
