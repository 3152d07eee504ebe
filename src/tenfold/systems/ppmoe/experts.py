"""The feed-forward networks of the experts that a process holds, run on tokens sorted by expert."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from .config import Model


class _Networks(torch.autograd.Function):
    """fc2(GELU(fc1(x))) of each expert on its rows, one expert after another.

    What lies between an expert's two products is then still in the cache, forward and backward;
    and autograd of a plain loop would make a zero gradient of all experts for each one.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, counts: list[int],
        approximate: str,
    ) -> Tensor:  # fmt: skip
        keeps = any(ctx.needs_input_grad)
        y, z = x.new_empty(len(x), w2.shape[1]), x.new_empty(len(x), w1.shape[1])
        inner = torch.empty_like(z) if keeps else z
        parts = zip(
            *(t.split(counts) for t in (x, z, inner, y)),
            *(t.unbind() for t in (w1.mT, b1, w2.mT, b2)), strict=True,
        )  # fmt: skip
        for rows, before, after, out, w1_e, b1_e, w2_e, b2_e in parts:
            if len(rows):
                torch.addmm(b1_e, rows, w1_e, out=before)
                torch.ops.aten.gelu.out(before, approximate=approximate, out=after)
                torch.addmm(b2_e, after, w2_e, out=out)
        if keeps:
            ctx.save_for_backward(x, w1, w2, z, inner)
            ctx.counts, ctx.approximate = counts, approximate
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, w1, w2, z, inner = ctx.saved_tensors
        counts, grad = ctx.counts, grad.contiguous()
        made = [torch.empty_like(t) for t in (x, w1, w1[:, :, 0], w2, w2[:, :, 0])]
        grad_x, grad_w1, grad_b1, grad_w2, grad_b2 = made
        room = z.new_empty(max(counts), z.shape[1])  # used by all in turn
        parts = zip(
            *(t.split(counts) for t in (grad, x, z, inner, grad_x)),
            *(t.unbind() for t in (w1, w2, grad_w1, grad_b1, grad_w2, grad_b2)), strict=True,
        )  # fmt: skip
        for grad_e, rows, before, after, gx, w1_e, w2_e, gw1, gb1, gw2, gb2 in parts:
            # no rows: the products and sums are zeros
            torch.mm(grad_e.t(), after, out=gw2)
            torch.sum(grad_e, 0, out=gb2)
            back = torch.mm(grad_e, w2_e, out=room[: len(rows)])
            torch.ops.aten.gelu_backward.grad_input(
                back, before, approximate=ctx.approximate, grad_input=back
            )
            torch.mm(back.t(), rows, out=gw1)
            torch.sum(back, 0, out=gb1)
            torch.mm(back, w1_e, out=gx)
        return *made, None, None


class _GatedNetworks(torch.autograd.Function):
    """fc2(silu(gate) * up) of each expert on its rows; gate and up are one product's halves.

    Kept for backward is that product; what follows from it number by number is made again.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, w1: Tensor, w2: Tensor, counts: list[int]) -> Tensor:
        y, inner = x.new_empty(len(x), w2.shape[1]), x.new_empty(len(x), w1.shape[1])
        parts = zip(
            *(t.split(counts) for t in (x, inner, y)), w1.mT.unbind(), w2.mT.unbind(), strict=True
        )
        for rows, before, out, w1_e, w2_e in parts:
            if len(rows):
                torch.mm(rows, w1_e, out=before)
                gate, up = before.chunk(2, 1)
                torch.mm(F.silu(gate) * up, w2_e, out=out)
        ctx.save_for_backward(x, w1, w2, inner)
        ctx.counts = counts
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, w1, w2, inner = ctx.saved_tensors
        counts, grad = ctx.counts, grad.contiguous()
        made = [torch.empty_like(t) for t in (x, w1, w2)]
        grad_x, grad_w1, grad_w2 = made
        parts = zip(
            *(t.split(counts) for t in (grad, x, inner, grad_x)),
            *(t.unbind() for t in (w1, w2, grad_w1, grad_w2)), strict=True,
        )  # fmt: skip
        for grad_e, rows, before, gx, w1_e, w2_e, gw1, gw2 in parts:
            gate, up = before.chunk(2, 1)
            sigmoid = gate.sigmoid()
            silu = gate * sigmoid
            torch.mm(grad_e.t(), silu * up, out=gw2)
            back = torch.mm(grad_e, w2_e)
            # silu' = sigmoid (1 + gate (1 - sigmoid))
            of_gate = back * up * (sigmoid * (1 + gate * (1 - sigmoid)))
            both = torch.cat([of_gate, back * silu], 1)
            torch.mm(both.t(), rows, out=gw1)
            torch.mm(both, w1_e, out=gx)
        return *made, None


def can_group(x: Tensor, weight: Tensor) -> bool:
    """True if `grouped_mm` takes these: a GPU, a float type it knows, strides of 16 bytes.

    On a CPU it is no faster than one product an expert, which also adds the bias on the way.
    """
    aligned = all(size * x.element_size() % 16 == 0 for size in weight.shape[1:])
    return x.is_cuda and aligned and x.dtype in (torch.bfloat16, torch.float16, torch.float32)


def grouped_linear(
    x: Float[Tensor, "row in"],
    weight: Float[Tensor, "expert out in"],
    counts: Int64[Tensor, " expert"],
    bias: Float[Tensor, "expert out"] | None = None,
) -> Float[Tensor, "row out"]:
    """One linear map an expert on rows sorted by expert; `counts` are the rows of each."""
    ends = counts.cumsum(0).to(torch.int32)
    y = F.grouped_mm(x, weight.transpose(1, 2), offs=ends)
    if bias is None:
        return y
    which = torch.repeat_interleave(
        torch.arange(len(weight), device=x.device), counts, output_size=len(x)
    )
    return y + bias[which]


class Experts(nn.Module):
    """`count` whole feed-forward networks; keys and shapes as in the checkpoint, cut along E."""

    def __init__(self, cfg: Model, count: int) -> None:
        super().__init__()
        inner = cfg.expert_inner
        self.approximate = "tanh" if cfg.activation == "tanh" else "none"
        self.is_gated = cfg.activation == "swiglu"
        self.is_recomputed = cfg.recompute
        if self.is_gated:
            self.gate_up_weight = nn.Parameter(torch.empty(count, 2 * inner, cfg.hidden))
        else:
            self.fc1_weight = nn.Parameter(torch.empty(count, inner, cfg.hidden))
            self.fc1_bias = nn.Parameter(torch.empty(count, inner))
            self.fc2_bias = nn.Parameter(torch.empty(count, cfg.hidden))
        self.fc2_weight = nn.Parameter(torch.empty(count, cfg.hidden, inner))

    def forward(
        self, x: Float[Tensor, "row hidden"], counts: Int64[Tensor, " expert"]
    ) -> Float[Tensor, "row hidden"]:
        """fc2(GELU(fc1(x))), or fc2(silu(gate) * up), by each row's expert; no rows are fine."""
        own: Sequence[Tensor]
        if self.is_gated:
            own = [self.gate_up_weight, self.fc2_weight]
        else:
            own = [self.fc1_weight, self.fc1_bias, self.fc2_weight, self.fc2_bias]
        run = self._gated if self.is_gated else self._run
        if not torch.is_autocast_enabled(x.device.type):
            return run(x, own, counts)
        kind = torch.get_autocast_dtype(x.device.type)
        cast = [p.to(kind) for p in own]
        # what is computed again keeps nothing: hooks of ours would hide it from torch's checkpoint
        with nullcontext() if self.is_recomputed else cast_again(own, cast):
            return run(x.to(kind), cast, counts)

    def _run(
        self, x: Float[Tensor, "row hidden"], weights: Sequence[Tensor], counts: Int64[Tensor, " e"]
    ) -> Float[Tensor, "row hidden"]:
        w1, b1, w2, b2 = weights
        if not can_group(x, w1):
            return _Networks.apply(x, w1, b1, w2, b2, counts.tolist(), self.approximate)
        inner = F.gelu(grouped_linear(x, w1, counts, b1), approximate=self.approximate)
        return grouped_linear(inner, w2, counts, b2)

    def _gated(
        self, x: Float[Tensor, "row hidden"], weights: Sequence[Tensor], counts: Int64[Tensor, " e"]
    ) -> Float[Tensor, "row hidden"]:
        w1, w2 = weights
        if not can_group(x, w1):
            return _GatedNetworks.apply(x, w1, w2, counts.tolist())
        gate, up = grouped_linear(x, w1, counts).chunk(2, 1)
        return grouped_linear(F.silu(gate) * up, w2, counts)


def cast_again(own: Sequence[Tensor], cast: Sequence[Tensor]) -> saved_tensors_hooks:
    """Keep for backward no rounded copies of weights, but the weights, which are rounded again.

    A pipeline has as many micro-batches in flight as stages; each would keep a copy of all its
    experts.

    Args:
        own: The weights.
        cast: The same ones in the type in which the products are made.
    """
    of_cast = {
        copy.untyped_storage().data_ptr(): weight
        for weight, copy in zip(own, cast, strict=True)
        if copy is not weight
    }

    def pack(saved: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor] | None]:
        weight = of_cast.get(saved.untyped_storage().data_ptr())
        if weight is None:
            return saved, None
        view, kind = (saved.size(), saved.stride(), saved.storage_offset()), saved.dtype
        return weight.detach(), lambda weight: weight.to(kind).as_strided(*view)

    def unpack(packed: tuple[Tensor, Callable[[Tensor], Tensor] | None]) -> Tensor:
        saved, again = packed
        return saved if again is None else again(saved)

    return saved_tensors_hooks(pack, unpack)
