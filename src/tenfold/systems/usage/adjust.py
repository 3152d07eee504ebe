"""Network adjustment: parts of every layer are dropped, most of all those that are relied upon.

The paper's overview has a student whose layers drop much and a teacher whose layers drop little,
of the same pictures ("self-adaptive"). What a layer drops by is not said in what can be read of
it; the rule here is ours.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

MOST = 0.95
"""Largest probability of being dropped."""

Units = Float[Tensor, "batch unit"]


@dataclass(frozen=True)
class Adjustment:
    """How much of every layer is dropped in a forward pass; numbers are drawn from torch's own."""

    strength: float
    """Mean share of units that are dropped; 0 drops none."""
    adaptive: bool = True
    """Whether units are dropped by their importance, or all alike."""

    def __post_init__(self) -> None:
        if not 0 <= self.strength < 1:
            raise ValueError(f"an adjustment's strength must be in [0, 1), got {self.strength}")


def probabilities(importance: Units, adjustment: Adjustment) -> Units:
    """Probability of each unit to be dropped: strength * importance / mean importance, capped.

    A picture all of whose importances are 0 drops all units alike.
    """
    alike = torch.full_like(importance, adjustment.strength)
    if not adjustment.adaptive:
        return alike
    mean = importance.mean(1, keepdim=True)
    found = adjustment.strength * importance / mean.clamp(min=torch.finfo(mean.dtype).tiny)
    return torch.where(mean > 0, found, alike).clamp(max=MOST)


def channel_importance(x: Float[Tensor, "batch channel *place"]) -> Units:
    """Mean of a channel's absolute values over its map."""
    return x.detach().abs().flatten(2).mean(2)


def token_importance(attention: Float[Tensor, "batch head query key"], skipped: int) -> Units:
    """Mean attention that each patch token gets from the queries, over heads.

    The first `skipped` keys are class tokens, which are never dropped.
    """
    return attention.detach().mean((1, 2))[:, skipped:]


def drop_channels(
    x: Float[Tensor, "batch channel *place"],
    adjustment: Adjustment,
    drawn: Units | None = None,
) -> Float[Tensor, "batch channel *place"]:
    """Set whole channels to 0 and divide the others by their probability to stay.

    drawn: uniform numbers in [0, 1) to decide by; without, they are drawn.
    """
    if not adjustment.strength:
        return x
    chance = probabilities(channel_importance(x), adjustment)
    drawn = torch.rand_like(chance) if drawn is None else drawn
    factor = (drawn >= chance).to(x.dtype) / (1 - chance)
    return x * factor.view(*factor.shape, *[1] * (x.ndim - 2))


def kept_tokens(
    attention: Float[Tensor, "batch head query key"],
    skipped: int,
    adjustment: Adjustment,
    drawn: Units | None = None,
) -> Bool[Tensor, "batch key"]:
    """False for keys that no query may attend to; the first `skipped` are always True."""
    chance = probabilities(token_importance(attention, skipped), adjustment)
    drawn = torch.rand_like(chance) if drawn is None else drawn
    always = torch.ones(len(chance), skipped, dtype=torch.bool, device=chance.device)
    return torch.cat([always, drawn >= chance], 1)
