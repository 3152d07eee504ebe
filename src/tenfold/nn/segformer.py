"""The head of SegFormer (Xie et al. 2021, arXiv 2105.15203, sec. 3.2): linear layers alone.

Names of parameters are those of the official code (NVlabs/SegFormer,
mmseg/models/decode_heads/segformer_head.py), and, of the variant of mmsegmentation that has a norm
on each level, those of open-mmlab/mmsegmentation (mmseg/models/decode_heads/segformer_head.py).
"""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from .aspp import ConvNorm, LinearEmbed, pixelwise


class SegformerHead(nn.Module):
    """All levels at the size of the finest, fused pixel by pixel."""

    def __init__(
        self, widths: Sequence[int], num_classes: int, channels: int = 256, dropout: float = 0.1
    ) -> None:
        """`channels` is 256 for B0 and B1 and 768 above in the published models."""
        super().__init__()
        self.levels = len(widths)
        for i, width in enumerate(widths, 1):
            self.add_module(f"linear_c{i}", LinearEmbed(width, channels))
        self.linear_fuse = ConvNorm(self.levels * channels, channels, 1)
        self.dropout = nn.Dropout2d(dropout)
        self.linear_pred = nn.Conv2d(channels, num_classes, 1)

    def forward(self, maps: Sequence[Tensor]) -> Float[Tensor, "batch class height width"]:
        """Logits at the size of the finest map, which is the first."""
        levels = [self.get_submodule(f"linear_c{i}")(x) for i, x in enumerate(maps, 1)]
        # coarsest first, as the official weights have it
        return pixelwise(self.linear_pred, self.dropout(self.linear_fuse.of_levels(levels[::-1])))


class NormedFusion(nn.Module):
    """All levels normalised, at the size of the finest, fused pixel by pixel (mmsegmentation)."""

    def __init__(self, widths: Sequence[int], channels: int = 256) -> None:
        super().__init__()
        self.convs = nn.ModuleList([ConvNorm(width, channels, 1) for width in widths])
        self.fusion_conv = ConvNorm(len(widths) * channels, channels, 1)

    def forward(self, maps: Sequence[Tensor]) -> Float[Tensor, "batch channel height width"]:
        """Features at the size of the finest map, which is the first."""
        levels = [conv(x) for conv, x in zip(self.convs, maps, strict=True)]
        return self.fusion_conv.of_levels(levels)
