"""Random changes of pictures: pure functions on batches, randomness only from a generator."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

TRIES = 10
"""Boxes drawn for a picture before the largest that fits is taken (as torchvision does)."""


def crop(
    x: Float[Tensor, "batch 3 height width"], padding: int, generator: torch.Generator
) -> Float[Tensor, "batch 3 height width"]:
    """Shift each picture by up to `padding` pixels each way; what comes in is zero.

    Source: the official transforms pad raw pixels, so this comes before normalising.
    """
    windows = F.pad(x, [padding] * 4).unfold(2, x.shape[2], 1).unfold(3, x.shape[3], 1)
    shape, device = (2, len(x)), generator.device
    shift = torch.randint(2 * padding + 1, shape, generator=generator, device=device).to(x.device)
    return windows[torch.arange(len(x), device=x.device), :, shift[0], shift[1]]


def flip(
    x: Float[Tensor, "batch 3 height width"], generator: torch.Generator
) -> Float[Tensor, "batch 3 height width"]:
    """Mirror half of the pictures, left to right."""
    turned = _uniform((len(x), 1, 1, 1), generator, x) < 0.5
    return torch.where(turned, x.flip(3), x)


def resized_crop(
    x: Float[Tensor, "batch 3 height width"],
    size: int,
    generator: torch.Generator,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Float[Tensor, "batch 3 size size"]:
    """Resize a random box to a square of `size`, bilinear.

    scale: the box's share of the picture's area; ratio: its width by its height. Boxes that do not
    fit are drawn again, as in the official transform; there is no antialiasing (ours), since held
    pictures are hardly larger than `size`.
    """
    batch, _, height, width = x.shape
    area = scale[0] + (scale[1] - scale[0]) * _uniform((batch, TRIES), generator, x)
    low, high = math.log(ratio[0]), math.log(ratio[1])
    shape = torch.exp(low + (high - low) * _uniform((batch, TRIES), generator, x))
    wide = torch.sqrt(area * shape * height / width)  # shares of the picture's sides
    tall = torch.sqrt(area / shape * width / height)
    first = ((wide <= 1) & (tall <= 1)).float().argmax(1, keepdim=True)
    wide = wide.gather(1, first)[:, 0].clamp(max=1)
    tall = tall.gather(1, first)[:, 0].clamp(max=1)
    # grid_sample's coordinates run from -1 to 1 over the picture
    right = (1 - wide) * (2 * _uniform((batch,), generator, x) - 1)
    down = (1 - tall) * (2 * _uniform((batch,), generator, x) - 1)
    theta = torch.zeros(batch, 2, 3, device=x.device, dtype=x.dtype)
    theta[:, 0, 0], theta[:, 0, 2] = wide, right
    theta[:, 1, 1], theta[:, 1, 2] = tall, down
    grid = F.affine_grid(theta, [batch, 3, size, size], align_corners=False)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)


def colour(
    x: Float[Tensor, "batch 3 height width"], strength: int | float, generator: torch.Generator
) -> Float[Tensor, "batch 3 height width"]:
    """Change brightness and saturation of pictures in [0, 1], each by a factor of 1 ± strength."""
    bright, pure = (1 + strength * (2 * _uniform((2, len(x), 1, 1, 1), generator, x) - 1)).unbind()
    x = x * bright
    weights = torch.tensor([0.299, 0.587, 0.114], device=x.device, dtype=x.dtype)
    grey = torch.einsum("bchw,c->bhw", x, weights)[:, None]  # luma, ITU-R BT.601
    return (grey + pure * (x - grey)).clamp(0, 1)


def erase(
    x: Float[Tensor, "batch 3 height width"], probability: float, generator: torch.Generator
) -> Float[Tensor, "batch 3 height width"]:
    """Fill a random rectangle of some pictures with noise (Zhong et al. 2020, timm's mode pixel).

    Pictures are normalised: the noise has mean 0 and deviation 1. The rectangle has 1/50 to 1/3 of
    the area and sides of ratio 0.3 to 3.3; one that does not fit is drawn again, TRIES times.
    """
    batch, _, height, width = x.shape
    chosen = _uniform((batch,), generator, x) < probability
    area = (0.02 + (1 / 3 - 0.02) * _uniform((batch, TRIES), generator, x)) * height * width
    spread = math.log(1 / 0.3)
    aspect = torch.exp(spread * (2 * _uniform((batch, TRIES), generator, x) - 1))
    tall, wide = torch.sqrt(area * aspect).round(), torch.sqrt(area / aspect).round()
    fits = (tall < height) & (wide < width)
    first = fits.float().argmax(1, keepdim=True)
    tall, wide = tall.gather(1, first), wide.gather(1, first)
    chosen &= fits.any(1)
    top = (_uniform((batch, 1), generator, x) * (height - tall + 1)).floor()
    left = (_uniform((batch, 1), generator, x) * (width - wide + 1)).floor()
    rows = torch.arange(height, device=x.device)[None]
    columns = torch.arange(width, device=x.device)[None]
    inside = ((rows >= top) & (rows < top + tall))[:, :, None]
    inside = inside & ((columns >= left) & (columns < left + wide))[:, None, :]
    noise = torch.randn(x.shape, generator=generator, device=generator.device)
    return torch.where((inside & chosen[:, None, None])[:, None], noise.to(x.device, x.dtype), x)


def soft(
    labels: Int64[Tensor, " batch"], num_classes: int, smoothing: float
) -> Float[Tensor, "batch class"]:
    """Probabilities for labels: a share `smoothing` of each is spread over all classes."""
    low = smoothing / num_classes
    found = torch.full((len(labels), num_classes), low, device=labels.device)
    return found.scatter_(1, labels[:, None], 1 - smoothing + low)


def mix(
    x: Float[Tensor, "batch 3 height width"],
    labels: Int64[Tensor, " batch"],
    num_classes: int,
    mixup: float,
    cutmix: float,
    smoothing: float,
    generator: torch.Generator,
) -> tuple[Float[Tensor, "batch 3 height width"], Float[Tensor, "batch class"]]:
    """Mixup or CutMix of a whole batch with its reverse, as timm does; returns soft labels too.

    mixup, cutmix: alpha of the Beta distribution of the share, 0 for none; with both, one of them
    is drawn for the batch. CutMix's share is corrected to the area that was really cut.
    """
    targets = soft(labels, num_classes, smoothing)
    if not mixup and not cutmix or len(x) < 2:
        return x, targets
    use_cut = bool(cutmix) and (not mixup or bool(torch.rand((), generator=generator) < 0.5))
    alpha = torch.full((2,), float(cutmix if use_cut else mixup))
    gammas = torch._standard_gamma(alpha, generator=generator)
    share = float(gammas[0] / gammas.sum().clamp(min=1e-12))
    if use_cut:
        height, width = x.shape[2:]
        side = math.sqrt(1 - share)
        place = torch.rand(2, generator=generator).tolist()
        top, bottom = _cut(place[0], side, height)
        left, right = _cut(place[1], side, width)
        mixed = x.clone()
        mixed[:, :, top:bottom, left:right] = x.flip(0)[:, :, top:bottom, left:right]
        share = 1 - (bottom - top) * (right - left) / (height * width)
        x = mixed
    else:
        x = x.lerp(x.flip(0), 1 - share)
    return x, targets.lerp(targets.flip(0), 1 - share)


def _cut(centre: float, side: float, length: int) -> tuple[int, int]:
    """Begin and end of a part of `side` times the length around a random centre, cut inside."""
    half, at = int(side * length) // 2, int(centre * length)
    return max(0, at - half), min(length, at + half)


def _uniform(shape: tuple[int, ...], generator: torch.Generator, like: Tensor) -> Tensor:
    """Numbers in [0, 1), drawn where the generator lives, then moved."""
    drawn = torch.rand(shape, generator=generator, device=generator.device)
    return drawn.to(like.device, like.dtype)
