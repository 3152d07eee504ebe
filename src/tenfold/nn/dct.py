"""The discrete cosine transform as a matrix."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float64
from torch import Tensor


def dct_matrix(length: int) -> Float64[Tensor, "coeff frame"]:
    """Orthonormal DCT-II: its transpose is its inverse, its first rows are the low frequencies."""
    coeff = torch.arange(length, dtype=torch.float64)[:, None]
    frame = torch.arange(length, dtype=torch.float64)[None, :]
    basis = math.sqrt(2 / length) * torch.cos(math.pi / length * (frame + 0.5) * coeff)
    basis[0] = math.sqrt(1 / length)
    return basis
