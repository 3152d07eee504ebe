"""Networks as plain tensors in and out, and official files read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tenfold.core.seed import generator
from tenfold.core.system import Export, System
from tenfold.nn.hivit import HiViT
from tenfold.nn.position import resize_bias, resize_position
from tenfold.weights import itpn as official
from tenfold.weights.containers import read_checkpoint
from tenfold.weights.keymap import Converted

from . import start
from .config import Config
from .networks import network_of
from .official import official_keys
from .recipes import RECIPES
from .tasks import Localiser, Segmenter

if TYPE_CHECKING:
    from .system import Itpn

LEVELS = ("level4", "level8", "level16", "level32", "level64")


class Maps(nn.Module):
    """A backbone's feature maps, finest first."""

    def __init__(self, backbone: HiViT) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> tuple[Tensor, ...]:
        """Maps of the pyramid; without one, the tokens of the main stage."""
        if not self.backbone.shape.fpn_dim:
            return (self.backbone.encode(images).tokens,)
        return tuple(self.backbone.detection_maps(images))


class Method(nn.Module):
    """A network called by one of its methods: `logits` or `boxes`."""

    def __init__(self, network: nn.Module, name: str) -> None:
        super().__init__()
        self.network, self.name = network, name

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Tensor:
        """The method's result."""
        return getattr(self.network, self.name)(images)


@torch.no_grad()
def fixed(backbone: HiViT, grid: tuple[int, int]) -> None:
    """Resize tables of positions once and for all: an exported file would do it at each call."""
    shape = backbone.shape
    if grid != shape.grid and not shape.has_class_token:
        table = resize_position(backbone.absolute_pos_embed, shape.grid, grid)
        backbone.absolute_pos_embed = nn.Parameter(table)
        backbone.shape = replace(shape, grid=grid)
    if grid != backbone.bias_grid and shape.bias == "full":
        for block in backbone.blocks:
            attention = getattr(block, "attn", None)
            if attention is not None:
                old = attention.relative_position_bias_table
                attention.relative_position_bias_table = nn.Parameter(
                    resize_bias(old, backbone.bias_grid, grid)
                )
                attention.grid = grid
        backbone.bias_grid = grid


def export(system: Itpn, part: str, size: tuple[int, int]) -> Export:
    """The backbone, or a task's network, for pictures of height and width `size`."""
    cfg = system.cfg
    parts = ["backbone", *[task for task in cfg.tasks if task not in ("pretrain", "detect")]]
    part = part or parts[-1]
    if part not in parts:
        raise ValueError(f"this run has no part {part!r} to export; it has {', '.join(parts)}")
    task = cfg.tasks[-1] if part == "backbone" else part
    network = network_of(system.model, task).cpu().eval()
    height, width = size if any(size) else (cfg.model.size, cfg.model.size)
    example = torch.randn(2, 3, height, width, generator=generator("export"))
    fixed(network.backbone, network.backbone.grid_of(example))
    if part == "backbone":
        module: nn.Module = Maps(network.backbone)
        shape = network.backbone.shape
        names = LEVELS[3 - shape.fpn_levels :] if shape.fpn_dim else ("tokens",)
    elif isinstance(network, Localiser):
        module, names = Method(network, "boxes"), ("boxes",)
    else:
        module, names = Method(network, "logits"), ("logits",)
        if isinstance(network, Segmenter):
            names = ("logits",)
    return Export(module, (example,), ("images",), names)


def convert(cls: type[Itpn], source: Path) -> tuple[System[Config], Converted]:
    """An official file of pre-training or fine-tuning, as a run of that task."""
    state = read_checkpoint(source)
    layout = official.describe(state)
    cfg = replace(RECIPES["paper"], model=start.model_of(layout))
    if layout.kind == "dense":
        raise ValueError(
            f"{source} is a backbone without a head; nothing can be predicted with it. Train on "
            f"it: tenfold train itpn segment --start {source}"
        )
    if layout.kind == "finetune":
        names = tuple(f"class {i}" for i in range(layout.num_classes))
        cfg = replace(cfg, tasks=("classify",), classes=names)
    else:
        method: Literal["pixel", "clip"] = "pixel" if layout.family == "pixel" else "clip"
        own = replace(cfg.pretrain, method=method)
        if method == "pixel":
            own = replace(own, decoder_dim=layout.decoder_dim, decoder_depth=layout.decoder_depth)
        else:
            own = replace(own, teacher_dim=layout.teacher_dim)
        cfg = replace(cfg, pretrain=replace(own, num_outs=3 if layout.fpn_levels > 2 else 2))
    if layout.family != "pixel":
        cfg = replace(cfg, data=replace(cfg.data, normalise="half"))
    system = cls(cfg)
    network = system.model[cfg.tasks[0]]
    names_of = official_keys(network)
    current = network.state_dict()
    target = {key: tuple(current[name].shape) for key, name in names_of.items()}
    account = official.convert(state, target)
    found = {names_of[key]: value for key, value in account.state.items()}
    network.load_state_dict(found, strict=False)
    return system, account
