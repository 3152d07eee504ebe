"""Weights of DINOv2's vision transformers, in the official layout and in that of transformers.

Official: facebookresearch/dinov2 (blocks in chunks too). transformers: Dinov2Model and
Dinov2WithRegistersModel, alone or inside a classifier.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .keymap import Converted, KeyMap, Rule

HEAD_CHANNELS = 64
"""Channels of an attention head in every published size; the weights do not say."""
LAYER = r"(?:dinov2(?:_with_registers)?\.)?encoder\.layer\.(\d+)\."
START = r"(?:dinov2(?:_with_registers)?\.)?"
BLOCK = r"blocks\.(?:\d+\.)?(\d+)\."
"""Number of a block, behind that of its chunk if blocks are in chunks."""


@dataclass(frozen=True)
class DinoLayout:
    """Sizes of a vision transformer, read from its shapes."""

    dim: int
    depth: int
    patch_size: int
    grid: int
    """Patches of a side of the picture for which positions are stored."""
    hidden: int
    registers: int
    gated: bool
    layer_scale: bool


def is_dinov2(state: Mapping[str, Tensor]) -> bool:
    """Return True if a state is a vision transformer in one of the two layouts."""
    names = _official(state)
    return {"cls_token", "pos_embed", "patch_embed.proj.weight", "norm.weight"} <= set(names)


def describe_dinov2(state: Mapping[str, Tensor]) -> DinoLayout:
    """The sizes of a vision transformer in either layout; ValueError if it is none."""
    own = _official(state)
    wanted = ("cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.norm1.weight")
    if absent := [key for key in wanted if key not in own]:
        raise ValueError(f"no vision transformer of DINOv2: it has no {', '.join(absent)}")
    kernel, table = own["patch_embed.proj.weight"], own["pos_embed"]
    if kernel.ndim != 4 or kernel.shape[1] != 3 or kernel.shape[2] != kernel.shape[3]:
        raise ValueError(f"patch_embed.proj.weight is {tuple(kernel.shape)}, not [dim, 3, p, p]")
    grid = math.isqrt(max(table.shape[1] - 1, 0)) if table.ndim == 3 else 0
    if grid < 1 or grid * grid + 1 != table.shape[1]:
        raise ValueError(
            f"pos_embed is {tuple(table.shape)}: a class token and a square grid of patches "
            "are expected"
        )
    gated = "blocks.0.mlp.w3.weight" in own
    last = own.get("blocks.0.mlp.w3.weight" if gated else "blocks.0.mlp.fc2.weight")
    if last is None or last.ndim != 2:
        raise ValueError("its first block has neither mlp.fc2.weight nor mlp.w3.weight")
    numbers = {int(m[1]) for key in own if (m := re.match(r"blocks\.(\d+)\.", key))}
    depth, dim = max(numbers) + 1, kernel.shape[0]
    if depth != len(numbers):
        raise ValueError(f"its blocks are numbered up to {depth - 1}, but there are {len(numbers)}")
    for number in range(depth):  # so that a network of these sizes is no larger than the file
        qkv = own.get(key := f"blocks.{number}.attn.qkv.weight")
        if qkv is None or tuple(qkv.shape) != (3 * dim, dim):
            has = "missing" if qkv is None else tuple(qkv.shape)
            raise ValueError(f"{key} is {has}, expected {(3 * dim, dim)}")
    registers = own.get("register_tokens")
    return DinoLayout(
        dim=dim,
        depth=depth,
        patch_size=kernel.shape[2],
        grid=grid,
        hidden=last.shape[1],
        registers=0 if registers is None else registers.shape[1],
        gated=gated,
        layer_scale="blocks.0.ls1.gamma" in own,
    )


def convert_dinov2(state: Mapping[str, Tensor], target: Mapping[str, tuple[int, ...]]) -> Converted:
    """The encoder's tensors under official names; every key of both sides is accounted for."""
    return key_map().convert(joined(state), target)


def joined(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state whose queries, keys and values are one tensor, as in the official layout."""
    found = dict(state)
    for key in state:
        match = re.fullmatch(rf"({LAYER}attention\.attention\.)query\.(weight|bias)", key)
        if match:
            names = [f"{match[1]}{part}.{match[3]}" for part in ("query", "key", "value")]
            if all(name in found for name in names):
                found[f"{match[1]}qkv.{match[3]}"] = torch.cat([found.pop(n) for n in names])
    return found


def key_map() -> KeyMap:
    """Both layouts to the official names."""
    both = r"(weight|bias)"
    rules = {
        r"(cls_token|pos_embed|register_tokens|patch_embed\.proj\.\w+|norm\.\w+)": r"\1",
        BLOCK + r"((?:norm[12]|attn\.qkv|attn\.proj|mlp\.\w+)\.\w+|ls[12]\.gamma)": r"blocks.\1.\2",
        START + r"embeddings\.(cls_token|register_tokens)": r"\1",
        START + r"embeddings\.position_embeddings": "pos_embed",
        START + r"embeddings\.patch_embeddings\.projection\." + both: r"patch_embed.proj.\1",
        START + r"layernorm\." + both: r"norm.\1",
        LAYER + r"(norm[12]|mlp\.fc[12])\." + both: r"blocks.\1.\2.\3",
        LAYER + r"attention\.attention\.qkv\." + both: r"blocks.\1.attn.qkv.\2",
        LAYER + r"attention\.output\.dense\." + both: r"blocks.\1.attn.proj.\2",
        LAYER + r"layer_scale([12])\.lambda1": r"blocks.\1.ls\2.gamma",
        LAYER + r"mlp\.weights_in\." + both: r"blocks.\1.mlp.w12.\2",
        LAYER + r"mlp\.weights_out\." + both: r"blocks.\1.mlp.w3.\2",
    }
    ignored = [
        (START + r"(?:embeddings\.)?mask_token", "only training masks patches"),
        (r"(?:classifier|head|linear_head)\..*", "a classifier, which the encoder does not need"),
    ]
    return KeyMap([Rule(*names) for names in rules.items()], ignored)


def _official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state under official names; what no rule knows is left out."""
    found, rules = {}, key_map().rules
    for key, value in joined(state).items():
        rule = next((r for r in rules if re.fullmatch(r.pattern, key)), None)
        if rule is not None:
            found[re.sub(rule.pattern, rule.replacement, key)] = value
    return found
