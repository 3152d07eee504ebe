"""Seed networks that compute what frozen stages find in a picture once."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from tenfold.data.feature_cache import cached, digest_of
from tenfold.nn.efficientnet import EfficientNetLite

from .adjust import Adjustment, drop_channels
from .backbones import Model
from .networks import Features, Images, Precision, SeedNetwork, backbone, for_inference


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
        # SEAM's branch looks at pictures and at earlier stages, too
        return self.gib > 0 and (is_whole or has_cut) and self.correlation is None

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

    def levels(self, images: Images) -> tuple[Tensor, ...]:
        """The maps of all stages, which are not kept."""
        return super().features(images).levels

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


def prepared(network: KeptNetwork, precision: Precision = "float32") -> SeedNetwork:
    """The network that finds seeds: a faster copy, unless features of it are kept on disk."""
    return network if network.is_kept else for_inference(network, precision)


def without_memory(network: KeptNetwork, precision: Precision = "float32") -> SeedNetwork:
    """A faster copy that keeps nothing on disk: for pictures that never come again."""
    found = for_inference(network, precision)
    assert isinstance(found, KeptNetwork)
    found.gib = 0.0
    return found
