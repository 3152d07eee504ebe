"""CLIP's text encoder in the layout of OpenAI's files (openai/CLIP, MIT) and in transformers'.

OpenAI's `ViT-B-32.pt` is a TorchScript archive, of which `containers` reads the tensors alone;
transformers' is CLIPModel or CLIPTextModelWithProjection.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .keymap import Converted, KeyMap, Rule

LAYER = r"text_model\.encoder\.layers\.(\d+)\."
RULES = (
    Rule(r"(text\.)?(positional_embedding|token_embedding\.weight|ln_final\..*)", r"\2"),
    Rule(r"(text\.)?(transformer\.resblocks\..*)", r"\2"),
    Rule(r"(?:text\.)?text_projection", "text_projection"),
    Rule(r"text_projection\.weight", "text_projection", lambda x: x.t(), lambda x: x.t()),
    Rule(r"text_model\.embeddings\.token_embedding\.weight", "token_embedding.weight"),
    Rule(r"text_model\.embeddings\.position_embedding\.weight", "positional_embedding"),
    Rule(r"text_model\.final_layer_norm\.(.*)", r"ln_final.\1"),
    Rule(LAYER + r"self_attn\.in_proj_(.*)", r"transformer.resblocks.\1.attn.in_proj_\2"),
    Rule(LAYER + r"self_attn\.out_proj\.(.*)", r"transformer.resblocks.\1.attn.out_proj.\2"),
    Rule(LAYER + r"layer_norm([12])\.(.*)", r"transformer.resblocks.\1.ln_\2.\3"),
    Rule(LAYER + r"mlp\.fc1\.(.*)", r"transformer.resblocks.\1.mlp.c_fc.\2"),
    Rule(LAYER + r"mlp\.fc2\.(.*)", r"transformer.resblocks.\1.mlp.c_proj.\2"),
)
IGNORED = (
    (r"(?:visual|vision_model|visual_projection)\..*", "the encoder of pictures"),
    (r"logit_scale|logit_bias", "the temperature of CLIP's training"),
    (r"text_model\.embeddings\.position_ids", "a list of numbers from 0"),
    (r"input_resolution|context_length|vocab_size|attn_mask", "no weight"),
)


@dataclass(frozen=True)
class ClipTextLayout:
    """Sizes of a text encoder, read from its shapes."""

    width: int
    layers: int
    dim: int
    """Numbers of a text's vector."""
    context: int
    vocabulary: int


def joined(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state whose queries, keys and values are one tensor, as in OpenAI's layout."""
    found = dict(state)
    for key in state:
        match = re.fullmatch(rf"({LAYER}self_attn\.)q_proj\.(weight|bias)", key)
        if match:
            names = [f"{match[1]}{part}_proj.{match[3]}" for part in "qkv"]
            if all(name in found for name in names):
                found[f"{match[1]}in_proj_{match[3]}"] = torch.cat([found.pop(n) for n in names])
    return found


def describe_clip_text(state: Mapping[str, Tensor]) -> ClipTextLayout:
    """The sizes of a text encoder in either layout; ValueError if it is none."""
    own = _official(state)
    wanted = ("token_embedding.weight", "positional_embedding", "text_projection")
    if absent := [key for key in wanted if key not in own]:
        raise ValueError(
            f"the file has no {', '.join(absent)}; a CLIP with its text encoder is needed "
            "(OpenAI's .pt, or transformers' CLIPModel)"
        )
    (vocabulary, width), (context, wide), (rows, dim) = (_matrix(own, key) for key in wanted)
    if wide != width or rows != width:
        raise ValueError(
            f"token_embedding has {width} channels, positional_embedding {wide}, text_projection "
            f"{rows}; they should be equal"
        )
    pattern = r"transformer\.resblocks\.(\d+)\."
    numbers = sorted({int(m[1]) for key in own if (m := re.match(pattern, key))})
    if not numbers or numbers != list(range(len(numbers))):
        raise ValueError(f"its layers are numbered {numbers[:8]}, not from 0")
    for number in numbers:  # so that a network of these sizes is no larger than the file
        key = f"transformer.resblocks.{number}.attn.in_proj_weight"
        if key not in own or tuple(own[key].shape) != (3 * width, width):
            has = tuple(own[key].shape) if key in own else "missing"
            raise ValueError(f"{key} is {has}, expected {(3 * width, width)}")
    return ClipTextLayout(width, len(numbers), dim, context, vocabulary)


def convert_clip_text(
    state: Mapping[str, Tensor], target: Mapping[str, tuple[int, ...]]
) -> Converted:
    """The text encoder's tensors under OpenAI's names; every key of both sides is accounted for."""
    return KeyMap(list(RULES), list(IGNORED)).convert(joined(state), target)


def _official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found = {}
    for key, value in joined(state).items():
        rule = next((r for r in RULES if re.fullmatch(r.pattern, key)), None)
        if rule is not None:
            known = rule.transform(value) if rule.transform and value.ndim == 2 else value
            found[re.sub(rule.pattern, rule.replacement, key)] = known
    return found


def _matrix(state: Mapping[str, Tensor], key: str) -> tuple[int, int]:
    shape = tuple(state[key].shape)
    if len(shape) != 2 or not all(shape):
        raise ValueError(f"{key} is of shape {shape}, where a matrix is expected")
    return shape[0], shape[1]
