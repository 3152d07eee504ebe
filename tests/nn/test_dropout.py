"""Dropout drops its share, scales the rest, and follows torch's seed."""

import pytest
import torch

from tenfold.nn.dropout import dropout


@pytest.mark.parametrize("probability", [0.1, 0.25, 0.5, 0.9])
def test_share_and_scale(probability) -> None:
    torch.manual_seed(0)
    y = dropout(torch.ones(301, 1001), probability, training=True)
    kept = y != 0
    assert kept.double().mean().item() == pytest.approx(1 - probability, abs=4e-3)
    assert y[kept].unique().numel() == 1
    assert y.mean().item() == pytest.approx(1, abs=2e-2)
    for rows in (kept.double().mean(0), kept.double().mean(1)):  # no pattern along either axis
        assert (rows - 1 + probability).abs().max() < 0.16


def test_follows_the_seed() -> None:
    x = torch.randn(7, 5)
    torch.manual_seed(1)
    first, other = dropout(x, 0.5, True), dropout(x, 0.5, True)
    torch.manual_seed(1)
    assert torch.equal(dropout(x, 0.5, True), first)
    assert not torch.equal(other, first)


def test_gradient_is_the_mask() -> None:
    x = torch.randn(20, 30, dtype=torch.float64, requires_grad=True)
    y = dropout(x, 0.3, True)
    y.sum().backward()
    torch.testing.assert_close(x.grad * x, y)


def test_off() -> None:
    x = torch.randn(4)
    assert dropout(x, 0.5, training=False) is x
    assert dropout(x, 0.0, training=True) is x
