"""Dense 3x3 convolutions of many channels by Winograd's minimal filtering, in float32 on a CPU.

Tiles of 2 x 2 outputs are made of 16 products a pair of channels instead of 36 (Lavin & Gray 2016,
arXiv 1509.09308, sec. 4.1, F(2x2, 3x3)): 4 / 9 of the arithmetic for some reading and writing of
memory. Its sums are as exact as the plain ones to about a digit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

LEAST = 100_000
"""Products of input and output channels from which it is faster."""
TILES = 288
"""About so many tiles are worked on at once, so that they stay in the cache."""
Map = Float[Tensor, "batch height width channel"]
Weight = Float[Tensor, "out channel 3 3"]
Parts = Float[Tensor, "16 tile channel"]
FILTER = ((1.0, 0.0, 0.0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0.0, 0.0, 1.0))
"""G: from a filter's 3 weights to those of the 4 products."""


def conv3x3(
    conv: nn.Conv2d, x: Float[Tensor, "batch channel height width"]
) -> Float[Tensor, "batch out height width"]:
    """A 3x3 convolution that keeps the map's size; without a bias."""
    is_plain = (
        x.device.type != "cpu"
        or x.dtype != torch.float32
        or torch.is_autocast_enabled("cpu")
        or torch.compiler.is_compiling()
        or conv.in_channels * conv.out_channels < LEAST
    )
    if is_plain:
        return conv(x)
    return _Winograd.apply(x.permute(0, 2, 3, 1).contiguous(), conv.weight).permute(0, 3, 1, 2)


class _Winograd(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(x, weight)
        return _convolved(x, _of_filter(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        grad, of_x, of_weight = grad.contiguous(), None, None
        if ctx.needs_input_grad[0]:
            of_x = _convolved(grad, _of_filter(weight.transpose(0, 1).flip(2, 3)))
        if ctx.needs_input_grad[1]:
            of_weight = _weight_gradient(x, grad)
        return of_x, of_weight


def _of_filter(weight: Weight) -> Float[Tensor, "16 channel out"]:
    """G g G^T of each pair of channels."""
    table = weight.new_tensor(FILTER)
    both = torch.kron(table, table)  # [16, 9]
    out, channels = weight.shape[:2]
    return (both @ weight.permute(2, 3, 1, 0).reshape(9, -1)).view(16, channels, out)


def _blocks(batch: int, height: int, width: int) -> Iterator[tuple[int, int, int]]:
    """Image, first and last row of tiles of the parts that are worked on at once."""
    rows, columns = -(-height // 2), -(-width // 2)
    step = max(1, TILES // columns)
    for image in range(batch):
        for first in range(0, rows, step):
            yield image, first, min(first + step, rows)


def _padded(x: Map) -> Float[Tensor, "batch rows columns channel"]:
    """A border of zeros, and one more row and column where the sides are odd."""
    height, width = x.shape[1:3]
    return nn.functional.pad(x, (0, 0, 1, 1 + width % 2, 1, 1 + height % 2))


def _of_input(rows: Float[Tensor, "row column channel"], out: Parts) -> Parts:
    """B^T d B of overlapping tiles of 4 x 4, of which `rows` are 2 n + 2 rows."""
    count, columns = rows.shape[0] // 2 - 1, rows.shape[1] // 2 - 1
    found = out.view(4, 4, count, columns, -1)
    for row, seen in enumerate(_differences([rows[k::2][:count] for k in range(4)])):
        _differences([seen[:, k::2][:, :columns] for k in range(4)], found[row])
    return out


def _differences(d: Sequence[Tensor], out: Tensor | None = None) -> list[Tensor]:
    """B^T d: d0 - d2, d1 + d2, d2 - d1, d1 - d3."""
    into = [None] * 4 if out is None else list(out)
    return [
        torch.sub(d[0], d[2], out=into[0]),
        torch.add(d[1], d[2], out=into[1]),
        torch.sub(d[2], d[1], out=into[2]),
        torch.sub(d[1], d[3], out=into[3]),
    ]


def _convolved(
    x: Map, filters: Float[Tensor, "16 channel out"]
) -> Float[Tensor, "batch height width out"]:
    batch, height, width, channels = x.shape
    padded, out = _padded(x), filters.shape[2]
    y = x.new_empty(batch, height + height % 2, width + width % 2, out)
    columns = y.shape[2] // 2
    for image, first, last in _blocks(batch, height, width):
        tiles = (last - first) * columns
        parts = _of_input(padded[image, 2 * first : 2 * last + 2], x.new_empty(16, tiles, channels))
        m = torch.bmm(parts, filters).view(4, 4, last - first, columns, out)
        # A^T m A: m0 + m1 + m2, m1 - m2 - m3 along rows, then along columns
        part = y[image, 2 * first : 2 * last].view(last - first, 2, columns, 2, out)
        middle, apart = m[1] + m[2], m[1] - m[2]
        for row, one in enumerate((middle.add_(m[0]), apart.sub_(m[3]))):
            torch.add(one[0].add_(one[1]), one[2], out=part[:, row, :, 0])
            torch.sub(one[1].sub_(one[2]), one[3], out=part[:, row, :, 1])
    return y[:, :height, :width]


def _weight_gradient(x: Map, grad: Float[Tensor, "batch height width out"]) -> Weight:
    """G^T (sum over tiles of (B^T d B) (A dY A^T)) G."""
    batch, height, width, channels = x.shape
    padded, out = _padded(x), grad.shape[3]
    if height % 2 or width % 2:
        grad = nn.functional.pad(grad, (0, 0, 0, width % 2, 0, height % 2))
    columns = grad.shape[2] // 2
    total = x.new_zeros(16, out, channels)
    for image, first, last in _blocks(batch, height, width):
        tiles = (last - first) * columns
        parts = _of_input(padded[image, 2 * first : 2 * last + 2], x.new_empty(16, tiles, channels))
        given = grad[image, 2 * first : 2 * last].view(last - first, 2, columns, 2, out)
        spread = x.new_empty(4, 4, last - first, columns, out)
        for row, seen in enumerate(_spread(given[:, 0], given[:, 1])):
            for column, value in enumerate(_spread(seen[:, :, 0], seen[:, :, 1])):
                spread[row, column] = value
        total.baddbmm_(spread.view(16, tiles, out).transpose(1, 2), parts)
    table = x.new_tensor(FILTER)
    both = torch.kron(table, table)
    return (both.T @ total.view(16, -1)).view(3, 3, out, channels).permute(2, 3, 0, 1)


def _spread(first: Tensor, second: Tensor) -> list[Tensor]:
    """A y: y0, y0 + y1, y0 - y1, -y1."""
    return [first, first + second, first - second, -second]
