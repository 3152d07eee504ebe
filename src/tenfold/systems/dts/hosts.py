"""Host methods: the passes by which one student learns in one step.

DACS is the source pass and the mixed pass; DAFormer adds the distance of features to the source
pass; HRDA sees context and detail in every pass; MIC adds the masked pass (official:
mmseg/models/uda/dacs.py of lhoyer/DAFormer, HRDA and MIC).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tenfold.nn.hrda import Box, hrda_loss
from tenfold.nn.pixel_loss import pixel_loss

from .config import Host
from .loss import (
    Images,
    Labels,
    Weights,
    cells_of,
    coarse_labels,
    feature_distance,
)
from .model import Network

Backward = Callable[[Tensor], None]
Losses = dict[str, Tensor]


@dataclass(frozen=True)
class Pass:
    """Images that a student is shown at once, and what it should say of them."""

    images: Images
    labels: Labels
    weights: Weights
    """Of pixels; 1 where labels are true."""
    box: Box | None = None
    """Detail crop (HRDA)."""


class Near(NamedTuple):
    """What a student's features shall stay near, and where (DAFormer, eq. 8)."""

    features: Tensor
    """Last features of the frozen encoder for the first images of a pass, perhaps all."""
    labels: Labels
    """True labels of these images; 255 where there are none."""


@dataclass(frozen=True)
class Work:
    """What one student learns from in one step."""

    first: Pass
    """Labelled source images, or source mixed with target."""
    mixed: Pass
    masked: Pass | None = None
    near: Near | None = None
    """What the features of `first` shall stay near; None leaves the distance out."""


class Students(nn.Module):
    """The networks that are trained, one a group; a call is the loss of one pass of one of them."""

    def __init__(self, networks: Sequence[Network], host: Host, things: Sequence[int]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.host, self.things = host, tuple(things)

    def forward(
        self,
        group: int,
        images: Images,
        labels: Labels,
        weights: Weights,
        box: Box | None = None,
        near: Near | None = None,
    ) -> Losses:
        """Cross entropy of a pass, and the distance of features to `near` where it is given."""
        network = self.networks[group - 1]
        if box is None:
            found = network(images)
            losses = {"entropy": pixel_loss(found.fused, labels, weights)}
        else:
            found = network(images, box)
            losses = {"entropy": sum(hrda_loss(found, labels, box, weights), images.new_zeros(()))}
        if near is not None:
            few = len(near.features)
            features, classes = found.features[-1][:few], found.fused.shape[1]
            losses["features"] = self._distance(features, near, classes)
        return losses

    def _distance(self, features: Tensor, near: Near, classes: int) -> Tensor:
        """Weighted distance over cells of thing classes (DAFormer, eq. 8)."""
        factor = near.labels.shape[2] // near.features.shape[3]
        cells = coarse_labels(near.labels, factor, classes, self.host.feature_share)
        mask = cells_of(cells, self.things)
        return self.host.feature_weight * feature_distance(features, near.features, mask)


def train_pass(
    model: nn.Module, group: int, shown: Pass, backward: Backward,
    near: Near | None = None, factor: float = 1.0,
) -> Losses:  # fmt: skip
    """Forward and backward of one pass.

    Args:
        model: `Students`, or what wraps them for several processes.
        group: 1 or 2.
        shown: Images and labels.
        backward: Takes the loss.
        near: Features that those of the first images shall stay near.
        factor: Weight of the cross entropy.

    Returns:
        "entropy" and, with `near`, "features": the parts of the loss, detached.
    """
    losses = model(group, shown.images, shown.labels, shown.weights, shown.box, near)
    losses["entropy"] = factor * losses["entropy"]
    backward(losses["entropy"] + losses["features"] if near is not None else losses["entropy"])
    return {name: value.detach() for name, value in losses.items()}


def train_group(model: nn.Module, group: int, work: Work, host: Host, backward: Backward) -> Losses:
    """One student's forward and backward passes, one after the other so that activations of one
    pass are held at a time.

    Args:
        model: `Students`, or what wraps them for several processes.
        group: 1 or 2.
        work: What it learns from.
        host: Whether source and mixed images go in one pass.
        backward: Takes each loss.

    Returns:
        "source", "mixed" (or "joint"), "features" and "masked": the parts of the loss that there
        are, detached.
    """
    passes: dict[str, tuple[Pass, Near | None]]
    passes = {"source": (work.first, work.near), "mixed": (work.mixed, None)}
    if host.joint:
        first, mixed = work.first, work.mixed
        both = Pass(
            torch.cat([first.images, mixed.images]),
            torch.cat([first.labels, mixed.labels]),
            torch.cat([first.weights, mixed.weights]),
            first.box,
        )
        passes = {"joint": (both, work.near)}
    if work.masked is not None:
        passes["masked"] = (work.masked, None)
    # a mean over the pixels of two passes is half of the sum of their means
    factors = {"joint": 2.0, "masked": host.mask_weight}
    found: Losses = {}
    for name, (shown, near) in passes.items():
        parts = train_pass(model, group, shown, backward, near, factors.get(name, 1.0))
        found[name] = parts.pop("entropy")
        found |= parts
    return found
