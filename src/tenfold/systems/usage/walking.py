"""The stage that learns which places belong together, and the random walk by what it learned."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from . import pseudo, random_walk
from .affinity import AffinityNetwork, BoundaryNetwork, Confident, irn_loss, labels_from, psa_loss
from .config import Config
from .crf import IRN, PSA
from .kept import KeptNetwork
from .views import Rgb, at_longest, normalised

LEVELS = {"psa": 3, "irn": 4}
"""Last stages whose maps are taken (PSA: conv4 to conv6 of ResNet-38; IRN: all of ResNet-50)."""

Maps = Float[Tensor, "class height width"]


class Walker(nn.Module):
    """A network of affinities or boundaries on maps of the seed network, which is not trained."""

    def __init__(self, cfg: Config, network: KeptNetwork) -> None:
        super().__init__()
        self.cfg = cfg
        self._network = [network]  # in a list: no part of what is trained
        count = LEVELS[cfg.refine.walk]
        dims = network.level_dims[-count:]
        self.head: nn.Module
        if cfg.refine.walk == "psa":
            self.head = AffinityNetwork(dims)
        else:
            self.head = BoundaryNetwork(dims)

    def found(self, images: Float[Tensor, "batch 3 height width"]) -> Tensor:
        """Features of affinity, or logits of boundaries, at the stride of the first map."""
        network = self._network[0].to(images.device).eval()
        with torch.no_grad():
            levels = network.levels(images)[-LEVELS[self.cfg.refine.walk] :]
        return self.head(levels)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Loss of {"images", "labels"}: pictures of bytes, sure labels of pixels, 255 unsure."""
        found = self.found(normalised(batch["images"], self.cfg.model.colours))
        size = (found.shape[-2], found.shape[-1])
        labels = F.interpolate(batch["labels"][:, None].float(), size, mode="nearest")[:, 0]
        loss = psa_loss if self.cfg.refine.walk == "psa" else irn_loss
        return {"loss": loss(found, labels.byte(), self.cfg.refine.radius)}

    @torch.no_grad()
    def walked(self, picture: Rgb, maps: Maps) -> Float[Tensor, "label height width"]:
        """Scores of background and classes after the walk, at the picture's size."""
        own, device = self.cfg.refine, next(self.head.parameters()).device
        height, width = maps.shape[1:]
        scores = maps.new_zeros(len(maps) + 1, height, width)
        present = maps.flatten(1).amax(1) > 0
        if not bool(present.any()):
            scores[0] = 1
            return scores
        image = at_longest(picture, 0)[None].to(device)
        found = self.found(normalised(image, self.cfg.model.colours))[0].cpu()
        steps = own.radius, own.beta, own.log2_steps
        grid = (found.shape[-2], found.shape[-1])
        if own.walk == "psa":
            stride = stride_of((height, width), grid)
            radius, beta, log2_steps = steps
            some = random_walk.psa(
                found, maps[present], stride, radius, own.power, beta, log2_steps
            )
        else:
            small = F.interpolate(maps[present][None], grid, mode="area")[0]
            walked = random_walk.irn(found.sigmoid(), small, *steps)
            large = F.interpolate(walked[None], (height, width), mode="bilinear")[0]
            some = pseudo.with_threshold(large / (large.amax() + 1e-5), own.ground)
        scores[torch.cat([present.new_ones(1), present])] = some
        return scores


def stride_of(size: tuple[int, int], grid: tuple[int, int]) -> int:
    """Pixels of a side of a cell: the least power of two that makes this grid of a picture.

    Stages halve sides and round up: of a small picture the last cell lies well beyond its border,
    and the side by the number of cells would be too little.
    """
    every = (2**i for i in range(12))
    fits = (s for s in every if tuple(-(-side // s) for side in size) == grid)
    return next(fits, round(size[0] / grid[0]))


def sure_labels(
    image: UInt8[Tensor, "height width 3"], maps: Maps, cfg: Config
) -> UInt8[Tensor, "height width"]:
    """Labels of pixels that seeds are sure of, through the CRF: 255 where they are not."""
    own = cfg.refine
    assert own.walk != "none"
    crf = replace(IRN if own.walk == "irn" else PSA, max_pixels=own.crf_pixels)
    return labels_from(image, maps, Confident(own.walk, own.low, own.high), crf, 1)
