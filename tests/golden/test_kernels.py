"""The golden cases' way to another device, tried with the one that is always there."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from golden.kernels import kernels_of


def computed() -> list[Tensor]:
    """Products, attention, a norm with statistics, views, what is changed in place or drawn."""
    torch.manual_seed(0)
    x = torch.randn(2, 3, 8, 8, requires_grad=True)
    norm = nn.BatchNorm2d(4)
    y = norm(nn.Conv2d(3, 4, 3, padding=1)(x)).flatten(2).transpose(1, 2)
    y = F.scaled_dot_product_attention(y, y, y)
    y = F.dropout(y[:, ::2], 0.5).mul_(2)
    y.square().sum().backward()
    assert x.grad is not None and norm.running_mean is not None
    return [y.detach(), x.grad, norm.running_mean, y.argmax(-1)]


def test_what_is_computed_elsewhere_is_the_same() -> None:
    want = computed()
    with kernels_of("cpu") as mode:
        got = computed()
    assert mode.count > 10 and not mode.stayed
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_what_a_device_cannot_stays_and_is_named() -> None:
    with kernels_of("meta") as mode:  # nothing can be had back from there
        assert torch.equal(torch.ones(2) + 1, torch.full((2,), 2.0))
    assert mode.count == 0 and "aten.add.Tensor" in mode.stayed


def test_a_mistake_is_still_one() -> None:
    with kernels_of("cpu"), pytest.raises(RuntimeError, match="must match"):
        torch.ones(2) + torch.ones(3)
