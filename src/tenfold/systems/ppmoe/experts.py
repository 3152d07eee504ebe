"""The feed-forward networks of the experts that a process holds, run on tokens sorted by expert."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from .config import Model


class _Segments(torch.autograd.Function):
    """y[rows of e] = x[rows of e] @ weight[e].T + bias[e], an expert at a time.

    Written out because autograd of a plain loop makes a zero gradient of all experts for each one.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, counts: list[int]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.counts = counts
        y = x.new_empty(len(x), weight.shape[1])
        for e, rows in _rows(counts):
            torch.addmm(bias[e], x[rows], weight[e].t(), out=y[rows])
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight = ctx.saved_tensors
        grad = grad.contiguous()
        grad_x, grad_weight = torch.empty_like(x), torch.empty_like(weight)
        grad_bias = grad.new_empty(weight.shape[:2])
        for e, rows in _rows(ctx.counts, with_empty=True):
            torch.mm(grad[rows], weight[e], out=grad_x[rows])
            torch.mm(grad[rows].t(), x[rows], out=grad_weight[e])
            torch.sum(grad[rows], 0, out=grad_bias[e])
        return grad_x, grad_weight, grad_bias, None


def _rows(counts: list[int], with_empty: bool = False) -> list[tuple[int, slice]]:
    """(expert, its rows) of tokens sorted by expert."""
    found, start = [], 0
    for e, count in enumerate(counts):
        if count or with_empty:
            found.append((e, slice(start, start + count)))
        start += count
    return found


def can_group(x: Tensor, weight: Tensor) -> bool:
    """Whether `grouped_mm` takes these: a GPU, a float type it knows, strides of 16 bytes.

    On a CPU it is no faster than one product an expert, which also adds the bias on the way.
    """
    aligned = all(size * x.element_size() % 16 == 0 for size in weight.shape[1:])
    return x.is_cuda and aligned and x.dtype in (torch.bfloat16, torch.float16, torch.float32)


def expert_linear(
    x: Float[Tensor, "row in"],
    weight: Float[Tensor, "expert out in"],
    bias: Float[Tensor, "expert out"],
    counts: Int64[Tensor, " expert"],
) -> Float[Tensor, "row out"]:
    """One linear map an expert on rows sorted by expert; `counts` are the rows of each."""
    if not can_group(x, weight):
        return _Segments.apply(x, weight, bias, counts.tolist())
    ends = counts.cumsum(0).to(torch.int32)
    y = F.grouped_mm(x, weight.transpose(1, 2), offs=ends)
    which = torch.repeat_interleave(
        torch.arange(len(weight), device=x.device), counts, output_size=len(x)
    )
    return y + bias[which]


class Experts(nn.Module):
    """`count` whole feed-forward networks; keys and shapes as in the checkpoint, cut along E."""

    def __init__(self, cfg: Model, count: int) -> None:
        super().__init__()
        self.approximate = "tanh" if cfg.activation == "tanh" else "none"
        self.fc1_weight = nn.Parameter(torch.empty(count, cfg.inner, cfg.hidden))
        self.fc1_bias = nn.Parameter(torch.empty(count, cfg.inner))
        self.fc2_weight = nn.Parameter(torch.empty(count, cfg.hidden, cfg.inner))
        self.fc2_bias = nn.Parameter(torch.empty(count, cfg.hidden))

    def forward(
        self, x: Float[Tensor, "row hidden"], counts: Int64[Tensor, " expert"]
    ) -> Float[Tensor, "row hidden"]:
        """fc2(GELU(fc1(x))) by each row's expert; no rows at all are fine."""
        parts = [x, self.fc1_weight, self.fc1_bias, self.fc2_weight, self.fc2_bias]
        if torch.is_autocast_enabled(x.device.type):
            kind = torch.get_autocast_dtype(x.device.type)
            parts = [p.to(kind) for p in parts]
        x, w1, b1, w2, b2 = parts
        inner = F.gelu(expert_linear(x, w1, b1, counts), approximate=self.approximate)
        return expert_linear(inner, w2, b2, counts)
