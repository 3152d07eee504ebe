"""The paper's claims at a scale that can be run here: regions of clothes from few labels of parts.

The paper's own tables could not be read, so no number of it stands beside ours.
"""

from __future__ import annotations

from dataclasses import replace

from tenfold.core.claim import Claim, Variant

from .config import Config, Separate
from .recipes import SMALL

METRIC = "iou/parts/mIoU"
TREES = "hpq/regions/all"
HIDDEN = ("jeans", "coat", "hat", "boots")
"""Garments whose labels are held back; each has near neighbours among the others."""
COLUMNS = (METRIC, TREES, "hpq/regions/level 1", "hpq/regions/level 2", "hpq/regions/level 3")
BASE = replace(SMALL, steps=1500, separate=Separate(network="none"))
SETTING = (
    "Clothes of street photos in three levels (person, groups, garments), a small network from "
    "scratch, texts of CLIP ViT-B/32 from a stored table. Parts are measured inside the wholes of "
    "the truth; HPQ is our reconstruction, of regions asked for from the whole picture down."
)


def _labelled(name: str, share: float, weight: float) -> Variant[Config]:
    data = replace(BASE.data, labelled=share)
    return Variant(
        name, replace(BASE, data=data, loss=replace(BASE.loss, part_others_weight=weight))
    )


def _hidden(name: str, cfg: Config) -> Variant[Config]:
    return Variant(name, replace(cfg, data=replace(cfg.data, hidden=HIDDEN)))


WEAK = _labelled("20 % labelled, weak others", 0.2, 0.01)
IGNORED = _labelled("20 % labelled, ignored", 0.2, 0.0)
ABSENT = _labelled("20 % labelled, taken for absent", 0.2, 1.0)
FULL = Variant("all labelled, weak others", BASE)
OTHERS = (
    IGNORED,
    FULL,
    _labelled("10 % labelled, weak others", 0.1, 0.01),
    _labelled("50 % labelled, weak others", 0.5, 0.01),
)
INDEX = Variant(
    "a learned vector a concept", replace(BASE, text=replace(BASE.text, source="learned"))
)


def claims() -> list[Claim[Config]]:
    """Few labels of parts, weak others against ignoring, texts as classes, a concept by text."""
    return [
        Claim(
            "Where most wholes have no labels of parts, what is unlabelled is better taken for "
            "others weakly than for absent.",
            ABSENT, WEAK, METRIC, "higher", None, SETTING, OTHERS, columns=COLUMNS,
        ),
        Claim(
            "Weak others also make better trees than ignoring what is unlabelled.",
            IGNORED, WEAK, TREES, "higher", None, SETTING,
        ),
        Claim(
            "Texts for classes lose nothing against learned vectors.",
            INDEX, FULL, METRIC, "higher", None, SETTING,
        ),
        Claim(
            "A concept that was never labelled is found by its text.",
            _hidden("learned vectors, four concepts hidden", INDEX.config),
            _hidden("texts, four concepts hidden", BASE),
            "iou/hidden/mIoU", "higher", None,
            f"{SETTING} Hidden in training: {', '.join(HIDDEN)}.",
        ),
    ]  # fmt: skip
