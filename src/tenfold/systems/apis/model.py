"""The network of a configuration."""

from __future__ import annotations

from tenfold.nn.condinst import CondInst, Settings
from tenfold.nn.dynamic_masks import DynamicHead
from tenfold.nn.fcos import DetectSettings

from .config import Config

FINEST = 3
"""Levels of the pyramid that stand on the backbone's last stages."""
DIVISOR = 32
"""Sides of the exported network's pictures are multiples of this, the coarsest such level's stride.
"""
SPREAD = (58.395, 57.12, 57.375)
"""Deviation of ImageNet's colours, by which the small backbone's pictures are divided."""


def settings_of(cfg: Config) -> Settings:
    """Sizes, supervision and thresholds as the network takes them."""
    own, loss, test = cfg.model, cfg.loss, cfg.detection
    is_small = own.backbone == "small"
    usual = Settings()
    return Settings(
        backbone=own.backbone,
        widths=own.widths,
        depths=own.depths,
        frozen=not is_small,
        channels=own.channels,
        groups=own.groups,
        convs=own.convs,
        extra=len(own.bounds) + 1 - FINEST,
        bounds=own.bounds,
        branch_channels=own.branch,
        branch_convs=own.branch_convs,
        branch_norm="group" if is_small else "batch",
        mask=DynamicHead(features=own.mask_channels),
        with_points="point" if loss.supervision == "points" else "box+point",
        warmup=loss.warmup,
        proposals=own.proposals,
        per_picture=own.per_picture,
        detection=DetectSettings(test.score, test.before, test.overlap, test.most),
        std=SPREAD if is_small else usual.std,
    )


def build(cfg: Config) -> CondInst:
    """A network with random weights."""
    return CondInst(len(cfg.classes), settings_of(cfg))
