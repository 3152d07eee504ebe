"""Rates and decay of DAFormer's parameters (`paramwise_cfg` of its configurations)."""

from __future__ import annotations

from torch import nn

from tenfold.core.optim import Groups, groups_by_name

KEPT = ("pos_block", "norm", "pos_embed", "cls_token", "register_tokens", "position_bias")
"""Words in names of parameters that do not decay: official, and of vision transformers (as iTPN and
DINOv2 train them). Batch norms of heads are called `bn`, so they decay."""


def parameter_groups(model: nn.Module, head_lr: float = 10.0) -> Groups:
    """Heads learn `head_lr` times as fast (DAFormer: 10), HRDA's attention, which lies in
    `decode_head`, too; what decays is all but `KEPT`."""
    kept = {word: (1.0, False) for word in KEPT}
    return groups_by_name(model, {**kept, "head": (head_lr, True)})
