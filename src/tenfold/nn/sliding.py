"""Prediction of large pictures by overlapping windows."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

AT_ONCE = 2**24
"""Logits of enlarged pictures that are held at once."""


def starts(length: int, size: int, stride: int) -> list[int]:
    """Return the starts of windows along a side: every `stride`, the last shifted back inside.

    A stride of more than the size, which would leave gaps, is taken as the size.
    """
    if length <= size:
        return [0]
    stride = min(stride, size)
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


def slide_at_once(
    predict: Callable[[Tensor], Tensor],
    pictures: Float[Tensor, "batch 3 height width"],
    size: tuple[int, int],
    stride: tuple[int, int],
) -> Float[Tensor, "batch class rows columns"]:
    """Logits, averaged where windows overlap, of all windows in one batch.

    So their statistics in training are those of all windows (HRDA's teachers), and gradients pass.
    predict: from windows to logits, which may be smaller by a whole factor; it has to divide where
    the windows start.
    """
    height, width = pictures.shape[2:]
    tall, wide = min(size[0], height), min(size[1], width)
    corners = [
        (top, left)
        for top in starts(height, size[0], stride[0])
        for left in starts(width, size[1], stride[1])
    ]
    parts = [pictures[:, :, y : y + tall, x : x + wide] for y, x in corners]
    logits = predict(torch.cat(parts))
    factor = tall // logits.shape[2]
    rows, columns = logits.shape[2:]
    whole = (height // factor, width // factor)
    # `len` would fix the size of a batch in an export
    total = logits.new_zeros(pictures.shape[0], logits.shape[1], *whole)
    counts = logits.new_zeros(1, 1, *whole)
    for (top, left), some in zip(corners, logits.unflatten(0, (len(corners), -1)), strict=True):
        y, x = top // factor, left // factor
        total[:, :, y : y + rows, x : x + columns] += some
        counts[:, :, y : y + rows, x : x + columns] += 1
    return total / counts


def slide_classes(
    predict: Callable[[Tensor], Tensor],
    picture: Float[Tensor, "1 3 height width"],
    size: int,
    stride: int,
    multiple: int = 1,
) -> UInt8[Tensor, "height width"]:
    """The most probable classes by `slide`, whose logits are held for one row of windows alone.

    A photograph of 24 million pixels has 14 GB of logits of 150 classes.
    """
    height, width = picture.shape[2:]
    tops = starts(height, size, stride)
    found = torch.empty(height, width, dtype=torch.uint8)
    held, counts = picture.new_zeros(0), picture.new_zeros(0)
    for number, top in enumerate(tops):
        end = min(top + size, height)
        total: Tensor | None = None
        count = picture.new_zeros(end - top, width)
        for left in starts(width, size, stride):
            part = picture[:, :, top:end, left : left + size]
            tall, wide = part.shape[2:]
            padded = F.pad(part, (0, -wide % multiple, 0, -tall % multiple))
            logits = predict(padded)[0, :, :tall, :wide]
            if total is None:
                total = logits.new_zeros(len(logits), tall, width)
            total[:, :, left : left + wide] += logits
            count[:, left : left + wide] += 1
        assert total is not None
        if number:  # the rows that the windows above have seen, too
            shared = held.shape[1]
            total[:, :shared] += held
            count[:shared] += counts
        next_top = tops[number + 1] if number + 1 < len(tops) else height
        done = next_top - top
        found[top:next_top] = (total[:, :done] / count[:done]).argmax(0).byte().cpu()
        held, counts = total[:, done:], count[done:]
    return found


def classes_at(
    logits: Float[Tensor, "class rows columns"], height: int, width: int
) -> UInt8[Tensor, "height width"]:
    """The most probable classes of a picture of another size: logits are interpolated linearly.

    As `interpolate` in bilinear mode, but never more than `AT_ONCE` at once.
    """
    if len(logits) * height * width <= AT_ONCE:
        whole = F.interpolate(logits[None], (height, width), mode="bilinear", align_corners=False)
        return _best(whole[0])
    top, bottom, of_bottom = _between(logits.shape[1], height, logits)
    left, right, of_right = _between(logits.shape[2], width, logits)
    found = torch.empty(height, width, dtype=torch.uint8)
    chunk = max(1, AT_ONCE // (len(logits) * max(width, logits.shape[2])))
    for start in range(0, height, chunk):
        some = slice(start, start + chunk)
        rows = torch.lerp(logits[:, top[some]], logits[:, bottom[some]], of_bottom[some, None])
        whole = torch.lerp(rows[:, :, left], rows[:, :, right], of_right)
        found[some] = _best(whole)
    return found


def _best(
    logits: Float[Tensor, "class height width"],
) -> UInt8[Tensor, "height width"]:
    """The most probable class; `argmax` takes six times as long as `max` on a CPU."""
    return logits.max(0).indices.byte().cpu()


def _between(old: int, new: int, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Both neighbours of each new place along a side, and the weight of the second."""
    at = ((torch.arange(new, device=like.device) + 0.5) * (old / new) - 0.5).clamp(min=0)
    first = at.long()
    return first, (first + 1).clamp(max=old - 1), (at - first).to(like.dtype)
