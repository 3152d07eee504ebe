"""CLIP's image encoder in the layout of OpenAI's files (openai/CLIP, MIT) and in transformers'."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from .clip_layers import block_rules, joined, layers_of, matrix, under_own_names
from .keymap import Converted, KeyMap, Rule

OWN = r"((?:class_embedding|positional_embedding|proj|conv1|ln_pre|ln_post|transformer)\b.*)"
RULES = (
    Rule(r"visual\." + OWN, r"\1"),
    Rule(r"vision_model\.embeddings\.class_embedding", "class_embedding"),
    Rule(r"vision_model\.embeddings\.patch_embedding\.weight", "conv1.weight"),
    Rule(r"vision_model\.embeddings\.position_embedding\.weight", "positional_embedding"),
    Rule(r"vision_model\.pre_layrnorm\.(.*)", r"ln_pre.\1"),  # so spelt
    Rule(r"vision_model\.post_layernorm\.(.*)", r"ln_post.\1"),
    Rule(r"visual_projection\.weight", "proj", lambda x: x.t(), lambda x: x.t()),
    *block_rules("vision"),
)
ALONE = (Rule(OWN, r"\1"),)
"""Names of a file that holds the image encoder alone."""
PLACES = (r"vision_model\.embeddings\.position_ids", "a list of numbers from 0")


@dataclass(frozen=True)
class ClipLayout:
    """Sizes of an image encoder, read from its shapes."""

    width: int
    layers: int
    patch_size: int
    grid: tuple[int, int]
    output_dim: int
    hidden: int = 0
    """Channels within the MLPs; 0: four times the width."""


def describe_clip(state: Mapping[str, Tensor]) -> ClipLayout:
    """The sizes of an image encoder; ValueError if it is none, or one of CLIP's ResNets."""
    own = under_own_names(state, RULES) or under_own_names(state, ALONE)
    wanted = ("class_embedding", "positional_embedding", "conv1.weight", "proj")
    absent = [key for key in wanted if key not in own]
    if absent:
        raise ValueError(
            f"the file has no {', '.join(absent)}; a CLIP vision transformer (ViT-B/16, ViT-L/14) "
            "is needed"
        )
    tokens = matrix(own, "positional_embedding")[0] - 1
    side = math.isqrt(max(tokens, 0))
    if side < 1 or side * side != tokens:
        raise ValueError(f"positional_embedding has {tokens} tokens, which make no square grid")
    kernel = tuple(own["conv1.weight"].shape)
    if len(kernel) != 4 or kernel[1] != 3 or kernel[2] != kernel[3] or not all(kernel):
        raise ValueError(
            f"conv1.weight is of shape {kernel}, where (width, 3, patch, patch) is due"
        )
    layers, hidden = layers_of(own, kernel[0])
    return ClipLayout(kernel[0], layers, kernel[3], (side, side), matrix(own, "proj")[1], hidden)


def convert_clip(state: Mapping[str, Tensor], target: Mapping[str, tuple[int, ...]]) -> Converted:
    """The image encoder's tensors under their names without `visual.`; the rest is listed."""
    if not under_own_names(state, RULES):
        return KeyMap(list(ALONE)).convert(state, target)
    rest = (r"(?!visual|vision_model).*", "CLIP's text encoder and scale, which no teacher needs")
    return KeyMap(list(RULES), [PLACES, rest]).convert(joined(state), target)
