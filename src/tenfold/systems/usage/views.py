"""Pictures as the networks see them."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from tenfold.data.images import views
from tenfold.data.images.scene_views import resized, size_for

from .backbones import Colours

Rgb = UInt8[np.ndarray, "_ _ 3"]


def normalised(
    images: UInt8[Tensor, "batch 3 height width"], colours: Colours
) -> Float[Tensor, "batch 3 height width"]:
    """Pictures of bytes as a backbone's weights expect them."""
    mean, deviation = (
        torch.tensor(values, device=images.device).view(1, 3, 1, 1) for values in colours
    )
    return (images / 255 - mean) / deviation


def square(picture: Rgb, side: int) -> UInt8[Tensor, "3 side side"]:
    """The whole picture brought to a square."""
    height, width = picture.shape[:2]
    return views.view(picture, (0, 0, width, height), False, side)


def at_longest(picture: Rgb, longest: int, multiple: int = 1) -> UInt8[Tensor, "3 height width"]:
    """The picture with a longer side of `longest` (0 keeps its own), both sides multiples."""
    height, width = picture.shape[:2]
    if longest:
        height, width = size_for(height, width, longest, longest)
    wanted = [max(1, round(side / multiple)) * multiple for side in (height, width)]
    if wanted != list(picture.shape[:2]):
        picture = resized(picture, *wanted)
    return torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))
