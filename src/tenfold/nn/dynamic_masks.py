"""Masks by networks of 1 x 1 convolutions whose weights are found for each object (CondInst).

Tian, Shen and Chen 2020, arXiv 2003.05664, sec. 3. Official code runs them as one grouped
convolution over copies of the shared features; here the first layer is a matrix product with
the features themselves, in which the relative coordinates are an affine map, and all layers of a
few objects are done while their values are in the processor's cache. The backward pass computes
them again instead of keeping them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK = 400_000
"""Numbers of a layer that are computed at once, about what a core's own cache holds."""


def aligned_bilinear(
    x: Float[Tensor, "n channel height width"], factor: int
) -> Float[Tensor, "n channel height2 width2"]:
    """Enlarge maps so that cell i stays at pixel factor * i + factor // 2 (CondInst's code)."""
    return x if factor == 1 else _Enlarged.apply(x, factor)


class _Enlarged(torch.autograd.Function):
    """`aligned_bilinear`, whose gradient torch's own operator takes four times as long for."""

    @staticmethod
    def forward(ctx, x, factor):
        ctx.factor = factor
        # what is written in place fixes the batch's size in the graph of an export
        if factor == 2 and not torch.compiler.is_exporting():
            return _between(_between(x, 3), 2)
        height, width = x.shape[2:]
        # a cell more on each side, so that the ends are level and nothing has to be put before them
        x = F.pad(x, (1, 1, 1, 1), mode="replicate")
        size = (factor * (height + 1) + 1, factor * (width + 1) + 1)
        x = F.interpolate(x, size=size, mode="bilinear", align_corners=True)
        start = factor - factor // 2
        return x[..., start : start + factor * height, start : start + factor * width]

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        for dim in (2, 3):
            grad = _gathered(grad, dim, ctx.factor)
        return grad, None


def _between(x: Tensor, dim: int) -> Tensor:
    """Twice as many cells along an axis: before each one the mean of it and the cell before.

    It is what interpolation comes to for a factor of 2, in less than half its time.
    """
    count = x.shape[dim]
    sizes = [*x.shape[:dim], 2 * count, *x.shape[dim + 1 :]]
    pairs = x.new_empty(sizes).unflatten(dim, (count, 2))
    means, cells = pairs.unbind(dim + 1)
    cells.copy_(x)
    means.narrow(dim, 0, 1).copy_(x.narrow(dim, 0, 1))
    before, behind = x.narrow(dim, 0, count - 1), x.narrow(dim, 1, count - 1)
    means.narrow(dim, 1, count - 1).copy_((before + behind).mul_(0.5))
    return pairs.flatten(dim, dim + 1)


def _gathered(grad: Tensor, dim: int, factor: int) -> Tensor:
    """Gradient of cells along an axis: pixel factor * i + factor // 2 + r has r / factor of i + 1.

    Pixels before the first cell have its value, and those behind the last that of the last.
    """
    count, before = grad.shape[dim] // factor, factor // 2
    found = grad.narrow(dim, before, factor * (count - 1) + 1)
    found = found.index_select(dim, torch.arange(0, found.shape[dim], factor, device=grad.device))
    for r in range(1, factor):
        # between cells i and i + 1, and behind the last, where both are the last
        part = grad.narrow(dim, before, factor * (count - 1))
        part = part.unflatten(dim, (count - 1, factor)).select(dim + 1, r)
        found.narrow(dim, 0, count - 1).add_(part, alpha=1 - r / factor)
        found.narrow(dim, 1, count - 1).add_(part, alpha=r / factor)
    last = before + factor * (count - 1) + 1
    found.narrow(dim, count - 1, 1).add_(
        grad.narrow(dim, last, grad.shape[dim] - last).sum(dim, keepdim=True)
    )
    found.narrow(dim, 0, 1).add_(grad.narrow(dim, 0, before).sum(dim, keepdim=True))
    return found


@dataclass(frozen=True)
class DynamicHead:
    """Shape of the networks that make masks; the defaults are CondInst's."""

    features: int = 8
    """Channels of the shared features."""
    channels: int = 8
    """Of the layers between."""
    layers: int = 3
    coordinates: bool = True
    """Coordinates relative to the object's place are two more channels, before the features."""
    stride: int = 8
    """Pixels of a cell of the features."""
    out_stride: int = 4
    """Pixels of a cell of the masks."""
    extents: tuple[int, ...] = (64, 128, 256, 512, 1024)
    """Pixels that are a relative coordinate of 1, for each level of the pyramid."""

    def __post_init__(self) -> None:
        if min(self.features, self.channels, self.layers, self.out_stride) < 1:
            raise ValueError(
                f"features {self.features}, channels {self.channels}, layers {self.layers} and "
                f"out_stride {self.out_stride} must be at least 1"
            )
        if self.stride % self.out_stride:
            raise ValueError(f"stride {self.stride} is no multiple of {self.out_stride}")

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels before, between and after the layers."""
        first = self.features + 2 * self.coordinates
        return (first, *[self.channels] * (self.layers - 1), 1)

    @property
    def numbers(self) -> int:
        """Weights and biases of an object's network."""
        return sum((a + 1) * b for a, b in zip(self.widths[:-1], self.widths[1:], strict=True))

    def split(
        self, parameters: Float[Tensor, "object number"]
    ) -> tuple[list[Float[Tensor, "object out in"]], list[Float[Tensor, "object out"]]]:
        """Weights and biases of the layers: all weights stand before all biases."""
        pairs = list(zip(self.widths[:-1], self.widths[1:], strict=True))
        parts = parameters.split([a * b for a, b in pairs] + [b for _, b in pairs], 1)
        weights = [part.unflatten(1, (b, a)) for part, (a, b) in zip(parts, pairs, strict=False)]
        return weights, list(parts[len(pairs) :])


def dynamic_masks(
    features: Float[Tensor, "image channel height width"],
    parameters: Float[Tensor, "object number"],
    centres: Float[Tensor, "object 2"],
    levels: Int64[Tensor, " object"],
    image_index: Int64[Tensor, " object"],
    head: DynamicHead | None = None,
) -> Float[Tensor, "object rows columns"]:
    """Logits of masks at `head.out_stride`.

    Args:
        features: Shared ones of each picture.
        parameters: Of each object's network.
        centres: x and y, in pixels, of the place that each object was found at.
        levels: Level of that place.
        image_index: Picture of each object.
        head: Shape of the networks.
    """
    head = head or DynamicHead()
    order = None
    if (image_index.diff() < 0).any():  # objects of a picture are to stand together
        order = image_index.argsort(stable=True)
        parameters, centres, levels = parameters[order], centres[order], levels[order]
    shared, weights, biases = _prepared(features, parameters, centres, levels, head)
    counts = image_index.bincount(minlength=len(shared)).tolist()
    logits = _Network.apply(shared, counts, *weights, *biases)
    if order is not None:
        logits = logits[order.argsort()]
    return _at_out_stride(logits, features, head)


def masks_of_picture(
    features: Float[Tensor, "1 channel height width"],
    parameters: Float[Tensor, "object number"],
    centres: Float[Tensor, "object 2"],
    levels: Int64[Tensor, " object"],
    head: DynamicHead,
) -> Float[Tensor, "object rows columns"]:
    """`dynamic_masks` of one picture by plain operators, as graphs of exported networks need it."""
    shared, weights, biases = _prepared(features, parameters, centres, levels, head)
    logits = _activations(shared[0], weights, biases)[-1][:, 0]
    return _at_out_stride(logits, features, head)


def _prepared(
    features: Tensor, parameters: Tensor, centres: Tensor, levels: Tensor, head: DynamicHead
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Shared channels [image, channel, cell] and, for each object, the layers on them."""
    weights, biases = head.split(parameters.float())
    shared = features.float()
    if not head.coordinates:
        return shared.flatten(2), weights, biases
    # (centre - cell) / extent: the cell is a channel, the rest a part of the bias
    extent = centres.new_tensor(head.extents)[levels]
    size = shared.shape[2:]
    y, x = (
        (torch.arange(n, device=shared.device) * head.stride + head.stride // 2).to(shared)
        for n in size
    )
    cells = torch.stack([x.expand(size), y[:, None].expand(size)])
    shared = torch.cat([cells.expand(len(shared), -1, -1, -1), shared], 1)
    slope = weights[0][:, :, :2] / extent[:, None, None]
    biases[0] = biases[0] + (slope @ centres[:, :, None])[..., 0]
    weights[0] = torch.cat([-slope, weights[0][:, :, 2:]], 2)
    return shared.flatten(2), weights, biases


def _at_out_stride(logits: Tensor, features: Tensor, head: DynamicHead) -> Tensor:
    maps = logits.unflatten(1, features.shape[2:])[:, None]
    return aligned_bilinear(maps, head.stride // head.out_stride)[:, 0]


def _blocks(counts: Sequence[int], numbers: int) -> list[tuple[int, slice]]:
    """Pictures, and rows of a few objects of each, together covering all objects."""
    each, found, start = max(1, BLOCK // numbers), [], 0
    for image, count in enumerate(counts):
        stop = start + count
        found += [(image, slice(i, min(i + each, stop))) for i in range(start, stop, each)]
        start = stop
    return found


def _activations(
    shared: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], out: Tensor | None = None
) -> list[Tensor]:
    """Values after every layer for some objects of one picture; of the last one in `out`, if any.

    out: [object, cell], of one channel.
    """
    count, wide, _ = weights[0].shape
    last = len(weights) - 1
    x = torch.addmm(
        biases[0].reshape(-1, 1), weights[0].flatten(0, 1), shared, out=None if last else out
    )
    found = [x.view(count, wide, -1)]
    for layer in range(1, len(weights)):
        given = out[:, None] if out is not None and layer == last else None
        bias = biases[layer][:, :, None]
        found.append(torch.baddbmm(bias, weights[layer], found[-1].relu_(), out=given))
    return found


class _Network(torch.autograd.Function):
    """Layers of 1 x 1 convolutions with weights of each object, rectified between."""

    @staticmethod
    def forward(ctx, shared, counts, *numbers):
        ctx.save_for_backward(shared, *numbers)
        ctx.counts = counts
        weights, biases = numbers[: len(numbers) // 2], numbers[len(numbers) // 2 :]
        cells = shared.shape[2]
        found = shared.new_empty(len(weights[0]), cells)
        with torch.autocast(shared.device.type, enabled=False):
            for image, rows in _blocks(counts, weights[0].shape[1] * cells):
                part = ([w[rows] for w in weights], [b[rows] for b in biases])
                _activations(shared[image], *part, out=found[rows])
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        shared, *numbers = ctx.saved_tensors
        weights, biases = numbers[: len(numbers) // 2], numbers[len(numbers) // 2 :]
        of_shared = torch.zeros_like(shared)
        of_numbers = [torch.empty_like(x) for x in numbers]
        of_weights, of_biases = of_numbers[: len(weights)], of_numbers[len(weights) :]
        with torch.autocast(shared.device.type, enabled=False):
            for image, rows in _blocks(ctx.counts, weights[0].shape[1] * shared.shape[2]):
                part = [w[rows] for w in weights]
                values = _activations(shared[image], part, [b[rows] for b in biases])
                slope = grad[rows, None]
                for layer in range(len(weights) - 1, 0, -1):
                    of_weights[layer][rows] = slope @ values[layer - 1].mT
                    of_biases[layer][rows] = slope.sum(-1)
                    slope = (part[layer].mT @ slope).masked_fill_(values[layer - 1] == 0, 0)
                of_biases[0][rows] = slope.sum(-1)
                slope = slope.flatten(0, 1)
                of_weights[0][rows] = (slope @ shared[image].mT).view(part[0].shape)
                of_shared[image].addmm_(part[0].flatten(0, 1).mT, slope)
        return of_shared, None, *of_numbers
