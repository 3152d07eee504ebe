"""Dropout that is not slow on a CPU."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def dropout(
    x: Float[Tensor, "*shape"], probability: float, training: bool
) -> Float[Tensor, "*shape"]:
    """`F.dropout`; on a CPU its mask is cut from random 64-bit words, an order of magnitude faster.

    There a number survives with 1 - probability rounded to a multiple of 1/256, or of 1/65536 where
    that is not exact, and the survivors are scaled by exactly that share.
    """
    if not training or probability == 0:
        return x
    if x.device.type != "cpu":
        return F.dropout(x, probability)
    bits = 8 if (probability * 256).is_integer() else 16
    dtype = torch.int8 if bits == 8 else torch.int16
    kept = max(1, round((1 - probability) * 2**bits))  # of 2^bits equally likely values
    words = torch.empty(-(-x.numel() * bits // 64), dtype=torch.int64).random_(-(2**63), None)
    values = words.view(dtype)[: x.numel()].view(x.shape)
    keep = torch.empty(x.shape, dtype=x.dtype)
    torch.lt(values, kept - 2 ** (bits - 1), out=keep)
    return x * keep.mul_(2**bits / kept)
