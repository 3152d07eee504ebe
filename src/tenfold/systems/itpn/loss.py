"""Losses of both kinds of pre-training, as functions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

TARGET_EPS = 1e-6
"""Added to the variance of a unit's pixels (official code, after MAE)."""


def patchify(
    images: Float[Tensor, "batch 3 height width"], side: int
) -> Float[Tensor, "batch unit value"]:
    """Pixels of each unit as (row, column, channel)."""
    batch, _, height, width = images.shape
    # [batch, channel, unit row, row, unit column, column] -> [batch, unit, (row, column, channel)]
    x = images.view(batch, 3, height // side, side, width // side, side)
    return x.permute(0, 2, 4, 3, 5, 1).reshape(batch, -1, side * side * 3)


def unpatchify(
    values: Float[Tensor, "batch unit value"], side: int, grid: tuple[int, int]
) -> Float[Tensor, "batch 3 height width"]:
    """Images of the pixels of their units: the inverse of `patchify`."""
    # [batch, unit row, unit column, row, column, channel] -> channels first, rows together
    x = values.view(len(values), *grid, side, side, 3).permute(0, 5, 1, 3, 2, 4)
    return x.reshape(len(values), 3, grid[0] * side, grid[1] * side)


def statistics(
    values: Float[Tensor, "batch unit value"],
) -> tuple[Float[Tensor, "batch unit 1"], Float[Tensor, "batch unit 1"]]:
    """Mean and standard deviation of each unit's pixels; the variance is the unbiased one."""
    variance, mean = torch.var_mean(values, -1, keepdim=True)
    return mean, (variance + TARGET_EPS).sqrt()


def pixel_loss(
    predicted: Float[Tensor, "batch unit value"], target: Float[Tensor, "batch unit value"]
) -> Float[Tensor, ""]:
    """Mean squared error over removed units (paper: the first term of the loss)."""
    return (predicted.float() - target.float()).square().mean()


def token_loss(
    predicted: Float[Tensor, "batch unit dim"], teacher: Float[Tensor, "batch unit dim"]
) -> Float[Tensor, ""]:
    """SmoothL1 with beta 1 over all units, masked or not (official CLIP branch)."""
    return F.smooth_l1_loss(predicted.float(), teacher.float())
