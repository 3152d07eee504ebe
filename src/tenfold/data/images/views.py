"""Views of single pictures: random crops, centre crops, and where boxes come to lie in them."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

Number = int | float
Crop = tuple[Number, Number, Number, Number]
"""x0 y0 x1 y1 in pixels of the picture."""
TRIES = 10
"""Crops drawn before the largest centred one that fits is taken (as torchvision does)."""


def crop_box(
    height: int,
    width: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    generator: torch.Generator,
) -> Crop:
    """A random crop (Inception's): its share of the area, and its width by its height, are drawn.

    scale: range of the share; ratio: range of width by height, drawn on a logarithmic scale.
    """
    drawn = torch.rand(TRIES, 4, generator=generator, dtype=torch.float64).tolist()
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for area, shape, right, down in drawn:
        pixels = height * width * (scale[0] + (scale[1] - scale[0]) * area)
        aspect = math.exp(low + (high - low) * shape)
        wide, tall = round(math.sqrt(pixels * aspect)), round(math.sqrt(pixels / aspect))
        if 0 < wide <= width and 0 < tall <= height:
            left, top = int(right * (width - wide + 1)), int(down * (height - tall + 1))
            return float(left), float(top), float(left + wide), float(top + tall)
    most = min(width, height * ratio[1])
    least = min(height, width / ratio[0])
    x, y = (width - most) / 2, (height - least) / 2
    return x, y, x + most, y + least


def view(
    picture: UInt8[np.ndarray, "height width 3"], box: Crop, flip: bool, size: int
) -> UInt8[Tensor, "3 size size"]:
    """A crop resized to a square, bicubic with antialiasing, and mirrored left to right."""
    image = Image.fromarray(picture)
    if box != (0, 0, size, size) or image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BICUBIC, box=box, reducing_gap=2.0)
    pixels = np.asarray(image)
    pixels = pixels[:, ::-1] if flip else pixels
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def centre(
    picture: UInt8[np.ndarray, "height width 3"], size: int, share: float
) -> UInt8[Tensor, "3 size size"]:
    """The central square of `share` of the shorter side, resized: the usual view of a test."""
    height, width = picture.shape[:2]
    side = share * min(height, width)
    left, top = (width - side) / 2, (height - side) / 2
    return view(picture, (left, top, left + side, top + side), False, size)


def view_box(
    box: Float[np.ndarray, "4"], crop: Crop, flip: bool, size: int
) -> Float[np.ndarray, "4"]:
    """A box of the picture in pixels of a view of `size`, cut at its borders."""
    x0, y0, x1, y1 = crop
    scale = np.array([size / (x1 - x0), size / (y1 - y0)] * 2)
    found = ((box - np.array([x0, y0, x0, y0])) * scale).clip(0, size)
    if flip:
        found[[0, 2]] = size - found[[2, 0]]
    return found.astype(np.float32)
