"""Class activation maps: how they are joined with attention, and brought to [0, 1].

Sources: PSA, IRN (jiwoon-ahn/psa, jiwoon-ahn/irn), MCTformer V2 and + (xulianuwa/MCTformer).
"""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from torch import Tensor

Maps = Float[Tensor, "*batch class rows columns"]
Join = Literal["product", "root"]

EPS = 1e-5
"""Added to the largest value that a map is divided by (PSA, IRN, SEAM)."""
RANGE_EPS = 1e-8
"""Added to the range that a map is divided by (MCTformer)."""


def joined(
    maps: Maps, attention: Float[Tensor, "*batch _ rows columns"], join: Join
) -> Float[Tensor, "*batch class rows columns"]:
    """Maps above 0 times what the class tokens attend to, or the root of that.

    `attention` may have one class for all. Source: MCTformer's `fused`, V2 and +.
    """
    found = maps.relu() * attention
    return found.sqrt() if join == "root" else found


def spread(maps: Maps, affinity: Float[Tensor, "*batch place place"]) -> Maps:
    """Each place gets the sum over all places of affinity times map (MCTformer)."""
    found = maps.flatten(-2) @ affinity.mT
    return found.unflatten(-1, maps.shape[-2:])


def by_largest(maps: Maps) -> Maps:
    """Each map divided by its largest value; none is below 0 (PSA, IRN)."""
    return maps / (maps.amax((-2, -1), keepdim=True) + EPS)


def by_range(maps: Maps) -> Maps:
    """Each map from 0, its least value, to 1, its largest (MCTformer)."""
    least = maps.amin((-2, -1), keepdim=True)
    return (maps - least) / (maps.amax((-2, -1), keepdim=True) - least + RANGE_EPS)
