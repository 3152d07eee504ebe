"""Rates and decay of DAFormer's parameters (`paramwise_cfg` of its configurations)."""

from __future__ import annotations

from torch import nn

from tenfold.core.optim import Groups, groups_by_name

RULES = {"head": (10.0, True), "pos_block": (1.0, False), "norm": (1.0, False)}
"""Word in a parameter's name -> (factor on the learning rate, whether it decays). Batch norms of
heads are called `bn`, so they decay; HRDA's attention lies in `decode_head`, so it learns fast."""


def parameter_groups(model: nn.Module) -> Groups:
    """Heads learn ten times as fast, the encoder's norms do not decay, all else does."""
    return groups_by_name(model, RULES)
