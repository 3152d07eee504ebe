"""The training loss of SPGSN."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor


def mpjpe_loss(
    pred_coeffs: Float[Tensor, "batch node coeff"],
    target_positions: Float[Tensor, "batch frame node"],
    basis: Float[Tensor, "coeff frame"],
) -> Float[Tensor, ""]:
    """Mean distance of predicted and true joints over all frames, the observed ones too.

    As `train` of the official main_cmu_3d.py.

    Args:
        pred_coeffs: Predicted DCT coefficients; nodes are coordinates x0 y0 z0 x1 y1 z1 ...
        target_positions: Observed and future coordinates, in mm.
        basis: Kept rows of the DCT over all frames.

    Returns:
        The loss in mm.
    """
    positions = (pred_coeffs @ basis).transpose(1, 2)  # batch, frame, node
    error = (positions - target_positions).unflatten(2, (-1, 3))  # batch, frame, joint, 3
    return error.norm(dim=-1).mean()
