"""The paper's claim at a scale that can be run here."""

from __future__ import annotations

from dataclasses import replace

from tenfold.core.claim import Claim, Numbers, Variant

from .config import Config, Groups
from .evaluation import TARGET_STATISTICS
from .recipes import SMALL

METRIC = "iou/deployed/mIoU"


def _groups(name: str, **changes: str) -> Variant[Config]:
    groups: Groups = replace(SMALL.groups, **changes)  # type: ignore[arg-type]
    return Variant(f"DTS {name}", replace(SMALL, groups=groups))


_ALONE = replace(SMALL, method="host", groups=replace(SMALL.groups, deploy="student1"))
DTS = Variant("DTS s+tt, cross", SMALL)
LONG = Variant("DACS, twice the steps", replace(_ALONE, steps=2 * SMALL.steps))
DACS = Variant("DACS", _ALONE)
ENSEMBLE = _groups("s+st, own: two of DACS", recipe="s+st", provider="own", deploy="ensemble")
SOURCE = Variant("source only", replace(_ALONE, method="source", steps=SMALL.source_steps))
OTHERS = (
    SOURCE,
    Variant(TARGET_STATISTICS, SOURCE.config, TARGET_STATISTICS),
    DACS,
    ENSEMBLE,
    _groups("s+tt, own", provider="own"),
    _groups("s+tt, mean", provider="mean"),
    _groups("s+tt, 1to2", provider="1to2"),
    _groups("s+tt, 2to1", provider="2to1"),
    _groups("st+tt, cross", recipe="st+tt"),
    _groups("s+tt, cross, both teachers", deploy="ensemble"),
)
SETTING = (
    "All start from a network of the same seed trained on the labelled source. DTS trains two "
    "students a step, so that DACS with twice the steps costs as much."
)
PAPER = Numbers(75.9, 76.5, "GTA5 to Cityscapes, MIC and MIC with DTS (abstract)")


def claims() -> list[Claim[Config]]:
    """Against the host at equal cost, and adaptation against none."""
    return [
        Claim(
            "Two groups of teacher and student that teach each other beat one trained twice as "
            "long.",
            LONG, DTS, METRIC, "higher", PAPER, SETTING, OTHERS,
        ),
        Claim(
            "Self-training on unlabelled target images beats training on the source alone.",
            SOURCE, DACS, METRIC, "higher", None, SETTING,
        ),
    ]  # fmt: skip
