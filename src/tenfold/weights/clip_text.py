"""CLIP's text encoder in the layout of OpenAI's files (openai/CLIP, MIT) and in transformers'.

OpenAI's `ViT-B-32.pt` is a TorchScript archive, of which `containers` reads the tensors alone;
transformers' is CLIPModel or CLIPTextModelWithProjection.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from .clip_layers import block_rules, joined, layers_of, matrix, under_own_names
from .keymap import Converted, KeyMap, Rule

RULES = (
    Rule(r"(text\.)?(positional_embedding|token_embedding\.weight|ln_final\..*)", r"\2"),
    Rule(r"(text\.)?(transformer\.resblocks\..*)", r"\2"),
    Rule(r"(?:text\.)?text_projection", "text_projection"),
    Rule(r"text_projection\.weight", "text_projection", lambda x: x.t(), lambda x: x.t()),
    Rule(r"text_model\.embeddings\.token_embedding\.weight", "token_embedding.weight"),
    Rule(r"text_model\.embeddings\.position_embedding\.weight", "positional_embedding"),
    Rule(r"text_model\.final_layer_norm\.(.*)", r"ln_final.\1"),
    *block_rules("text"),
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
    hidden: int = 0
    """Channels within the MLPs; 0: four times the width."""


def describe_clip_text(state: Mapping[str, Tensor]) -> ClipTextLayout:
    """The sizes of a text encoder in either layout; ValueError if it is none."""
    own = under_own_names(state, RULES)
    wanted = ("token_embedding.weight", "positional_embedding", "text_projection")
    if absent := [key for key in wanted if key not in own]:
        raise ValueError(
            f"the file has no {', '.join(absent)}; a CLIP with its text encoder is needed "
            "(OpenAI's .pt, or transformers' CLIPModel)"
        )
    (vocabulary, width), (context, wide), (rows, dim) = (matrix(own, key) for key in wanted)
    if wide != width or rows != width:
        raise ValueError(
            f"token_embedding has {width} channels, positional_embedding {wide}, text_projection "
            f"{rows}; they should be equal"
        )
    layers, hidden = layers_of(own, width)
    return ClipTextLayout(width, layers, dim, context, vocabulary, hidden)


def convert_clip_text(
    state: Mapping[str, Tensor], target: Mapping[str, tuple[int, ...]]
) -> Converted:
    """The text encoder's tensors under OpenAI's names; every key of both sides is accounted for."""
    return KeyMap(list(RULES), list(IGNORED)).convert(joined(state), target)
