"""Vision transformers: of DINOv2, with registers, layer scale and SwiGLU; of DeiT; of MCTformer.

Names of parameters and the arithmetic are those of the official code (facebookresearch/dinov2,
dinov2/models/vision_transformer.py and dinov2/layers; Apache 2.0), written anew; dropout and
masking, which only training has, are left out. DeiT is DINOv2's without registers and layer scale;
MCTformer (xulianuwa/MCTformer) has a class token a class, and no norm behind the last block.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from .hivit_blocks import DropPath
from .position import resize_position

EPS = 1e-6
"""Of every LayerNorm."""


@dataclass(frozen=True)
class VitShape:
    """Everything that decides which tensors the network has, and how they are used."""

    dim: int
    depth: int
    heads: int
    patch_size: int
    grid: int
    """Patches of a side of the picture for which the positions are stored."""
    hidden: int
    """Hidden channels of each MLP."""
    registers: int = 0
    gated: bool = False
    """SwiGLU instead of GELU (giant)."""
    layer_scale: bool = True
    class_tokens: int = 1
    split_positions: bool = False
    """Positions of class tokens and of patches as two tables, and those of patches resized to a
    grid itself, without DINO's 0.1 (MCTformer+)."""
    last_norm: bool = True
    """Norm behind the last block."""
    drop_path: float = 0.0
    """Largest rate of stochastic depth; the blocks before have less."""

    def __post_init__(self) -> None:
        if self.heads < 1 or self.dim % self.heads:
            raise ValueError(
                f"a transformer of {self.dim} channels cannot have {self.heads} heads; give a "
                "divisor"
            )


class Attention(nn.Module):
    """Self-attention with one projection for queries, keys and values."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(
        self, x: Float[Tensor, "batch token dim"], kept: Bool[Tensor, "batch token"] | None = None
    ) -> Float[Tensor, "batch token dim"]:
        """Softmax of <q, k> / sqrt(channels of a head), then the projection.

        kept: False for tokens that none attends to.
        """
        parts = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = parts  # batch, head, token, channel
        mask = None if kept is None else kept[:, None, None]
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.proj(mixed.transpose(1, 2).flatten(2))

    def with_weights(
        self, x: Float[Tensor, "batch token dim"]
    ) -> tuple[Float[Tensor, "batch token dim"], Float[Tensor, "batch head token token"]]:
        """The same, and the softmax."""
        parts = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = parts.contiguous()  # products would copy each
        weights = (query * query.shape[3] ** -0.5 @ key.mT).softmax(-1)
        return self.proj((weights @ value).transpose(1, 2).flatten(2)), weights

    def weights(
        self, x: Float[Tensor, "batch token dim"], queries: int
    ) -> Float[Tensor, "batch head query token"]:
        """The softmax of the first queries alone."""
        dim = x.shape[2]
        of_query, of_key, _ = self.qkv.weight.split(dim)
        query_bias, key_bias, _ = self.qkv.bias.split(dim)
        query = F.linear(x[:, :queries], of_query, query_bias).unflatten(2, (self.heads, -1))
        key = F.linear(x, of_key, key_bias).unflatten(2, (self.heads, -1))
        scores = query.transpose(1, 2) * query.shape[3] ** -0.5 @ key.permute(0, 2, 3, 1)
        return scores.softmax(-1)


class Mlp(nn.Module):
    """Two layers with an exact GELU between them."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        """GELU."""
        return self.fc2(F.gelu(self.fc1(x)))


class SwiGlu(nn.Module):
    """An MLP whose first half, after SiLU, gates the second."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.w12 = nn.Linear(dim, 2 * hidden)
        self.w3 = nn.Linear(hidden, dim)

    def forward(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        """SwiGLU (Shazeer 2020)."""
        gate, value = self.w12(x).chunk(2, -1)
        return self.w3(F.silu(gate) * value)


class LayerScale(nn.Module):
    """A factor a channel."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        """Scale."""
        return x * self.gamma


class Block(nn.Module):
    """Attention and MLP, each behind a norm, scaled and added."""

    def __init__(self, shape: VitShape, drop_path: float = 0.0) -> None:
        super().__init__()
        dim = shape.dim
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=EPS), nn.LayerNorm(dim, eps=EPS)
        self.attn = Attention(dim, shape.heads)
        self.mlp = SwiGlu(dim, shape.hidden) if shape.gated else Mlp(dim, shape.hidden)
        self.ls1 = LayerScale(dim) if shape.layer_scale else nn.Identity()
        self.ls2 = LayerScale(dim) if shape.layer_scale else nn.Identity()
        self.drop_path = DropPath(drop_path)

    def forward(
        self, x: Float[Tensor, "batch token dim"], kept: Bool[Tensor, "batch token"] | None = None
    ) -> Float[Tensor, "batch token dim"]:
        """Two residual steps; `kept` is attention's."""
        return self._rest(x, self.attn(self.norm1(x), kept))

    def with_weights(
        self, x: Float[Tensor, "batch token dim"]
    ) -> tuple[Float[Tensor, "batch token dim"], Float[Tensor, "batch head token token"]]:
        """The same, and the softmax of attention."""
        mixed, weights = self.attn.with_weights(self.norm1(x))
        return self._rest(x, mixed), weights

    def _rest(self, x: Tensor, mixed: Tensor) -> Tensor:
        x = x + self.drop_path(self.ls1(mixed))
        return x + self.drop_path(self.ls2(self.mlp(self.norm2(x))))


class PatchEmbed(nn.Module):
    """A token of each patch."""

    def __init__(self, dim: int, patch_size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, patch_size, patch_size)

    def forward(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch token dim"]:
        """Tokens, row by row."""
        return self.proj(images).flatten(2).transpose(1, 2)


class Vit(nn.Module):
    """Pictures, whose sides are multiples of a patch, to tokens."""

    def __init__(self, shape: VitShape) -> None:
        super().__init__()
        self.shape = shape
        self.patch_embed = PatchEmbed(shape.dim, shape.patch_size)
        first, patches = shape.class_tokens, shape.grid**2
        self.cls_token = nn.Parameter(torch.zeros(1, first, shape.dim))
        if shape.split_positions:
            self.pos_embed_cls = nn.Parameter(torch.zeros(1, first, shape.dim))
            self.pos_embed_pat = nn.Parameter(torch.zeros(1, patches, shape.dim))
        else:
            self.pos_embed = nn.Parameter(torch.zeros(1, first + patches, shape.dim))
        if shape.registers:
            self.register_tokens = nn.Parameter(torch.zeros(1, shape.registers, shape.dim))
        rates = [shape.drop_path * i / max(1, shape.depth - 1) for i in range(shape.depth)]
        self.blocks = nn.ModuleList([Block(shape, rate) for rate in rates])
        self.norm = nn.LayerNorm(shape.dim, eps=EPS) if shape.last_norm else nn.Identity()
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        if shape.split_positions:
            nn.init.trunc_normal_(self.pos_embed_cls, std=0.02)
            nn.init.trunc_normal_(self.pos_embed_pat, std=0.02)
        else:
            nn.init.trunc_normal_(self.pos_embed, std=0.02)
        if shape.class_tokens > 1:  # else all would be the same token
            nn.init.trunc_normal_(self.cls_token, std=0.02)

    def positions(self, rows: int, columns: int) -> Float[Tensor, "1 token dim"]:
        """Positions of the class tokens and of a grid's patches, bicubic where the grid is another.

        As the official weights are used: without registers by DINO's factor (size + 0.1) / old
        size; with registers to the size itself, with antialiasing (dinov2/hub/backbones.py).
        """
        shape = self.shape
        same = rows == columns == shape.grid
        if shape.split_positions:
            first, table = self.pos_embed_cls, self.pos_embed_pat
        elif same:
            return self.pos_embed
        else:
            first, table = self.pos_embed.split([shape.class_tokens, shape.grid**2], 1)
        if same:
            return torch.cat([first, table], 1)
        if not shape.registers and not shape.split_positions:
            side = (shape.grid, shape.grid)
            return torch.cat([first, resize_position(table, side, (rows, columns))], 1)
        x = table.unflatten(1, (shape.grid, shape.grid)).permute(0, 3, 1, 2)
        antialias = not shape.split_positions
        x = F.interpolate(x, size=(rows, columns), mode="bicubic", antialias=antialias)
        return torch.cat([first, x.flatten(2).transpose(1, 2)], 1)

    def embed(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch token dim"]:
        """Tokens before the blocks: the class tokens, the registers, the patches row by row."""
        side = self.shape.patch_size
        height, width = images.shape[2:]
        if height % side or width % side or not height or not width:
            raise ValueError(
                f"pictures of {height} x {width} pixels (height x width) cannot be divided into "
                f"patches of {side} x {side}; resize them to multiples of {side}"
            )
        x = torch.cat([self.cls_token.expand(images.shape[0], -1, -1), self.patch_embed(images)], 1)
        x = x + self.positions(height // side, width // side)
        if self.shape.registers:
            registers = self.register_tokens.expand(x.shape[0], -1, -1)
            first = self.shape.class_tokens
            x = torch.cat([x[:, :first], registers, x[:, first:]], 1)
        return x

    def tokens(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch token dim"]:
        """Normalised tokens behind the blocks, in the order of `embed`."""
        x = self.embed(images)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch dim"]:
        """The class token, normalised: the official model's output."""
        return self.tokens(images)[:, 0]
