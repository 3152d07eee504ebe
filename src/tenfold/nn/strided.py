"""1x1 convolutions that skip pixels."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

NARROW = 16
"""Channels of oneDNN's block, at most."""


class StridedPointwise(nn.Conv2d):
    """A 1x1 convolution with a stride.

    Few channels are thinned out before it: where channels lie last, the gradient of oneDNN's own
    strided kernel for CPUs with AVX2 writes past its buffer if they are fewer than its block, which
    crashes, hangs or gives wrong numbers (uxlfoundation/oneDNN, issue 6035; seen with torch 2.13).
    """

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__(channels, out, 1, stride, bias=False)

    def forward(
        self, x: Float[Tensor, "batch channel height width"]
    ) -> Float[Tensor, "batch out height2 width2"]:
        """Convolve."""
        if self.in_channels >= NARROW:
            return super().forward(x)
        rows, columns = self.stride
        return functional.conv2d(x[:, :, ::rows, ::columns], self.weight, self.bias)
