"""Models that the loop trains in pre-training: a network, and beside it a teacher that rests."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from tenfold.nn.hivit import HiViT

from .model import ClipPretraining, PixelPretraining, level_targets


class FeatureTrainingModel(nn.Module):
    """Pixel pre-training with the paper's feature modelling; the teacher is a moving average.

    The average starts as a copy. It is kept out of `parameters`, so nothing trains or divides it.
    """

    def __init__(self, network: PixelPretraining, weight: float, momentum: float) -> None:
        super().__init__()
        self.network, self.weight, self.momentum = network, weight, momentum
        teacher = HiViT(network.shape)
        teacher.load_state_dict(network.backbone.state_dict())
        self.teacher = (teacher.requires_grad_(False).eval(),)

    @property
    def backbone(self) -> HiViT:
        """The trained backbone."""
        return self.network.backbone

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Losses of pixels and of features."""
        images = batch["images"]
        targets = level_targets(self.teacher[0].to(images.device), images)
        weight = torch.tensor(self.weight, device=images.device)
        return self.network(batch | {"features": targets, "feature_weight": weight})

    @torch.no_grad()
    def follow(self, step: int, steps: int) -> None:
        """Move the teacher after a step; its momentum rises to 1 along a cosine."""
        momentum = 1 - (1 - self.momentum) * (math.cos(math.pi * step / max(1, steps)) + 1) / 2
        own = [p.detach() for p in self.network.backbone.parameters()]
        theirs = [p.to(own[0].device) for p in self.teacher[0].to(own[0].device).parameters()]
        torch._foreach_lerp_(theirs, own, 1 - momentum)


class TokenTrainingModel(nn.Module):
    """The CLIP branch, whose frozen teacher makes the targets."""

    def __init__(self, network: ClipPretraining, teacher: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.teacher = (teacher,)

    @property
    def backbone(self) -> HiViT:
        """The trained backbone."""
        return self.network.backbone

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Losses of both heads."""
        teacher = self.teacher[0].to(batch["pictures"].device)
        return self.network(batch | {"teacher": teacher(batch["pictures"])})
