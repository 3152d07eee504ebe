"""From seeds to pseudo masks: background scores, dense CRF, random walk."""

from __future__ import annotations

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from .crf import dense_crf

Maps = Float[Tensor, "class height width"]
Scores = Float[Tensor, "label height width"]
LabelMap = UInt8[Tensor, "height width"]
IGNORED = 255


def with_background(maps: Maps, power: float) -> Scores:
    """Scores of background and classes: the background is (1 - largest map)^power (PSA)."""
    background = (1 - maps.amax(0, keepdim=True)).clamp(0, 1) ** power
    return torch.cat([background, maps])


def with_threshold(maps: Maps, threshold: float) -> Scores:
    """Scores of background and classes: the background is the threshold everywhere."""
    return torch.cat([maps.new_full((1, *maps.shape[1:]), threshold), maps])


def refined_by_crf(image: UInt8[Tensor, "height width 3"], scores: Scores) -> Scores:
    """Probabilities after the dense CRF (PSA's settings) of labels that occur; others have 0."""
    occurs = scores.flatten(1).amax(1) > 0
    given = scores[occurs]
    found = torch.zeros_like(scores)
    if len(given) == 1:
        found[occurs] = 1.0
        return found
    found[occurs] = dense_crf(image, given / given.sum(0, keepdim=True).clamp(min=1e-6))
    return found


def sure_labels(
    image: UInt8[Tensor, "height width 3"], maps: Maps, low: float, high: float
) -> LabelMap:
    """Labels for an affinity network: foreground where a weak background loses, background where
    a strong one wins, 255 between and where the two disagree (PSA)."""
    weak, strong = (
        refined_by_crf(image, with_background(maps, power)).argmax(0) for power in (low, high)
    )
    sure = torch.where(weak == 0, IGNORED, weak)  # of a strong claim of the background
    sure = torch.where(weak + strong == 0, 0, sure)
    return sure.byte()
