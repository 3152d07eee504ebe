"""Seed networks: a backbone, and a convolution that makes a map of each class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, Self

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from tenfold.nn.efficientnet import EfficientNetLite
from tenfold.nn.folding import folded
from tenfold.nn.hivit import HiViT, Shape, raster
from tenfold.nn.hivit_blocks import PatchMerge
from tenfold.nn.resnet import ResNet
from tenfold.nn.resnet38 import ResNet38
from tenfold.nn.vit import Block, Vit, VitShape

from .adjust import Adjustment, drop_channels, kept_tokens
from .backbones import CLASS_TOKENS, OUTPUT_STRIDES, Model
from .seam import Correlated

Images = Float[Tensor, "batch 3 height width"]
Body = ResNet | ResNet38 | EfficientNetLite | Vit | HiViT
Precision = Literal["float32", "bfloat16"]
HEAD_WIDTH = 64
"""Channels of an attention head where `heads` is 0."""


@dataclass(frozen=True)
class Attention:
    """What the tokens of a transformer attend to, as means over heads."""

    to_patches: Float[Tensor, "block batch token patch"]
    """From the class tokens to the patches, of each block."""
    affinity: Float[Tensor, "batch patch patch"]
    """From patches to patches, summed over all blocks."""


@dataclass(frozen=True)
class Features:
    """What a backbone finds in pictures."""

    last: Float[Tensor, "batch channel rows columns"]
    class_tokens: Float[Tensor, "block batch class channel"] | None = None
    """Class tokens behind each block, of vision transformers."""
    attention: Attention | None = None
    levels: tuple[Tensor, ...] = ()
    """Maps of the stages, finest first, of convolutional networks."""


@dataclass(frozen=True)
class Activations:
    """What a seed network finds in pictures."""

    maps: Float[Tensor, "batch class rows columns"]
    """Class activations A, before ReLU: logits of the places."""
    class_logits: Float[Tensor, "batch class"] | None
    """Means of the class tokens, of networks with one a class."""
    class_tokens: Float[Tensor, "block batch class channel"] | None
    attention: Attention | None
    """Of transformers, if asked for."""
    levels: tuple[Tensor, ...]
    """Maps of the stages, finest first, of convolutional networks: features for affinity."""


class SeedNetwork(nn.Module):
    """Pictures to activations of classes.

    Stages that are frozen, and batch norms if `freeze_norm`, stay in evaluation mode and have no
    gradient.
    """

    def __init__(self, body: Body, num_classes: int, model: Model) -> None:
        super().__init__()
        self.body, self.model, self.num_classes = body, model, num_classes
        dim = width_of(body)
        if isinstance(body, Vit):  # MCTformer's
            self.head = nn.Conv2d(dim, num_classes, 3, padding=1)
        else:
            self.head = nn.Conv2d(dim, num_classes, 1, bias=False)
            nn.init.xavier_uniform_(self.head.weight)
        self.dropout = nn.Dropout2d(model.dropout)
        self.level_dims = level_dims(body)
        """Channels of `levels`."""
        self.correlation = Correlated(self.level_dims) if model.correlation else None
        stages = list(stages_of(body))
        count = model.frozen_stages
        if count > len(stages):
            raise ValueError(
                f"model.frozen_stages is {count}, but {model.name} has {len(stages)} stages"
            )
        self._frozen = [part for stage in stages[: None if count < 0 else count] for part in stage]
        if count < 0 and model.name not in CLASS_TOKENS:
            self._frozen = [body]
        if self.correlation is not None:
            self._frozen.append(self.correlation)
        for part in self._frozen:
            part.requires_grad_(False)
        if model.freeze_norm:
            for norm in self._norms():
                norm.requires_grad_(False)
        self.train()  # what is frozen is in evaluation mode from the start

    def _norms(self) -> Iterator[nn.Module]:
        return (m for m in self.body.modules() if isinstance(m, nn.BatchNorm2d))

    def train(self, mode: bool = True) -> Self:
        """Training mode but for what is frozen."""
        super().train(mode)
        if self.model.freeze_norm:
            for norm in self._norms():
                norm.eval()
        for part in self._frozen:
            if isinstance(part, nn.Module):
                part.eval()
        return self

    def features(
        self, images: Images, adjustment: Adjustment | None = None, with_attention: bool = False
    ) -> Features:
        """What the backbone finds; of a frozen backbone this need not be computed twice."""
        if isinstance(self.body, Vit):
            return tokens(self.body, images, adjustment, with_attention)
        change = None if adjustment is None else partial(drop_channels, adjustment=adjustment)
        if isinstance(self.body, HiViT):
            return hierarchical(self.body, images, adjustment)
        levels = self.body.levels(images, change)
        return Features(levels[-1], levels=tuple(levels))

    def activate(self, found: Features) -> Activations:
        """Activations of features."""
        maps = self.head(self.dropout(found.last))
        tokens = found.class_tokens if self.model.name in CLASS_TOKENS else None
        logits = None if tokens is None else tokens[-1].mean(2)
        return Activations(maps, logits, tokens, found.attention, found.levels)

    def forward(
        self, images: Images, adjustment: Adjustment | None = None, with_attention: bool = False
    ) -> Activations:
        """Activations of pictures whose sides are multiples of `model.multiple`.

        adjustment: what is dropped on the way. with_attention: keep what maps of attention need;
        not together with an adjustment.
        """
        return self.activate(self.features(images, adjustment, with_attention))


def build(model: Model, num_classes: int) -> SeedNetwork:
    """A seed network of these sizes, with random weights."""
    return SeedNetwork(backbone(model, num_classes), num_classes, model)


def for_inference(network: SeedNetwork, precision: Precision = "float32") -> SeedNetwork:
    """A copy that finds the same maps sooner: norms folded into convolutions, channels last.

    precision: in bfloat16 maps in [0, 1] differ from those in float32 by 1e-4 to 4e-4 on average,
    and by up to 9e-2 at single places (benchmarks/usage.py); processors that multiply such
    numbers (AVX512-BF16, AMX) need half of the time or less, others more. In float32 single places
    differ by up to 1e-5, of transformers' stretched maps by 1e-4.
    """
    found = folded(network).requires_grad_(False)
    found.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return found.bfloat16() if precision == "bfloat16" else found


def backbone(model: Model, num_classes: int) -> Body:
    """The backbone alone; MCTformer's has a token of each class."""
    stride = model.output_stride or OUTPUT_STRIDES.get(model.name, 0)
    if model.name == "resnet18" or model.name == "resnet50":
        return ResNet(model.name, model.width, stride, model.dilate, model.depths)
    if model.name == "resnet38":
        if stride != 8:
            raise ValueError(f"model.output_stride is {stride}; resnet38 has 8 (or 0)")
        return ResNet38(model.width)
    if model.name == "efficientnet-lite0":
        return EfficientNetLite(model.width, stride)
    if model.name == "hivit":
        return HiViT(_hivit_shape(model))
    has_tokens = model.name in CLASS_TOKENS
    dim = model.width or 384
    return Vit(
        VitShape(
            dim=dim,
            depth=model.depths[0] if model.depths else 12,
            heads=model.heads or max(1, dim // HEAD_WIDTH),
            patch_size=model.patch_size,
            grid=model.grid,
            hidden=int(dim * model.ratio),
            layer_scale=False,
            class_tokens=num_classes if has_tokens else 1,
            split_positions=model.name == "mctformer-plus",
            last_norm=not has_tokens,
            drop_path=model.drop_path,
        )
    )


def _hivit_shape(model: Model) -> Shape:
    dim = model.width or 512
    first, second, main = model.depths or (2, 2, 20)
    return Shape(
        embed_dim=dim, depths=(first, second, main), num_heads=model.heads or dim // HEAD_WIDTH,
        patch_size=model.patch_size, grid=(model.grid, model.grid), bias=model.bias,
        stem_ratio=model.stem_ratio, ratio=model.ratio, layer_scale=model.layer_scale,
        fast=model.gated, conv_stem=model.conv_stem, has_class_token=model.class_token,
        drop_path=model.drop_path,
    )  # fmt: skip


# --- what backbones are made of ------------------------------------------------------------------


def width_of(body: Body) -> int:
    """Channels of the last map."""
    if isinstance(body, Vit):
        return body.shape.dim
    return body.shape.embed_dim if isinstance(body, HiViT) else body.dim


def level_dims(body: Body) -> tuple[int, ...]:
    """Channels of the maps that a convolutional backbone gives."""
    if isinstance(body, ResNet):
        return (body.stem_width, *body.widths)
    if isinstance(body, ResNet38):
        return body.widths
    if isinstance(body, EfficientNetLite):
        return (body.stem_width, *body.widths, body.dim)
    return ()


def stages_of(body: Body) -> Iterator[Sequence[nn.Module | nn.Parameter]]:
    """Parts of a backbone from the pictures on: the stem, then each stage or block."""
    if isinstance(body, ResNet):
        yield [body.conv1, body.bn1]
        for stage in body.stages:
            yield [body.get_submodule(stage)]
    elif isinstance(body, ResNet38):
        yield [body.conv1a]
        for names in body.stages:
            yield [body.get_submodule(name) for name in names]
    elif isinstance(body, EfficientNetLite):
        yield [body.conv_stem, body.bn0]
        for start, end in zip([0, *body.ends], body.ends, strict=False):
            yield list(body.blocks[start:end])
    elif isinstance(body, HiViT):
        yield [body.patch_embed, body.absolute_pos_embed]
        yield from ([block] for block in body.blocks)
    else:
        positions = body.pos_embed_pat if body.shape.split_positions else body.pos_embed
        # class tokens go on learning their classes, and with them their positions
        yield [body.patch_embed] if body.shape.class_tokens > 1 else [body.patch_embed, positions]
        yield from ([block] for block in body.blocks)


# --- transformers --------------------------------------------------------------------------------


def tokens(
    body: Vit, images: Images, adjustment: Adjustment | None, with_attention: bool
) -> Features:
    """Patch tokens as a map, and what is known of class tokens and attention."""
    assert adjustment is None or not with_attention, "maps of attention are of whole networks"
    shape = body.shape
    first = shape.class_tokens
    grid = (images.shape[2] // shape.patch_size, images.shape[3] // shape.patch_size)
    x = body.embed(images)
    behind: list[Tensor] = []
    to_patches: list[Tensor] = []
    affinity: Tensor | None = None
    for block in body.blocks:
        assert isinstance(block, Block)
        if with_attention:
            x, weights = block.with_weights(x)
            mean = weights.mean(1).float()
            to_patches.append(mean[:, :first, first:])
            own = mean[:, first:, first:]
            affinity = own if affinity is None else affinity + own
        else:
            x = block(x, _kept(block, x, first, adjustment))
        behind.append(x[:, :first])
    x = body.norm(x)
    last = x[:, first:].transpose(1, 2).unflatten(2, grid)
    attention = None
    if affinity is not None:
        attention = Attention(torch.stack(to_patches), affinity)
    return Features(last, torch.stack(behind), attention)


def _kept(block: Block, x: Tensor, first: int, adjustment: Adjustment | None) -> Tensor | None:
    """Tokens that may be attended to, by what the class tokens attend to."""
    if adjustment is None or not adjustment.strength:
        return None
    with torch.no_grad():
        return kept_tokens(block.attn.weights(block.norm1(x), first), first, adjustment)


def hierarchical(body: HiViT, images: Images, adjustment: Adjustment | None) -> Features:
    """HiViT's last tokens, each normalised, as a map.

    Channels are dropped behind the last block of each of the three stages.
    """
    ends = [number for number, b in enumerate(body.blocks) if isinstance(b, PatchMerge)]
    hooks = []
    if adjustment is not None and adjustment.strength:

        def drop(_module: nn.Module, _inputs: object, x: Tensor) -> Tensor:
            return drop_channels(x.movedim(-1, 1), adjustment).movedim(1, -1)

        last = [ends[0] - 1, ends[1] - 1, len(body.blocks) - 1]
        hooks = [body.blocks[number].register_forward_hook(drop) for number in last]
    try:
        found = body.encode(images).tokens
    finally:
        for hook in hooks:
            hook.remove()
    # a pre-trained HiViT has no norm of its own there
    found = F.layer_norm(found, found.shape[2:], eps=body.shape.eps)
    return Features(raster(found[:, :, None, None], body.grid_of(images)))
