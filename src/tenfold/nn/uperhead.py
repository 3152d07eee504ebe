"""UPerHead (Xiao et al. 2018, arXiv 1807.10221) and the auxiliary head of segmentation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from .norm import BatchNorm2d

Map = Float[Tensor, "batch _ _ _"]


class ConvBlock(nn.Sequential):
    """Convolution without bias, batch norm, ReLU."""

    def __init__(self, width: int, out: int, side: int) -> None:
        super().__init__(
            nn.Conv2d(width, out, side, padding=side // 2, bias=False), BatchNorm2d(out), nn.ReLU()
        )


def enlarged(x: Map, size: tuple[int, int]) -> Map:
    """Bilinear, corners not aligned."""
    return F.interpolate(x, size, mode="bilinear", align_corners=False)


class PyramidPooling(nn.Module):
    """Averages of a map over 1, 2 x 2, 3 x 3 and 6 x 6 parts beside the map itself (PSPNet)."""

    def __init__(self, width: int, channels: int, sizes: Sequence[int]) -> None:
        super().__init__()
        self.sizes = tuple(sizes)
        self.parts = nn.ModuleList([ConvBlock(width, channels, 1) for _ in self.sizes])
        self.bottleneck = ConvBlock(width + len(self.sizes) * channels, channels, 3)

    def forward(self, x: Map) -> Map:
        """A map of the same size."""
        size = (x.shape[2], x.shape[3])
        pooled = [
            enlarged(part(F.adaptive_avg_pool2d(x, side)), size)
            for side, part in zip(self.sizes, self.parts, strict=True)
        ]
        return self.bottleneck(torch.cat([x, *pooled], 1))


class UPerHead(nn.Module):
    """Pyramid pooling on the coarsest map, a feature pyramid, and all levels fused."""

    def __init__(
        self,
        widths: Sequence[int],
        channels: int,
        num_classes: int,
        pool_sizes: Sequence[int] = (1, 2, 3, 6),
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.pooling = PyramidPooling(widths[-1], channels, pool_sizes)
        self.laterals = nn.ModuleList([ConvBlock(w, channels, 1) for w in widths[:-1]])
        self.smooth = nn.ModuleList([ConvBlock(channels, channels, 3) for _ in widths[:-1]])
        self.bottleneck = ConvBlock(len(widths) * channels, channels, 3)
        self.dropout = nn.Dropout2d(dropout)
        self.classify = nn.Conv2d(channels, num_classes, 1)

    def forward(self, maps: Sequence[Tensor]) -> Float[Tensor, "batch class height width"]:
        """Logits at the size of the finest map; maps are finest first."""
        levels = [lateral(x) for lateral, x in zip(self.laterals, maps[:-1], strict=True)]
        levels.append(self.pooling(maps[-1]))
        for i in range(len(levels) - 2, -1, -1):
            finer = levels[i]
            levels[i] = finer + enlarged(levels[i + 1], (finer.shape[2], finer.shape[3]))
        fused = [smooth(x) for smooth, x in zip(self.smooth, levels[:-1], strict=True)]
        size = (fused[0].shape[2], fused[0].shape[3])
        fused = [fused[0], *(enlarged(x, size) for x in [*fused[1:], levels[-1]])]
        return self.classify(self.dropout(self.bottleneck(torch.cat(fused, 1))))


class FcnHead(nn.Module):
    """The auxiliary head: convolutions on one map."""

    def __init__(
        self, width: int, channels: int, num_classes: int, convs: int = 1, dropout: float = 0.1
    ) -> None:
        super().__init__()
        widths = [width, *[channels] * (convs - 1)]
        self.convs = nn.Sequential(*[ConvBlock(w, channels, 3) for w in widths])
        self.dropout = nn.Dropout2d(dropout)
        self.classify = nn.Conv2d(channels, num_classes, 1)

    def forward(self, x: Map) -> Float[Tensor, "batch class height width"]:
        """Logits at the map's size."""
        return self.classify(self.dropout(self.convs(x)))


def segmentation_loss(
    logits: Float[Tensor, "batch class rows columns"],
    labels: Int64[Tensor, "batch height width"],
    ignore: int = 255,
) -> Float[Tensor, ""]:
    """Mean cross-entropy over counted pixels at the labels' size; 0 where no pixel counts."""
    logits = enlarged(logits.float(), (labels.shape[1], labels.shape[2]))
    total = F.cross_entropy(logits, labels, ignore_index=ignore, reduction="sum")
    return total / (labels != ignore).sum().clamp(min=1)
