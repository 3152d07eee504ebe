"""Cross-entropy of pixels with a weight each, as self-training needs it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Integer
from torch import Tensor

from .uperhead import enlarged


def pixel_loss(
    logits: Float[Tensor, "batch class rows columns"],
    labels: Integer[Tensor, "batch height width"],
    weights: Float[Tensor, "batch height width"] | None = None,
    ignore: int = 255,
) -> Float[Tensor, ""]:
    """Mean over all pixels, the ignored ones too, of weight x cross-entropy at the labels' size.

    As mmsegmentation has it (mmseg/models/losses/cross_entropy_loss.py): a picture half of whose
    pixels are ignored counts half.
    """
    wide = logits if logits.dtype == torch.float64 else logits.float()
    logits = enlarged(wide, (labels.shape[1], labels.shape[2]))
    losses = F.cross_entropy(logits, labels.long(), ignore_index=ignore, reduction="none")
    return losses.mean() if weights is None else (losses * weights).mean()
