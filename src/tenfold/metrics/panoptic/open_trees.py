"""Open tree quality (COCOTree, 2026): masks, names and branches of trees of free words."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int64

from tenfold.structures import Tree, Unit

from . import codes
from .trees import paired

Similarity = Callable[[str, str], float]
"""Of two names, 0 to 1."""
THRESHOLD = 0.5
"""A pair has at least this IoU."""


@dataclass(frozen=True)
class OpenQuality:
    """Open tree quality of one picture, or the mean over several."""

    mq: float
    """Mean IoU of pairs."""
    lq: float
    """Mean similarity of their names."""
    nq: float
    """Mean product of both."""
    bq: float
    """Share of pairs of pairs with the same lowest common ancestor."""
    recovery: float
    """TP / (TP + FP / 2 + FN / 2)."""
    tq: float
    """Branches times recovery."""
    otq: float
    """That times `nq`."""


def plain(name: str) -> str:
    """A name in small letters, words divided by one space."""
    return " ".join(name.replace("_", " ").replace("-", " ").split()).lower()


def same(first: str, second: str) -> float:
    """1 for one name, else 0."""
    return float(plain(first) == plain(second) != "")


def otq(
    truth: Sequence[Tree],
    found: Sequence[Tree],
    similarity: Similarity = same,
    left_out: Collection[str] = ("others",),
) -> list[OpenQuality]:
    """Open tree quality of each picture; `mean` gives the number of a set.

    All units of a picture are paired at once, wherever they hang, by the assignment with the
    largest sum of IoU; pairs have at least 0.5. The published numbers measure names by a sentence
    encoder: give its cosine as `similarity`.

    Args:
        truth: A tree a picture.
        found: Those that were found, in the same order.
        similarity: Of two names.
        left_out: Names of units that are not measured.
    """
    return [_of_picture(true, seen, similarity, left_out) for true, seen in paired(truth, found)]


def mean(each: Sequence[OpenQuality]) -> OpenQuality:
    """The mean over pictures, each part by itself."""
    if not each:
        raise ValueError("there is no picture to take a mean over")
    names = OpenQuality.__dataclass_fields__
    return OpenQuality(**{n: float(np.mean([getattr(one, n) for one in each])) for n in names})


def _of_picture(
    truth: Tree, found: Tree, similarity: Similarity, left_out: Collection[str]
) -> OpenQuality:
    sides = [_measured(tree, left_out) for tree in (truth, found)]
    ious = codes.iou(*([unit.mask for unit in side] for side in sides))
    pairs = [pair for pair in codes.assigned(ious) if ious[pair] >= THRESHOLD]
    rows, columns = ([pair[i] for pair in pairs] for i in (0, 1))
    masks = ious[rows, columns]
    names = np.array(
        [similarity(sides[0][i].name, sides[1][j].name) for i, j in pairs], dtype=np.float64
    )
    weight = (len(sides[0]) + len(sides[1])) / 2  # = TP + FP / 2 + FN / 2
    recovery = len(pairs) / weight if weight else 0.0
    mq, lq, nq = (float(x.mean()) if pairs else 0.0 for x in (masks, names, masks * names))
    first = _common(truth, [sides[0][i].id for i in rows])
    second = _common(found, [sides[1][j].id for j in columns])
    upper = np.triu_indices(len(pairs), 1)
    bq = float((first == second)[upper].mean()) if len(pairs) > 1 else 1.0
    return OpenQuality(mq, lq, nq, bq, recovery, bq * recovery, bq * recovery * nq)


def _measured(tree: Tree, left_out: Collection[str]) -> list[Unit]:
    return [
        unit for unit in tree.units if unit.parent is not None and plain(unit.name) not in left_out
    ]


def _common(tree: Tree, chosen: Sequence[int]) -> Int64[np.ndarray, "unit unit"]:
    """Lowest common ancestor of each two of these units among them, as a place; -1 is none."""
    place = {number: i for i, number in enumerate(chosen)}
    above: Bool[np.ndarray, "unit unit"] = np.zeros((len(chosen), len(chosen)), dtype=bool)
    for i, number in enumerate(chosen):
        at: int | None = number
        while at is not None:
            if at in place:
                above[i, place[at]] = True
            at = tree.by_id[at].parent
    depth = above.sum(1)
    found = np.full(above.shape, -1, dtype=np.int64)
    for i in range(len(chosen)):
        shared = above & above[i]
        deepest: Float[np.ndarray, "unit unit"] = np.where(shared, depth, 0)
        found[i] = np.where(shared.any(1), deepest.argmax(1), -1)
    return found
