"""Networks as plain tensors in and out."""

from __future__ import annotations

from copy import deepcopy

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tenfold.core.capabilities import Export
from tenfold.core.seed import generator

from .config import Config
from .loss import pooling_weights
from .model import Networks, Segmenter
from .networks import SeedNetwork

PARTS = ("segmentation", "classifier")


class Classifier(nn.Module):
    """A seed network: activation maps and scores of classes, both before the sigmoid."""

    def __init__(self, network: SeedNetwork, cfg: Config) -> None:
        super().__init__()
        self.network, self.tau, self.over = network, cfg.loss.tau_neg, cfg.loss.softmax_over

    def forward(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> tuple[Float[Tensor, "batch class rows columns"], Float[Tensor, "batch class"]]:
        """Maps of every class before ReLU, and scores."""
        found = self.network(images)
        maps = found.maps.flatten(2)
        scores = (pooling_weights(maps, self.tau, self.over) * maps).sum(2)
        if found.class_logits is not None:
            scores = (scores + found.class_logits) / 2
        return found.maps, scores


class Logits(nn.Module):
    """A segmentation network: logits of background and classes."""

    def __init__(self, network: Segmenter) -> None:
        super().__init__()
        self.network = network

    def forward(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch class rows columns"]:
        """Logits at the size of the finest map; enlarge them before the arg-max."""
        return self.network.logits(images)


def export_part(networks: Networks, cfg: Config, part: str, size: tuple[int, int]) -> Export:
    """Take a copy of a network for normalised pictures of one size.

    Args:
        networks: Of the run.
        cfg: Their configuration.
        part: "segmentation" or "classifier"; empty is the first that the run has.
        size: Height and width; (0, 0) is that of training.

    Raises:
        ValueError: The run has no such network, or it does not take the size.
    """
    has = [name for name in PARTS if name != "segmentation" or networks.segment is not None]
    has = [name for name in has if name != "classifier" or cfg.is_seed_trained]
    part = part or has[0]
    if part not in has:
        raise ValueError(f"this run has no part {part!r} to export; it has {', '.join(has)}")
    is_classifier = part == "classifier"
    side = cfg.data.crop if is_classifier else cfg.segment.crop
    height, width = size if any(size) else (side, side)
    multiple = cfg.model.multiple if is_classifier or cfg.segment.encoder == "seed" else 1
    if height % multiple or width % multiple:
        raise ValueError(
            f"{cfg.model.name} takes sides that are multiples of {multiple}, got {height} x {width}"
        )
    images = torch.randn(2, 3, height, width, generator=generator(0, "export"))
    own = deepcopy(networks).cpu()
    own.keep_nothing()
    if is_classifier:
        return Export(Classifier(own.seed, cfg), (images,), ("images",), ("maps", "scores"))
    assert own.segment is not None
    return Export(Logits(own.segment), (images,), ("images",), ("logits",))
