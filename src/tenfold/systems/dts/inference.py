"""Classes and their probabilities for one image, by one network or the average of several."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from tenfold.nn.sliding import classes_at

from .data import Rgb, normalised, resized
from .model import Network


@torch.no_grad()
def answer(
    networks: Sequence[Network], picture: Rgb, size: tuple[int, int] = (0, 0)
) -> Float[Tensor, "class rows columns"]:
    """Logarithms of probabilities at a quarter of the size at which the networks see an image.

    Args:
        networks: In eval mode; the probabilities of several are averaged.
        picture: An image of any size.
        size: Height and width to which it is brought first; (0, 0) keeps its own.
    """
    device = next(networks[0].parameters()).device
    images = normalised([resized(picture, size)]).to(device)
    seen = [network(images).fused.float() for network in networks]
    if len(seen) == 1:
        return seen[0].log_softmax(1)[0]
    return torch.stack([logits.softmax(1) for logits in seen]).mean(0).log()[0]


def label_map(
    found: Float[Tensor, "class rows columns"], height: int, width: int
) -> UInt8[np.ndarray, "height width"]:
    """The most probable class of each pixel; logits are enlarged, never classes."""
    return classes_at(found, height, width).numpy()


def confidence_map(
    found: Float[Tensor, "class rows columns"], height: int, width: int
) -> UInt8[np.ndarray, "height width"]:
    """Probability of each pixel's class, 0 to 255."""
    best = found.exp().max(0).values[None, None]
    whole = torch.nn.functional.interpolate(
        best, (height, width), mode="bilinear", align_corners=False
    )
    return (whole[0, 0] * 255).round().byte().cpu().numpy()
