"""Sizes, supervision and limits of CondInst."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from .dynamic_masks import DynamicHead
from .fcos import DetectSettings
from .mask_supervision import WithPoints

STAGES = 3
"""Last stages of the backbone that the pyramid takes; the finest has stride 8."""
MEAN, STD = (123.675, 116.28, 103.53), (1.0, 1.0, 1.0)
"""Of RGB, as the weights of He et al. expect it."""


@dataclass(frozen=True)
class Settings:
    """Network, supervision and detection; the defaults are AdelaiDet's of CondInst, R-50."""

    backbone: Literal["resnet50", "efficientnet-lite0", "small"] = "resnet50"
    widths: tuple[int, ...] = ()
    """Channels of the small backbone's maps, or of a ResNet's stem; the usual ones if empty."""
    depths: tuple[int, ...] = ()
    """Blocks of a ResNet's stages; the published ones if empty."""
    frozen: bool = True
    """A ResNet's statistics stay, and so do its stem and first stage (detectron2); of
    EfficientNet-Lite0 all norms and `frozen_stages`."""
    frozen_stages: int = 0
    """Of EfficientNet-Lite0, from the stem on; 6 are all."""
    channels: int = 256
    """Of the pyramid and of the towers."""
    groups: int = 32
    """Of group norms."""
    convs: int = 4
    """Convolutions of each tower."""
    extra: int = 2
    """Levels coarser than the backbone's."""
    bounds: tuple[int, ...] = (64, 128, 256, 512)
    """Ends of the levels' ranges of object sizes, in pixels; one fewer than levels."""
    branch_channels: int = 128
    """Of the mask branch."""
    branch_convs: int = 4
    branch_norm: Literal["batch", "group"] = "batch"
    mask: DynamicHead = field(default_factory=DynamicHead)
    """Networks that make masks; its extents follow from `bounds`."""
    sampling: Literal["centre", "mask"] = "centre"
    """Places that find an object: around its centre, or all on its mask (ViRReq)."""
    radius: float = 1.5
    """Of centre sampling, in strides."""
    with_points: WithPoints = "box+point"
    """Losses of objects with points (APIS's code trains with "point")."""
    point_weight: float = 1.0
    warmup: int = 10_000
    """Steps in which the weight of the pairwise loss rises to 1 (BoxInst)."""
    proposals: int = 500
    """Places whose masks are trained in a batch, drawn at random; 0 for all."""
    per_picture: int = 0
    """The same in a picture, the best of each object (BoxInst has 64); 0 for all."""
    cut: bool = True
    """Detected masks end at their boxes (PointSup)."""
    detection: DetectSettings = field(default_factory=DetectSettings)
    mean: tuple[float, float, float] = MEAN
    std: tuple[float, float, float] = STD

    def __post_init__(self) -> None:
        levels = STAGES + self.extra
        if len(self.bounds) != levels - 1 or list(self.bounds) != sorted(set(self.bounds)):
            raise ValueError(
                f"bounds {self.bounds} must be {levels - 1} rising numbers for {levels} levels"
            )
        extents = (*self.bounds, 2 * self.bounds[-1])
        object.__setattr__(self, "mask", replace(self.mask, extents=extents))
        if self.channels % self.groups or self.branch_norm == "group" and (
            self.branch_channels % self.groups
        ):  # fmt: skip
            raise ValueError(
                f"groups {self.groups} must divide channels {self.channels} and "
                f"branch_channels {self.branch_channels}"
            )
        if self.proposals and self.per_picture:
            raise ValueError(
                f"proposals {self.proposals} and per_picture {self.per_picture}: one must be 0"
            )

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels of a cell of each level."""
        return tuple(8 * 2**level for level in range(STAGES + self.extra))


SMALL = Settings(
    backbone="small", frozen=False, channels=64, groups=8, convs=2, extra=1,
    bounds=(64, 128, 256), branch_channels=32, branch_convs=2, branch_norm="group",
    std=(58.395, 57.12, 57.375),
)  # fmt: skip
"""A network to be trained from nothing on pictures of 160 to 256 pixels."""
