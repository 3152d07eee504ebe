"""CLIP's image encoder in the layout of OpenAI's files (openai/CLIP, MIT)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from .keymap import Converted, KeyMap, Rule

PREFIX = "visual."


@dataclass(frozen=True)
class ClipLayout:
    """Sizes of an image encoder, read from its shapes."""

    width: int
    layers: int
    patch_size: int
    grid: tuple[int, int]
    output_dim: int


def describe_clip(state: Mapping[str, Tensor]) -> ClipLayout:
    """The sizes of an image encoder; ValueError if it is none, or one of CLIP's ResNets."""
    own = {key.removeprefix(PREFIX): value for key, value in state.items()}
    wanted = ("class_embedding", "positional_embedding", "conv1.weight", "proj")
    absent = [key for key in wanted if key not in own]
    if absent:
        raise ValueError(
            f"the file has no {', '.join(absent)}; a CLIP vision transformer (ViT-B/16, ViT-L/14) "
            "is needed"
        )
    tokens = own["positional_embedding"].shape[0] - 1
    side = math.isqrt(max(tokens, 0))
    if side < 1 or side * side != tokens:
        raise ValueError(f"positional_embedding has {tokens} tokens, which make no square grid")
    numbers = [int(m[1]) for k in own if (m := re.match(r"transformer\.resblocks\.(\d+)\.", k))]
    if not numbers:
        raise ValueError("the file has no transformer.resblocks; it is no CLIP vision transformer")
    kernel = own["conv1.weight"].shape
    return ClipLayout(kernel[0], max(numbers) + 1, kernel[-1], (side, side), own["proj"].shape[1])


def convert_clip(state: Mapping[str, Tensor], target: Mapping[str, tuple[int, ...]]) -> Converted:
    """The image encoder's tensors under their names without `visual.`; the rest is listed."""
    has_prefix = any(key.startswith(PREFIX) for key in state)
    own = r"((?:class_embedding|positional_embedding|proj|conv1|ln_pre|ln_post|transformer)\b.*)"
    if not has_prefix:
        return KeyMap([Rule(own, r"\1")]).convert(state, target)
    rest = (r"(?!visual\.).*", "CLIP's text encoder and scale, which no teacher needs")
    return KeyMap([Rule(r"visual\." + own, r"\1")], [rest]).convert(state, target)
