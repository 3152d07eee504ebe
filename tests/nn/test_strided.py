"""1x1 convolutions that skip pixels, with channels first and last."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from tenfold.nn.strided import NARROW, StridedPointwise

FORMATS = (torch.contiguous_format, torch.channels_last)


@pytest.mark.parametrize("memory", FORMATS)
@pytest.mark.parametrize("channels", [1, 3, 4, 7, NARROW - 1, NARROW, 20])
@pytest.mark.parametrize("size", [8, 17])
def test_equals_the_convolution(channels: int, size: int, memory: torch.memory_format) -> None:
    """Outputs and gradients, many times: what writes past a buffer shows after a while."""
    torch.manual_seed(0)
    conv = StridedPointwise(channels, 12, 2).to(memory_format=memory)
    for _ in range(20):
        x = torch.randn(16, channels, size, size).contiguous(memory_format=memory)
        x.requires_grad_()
        conv.zero_grad()
        got = conv(x)
        got.square().sum().backward()
    double, weight = x.detach().double().requires_grad_(), conv.weight.detach().double()
    weight.requires_grad_()
    want = functional.conv2d(double.contiguous(), weight.contiguous(), stride=2)
    want.square().sum().backward()
    torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=1e-5)
    for one, other in ((x, double), (conv.weight, weight)):
        assert one.grad is not None and other.grad is not None
        torch.testing.assert_close(one.grad.double(), other.grad, rtol=1e-4, atol=1e-3)
