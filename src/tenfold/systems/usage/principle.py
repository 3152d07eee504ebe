"""The sign of the temperature: spread an under-activated map, concentrate an over-activated one.

USAGE fixes it by the family of the network (CNNs under-activate, transformers over-activate: its
abstract). Here it follows from what a baseline (average pooling, tau = 0) does: from its errors of
both kinds where masks exist, else from where the classifier finds its evidence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .seed_metrics import Curve

Family = Literal["cnn", "transformer"]
START = 0.2
"""|tau| to begin with; from 0.5 on seeds were lost in our measurements."""


@dataclass(frozen=True)
class Recommendation:
    """A temperature to begin with, and why."""

    tau: float
    reason: str

    def __str__(self) -> str:
        """The temperature with its reason."""
        return f"tau {self.tau:+.1f}: {self.reason}"


def recommend_tau(curve: Curve, size: float = START) -> Recommendation:
    """The temperature by FP and FN of the baseline's seeds at their best threshold.

    More wrongly activated pixels than missed ones: the maps are too wide, tau is positive.
    """
    return by_errors(float(curve.fp[curve.best]), float(curve.fn[curve.best]), size)


def by_errors(fp: float, fn: float, size: float = START) -> Recommendation:
    """The temperature by wrongly activated and by missed pixels, in percent of the union."""
    numbers = f"FP {fp:.1f} and FN {fn:.1f}"
    if fp > fn:
        return Recommendation(size, f"{numbers}: over-activated, the maps should concentrate")
    if fn > fp:
        return Recommendation(-size, f"{numbers}: under-activated, the maps should spread")
    return Recommendation(0.0, f"{numbers}: balanced, average pooling stays")


def by_evidence(kept: float, removed: float, size: float = START) -> Recommendation:
    """The temperature without masks: by the score of the seed alone and of the picture without it.

    Both as shares of the whole picture's score, at the label-free threshold, on the baseline. Much
    evidence outside the seed is object that the map missed; little is a seed wide enough.
    """
    numbers = f"the seed alone keeps {kept:.0%} of the score, the rest {removed:.0%}"
    if kept > removed:
        return Recommendation(size, f"{numbers}: nothing is missed, the maps may concentrate")
    if removed > kept:
        return Recommendation(-size, f"{numbers}: object lies outside, the maps should spread")
    return Recommendation(0.0, f"{numbers}: balanced, average pooling stays")


def by_family(family: Family, size: float = START) -> Recommendation:
    """The temperature by the kind of network alone (our reading of the paper's abstract)."""
    if family == "cnn":
        return Recommendation(-size, "CNNs under-activate (the paper's reading)")
    return Recommendation(size, "transformers over-activate (the paper's reading)")
