"""Residual networks as few-shot class-incremental learning uses them: features, no classifier.

Names of layers are torchvision's (He et al. 2016), which the official checkpoints share.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from .norm import BatchNorm2d

Kind = Literal["resnet20", "resnet18"]


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, which is a 1x1 convolution where the shape changes."""

    def __init__(self, channels: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, planes, 3, stride, 1, bias=False)
        self.bn1 = BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = BatchNorm2d(planes)
        self.downsample: nn.Module | None = None
        if stride != 1 or channels != planes:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels, planes, 1, stride, bias=False), BatchNorm2d(planes)
            )

    def forward(
        self, x: Float[Tensor, "batch channel height width"]
    ) -> Float[Tensor, "batch plane height2 width2"]:
        """relu(shortcut + convolutions)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        return functional.relu(self.bn2(self.conv2(x)).add_(shortcut), inplace=True)


class ResNet(nn.Module):
    """ResNet-20 for small pictures (three stages) or ResNet-18 with ImageNet's stem (four)."""

    def __init__(self, kind: Kind = "resnet20", width: int = 0) -> None:
        """`width` is the channels of the first stage; 0 is the published 16 or 64."""
        super().__init__()
        small = kind == "resnet20"
        width = width or (16 if small else 64)
        blocks, stages = (3, 3) if small else (2, 4)
        self.small = small
        self.conv1 = nn.Conv2d(3, width, 3 if small else 7, 1 if small else 2, 1 if small else 3,
                               bias=False)  # fmt: skip
        self.bn1 = BatchNorm2d(width)
        channels = width
        self.stages: list[str] = []
        for stage in range(stages):
            planes = width * 2**stage
            layers = []
            for block in range(blocks):
                layers.append(BasicBlock(channels, planes, 2 if stage and not block else 1))
                channels = planes
            self.stages.append(f"layer{stage + 1}")
            self.add_module(self.stages[-1], nn.Sequential(*layers))
        self.dim = channels
        for module in self.modules():
            if isinstance(module, nn.Conv2d):  # He et al. 2015, fan out
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def maps(
        self, x: Float[Tensor, "batch 3 height width"]
    ) -> list[Float[Tensor, "batch channel height2 width2"]]:
        """The feature map after every stage."""
        x = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        if not self.small:
            x = functional.max_pool2d(x, 3, 2, 1)
        found = []
        for stage in self.stages:
            x = self.get_submodule(stage)(x)
            found.append(x)
        return found

    def forward(self, x: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch feature"]:
        """Mean of the last map: features of a picture, none below zero."""
        return torch.mean(self.maps(x)[-1], (2, 3))
