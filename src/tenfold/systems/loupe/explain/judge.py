"""How good an explanation is: on coalitions that it has not seen, and as an order of players."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..faithfulness import (
    Curves,
    Measured,
    Pointing,
    by_pairs,
    by_value,
    curves,
    explained_share,
    mean_of,
    pointing,
    random_orders,
)
from ..games import crossed
from .explanation import Match, Progress

FRESH = 4
"""Coalitions of the photo that are drawn anew: one for so many of the explanation's."""
LEAST = 16
WHOLE, LESS = "patches for the whole sentence", "the same, right less wrong"
"""Maps that should point to the box, beside those of words."""
RANDOM = 5
"""Orders that know nothing."""


@dataclass(frozen=True)
class Quality:
    """The heat map (players alone) beside pairs of players too."""

    heat: Measured
    """R2 on fresh coalitions."""
    pairs: Measured
    has_patch_pairs: bool
    """Whether pairs of patches are in the second, too: it takes two coalitions for each."""
    by_heat: Curves
    by_pairs: Curves
    random: Measured
    """Gain of orders that know nothing."""
    random_curves: tuple[Curves, ...]
    pointing: dict[str, Pointing]
    """Maps that should show the box, if one was given."""


def judge(match: Match, say: Progress = lambda line: None) -> Quality:
    """Measure an explanation; it encodes a quarter as many photos anew, and those of the curves."""
    said, options = match.explanation, match.explanation.options
    generator = torch.Generator().manual_seed(options.seed + 1)
    count = max(LEAST, options.pictures // FRESH, len(said.players) + 2)
    fresh = crossed.Side(crossed.masks(len(said.players), count, options.p, generator))
    texts = crossed.side(len(said.words), options.texts, options.p, generator)
    say(f"{count} fresh coalitions of the photo, then photos patch by patch")
    values = said.scale * match.photo(fresh.masks) @ match.sentence(texts.masks).T
    heat, pairs = (
        crossed.polynomial(match.found, match.first, match.second, order) for order in (1, 2)
    )
    shares = [
        explained_share(values, game.crossed(fresh.masks, texts.masks), fresh, texts)
        for game in (heat, pairs)
    ]

    def score(masks: Bool[Tensor, "coalition player"]) -> Float[Tensor, " coalition"]:
        cut = len(said.players)
        both = match.photo(masks[:, :cut]) * match.sentence(masks[:, cut:])
        return said.scale * both.sum(1)

    order = by_value(heat.players)
    random = tuple(curves(score, one, one) for one in random_orders(len(order), RANDOM, generator))
    maps = {}
    if said.box is not None:
        maps[WHOLE] = said.shown.value[:, 0]
        if said.against:
            maps[LESS] = said.shown.value[:, 1]
        for i, word in enumerate(said.words):
            maps[word_map(i, word)] = said.pairs.value[:, i]
    return Quality(
        heat=shares[0],
        pairs=shares[1],
        has_patch_pairs=crossed.enough(match.first),
        by_heat=curves(score, order, order),
        by_pairs=curves(score, by_pairs(pairs, insert=True), by_pairs(pairs, insert=False)),
        random=mean_of([one.gain for one in random]),
        random_curves=random,
        pointing={}
        if said.box is None
        else {name: pointing(map_, said.box.members) for name, map_ in maps.items()},
    )


def word_map(number: int, word: str) -> str:
    """Name of the map of a word, which may stand in the sentence twice."""
    return f"{number + 1} {word}"
