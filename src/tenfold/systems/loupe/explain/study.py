"""How good explanations are over many photos: means of the measures of each photo."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import UInt8

from tenfold.core.capabilities import DualEncoder

from ..faithfulness import Measured, mean_of
from .explanation import explain
from .judge import LESS, WHOLE, judge, word_map
from .options import Box, ExplainOptions


@dataclass(frozen=True)
class Case:
    """A photo, what is said of it, what is not, and the object that a word of it names."""

    photo: UInt8[np.ndarray, "height width 3"]
    sentence: str
    against: tuple[str, ...]
    word: str
    box: Box
    """Of the object, in pixels of the photo."""


def study(
    encoder: DualEncoder, cases: Iterable[Case], options: ExplainOptions
) -> dict[str, Measured]:
    """Measure explanations of all cases; each is drawn with a seed of its own.

    Returns:
        Mean and standard error over photos of R2 (`r2`) and of insertion less deletion in logits
        (`gain`), by the heat map, by pairs and pairs less heat map; of the pointing game: hits of
        the strongest patch (`hit`) and share of what is positive (`inside`) by the map of the
        whole sentence, of right less wrong, of the word's interactions, and by chance; and how
        often the right sentence has the highest logit (`right`).
    """
    found: dict[str, list[float]] = {}
    for number, case in enumerate(cases):
        box = ",".join(f"{v:g}" for v in case.box)
        asked = replace(options, against=case.against, box=box, seed=options.seed + number)
        match = explain(encoder, case.photo, case.sentence, asked)
        quality, said = judge(match), match.explanation
        index, word = next((i, w) for i, w in enumerate(said.words) if case.word in w.lower())
        maps = {"sentence": WHOLE, "right less wrong": LESS, "word": word_map(index, word)}
        heat, pairs = quality.by_heat.gain, quality.by_pairs.gain
        one = {
            "r2/heat map": quality.heat.value,
            "r2/pairs": quality.pairs.value,
            "r2/pairs less heat map": quality.pairs.value - quality.heat.value,
            "gain/heat map": heat,
            "gain/pairs": pairs,
            "gain/pairs less heat map": pairs - heat,
            "gain/random": quality.random.value,
            "chance": quality.pointing[WHOLE].chance,
            "right": float(said.logits[0] > max(said.logits[1:])),
        }
        for name, key in maps.items():
            one[f"hit/{name}"] = quality.pointing[key].hit
            one[f"inside/{name}"] = quality.pointing[key].inside
        for name, value in one.items():
            found.setdefault(name, []).append(value)
    return {name: mean_of(values) for name, values in found.items()}
