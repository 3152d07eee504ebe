"""Swin transformers: attention within windows that are shifted in every second block.

Liu et al. 2021, written anew; names of parameters are those of transformers 5 (SwinModel).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from .hivit_blocks import DropPath
from .kept import kept
from .position import relative_index
from .vit import Mlp

Map = Float[Tensor, "batch height width dim"]


@dataclass(frozen=True)
class SwinShape:
    """Everything that decides which tensors the network has, and how they are used."""

    dim: int
    """Channels of the first stage; each further one has twice as many."""
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    window: int = 7
    """Side of a window in tokens."""
    patch_size: int = 4
    hidden: float = 4.0
    """Hidden channels of each MLP, by its channels."""
    drop_path: float = 0.0
    """Largest rate of stochastic depth; the blocks before have less."""

    def __post_init__(self) -> None:
        if len(self.depths) != len(self.heads) or not self.depths:
            raise ValueError(
                f"depths {self.depths} and heads {self.heads} are of each stage; give one of both"
            )
        for stage, heads in enumerate(self.heads):
            if heads < 1 or (self.dim << stage) % heads:
                raise ValueError(
                    f"stage {stage} of {self.dim << stage} channels cannot have {heads} heads; "
                    "give a divisor"
                )


class RelativeBias(nn.Module):
    """A number for each head and each distance of two tokens of a window."""

    index: Tensor

    def __init__(self, window: int, heads: int) -> None:
        super().__init__()
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.register_buffer("index", relative_index(window, window), persistent=False)

    def forward(self) -> Float[Tensor, "head token token"]:
        """Bias of each query and key."""
        return self.relative_position_bias_table[self.index].permute(2, 0, 1)


class Attention(nn.Module):
    """Self-attention within windows."""

    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (nn.Linear(dim, dim) for _ in range(4))
        self.relative_position_bias = RelativeBias(window, heads)

    def forward(
        self,
        x: Float[Tensor, "batch window token dim"],
        together: Bool[Tensor, "window token token"] | None,
    ) -> Float[Tensor, "batch window token dim"]:
        """Mix the tokens of each window; `together` is False for two that were no neighbours."""
        query, key, value = (
            project(x).unflatten(3, (self.heads, -1)).transpose(2, 3)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        bias = self.relative_position_bias()[None]
        if together is not None:
            bias = bias.masked_fill(~together[:, None], -100.0)  # as the published weights had it
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias[None])
        return self.o_proj(mixed.transpose(2, 3).flatten(3))


class Block(nn.Module):
    """Attention and MLP, each behind a norm and added."""

    def __init__(
        self, dim: int, heads: int, window: int, hidden: int, shift: int, drop_path: float
    ) -> None:
        super().__init__()
        self.window, self.shift = window, shift
        self.layernorm_before, self.layernorm_after = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = Attention(dim, heads, window)
        self.mlp = Mlp(dim, hidden)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Map) -> Map:
        """Two residual steps."""
        x = x + self.drop_path(self._mixed(self.layernorm_before(x)))
        return x + self.drop_path(self.mlp(self.layernorm_after(x)))

    def _mixed(self, x: Map) -> Map:
        side, (height, width) = self.window, x.shape[1:3]
        shift = self.shift if min(height, width) > side else 0  # one window is all there is
        x = F.pad(x, (0, 0, 0, -width % side, 0, -height % side))
        rows, columns = x.shape[1] // side, x.shape[2] // side
        if shift:
            x = x.roll((-shift, -shift), (1, 2))
        windows = x.unflatten(2, (columns, side)).unflatten(1, (rows, side)).transpose(2, 3)
        together = None
        if shift:
            together = neighbours(rows, columns, side, shift).to(x.device)
        mixed = self.attention(windows.flatten(1, 2).flatten(2, 3), together)
        x = mixed.view(len(x), rows, columns, side, side, -1).transpose(2, 3).flatten(3, 4)
        x = x.flatten(1, 2)
        if shift:
            x = x.roll((shift, shift), (1, 2))
        return x[:, :height, :width]


@kept(64)
def neighbours(
    rows: int, columns: int, side: int, shift: int
) -> Bool[Tensor, "window token token"]:
    """Return True for tokens of a shifted window that lie on the same side of the map's border."""

    def part(count: int) -> Tensor:
        at = torch.arange(count * side)
        return (at >= (count - 1) * side).long() + (at >= count * side - shift).long()

    number = 3 * part(rows)[:, None] + part(columns)
    windows = number.unflatten(1, (columns, side)).unflatten(0, (rows, side)).transpose(1, 2)
    flat = windows.flatten(0, 1).flatten(1)
    return flat[:, :, None] == flat[:, None]


class Merge(nn.Module):
    """Two by two tokens to one of twice the channels."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Map) -> Float[Tensor, "batch rows columns merged"]:
        """Half as many rows and columns, an odd number rounded up."""
        x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
        parts = [x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)]
        return self.reduction(self.norm(torch.cat(parts, 3)))


class Stage(nn.Module):
    """Blocks of one resolution, and the merge to the next."""

    def __init__(self, shape: SwinShape, number: int, rates: list[float]) -> None:
        super().__init__()
        dim, window = shape.dim << number, shape.window
        sizes = (dim, shape.heads[number], window, int(shape.hidden * dim))
        self.blocks = nn.ModuleList(
            [Block(*sizes, i % 2 * (window // 2), rate) for i, rate in enumerate(rates)]
        )
        is_last = number + 1 == len(shape.depths)
        self.downsample = nn.Identity() if is_last else Merge(dim)

    def forward(self, x: Map) -> Float[Tensor, "batch rows columns merged"]:
        """All blocks, then the merge."""
        for block in self.blocks:
            x = block(x)
        return self.downsample(x)


class PatchProjection(nn.Module):
    """A token of each patch."""

    def __init__(self, dim: int, patch_size: int) -> None:
        super().__init__()
        self.projection = nn.Conv2d(3, dim, patch_size, patch_size)

    def forward(
        self, images: Float[Tensor, "batch 3 high wide"]
    ) -> Float[Tensor, "batch height width dim"]:
        """Sides that are no multiples of a patch are filled up with 0."""
        side = self.projection.stride[0]
        high, wide = images.shape[2:]
        filled = F.pad(images, (0, -wide % side, 0, -high % side))
        return self.projection(filled).permute(0, 2, 3, 1)


class Embeddings(nn.Module):
    """Tokens before the first block."""

    def __init__(self, shape: SwinShape) -> None:
        super().__init__()
        self.patch_embeddings = PatchProjection(shape.dim, shape.patch_size)
        self.norm = nn.LayerNorm(shape.dim)

    def forward(
        self, images: Float[Tensor, "batch 3 high wide"]
    ) -> Float[Tensor, "batch height width dim"]:
        """Projected and normalised patches."""
        return self.norm(self.patch_embeddings(images))


class Encoder(nn.Module):
    """The stages."""

    def __init__(self, shape: SwinShape) -> None:
        super().__init__()
        total = sum(shape.depths)
        rates = [shape.drop_path * i / max(1, total - 1) for i in range(total)]
        starts = [sum(shape.depths[:i]) for i in range(len(shape.depths))]
        self.layers = nn.ModuleList(
            [
                Stage(shape, i, rates[start : start + depth])
                for i, (start, depth) in enumerate(zip(starts, shape.depths, strict=True))
            ]
        )


class Swin(nn.Module):
    """Pictures to the tokens of the last stage."""

    def __init__(self, shape: SwinShape) -> None:
        super().__init__()
        self.shape = shape
        self.embeddings = Embeddings(shape)
        self.encoder = Encoder(shape)
        self.layernorm = nn.LayerNorm(self.out_dim)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    @property
    def out_dim(self) -> int:
        """Channels of the tokens."""
        return self.shape.dim << (len(self.shape.depths) - 1)

    def maps(self, images: Float[Tensor, "batch 3 height width"]) -> list[Tensor]:
        """Maps before the first stage and behind each, the last before its norm."""
        found = [self.embeddings(images)]
        for stage in self.encoder.layers:
            found.append(stage(found[-1]))
        return found

    def forward(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch token dim"]:
        """Normalised tokens, row by row; their mean is the picture's vector."""
        return self.layernorm(self.maps(images)[-1]).flatten(1, 2)
