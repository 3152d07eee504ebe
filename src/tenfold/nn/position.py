"""Positions of tokens on a grid: sin-cos tables, relative indices, and tables for other sizes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor


def sincos_2d(dim: int, height: int, width: int) -> Float[Tensor, "token dim"]:
    """A fixed position vector for each token, row-major: its column in the first half of channels.

    Each half is all sines, then all cosines, of frequencies 10000^(-i / (dim / 4)) (MAE).
    """
    if dim % 4:
        raise ValueError(f"sin-cos positions need a multiple of 4 channels, got {dim}")
    omega = 10000.0 ** -(torch.arange(dim // 4, dtype=torch.float64) / (dim / 4))
    y = torch.arange(height, dtype=torch.float64).repeat_interleave(width)
    x = torch.arange(width, dtype=torch.float64).repeat(height)
    halves = [torch.outer(at, omega) for at in (x, y)]
    return torch.cat([f(half) for half in halves for f in (torch.sin, torch.cos)], 1).float()


def relative_index(height: int, width: int) -> Int64[Tensor, "token token"]:
    """Row of a bias table [(2 height - 1) (2 width - 1)] for each query and key (Swin)."""
    y = torch.arange(height).repeat_interleave(width)
    x = torch.arange(width).repeat(height)
    dy = y[:, None] - y[None, :] + height - 1
    dx = x[:, None] - x[None, :] + width - 1
    return dy * (2 * width - 1) + dx


def resize_position(
    table: Float[Tensor, "1 token dim"], given: tuple[int, int], wanted: tuple[int, int]
) -> Float[Tensor, "1 new dim"]:
    """Absolute positions for another grid, bicubic, by DINO's scale factors.

    The factor is (size + 0.1) / old size, so the result differs slightly from a resize to `size`.
    """
    dim = table.shape[2]
    x = table.view(1, *given, dim).permute(0, 3, 1, 2)
    factors = tuple((new + 0.1) / old for new, old in zip(wanted, given, strict=True))
    x = F.interpolate(x, scale_factor=factors, mode="bicubic")
    return x.permute(0, 2, 3, 1).reshape(1, -1, dim)


def resize_bias(
    table: Float[Tensor, "row head"], given: tuple[int, int], wanted: tuple[int, int]
) -> Float[Tensor, "new head"]:
    """A relative bias table for another grid, bicubic for each head."""
    sides = [tuple(2 * side - 1 for side in grid) for grid in (given, wanted)]
    x = table.view(1, *sides[0], -1).permute(0, 3, 1, 2)
    x = F.interpolate(x, size=sides[1], mode="bicubic", align_corners=False)
    return x.permute(0, 2, 3, 1).reshape(-1, table.shape[1])
