"""Networks as plain tensors in and out, and official files read."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tenfold.core.capabilities import Export
from tenfold.core.seed import generator
from tenfold.nn.hivit import HiViT
from tenfold.nn.mask_rcnn_graph import DetectionGraph
from tenfold.nn.position import resize_bias, resize_position
from tenfold.nn.suppression import onnx_operators
from tenfold.weights import hivit as official
from tenfold.weights.containers import read_checkpoint
from tenfold.weights.keymap import Converted

from . import pretrained
from .config import Config
from .networks import network_of
from .official import official_keys
from .recipes import RECIPES
from .tasks import Detector, Localiser

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


class Detection(nn.Module):
    """A detector for one picture of a size: its best objects, of score 0 where there are less."""

    def __init__(self, network: Detector) -> None:
        super().__init__()
        self.backbone, self.heads = network.backbone, DetectionGraph(network.head)

    def forward(self, images: Float[Tensor, "1 3 height width"]) -> tuple[Tensor, ...]:
        """Boxes in pixels of the picture, scores, labels, and masks within boxes if it has any."""
        height, width = images.shape[2:]
        found: tuple[Tensor, ...] = self.heads(self.backbone.detection_maps(images), height, width)
        return found if self.heads.head.mask_head is not None else found[:3]


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


def export_part(
    model: nn.ModuleDict, cfg: Config, part: str = "", size: tuple[int, int] = (0, 0)
) -> Export:
    """Take a copy of a network for images of one size.

    Args:
        model: Networks by task.
        cfg: Their configuration.
        part: "backbone" or a task; empty is the last task that can be exported.
        size: Height and width in pixels; (0, 0) is `model.size`, or the test's of detection.

    Raises:
        ValueError: There is no such part, or a detector cannot be of this size.
    """
    parts = ["backbone", *[task for task in cfg.tasks if task != "pretrain"]]
    part = part or parts[-1]
    if part not in parts:
        raise ValueError(f"this run has no part {part!r} to export; it has {', '.join(parts)}")
    task = cfg.tasks[-1] if part == "backbone" else part
    network = deepcopy(network_of(model, task)).cpu().eval()  # its tables are changed
    height, width = size if any(size) else (cfg.model.size, cfg.model.size)
    unit = 4 * cfg.model.patch_size
    if part == "detect" and not any(size):  # a picture of 4 : 3 in the test
        short = cfg.dense.short_sides[-1]
        height, width = (-(-side // unit) * unit for side in (short, 4 * short // 3))
    if part == "detect" and (height % unit or width % unit):
        raise ValueError(
            f"a detector takes sides that are multiples of {unit} pixels, got {height} x {width}; "
            "fill pictures up with zeros after they are normalised"
        )
    example = torch.randn(2, 3, height, width, generator=generator("export"))
    fixed(network.backbone, network.backbone.grid_of(example))
    if part == "backbone":
        module: nn.Module = Maps(network.backbone)
        shape = network.backbone.shape
        names = LEVELS[3 - shape.fpn_levels :] if shape.fpn_dim else ("tokens",)
    elif isinstance(network, Detector):
        names = ("boxes", "scores", "labels", "masks")[: 4 if cfg.dense.masks else 3]
        return Export(
            Detection(network), (example[:1],), ("images",), names, False, onnx_operators
        )  # fmt: skip
    elif isinstance(network, Localiser):
        module, names = Method(network, "boxes"), ("boxes",)
    else:
        module, names = Method(network, "logits"), ("logits",)
    return Export(module, (example,), ("images",), names)


def read_official(source: Path) -> tuple[Config, dict[str, Tensor]]:
    """Read an official file of pre-training or fine-tuning.

    Returns:
        The configuration of a run of that task, whose sizes follow from the file's shapes, and the
        file's tensors.

    Raises:
        ValueError: It is no file of iTPN, or a backbone without a head.
    """
    state = read_checkpoint(source)
    layout = official.describe(state)
    cfg = replace(RECIPES["paper"], model=pretrained.model_of(layout))
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
    return cfg, state


def fill(network: nn.Module, state: dict[str, Tensor]) -> Converted:
    """Load a task's network with official tensors; returns what became of each."""
    names = official_keys(network)
    current = network.state_dict()
    target = {key: tuple(current[name].shape) for key, name in names.items()}
    account = official.convert(state, target)
    found = {names[key]: value for key, value in account.state.items()}
    network.load_state_dict(found, strict=False)
    return account
