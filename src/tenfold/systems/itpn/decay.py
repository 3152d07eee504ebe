"""Layer-wise decay of the learning rate: earlier layers of a pre-trained network move less."""

from __future__ import annotations

from typing import Literal

from torch import nn

from tenfold.core.optim import Groups
from tenfold.nn.hivit import HiViT
from tenfold.nn.hivit_blocks import PatchMerge

Rule = Literal["finetune", "segment", "detect"]
"""finetune: as official fine-tuning (FINETUNE.md); segment, detect: as the official dense
configurations, with their quirks."""


def scale_and_decay(
    name: str, ndim: int, backbone: HiViT, rate: float, rule: Rule, num_layers: int = 0
) -> tuple[float, bool]:
    """(factor on the learning rate, whether weight decay applies) of a parameter of the backbone.

    name: without `backbone.`; what is no part of a stage (head, norms) has factor 1. num_layers is
    that of the dense configurations: the blocks without merges if 0.
    """
    blocks = [not isinstance(block, PatchMerge) for block in backbone.blocks]
    own = sum(blocks)
    is_early = name in ("absolute_pos_embed", "cls_token") or name.startswith("patch_embed.")
    number = int(name.split(".")[1]) if name.startswith("blocks.") else -1
    decays = ndim > 1 and not name.endswith(".bias")
    if rule == "finetune":
        layers = own + 1
        # a merge belongs to the block before it
        layer = sum(blocks[: number + 1]) if number >= 0 else 0 if is_early else layers
        free = name.startswith("absolute_pos_embed") or "relative_position_bias_table" in name
        return (rate ** (13 / layers)) ** (layers - layer), decays and not free
    if rule == "segment":
        # The flat list has two entries more than the blocks that are counted, so the last block's
        # factor is above 1, and the table of positions decays: both as in the official code.
        layers = (num_layers or own) + 2
        layer = number + 1 if number >= 0 else 0 if is_early else layers - 1
        return (rate ** (13 / layers)) ** (layers - layer - 1), decays
    layers = (num_layers or own) + 1
    layer = number + 1 if number >= 0 else layers
    if is_early and name != "absolute_pos_embed":
        layer = 0
    return rate ** (layers - layer), decays and name != "absolute_pos_embed"


def layered(model: nn.Module, weight_decay: float, rate: float, rule: Rule) -> Groups:
    """Parameter groups of a model whose `backbone` is a HiViT; a rate of 1 scales nothing."""
    backbone = model.backbone
    assert isinstance(backbone, HiViT)
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if name.startswith("backbone."):
            own = name.removeprefix("backbone.")
            key = scale_and_decay(own, parameter.ndim, backbone, rate, rule)
        else:
            key = (1.0, parameter.ndim > 1)
        groups.setdefault(key, []).append(parameter)
    return [
        {"params": some, "lr_scale": scale, "weight_decay": weight_decay if decays else 0.0}
        for (scale, decays), some in groups.items()
    ]
