"""Attention in windows with a bias that depends on the place on the Earth.

The bias is the same for all windows along a circle of latitude, so neither it nor its gradient is
ever expanded over longitude or the batch. Attention matrices exist for a chunk of windows at a
time, which stays in a core's cache; forward and backward make them, and the bias, anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from .windows import Groups, Size

CHUNK_BYTES = {"cpu": 1 << 19, "cuda": 1 << 28}
"""Size of the attention matrices that exist at once: a part of a core's cache, or a small share of
a GPU's memory."""


def position_index(window: Size) -> Int[Tensor, "token token"]:
    """Row of the compact table for (query, key).

    Absolute in level and latitude, relative in longitude (spec sec. 3.5; pseudocode
    `_construct_index`).
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


def compact(table: Float[Tensor, "row type head"], window: Size) -> Tensor:
    """Axes type, head, key level, query level, key row, query row, x' - x + ww - 1."""
    wz, wh, ww = window
    by_type = table.permute(1, 2, 0).unflatten(2, (wz, wz, wh, wh, 2 * ww - 1))
    return by_type.flip(-1)  # so that neighbouring keys are neighbouring entries


def expand(entries: Tensor, window: Size) -> Float[Tensor, "type head token token"]:
    """The bias of every (query, key) from what `compact` gives."""
    wz, wh, ww = window
    out = entries.new_empty(*entries.shape[:2], wz, wh, ww, wz, wh, ww)
    ordered = entries.permute(0, 1, 3, 5, 2, 4, 6)
    for x in range(ww):
        out[:, :, :, :, x] = ordered[..., ww - 1 - x : 2 * ww - 1 - x]
    return out.view(*entries.shape[:2], wz * wh * ww, wz * wh * ww)


def gather_gradient(grad: Float[Tensor, "type head token token"], window: Size) -> Tensor:
    """The transpose of `expand`: adds diagonals instead of scattering pair by pair."""
    wz, wh, ww = window
    parts = grad.view(*grad.shape[:2], wz, wh, ww, wz, wh, ww)
    entries = grad.new_zeros(*grad.shape[:2], wz, wz, wh, wh, 2 * ww - 1)
    ordered = entries.permute(0, 1, 3, 5, 2, 4, 6)
    for x in range(ww):
        ordered[..., ww - 1 - x : 2 * ww - 1 - x] += parts[:, :, :, :, x]
    return entries


def expand_earth(
    table: Float[Tensor, "row type head"], window: Size
) -> Float[Tensor, "type head token token"]:
    """The Earth-specific bias of every (query, key) from its compact table."""
    return expand(compact(table, window), window)


@dataclass(frozen=True)
class Plan:
    """How attention over windows is computed."""

    groups: Groups
    heads: int
    window: Size | None
    """Window of an Earth-specific table; None if the bias is one for all windows or there is
    none."""
    low: torch.dtype
    """Of matrix products with weights, and of what the backward pass keeps."""

    def inside(self, x: Tensor) -> torch.dtype:
        """Of attention itself: a CPU multiplies such small matrices no faster in bfloat16."""
        return torch.float32 if x.device.type == "cpu" and self.low.itemsize < 4 else self.low

    def chunks(self, x: Tensor) -> Iterator[tuple[slice, list[slice]]]:
        """Groups, and slices of their windows, whose attention matrices fit `CHUNK_BYTES`."""
        groups, windows, tokens = self.groups.rows.shape
        size = self.heads * tokens**2 * max(4, self.low.itemsize)
        fit = max(1, CHUNK_BYTES["cuda" if x.is_cuda else "cpu"] // size)
        many = max(1, fit // windows)
        some = [slice(a, min(a + fit, windows)) for a in range(0, windows, fit)]
        for group in range(0, groups, many):
            yield slice(group, min(group + many, groups)), some

    def bias(self, source: Tensor | None, part: slice) -> Tensor | None:
        """Bias and mask of some groups: (group or 1, head or 1, query, key)."""
        bias = source
        if source is not None and self.window is not None:
            bias = expand(source.index_select(0, self.groups.kinds[part]), self.window)
        if not any(self.groups.masked[part]):
            return bias
        mask = self.groups.masks.index_select(0, self.groups.mask_of[part])[:, None]
        return mask if bias is None else bias + mask.to(bias.dtype)

    def add_gradient(self, dsource: Tensor, part: slice, dbias: Tensor) -> None:
        """Add the gradient of some groups' bias to that of its source."""
        if self.window is None:
            dsource += dbias.sum(0, keepdim=True)
        else:
            entries = gather_gradient(dbias, self.window)
            dsource.index_add_(0, self.groups.kinds[part], entries.to(dsource.dtype))

    def split(self, rows: Tensor, parts: int, kind: torch.dtype) -> Iterable[Tensor]:
        """(window * head, token, channel) of each part; of one window these are views."""
        tokens = self.groups.rows.shape[2]
        cut = rows.to(kind).view(
            -1, tokens, parts, self.heads, rows.shape[1] // parts // self.heads
        )
        return cut.permute(2, 0, 3, 1, 4).flatten(1, 2).unbind(0)


def _scores(q: Tensor, k: Tensor, bias: Tensor | None, shape: tuple[int, ...]) -> Tensor:
    """Scores of a chunk in float32 or more, (group, window, head, query, key)."""
    scores = torch.bmm(q, k.mT)
    scores = (scores.float() if scores.dtype.itemsize < 4 else scores).view(shape)
    return scores if bias is None else scores.add_(bias[:, None])


def _exponential(scores: Tensor, masked: bool) -> Tensor:
    """exp in place; what a mask brings near zero is zero.

    exp(-100) is no normal number of float32, and a CPU multiplies such numbers 50 times slower.
    """
    if not masked:
        return scores.exp_()
    return F.threshold_(scores.clamp_min_(-87.0).exp_(), 2e-38, 0.0)  # exp(-87) = 1.6e-38


class _Attend(torch.autograd.Function):
    """softmax(q k^T / sqrt(d) + bias) v of every token within its window.

    The linear layer that makes q, k, v is part of it, since padding meets only its bias. Keeps its
    input, q, k, v, its output and a normaliser for each token and head.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, shift: Tensor, source: Tensor | None, plan: Plan
    ) -> Tensor:
        groups, kind, channels = plan.groups, plan.inside(x), x.shape[1]
        x = x.to(plan.low)
        qkv = x.new_empty(len(x) + 1, 3 * channels)
        torch.addmm(shift.to(plan.low), x, weight.to(plan.low).T, out=qkv[:-1])
        qkv[-1] = shift  # padding, which is zero before the layer
        count, windows, tokens = groups.rows.shape
        size = channels // plan.heads
        made = x.new_empty(count, windows, tokens, plan.heads, size)
        wide = torch.promote_types(kind, torch.float32)
        norms = x.new_empty(count, windows, plan.heads, tokens, 1, dtype=wide)
        for part, slices in plan.chunks(x):
            bias, masked = plan.bias(source, part), any(groups.masked[part])
            for some in slices:
                rows = groups.rows[part, some]
                shape = (*rows.shape[:2], plan.heads, tokens, tokens)
                q, k, v = plan.split(qkv.index_select(0, rows.flatten()), 3, kind)
                p = _scores(q.mul_(size**-0.5), k, bias, shape)
                top = p.amax(-1, keepdim=True)
                p = _exponential(p.sub_(top), masked)
                total = p.sum(-1, keepdim=True)
                out = torch.bmm(p.to(kind).flatten(0, 2), v).view(*shape[:-1], size)
                made[part, some] = out.div_(total).transpose(2, 3)
                norms[part, some] = total.log_().add_(top)
        out = made.view(-1, channels).index_select(0, groups.back)
        ctx.plan = plan
        ctx.save_for_backward(x, weight, source, qkv, out, norms)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:
        plan: Plan = ctx.plan
        x, weight, source, qkv, out, norms = ctx.saved_tensors
        groups, kind, channels = plan.groups, plan.inside(x), x.shape[1]
        count, windows, tokens = groups.rows.shape
        size = channels // plan.heads
        grad = F.pad(grads[0].to(plan.low), (0, 0, 0, 1))  # the output of padding is not used
        delta = (grad[:-1] * out).view(-1, plan.heads, size).sum(-1, dtype=norms.dtype)
        delta = F.pad(delta, (0, 0, 0, 1))
        made = x.new_empty(count, windows, tokens, 3, plan.heads, size)
        dsource = torch.zeros_like(source) if ctx.needs_input_grad[3] else None
        for part, slices in plan.chunks(x):
            bias, masked = plan.bias(source, part), any(groups.masked[part])
            dbias = None
            for some in slices:
                rows = groups.rows[part, some]
                index, shape = rows.flatten(), (*rows.shape[:2], plan.heads, tokens, tokens)
                q, k, v = plan.split(qkv.index_select(0, index), 3, kind)
                (g,) = plan.split(grad.index_select(0, index), 1, kind)
                (d,) = plan.split(delta.index_select(0, index), 1, delta.dtype)
                p = _scores(q.mul_(size**-0.5), k, bias, shape).sub_(norms[part, some])
                p = _exponential(p, masked).flatten(0, 2)
                ds = torch.bmm(g, v.mT).to(p.dtype).sub_(d).mul_(p)
                dv = torch.bmm(p.to(kind).mT, g)
                if dsource is not None:
                    for one in ds.view(shape).unbind(1):
                        dbias = one.clone() if dbias is None else dbias.add_(one)
                ds = ds.to(kind)
                dq, dk = torch.bmm(ds, k).mul_(size**-0.5), torch.bmm(ds.mT, q)
                for place, gradient in enumerate((dq, dk, dv)):
                    made[part, some, :, place] = gradient.view(*shape[:-1], size).transpose(2, 3)
            if dsource is not None:
                plan.add_gradient(dsource, part, dbias)
        made = made.view(-1, 3 * channels)
        dshift = made.sum(0)  # of every row, padding too
        made = made.index_select(0, groups.back)
        return made @ weight.to(plan.low), made.T @ x, dshift, dsource, None


def attend(
    x: Float[Tensor, "row channel"],
    weight: Float[Tensor, "triple channel"],
    shift: Float[Tensor, " triple"],
    source: Tensor | None,
    plan: Plan,
) -> Float[Tensor, "row channel"]:
    """Attention of every token within its window, before the last linear layer.

    `weight` and `shift` make q, k, v. `source` is what `compact` gives (a `plan` with a window), or
    a bias (1, head, query, key) of all windows, or None.
    """
    out: Tensor = _Attend.apply(x, weight, shift, source, plan)
    return out
