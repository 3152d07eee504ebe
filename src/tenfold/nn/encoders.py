"""Networks of the house as encoders for segmentation: pictures to maps, finest first.

Names of parameters stay those of the networks, so that their files load as they are; the Mix
Transformer (`mit.py`) is such an encoder by itself.
"""

from __future__ import annotations

from typing import Protocol, Self

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from .efficientnet import EfficientNetLite
from .hivit import HiViT, Shape, raster
from .resnet import Kind, ResNet
from .uperhead import enlarged
from .vit import Vit, VitShape

STRIDES = (4, 8, 16, 32)
"""Pixels of a side of a cell, of the maps of a vision transformer as of a Mix Transformer."""


class Encoder(Protocol):
    """From pictures to maps, of which each next is as large or smaller."""

    dims: tuple[int, ...]
    """Channels of the maps."""

    def __call__(
        self, x: Float[Tensor, "batch 3 height width"]
    ) -> list[Float[Tensor, "batch _ _ _"]]:
        """The maps, finest first."""
        ...


class ResnetEncoder(ResNet):
    """The maps of a ResNet's stages, and before them, if wanted, that of its stem."""

    def __init__(
        self, kind: Kind = "resnet18", width: int = 0, output_stride: int = 8, stem: bool = False
    ) -> None:
        super().__init__(kind, width, output_stride)
        self.with_stem = stem
        self.dims = (self.widths[0], *self.widths) if stem else self.widths
        # a fifth less time for a training pass on a CPU
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(  # type: ignore[override]
        self, x: Float[Tensor, "batch 3 height width"]
    ) -> list[Float[Tensor, "batch _ _ _"]]:
        """A map a stage."""
        return self.maps(x, self.with_stem)


class LiteEncoder(EfficientNetLite):
    """The maps of EfficientNet-Lite0 at 1/4, 1/8, 1/16 and 1/32, without its last convolution.

    Statistics of norms that were learned on millions of pictures are better than those of a small
    batch: with `fixed` they, and the scales beside them, stay as they are.
    """

    ENDS = (1, 2, 4, 5)
    """Stages whose maps are given: the last of each size, but the widest, which is no larger."""

    def __init__(self, fixed: bool = False, frozen: int = 0) -> None:
        """`frozen` stages, from the stem on, are not trained."""
        super().__init__()
        if not 0 <= frozen <= self.ENDS[-1] + 1:
            raise ValueError(f"{frozen} stages cannot be frozen; there are {self.ENDS[-1] + 1}")
        last = self.ends[self.ENDS[-1]]
        del self.conv_head, self.bn1, self.blocks[last:]
        self.fixed = fixed
        self.dims = tuple(self.widths[stage] for stage in self.ENDS)
        if frozen:
            for part in (self.conv_stem, self.bn0, *self.blocks[: self.ends[frozen - 1]]):
                part.requires_grad_(False)
        for norm in self._norms() if fixed else ():
            norm.requires_grad_(False)
        self.train()
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _norms(self) -> list[nn.Module]:
        return [module for module in self.modules() if isinstance(module, nn.BatchNorm2d)]

    def train(self, mode: bool = True) -> Self:
        """Training mode but for fixed norms."""
        super().train(mode)
        for norm in self._norms() if self.fixed else ():
            norm.training = False
        return self

    def forward(
        self, x: Float[Tensor, "batch 3 height width"]
    ) -> list[Float[Tensor, "batch _ _ _"]]:
        """A map for each of `dims`."""
        x = F.relu6(self.bn0(self.conv_stem(x)), inplace=True)
        found, ends = [], [self.ends[stage] for stage in self.ENDS]
        for number, block in enumerate(self.blocks, 1):
            x = block(x)
            if number in ends:
                found.append(x)
        return found


class HivitEncoder(HiViT):
    """The maps of HiViT's stages, with the pyramid's beside them if it has one (iTPN)."""

    def __init__(self, shape: Shape) -> None:
        if shape.fpn_dim and shape.fpn_levels != 3:
            raise ValueError(
                f"the pyramid has {shape.fpn_levels} levels; an encoder for segmentation needs 3, "
                "or none (fpn_dim 0)"
            )
        super().__init__(shape)
        dim = shape.embed_dim
        own = (dim // 4, dim // 2, dim, dim)
        self.dims: tuple[int, ...] = self.widths() if shape.fpn_dim else own

    def forward(
        self, x: Float[Tensor, "batch 3 height width"]
    ) -> list[Float[Tensor, "batch _ _ _"]]:
        """Maps at 1/4, 1/8, 1/16 and 1/32, as the stages have them for units of 16 pixels.

        Pictures are enlarged to multiples of a unit.
        """
        height, width = x.shape[2:]
        unit = self.shape.patch_size
        x = resized(x, (-(-height // unit) * unit, -(-width // unit) * unit))
        if self.shape.fpn_dim:
            maps = self.segmentation_maps(x)[:3]
        else:
            found, grid = self.encode(x), self.grid_of(x)
            stages = (found.fine, found.middle, found.tokens[:, :, None, None])
            maps = [raster(stage, grid) for stage in stages]
        maps = [resized(x, size) for x, size in zip(maps, sizes_of(height, width), strict=False)]
        return [*maps, F.max_pool2d(maps[-1], 2, ceil_mode=True)]


class VitEncoder(Vit):
    """Tokens of four depths of a vision transformer, each at one of four sizes.

    Pictures are resized so that a patch stands for the next power of two of their pixels (14 for
    16), whose halves and doubles the sizes are. No layers are added (BEiT has transposed
    convolutions there), so the network's own weights are all that it needs.
    """

    def __init__(self, shape: VitShape) -> None:
        super().__init__(shape)
        if shape.depth < len(STRIDES):
            raise ValueError(f"a transformer of {shape.depth} blocks is too shallow; 4 at least")
        self.cell = 1 << (shape.patch_size - 1).bit_length()
        self.dims = (shape.dim,) * len(STRIDES)

    def forward(  # type: ignore[override]
        self, x: Float[Tensor, "batch 3 height width"]
    ) -> list[Float[Tensor, "batch _ _ _"]]:
        """Maps at 1/4, 1/8, 1/16 and 1/32, of the earliest blocks first."""
        height, width = x.shape[2:]
        rows, columns = -(-height // self.cell), -(-width // self.cell)
        side, depth = self.shape.patch_size, self.shape.depth
        tokens = self.embed(enlarged(x, (rows * side, columns * side)))
        maps, ends = [], [depth * i // len(STRIDES) for i in range(1, len(STRIDES) + 1)]
        for number, block in enumerate(self.blocks, 1):
            tokens = block(tokens)
            if number in ends:
                patches = self.norm(tokens)[:, 1 + self.shape.registers :]
                maps.append(patches.transpose(1, 2).unflatten(2, (rows, columns)))
        sizes = sizes_of(height, width)
        return [resized(level, size) for level, size in zip(maps, sizes, strict=True)]


def sizes_of(height: int, width: int) -> list[tuple[int, int]]:
    """Rows and columns of the maps of a picture."""
    return [(-(-height // stride), -(-width // stride)) for stride in STRIDES]


def resized(
    x: Float[Tensor, "batch dim rows columns"], size: tuple[int, int]
) -> Float[Tensor, "batch dim height width"]:
    """A map enlarged linearly, or made smaller by means."""
    if tuple(x.shape[2:]) == size:
        return x
    if size[0] < x.shape[2]:
        return F.adaptive_avg_pool2d(x, size)
    return enlarged(x, size)
