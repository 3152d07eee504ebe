"""The part of a block that a token does by itself, after attention: projection, norms, MLP.

A part of the tokens at a time, so that their hidden layer stays in a core's cache, and neither it
nor what the norms give is ever whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from tenfold.core.log import cpu_name

HIDDEN_BYTES = 1 << 22
"""Size of the part of an MLP's hidden layer that is worked on at once: about a core's cache."""
EPS = 1e-5
"""Of every LayerNorm (the official ONNX files)."""
ONEDNN = "AMD" in cpu_name() and torch.backends.cpu.get_cpu_capability() == "AVX512"
"""True if products in float32 are oneDNN's, which uses the vectors of any CPU; torch takes MKL's,
which on AMD's are of an older kind (benchmarks/pangu.py)."""


def finish(
    x: Float[Tensor, "row channel"],
    attended: Float[Tensor, "row channel"],
    factors: tuple[Float[Tensor, "row 1"], Float[Tensor, "row 1"]] | None,
    low: torch.dtype,
    keep: bool,
    weights: Sequence[Tensor],
) -> Float[Tensor, "row channel"]:
    """y = x + LN1(project(attended)), then y + LN2(fc2(GELU(fc1(y)))).

    `factors` are those of DropPath for each norm; products are of type `low`; `keep` if there will
    be a backward pass. `weights`: weight and bias of project, fc1, fc2, and of both norms.
    """
    out: Tensor = _Finish.apply(x, attended, factors, low, keep, *weights)
    return out


class _Finish(torch.autograd.Function):
    """Keeps inputs of linear layers and norms, and that of GELU, whose output is made again."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, attended: Tensor, factors: tuple[Tensor, Tensor] | None,
        low: torch.dtype, keep: bool, *weights: Tensor,
    ) -> Tensor:  # fmt: skip
        wp, bp, w1, b1, w2, b2 = (w.to(low) for w in weights[:6])
        out, parts, kept = torch.empty_like(x), _parts(x, len(w1), low), []
        for part in parts:
            a = linear(attended[part], wp, bp)
            n, *first = _norm(a, *weights[6:8])
            inner = x[part] + (n if factors is None else n * factors[0][part])
            y = inner.to(low)
            hidden = linear(y, w1, b1)
            m = linear(F.gelu(hidden), w2, b2)
            n, *second = _norm(m, *weights[8:])
            torch.add(inner, n if factors is None else n * factors[1][part], out=out[part])
            if keep:
                kept += [a, *first, y, hidden, m, *second]
        ctx.factors, ctx.parts, ctx.low = factors, parts, low
        ctx.save_for_backward(attended, *weights, *kept)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:
        attended, *more = ctx.saved_tensors
        weights, kept, factors, low = more[:10], more[10:], ctx.factors, ctx.low
        wp, _, w1, _, w2, _ = (w.to(low) for w in weights[:6])
        (grad,), made = grads, [torch.zeros_like(w) for w in weights]
        dwp, dw1, dw2 = (torch.zeros_like(w) for w in (wp, w1, w2))
        dx, dattended = torch.empty_like(grad), torch.empty_like(attended)
        for number, part in enumerate(ctx.parts):
            a, *first, y, hidden, m, mean, deviation = kept[8 * number :][:8]
            g = grad[part] if factors is None else grad[part] * factors[1][part]
            dm = _norm_backward(g, m, [mean, deviation], weights[8:], made[8:]).to(low)
            dw2.addmm_(dm.T, F.gelu(hidden))
            dhidden = torch.ops.aten.gelu_backward(linear(dm, w2.T), hidden)
            dw1.addmm_(dhidden.T, y)
            torch.add(grad[part], linear(dhidden, w1.T), out=dx[part])
            g = dx[part] if factors is None else dx[part] * factors[0][part]
            da = _norm_backward(g, a, first, weights[6:8], made[6:8]).to(low)
            dwp.addmm_(da.T, attended[part])
            dattended[part] = linear(da, wp.T)
            for place, gradient in ((1, da), (3, dhidden), (5, dm)):
                made[place] += gradient.sum(0)
        made[0], made[2], made[4] = dwp, dw1, dw2
        return dx, dattended, None, None, None, *made


def linear(x: Tensor, weight: Tensor, shift: Tensor | None = None) -> Tensor:
    """`x weight^T + shift` of matrices, without a gradient; torch.compile takes its own."""
    usual = not ONEDNN or torch.compiler.is_compiling()
    if not usual and x.dtype == torch.float32 and x.device.type == "cpu":
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, shift, "none", [], "")
        return out
    return x @ weight.T if shift is None else torch.addmm(shift, x, weight.T)


def _norm(x: Tensor, weight: Tensor, shift: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """LayerNorm in float32 or more, and what its backward pass needs."""
    wide = torch.promote_types(weight.dtype, torch.float32)
    x, weight, shift = x.to(wide), weight.to(wide), shift.to(wide)
    return torch.native_layer_norm(x, [len(weight)], weight, shift, EPS)


def _norm_backward(
    grad: Tensor, x: Tensor, stats: list[Tensor], weights: list[Tensor], made: list[Tensor]
) -> Tensor:
    """Gradient of the norm's input; adds those of its weight and shift to `made`."""
    grad, x, weight, shift = (t.to(stats[0].dtype) for t in (grad, x, *weights))
    dx, dweight, dshift = torch.ops.aten.native_layer_norm_backward(
        grad, x, [len(weight)], *stats, weight, shift, [True] * 3
    )
    made[0] += dweight
    made[1] += dshift
    return dx


def _parts(x: Tensor, hidden: int, kind: torch.dtype) -> list[slice]:
    """Rows whose hidden layer stays in a core's cache; on a GPU all at once."""
    step = len(x) if x.is_cuda else max(1, HIDDEN_BYTES // (hidden * kind.itemsize))
    return [slice(a, min(a + step, len(x))) for a in range(0, len(x), step)]
