"""From a configuration to the networks of its tasks."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tenfold.core.seed import seed_of
from tenfold.nn.hivit import HiViT, Shape
from tenfold.weights.clip import assumption, settings_beside
from tenfold.weights.clip_vit import convert_clip, describe_clip
from tenfold.weights.containers import read_checkpoint

from . import pretrained
from .config import Config, Model, Task
from .data import CONSTANTS
from .model import Classifier, ClipPretraining, PixelPretraining
from .tasks import Detector, Localiser, Segmenter
from .teacher import BackboneTeacher, ClipTeacher

DENSE_EPS = 1e-5
"""Of LayerNorm in the official detection and segmentation code: torch's default."""


def shape_of(cfg: Config, task: Task) -> Shape:
    """The shape of a task's backbone."""
    model, units = cfg.model, cfg.model.size // cfg.model.patch_size
    shape = Shape(
        embed_dim=model.embed_dim,
        depths=model.depths,
        num_heads=model.heads,
        patch_size=model.patch_size,
        grid=(units, units),
        bias=model.bias,
        stem_ratio=model.stem_ratio,
        ratio=model.ratio,
        layer_scale=model.layer_scale,
        fast=model.family == "fast",
        conv_stem=model.conv_stem,
        has_class_token=model.class_token,
        fpn_dim=model.fpn_dim,
        fpn_depth=model.fpn_depth,
        drop_path=model.drop_path,
    )
    if task == "classify" or (task == "pretrain" and not cfg.pretrain.pyramid):
        shape = replace(shape, fpn_dim=0)
    if task == "pretrain":
        shape = replace(shape, fpn_levels=cfg.pretrain.num_outs)
    if task == "pretrain" and cfg.pretrain.method == "pixel":
        shape = replace(shape, drop_path=0.0)
    if task in ("segment", "detect"):
        shape = replace(shape, eps=DENSE_EPS)
    if task == "segment":
        side = cfg.dense.size // model.patch_size
        shape = replace(shape, bias_grid=(side, side))
    return shape


def build(cfg: Config, task: Task) -> nn.Module:
    """A task's network, with weights that follow from the seed and the task alone."""
    shape, count = shape_of(cfg, task), len(cfg.classes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(cfg.seed, "network", task))
        if task == "pretrain" and cfg.pretrain.method == "clip":
            own = cfg.pretrain
            return ClipPretraining(shape, own.teacher_dim, leak_free=own.leak_free)
        if task == "pretrain":
            own = cfg.pretrain
            return PixelPretraining(
                shape, mask_ratio=own.mask_ratio, dim=own.decoder_dim, depth=own.decoder_depth,
                heads=own.decoder_heads, normalised=own.normalised,
                feature_levels=own.feature_weight > 0,
            )  # fmt: skip
        if task == "classify":
            return Classifier(shape, count)
        if task == "localise":
            return Localiser(shape, cfg.finetune.cells)
        if task == "segment":
            return Segmenter(shape, cfg.dense, count)
        return Detector(shape, cfg.dense, count, cfg.seed)


def network_of(model: nn.ModuleDict, task: str) -> Any:
    """A task's network; each has a `backbone`."""
    return model[task]


def device_of(module: nn.Module) -> torch.device:
    """Return where a module lies."""
    return next(module.parameters()).device


def backbone_of(cfg: Config, given: pretrained.Given) -> HiViT:
    """The network that weights belong to, without a pyramid."""
    model: Model = given.model
    side = given.grid[0] * model.patch_size
    own = replace(cfg, model=replace(model, size=side), tasks=("classify",), classes=("any",))
    backbone = HiViT(shape_of(own, "classify"))
    pretrained.begin(backbone, given.state, given.source, allow_missing=False)
    return backbone


def teacher_of(cfg: Config) -> ClipTeacher | BackboneTeacher:
    """The frozen teacher of the CLIP branch: of a CLIP file, or the backbone of a run.

    Heads, activation and colours of a CLIP are those of the JSON files beside it.
    """
    settings = cfg.pretrain
    if not settings.teacher:
        raise ValueError(
            "pretrain.method clip needs a teacher: --pretrain.teacher FILE of a CLIP ViT "
            "(.pt, .safetensors), or a run of itpn whose backbone teaches"
        )
    path = Path(settings.teacher)
    is_run = path.is_dir()
    state = {} if is_run else read_checkpoint(path)
    if not is_run and any(key.endswith("class_embedding") for key in state):
        layout = describe_clip(state)
        own = settings_beside(path, image=layout.width)
        if own.assumed:
            warnings.warn(assumption("pretrain.teacher", path), stacklevel=2)
        teacher = ClipTeacher(layout, own, settings.teacher_range)
        target = {key: tuple(value.shape) for key, value in teacher.state_dict().items()}
        teacher.load_state_dict(convert_clip(state, target).require_complete())
        return teacher
    given = pretrained.read(settings.teacher)
    backbone = backbone_of(cfg, given)
    mean, std = CONSTANTS[given.normalise]
    return BackboneTeacher(backbone, mean, std, settings.teacher_range)
