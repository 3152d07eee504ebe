"""Attention in windows with a bias that depends on the place on the Earth.

The bias is the same for all windows along a circle of latitude, so neither it nor its gradient is
ever expanded over longitude or the batch. Attention matrices exist for a chunk of windows at a
time, which stays in a core's cache; forward and backward make them, and the bias, anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from tenfold.nn.kept import kept

from .tokenwise import linear
from .windows import Group, Order, Size

CHUNK_BYTES = {"cpu": 1 << 20, "cuda": 1 << 28}
"""Size of the attention matrices that exist at once: a part of a core's cache, or a small share of
a GPU's memory."""
TILES = torch.cpu._is_amx_tile_supported()
"""True if the CPU multiplies small matrices, too, faster in bfloat16 than in float32."""


def position_index(window: Size) -> Int[Tensor, "token token"]:
    """Row of the compact table for (query, key).

    Absolute in level and latitude, relative in longitude (pseudocode, `_construct_index`).
    """
    wz, wh, ww = window
    z, h, x = (a.flatten() for a in torch.meshgrid(*map(torch.arange, window), indexing="ij"))
    level = z[:, None] + wz * z[None]
    row = h[:, None] + wh * h[None]
    return (level * wh**2 + row) * (2 * ww - 1) + x[:, None] - x[None] + ww - 1


def relative_index(window: Size) -> Int[Tensor, "token token"]:
    """Row of a table that is relative along all three axes, as in a Swin transformer."""
    wz, wh, ww = window
    places = torch.stack(torch.meshgrid(*map(torch.arange, window), indexing="ij")).flatten(1)
    apart = places[:, :, None] - places[:, None, :] + torch.tensor([wz, wh, ww])[:, None, None] - 1
    return (apart[0] * (2 * wh - 1) + apart[1]) * (2 * ww - 1) + apart[2]


@kept(32)
def pair_index(kind: str, window: Size, device: torch.device) -> Int[Tensor, "token token"]:
    """Row of the table of an "earth" or a "relative" bias for (query, key); made once, kept."""
    with torch.inference_mode(False), torch.device("cpu"):
        index = relative_index(window) if kind == "relative" else position_index(window)
        return index.to(device)


@dataclass(frozen=True)
class Plan:
    """Plan of attention over windows: order of tokens, heads, bias, precision."""

    order: Order
    heads: int
    index: Int[Tensor, "token token"]
    """Row of the bias's table for (query, key)."""
    low: torch.dtype
    """Of matrix products with weights, and of what the backward pass keeps."""

    def entries(self, group: Group) -> Int[Tensor, "query token"]:
        """Rows of the table that a group needs, padding as the last keys."""
        if group.keys is None:
            return self.index
        return self.index[group.keys[: group.size]].index_select(1, group.keys)

    def bias(self, table: Tensor | None, group: Group) -> Float[Tensor, "head query token"] | None:
        """Bias and mask of a group of windows."""
        if table is None:
            return None if group.mask is None else group.mask.expand(self.heads, -1, -1)
        entries = self.entries(group)
        bias = table[group.kind % len(table)]  # a relative bias has one type
        bias = bias.index_select(1, entries.flatten()).view(self.heads, *entries.shape)
        return bias if group.mask is None else bias.add_(group.mask)

    def add_gradient(self, dtable: Tensor, group: Group, dbias: Tensor) -> None:
        """Add the gradient of a group's bias to that of the table."""
        part = dtable[group.kind % len(dtable)]
        part.index_add_(1, self.entries(group).flatten(), dbias.flatten(1).to(part.dtype))

    def scaled(self, x: Tensor) -> Tensor:
        """Weights, shifts or gradients of q, k, v, with q's divided by sqrt(d)."""
        channels = len(x) // 3
        return torch.cat([x[:channels] * (channels // self.heads) ** -0.5, x[channels:]])

    def windows(self, group: Group, shift: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q, k, v (window, head, token, channel) of a group's tokens; padding holds the shift."""
        cut = rows.view(-1, group.size, 3, self.heads, len(shift) // 3 // self.heads)
        q, k, v = cut.permute(2, 0, 3, 1, 4).unbind(0)
        if group.keys is None:
            return q, k, v
        padding = shift.to(rows.dtype).view(1, 1, *cut.shape[2:])[:, :, 1:]
        padding = padding.expand(len(cut), len(self.index) - group.size, -1, -1, -1)
        k, v = torch.cat([cut[:, :, 1:], padding], 1).permute(2, 0, 3, 1, 4).unbind(0)
        return q, k, v


def _slices(group: Group, x: Tensor, each: int) -> list[slice]:
    """Rows of as many windows of a group as take `CHUNK_BYTES`, if one takes `each`."""
    limit = CHUNK_BYTES["cuda" if x.is_cuda else "cpu"]
    step, stop = max(1, limit // each) * group.size, group.first + group.count * group.size
    return [slice(a, min(a + step, stop)) for a in range(group.first, stop, step)]


def _attention(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None
) -> tuple[Float[Tensor, "window head query channel"], Float[Tensor, "window head query"]]:
    """softmax(q k^T + bias) v, and the logarithm of what softmax divides by."""
    # torch's kernel would read a float32 mask of float64 queries as float64.
    mask = None if bias is None else bias.to(torch.promote_types(q.dtype, torch.float32))[None]
    if q.device.type == "cpu":
        flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        out, norm = flash(q, k, v, attn_mask=mask, scale=1.0)
        return out, norm
    scores = q @ k.mT
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    scores = scores if mask is None else scores + mask
    norm = scores.logsumexp(-1)
    return scores.sub_(norm[..., None]).exp_().to(v.dtype) @ v, norm


def _exponential(scores: Tensor, masked: bool) -> Tensor:
    """exp in place; what a mask brings near zero is zero.

    exp(-100) is no normal number of float32, and a CPU multiplies such numbers 50 times slower.
    """
    if not masked:
        return scores.exp_()
    scores = scores.clamp_min_(-87.0).exp_()  # exp(-87) = 1.6e-38
    return F.threshold(scores, 2e-38, 0.0, inplace=True)


def _attention_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, norm: Tensor,
    delta: Tensor, masked: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of q, k, v and of the scores; `delta` is the sum of output times its gradient."""
    shape = *q.shape[:3], k.shape[2]
    grad, q, k, v = (t.flatten(0, 1) for t in (grad, q, k, v))
    p = torch.bmm(q, k.mT).to(norm.dtype).view(shape)
    p = (p if bias is None else p.add_(bias)).sub_(norm[..., None])
    p = _exponential(p, masked)
    ds = torch.bmm(grad, v.mT).to(norm.dtype).view(shape).sub_(delta[..., None]).mul_(p)
    p, low = p.to(v.dtype).flatten(0, 1), ds.to(v.dtype).flatten(0, 1)
    made = torch.bmm(low, k), torch.bmm(low.mT, q), torch.bmm(p.mT, grad)
    dq, dk, dv = (t.unflatten(0, shape[:2]) for t in made)
    return dq, dk, dv, ds


class _Attend(torch.autograd.Function):
    """Attention of every token within its window, from the input of the layer that makes q, k, v.

    That layer is part of it, since padding meets only its shift. Keeps its input, q, k, v, its
    output and a normaliser for each token and head.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, shift: Tensor, table: Tensor | None, plan: Plan
    ) -> Tensor:
        x, kind = x.to(plan.low), plan.low
        if x.device.type == "cpu" and not TILES:
            kind = torch.promote_types(kind, torch.float32)
        weight, shift = (plan.scaled(t).to(plan.low) for t in (weight, shift))
        qkv = linear(x, weight, shift)
        out = torch.empty_like(x)
        norms = x.new_empty(len(x), plan.heads, dtype=torch.promote_types(plan.low, torch.float32))
        for group in plan.order.groups:
            bias = plan.bias(table, group)
            for part in _slices(group, x, group.size * qkv[0].nbytes):
                q, k, v = plan.windows(group, shift, qkv[part].to(kind))
                made, norm = _attention(q, k, v, bias)
                made = made.transpose(1, 2)
                out[part].view(made.shape).copy_(made)
                norms[part].view(norm.shape).copy_(norm)
        ctx.plan = plan
        ctx.save_for_backward(x, weight, shift, table, qkv, out, norms)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:
        plan: Plan = ctx.plan
        x, weight, shift, table, qkv, out, norms = ctx.saved_tensors
        heads, tokens = plan.heads, len(plan.index)
        # A CPU multiplies such small matrices no faster in bfloat16.
        kind = norms.dtype if x.device.type == "cpu" else plan.low
        grad = grads[0].to(plan.low)
        dqkv = torch.empty_like(qkv)
        dtable = torch.zeros_like(table) if ctx.needs_input_grad[3] else None
        for group in plan.order.groups:
            bias, dbias, size = plan.bias(table, group), None, group.size
            for part in _slices(group, x, heads * size * tokens * norms.itemsize):
                q, k, v = plan.windows(group, shift, qkv[part].to(kind))
                g = grad[part].to(kind).view(-1, size, heads, q.shape[-1])
                d = (g * out[part].view(g.shape)).sum(-1, dtype=norms.dtype).transpose(1, 2)
                g = g.transpose(1, 2)
                norm = norms[part].view(-1, heads, size)
                masked = group.mask is not None
                dq, *more, ds = _attention_backward(g, q, k, v, bias, norm, d, masked)
                if dtable is not None:
                    for one in ds:
                        dbias = one if dbias is None else dbias.add_(one)
                into = dqkv[part].view(-1, size, 3, heads, q.shape[-1])
                for place, gradient in enumerate((dq, *more)):
                    into[:, :, place] = gradient[:, :, :size].transpose(1, 2)
            if dtable is not None and dbias is not None:
                plan.add_gradient(dtable, group, dbias)
        # Rows of probabilities sum to 1: k's shift has no gradient, v's has the output's.
        channels = x.shape[1]
        dshift = dqkv[:, :channels].sum(0), grad.new_zeros(channels), grad.sum(0)
        dweight = plan.scaled(dqkv.T @ x)
        return linear(dqkv, weight.T), dweight, plan.scaled(torch.cat(dshift)), dtable, None


def attend(
    x: Float[Tensor, "row channel"],
    weight: Float[Tensor, "triple channel"],
    shift: Float[Tensor, " triple"],
    table: Float[Tensor, "type head entry"] | None,
    plan: Plan,
) -> Float[Tensor, "row channel"]:
    """Attention of every token within its window, before the last linear layer.

    Tokens are in the order of windows. `weight` and `shift` make q, k, v.
    """
    out: Tensor = _Attend.apply(x, weight, shift, table, plan)
    return out


class _Permuted(torch.autograd.Function):
    """Rows in another order; backward reads by the inverse instead of adding row by row."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: Tensor, back: Tensor) -> Tensor:
        ctx.save_for_backward(back)
        return x.index_select(0, rows)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return grads[0].index_select(0, *ctx.saved_tensors), None, None


def permuted(
    x: Float[Tensor, "row channel"], rows: Int[Tensor, " row"], back: Int[Tensor, " row"]
) -> Float[Tensor, "row channel"]:
    """`x[rows]` of a permutation `rows`, whose inverse is `back`."""
    out: Tensor = _Permuted.apply(x, rows, back)
    return out
