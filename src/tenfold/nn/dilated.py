"""Dilated 3x3 convolutions of each channel, in tensor operations that are fast on a CPU.

The kernels that torch has there take as long as a dense convolution. Nine products of the map,
shifted, with one number a channel read and write memory alone, and a shift beyond the map's edge
costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

PIECE = 600_000
"""Numbers of a map that are worked on at once: they stay in the cache."""
Map = Float[Tensor, "batch height width channel"]
Weight = Float[Tensor, "3 3 channel"]
Part = tuple[slice, slice, slice]


def depthwise(
    conv: nn.Conv2d, x: Float[Tensor, "batch channel height width"]
) -> Float[Tensor, "batch channel height width"]:
    """A dilated 3x3 convolution of each channel, which keeps the map's size.

    On a CPU the result is in channels-last order.
    """
    dilation = conv.dilation[0]
    if dilation == 1 or x.device.type != "cpu" or torch.compiler.is_compiling():
        return conv(x)
    weight = conv.weight.squeeze(1).permute(1, 2, 0).contiguous()
    y = _Dilated.apply(x.permute(0, 2, 3, 1).contiguous(), weight, dilation).permute(0, 3, 1, 2)
    return y if conv.bias is None else y + conv.bias[:, None, None]


class _Dilated(torch.autograd.Function):
    """The convolution without a bias, and its gradients; under autocast in float32."""

    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu", cast_inputs=torch.float32)
    def forward(ctx, x, weight, dilation):
        ctx.save_for_backward(x, weight)
        ctx.dilation = dilation
        return _convolved(x, weight, dilation)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        grad, of_x, of_weight = grad.contiguous(), None, None
        if ctx.needs_input_grad[0]:
            of_x = _convolved(grad, weight.flip(0, 1), ctx.dilation)
        if ctx.needs_input_grad[1]:
            of_weight = _weight_gradient(x, grad, ctx.dilation)
        return of_x, of_weight, None


def _shifts(shape: torch.Size, dilation: int) -> Iterator[tuple[Part, Part, tuple[int, int]]]:
    """Parts of the output, the parts of the input that they see, and row and column of the weight.

    Of each piece of the output that is worked on at once, the middle, which sees all, comes first.
    """
    batch, height, width, channels = shape
    images = max(1, PIECE // (height * width * channels))
    rows = min(height, max(1, PIECE // (width * channels)))
    shifts = [s for s in (0, -1, 1) if abs(s) * dilation < width]
    for first in range(0, batch, images):
        some = slice(first, first + images)
        for top in range(0, height, rows):
            for down in (0, -1, 1):
                y = down * dilation
                low, high = max(top, -y), min(top + rows, height, height - y)
                if low >= high:
                    continue
                for right in shifts:
                    x = right * dilation
                    left, end = max(0, -x), min(width, width - x)
                    seen = slice(low + y, high + y), slice(left + x, end + x)
                    yield (
                        (some, slice(low, high), slice(left, end)),
                        (some, *seen),
                        (down + 1, right + 1),
                    )


def _convolved(x: Map, weight: Weight, dilation: int) -> Map:
    y = torch.empty_like(x)
    for part, seen, place in _shifts(x.shape, dilation):
        if place == (1, 1):
            torch.mul(x[seen], weight[place], out=y[part])
        else:
            y[part].addcmul_(x[seen], weight[place])
    return y


def _weight_gradient(x: Map, grad: Map, dilation: int) -> Weight:
    found = x.new_zeros(3, 3, x.shape[3])
    space = x.new_empty(min(x.numel(), max(PIECE, x.shape[2] * x.shape[3])))
    for part, seen, place in _shifts(x.shape, dilation):
        given = grad[part]
        product = space[: given.numel()].view(given.shape)
        torch.mul(given, x[seen], out=product)
        found[place] += product.flatten(0, 2).sum(0)
    return found
