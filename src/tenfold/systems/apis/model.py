"""The network of a configuration."""

from __future__ import annotations

from tenfold.nn.condinst import CondInst, Settings
from tenfold.nn.condinst_settings import MEAN
from tenfold.nn.dynamic_masks import DynamicHead
from tenfold.nn.fcos import DetectSettings

from .config import Config

FINEST = 3
"""Levels of the pyramid that stand on the backbone's last stages."""
DIVISOR = 32
"""Sides of the exported network's pictures are multiples of this, the coarsest such level's stride.
"""
COLOURS = {
    "small": (MEAN, (58.395, 57.12, 57.375)),
    "efficientnet-lite0": ((127.0,) * 3, (128.0,) * 3),
}
"""Mean and deviation of colours from 0 to 255: ImageNet's, and those of the published Lite0."""


def settings_of(cfg: Config) -> Settings:
    """Sizes, supervision and thresholds as the network takes them."""
    own, loss, test = cfg.model, cfg.loss, cfg.detection
    usual = Settings()
    mean, std = COLOURS.get(own.backbone, (usual.mean, usual.std))
    return Settings(
        backbone=own.backbone,
        widths=own.widths,
        depths=own.depths,
        frozen=own.backbone == "resnet50" or bool(cfg.start),
        frozen_stages=own.frozen_stages,
        channels=own.channels,
        groups=own.groups,
        convs=own.convs,
        extra=len(own.bounds) + 1 - FINEST,
        bounds=own.bounds,
        branch_channels=own.branch,
        branch_convs=own.branch_convs,
        branch_norm="batch" if own.backbone == "resnet50" else "group",
        mask=DynamicHead(features=own.mask_channels),
        with_points="point" if loss.supervision == "points" else "box+point",
        warmup=loss.warmup,
        proposals=own.proposals,
        per_picture=own.per_picture,
        detection=DetectSettings(test.score, test.before, test.overlap, test.most),
        mean=mean,
        std=std,
    )


def build(cfg: Config) -> CondInst:
    """A network with random weights."""
    return CondInst(len(cfg.classes), settings_of(cfg))
