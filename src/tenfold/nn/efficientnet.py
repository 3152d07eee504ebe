"""EfficientNet-Lite0: EfficientNet-B0 (arXiv 1905.11946) without squeeze-excitation and Swish.

Parameters are named as in the widely used PyTorch port, without the underscores that begin its
names. Padding is TensorFlow's SAME: a stride has more of it at the bottom and at the right.
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from .norm import BatchNorm2d

Map = Float[Tensor, "batch _ _ _"]
Change = Callable[[Tensor], Tensor]

EPS, MOMENTUM = 1e-3, 0.01
STEM, LAST = 32, 1280
STAGES = (
    (1, 16, 1, 3, 1), (2, 24, 2, 3, 6), (2, 40, 2, 5, 6), (3, 80, 2, 3, 6),
    (3, 112, 1, 5, 6), (4, 192, 2, 5, 6), (1, 320, 1, 3, 6),
)  # fmt: skip
"""Blocks, channels, stride, side of the kernel and expansion of each stage."""


class SameConv(nn.Conv2d):
    """A convolution without bias, with TensorFlow's SAME padding."""

    def __init__(
        self, channels: int, out: int, side: int, stride: int = 1, dilation: int = 1,
        groups: int = 1,
    ) -> None:  # fmt: skip
        super().__init__(
            channels, out, side, stride, dilation=dilation, groups=groups, bias=False
        )  # fmt: skip

    def forward(self, x: Map) -> Map:
        """Pad and convolve."""
        reach = (self.kernel_size[0] - 1) * self.dilation[0]
        stride = self.stride[0]
        tall, wide = (
            max((-(-size // stride) - 1) * stride + reach + 1 - size, 0) for size in x.shape[2:]
        )
        padding = (tall // 2, wide // 2)
        if tall % 2 or wide % 2:
            x = F.pad(x, (wide // 2, wide - wide // 2, tall // 2, tall - tall // 2))
            padding = (0, 0)
        return F.conv2d(
            x, self.weight, self.bias, self.stride, padding, self.dilation, self.groups
        )  # fmt: skip


def norm(channels: int) -> BatchNorm2d:
    """TensorFlow's batch norm, with its eps."""
    return BatchNorm2d(channels, EPS, MOMENTUM)


class Block(nn.Module):
    """An inverted residual: wide 1x1, depthwise and narrow 1x1 convolutions (MobileNetV2)."""

    def __init__(
        self, channels: int, out: int, stride: int, side: int, expansion: int, dilation: int
    ) -> None:
        super().__init__()
        wide = channels * expansion
        self.expand_conv = SameConv(channels, wide, 1) if expansion > 1 else None
        self.bn0 = norm(wide) if expansion > 1 else None
        self.depthwise_conv = SameConv(wide, wide, side, stride, dilation, wide)
        self.bn1 = norm(wide)
        self.project_conv = SameConv(wide, out, 1)
        self.bn2 = norm(out)
        self.is_residual = stride == 1 and channels == out

    def forward(self, x: Map) -> Map:
        """Convolve, and add the input where the shape stays."""
        y = x
        if self.expand_conv is not None and self.bn0 is not None:
            y = F.relu6(self.bn0(self.expand_conv(y)), inplace=True)
        y = F.relu6(self.bn1(self.depthwise_conv(y)), inplace=True)
        y = self.bn2(self.project_conv(y))
        return y.add_(x) if self.is_residual else y


class EfficientNetLite(nn.Module):
    """Pictures to maps; stages that would be smaller than the output stride are dilated."""

    def __init__(self, width: int = 0, output_stride: int = 0) -> None:
        """`width` is the channels of the stem, 0 the published 32; 0 is no limit of the stride."""
        super().__init__()
        scale = (width or STEM) / STEM

        def scaled(channels: int) -> int:
            return channels if scale == 1 else max(8, round(channels * scale / 8) * 8)

        channels, reached, dilation = width or STEM, 2, 1
        if output_stride and output_stride < reached:
            raise ValueError(
                f"output_stride is {output_stride}, but the stem of efficientnet-lite0 has "
                f"{reached} already; use 0 or at least {reached}"
            )
        self.conv_stem, self.bn0 = SameConv(3, channels, 3, 2), norm(channels)
        blocks: list[Block] = []
        self.ends: list[int] = []
        """Number of the first block behind each stage."""
        self.stem_width = channels
        self.widths = tuple(scaled(out) for _, out, *_ in STAGES)
        for (count, _, stride, side, expansion), out in zip(STAGES, self.widths, strict=True):
            before = dilation
            if stride == 2 and output_stride and 2 * reached > output_stride:
                stride, dilation = 1, 2 * dilation
            reached *= stride
            for number in range(count):
                # where a stride was, the weights see the places that they saw with it
                reach = dilation if number else before
                blocks.append(Block(channels, out, 1 if number else stride, side, expansion, reach))
                channels = out
            self.ends.append(len(blocks))
        self.blocks = nn.ModuleList(blocks)
        self.dim = scaled(LAST)
        self.conv_head, self.bn1 = SameConv(channels, self.dim, 1), norm(self.dim)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def levels(
        self,
        x: Float[Tensor, "batch channel height width"],
        change: Change | None = None,
        behind: int = 0,
    ) -> list[Map]:
        """The maps of the stem, the stages and the last convolution, finest first.

        `change` is applied to each but the stem's. With `behind`, x is no picture but the map
        behind so many of them, and those after it are given.
        """
        found: list[Map] = []
        if not behind:
            x = F.relu6(self.bn0(self.conv_stem(x)), inplace=True)
            found.append(x)
        done = self.ends[behind - 2] if behind > 1 else 0
        for number, block in enumerate(self.blocks[done:], done + 1):
            x = block(x)
            if number in self.ends:
                x = x if change is None else change(x)
                found.append(x)
        x = F.relu6(self.bn1(self.conv_head(x)), inplace=True)
        return [*found, x if change is None else change(x)]
