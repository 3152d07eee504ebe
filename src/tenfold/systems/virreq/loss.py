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

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64, Integer
from torch import Tensor
from torch.autograd.function import once_differentiable

from tenfold.nn.bilinear import between
from tenfold.nn.norm import world_mean

UNLABELLED = 255
"""In label maps: no label."""
BAND = 2**18
"""About so many enlarged logits are worked on at once."""

Labels = Integer[Tensor, "batch height width"]
Logits = Float[Tensor, "batch name rows columns"]


class Allowed(NamedTuple):
    """Concepts that the pixels of each instance can be; others always.

    A pixel's label has to be one of them.
    """

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

    Where several processes share a batch the number is the mean of theirs.

    Args:
        logits: Of the concepts of one group, at 1/4 of the labels' size or any other.
        labels: Number of the concept in the group; 255 has no label and counts as others.
        others_weight: Weight of pixels that are others; 0 ignores them, 1 takes them at their word.
        inside: Pixels that count, in the sum and in the number; by default all (official).
        allowed: Concepts that a pixel can be. The sum is then divided by the number of pixels that
            can be any (official of ADE20K).
    """
    logits = logits if logits.dtype == torch.float64 else logits.float()
    named = labels != UNLABELLED
    wanted = torch.where(named, labels.long() + 1, 0)
    weights = torch.where(named, 1.0, others_weight).to(logits.dtype)
    counted = torch.ones_like(named) if inside is None else inside
    weights = weights * counted
    if allowed is not None:
        some = allowed.table.any(1)[allowed.instances]
        counted = counted & some
        weights = weights * some  # without a concept others is certain, and its loss 0
    with torch.autocast(logits.device.type, enabled=False):
        total = _Enlarged.apply(logits, wanted, weights, allowed)
    number = world_mean(counted.sum().to(total.dtype))
    return total / torch.where(number > 0, number, 1)


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
        cells = F.pad(logits, (0, 0, 0, 0, 1, 0)).contiguous()
        names, (height, width) = cells.shape[1], wanted.shape[1:]
        grad = torch.zeros_like(cells) if ctx.needs_input_grad[0] else None
        total = cells.new_zeros((), dtype=torch.float64)
        forbidden = None if allowed is None else ~F.pad(allowed.table, (1, 0), value=True).T
        across = between(slice(0, width), width, cells.shape[3]).matrix().to(cells)
        step = max(1, BAND // (names * width))
        for first in range(0, height, step):
            rows = slice(first, min(first + step, height))
            part = between(rows, height, cells.shape[2])
            down = part.matrix().to(cells)
            for image in range(len(cells)):
                weight, labels = weights[image, rows], wanted[image, rows]
                if not weight.any():
                    continue
                few = cells[image, :, part.first : part.last]
                large = down.T @ (few @ across)
                mask = None if forbidden is None else forbidden[:, allowed.instances[image, rows]]
                value, slope = _cross_entropy(large, labels, weight, mask)
                total += value
                if grad is not None:
                    grad[image, :, part.first : part.last] += (down @ slope) @ across.T
        ctx.save_for_backward(*([] if grad is None else [grad[:, 1:]]))
        return total.to(logits.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        (found,) = ctx.saved_tensors
        return found * grad, None, None, None


def _cross_entropy(
    logits: Float[Tensor, "name row column"],
    wanted: Int64[Tensor, "row column"],
    weight: Float[Tensor, "row column"],
    forbidden: Bool[Tensor, "name row column"] | None,
) -> tuple[Float[Tensor, ""], Float[Tensor, "name row column"]]:
    """Sum of weight x cross-entropy, and its gradient by the logits, which is written over them.

    What is forbidden has no share. The official code gives it the logit log(1e-40), which is no
    share in float32 either, but its exponential is denormal, which takes ten times as long.
    """
    if forbidden is not None:
        logits.masked_fill_(forbidden, 0)  # that of others, so that it is not the largest alone
    largest = logits.amax(0)
    of_wanted = logits.gather(0, wanted[None])[0]
    shares = logits.sub_(largest).exp_()
    if forbidden is not None:
        shares.masked_fill_(forbidden, 0)
    total = shares.sum(0)
    value = ((total.log() + largest - of_wanted) * weight).sum(dtype=torch.float64)
    slope = shares.mul_(weight / total)
    slope.scatter_add_(0, wanted[None], -weight[None])
    return value, slope
