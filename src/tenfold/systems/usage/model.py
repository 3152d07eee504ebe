"""The networks of a run: seeds, affinities, segmentation; and features that are computed once."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tenfold.data.feature_cache import cached, digest_of
from tenfold.nn.aspp import DeepLabHead
from tenfold.nn.efficientnet import EfficientNetLite
from tenfold.nn.encoders import ResnetEncoder
from tenfold.nn.mit import SIZES, MixTransformer
from tenfold.nn.segformer import SegformerHead
from tenfold.nn.uperhead import enlarged, segmentation_loss

from .adjust import Adjustment, drop_channels
from .backbones import Model
from .config import Config
from .networks import Features, Images, SeedNetwork, backbone, for_inference, width_of
from .views import normalised

UNSET = -1.0
"""Threshold of a run that has not chosen one."""


class KeptNetwork(SeedNetwork):
    """A seed network that keeps on disk what frozen stages find in a picture.

    These are the whole backbone of convolutions, or the first stages of EfficientNet-Lite0.
    """

    gib: float = 0.0
    """Gibibytes for all files; 0 keeps nothing."""
    _known: tuple[list[tuple[int, int]], str] = ([], "")
    """State of the backbone's tensors, and their digest."""

    @property
    def is_kept(self) -> bool:
        """True if features of a picture are read instead of computed again."""
        has_cut = self.model.frozen_stages > 0 and isinstance(self.body, EfficientNetLite)
        is_whole = self.model.frozen_stages < 0 and self.model.is_convolutional
        return self.gib > 0 and (is_whole or has_cut)

    def features(
        self, images: Images, adjustment: Adjustment | None = None, with_attention: bool = False
    ) -> Features:
        """What the backbone finds; of frozen stages the last map alone is adjusted."""
        if not self.is_kept:
            return super().features(images, adjustment, with_attention)
        digest = self._digest()
        found = [
            cached(one.cpu(), self.model, digest, self.gib, partial(self._computed, one))
            for one in images.split(1)
        ]
        last = torch.cat(found).to(images.device)
        change = None if adjustment is None else partial(drop_channels, adjustment=adjustment)
        last = last if change is None else change(last)
        cut = self.model.frozen_stages
        if cut > 0:
            assert isinstance(self.body, EfficientNetLite)
            last = self.body.levels(last, change, cut)[-1]
        return Features(last)

    def _computed(self, image: Images) -> Tensor:
        with torch.no_grad():
            x = image.contiguous(memory_format=torch.channels_last)
            cut = self.model.frozen_stages
            found = super().features(x)
            return (found.levels[cut - 1] if cut > 0 else found.last).cpu()

    def _digest(self) -> str:
        """Digest of the frozen stages, taken anew when a tensor was written to."""
        state, cut = self.body.state_dict(), self.model.frozen_stages
        if isinstance(self.body, EfficientNetLite) and cut > 0:
            blocks = range(self.body.ends[cut - 2] if cut > 1 else 0)
            first = ("conv_stem.", "bn0.", *(f"blocks.{number}." for number in blocks))
            state = {key: value for key, value in state.items() if key.startswith(first)}
        now = [(value.data_ptr(), value._version) for value in state.values()]
        if self._known[0] != now:
            device = next(self.parameters()).device.type
            self._known = now, digest_of(state, device)
        return self._known[1]


def build_kept(model: Model, num_classes: int, gib: float) -> KeptNetwork:
    """A seed network of these sizes, with random weights."""
    found = KeptNetwork(backbone(model, num_classes), num_classes, model)
    found.gib = gib
    return found


def prepared(network: KeptNetwork) -> SeedNetwork:
    """The network that finds seeds: a faster copy, unless features of it are kept on disk."""
    return network if network.is_kept else for_inference(network)


def without_memory(network: KeptNetwork) -> SeedNetwork:
    """A faster copy that keeps nothing on disk: for pictures that never come again."""
    found = for_inference(network)
    assert isinstance(found, KeptNetwork)
    found.gib = 0.0
    return found


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
