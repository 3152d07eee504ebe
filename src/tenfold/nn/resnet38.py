"""ResNet-38: the wide residual network (arXiv 1611.10080) of PSA and SEAM, for seeds and affinity.

Names of parameters are those of the released code (jiwoon-ahn/psa, YudeWang/SEAM:
network/resnet38d.py), which their checkpoints share. Blocks normalise before they convolve.
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from .norm import BatchNorm2d
from .strided import StridedPointwise

Map = Float[Tensor, "batch _ _ _"]
Change = Callable[[Tensor], Tensor]


class Block(nn.Module):
    """Two 3x3 convolutions, each behind norm and ReLU."""

    def __init__(
        self, channels: int, middle: int, out: int, stride: int = 1,
        dilations: tuple[int, int] = (1, 1),
    ) -> None:  # fmt: skip
        super().__init__()
        first, second = dilations
        self.bn_branch2a = BatchNorm2d(channels)
        self.conv_branch2a = nn.Conv2d(channels, middle, 3, stride, first, first, bias=False)
        self.bn_branch2b1 = BatchNorm2d(middle)
        self.conv_branch2b1 = nn.Conv2d(middle, out, 3, 1, second, second, bias=False)
        self.conv_branch1: nn.Module | None = None
        if channels != out or stride != 1:
            self.conv_branch1 = StridedPointwise(channels, out, stride)

    def activated(self, x: Map) -> Map:
        """What the block's convolutions see of its input."""
        return F.relu(self.bn_branch2a(x), inplace=True)

    def forward(self, x: Map, y: Map | None = None) -> Map:
        """Add the branches; y is `activated(x)`, if that is known."""
        y = self.activated(x) if y is None else y
        shortcut = x if self.conv_branch1 is None else self.conv_branch1(y)
        y = F.relu(self.bn_branch2b1(self.conv_branch2a(y)), inplace=True)
        return self.conv_branch2b1(y).add_(shortcut)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions, each behind norm and ReLU, with dropout of channels."""

    def __init__(self, channels: int, out: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.bn_branch2a = BatchNorm2d(channels)
        self.conv_branch2a = nn.Conv2d(channels, out // 4, 1, bias=False)
        self.bn_branch2b1 = BatchNorm2d(out // 4)
        self.conv_branch2b1 = nn.Conv2d(
            out // 4, out // 2, 3, 1, dilation, dilation, bias=False
        )  # fmt: skip
        self.bn_branch2b2 = BatchNorm2d(out // 2)
        self.conv_branch2b2 = nn.Conv2d(out // 2, out, 1, bias=False)
        self.conv_branch1 = nn.Conv2d(channels, out, 1, bias=False)
        self.dropout = nn.Dropout2d(dropout)

    def activated(self, x: Map) -> Map:
        """What the block's convolutions see of its input."""
        return F.relu(self.bn_branch2a(x), inplace=True)

    def forward(self, x: Map, y: Map | None = None) -> Map:
        """Add the branches; y is `activated(x)`, if that is known."""
        y = self.activated(x) if y is None else y
        shortcut = self.conv_branch1(y)
        y = self.dropout(F.relu(self.bn_branch2b1(self.conv_branch2a(y)), inplace=True))
        y = self.dropout(F.relu(self.bn_branch2b2(self.conv_branch2b1(y)), inplace=True))
        return self.conv_branch2b2(y).add_(shortcut)


class ResNet38(nn.Module):
    """Pictures to maps of stride 8; the last three stages are dilated instead of strided."""

    BLOCKS = (3, 3, 6, 3, 1, 1)
    """Blocks of each stage; the first is b2, a later block of it b2_1."""

    def __init__(self, width: int = 0) -> None:
        """`width` is the channels of the first convolution; 0 is the published 64."""
        super().__init__()
        width = width or 64
        self.widths = tuple(width * 2**stage for stage in range(1, 7))
        self.conv1a = nn.Conv2d(3, width, 3, padding=1, bias=False)
        channels = width
        self.stages: list[list[str]] = []
        """Names of each stage's blocks."""
        for stage, (blocks, out) in enumerate(zip(self.BLOCKS, self.widths, strict=True)):
            names = []
            for number in range(blocks):
                names.append(f"b{stage + 2}" + (f"_{number}" if number else ""))
                block: nn.Module
                if stage >= 4:
                    block = Bottleneck(channels, out, 4, 0.3 if stage == 4 else 0.5)
                elif stage == 3:
                    block = Block(channels, out // 2, out, 1, (2 if number else 1, 2))
                else:
                    block = Block(channels, out, out, 1 if number else 2)
                self.add_module(names[-1], block)
                channels = out
            self.stages.append(names)
        self.bn7 = BatchNorm2d(channels)
        self.dim = channels
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def levels(
        self, x: Float[Tensor, "batch 3 height width"], change: Change | None = None
    ) -> list[Map]:
        """What follows the norm and ReLU behind each stage, finest first.

        The third, fourth and last are PSA's conv4, conv5 and conv6. `change` is applied to each,
        which is all that the next stage sees.
        """
        x = self.conv1a(x)
        found: list[Map] = []
        for stage, names in enumerate(self.stages):
            first, *rest = (self.get_submodule(name) for name in names)
            assert isinstance(first, Block | Bottleneck)
            y = None
            if stage:
                y = first.activated(x)
                y = y if change is None else change(y)
                found.append(y)
            x = first(x, y)
            for block in rest:
                x = block(x)
        x = F.relu(self.bn7(x), inplace=True)
        return [*found, x if change is None else change(x)]
