"""Objects of a labelling page as its scripts have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .labelled import MARKS, Known
from .looking import Seen


def shown(one: Known, seen: Seen | None, image: int | None) -> dict[str, Any]:
    """An object with its mask, which is null while it is not known; `image` is its photo."""
    mask = one.mask if one.mask is not None else seen.mask if seen is not None else None
    return {
        "id": one.id,
        "image": image,
        "class": one.name,
        "box": list(one.box),
        "points": [[a.x, a.y, MARKS[a.label]] for a in one.answers if a.label in MARKS],
        "mask": None if mask is None else mask.rows(),
        "own_mask": one.mask is not None,
        "unsure": None if seen is None else round(seen.unsure, 4),
        "problem": "" if seen is None else seen.problem,
    }


def chip(one: Known, seen: Seen | None) -> dict[str, Any]:
    """An object in the list of what is next."""
    return {
        "id": one.id,
        "class": one.name,
        "name": one.image,
        "answers": len(one.answers),
        "unsure": None if seen is None else round(seen.unsure, 4),
    }


def curve(models: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """AP after so many answers, of the models of which it was measured."""
    found = [{"answers": 0, "ap": one.get("before")} for one in models[:1]]
    found += [{"answers": one["answers"], "ap": one["ap"]} for one in models]
    return [one for one in found if one["ap"] is not None]
