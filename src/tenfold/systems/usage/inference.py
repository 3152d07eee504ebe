"""Seeds, scores of classes and segmentation of one picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from tenfold.nn.uperhead import enlarged

from . import seeds
from .config import Config
from .crf import dense_crf
from .loss import pooling_weights
from .model import Segmenter
from .networks import SeedNetwork
from .views import at_longest, normalised, square

Rgb = UInt8[np.ndarray, "_ _ 3"]
LabelMap = UInt8[np.ndarray, "_ _"]
Maps = Float[Tensor, "class height width"]


def seed_maps(
    network: SeedNetwork,
    cfg: Config,
    picture: Rgb,
    labels: Sequence[int],
    scales: Sequence[float] = (),
    flip: bool | None = None,
) -> Maps:
    """Activation maps in [0, 1] of a picture at its size; those of absent classes are 0.

    Args:
        network: In evaluation mode.
        cfg: Its configuration.
        picture: Of any size.
        labels: Classes that are there.
        scales: Other scales than the configuration's.
        flip: Another choice than the configuration's.
    """
    own, device = cfg.seeds, next(network.parameters()).device
    multiple = cfg.model.multiple
    image = square(picture, own.size) if own.size else at_longest(picture, 0, multiple)
    present = torch.zeros(len(cfg.classes), dtype=torch.bool)
    present[list(labels)] = True
    found = seeds.activation_maps(
        network,
        normalised(image[None].to(device), cfg.model.colours)[0],
        present.to(device),
        scales or own.scales,
        own.flip if flip is None else flip,
        own.rule,
        affinity=own.affinity,
    )
    height, width = picture.shape[:2]
    return (
        found if found.shape[1:] == (height, width) else enlarged(found[None], (height, width))[0]
    )


@torch.no_grad()
def class_logits(
    network: SeedNetwork, cfg: Config, pictures: Sequence[Rgb]
) -> Float[Tensor, "picture class"]:
    """Scores of each class before the sigmoid, of pictures of one size at that of training.

    The score is that of the generation loss; where classes have tokens, the mean of both.
    """
    device, data = next(network.parameters()).device, cfg.data
    if data.view == "crop":
        longest = sum(data.longest) // 2
        images = [at_longest(one, longest, cfg.model.multiple) for one in pictures]
    else:
        images = [square(one, data.crop) for one in pictures]
    x = normalised(torch.stack(images).to(device), cfg.model.colours)
    found = network(x.to(network.head.weight.dtype))
    maps = found.maps.float().flatten(2)
    scores = (pooling_weights(maps, cfg.loss.tau_neg, cfg.loss.softmax_over) * maps).sum(2)
    if found.class_logits is not None:
        scores = (scores + found.class_logits.float()) / 2
    return scores.cpu()


@torch.no_grad()
def segmentation(network: Segmenter, cfg: Config, picture: Rgb) -> LabelMap:
    """The class of each pixel, 0 for background; probabilities are enlarged, never classes."""
    own, device = cfg.segment, next(network.parameters()).device
    height, width = picture.shape[:2]
    multiple = cfg.model.multiple if own.encoder == "seed" else 1
    if own.view == "whole":
        image = square(picture, own.crop)
    else:
        image = at_longest(picture, own.size, multiple)
    x = normalised(image[None].to(device), cfg.model.colours)
    total: Tensor | None = None
    for scale in own.test_scales:
        scaled = seeds.resized(x, scale, multiple)
        for flipped in (False, True)[: 1 + own.flip]:
            seen = network.logits(scaled.flip(3) if flipped else scaled).float().softmax(1)
            seen = F.interpolate(seen, image.shape[1:], mode="bilinear", align_corners=False)
            seen = seen.flip(3) if flipped else seen
            total = seen if total is None else total + seen
    assert total is not None
    probabilities = enlarged(total / total.sum(1, keepdim=True), (height, width))[0].cpu()
    if own.crf:
        probabilities = dense_crf(torch.from_numpy(picture.copy()), probabilities)
    return probabilities.argmax(0).byte().numpy()
