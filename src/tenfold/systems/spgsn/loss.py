"""The training loss of SPGSN."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor


def mpjpe_loss(
    pred_coeffs: Float[Tensor, "batch node coeff"],
    target_positions: Float[Tensor, "batch frame node"],
    basis: Float[Tensor, "coeff frame"],
) -> Float[Tensor, ""]:
    """Mean distance of predicted and true joints over all frames, the observed ones too (spec 4).

    `basis` holds the kept rows of the DCT; nodes are coordinates x0 y0 z0 x1 y1 z1 ...
    """
    positions = (pred_coeffs @ basis).transpose(1, 2)
    error = (positions - target_positions).unflatten(2, (-1, 3))
    return error.norm(dim=-1).mean()
