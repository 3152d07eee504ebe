"""Scores of the token game: how well a coalition of an image's patches fits a text.

The paper scores the patches that are kept by their similarity with the text; whether by the global
vectors or by the finest similarities, and what an absent patch counts as, it does not say, so each
way is a score here. All of them are 0 for no patch. `fine_zero` is submodular (half of it is a sum
over patches, half a mean of maxima), so that the interaction J(R) of no region is above 0: patches
of one object, which say the same, get the lowest. `global_cosine` has both signs.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from .games import SummedTokens
from .games.exact import Score

Patches = Float[Tensor, "patch dim"]
Words = Float[Tensor, "word dim"]
Coalitions = Bool[Tensor, "coalition patch"]


def global_cosine(patches: Patches, text: Float[Tensor, " dim"]) -> SummedTokens:
    """Cosine of the sum of the kept patches with the text."""
    return SummedTokens(patches, text)


def contrast(patches: Patches, texts: Float[Tensor, "text dim"], scale: float) -> Score:
    """Logarithm of the first text's share among all texts, less that of no patch, log(1 / texts).

    Args:
        patches: Those of the image.
        texts: Its own text first, then others.
        scale: Factor on cosines before the softmax.
    """
    directions = F.normalize(texts, dim=1)

    def score(masks: Tensor) -> Tensor:
        kept = F.normalize(masks.to(patches.dtype) @ patches, dim=1)
        shares = (scale * kept @ directions.T).log_softmax(1)
        return shares[:, 0] + math.log(len(texts))

    return score


def similarities(
    patches: Patches, words: Words, is_word: Bool[Tensor, " word"] | None = None
) -> Float[Tensor, "patch kept"]:
    """Cosines of patches with the words that are none of padding."""
    if is_word is not None:
        if not is_word.any():
            raise ValueError("a text without a word has no fine-grained similarity")
        words = words[is_word]
    return F.normalize(patches, dim=1) @ F.normalize(words, dim=1).T


def fine_drop(alike: Float[Tensor, "patch word"]) -> Score:
    """FILIP's similarity of the kept patches alone: means over them, maxima among them."""

    def score(masks: Tensor) -> Tensor:
        inside = masks.to(alike.dtype)
        of_patches = inside @ alike.amax(1) / inside.sum(1).clamp(min=1)
        best = alike.masked_fill(~masks[:, :, None], -torch.inf).amax(1).mean(1)
        return ((of_patches + best) / 2).masked_fill(~masks.any(1), 0)

    return score


def fine_zero(alike: Float[Tensor, "patch word"]) -> Score:
    """FILIP's similarity with absent patches at 0: fixed divisors, no similarity below 0."""
    positive = alike.clamp(min=0)

    def score(masks: Tensor) -> Tensor:
        inside = masks.to(alike.dtype)
        of_patches = inside @ positive.amax(1) / len(positive)
        best = (positive * inside[:, :, None]).amax(1).mean(1)
        return (of_patches + best) / 2

    return score


def encoder(encode: Callable[[Tensor], Tensor], text: Float[Tensor, " dim"]) -> Score:
    """Cosine of what an encoder makes of the image without its absent patches, with the text.

    The game as one would play it with any encoder, at the price of an encoding a coalition. What
    the encoder makes of an image without any patch is taken off, so that no patch has the value 0.

    Args:
        encode: Masks of kept patches (coalition, patch) to vectors (coalition, dim).
        text: A vector.
    """
    direction = F.normalize(text, dim=0)
    nothing: list[Tensor] = []

    def cosine(masks: Tensor) -> Tensor:
        return F.normalize(encode(masks), dim=1) @ direction

    def score(masks: Tensor) -> Tensor:
        if not nothing:
            nothing.append(cosine(torch.zeros_like(masks[:1])))
        return cosine(masks) - nothing[0]

    return score
