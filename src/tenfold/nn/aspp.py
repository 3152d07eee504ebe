"""Segmentation heads with context: DAFormer's (arXiv 2111.14887, sec. 3.2) and DeepLab-V2's.

Names of parameters are those of the official code (lhoyer/DAFormer,
mmseg/models/decode_heads/daformer_head.py, aspp_head.py and dlv2_head.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from .dilated import depthwise
from .norm import BatchNorm2d
from .uperhead import enlarged
from .winograd import conv3x3

DILATIONS = (1, 6, 12, 18)
"""Of DAFormer's branches, for maps at 1/4 of pictures of 512 x 512."""


class SegmentationHead(Protocol):
    """From an encoder's maps, finest first, to logits at the size of one of them."""

    def __call__(self, maps: Sequence[Tensor]) -> Float[Tensor, "batch class height width"]:
        """Logits, before they are enlarged to the picture."""
        ...


def same_size(levels: Sequence[Tensor]) -> list[Float[Tensor, "batch _ height width"]]:
    """Maps of several sizes at that of the largest."""
    size = max((x.shape[2], x.shape[3]) for x in levels)
    return [x if x.shape[2:] == size else enlarged(x, size) for x in levels]


def pixelwise(
    conv: nn.Conv2d, x: Float[Tensor, "batch channel height width"]
) -> Float[Tensor, "batch out height width"]:
    """A convolution, as one matrix product where it is of single pixels."""
    if conv.kernel_size != (1, 1) or torch.compiler.is_compiling():
        return conv(x)
    return _linear(x, conv.weight, conv.bias)


def _linear(
    x: Float[Tensor, "batch channel height width"],
    weight: Float[Tensor, "out channel 1 1"],
    bias: Float[Tensor, " out"] | None = None,
) -> Float[Tensor, "batch out height width"]:
    return F.linear(x.permute(0, 2, 3, 1), weight.flatten(1), bias).permute(0, 3, 1, 2)


class ConvNorm(nn.Module):
    """Convolution without bias, batch norm, ReLU, with the names of mmcv's ConvModule."""

    def __init__(
        self, channels: int, out: int, side: int, dilation: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            channels, out, side, padding=side // 2 * dilation, dilation=dilation, groups=groups,
            bias=False,
        )  # fmt: skip
        self.bn = BatchNorm2d(out)
        nn.init.kaiming_normal_(self.conv.weight, nonlinearity="relu")

    def forward(
        self, x: Float[Tensor, "batch channel height width"]
    ) -> Float[Tensor, "batch out height width"]:
        """A map of the same size."""
        conv = self.conv
        if conv.groups == conv.in_channels > 1:
            return self.activated(depthwise(conv, x))
        is_dense = conv.kernel_size == (3, 3) and conv.dilation == (1, 1)
        return self.activated(conv3x3(conv, x) if is_dense else pixelwise(conv, x))

    def activated(
        self, x: Float[Tensor, "batch out height width"]
    ) -> Float[Tensor, "batch out height width"]:
        """What follows the convolution."""
        return F.relu(self.bn(x), inplace=True)

    def of_levels(self, levels: Sequence[Tensor]) -> Float[Tensor, "batch out height width"]:
        """A convolution of single pixels of all levels, brought to the size of the largest.

        Which is the sum of a convolution of each level at its own size, as enlarging is linear and
        the same for all channels: the small levels cost a fraction.
        """
        weights = self.conv.weight.split([x.shape[1] for x in levels], 1)
        parts = [_linear(x, weight) for x, weight in zip(levels, weights, strict=True)]
        first, *others = same_size(parts)
        for other in others:
            first = first + other
        return self.activated(first)


class SeparableConv(nn.Module):
    """A dilated 3x3 convolution of each channel, then one of single pixels."""

    def __init__(self, channels: int, out: int, dilation: int) -> None:
        super().__init__()
        self.depthwise_conv = ConvNorm(channels, channels, 3, dilation, groups=channels)
        self.pointwise_conv = ConvNorm(channels, out, 1)

    def forward(
        self, x: Float[Tensor, "batch channel height width"]
    ) -> Float[Tensor, "batch out height width"]:
        """A map of the same size."""
        return self.pointwise_conv(self.depthwise_conv(x))


class Aspp(nn.Module):
    """Context at several distances side by side, then fused (atrous spatial pyramid pooling)."""

    def __init__(
        self, channels: int, out: int, dilations: Sequence[int], separable: bool, pool: bool
    ) -> None:
        super().__init__()
        self.image_pool: nn.Module | None = None
        if pool:
            self.image_pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), ConvNorm(channels, out, 1))
        branches: list[nn.Module] = []
        for dilation in dilations:
            if dilation == 1:
                branches.append(ConvNorm(channels, out, 1))
            elif separable:
                branches.append(SeparableConv(channels, out, dilation))
            else:
                branches.append(ConvNorm(channels, out, 3, dilation))
        self.aspp_modules = nn.ModuleList(branches)
        self.bottleneck = ConvNorm((len(branches) + pool) * out, out, 3)

    def forward(self, levels: Sequence[Tensor]) -> Float[Tensor, "batch out height width"]:
        """From maps of several sizes to one of the size of the largest."""
        x = torch.cat(same_size(levels), 1)
        found = [
            branch.of_levels(levels)
            if isinstance(branch, ConvNorm) and branch.conv.kernel_size == (1, 1)
            else branch(x)
            for branch in self.aspp_modules
        ]
        if self.image_pool is not None:
            found.insert(0, enlarged(self.image_pool(x), (x.shape[2], x.shape[3])))
        return self.bottleneck(torch.cat(found, 1))


class LinearEmbed(nn.Module):
    """A linear layer on the channels of a map."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.proj = nn.Linear(channels, out)

    def forward(
        self, x: Float[Tensor, "batch channel height width"]
    ) -> Float[Tensor, "batch out height width"]:
        """A map of the same size."""
        return self.proj(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class DaformerHead(nn.Module):
    """All levels at the size of the finest, fused with context (DAFormer, fig. 2 b)."""

    def __init__(
        self,
        widths: Sequence[int],
        num_classes: int,
        channels: int = 256,
        embed_dim: int = 256,
        dilations: Sequence[int] = DILATIONS,
        separable: bool = True,
        pool: bool = False,
        dropout: float = 0.1,
    ) -> None:
        """Without `dilations` the levels are fused by a 1x1 convolution, as for HRDA's attention;
        `separable` and `pool` are of the other variants of the paper's table 7."""
        super().__init__()
        embeds = {str(i): LinearEmbed(width, embed_dim) for i, width in enumerate(widths)}
        self.embed_layers = nn.ModuleDict(embeds)
        total = embed_dim * len(widths)
        self.fuse_layer = (
            Aspp(total, channels, dilations, separable, pool)
            if dilations
            else ConvNorm(total, channels, 1)
        )
        self.dropout = nn.Dropout2d(dropout)
        self.conv_seg = nn.Conv2d(channels, num_classes, 1)
        nn.init.normal_(self.conv_seg.weight, std=0.01)
        assert self.conv_seg.bias is not None
        nn.init.zeros_(self.conv_seg.bias)

    def forward(self, maps: Sequence[Tensor]) -> Float[Tensor, "batch class height width"]:
        """Logits at the size of the finest map, which is the first."""
        levels = [embed(x) for embed, x in zip(self.embed_layers.values(), maps, strict=True)]
        fuse = self.fuse_layer
        x = fuse.of_levels(levels) if isinstance(fuse, ConvNorm) else fuse(levels)
        return pixelwise(self.conv_seg, self.dropout(x))


class DeepLabHead(nn.Module):
    """The sum of dilated convolutions of the last map (DeepLab-V2, arXiv 1606.00915, fig. 7)."""

    def __init__(
        self, width: int, num_classes: int, dilations: Sequence[int] = (6, 12, 18, 24)
    ) -> None:
        super().__init__()
        self.aspp_modules = nn.ModuleList()
        for dilation in dilations:
            side = 1 if dilation == 1 else 3
            conv = nn.Conv2d(width, num_classes, side, padding=side // 2 * dilation,
                             dilation=dilation)  # fmt: skip
            nn.init.normal_(conv.weight, std=0.01)
            assert conv.bias is not None
            nn.init.zeros_(conv.bias)
            self.aspp_modules.append(nn.ModuleDict({"conv": conv}))

    def forward(self, maps: Sequence[Tensor]) -> Float[Tensor, "batch class height width"]:
        """Logits at the size of the last map."""
        found = [branch.get_submodule("conv")(maps[-1]) for branch in self.aspp_modules]
        return torch.stack(found).sum(0)
