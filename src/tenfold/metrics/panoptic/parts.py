"""Part-aware panoptic quality (de Geus et al., CVPR 2021), by the rules of its evaluator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Int64

from tenfold.structures import PartMap

from .counts import Counts, Quality, Table, joined
from .segments import MOST_PAIRS

UNKNOWN = 255
"""Part of a found pixel that belongs to a part, but nobody knows to which: not a false positive."""


@dataclass(frozen=True)
class PartClasses:
    """Classes that are measured; every other number is void."""

    names: Mapping[int, str]
    """Class by number."""
    things: frozenset[int]
    with_parts: frozenset[int] = field(default=frozenset())
    """Classes whose overlap is the mean IoU of their parts."""


CITYSCAPES_PARTS = PartClasses(
    {
        7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole",
        19: "traffic light", 20: "traffic sign", 21: "vegetation", 22: "terrain", 23: "sky",
        24: "person", 25: "rider", 26: "car", 27: "truck", 28: "bus", 31: "train",
        32: "motorcycle", 33: "bicycle",
    },
    frozenset({24, 25, 26, 27, 28, 31, 32, 33}),
    frozenset({24, 25, 26, 27, 28}),
)  # fmt: skip
"""The 19 classes and 23 parts of Cityscapes Panoptic Parts (panoptic_parts' default evalspec)."""


def part_pq(
    truth: Sequence[PartMap], found: Sequence[PartMap], classes: PartClasses = CITYSCAPES_PARTS
) -> Quality:
    """PartPQ: PQ in which the overlap of a pair of a class with parts is that of its parts.

    A pair has an IoU of the whole over 0.5. Its part overlap is the mean IoU over the parts that
    are true or found there, and over "no part", which counts the pixels outside of both wholes.
    True wholes without a pixel of a part are left out: what is found there is not wrong. Pixels of
    a true whole without a part do not count.

    Raises:
        ValueError: The lists differ in length, or two maps in size.
    """
    if len(truth) != len(found):
        raise ValueError(f"there are {len(truth)} true pictures, but {len(found)} found ones")
    total: Table = {name: Counts() for name in classes.names.values()}
    for true, seen in zip(truth, found, strict=True):
        total = joined(total, _of_picture(true, seen, classes))
    return Quality(total)


@dataclass(frozen=True)
class _Cells:
    """Pixels grouped by (class, instance, part); the arrays tell of each group."""

    sids: Int64[np.ndarray, " cell"]
    iids: Int64[np.ndarray, " cell"]
    pids: Int64[np.ndarray, " cell"]


def _cells(picture: PartMap) -> tuple[Int64[np.ndarray, " pixel"], _Cells]:
    """The group of each pixel."""
    parts = [np.asarray(x, dtype=np.int64).ravel() for x in (picture.sids, picture.iids)]
    parts.append(np.maximum(np.asarray(picture.pids, dtype=np.int64).ravel(), 0))
    for name, values, limits in zip(
        ("classes", "instances", "parts"), parts, ((0, 9999), (-1, 99_999), (0, 255)), strict=True
    ):
        low, high = (int(values.min()), int(values.max())) if len(values) else (0, 0)
        if low < limits[0] or high > limits[1]:
            raise ValueError(
                f"{picture.title}: {name} are numbered {low} to {high}, allowed are {limits[0]} to "
                f"{limits[1]}"
            )
    sids, iids, pids = parts
    code = (sids * 100_001 + iids + 1) * 256 + pids
    # bands of a picture repeat their neighbour: only where the code changes is there work
    starts = np.flatnonzero(np.diff(code, prepend=-1))
    numbers, of_start = np.unique(code[starts], return_inverse=True)
    cell = np.repeat(of_start, np.diff(starts, append=len(code)))
    rest, part = np.divmod(numbers, 256)
    return cell, _Cells(rest // 100_001, rest % 100_001 - 1, part)


def _of_picture(truth: PartMap, found: PartMap, classes: PartClasses) -> Table:
    shapes = {x.shape for one in (truth, found) for x in (one.sids, one.iids, one.pids)}
    if len(shapes) > 1:
        raise ValueError(f"{found.title}: the maps of it and its truth have sizes {sorted(shapes)}")
    (first, true), (second, seen) = _cells(truth), _cells(found)
    if len(true.sids) * len(seen.sids) > MOST_PAIRS:
        raise ValueError(f"{found.title} has more than {MOST_PAIRS} pairs of parts with its truth")
    shared = np.bincount(
        first * len(seen.sids) + second, minlength=len(true.sids) * len(seen.sids)
    ).reshape(len(true.sids), len(seen.sids))
    void = ~np.isin(true.sids, list(classes.names))
    of_void = shared[void].sum(0)
    return {
        name: _of_class(sid, sid in classes.things, sid in classes.with_parts, shared, true, seen,
                        void, of_void)
        for sid, name in classes.names.items()
    }  # fmt: skip


def _of_class(
    sid: int,
    thing: bool,
    parted: bool,
    shared: Int64[np.ndarray, "true seen"],
    true: _Cells,
    seen: _Cells,
    void: np.ndarray,
    of_void: np.ndarray,
) -> Counts:
    """Counts of one class, from the pixels that groups share."""
    rows, columns = np.flatnonzero(true.sids == sid), np.flatnonzero(seen.sids == sid)
    crowd = np.zeros(len(void), dtype=bool)
    wholes = []
    for instance in np.unique(true.iids[rows]):
        own = rows[true.iids[rows] == instance]
        if (thing and instance < 0) or (parted and not true.pids[own].any()):
            crowd[own] = True
        else:
            wholes.append(own)
    segments = [columns[seen.iids[columns] == i] for i in np.unique(seen.iids[columns])]
    out = void | crowd
    tp, quality, paired = 0, 0.0, set()
    for own in wholes:
        area = int(shared[own].sum())
        for j, other in enumerate(segments):
            inside = int(shared[np.ix_(own, other)].sum())
            if not inside:
                continue
            union = area + int(shared[:, other].sum()) - inside - int(of_void[other].sum())
            if 2 * inside > union:
                tp += 1
                paired.add(j)
                parts = _part_iou(own, other, shared, true, seen, out) if parted else 0.0
                quality += parts if parted else inside / union
    fp = 0
    for j, other in enumerate(segments):
        excused = int(shared[np.ix_(np.flatnonzero(out), other)].sum())
        if j not in paired and 2 * excused <= int(shared[:, other].sum()):
            fp += 1
    return Counts(tp, fp, len(wholes) - tp, quality)


def _part_iou(
    own: np.ndarray,
    other: np.ndarray,
    shared: Int64[np.ndarray, "true seen"],
    true: _Cells,
    seen: _Cells,
    out: np.ndarray,
) -> float:
    """Mean IoU over the parts of a pair, "no part" included."""
    found_part = np.zeros(shared.shape[1], dtype=np.int64)
    found_part[other] = seen.pids[other]
    labels = np.unique(np.concatenate([[0], true.pids[own], seen.pids[other]]))
    place = np.searchsorted(labels, found_part)
    matrix = np.zeros((len(labels), len(labels)), dtype=np.int64)
    outside = ~out
    outside[own] = False
    np.add.at(matrix[0], place, shared[outside].sum(0))
    for row in own[true.pids[own] > 0]:  # pixels of the whole without a part do not count
        np.add.at(matrix[np.searchsorted(labels, true.pids[row])], place, shared[row])
    here = (matrix.sum(0) + matrix.sum(1) > 0) & (labels != UNKNOWN)
    union = matrix.sum(0) + matrix.sum(1) - matrix.diagonal()
    return float((matrix.diagonal()[here] / union[here]).mean())
