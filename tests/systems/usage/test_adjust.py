"""Network adjustment: what is dropped, how much of it, and what never is."""

from __future__ import annotations

import pytest
import torch

from tenfold.systems.usage.adjust import (
    MOST,
    Adjustment,
    channel_importance,
    drop_channels,
    kept_tokens,
    probabilities,
)


def test_units_are_dropped_by_their_importance() -> None:
    importance = torch.tensor([[1.0, 2, 3, 10]])
    found = probabilities(importance, Adjustment(0.4))
    torch.testing.assert_close(found, torch.tensor([[0.1, 0.2, 0.3, MOST]]))
    alike = probabilities(importance, Adjustment(0.4, adaptive=False))
    torch.testing.assert_close(alike, torch.full((1, 4), 0.4))
    dead = probabilities(torch.zeros(1, 3), Adjustment(0.4))
    torch.testing.assert_close(dead, torch.full((1, 3), 0.4))


def test_what_stays_is_scaled_so_that_means_stay() -> None:
    torch.manual_seed(0)
    x = torch.rand(1, 6, 3, 3).expand(20000, -1, -1, -1)
    found = drop_channels(x, Adjustment(0.3)).mean(0)
    torch.testing.assert_close(found, x[0], rtol=0.05, atol=0)
    shares = (drop_channels(x, Adjustment(0.3)).flatten(2).amax(2) == 0).float().mean()
    assert shares == pytest.approx(0.3, abs=0.01)
    assert drop_channels(x, Adjustment(0.0)) is x


def test_importance_has_no_gradient() -> None:
    x = torch.randn(2, 4, 3, 3, requires_grad=True)
    assert not channel_importance(x).requires_grad
    drawn = torch.full((2, 4), 0.99)  # nothing is dropped
    found = drop_channels(x, Adjustment(0.2), drawn)
    factor = (1 / (1 - probabilities(channel_importance(x), Adjustment(0.2))))[..., None, None]
    (slope,) = torch.autograd.grad(found.sum(), x)
    torch.testing.assert_close(slope, factor.expand_as(x))


def test_class_tokens_stay() -> None:
    attention = torch.rand(3, 2, 2, 7).softmax(-1)
    kept = kept_tokens(attention, 2, Adjustment(0.9), torch.zeros(3, 5))
    assert kept[:, :2].all() and not kept[:, 2:].any()
    assert kept_tokens(attention, 2, Adjustment(0.9), torch.full((3, 5), 0.96)).all()


def test_strength_is_a_share() -> None:
    with pytest.raises(ValueError, match=r"strength must be in \[0, 1\), got 1"):
        Adjustment(1.0)
