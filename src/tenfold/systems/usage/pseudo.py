"""From seeds to pseudo masks: the background's score, a dense CRF."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from .crf import PSA as CRF
from .crf import dense_crf

Maps = Float[Tensor, "class height width"]
Scores = Float[Tensor, "label height width"]
IGNORED = 255


def with_threshold(maps: Maps, threshold: float) -> Scores:
    """Scores of background and classes: the background is the threshold everywhere."""
    return torch.cat([maps.new_full((1, *maps.shape[1:]), threshold), maps])


def refined_by_crf(
    image: UInt8[Tensor, "height width 3"], scores: Scores, pixels: int = CRF.max_pixels
) -> Scores:
    """Probabilities after the dense CRF (PSA's settings) of labels that occur; others have 0.

    `pixels` is the size of the grid on which larger pictures are solved.
    """
    occurs = scores.flatten(1).amax(1) > 0
    given = scores[occurs]
    found = torch.zeros_like(scores)
    if len(given) == 1:
        found[occurs] = 1.0
        return found
    given = given / given.sum(0, keepdim=True).clamp(min=1e-6)
    found[occurs] = dense_crf(image, given, replace(CRF, max_pixels=pixels))
    return found
