"""Mix Transformers: the layout of mmsegmentation by the names of the original, and sizes by shapes.

The original is NVlabs/SegFormer (mmseg/models/backbones/mix_transformer.py); mmsegmentation
(mmseg/models/backbones/mit.py) numbers stages and layers, packs queries, keys and values into one
tensor, and has 1x1 convolutions for linear layers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from .keymap import numbers_of, require_shape, shape_of

HEADS = (1, 2, 5, 8)
"""Of the stages of every published MiT; no shape says them."""
BLOCK = r"(.*?)layers\.(\d)\.1\.(\d+)\."
PACKED = r"(weight|bias)"
NAMES = (
    (r"(.*?)layers\.(\d)\.0\.projection\.(.+)", r"\1patch_embed+\2.proj.\3"),
    (r"(.*?)layers\.(\d)\.0\.norm\.(.+)", r"\1patch_embed+\2.norm.\3"),
    (r"(.*?)layers\.(\d)\.2\.(.+)", r"\1norm+\2.\3"),
    (BLOCK + r"(norm[12]|attn\.sr|attn\.norm)\.(.+)", r"\1block+\2.\3.\4.\5"),
    (BLOCK + r"attn\.attn\.out_proj\.(.+)", r"\1block+\2.\3.attn.proj.\4"),
    (BLOCK + r"ffn\.layers\.0\.(.+)", r"\1block+\2.\3.mlp.fc1.\4"),
    (BLOCK + r"ffn\.layers\.1\.(.+)", r"\1block+\2.\3.mlp.dwconv.dwconv.\4"),
    (BLOCK + r"ffn\.layers\.4\.(.+)", r"\1block+\2.\3.mlp.fc2.\4"),
)
"""Names in mmsegmentation, and the original; +N is the number after N."""
BACK = (
    (r"(.*?)patch_embed([1-4])\.proj\.(.+)", r"\1layers.-\2.0.projection.\3"),
    (r"(.*?)patch_embed([1-4])\.norm\.(.+)", r"\1layers.-\2.0.norm.\3"),
    (r"(.*?)norm([1-4])\.(weight|bias)", r"\1layers.-\2.2.\3"),
    (r"(.*?)block([1-4])\.(\d+)\.(norm[12]|attn\.sr|attn\.norm)\.(.+)", r"\1layers.-\2.1.\3.\4.\5"),
    (r"(.*?)block([1-4])\.(\d+)\.attn\.proj\.(.+)", r"\1layers.-\2.1.\3.attn.attn.out_proj.\4"),
    (r"(.*?)block([1-4])\.(\d+)\.mlp\.fc1\.(.+)", r"\1layers.-\2.1.\3.ffn.layers.0.\4"),
    (r"(.*?)block([1-4])\.(\d+)\.mlp\.dwconv\.dwconv\.(.+)", r"\1layers.-\2.1.\3.ffn.layers.1.\4"),
    (r"(.*?)block([1-4])\.(\d+)\.mlp\.fc2\.(.+)", r"\1layers.-\2.1.\3.ffn.layers.4.\4"),
)
"""The way back; -N is the number before N. Norms of blocks stand before those of stages."""


class MitLayout(NamedTuple):
    """Sizes of an encoder, by the shapes of its tensors."""

    dims: tuple[int, ...]
    heads: tuple[int, ...]
    depths: tuple[int, ...]
    reductions: tuple[int, ...]
    ratio: float
    """Hidden channels of the MLPs by those of the stage."""


def from_mmseg(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The original names for an encoder of mmsegmentation; every other key as it is."""
    found: dict[str, Tensor] = {}
    for key, value in state.items():
        packed = re.fullmatch(BLOCK + r"attn\.attn\.in_proj_" + PACKED, key)
        if packed and value.shape[0] % 3 == 0:
            prefix, stage, block, kind = packed.groups()
            name = f"{prefix}block{int(stage) + 1}.{block}.attn."
            dim = value.shape[0] // 3
            found[f"{name}q.{kind}"], found[f"{name}kv.{kind}"] = value.split([dim, 2 * dim])
            continue
        for pattern, name in NAMES:
            if re.fullmatch(pattern, key):
                key = re.sub(pattern, name, key)
                key = re.sub(r"\+(\d)", lambda match: str(int(match[1]) + 1), key)
                break
        if re.search(r"\.mlp\.fc[12]\.weight$", key) and value.shape[2:] == (1, 1):
            value = value.flatten(1)
        found[key] = value
    return found


def to_mmseg(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The names of mmsegmentation for an encoder of the original; every other key as it is."""
    found: dict[str, Tensor] = {}
    for key, value in state.items():
        match = re.fullmatch(r"(.*?)block([1-4])\.(\d+)\.attn\.(q|kv)\." + PACKED, key)
        if match:
            prefix, stage, block, part, kind = match.groups()
            if part == "q":
                name = f"{prefix}layers.{int(stage) - 1}.1.{block}.attn.attn.in_proj_{kind}"
                found[name] = torch.cat([value, state[key.replace(".q.", ".kv.")]])
            continue
        for pattern, name in sorted(BACK, key=lambda rule: "block" not in rule[0]):
            if re.fullmatch(pattern, key):
                key = re.sub(pattern, name, key)
                key = re.sub(r"-(\d)", lambda match: str(int(match[1]) - 1), key)
                break
        if re.search(r"\.ffn\.layers\.[04]\.weight$", key):
            value = value[:, :, None, None]
        found[key] = value
    return found


def describe_mit(state: Mapping[str, Tensor], prefix: str = "") -> MitLayout:
    """Sizes of an encoder under the original names, whose keys begin with `prefix`.

    Every block has its large tensors, so that a network of these sizes is no larger than the file.

    Raises:
        ValueError: A tensor is absent, or of another shape.
    """
    dims, depths, reductions, ratio = [], [], [], 0.0
    for i in range(1, 5):
        dim = shape_of(state, f"{prefix}patch_embed{i}.proj.weight", 4)[0]
        numbers = numbers_of(state, rf"{re.escape(prefix)}block{i}\.(\d+)\.")
        if numbers != list(range(len(numbers))) or not numbers:
            raise ValueError(f"the blocks of its stage {i} are numbered {numbers[:8]}, not from 0")
        first = f"{prefix}block{i}.0."
        square, hidden = 1, shape_of(state, f"{first}mlp.fc1.weight", 2)[0]
        if f"{first}attn.sr.weight" in state:
            square = shape_of(state, f"{first}attn.sr.weight", 4)[2]
        for number in numbers:
            block = f"{prefix}block{i}.{number}."
            for name, rows in (("attn.q", dim), ("attn.kv", 2 * dim), ("mlp.fc1", hidden)):
                require_shape(state, f"{block}{name}.weight", rows, dim)
            if square > 1:
                require_shape(state, f"{block}attn.sr.weight", dim, dim, square, square)
        dims.append(dim)
        depths.append(len(numbers))
        reductions.append(square)
        ratio = hidden / dim
    return MitLayout(tuple(dims), HEADS, tuple(depths), tuple(reductions), ratio)
