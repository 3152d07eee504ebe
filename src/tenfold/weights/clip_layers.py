"""Blocks of CLIP's transformers, as transformers names them and as OpenAI does.

transformers keeps queries, keys and values apart, OpenAI has them in one tensor.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from .keymap import Rule

LAYER = r"(text|vision)_model\.encoder\.layers\.(\d+)\."
HEAD_CHANNELS = 64
"""Channels of an attention head in every size of OpenAI's; the weights do not say."""
PARTS = (
    ("self_attn.out_proj", "attn.out_proj"),
    ("layer_norm1", "ln_1"),
    ("layer_norm2", "ln_2"),
    ("mlp.fc1", "mlp.c_fc"),
    ("mlp.fc2", "mlp.c_proj"),
)
"""Modules of a block: transformers' names and OpenAI's."""


def block_rules(tower: str) -> tuple[Rule, ...]:
    """From transformers' names of a tower ("text" or "vision"), queries, keys and values joined."""
    layer = rf"{tower}_model\.encoder\.layers\.(\d+)\."
    whole = Rule(layer + r"self_attn\.in_proj_(.*)", r"transformer.resblocks.\1.attn.in_proj_\2")
    others = (
        Rule(layer + re.escape(theirs) + r"\.(.*)", rf"transformer.resblocks.\1.{ours}.\2")
        for theirs, ours in PARTS
    )
    return (whole, *others)


def joined(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state whose queries, keys and values are one tensor, as in OpenAI's layout."""
    found = dict(state)
    for key in state:
        match = re.fullmatch(rf"({LAYER}self_attn\.)q_proj\.(weight|bias)", key)
        if match:
            names = [f"{match[1]}{part}_proj.{match[4]}" for part in "qkv"]
            if all(name in found for name in names):
                found[f"{match[1]}in_proj_{match[4]}"] = torch.cat([found.pop(n) for n in names])
    return found


def parted_blocks(state: Mapping[str, Tensor], prefix: str, tower: str) -> dict[str, Tensor]:
    """The way back: the blocks of a tower, whose names begin with `prefix`, as transformers'."""
    found: dict[str, Tensor] = {}
    names = {ours: theirs for theirs, ours in PARTS}
    for key, value in state.items():
        match = re.fullmatch(re.escape(prefix) + r"transformer\.resblocks\.(\d+)\.(.*)", key)
        if not match:
            continue
        layer = f"{tower}_model.encoder.layers.{match[1]}."
        if match[2].startswith("attn.in_proj_"):
            kind = match[2].removeprefix("attn.in_proj_")
            for part, one in zip("qkv", value.chunk(3), strict=True):
                found[f"{layer}self_attn.{part}_proj.{kind}"] = one.contiguous()
        else:
            module, _, kind = match[2].rpartition(".")
            found[f"{layer}{names[module]}.{kind}"] = value
    return found


def layers_of(state: Mapping[str, Tensor], width: int) -> tuple[int, int]:
    """Layers under `transformer.resblocks` and hidden channels of their MLPs.

    ValueError where the numbers of layers have a gap or their shapes do not fit: a network of these
    sizes is no larger than the file.
    """
    pattern = r"transformer\.resblocks\.(\d+)\."
    numbers = sorted({int(m[1]) for key in state if (m := re.match(pattern, key))})
    if not numbers or numbers != list(range(len(numbers))):
        raise ValueError(f"its layers are numbered {numbers[:8]}, not from 0")
    first = state.get("transformer.resblocks.0.mlp.c_fc.weight")
    hidden = 4 * width if first is None or first.ndim != 2 else first.shape[0]
    for number in numbers:
        for part, rows in (("attn.in_proj_weight", 3 * width), ("mlp.c_fc.weight", hidden)):
            key = f"transformer.resblocks.{number}.{part}"
            if key not in state or tuple(state[key].shape) != (rows, width):
                has = tuple(state[key].shape) if key in state else "missing"
                raise ValueError(f"{key} is {has}, expected {(rows, width)}")
    return len(numbers), hidden


def matrix(state: Mapping[str, Tensor], key: str) -> tuple[int, int]:
    """Rows and columns of a tensor; ValueError if it is no matrix."""
    shape = tuple(state[key].shape)
    if len(shape) != 2 or not all(shape):
        raise ValueError(f"{key} is of shape {shape}, where a matrix is expected")
    return shape[0], shape[1]


def under_own_names(
    state: Mapping[str, Tensor], rules: tuple[Rule, ...], ignored: tuple[tuple[str, str], ...] = ()
) -> dict[str, Tensor]:
    """A state under OpenAI's names; what no rule knows is left out."""
    found = {}
    for key, value in joined(state).items():
        rule = next((r for r in rules if re.fullmatch(r.pattern, key)), None)
        if rule is not None and not any(re.fullmatch(pattern, key) for pattern, _ in ignored):
            known = rule.transform(value) if rule.transform and value.ndim == 2 else value
            found[re.sub(rule.pattern, rule.replacement, key)] = known
    return found
