"""The paper's claim at a scale that can be run here: emoji scenes, towers from scratch."""

from __future__ import annotations

from dataclasses import replace

from tenfold.core.claim import Claim, Numbers, Variant

from .config import Config, Loss
from .recipes import SMALL

GROUNDING = "grounding/regions/acc@0.3"
RETRIEVAL = "retrieval/t2i/R@1"
COLUMNS = (
    RETRIEVAL, "retrieval/i2t/R@1", "retrieval/both/rsum", GROUNDING, "grounding/regions/acc@0.5",
    "grounding/map/pointing", "grounding/map/acc@0.3", "grounding/random/acc@0.3",
    "grounding/untrained/acc@0.3", "detection/all names/AP@0.3", "detection/all names/AP@0.5",
    "ranking/right/AUC", "ranking/wrong caption/AUC", "ranking/difference/AUC",
    "retrieval xstyle/t2i/R@1", "grounding xstyle/regions/acc@0.3",
    "grounding xstyle/map/pointing", "detection xstyle/all names/AP@0.3",
)  # fmt: skip
SHARED = "contrastive, the first part"
"""Name of the run that all arms start from."""

_FIRST = replace(SMALL, loss=Loss(token=0.0, semantic=0.0))


def _arm(name: str, **weights: object) -> Variant[Config]:
    """Training that goes on from the first part, with other losses."""
    loss = replace(Loss(ramp=(0.0, 0.2)), **weights)  # type: ignore[arg-type]
    optim = replace(SMALL.optim, lr=SMALL.optim.lr / 2, warmup=20)
    return Variant(name, replace(SMALL, loss=loss, steps=400, optim=optim), after=SHARED)


FIRST = Variant(SHARED, _FIRST)
CONTRASTIVE = _arm("contrastive", token=0.0, semantic=0.0)
FINE = _arm("+ FILIP's fine loss", token=0.0, semantic=0.0, fine=1.0)
TOKEN = _arm("+ token level", semantic=0.0)
BOTH = _arm("+ both levels (LOUPE)")
KEPT = _arm("+ both levels, no gradient to the boxes", boxes="none")
DIFFERENCE = _arm("+ token level on J - J of other captions", semantic=0.0, target="difference")
TURNED = _arm(
    "+ token level on J of other captions - J", semantic=0.0, target="difference", turned=True
)
SETTING = (
    "emoji_scenes, towers of 0.9 million parameters from scratch. Every arm starts from what the "
    "contrastive loss alone of the same seed has learned, and has as many further steps; the "
    "weights of the proxies rise over the first fifth of these. xstyle: drawings of the second "
    "artist that no training has seen."
)


def claims() -> list[Claim[Config]]:
    """Grounding and retrieval against the contrastive loss, and what the difference brings."""
    return [
        Claim(
            "Interactions as labels of regions make a dual encoder find what a phrase names.",
            CONTRASTIVE, BOTH, GROUNDING, "higher",
            None, SETTING, (FIRST, TOKEN, DIFFERENCE, TURNED, FINE, KEPT), columns=COLUMNS,
        ),
        Claim(
            "Both levels together improve retrieval over the contrastive loss alone.",
            CONTRASTIVE, BOTH, RETRIEVAL, "higher",
            Numbers(75.0, 76.3, "Flickr30K, FILIP and LOUPE, text to image R@1, from memory"),
            SETTING,
        ),
        Claim(
            "Regions whose confidence learned from J less that under other captions ground better "
            "than those that learned from J.",
            TOKEN, DIFFERENCE, GROUNDING, "higher", None, SETTING,
        ),
        Claim(
            "Turning the sign of that difference makes them ground better still.",
            DIFFERENCE, TURNED, GROUNDING, "higher", None, SETTING,
        ),
    ]  # fmt: skip
