"""What the networks of a run say of one picture of a user."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from . import pseudo
from .config import Config, PredictOptions
from .inference import Rgb, class_logits, seed_maps, segmentation
from .model import UNSET, Networks
from .networks import SeedNetwork


@dataclass(frozen=True)
class Answer:
    """What the networks say of a picture."""

    labels: tuple[int, ...]
    is_given: bool
    """Whether the labels are the user's, instead of the classifier's."""
    scores: Float[Tensor, " class"] | None
    """Probability of each class; None of a run without a seed network."""
    maps: Float[Tensor, "class height width"] | None
    """Activation maps in [0, 1]."""
    seeds: UInt8[np.ndarray, "height width"] | None
    """Mask of the maps at the threshold."""
    mask: UInt8[np.ndarray, "height width"]
    """Mask of the last stage."""


def threshold_of(networks: Networks, cfg: Config, options: PredictOptions) -> float:
    """The threshold that is asked for, or the run's own; a run without one has a fixed one."""
    own = float(networks.threshold)
    return options.threshold or (cfg.threshold.fixed if own == UNSET else own)


def answer(
    networks: Networks,
    network: SeedNetwork,
    cfg: Config,
    picture: Rgb,
    given: tuple[int, ...] | None,
    options: PredictOptions,
) -> Answer:
    """Labels, heat maps and masks of a picture.

    Args:
        networks: Of the run.
        network: Its seed network, as `model.prepared` gives it.
        cfg: Their configuration.
        picture: Of any size.
        given: Labels that the user knows; None asks the classifier.
        options: What is asked for.
    """
    if not cfg.is_seed_trained:
        assert networks.segment is not None
        mask = segmentation(networks.segment, cfg, picture)
        return Answer(_found_in(mask), False, None, None, None, mask)
    scores = class_logits(network, cfg, [picture])[0].sigmoid()
    labels = given
    if labels is None:
        labels = tuple(torch.nonzero(scores >= options.sure).flatten().tolist())
    maps = seed_maps(network, cfg, picture, labels).cpu()
    weighed = pseudo.with_threshold(maps, threshold_of(networks, cfg, options))
    if options.crf:
        weighed = pseudo.refined_by_crf(torch.from_numpy(picture.copy()), weighed)
    seeds = weighed.argmax(0).byte().numpy()
    mask = seeds
    if networks.segment is not None:
        mask = segmentation(networks.segment, cfg, picture)
    return Answer(labels, given is not None, scores, maps, seeds, mask)


def _found_in(mask: UInt8[np.ndarray, "height width"]) -> tuple[int, ...]:
    return tuple(int(number) - 1 for number in np.unique(mask) if number)
