"""The training loss of Pangu-Weather."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

UPPER_WEIGHTS = {"z": 3.0, "q": 0.6, "t": 1.5, "u": 0.77, "v": 0.54}
SURFACE_WEIGHTS = {"msl": 1.5, "u10": 0.77, "v10": 0.66, "t2m": 3.0}
"""Weights of variables (paper, from memory; used by the public ports); of others 1."""
SURFACE_SHARE = 0.25
"""Weight of the surface (pseudocode)."""


def variable_weights(
    upper: tuple[str, ...], surface: tuple[str, ...]
) -> tuple[Float[Tensor, " variable"], Float[Tensor, " field"]]:
    """The paper's weight of each variable, 1 for a variable that the paper does not have."""
    return (
        torch.tensor([UPPER_WEIGHTS.get(name, 1.0) for name in upper]),
        torch.tensor([SURFACE_WEIGHTS.get(name, 1.0) for name in surface]),
    )


def weighted_mae(
    made: tuple[Tensor, Tensor],
    truth: tuple[Tensor, Tensor],
    weights: tuple[Float[Tensor, " variable"], Float[Tensor, " field"]],
    present: Float[Tensor, "lat lon"] | None = None,
) -> dict[str, Float[Tensor, ""]]:
    """mean(w |error|) over upper fields plus 0.25 times that over surface fields (pseudocode).

    Fields are normalised: upper (batch, variable, level, lat, lon), surface (batch, field, lat,
    lon). No weight of latitude. `present` is 0 where points are missing at every time, else 1.
    """
    upper = (made[0].float() - truth[0]).abs() * weights[0][:, None, None, None]
    surface = (made[1].float() - truth[1]).abs() * weights[1][:, None, None]
    if present is not None:
        share = present / present.mean()
        upper, surface = upper * share, surface * share
    terms = {"loss/upper": upper.mean(), "loss/surface": surface.mean()}
    return {"loss": terms["loss/upper"] + SURFACE_SHARE * terms["loss/surface"], **terms}
