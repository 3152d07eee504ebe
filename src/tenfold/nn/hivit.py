"""HiViT with iTPN's feature pyramid: a hierarchical transformer that can leave units out.

One network for all published families: iTPN on pixels and on CLIP's features, its detection and
segmentation backbones, and Fast-iTPN. Source: iTPN (arXiv 2211.12735) and its released code.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .hivit_blocks import (
    Bias,
    Block,
    Grid,
    PatchEmbed,
    PatchMerge,
    PatchSplit,
    SharedBias,
    bias_index,
)
from .position import resize_position

SIDES = (1, 2, 4)
"""Sub-patches of a unit's side in each level of the pyramid, coarsest first."""


@dataclass(frozen=True)
class Shape:
    """Everything that decides which tensors a network has, and how they are used."""

    embed_dim: int = 512
    """Channels of the main stage; the two before have a quarter and a half."""
    depths: tuple[int, int, int] = (3, 3, 24)
    """Blocks of the two MLP stages and of the main stage."""
    num_heads: int = 8
    patch_size: int = 16
    """Pixels of a unit's side."""
    grid: Grid = (14, 14)
    """Units of the picture for which the absolute positions are stored."""
    bias: Bias = "none"
    """Relative position bias of the main stage."""
    bias_grid: Grid = (0, 0)
    """Units for which bias tables are stored; (0, 0) is `grid`."""
    stem_ratio: float = 3.0
    """Hidden channels of the MLP stages' blocks, over their channels."""
    ratio: float = 4.0
    layer_scale: float = 0.0
    """Initial layer scale, 0 without; in the pyramid there is none."""
    fast: bool = False
    """Fast-iTPN: SwiGLU, a norm inside each MLP, convolutional merging, no norm after the patch
    embedding, separate projections of queries, keys and values."""
    conv_stem: bool = True
    """Fast-iTPN's usual MLP stages: GELU and no layer scale."""
    has_class_token: bool = False
    fpn_dim: int = 0
    """Channels of the pyramid; 0 has none."""
    fpn_depth: int = 2
    """MLP blocks of each step down the pyramid."""
    fpn_levels: int = 3
    """Levels of the pyramid, coarsest first: 3, or 2 without the finest."""
    eps: float = 1e-6
    """Of each LayerNorm; detection and segmentation have torch's 1e-5."""
    drop_path: float = 0.0
    """Largest rate of stochastic depth; the blocks before have less."""

    @property
    def units(self) -> int:
        """Units of the stored grid."""
        return self.grid[0] * self.grid[1]


@dataclass(frozen=True)
class Features:
    """Outputs of the stages, of all units or of those kept."""

    fine: Float[Tensor, "batch unit 4 4 quarter"]
    middle: Float[Tensor, "batch unit 2 2 half"]
    tokens: Float[Tensor, "batch unit embed_dim"]
    tapped: Tensor | None = None
    """Tokens after the main block that was asked for."""


class HiViT(nn.Module):
    """Stages 1-3, and the pyramid on top of them if `shape.fpn_dim` is given."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        dim, eps, fast = shape.embed_dim, shape.eps, shape.fast
        self.bias_grid = shape.bias_grid if shape.bias_grid != (0, 0) else shape.grid
        if shape.bias.startswith("shared") or shape.bias == "full-cls":
            assert shape.has_class_token, "this bias has rows for a class token"
        self.patch_embed = PatchEmbed(dim // 4, shape.patch_size, not fast, eps)
        extra = 1 if shape.has_class_token else 0
        self.absolute_pos_embed = nn.Parameter(torch.zeros(1, shape.units + extra, dim))
        if shape.has_class_token:
            self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        if shape.bias.startswith("shared"):
            decoupled = shape.bias == "shared-decoupled"
            self.rel_pos_bias = SharedBias(shape.num_heads, self.bias_grid, decoupled)
        conv = fast and shape.conv_stem
        total = sum(shape.depths)
        rates = [shape.drop_path * i / max(1, total - 1) for i in range(total)]
        blocks: list[nn.Module] = []
        for stage, depth in enumerate(shape.depths):
            width = dim // (4, 2, 1)[stage]
            is_main = stage == 2
            for _ in range(depth):
                blocks.append(
                    Block(
                        width,
                        int(width * (shape.ratio if is_main else shape.stem_ratio)),
                        num_heads=shape.num_heads if is_main else 0,
                        bias=shape.bias,
                        grid=self.bias_grid,
                        layer_scale=0.0 if conv and not is_main else shape.layer_scale,
                        drop_path=rates.pop(0),
                        gated=fast and (is_main or not conv),
                        sub_norm=fast,
                        eps=eps,
                    )
                )
            if not is_main:
                blocks.append(PatchMerge(width, conv, eps))
        self.blocks = nn.ModuleList(blocks)
        if shape.fpn_dim:
            self._build_pyramid(shape)
        self.apply(init_weights)
        nn.init.trunc_normal_(self.absolute_pos_embed, std=0.02)

    def _build_pyramid(self, shape: Shape) -> None:
        dim, out, eps = shape.embed_dim, shape.fpn_dim, shape.eps
        hidden = int(out * shape.ratio)

        def steps() -> nn.Sequential:
            return nn.Sequential(*[Block(out, hidden, eps=eps) for _ in range(shape.fpn_depth)])

        self.align_dim_16tofpn = nn.Linear(dim, out) if dim != out else None
        self.align_dim_16to8 = nn.Linear(dim // 2, out, bias=False)
        self.split_16to8 = PatchSplit(dim, out, eps)
        self.block_16to8 = steps()
        if shape.fpn_levels > 2:
            self.align_dim_8to4 = nn.Linear(dim // 4, out, bias=False)
            self.split_8to4 = PatchSplit(out, out, eps)
            self.block_8to4 = steps()
        levels = range(shape.fpn_levels)
        self.fpn_modules = nn.ModuleList([Block(out, hidden, eps=eps) for _ in levels])

    def grid_of(self, images: Float[Tensor, "batch 3 height width"]) -> Grid:
        """Rows and columns of units; ValueError if the sides are no multiples of a unit."""
        side = self.shape.patch_size
        height, width = images.shape[2:]
        if height % side or width % side or not height or not width:
            raise ValueError(
                f"pictures of {height} x {width} pixels (height x width) cannot be divided into "
                f"units of {side} x {side}; pad or resize them to multiples of {side}"
            )
        return height // side, width // side

    def positions(
        self, grid: Grid, always_resized: bool = False
    ) -> Float[Tensor, "1 unit embed_dim"]:
        """Absolute positions of the units of a grid, resized if they are stored for another.

        The official code counts tokens to find out, so that it resizes (by 1 + 0.1 / side) whenever
        units are left out. `always_resized` does so: pre-training is not equal to it otherwise.
        """
        skip = 1 if self.shape.has_class_token else 0
        table = self.absolute_pos_embed[:, skip:]
        if grid == self.shape.grid and not always_resized:
            return table
        return resize_position(table, self.shape.grid, grid)

    def encode(
        self,
        images: Float[Tensor, "batch 3 height width"],
        kept: Int64[Tensor, "batch kept"] | None = None,
        masked: Bool[Tensor, "batch unit"] | None = None,
        mask_token: Float[Tensor, "1 1 embed_dim"] | None = None,
        tap: int = -1,
        checkpointing: bool = False,
    ) -> Features:
        """All stages, on the `kept` units only if given (they then go through nothing else).

        masked: units whose token is `mask_token` from the main stage on (CLIP branch).
        tap: main block whose output is wanted besides. checkpointing: recompute the main blocks'
        activations in the backward pass.
        """
        shape, grid = self.shape, self.grid_of(images)
        x = self.patch_embed(images, kept)
        main = len(self.blocks) - shape.depths[2]
        features = []
        for block in self.blocks[:main]:
            if isinstance(block, PatchMerge):
                features.append(x)
            x = block(x)
        x = x[:, :, 0, 0]
        if masked is not None:
            assert mask_token is not None
            x = torch.where(masked[..., None], mask_token.to(x.dtype), x)
        left_out = kept is not None and kept.shape[1] < grid[0] * grid[1]
        positions = self.positions(grid, always_resized=left_out)
        if kept is not None:
            positions = positions.expand(len(x), -1, -1)
            positions = positions.gather(1, kept[:, :, None].expand(-1, -1, x.shape[2]))
        x = x + positions
        if shape.has_class_token:
            first = self.cls_token + self.absolute_pos_embed[:, :1]
            x = torch.cat([first.expand(x.shape[0], -1, -1).to(x.dtype), x], 1)
        index, shared = self._bias(grid, kept)
        tapped = None
        for number, block in enumerate(self.blocks[main:]):
            if checkpointing:
                x = checkpoint(block, x, index, shared, grid, use_reentrant=False)
            else:
                x = block(x, index, shared, grid)
            tapped = x if number == tap else tapped
        tokens = x[:, 1:] if shape.has_class_token else x
        return Features(features[0], features[1], tokens, tapped)

    def _bias(self, grid: Grid, kept: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """(rows of the blocks' tables for each pair of tokens, or a bias common to all blocks)."""
        shape = self.shape
        index = bias_index(shape.bias, grid, self.absolute_pos_embed.device)
        if shape.bias.startswith("shared"):
            assert index is not None
            return None, self.rel_pos_bias(index, grid)
        if kept is not None and shape.bias == "decomposed":
            raise ValueError("the decomposed position bias needs all units")
        if index is not None and kept is not None:
            columns = kept[:, None, :].expand(-1, kept.shape[1], -1)
            index = index[kept].gather(2, columns)
        return index, None

    def pyramid(self, features: Features) -> list[Float[Tensor, "batch unit side side fpn_dim"]]:
        """The levels of 1, 2 and (if there are three) 4 sub-patches a unit's side."""
        x = features.tokens[:, :, None, None]
        coarse = x if self.align_dim_16tofpn is None else self.align_dim_16tofpn(x)
        middle = self.block_16to8(self.split_16to8(x) + self.align_dim_16to8(features.middle))
        levels = [coarse, middle]
        if self.shape.fpn_levels > 2:
            fine = self.split_8to4(middle) + self.align_dim_8to4(features.fine)
            levels.append(self.block_8to4(fine))
        return [block(level) for block, level in zip(self.fpn_modules, levels, strict=True)]

    def detection_maps(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> list[Float[Tensor, "batch fpn_dim rows columns"]]:
        """Five maps, finest first: the pyramid, and twice halved again by average pooling.

        Strides are 4, 8, 16, 32, 64 for patch_size 16; a pyramid of two levels has no 4. Source:
        official detection backbones.
        """
        grid = self.grid_of(images)
        maps = [raster(level, grid) for level in self.pyramid(self.encode(images))[::-1]]
        for _ in range(2):
            maps.append(F.avg_pool2d(maps[-1], window(maps[-1])))
        return maps

    def segmentation_maps(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> list[Float[Tensor, "batch dim rows columns"]]:
        """Four maps, finest first: pyramid and stage of a stride together, the last max-pooled.

        Source: official segmentation backbone.
        """
        grid = self.grid_of(images)
        features = self.encode(images)
        own = (features.tokens[:, :, None, None], features.middle, features.fine)
        maps = [
            raster(torch.cat([level, stage], -1), grid)
            for level, stage in zip(self.pyramid(features), own, strict=True)
        ][::-1]
        return [*maps, F.max_pool2d(maps[-1], window(maps[-1]))]

    def widths(self) -> tuple[int, int, int, int]:
        """Channels of `segmentation_maps`."""
        dim, out = self.shape.embed_dim, self.shape.fpn_dim
        return out + dim // 4, out + dim // 2, out + dim, out + dim


def raster(x: Float[Tensor, "batch unit side side dim"], grid: Grid) -> Tensor:
    """A map [batch, dim, rows, columns] of a tensor that is grouped by units."""
    batch, _, side, _, dim = x.shape
    x = x.view(batch, *grid, side, side, dim).permute(0, 5, 1, 3, 2, 4)
    return x.reshape(batch, dim, grid[0] * side, grid[1] * side)


def window(x: Float[Tensor, "batch dim rows columns"]) -> Grid:
    """Rows and columns of the squares that halve a map; a side of one cell, of a picture that is
    as small as a unit, stays as it is."""
    return min(2, x.shape[2]), min(2, x.shape[3])


def init_weights(module: nn.Module) -> None:
    """Linear layers get a truncated normal of 0.02, norms 1 and 0; convolutions keep torch's."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def square_grid(units: int) -> Grid:
    """The square grid of so many units; ValueError if there is none."""
    side = math.isqrt(units)
    if side * side != units:
        raise ValueError(f"{units} units do not make a square grid")
    return side, side
