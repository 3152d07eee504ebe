"""The networks of a run: seeds, affinities, segmentation."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tenfold.nn.aspp import DeepLabHead
from tenfold.nn.encoders import ResnetEncoder
from tenfold.nn.mit import SIZES, MixTransformer
from tenfold.nn.segformer import SegformerHead
from tenfold.nn.uperhead import enlarged, segmentation_loss

from .backbones import Model
from .config import Config
from .kept import KeptNetwork, build_kept
from .networks import Images, width_of
from .views import normalised
from .walking import Walker

UNSET = -1.0
"""Threshold of a run that has not chosen one."""


class SeedEncoder(nn.Module):
    """A seed network's backbone as an encoder for segmentation: its last map."""

    def __init__(self, model: Model, num_classes: int, gib: float) -> None:
        super().__init__()
        self.network = build_kept(model, num_classes, gib)
        self.network.head = nn.Identity()  # type: ignore[assignment]
        self.dims = (width_of(self.network.body),)

    def forward(self, images: Images) -> list[Float[Tensor, "batch _ _ _"]]:
        """One map."""
        return [self.network.features(images).last]


class Segmenter(nn.Module):
    """An encoder and a head that learn from masks."""

    def __init__(self, cfg: Config) -> None:
        super().__init__()
        own, count = cfg.segment, len(cfg.classes) + 1
        self.cfg = cfg
        if own.encoder == "seed":
            gib = cfg.data.features_gib if own.view == "whole" else 0.0
            self.backbone: Any = SeedEncoder(cfg.model, len(cfg.classes), gib)
        elif own.encoder == "mit":
            size = SIZES["b0"]
            self.backbone = MixTransformer(size.dims, size.heads, size.depths, size.reductions)
        else:
            self.backbone = ResnetEncoder(own.encoder, own.width)
        dims = self.backbone.dims
        self.decode_head: nn.Module = DeepLabHead(dims[-1], count)
        if own.head == "segformer":
            self.decode_head = SegformerHead(dims, count)

    def logits(self, images: Images) -> Float[Tensor, "batch class rows columns"]:
        """Logits of background and classes, at the size of the finest map that the head takes."""
        return self.decode_head(self.backbone(images))

    def probabilities(
        self, images: Images, size: tuple[int, int]
    ) -> Float[Tensor, "batch class height width"]:
        """Probabilities at a size."""
        return enlarged(self.logits(images).float(), size).softmax(1)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Losses of {"images", "labels"}: pictures of bytes, classes of pixels, 255 is ignored."""
        images = normalised(batch["images"], self.cfg.model.colours)
        return {"loss": segmentation_loss(self.logits(images), batch["labels"])}


class Networks(nn.Module):
    """The networks of a run and the threshold that it chose."""

    threshold: Tensor

    def __init__(self, cfg: Config) -> None:
        super().__init__()
        comes_again = cfg.data.view == "whole" and not (cfg.data.jitter or cfg.data.rand_augment)
        gib = cfg.data.features_gib if comes_again else 0.0
        self.seed = build_kept(cfg.model, len(cfg.classes), gib)
        self.affinity: Walker | None = Walker(cfg, self.seed) if cfg.has_walk else None
        self.segment: Segmenter | None = Segmenter(cfg) if cfg.segment.steps else None
        self.register_buffer("threshold", torch.tensor(UNSET, dtype=torch.float64))

    def bodies(self) -> list[nn.Module]:
        """Backbones of later stages that are as the seed network's."""
        kept = [m for m in self.modules() if isinstance(m, KeptNetwork) and m is not self.seed]
        return [network.body for network in kept]

    def keep_nothing(self) -> None:
        """Compute all features, as an exported network does."""
        for module in self.modules():
            if isinstance(module, KeptNetwork):
                module.gib = 0.0
