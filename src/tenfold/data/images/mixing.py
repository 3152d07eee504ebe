"""Mixed and changed batches for self-training: ClassMix, block masks, blur, colour jitter.

Every draw is a function of its own (`draw_...`, from a generator), apart from the function that
applies what was drawn, so that a draw can be given. Labels are 0-254, and 255 does not count.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Integer
from torch import Tensor

IGNORED = 255
LABELS = 256
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and deviation of the channels of pictures in [0, 1]: ImageNet's, as the official code."""
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
"""Numbers of the changes in the order of a `Jitter`, as kornia 0.5.8 counts them."""
NEGLIGIBLE = 6
"""Deviations beyond which a Gaussian weighs less than float32 resolves beside its middle."""
EPSILON = 1e-6
"""Added to a denominator of the saturation (kornia 0.5.8)."""

Labels = Integer[Tensor, "batch height width"]
Pictures = Float[Tensor, "batch 3 height width"]
T = TypeVar("T", bound=Tensor)

# --- ClassMix ------------------------------------------------------------------------------------


def draw_classes(
    labels: Labels, generator: torch.Generator, compat: bool = False
) -> Bool[Tensor, "batch 256"]:
    """Draw half of the classes (rounded up) of each picture, without replacement.

    compat: as the official code draws (DAFormer dacs_transforms.py, get_class_masks): among the
    classes of the whole batch, 255 being one of them. Otherwise a picture's own classes are drawn
    from; one without any has none drawn.

    Returns:
        Whether a class was drawn, for each picture and label.
    """
    there = torch.zeros(len(labels), LABELS, dtype=torch.bool, device=labels.device)
    there.scatter_(1, labels.flatten(1).long(), True)
    if compat:
        there = there.any(0, keepdim=True).expand_as(there)
    else:
        there[:, IGNORED] = False
    keys = torch.rand(there.shape, generator=generator, device=generator.device).to(labels.device)
    rank = keys.masked_fill(~there, 2.0).argsort(1).argsort(1)  # absent ones come last
    return rank < (there.sum(1, keepdim=True) + 1) // 2


def class_mask(
    labels: Labels, chosen: Bool[Tensor, "batch 256"]
) -> Bool[Tensor, "batch height width"]:
    """Pixels of the drawn classes."""
    return chosen.gather(1, labels.flatten(1).long()).view(labels.shape)


def paste(mask: Bool[Tensor, "batch height width"], above: T, below: T) -> T:
    """Pictures, labels or weights: `above` where the mask is set, else `below` (one_mix).

    A mask of (batch, height, width) serves all channels.
    """
    found = torch.where(mask.unsqueeze(1) if above.ndim == 4 else mask, above, below)
    return found  # type: ignore[return-value]


# --- block masks (MIC, masking_transforms.py) ----------------------------------------------------


def draw_blocks(
    batch: int, height: int, width: int, block: int, generator: torch.Generator
) -> Float[Tensor, "batch 1 rows columns"]:
    """Draw a number in [0, 1) for each block of about `block` pixels a side."""
    shape = (batch, 1, max(1, round(height / block)), max(1, round(width / block)))
    return torch.rand(shape, generator=generator, device=generator.device)


def block_mask(
    drawn: Float[Tensor, "batch 1 rows columns"], ratio: int | float, height: int, width: int
) -> Bool[Tensor, "batch 1 height width"]:
    """Pixels that are kept: a share `ratio` of the blocks is not.

    Normalised pictures are multiplied by it, so that a dropped pixel has the mean colour.
    """
    kept = (drawn > ratio).to(torch.uint8)
    return F.interpolate(kept, (height, width), mode="nearest").bool()


# --- strong augmentation (DAFormer, dacs_transforms.py) ------------------------------------------


@dataclass(frozen=True)
class Jitter:
    """Changes of one picture's colours: factors, and the order in which they are applied."""

    brightness: int | float = 1
    """Less one, it is added to all channels, as kornia 0.5.8 does."""
    contrast: int | float = 1
    """Multiplies all channels."""
    saturation: int | float = 1
    """Multiplies the saturation."""
    hue: int | float = 0
    """Added to the hue, in turns."""
    order: tuple[int, ...] = (BRIGHTNESS, CONTRAST, SATURATION, HUE)


@dataclass(frozen=True)
class Strong:
    """Augmentation of a batch: for each picture a jitter and a deviation of the blur, or none."""

    jitters: tuple[Jitter, ...] = ()
    """Empty: colours stay."""
    sigmas: tuple[int | float, ...] = ()
    """In pixels; empty: no blur."""


def draw_strong(
    batch: int,
    generator: torch.Generator,
    jitter: int | float = 0.8,
    strength: int | float = 0.2,
    blur: int | float = 0.5,
    sigma: tuple[int | float, int | float] = (0.15, 1.15),
) -> Strong:
    """Draw the augmentation of a batch, from a generator of the CPU (its numbers are read).

    Whether colours and blur are changed at all is drawn once for the batch, amounts and order for
    each picture, as in the official code.

    Args:
        jitter: Probability of a change of colours.
        strength: Largest change of the factors, at most 0.5.
        blur: Probability of a blur.
        sigma: Range of the blur's deviation, in pixels.
    """
    if not 0 <= strength <= 0.5:
        raise ValueError(f"the strength of the jitter must be 0 to 0.5, got {strength}")
    # the same count of numbers whatever is decided: what is drawn next does not depend on it
    decide = torch.rand(2, generator=generator).tolist()
    amounts = torch.rand(batch, 4, generator=generator).mul(2).sub(1).mul(strength).tolist()
    orders = torch.rand(batch, 4, generator=generator).argsort(1).tolist()
    places = torch.rand(batch, generator=generator).tolist()
    jitters = tuple(
        Jitter(1 + b, 1 + c, 1 + s, h, tuple(order))
        for (b, c, s, h), order in zip(amounts, orders, strict=True)
    )
    sigmas = tuple(sigma[0] + (sigma[1] - sigma[0]) * place for place in places)
    return Strong(jitters if decide[0] < jitter else (), sigmas if decide[1] < blur else ())


def strong(x: Pictures, drawn: Strong) -> Pictures:
    """Apply an augmentation to normalised pictures: first the colours, then the blur."""
    if drawn.jitters:
        x = normalise(jitter(denormalise(x), drawn.jitters))
    return blur(x, drawn.sigmas) if drawn.sigmas else x


def normalise(x: Pictures) -> Pictures:
    """Pictures in [0, 1] to mean 0 and deviation 1, by ImageNet's numbers."""
    return (x - _channels(MEAN, x)) / _channels(STD, x)


def denormalise(x: Pictures) -> Pictures:
    """Normalised pictures back to [0, 1]."""
    return x * _channels(STD, x) + _channels(MEAN, x)


def jitter(x: Pictures, jitters: Sequence[Jitter]) -> Pictures:
    """Change the colours of pictures in [0, 1], each by its own factors and order (kornia 0.5.8).

    After each change but that of the hue, which cannot leave it, values are cut to [0, 1].
    """
    return torch.cat([_jittered(x[i : i + 1], one) for i, one in enumerate(jitters)])


def _jittered(x: Pictures, drawn: Jitter) -> Pictures:
    for which in drawn.order:
        if which == BRIGHTNESS:
            x = (x + (drawn.brightness - 1)).clamp(0, 1)
        elif which == CONTRAST:
            x = (x * drawn.contrast).clamp(0, 1)
        else:
            hue, saturation, value = _hsv(x)
            if which == SATURATION:
                saturation = (saturation * drawn.saturation).clamp(0, 1)
            else:
                hue = hue + drawn.hue
            x = _rgb(hue, saturation, value)
    return x


def _hsv(x: Pictures) -> tuple[Tensor, Tensor, Tensor]:
    """Hue (in turns), saturation and value, each (batch, height, width)."""
    red, green, blue = x.unbind(1)
    value = x.amax(1)
    spread = value - x.amin(1)
    divisor = torch.where(spread == 0, 1.0, spread)  # grey: the hue is 0
    sixths = torch.where(
        red == value,
        (green - blue) / divisor,
        torch.where(green == value, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
    )
    return (sixths / 6) % 1, spread / (value + EPSILON), value


def _rgb(hue: Tensor, saturation: Tensor, value: Tensor) -> Pictures:
    """Back to channels: each is a trapezoid of the hue, shifted by a third of the circle."""
    fall = value * saturation
    places = [(hue * 6 + shift) % 6 for shift in (5, 3, 1)]
    return torch.stack([value - fall * torch.minimum(at, 4 - at).clamp(0, 1) for at in places], 1)


def kernel_size(length: int) -> int:
    """Size of the blur's kernel along an axis of `length` pixels: about a tenth, odd."""
    tenth = math.ceil(0.1 * length)
    return math.floor(tenth - 0.5 + tenth % 2)


def blur(x: Pictures, sigmas: Sequence[int | float]) -> Pictures:
    """Gaussian blur, each picture by its own deviation (pixels); borders are mirrored.

    The official code convolves once with a square kernel; a Gaussian is the product of its two
    axes, so we convolve along each, and leave out weights that float32 does not see.
    """
    batch, _, height, width = x.shape
    reach = math.ceil(NEGLIGIBLE * max(sigmas))
    for axis, length in ((3, width), (2, height)):
        radius = min(kernel_size(length) // 2, reach)
        place = torch.arange(-radius, radius + 1, device=x.device, dtype=x.dtype)
        sigma = torch.tensor(sigmas, device=x.device, dtype=x.dtype)[:, None]
        weights = torch.exp(-(place**2) / (2 * sigma**2))
        weights = (weights / weights.sum(1, keepdim=True)).repeat_interleave(3, 0)
        # all pictures' channels side by side, a kernel each
        flat = x.reshape(1, batch * 3, height, width)
        pad = [radius, radius, 0, 0] if axis == 3 else [0, 0, radius, radius]
        kernel = weights[:, None, None, :] if axis == 3 else weights[:, None, :, None]
        x = F.conv2d(F.pad(flat, pad, mode="reflect"), kernel, groups=batch * 3).view(x.shape)
    return x


def _channels(values: tuple[float, float, float], x: Pictures) -> Tensor:
    return torch.tensor(values, device=x.device, dtype=x.dtype).view(1, 3, 1, 1)
