"""Agreement of the masks that an object gives wherever it is probed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tenfold.structures import Code

from . import codes

AGREES = 0.9
"""IoU from which two masks are the same object."""


@dataclass(frozen=True)
class ProbeQuality:
    """Masks of several probing pixels an object."""

    iou: float
    """Mean IoU with the true object."""
    recall: float
    """Share of probes whose mask has an IoU of at least 0.5."""
    consistency: float
    """Mean IoU of two masks of one object."""
    agreeing: float
    """Share of two masks of one object with an IoU of at least 0.9."""
    probes: int
    objects: int


def probe_quality(truth: Sequence[Code], found: Sequence[Sequence[Code]]) -> ProbeQuality:
    """Measure what probes of true objects returned (ViRReq, Type-II requests).

    Args:
        truth: Mask of each object.
        found: The masks of each object's probes; objects of one probe say nothing of consistency.

    Raises:
        ValueError: The lists differ in length, or no object was probed.
    """
    if len(truth) != len(found) or not any(found):
        raise ValueError(f"there are {len(truth)} objects and probes of {len(found)}")
    ious = np.concatenate(
        [codes.iou([t], list(f)).ravel() for t, f in zip(truth, found, strict=True)]
    )
    between = [
        codes.iou(list(masks), list(masks))[np.triu_indices(len(masks), 1)] for masks in found
    ]
    pairs = np.concatenate(between)
    return ProbeQuality(
        float(ious.mean()), float((ious >= 0.5).mean()),
        float(pairs.mean()) if len(pairs) else 1.0,
        float((pairs >= AGREES).mean()) if len(pairs) else 1.0,
        len(ious), sum(bool(masks) for masks in found),
    )  # fmt: skip
