"""The segmentation network, and the students and teachers of a run."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tenfold.nn.aspp import DaformerHead, DeepLabHead
from tenfold.nn.ema import teacher_of
from tenfold.nn.encoders import Encoder, HivitEncoder, ResnetEncoder, VitEncoder
from tenfold.nn.hivit import Shape
from tenfold.nn.hrda import Hrda
from tenfold.nn.mit import MixTransformer
from tenfold.nn.segformer import SegformerHead
from tenfold.nn.uperhead import enlarged
from tenfold.nn.vit import VitShape

from .config import Config, Deployed, Model, Transformer
from .loss import Images, Logits


class Scores(NamedTuple):
    """Results of a network of one resolution, named as those of two (`nn.hrda.Resolutions`)."""

    fused: Float[Tensor, "batch class rows columns"]
    """Logits at a quarter of the images' sides."""
    features: list[Tensor]
    """The encoder's maps, finest first."""


class Segmenter(nn.Module):
    """An encoder and a head, under the names of official checkpoints."""

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone, self.decode_head = backbone, head

    def forward(self, images: Images) -> Scores:
        """Logits and features."""
        maps = self.backbone(images)
        return Scores(self.decode_head(maps), maps)


Network = Segmenter | Hrda


def hivit_shape(cfg: Model, own: Transformer) -> Shape:
    """Sizes of an encoder hivit."""
    bias_grid = own.bias_grid or own.grid
    return Shape(
        embed_dim=cfg.dims[-1], depths=cfg.depths[:3], num_heads=cfg.heads[-1],
        patch_size=own.patch_size, grid=(own.grid, own.grid), bias=own.bias,
        bias_grid=(bias_grid, bias_grid), stem_ratio=own.stem_ratio, ratio=own.ratio,
        layer_scale=own.layer_scale, fast=own.gated, conv_stem=own.conv_stem,
        has_class_token=own.class_token, fpn_dim=own.pyramid, fpn_depth=own.pyramid_depth,
        drop_path=cfg.drop_path,
    )  # fmt: skip


def vit_shape(cfg: Model, own: Transformer) -> VitShape:
    """Sizes of an encoder vit."""
    return VitShape(
        dim=cfg.dims[-1], depth=sum(cfg.depths), heads=cfg.heads[-1], patch_size=own.patch_size,
        grid=own.grid, hidden=round(own.ratio * cfg.dims[-1]), registers=own.registers,
        gated=own.gated, layer_scale=own.layer_scale > 0,
    )  # fmt: skip


def encoder_of(cfg: Model, own: Transformer) -> Encoder:
    """The encoder of a configuration with random weights."""
    if cfg.encoder == "mit":
        return MixTransformer(cfg.dims, cfg.heads, cfg.depths, cfg.reductions, cfg.drop_path)
    if cfg.encoder == "hivit":
        return HivitEncoder(hivit_shape(cfg, own))
    if cfg.encoder == "vit":
        return VitEncoder(vit_shape(cfg, own))
    return ResnetEncoder(cfg.encoder, cfg.width, cfg.output_stride, cfg.stem)


def build(cfg: Model, own: Transformer, num_classes: int) -> Network:
    """A network of these sizes with random weights."""
    backbone = encoder_of(cfg, own)
    assert isinstance(backbone, nn.Module)
    dims, wide = backbone.dims, cfg.head_dim
    head: nn.Module
    if cfg.head == "segformer":
        head = SegformerHead(dims, num_classes, wide, cfg.dropout)
    elif cfg.head == "deeplab":
        head = DeepLabHead(dims[-1], num_classes)
    else:
        head = DaformerHead(dims, num_classes, wide, wide, dropout=cfg.dropout)
    if not any(cfg.detail):
        return Segmenter(backbone, head)
    attention = DaformerHead(dims, num_classes, wide, wide, (), dropout=cfg.dropout)
    return Hrda(backbone, head, attention, cfg.detail)


def probabilities(network: Network, images: Images) -> Logits:
    """A network's probabilities at the images' size, without a gradient."""
    with torch.inference_mode():
        logits = network(images).fused.float()
        found = enlarged(logits, (images.shape[2], images.shape[3])).softmax(1)
    return found.clone()  # a graph may not hold tensors of inference mode


class Networks(nn.Module):
    """The students and teachers of a run, by name: student1, teacher1, student2, teacher2."""

    def __init__(self, cfg: Config) -> None:
        super().__init__()
        self.num_groups = {"source": 0, "host": 1, "dts": 2}[cfg.method]
        """Groups that have a teacher."""
        for group in range(1, max(1, self.num_groups) + 1):
            student = build(cfg.model, cfg.transformer, len(cfg.classes))
            self.add_module(f"student{group}", student)
            if self.num_groups:
                self.add_module(f"teacher{group}", teacher_of(student))
        self.deployed: Deployed = cfg.groups.deploy

    def student(self, group: int) -> Network:
        """The student of group 1 or 2."""
        return self.named(f"student{group}")

    def teacher(self, group: int) -> Network:
        """The teacher of group 1 or 2."""
        return self.named(f"teacher{group}")

    def named(self, name: str) -> Network:
        """A network by its name."""
        found = self.get_submodule(name)
        assert isinstance(found, Segmenter | Hrda)
        return found

    def names(self) -> list[str]:
        """Names of the networks that there are, students first."""
        return sorted(name for name, _ in self.named_children())

    def members(self, name: str) -> list[Network]:
        """The networks whose probabilities are averaged: one, or both teachers of the ensemble.

        Raises:
            ValueError: The run has no such network.
        """
        if name == "ensemble" and self.num_groups == 2:
            return [self.teacher(1), self.teacher(2)]
        if name not in self.names():
            raise ValueError(f"this run has no {name}; it has {', '.join(self.names())}")
        return [self.named(name)]

    def begin_groups(self, own_heads: bool) -> None:
        """Let both groups start from student 1's weights, and each teacher from its student.

        With `own_heads`, the head of student 2 keeps its own random weights.
        """
        first = self.student(1).state_dict()
        for group in range(1, self.num_groups + 1):
            student = self.student(group)
            given = {key: value for key, value in first.items()
                     if not (own_heads and key.startswith("decode_head."))}  # fmt: skip
            student.load_state_dict(given, strict=False)
            self.teacher(group).load_state_dict(student.state_dict())
