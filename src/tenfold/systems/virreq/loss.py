"""Losses of Type-I requests whose labels need not be whole (ViRReq, arXiv 2207.14227, sec. 3.3).

A group of concepts (the children of one concept, or all parts) is told apart together with
"others", whose logit is 0. Pixels without a label are others with a small weight, so that what was
left unlabelled pulls weakly. Official: mmseg/models/decode_heads/decode_head_cpp_part.py and
decode_head_ade_part.py of chufengt/ViRReq.

The official code enlarges all logits to the labels' size, appends the logit of others, and keeps a
map of each of these for the gradient. Here a band of rows is enlarged, scored and given its
gradient while it is in the cache; nothing of the labels' size is kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64, Integer
from torch import Tensor
from torch.autograd.function import once_differentiable

from tenfold.nn.uperhead import enlarged

UNLABELLED = 255
"""In label maps: no label."""
FORBIDDEN = math.log(1e-40)
"""Logit of a concept that a pixel cannot be (official; -inf would make NaN of its gradient)."""
BAND = 2**19
"""About so many enlarged logits are worked on at once."""

Labels = Integer[Tensor, "batch height width"]
Logits = Float[Tensor, "batch name rows columns"]


class Allowed(NamedTuple):
    """Concepts that the pixels of each instance can be; others always."""

    instances: Int64[Tensor, "batch height width"]
    """Row of `table` of each pixel."""
    table: Bool[Tensor, "instance name"]


def request_loss(
    logits: Logits,
    labels: Labels,
    others_weight: float,
    inside: Bool[Tensor, "batch height width"] | None = None,
    allowed: Allowed | None = None,
) -> Float[Tensor, ""]:
    """Cross-entropy with others, at the labels' size: a weighted sum by the number of pixels.

    Args:
        logits: Of the concepts of one group, at 1/4 of the labels' size or any other.
        labels: Number of the concept in the group; 255 has no label and counts as others.
        others_weight: Weight of pixels that are others; 0 ignores them, 1 takes them at their word.
        inside: Pixels that count, in the sum and in the number; by default all (official).
        allowed: Concepts that a pixel can be. The sum is then divided by the number of pixels that
            can be any (official of ADE20K).
    """
    named = labels != UNLABELLED
    wanted = torch.where(named, labels.long() + 1, 0)
    weights = torch.where(named, 1.0, others_weight).to(logits.dtype)
    counted = torch.ones_like(named) if inside is None else inside
    weights = weights * counted
    if allowed is not None:
        some = allowed.table.any(1)[allowed.instances]
        counted = counted & some
        weights = weights * some  # without a concept others is certain, and its loss 0
    total = _Enlarged.apply(logits, wanted, weights, allowed)
    return total / counted.sum().clamp(min=1)


def present_parts(
    labels: Labels,
    instances: Labels,
    names: int,
    children: Bool[Tensor, "batch id name"] | None = None,
) -> Allowed:
    """Parts that the pixels of an instance can be: those that are labelled anywhere on it.

    So a part that was never labelled on this instance gets no negative gradient (official of
    ADE20K). At inference all parts of a class compete; where an instance is known to be labelled
    completely, training can have that too.

    Args:
        labels: Number of the part of each pixel, 255 without one.
        instances: Number of the instance of each pixel, 255 in none.
        names: Number of parts.
        children: For each image and instance number, all parts of its class if it is marked as
            completely labelled, else none.
    """
    batch = len(labels)
    ids = int(instances.max()) + 1 if instances.numel() else 1
    number = instances.long() + ids * torch.arange(batch, device=labels.device)[:, None, None]
    is_labelled = (labels != UNLABELLED) & (instances != UNLABELLED)
    table = torch.zeros(batch * ids, names, dtype=torch.bool, device=labels.device)
    table[number[is_labelled], labels.long()[is_labelled]] = True
    if children is not None:
        known = min(ids, children.shape[1])
        table.view(batch, ids, names)[:, :known] |= children[:, :known]
    if ids > UNLABELLED:
        table.view(batch, ids, names)[:, UNLABELLED] = False
    return Allowed(number, table)


class _Enlarged(torch.autograd.Function):
    """Sum of weight x cross-entropy of enlarged logits, with others before them."""

    @staticmethod
    def forward(ctx, logits, wanted, weights, allowed):
        needs = ctx.needs_input_grad[0]
        cells = F.pad(logits.permute(0, 2, 3, 1), (1, 0)).contiguous()
        grad = torch.zeros_like(cells) if needs else None
        total = logits.new_zeros((), dtype=torch.float64)
        table = None if allowed is None else F.pad(allowed.table, (1, 0), value=True)
        for image in range(len(cells)):
            for band in _bands(cells.shape, wanted.shape):
                weight = weights[image, band.pixels]
                if not weight.any():
                    continue
                forbidden = None
                if allowed is not None and table is not None:
                    forbidden = ~table[allowed.instances[image, band.pixels]]
                with torch.enable_grad() if needs else torch.no_grad():
                    few = cells[image, band.cells].requires_grad_(needs)
                    large = enlarged(few.permute(2, 0, 1)[None], band.size)[0].permute(1, 2, 0)
                    large = large[band.kept]
                logs, value = _cross_entropy(large.detach(), wanted[image, band.pixels], forbidden)
                total += (value * weight).sum(dtype=torch.float64)
                if grad is not None:
                    slope = _slope(logs, wanted[image, band.pixels], weight, forbidden)
                    (of_few,) = torch.autograd.grad(large, few, slope)
                    grad[image].index_add_(0, band.cells, of_few)
        ctx.save_for_backward(*([] if grad is None else [grad[..., 1:]]))
        return total.to(logits.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        (found,) = ctx.saved_tensors
        return (found * grad).permute(0, 3, 1, 2), None, None, None


class _Band(NamedTuple):
    """Rows that are enlarged at once."""

    cells: Int64[Tensor, " row"]
    """Rows of the small map, with those above and below."""
    size: tuple[int, int]
    """What they are enlarged to."""
    kept: slice
    """Rows of the enlarged that are right: away from the borders, or all."""
    pixels: slice
    """Rows of the labels that these are."""


def _bands(small: torch.Size, large: torch.Size) -> Iterator[_Band]:
    """All rows of an image.

    With one more row on each side, and the outermost twice, a band is enlarged as the whole is, if
    that makes a whole number of rows of each.
    """
    rows, (height, width) = small[1], large[1:]
    if height % rows:
        everything = slice(0, height)
        yield _Band(torch.arange(rows), (height, width), everything, everything)
        return
    factor = height // rows
    step = max(1, BAND // (factor * width * small[3]))
    for first in range(0, rows, step):
        last = min(first + step, rows)
        around = torch.arange(first - 1, last + 1).clamp(0, rows - 1)
        kept = slice(factor, factor * (last - first + 1))
        pixels = slice(factor * first, factor * last)
        yield _Band(around, (factor * len(around), width), kept, pixels)


def _cross_entropy(
    logits: Float[Tensor, "row column name"],
    wanted: Int64[Tensor, "row column"],
    forbidden: Bool[Tensor, "row column name"] | None,
) -> tuple[Float[Tensor, "row column name"], Float[Tensor, "row column"]]:
    """Logarithms of probabilities, and minus that of the wanted."""
    if forbidden is not None:
        logits = logits.masked_fill(forbidden, FORBIDDEN)
    logs = logits.log_softmax(-1)
    return logs, -logs.gather(-1, wanted[..., None])[..., 0]


def _slope(
    logs: Float[Tensor, "row column name"],
    wanted: Int64[Tensor, "row column"],
    weight: Float[Tensor, "row column"],
    forbidden: Bool[Tensor, "row column name"] | None,
) -> Float[Tensor, "row column name"]:
    """Gradient of weight x cross-entropy by the logits; writes over `logs`."""
    slope = logs.exp_().mul_(weight[..., None])
    slope.scatter_add_(-1, wanted[..., None], -weight[..., None])
    return slope if forbidden is None else slope.masked_fill_(forbidden, 0)
