"""Weights of BERT as transformers has them: BertModel alone, or inside a model for a task."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from .keymap import Converted, KeyMap, Rule, require_shape

START = r"(?:bert\.)?"
LAYER = START + r"(encoder\.layer\.\d+\.)"
HEAD_CHANNELS = 64
"""Channels of an attention head in every size of Google's; the weights do not say, but the
config.json beside them does (MiniLM has 32)."""


@dataclass(frozen=True)
class BertLayout:
    """Sizes of a network, read from its shapes."""

    vocabulary: int
    dim: int
    depth: int
    hidden: int
    positions: int
    types: int
    has_pooler: bool


def describe_bert(state: Mapping[str, Tensor]) -> BertLayout:
    """The sizes of a BERT; ValueError if it is none."""
    own = _renamed(state)
    names = ("word", "position", "token_type")
    tables = [own.get(f"embeddings.{name}_embeddings.weight") for name in names]
    for name, table in zip(names, tables, strict=True):
        if table is None or table.ndim != 2:
            raise ValueError(
                f"no BERT of transformers: embeddings.{name}_embeddings.weight is "
                f"{'missing' if table is None else tuple(table.shape)}"
            )
    numbers = {int(m[1]) for key in own if (m := re.match(r"encoder\.layer\.(\d+)\.", key))}
    if not numbers or numbers != set(range(len(numbers))):
        raise ValueError("no BERT: its layers are not numbered from 0 without a gap")
    first = own.get("encoder.layer.0.intermediate.dense.weight")
    if first is None or first.ndim != 2:
        raise ValueError("no BERT: its first layer has no intermediate.dense.weight")
    words, places, kinds = (table.shape for table in tables if table is not None)
    for number in numbers:  # so that a network of these sizes is no larger than the file
        layer, dim = f"encoder.layer.{number}.", words[1]
        require_shape(own, f"{layer}attention.self.query.weight", dim, dim)
        require_shape(own, f"{layer}intermediate.dense.weight", first.shape[0], dim)
    has_pooler = "pooler.dense.weight" in own
    depth = len(numbers)
    return BertLayout(words[0], words[1], depth, first.shape[0], places[0], kinds[0], has_pooler)


def convert_bert(state: Mapping[str, Tensor], target: Mapping[str, tuple[int, ...]]) -> Converted:
    """The network's tensors under their names without `bert.`; every key is accounted for."""
    has_pooler = any(key.startswith("pooler.") for key in target)
    return key_map(has_pooler).convert(state, target)


def key_map(has_pooler: bool = True) -> KeyMap:
    """Names of transformers, and of checkpoints that came from TensorFlow, to the former."""
    norms = r"((?:embeddings|encoder\.layer\.\d+\.(?:attention\.)?output)\.LayerNorm)\."
    rules = {
        START + norms + r"(?:weight|gamma)": r"\1.weight",
        START + norms + r"(?:bias|beta)": r"\1.bias",
        START + r"(embeddings\.(?:word|position|token_type)_embeddings\.weight)": r"\1",
        LAYER + r"(attention\.self\.(?:query|key|value)\.\w+)": r"\1\2",
        LAYER + r"((?:attention\.output|intermediate|output)\.dense\.\w+)": r"\1\2",
        START + r"(pooler\.dense\.\w+)": r"\1",
    }
    ignored = [
        (START + r"embeddings\.position_ids", "places of tokens are computed"),
        (r"(?:cls|classifier|qa_outputs)\..*", "a task's head, which the encoder does not need"),
    ]
    if not has_pooler:
        ignored.append((START + r"pooler\..*", "the pooler of BERT's own training is not used"))
    return KeyMap([Rule(*names) for names in rules.items()], ignored)


def _renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state under our names; what no rule knows is left out."""
    found, rules = {}, key_map().rules
    for key, value in state.items():
        rule = next((r for r in rules if re.fullmatch(r.pattern, key)), None)
        if rule is not None:
            found[re.sub(rule.pattern, rule.replacement, key)] = value
    return found
