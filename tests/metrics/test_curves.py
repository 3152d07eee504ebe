"""Curves against cost: area, and the cost at which a value is reached."""

from __future__ import annotations

import numpy as np
import pytest

from tenfold.metrics.curves import area_under, cost_of

COST = np.array([1.0, 2.0, 4.0])


def test_area_is_the_mean_height() -> None:
    assert area_under(COST, np.array([5.0, 5.0, 5.0])) == 5
    assert area_under(COST, np.array([0.0, 2.0, 4.0])) == pytest.approx((1 + 6) / 3)
    assert area_under(COST[:1], np.array([7.0])) == 7


def test_cost_of_a_value() -> None:
    value = np.array([10.0, 30.0, 20.0])
    assert cost_of(9.0, COST, value) == 1 and cost_of(20.0, COST, value) == 1.5
    assert cost_of(30.0, COST, value) == 2 and cost_of(31.0, COST, value) is None


@pytest.mark.parametrize("cost", [[], [1.0, 1.0], [2.0, 1.0], [1.0, np.nan]])
def test_no_curve(cost: list[float]) -> None:
    with pytest.raises(ValueError, match="rising costs"):
        area_under(np.array(cost), np.zeros(len(cost)))
    with pytest.raises(ValueError, match="rising costs"):
        cost_of(1.0, np.array(cost), np.zeros(len(cost)))
