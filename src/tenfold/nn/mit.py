"""Mix Transformer (MiT), the encoder of SegFormer (Xie et al. 2021, arXiv 2105.15203, sec. 3.1).

Names of parameters are those of the official code (mmseg/models/backbones/mix_transformer.py), so
that its files load as they are. Tokens are held as [batch, row x column, channel], which is a map
in channels-last order: going from one to the other copies nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from .hivit_blocks import DropPath, attend

EPS = 1e-6
"""Of the norms in blocks and behind stages."""
PATCH_EPS = 1e-5
"""Of the norms of patches and reductions in the official code; mmsegmentation's has `EPS` there."""
STRIDE = 32
"""Pixels of a side of the last map's cells."""


class MitSize(NamedTuple):
    """Sizes of the four stages."""

    dims: tuple[int, ...]
    """Channels."""
    heads: tuple[int, ...]
    depths: tuple[int, ...]
    """Blocks."""
    reductions: tuple[int, ...] = (8, 4, 2, 1)
    """Side of the squares of tokens that make one key and value."""


_HEADS = (1, 2, 5, 8)
_WIDE = (64, 128, 320, 512)
SIZES = {
    "b0": MitSize((32, 64, 160, 256), _HEADS, (2, 2, 2, 2)),
    "b1": MitSize(_WIDE, _HEADS, (2, 2, 2, 2)),
    "b2": MitSize(_WIDE, _HEADS, (3, 4, 6, 3)),
    "b3": MitSize(_WIDE, _HEADS, (3, 4, 18, 3)),
    "b4": MitSize(_WIDE, _HEADS, (3, 8, 27, 3)),
    "b5": MitSize(_WIDE, _HEADS, (3, 6, 40, 3)),
}
"""The published sizes (paper, table 6)."""

Tokens = Float[Tensor, "batch token dim"]
Grid = tuple[int, int]


def as_map(x: Tokens, grid: Grid) -> Float[Tensor, "batch dim height width"]:
    """Tokens as a map in channels-last order; a view."""
    return x.transpose(1, 2).unflatten(2, grid)


def as_tokens(x: Float[Tensor, "batch dim height width"]) -> Tokens:
    """A map as tokens; a view."""
    return x.flatten(2).transpose(1, 2)


class PatchEmbed(nn.Module):
    """Overlapping patches: a convolution and a norm."""

    def __init__(self, channels: int, dim: int, side: int, stride: int, eps: float) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, dim, side, stride, side // 2)
        self.norm = nn.LayerNorm(dim, eps)

    def forward(self, x: Float[Tensor, "batch channel height width"]) -> tuple[Tokens, Grid]:
        """Tokens, and the rows and columns that they make."""
        x = self.proj(x)
        return self.norm(as_tokens(x)), (x.shape[2], x.shape[3])


class Attention(nn.Module):
    """Self-attention whose keys and values are of squares of tokens (paper, sec. 3.1)."""

    def __init__(self, dim: int, heads: int, reduction: int, eps: float) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(
                f"a stage of {dim} channels cannot have {heads} heads; choose a divisor of {dim}"
            )
        self.heads = heads
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)
        self.sr: nn.Conv2d | None = None
        if reduction > 1:
            self.sr = nn.Conv2d(dim, dim, reduction, reduction)
            self.norm = nn.LayerNorm(dim, eps)

    def forward(self, x: Tokens, grid: Grid) -> Tokens:
        """Attend; what does not fill a square at the right and below is left out of the keys."""
        few = x if self.sr is None else self.norm(as_tokens(self.sr(as_map(x, grid))))
        width = (self.heads, -1)
        q = self.q(x).unflatten(2, width).transpose(1, 2)
        k, v = (part.unflatten(2, width).transpose(1, 2) for part in self.kv(few).chunk(2, -1))
        return self.proj(attend(q, k, v, None).transpose(1, 2).flatten(2))


class DepthwiseConv(nn.Module):
    """A 3x3 convolution of each channel; zeros around the map say where a token lies."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)

    def forward(self, x: Tokens, grid: Grid) -> Tokens:
        """Tokens to tokens."""
        return as_tokens(self.dwconv(as_map(x, grid)))


class MixMlp(nn.Module):
    """Two linear layers with a depth-wise convolution and exact GELU between (Mix-FFN)."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.dwconv = DepthwiseConv(hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tokens, grid: Grid) -> Tokens:
        """Tokens to tokens."""
        return self.fc2(F.gelu(self.dwconv(self.fc1(x), grid)))


class Block(nn.Module):
    """Attention and Mix-FFN, each added to what comes in."""

    def __init__(
        self, dim: int, heads: int, reduction: int, ratio: float, drop_path: float, eps: float
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, EPS)
        self.attn = Attention(dim, heads, reduction, eps)
        self.drop_path = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(dim, EPS)
        self.mlp = MixMlp(dim, int(dim * ratio))

    def forward(self, x: Tokens, grid: Grid) -> Tokens:
        """Tokens to tokens."""
        x = x + self.drop_path(self.attn(self.norm1(x), grid))
        return x + self.drop_path(self.mlp(self.norm2(x), grid))


class MixTransformer(nn.Module):
    """Four stages of overlapping patches and blocks: maps at 1/4, 1/8, 1/16 and 1/32.

    `MixTransformer(*SIZES["b0"])` is the smallest that was published.
    """

    def __init__(
        self,
        dims: Sequence[int],
        heads: Sequence[int],
        depths: Sequence[int],
        reductions: Sequence[int] = (8, 4, 2, 1),
        drop_path: float = 0.1,
        ratio: float = 4.0,
        patch_eps: float = PATCH_EPS,
    ) -> None:
        """`drop_path` is the last block's rate of stochastic depth, which rises from 0; `ratio` is
        the MLPs' hidden channels by those of the stage; `patch_eps` is of the norms of patches and
        reductions."""
        super().__init__()
        if {len(dims), len(heads), len(depths), len(reductions)} != {4} or min(depths) < 1:
            raise ValueError(
                f"dims {tuple(dims)}, heads {tuple(heads)}, depths {tuple(depths)} and reductions "
                f"{tuple(reductions)} must be four numbers each, of four stages with blocks"
            )
        self.dims = tuple(dims)
        total = sum(depths)
        rates = [drop_path * i / max(1, total - 1) for i in range(total)]
        channels = 3
        for i, (dim, depth) in enumerate(zip(dims, depths, strict=True), 1):
            side, stride = (7, 4) if i == 1 else (3, 2)
            self.add_module(f"patch_embed{i}", PatchEmbed(channels, dim, side, stride, patch_eps))
            blocks = [
                Block(dim, heads[i - 1], reductions[i - 1], ratio, rates.pop(0), patch_eps)
                for _ in range(depth)
            ]
            self.add_module(f"block{i}", nn.ModuleList(blocks))
            self.add_module(f"norm{i}", nn.LayerNorm(dim, EPS))
            channels = dim
        self.apply(_initialise)

    def forward(
        self, x: Float[Tensor, "batch 3 height width"]
    ) -> list[Float[Tensor, "batch _ _ _"]]:
        """The map behind every stage, finest first, in channels-last order."""
        found = []
        for i in range(1, len(self.dims) + 1):
            tokens, grid = self.get_submodule(f"patch_embed{i}")(x)
            for block in self.get_submodule(f"block{i}").children():
                tokens = block(tokens, grid)
            x = as_map(self.get_submodule(f"norm{i}")(tokens), grid)
            found.append(x)
        return found


def _initialise(module: nn.Module) -> None:
    """Weights as the official code draws them."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d):
        fan_out = module.weight[0, 0].numel() * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
        if module.bias is not None:
            nn.init.zeros_(module.bias)
