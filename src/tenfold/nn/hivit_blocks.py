"""Blocks of HiViT and iTPN: channel MLPs on units, attention with position bias, merge and split.

A unit is a patch of the picture. Stages before the last hold it as k x k sub-patches and never mix
units, so units that are masked can be left out: tensors are [batch, unit, k, k, channel].
Source: iTPN (arXiv 2211.12735); names of parameters are those of its released code.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .position import relative_index, resize_bias

Bias = Literal["none", "full", "full-cls", "decomposed", "shared", "shared-decoupled"]
"""Relative position bias of the attention blocks: a table a block (iTPN), one that knows of a class
token, ViTDet's decomposed one (official CLIP detection), one table for all blocks, or one table a
direction for all (Fast-iTPN; both know of a class token)."""
Grid = tuple[int, int]


class DropPath(nn.Module):
    """Leave out a residual branch of a sample with some probability (stochastic depth)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Float[Tensor, "batch *rest"]) -> Float[Tensor, "batch *rest"]:
        """Zero some samples in training and scale up the others."""
        if not self.training or not self.rate:
            return x
        shape = (len(x), *[1] * (x.ndim - 1))
        keep = torch.rand(shape, device=x.device) >= self.rate
        return x * (keep / (1 - self.rate)).to(x.dtype)


class Mlp(nn.Module):
    """Two linear layers with GELU between; Fast-iTPN normalises what lies between."""

    def __init__(self, dim: int, hidden: int, sub_norm: bool, eps: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.ffn_ln = nn.LayerNorm(hidden, eps=eps) if sub_norm else nn.Identity()
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Float[Tensor, "*some dim"]) -> Float[Tensor, "*some dim"]:
        """Apply to the last axis; GELU is computed again on the way back, rather than kept.

        It is a quarter of what a block holds for its gradient, and takes a few percent of the time.
        """
        hidden = self.fc1(x)
        if not (torch.is_grad_enabled() and hidden.requires_grad):
            return self._second(hidden)
        found: Tensor = checkpoint(
            self._second, hidden, use_reentrant=False, preserve_rng_state=False
        )
        return found

    def _second(self, hidden: Float[Tensor, "*some hidden"]) -> Float[Tensor, "*some dim"]:
        return self.fc2(self.ffn_ln(F.gelu(hidden)))


class GatedMlp(nn.Module):
    """SwiGLU with a norm before the last layer (Fast-iTPN)."""

    def __init__(self, dim: int, hidden: int, sub_norm: bool, eps: float) -> None:
        super().__init__()
        self.w1 = nn.Linear(dim, hidden)
        self.w2 = nn.Linear(dim, hidden)
        self.ffn_ln = nn.LayerNorm(hidden, eps=eps) if sub_norm else nn.Identity()
        self.w3 = nn.Linear(hidden, dim)

    def forward(self, x: Float[Tensor, "*some dim"]) -> Float[Tensor, "*some dim"]:
        """Apply to the last axis."""
        return self.w3(self.ffn_ln(F.silu(self.w1(x)) * self.w2(x)))


def attend(
    q: Float[Tensor, "batch head token width"],
    k: Float[Tensor, "batch head key width"],
    v: Float[Tensor, "batch head key width"],
    mask: Tensor | None,
) -> Float[Tensor, "batch head token width"]:
    """torch's attention; in bf16 training on a CPU by matrix products, whose gradient is faster.

    There the backward pass of torch's fused kernel takes several times as long (measured with 49
    to 196 tokens). Softmax sums in float32 in both; here its result is rounded to bf16.
    """
    if q.device.type != "cpu" or q.dtype != torch.bfloat16 or not torch.is_grad_enabled():
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    scores = scores if mask is None else scores + mask
    return scores.softmax(-1) @ v


class Attention(nn.Module):
    """Multi-head self-attention over tokens with an additive position bias."""

    def __init__(self, dim: int, num_heads: int, bias: Bias, grid: Grid, separate: bool) -> None:
        super().__init__()
        self.num_heads, self.grid, self.separate = num_heads, grid, separate
        if separate:  # Fast-iTPN: no bias on keys, which softmax cannot see anyway
            self.q_proj = nn.Linear(dim, dim, bias=False)
            self.k_proj = nn.Linear(dim, dim, bias=False)
            self.v_proj = nn.Linear(dim, dim, bias=False)
            self.q_bias = nn.Parameter(torch.zeros(dim))
            self.v_bias = nn.Parameter(torch.zeros(dim))
        else:
            self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        if bias in ("full", "full-cls"):
            rows = (2 * grid[0] - 1) * (2 * grid[1] - 1) + (3 if bias == "full-cls" else 0)
            self.relative_position_bias_table = nn.Parameter(torch.zeros(rows, num_heads))
        elif bias == "decomposed":
            width = dim // num_heads
            self.rel_pos_h = nn.Parameter(torch.zeros(2 * grid[0] - 1, width))
            self.rel_pos_w = nn.Parameter(torch.zeros(2 * grid[1] - 1, width))
            nn.init.trunc_normal_(self.rel_pos_h, std=0.02)
            nn.init.trunc_normal_(self.rel_pos_w, std=0.02)
        self.bias = bias

    def forward(
        self, x: Float[Tensor, "batch token dim"], index: Tensor | None, shared: Tensor | None,
        grid: Grid,
    ) -> Float[Tensor, "batch token dim"]:  # fmt: skip
        """Attend; `index` holds rows of the bias table [.. token token], `shared` a ready bias.

        A block with a table but without an index has no bias (official CLIP branch, rpe off).
        """
        batch, tokens, dim = x.shape
        if self.separate:
            weight = torch.cat([self.q_proj.weight, self.k_proj.weight, self.v_proj.weight])
            bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
            qkv = F.linear(x, weight, bias)
        else:
            qkv = self.qkv(x)
        q, k, v = qkv.view(batch, tokens, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4).unbind()
        if self.bias in ("full", "full-cls") and index is not None:
            shared = self._table(grid)[index].movedim(-1, -3)
            shared = shared if shared.ndim == 4 else shared[None]
        elif self.bias == "decomposed":
            shared = self._decomposed(q, grid)
        mask = None if shared is None else shared.to(q.dtype)
        x = attend(q, k, v, mask)
        return self.proj(x.transpose(1, 2).reshape(batch, tokens, dim))

    def _table(self, grid: Grid) -> Tensor:
        """The bias table for this grid."""
        return table_for(self.relative_position_bias_table, self.grid, grid)

    def _decomposed(self, q: Tensor, grid: Grid) -> Tensor:
        """ViTDet's bias: queries times a vector a row distance, and a vector a column distance.

        Unlike ViTDet's paper the official code takes queries before they are scaled.
        """
        batch, heads, _, width = q.shape
        rows = _distances(self.rel_pos_h, grid[0]).to(q.dtype)
        columns = _distances(self.rel_pos_w, grid[1]).to(q.dtype)
        q = q.reshape(batch, heads, *grid, width)
        of_rows = torch.einsum("bhyxc,ykc->bhyxk", q, rows)
        of_columns = torch.einsum("bhyxc,xkc->bhyxk", q, columns)
        found = of_rows[..., :, None] + of_columns[..., None, :]
        return found.reshape(batch, heads, grid[0] * grid[1], grid[0] * grid[1])


def table_for(table: Tensor, given: Grid, wanted: Grid) -> Tensor:
    """A bias table, resized if it is stored for another grid; rows of a class token stay."""
    if given == wanted:
        return table
    rows = (2 * given[0] - 1) * (2 * given[1] - 1)
    return torch.cat([resize_bias(table[:rows], given, wanted), table[rows:]])


def _distances(table: Tensor, size: int) -> Tensor:
    """Vectors by query and key position [size, size, width]; a table of another size is resized."""
    wanted = 2 * size - 1
    if len(table) != wanted:
        table = F.interpolate(table.T[None], size=wanted, mode="linear")[0].T
    at = torch.arange(size, device=table.device)
    return table[at[:, None] - at[None, :] + size - 1]


class SharedBias(nn.Module):
    """One position bias for all blocks, of patch tokens behind a class token (Fast-iTPN)."""

    def __init__(self, num_heads: int, grid: Grid, decoupled: bool) -> None:
        super().__init__()
        self.grid, self.decoupled = grid, decoupled
        if decoupled:
            table = nn.Parameter(torch.zeros(2 * grid[0] + 2, num_heads))
            self.relative_position_bias_for_high = table
            table = nn.Parameter(torch.zeros(2 * grid[1] + 2, num_heads))
            self.relative_position_bias_for_width = table
        else:
            rows = (2 * grid[0] - 1) * (2 * grid[1] - 1) + 3
            self.relative_position_bias_table = nn.Parameter(torch.zeros(rows, num_heads))

    def forward(self, index: Tensor, grid: Grid) -> Tensor:
        """The bias [1, head, token, token]; `index` is of `with_class` for one common table.

        Tables that are stored for another grid are resized (ours: the official code refuses).
        """
        if not self.decoupled:
            table = table_for(self.relative_position_bias_table, self.grid, grid)
            return table[index].movedim(-1, 0)[None]
        height, width = grid
        device = index.device
        y = torch.arange(height, device=device).repeat_interleave(width)
        x = torch.arange(width, device=device).repeat(height)
        # the official code takes key minus query here, unlike everywhere else
        rows = with_class(y[None, :] - y[:, None] + height - 1, 2 * height - 1)
        columns = with_class(x[None, :] - x[:, None] + width - 1, 2 * width - 1)
        high, wide = self.relative_position_bias_for_high, self.relative_position_bias_for_width
        found = _line_for(high, height)[rows] + _line_for(wide, width)[columns]
        return found.movedim(-1, 0)[None]


def _line_for(table: Tensor, side: int) -> Tensor:
    """A table of distances along one side, resized; the three rows of a class token stay."""
    if len(table) == 2 * side + 2:
        return table
    own = F.interpolate(table[:-3].T[None], size=2 * side - 1, mode="linear")[0].T
    return torch.cat([own, table[-3:]])


def with_class(index: Tensor, rows: int) -> Tensor:
    """An index [token, token] with a class token before: its three cases are the rows behind."""
    found = index.new_empty(len(index) + 1, len(index) + 1)
    found[1:, 1:] = index
    found[0, :], found[:, 0], found[0, 0] = rows, rows + 1, rows + 2
    return found


def bias_index(bias: Bias, grid: Grid, device: torch.device) -> Tensor | None:
    """Rows of the bias table for each pair of tokens, or None where there is none."""
    if bias in ("none", "decomposed"):
        return None
    index = relative_index(*grid).to(device)
    if bias == "full":
        return index
    return with_class(index, (2 * grid[0] - 1) * (2 * grid[1] - 1))


class Block(nn.Module):
    """A pre-norm residual block: attention if there are heads, then an MLP.

    layer_scale: initial factor of each branch's channels; 0 has none.
    """

    def __init__(
        self, dim: int, hidden: int, *, num_heads: int = 0, bias: Bias = "none",
        grid: Grid = (0, 0), layer_scale: float = 0.0, drop_path: float = 0.0, gated: bool = False,
        sub_norm: bool = False, eps: float = 1e-6,
    ) -> None:  # fmt: skip
        super().__init__()
        self.attn: Attention | None = None
        if num_heads:
            self.norm1 = nn.LayerNorm(dim, eps=eps)
            self.attn = Attention(dim, num_heads, bias, grid, sub_norm)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = (GatedMlp if gated else Mlp)(dim, hidden, sub_norm, eps)
        self.drop_path = DropPath(drop_path)
        self.gamma_1 = self.gamma_2 = None
        if layer_scale:
            self.gamma_2 = nn.Parameter(torch.full((dim,), layer_scale))
            if num_heads:
                self.gamma_1 = nn.Parameter(torch.full((dim,), layer_scale))

    def forward(
        self, x: Float[Tensor, "batch *some dim"], index: Tensor | None = None,
        shared: Tensor | None = None, grid: Grid = (0, 0),
    ) -> Float[Tensor, "batch *some dim"]:  # fmt: skip
        """Add both branches; the last three arguments are attention's."""
        if self.attn is not None:
            branch = self.attn(self.norm1(x), index, shared, grid)
            x = x + self.drop_path(branch if self.gamma_1 is None else self.gamma_1 * branch)
        branch = self.mlp(self.norm2(x))
        return x + self.drop_path(branch if self.gamma_2 is None else self.gamma_2 * branch)


class PatchEmbed(nn.Module):
    """A convolution of non-overlapping patches, grouped by units; norm as the family has it."""

    def __init__(self, dim: int, patch_size: int, has_norm: bool, eps: float) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, patch_size // 4, patch_size // 4)
        self.norm = nn.LayerNorm(dim, eps=eps) if has_norm else nn.Identity()

    def forward(
        self, images: Float[Tensor, "batch 3 height width"], kept: Tensor | None = None
    ) -> Float[Tensor, "batch unit 4 4 dim"]:
        """Units are in row-major order, and so are the sub-patches of each.

        The convolution is a matrix product, so that it needs the pixels of `kept` units only.
        """
        side = 4 * self.proj.kernel_size[0]
        batch, _, height, width = images.shape
        x = images.view(batch, 3, height // side, side, width // side, side)
        x = x.permute(0, 2, 4, 1, 3, 5).reshape(batch, -1, 3 * side * side)
        if kept is not None:
            x = x.gather(1, kept[..., None].expand(-1, -1, x.shape[2]))
        x = x.view(batch, -1, 3, 4, side // 4, 4, side // 4).permute(0, 1, 3, 5, 2, 4, 6)
        return self.norm(F.linear(x.flatten(4), self.proj.weight.flatten(1), self.proj.bias))


class PatchMerge(nn.Module):
    """Join 2 x 2 sub-patches into one of twice the channels; in the order that files have."""

    def __init__(self, dim: int, conv: bool, eps: float) -> None:
        super().__init__()
        self.conv = conv
        """Fast-iTPN's convolution: the norm comes before the sub-patches are joined."""
        self.norm = nn.LayerNorm(dim if conv else 4 * dim, eps=eps)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=conv)

    def forward(
        self, x: Float[Tensor, "batch unit side side dim"]
    ) -> Float[Tensor, "batch unit half half wide"]:
        """Halve both sides."""
        x = self.norm(x) if self.conv else x
        batch, units, side, _, dim = x.shape
        x = x.view(batch, units, side // 2, 2, side // 2, 2, dim)
        # the row varies first: (even, even), (odd, even), (even, odd), (odd, odd)
        x = x.permute(0, 1, 2, 4, 5, 3, 6).reshape(batch, units, side // 2, side // 2, 4 * dim)
        return self.reduction(x if self.conv else self.norm(x))


class PatchSplit(nn.Module):
    """Split each sub-patch into 2 x 2 of `out` channels: the way down the pyramid."""

    def __init__(self, dim: int, out: int, eps: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=eps)
        self.reduction = nn.Linear(dim, 4 * out, bias=False)

    def forward(
        self, x: Float[Tensor, "batch unit side side dim"]
    ) -> Float[Tensor, "batch unit double double out"]:
        """Double both sides; channels of the linear layer are (row, column, out)."""
        x = self.reduction(self.norm(x))
        batch, units, side, _, wide = x.shape
        x = x.view(batch, units, side, side, 2, 2, wide // 4).permute(0, 1, 2, 4, 3, 5, 6)
        return x.reshape(batch, units, 2 * side, 2 * side, wide // 4)
