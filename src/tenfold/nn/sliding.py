"""Prediction of large pictures by overlapping windows."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def starts(length: int, size: int, stride: int) -> list[int]:
    """Return the starts of windows along a side: every `stride`, the last shifted back inside."""
    if length <= size:
        return [0]
    count = -(-(length - size) // stride) + 1
    return [min(i * stride, length - size) for i in range(count)]


def slide(
    predict: Callable[[Tensor], Tensor],
    pictures: Float[Tensor, "batch 3 height width"],
    size: int,
    stride: int,
    multiple: int = 1,
) -> Float[Tensor, "batch class height width"]:
    """Logits, averaged where windows overlap (mmsegmentation's `slide` mode).

    predict: from windows to logits of the same height and width. A picture that is smaller than a
    window is taken as it is, padded with zeros to a `multiple` that `predict` needs.
    """
    height, width = pictures.shape[2:]
    total: Tensor | None = None
    counts = pictures.new_zeros(1, 1, height, width)
    for top in starts(height, size, stride):
        for left in starts(width, size, stride):
            part = pictures[:, :, top : top + size, left : left + size]
            tall, wide = part.shape[2:]
            padded = F.pad(part, (0, -wide % multiple, 0, -tall % multiple))
            logits = predict(padded)[:, :, :tall, :wide]
            if total is None:
                total = logits.new_zeros(len(pictures), logits.shape[1], height, width)
            total[:, :, top : top + tall, left : left + wide] += logits
            counts[:, :, top : top + tall, left : left + wide] += 1
    assert total is not None
    return total / counts
