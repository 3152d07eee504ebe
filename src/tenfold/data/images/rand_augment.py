"""RandAugment as timm's `rand-m9-mstd0.5-inc1`: fifteen changes that grow with the magnitude.

Source: Cubuk et al. 2019 (arXiv 1909.13719); ranges and the increasing variants are timm's.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageEnhance, ImageOps

LARGEST = 10
"""Magnitude at which a change is as strong as it gets."""
PROBABILITY = 0.5
"""Of applying each chosen change."""
FILL = (124, 116, 104)
"""Colour of what comes in from outside: ImageNet's mean."""
Change = Callable[[Image.Image, float, float], Image.Image]
"""(picture, strength 0-1, sign) -> picture."""


def _affine(image: Image.Image, matrix: tuple[int | float, ...]) -> Image.Image:
    how = Image.Resampling.BICUBIC
    return image.transform(image.size, Image.Transform.AFFINE, matrix, how, fillcolor=FILL)


def _enhance(kind: Callable[[Image.Image], ImageEnhance._Enhance]) -> Change:
    return lambda image, m, sign: kind(image).enhance(max(0.1, 1 + sign * 0.9 * m))


def _solarize_add(image: Image.Image, m: float, sign: float) -> Image.Image:
    added = min(128, int(110 * m))
    table = [min(255, value + added) if value < 128 else value for value in range(256)] * 3
    return image.point(table)


CHANGES: dict[str, Change] = {
    "auto contrast": lambda image, m, sign: ImageOps.autocontrast(image),
    "equalize": lambda image, m, sign: ImageOps.equalize(image),
    "invert": lambda image, m, sign: ImageOps.invert(image),
    "rotate": lambda image, m, sign: image.rotate(
        sign * 30 * m, Image.Resampling.BICUBIC, fillcolor=FILL
    ),
    "posterize": lambda image, m, sign: ImageOps.posterize(image, max(1, 4 - int(4 * m))),
    "solarize": lambda image, m, sign: ImageOps.solarize(image, 256 - int(256 * m)),
    "solarize add": _solarize_add,
    "colour": _enhance(ImageEnhance.Color),
    "contrast": _enhance(ImageEnhance.Contrast),
    "brightness": _enhance(ImageEnhance.Brightness),
    "sharpness": _enhance(ImageEnhance.Sharpness),
    "shear x": lambda image, m, sign: _affine(image, (1, sign * 0.3 * m, 0, 0, 1, 0)),
    "shear y": lambda image, m, sign: _affine(image, (1, 0, 0, sign * 0.3 * m, 1, 0)),
    "translate x": lambda image, m, sign: _affine(
        image, (1, 0, sign * 0.45 * m * image.width, 0, 1, 0)
    ),
    "translate y": lambda image, m, sign: _affine(
        image, (1, 0, 0, 0, 1, sign * 0.45 * m * image.height)
    ),
}


def rand_augment(
    picture: UInt8[np.ndarray, "height width 3"],
    generator: torch.Generator,
    magnitude: float = 9.0,
    spread: float = 0.5,
    count: int = 2,
) -> UInt8[np.ndarray, "height width 3"]:
    """Apply `count` random changes, drawn with replacement, each with probability one half.

    The magnitude of each is drawn anew from a normal distribution, and cut to 0-10.
    """
    image = Image.fromarray(picture)
    names = list(CHANGES)
    drawn = torch.rand(count, 3, generator=generator).tolist()
    noise = torch.randn(count, generator=generator).tolist()
    for (which, apply, side), normal in zip(drawn, noise, strict=True):
        if apply >= PROBABILITY:
            continue
        strength = min(max(magnitude + spread * normal, 0.0), LARGEST) / LARGEST
        change = CHANGES[names[int(which * len(names))]]
        image = change(image, strength, 1.0 if side < 0.5 else -1.0)
    return np.asarray(image)
