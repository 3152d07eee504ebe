"""Encoders that a run takes as they are: transformers of the house, and of DINOv2."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from tenfold.core import checkpoint
from tenfold.data.images.fscil import IMAGENET
from tenfold.nn.hivit import HiViT, Shape
from tenfold.nn.resnet import ResNet
from tenfold.nn.vit import Vit, VitShape
from tenfold.printable import Lines
from tenfold.weights.containers import find_weights, heads_beside, is_run, read_checkpoint
from tenfold.weights.dinov2 import HEAD_CHANNELS, convert_dinov2, describe_dinov2, is_dinov2

from .config import Model, Transformer

USUAL_SIZE = 224
"""Side of a vision transformer's pictures where `transformer.input` is 0."""
COLOURS = {"imagenet": IMAGENET, "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))}
TASKS = ("classify", "pretrain")
"""Parts of an iTPN run whose backbone is taken, the first that there is."""


class Frozen(nn.Module):
    """A transformer whose pictures are resized to the side that it wants.

    Features are DINOv2's normalised class token, or the mean of HiViT's last tokens, normalised to
    mean 0 and deviation 1 (a pre-trained HiViT has no norm of its own there).
    """

    def __init__(self, body: Vit | HiViT, side: int) -> None:
        super().__init__()
        self.body, self.side = body, side
        shape = body.shape
        self.dim = shape.dim if isinstance(shape, VitShape) else shape.embed_dim

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch dim"]:
        """Features of normalised pictures."""
        if images.shape[2:] != (self.side, self.side):
            size = (self.side, self.side)
            images = F.interpolate(images, size=size, mode="bicubic", antialias=True)
        if isinstance(self.body, Vit):
            return self.body(images)
        tokens = self.body.encode(images).tokens.mean(1)
        return F.layer_norm(tokens, tokens.shape[1:], eps=self.body.shape.eps)


def build(cfg: Model, sizes: Transformer) -> ResNet | Frozen:
    """The encoder of a configuration, with random weights."""
    if cfg.kind in ("resnet20", "resnet18"):
        # channels last: what the convolutions of CPUs and GPUs like best
        encoder = ResNet("resnet20" if cfg.kind == "resnet20" else "resnet18", cfg.width)
        encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return encoder
    if not sizes.dim:
        raise ValueError(
            f"model.kind {cfg.kind} needs weights to take its sizes from: give --encoder"
        )
    body: Vit | HiViT
    if cfg.kind == "vit":
        body = Vit(
            VitShape(
                dim=sizes.dim, depth=sizes.depths[0], heads=sizes.heads, grid=sizes.grid,
                patch_size=sizes.patch_size, hidden=sizes.hidden, registers=sizes.registers,
                gated=sizes.gated, layer_scale=sizes.layer_scale > 0,
            )
        )  # fmt: skip
    else:
        first, second, main = sizes.depths
        body = HiViT(
            Shape(
                embed_dim=sizes.dim, depths=(first, second, main), num_heads=sizes.heads,
                patch_size=sizes.patch_size, grid=(sizes.grid, sizes.grid), bias=sizes.bias,
                stem_ratio=sizes.stem_ratio, ratio=sizes.ratio, layer_scale=sizes.layer_scale,
                fast=sizes.gated, conv_stem=sizes.conv_stem, has_class_token=sizes.class_token,
            )
        )  # fmt: skip
    return Frozen(body.requires_grad_(False), sizes.input)


def describe(path: Path, asked: Transformer) -> tuple[str, Transformer]:
    """Kind and sizes of the transformer in a file; ("", asked) for an encoder of this system.

    Raises:
        ValueError: It is neither, or its sizes cannot be known.
    """
    file = find_weights(path, "encoder")
    header = _header(file)
    if header is not None:
        name, values = header
        if name == "ldc":
            model, sizes = values.get("model", {}), values.get("transformer", {})
            kind = model.get("kind", "")
            if kind in ("vit", "hivit"):
                sizes = {k: tuple(v) if k == "depths" else v for k, v in sizes.items()}
                return kind, Transformer(**sizes)
            return "", asked
        if name != "itpn":
            raise ValueError(f"encoder {file} has weights of {name}; those of ldc and itpn serve")
        return "hivit", _of_itpn(values, file, asked)
    try:
        state = read_checkpoint(file)
    except ValueError as error:
        raise ValueError(f"encoder {error}") from error
    if not is_dinov2(state):
        raise ValueError(
            f"encoder {file} has neither the header of a run nor the layout of DINOv2 (official or "
            "transformers'); files of LDC, CEC and iTPN are read by `tenfold convert` first"
        )
    found = describe_dinov2(state)
    heads = asked.heads or heads_beside(file) or found.dim // HEAD_CHANNELS
    if heads < 1 or found.dim % heads:
        raise ValueError(
            f"encoder {file} has {found.dim} channels, and nothing says how many heads; "
            "set --transformer.heads"
        )
    usual = min(USUAL_SIZE, found.grid * found.patch_size) // found.patch_size * found.patch_size
    return "vit", replace(
        asked,
        input=_input(asked.input or usual, found.patch_size),
        dim=found.dim, depths=(found.depth,), heads=heads, patch_size=found.patch_size,
        grid=found.grid, hidden=found.hidden, registers=found.registers, gated=found.gated,
        layer_scale=1.0 if found.layer_scale else 0.0,
    )  # fmt: skip


def state_of(path: Path, kind: str, target: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of an encoder under the names of `target`, all of them.

    Raises:
        ValueError: The file does not fit; every key that is missing, unused or of another shape is
            listed.
    """
    file = find_weights(path, "encoder")
    header = _header(file)
    if header is not None and header[0] == "itpn":
        return _backbone(file, header[1], target)
    if header is not None:
        given = checkpoint.read_tensors(file)
        own = {k.removeprefix("encoder."): v for k, v in given.items() if k.startswith("encoder.")}
        for key, value in target.items():
            if key not in own or own[key].shape != value.shape:
                has = tuple(own[key].shape) if key in own else "missing"
                raise ValueError(
                    f"{file}: encoder.{key} is {has}, this model needs {tuple(value.shape)}; set "
                    "--model.kind and --model.width as those weights have them"
                )
        return own
    shapes = {key.removeprefix("body."): tuple(value.shape) for key, value in target.items()}
    try:
        state = convert_dinov2(read_checkpoint(file), shapes).require_complete()
    except ValueError as error:
        raise ValueError(Lines(f"encoder {file}, {kind}: {error}")) from error
    return {f"body.{key}": value for key, value in state.items()}


def _header(file: Path) -> tuple[str, dict[str, Any]] | None:
    """System and configuration of a file of ours; None for one of others."""
    return checkpoint.read_header(file) if is_run(file) else None


def _input(side: int, patch: int) -> int:
    if side % patch:
        raise ValueError(
            f"transformer.input is {side}, no multiple of the encoder's patches of {patch} pixels; "
            f"set {max(1, round(side / patch)) * patch}"
        )
    return side


def _of_itpn(values: dict[str, Any], file: Path, asked: Transformer) -> Transformer:
    """Sizes of the backbone of an iTPN run, by its configuration."""
    model, tasks = values["model"], values["tasks"]
    if not any(task in tasks for task in TASKS):
        raise ValueError(
            f"encoder {file}: of iTPN runs those with a task of {', '.join(TASKS)} serve, it has "
            f"{', '.join(tasks)}"
        )
    patch = model["patch_size"]
    return replace(
        asked,
        input=_input(asked.input or model["size"], patch),
        normalise=values["data"]["normalise"],
        dim=model["embed_dim"], depths=tuple(model["depths"]), heads=model["heads"],
        patch_size=patch, grid=model["size"] // patch, gated=model["family"] == "fast",
        bias=model["bias"], stem_ratio=model["stem_ratio"], ratio=model["ratio"],
        layer_scale=model["layer_scale"], conv_stem=model["conv_stem"],
        class_token=model["class_token"],
    )  # fmt: skip


def _backbone(file: Path, values: dict[str, Any], target: dict[str, Tensor]) -> dict[str, Tensor]:
    """The backbone of an iTPN run; its pyramid and heads have no part in features."""
    task = next(task for task in TASKS if task in values["tasks"])
    prefix = f"{task}.backbone."
    given = {
        f"body.{key.removeprefix(prefix)}": value
        for key, value in checkpoint.read_tensors(file).items()
        if key.startswith(prefix)
    }
    wrong = [
        f"{key} is {tuple(given[key].shape) if key in given else 'missing'}, expected "
        f"{tuple(value.shape)}"
        for key, value in target.items()
        if key not in given or given[key].shape != value.shape
    ]
    if wrong:
        raise ValueError(f"encoder {file} does not fit its own configuration: {'; '.join(wrong)}")
    return {key: given[key] for key in target}
