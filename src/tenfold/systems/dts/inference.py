"""Classes and their probabilities for one image, by one network or the average of several."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from tenfold.nn.sliding import classes_at

from .data import Rgb, normalised, resized
from .model import Network

AT_ONCE = 2**20
"""Pixels of images that a network sees at once."""


def answer(
    networks: Sequence[Network], picture: Rgb, size: tuple[int, int] = (0, 0)
) -> Float[Tensor, "class rows columns"]:
    """Logarithms of probabilities at a quarter of the size at which the networks see an image.

    Args:
        networks: In eval mode; the probabilities of several are averaged.
        picture: An image of any size.
        size: Height and width to which it is brought first; (0, 0) keeps its own.
    """
    return answers(networks, [picture], size)[0]


@torch.no_grad()
def answers(
    networks: Sequence[Network], pictures: Sequence[Rgb], size: tuple[int, int] = (0, 0)
) -> list[Float[Tensor, "class rows columns"]]:
    """`answer` for several images, of which neighbours of one size go through together."""
    device = next(networks[0].parameters()).device
    found: list[Tensor] = []
    for shape, group in groupby([resized(one, size) for one in pictures], lambda one: one.shape):
        alike = list(group)
        count = max(1, AT_ONCE // (shape[0] * shape[1]))
        for start in range(0, len(alike), count):
            images = normalised(alike[start : start + count]).to(device)
            seen = [network(images).fused.float() for network in networks]
            if len(seen) == 1:
                found += seen[0].log_softmax(1)
            else:
                found += torch.stack([logits.softmax(1) for logits in seen]).mean(0).log()
    return found


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
