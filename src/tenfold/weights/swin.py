"""Weights of Swin transformers by the names of transformers 4 and 5.

SwinModel alone or inside a classifier.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from .keymap import Converted, KeyMap, Rule, require_shape

START = r"(?:swin\.)?"
BLOCK = START + r"(encoder\.layers\.\d+\.blocks\.\d+\.)"
BOTH = r"(weight|bias)"


@dataclass(frozen=True)
class SwinLayout:
    """Sizes of a network, read from its shapes."""

    dim: int
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    window: int
    patch_size: int
    hidden: float


def describe_swin(state: Mapping[str, Tensor]) -> SwinLayout:
    """The sizes of a Swin in either version's names; ValueError if it is none."""
    own = _renamed(state)
    kernel = own.get("embeddings.patch_embeddings.projection.weight")
    if kernel is None or kernel.ndim != 4 or kernel.shape[1] != 3:
        raise ValueError(
            "no Swin transformer of transformers: embeddings.patch_embeddings.projection.weight is "
            f"{'missing' if kernel is None else tuple(kernel.shape)}"
        )
    blocks = {
        (int(m[1]), int(m[2]))
        for key in own
        if (m := re.match(r"encoder\.layers\.(\d+)\.blocks\.(\d+)\.", key))
    }
    stages = 1 + max((stage for stage, _ in blocks), default=-1)
    depths = tuple(sum(stage == s for stage, _ in blocks) for s in range(stages))
    if not blocks or blocks != {(s, b) for s, depth in enumerate(depths) for b in range(depth)}:
        raise ValueError("no Swin transformer: its blocks are not numbered from 0 without a gap")
    heads, hidden, window = [], 0.0, 0
    for stage in range(stages):
        first = f"encoder.layers.{stage}.blocks.0."
        bias = first + "attention.relative_position_bias.relative_position_bias_table"
        table, mlp = own.get(bias), own.get(first + "mlp.fc1.weight")
        if table is None or table.ndim != 2 or mlp is None or mlp.ndim != 2:
            raise ValueError(f"block 0 of stage {stage} has no table of biases or no MLP")
        window = (math.isqrt(table.shape[0]) + 1) // 2
        heads.append(table.shape[1])
        hidden = mlp.shape[0] / max(1, mlp.shape[1])
    # so that a network of these sizes is no larger than the file
    for stage, block in sorted(blocks):
        key, dim = f"encoder.layers.{stage}.blocks.{block}.", kernel.shape[0] << stage
        require_shape(own, f"{key}attention.q_proj.weight", dim, dim)
        require_shape(own, f"{key}mlp.fc1.weight", int(hidden * dim), dim)
    return SwinLayout(kernel.shape[0], depths, tuple(heads), window, kernel.shape[2], hidden)


def convert_swin(state: Mapping[str, Tensor], target: Mapping[str, tuple[int, ...]]) -> Converted:
    """The network's tensors under the fifth version's names; every key is accounted for."""
    return key_map().convert(state, target)


def key_map() -> KeyMap:
    """Both versions to the fifth's names."""
    table = "relative_position_bias_table"
    rules = {
        START + r"(embeddings\.patch_embeddings\.projection\.\w+|embeddings\.norm\.\w+)": r"\1",
        START + r"(encoder\.layers\.\d+\.downsample\.(?:reduction|norm)\.\w+)": r"\1",
        START + r"(layernorm\.\w+)": r"\1",
        BLOCK + r"(layernorm_(?:before|after)\.\w+)": r"\1\2",
        BLOCK + r"((?:mlp\.fc[12]|attention\.[qkvo]_proj)\.\w+)": r"\1\2",
        BLOCK + rf"attention\.(?:self|relative_position_bias)\.{table}": (
            rf"\1attention.relative_position_bias.{table}"
        ),
        BLOCK + rf"attention\.self\.([qkv])(?:uery|ey|alue)\.{BOTH}": r"\1attention.\2_proj.\3",
        BLOCK + rf"attention\.output\.dense\.{BOTH}": r"\1attention.o_proj.\2",
        BLOCK + rf"intermediate\.dense\.{BOTH}": r"\1mlp.fc1.\2",
        BLOCK + rf"output\.dense\.{BOTH}": r"\1mlp.fc2.\2",
    }
    ignored = [
        (r".*\.relative_position_index", "which row of a table is of which distance is computed"),
        (START + r"embeddings\.mask_token", "only training masks patches"),
        (r"classifier\..*", "a classifier, which the encoder does not need"),
    ]
    return KeyMap([Rule(*names) for names in rules.items()], ignored)


def _renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state under the fifth version's names; what no rule knows is left out."""
    found, rules = {}, key_map().rules
    for key, value in state.items():
        rule = next((r for r in rules if re.fullmatch(r.pattern, key)), None)
        if rule is not None:
            found[re.sub(rule.pattern, rule.replacement, key)] = value
    return found
