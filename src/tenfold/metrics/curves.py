"""Curves of a metric against what its labels cost: answers or seconds."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def area_under(cost: Float[np.ndarray, " stage"], value: Float[np.ndarray, " stage"]) -> float:
    """Mean height of a curve over its range of costs, by trapezoids; one stage is its own mean.

    Raises:
        ValueError: Costs do not rise from stage to stage.
    """
    _check(cost, value)
    if len(cost) == 1:
        return float(value[0])
    return float(np.trapezoid(value, cost) / (cost[-1] - cost[0]))


def cost_of(
    target: float, cost: Float[np.ndarray, " stage"], value: Float[np.ndarray, " stage"]
) -> float | None:
    """Least cost at which a curve reaches a value, by straight lines between stages; None if never.

    Raises:
        ValueError: Costs do not rise from stage to stage.
    """
    _check(cost, value)
    if value[0] >= target:
        return float(cost[0])
    reached = np.flatnonzero(value >= target)
    if not len(reached):
        return None
    i = int(reached[0])
    share = (target - value[i - 1]) / (value[i] - value[i - 1])
    return float(cost[i - 1] + share * (cost[i] - cost[i - 1]))


def _check(cost: Float[np.ndarray, " stage"], value: Float[np.ndarray, " stage"]) -> None:
    if not len(cost) or (np.diff(cost) <= 0).any() or not np.isfinite([cost, value]).all():
        raise ValueError(
            f"a curve needs finite values at rising costs, got {value.tolist()} at {cost.tolist()}"
        )
