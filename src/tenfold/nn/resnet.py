"""Residual networks without a classifier: features of pictures, and maps for segmentation.

Names of layers are torchvision's (He et al. 2016), which the official checkpoints share.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from .norm import BatchNorm2d
from .strided import StridedPointwise

Kind = Literal["resnet20", "resnet18", "resnet50"]
DEPTHS: dict[Kind, tuple[int, ...]] = {
    "resnet20": (3, 3, 3), "resnet18": (2, 2, 2, 2), "resnet50": (3, 4, 6, 3)
}  # fmt: skip
"""Blocks of each stage."""
Change = Callable[[Tensor], Tensor]


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, which is a 1x1 convolution where the shape changes."""

    def __init__(
        self, channels: int, planes: int, stride: int, dilations: tuple[int, int] = (1, 1)
    ) -> None:
        super().__init__()
        first, second = dilations
        self.conv1 = nn.Conv2d(channels, planes, 3, stride, first, first, bias=False)
        self.bn1 = BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, second, second, bias=False)
        self.bn2 = BatchNorm2d(planes)
        self.downsample: nn.Module | None = None
        if stride != 1 or channels != planes:
            self.downsample = nn.Sequential(
                StridedPointwise(channels, planes, stride), BatchNorm2d(planes)
            )

    def forward(
        self, x: Float[Tensor, "batch channel height width"]
    ) -> Float[Tensor, "batch plane height2 width2"]:
        """relu(shortcut + convolutions)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        return functional.relu(self.bn2(self.conv2(x)).add_(shortcut), inplace=True)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut.

    The 3x3 has the stride, as torchvision's; or, if `early`, the first (He et al. 2016).
    """

    def __init__(
        self,
        channels: int,
        planes: int,
        stride: int,
        dilations: tuple[int, int] = (1, 1),
        early: bool = False,
    ) -> None:
        super().__init__()
        dilation, wide = dilations[0], 4 * planes
        first, second = (stride, 1) if early else (1, stride)
        self.conv1 = StridedPointwise(channels, planes, first)
        self.bn1 = BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, second, dilation, dilation, bias=False)
        self.bn2 = BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, wide, 1, bias=False)
        self.bn3 = BatchNorm2d(wide)
        self.downsample: nn.Module | None = None
        if stride != 1 or channels != wide:
            self.downsample = nn.Sequential(
                StridedPointwise(channels, wide, stride), BatchNorm2d(wide)
            )

    def forward(
        self, x: Float[Tensor, "batch channel height width"]
    ) -> Float[Tensor, "batch wide height2 width2"]:
        """relu(shortcut + convolutions)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        x = functional.relu(self.bn2(self.conv2(x)), inplace=True)
        return functional.relu(self.bn3(self.conv3(x)).add_(shortcut), inplace=True)


class ResNet(nn.Module):
    """ResNet-20 for small pictures (three stages), -18 and -50 with ImageNet's stem (four)."""

    def __init__(
        self,
        kind: Kind = "resnet20",
        width: int = 0,
        output_stride: int = 0,
        dilate: bool = True,
        depths: tuple[int, ...] = (),
        early_stride: bool = False,
    ) -> None:
        """`width` is the channels of the stem; 0 is the published 16 or 64.

        No map is smaller than 1 / `output_stride` of the picture, 0 for no limit: later stages are
        dilated instead, as DeepLab has it (arXiv 1606.00915, sec. 3.1), unless `dilate` is False.
        `depths`: blocks of each stage, if not the published. `early_stride`: the strides of
        ResNet-50 are in the first convolutions of blocks, as in the weights of He et al.
        """
        super().__init__()
        small = kind == "resnet20"
        width = width or (16 if small else 64)
        depths = depths or DEPTHS[kind]
        Block: Callable[..., nn.Module] = BasicBlock
        if kind == "resnet50":
            Block = partial(Bottleneck, early=early_stride)
        expansion = 4 if kind == "resnet50" else 1
        self.small = small
        self.conv1 = nn.Conv2d(3, width, 3 if small else 7, 1 if small else 2, 1 if small else 3,
                               bias=False)  # fmt: skip
        self.bn1 = BatchNorm2d(width)
        channels, reached, dilation = width, 1 if small else 4, 1
        if output_stride and output_stride < reached:
            raise ValueError(
                f"output_stride is {output_stride}, but the stem of {kind} has {reached} already; "
                f"use 0 or at least {reached}"
            )
        self.stages: list[str] = []
        self.widths = tuple(expansion * width * 2**stage for stage in range(len(depths)))
        """Channels of the maps."""
        self.stem_width = width
        for stage, blocks in enumerate(depths):
            planes = width * 2**stage
            stride, before = 2 if stage else 1, dilation
            if stride == 2 and output_stride and 2 * reached > output_stride:
                stride, dilation = 1, 2 * dilation if dilate else 1
            reached *= stride
            layers = []
            for block in range(blocks):
                # where a stride was, the weights see the places that they saw with it
                first = dilation if block else before
                layers.append(Block(channels, planes, 1 if block else stride, (first, dilation)))
                channels = self.widths[stage]
            self.stages.append(f"layer{stage + 1}")
            self.add_module(self.stages[-1], nn.Sequential(*layers))
        self.dim = channels
        for module in self.modules():
            if isinstance(module, nn.Conv2d):  # He et al. 2015, fan out
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def maps(
        self, x: Float[Tensor, "batch 3 height width"], with_stem: bool = False
    ) -> list[Float[Tensor, "batch channel height2 width2"]]:
        """The feature map after every stage; before them, if wanted, that of the stem's layer."""
        stem = self._stem(x)
        found = self._staged(self._pooled(stem))
        return [stem, *found] if with_stem else found

    def levels(
        self, x: Float[Tensor, "batch 3 height width"], change: Change | None = None
    ) -> list[Float[Tensor, "batch channel height2 width2"]]:
        """The map that the stages get, and those after every stage, each changed if asked."""
        x = self._pooled(self._stem(x))
        return [x, *self._staged(x, change)]

    def _stem(self, x: Tensor) -> Tensor:
        return functional.relu(self.bn1(self.conv1(x)), inplace=True)

    def _pooled(self, x: Tensor) -> Tensor:
        return x if self.small else functional.max_pool2d(x, 3, 2, 1)

    def _staged(self, x: Tensor, change: Change | None = None) -> list[Tensor]:
        found = []
        for stage in self.stages:
            x = self.get_submodule(stage)(x)
            x = x if change is None else change(x)
            found.append(x)
        return found

    def forward(self, x: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch feature"]:
        """Mean of the last map: features of a picture, none below zero."""
        return torch.mean(self.maps(x)[-1], (2, 3))
