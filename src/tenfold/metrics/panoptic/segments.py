"""Panoptic quality of pictures in which every pixel belongs to one segment."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64, Integer

from tenfold.structures import Segments

from .counts import Counts, Quality, Table, joined

TABLE = 2**24
"""Largest number of a segment that is looked up in a table: three bytes, as COCO stores them."""
MOST_PAIRS = 2**26
"""Of numbers of segments of two pictures."""


def pq(truth: Sequence[Segments], found: Sequence[Segments]) -> Quality:
    """Panoptic quality (Kirillov et al., 2019), by the rules of COCO's panopticapi.

    Segments of one class are a pair if their IoU is over 0.5, true void pixels left out of the
    found one. A found segment without a pair is not wrong if over half of it is void or a crowd of
    its class. Two maps of a picture of 2 million pixels take some 50 ms.

    Raises:
        ValueError: The lists differ in length, two maps in size, or a pixel has a number that its
            picture does not list.
    """
    _same_length(truth, found)
    total: Table = {}
    for true, seen in zip(truth, found, strict=True):
        total = joined(total, of_picture(true, seen))
    return Quality(total)


def of_picture(truth: Segments, found: Segments) -> Table:
    """Counts of one picture."""
    shared, rows, columns = overlaps(truth, found)
    true_names = np.array([truth.names[n] for n in rows[1:]], dtype=object)
    found_names = np.array([found.names[n] for n in columns[1:]], dtype=object)
    crowd = np.array([n in truth.crowd for n in rows[1:]], dtype=bool)
    areas, sizes, inside = shared.sum(1)[1:], shared.sum(0)[1:], shared[1:, 1:]
    of_void = shared[0, 1:]
    same = true_names[:, None] == found_names[None]
    union = areas[:, None] + sizes[None] - inside - of_void[None]
    pairs = (2 * inside > union) & same & ~crowd[:, None] & (inside > 0)
    ious = np.where(pairs, inside / np.maximum(union, 1), 0.0)
    # more than half of a segment that is left may be void, or a crowd of its class
    excused = of_void + (inside * (same & crowd[:, None])).sum(0)
    wrong = (sizes > 0) & ~pairs.any(0) & (2 * excused <= sizes)
    missed = (areas > 0) & ~pairs.any(1) & ~crowd
    table: Table = {}
    for name in dict.fromkeys([*true_names.tolist(), *found_names.tolist()]):
        true, seen = true_names == name, found_names == name
        table[name] = Counts(
            int(pairs[true].sum()), int(wrong[seen].sum()), int(missed[true].sum()),
            float(ious[true].sum()),
        )  # fmt: skip
    return table


def overlaps(
    truth: Segments, found: Segments
) -> tuple[Int64[np.ndarray, "true seen"], list[int], list[int]]:
    """Pixels that each two segments share, and the numbers of rows and columns; void is first."""
    if truth.ids.shape != found.ids.shape:
        raise ValueError(
            f"{found.title} has {found.ids.shape[0]} x {found.ids.shape[1]} pixels (height x "
            f"width), its truth {truth.ids.shape[0]} x {truth.ids.shape[1]}"
        )
    true, seen = np.ascontiguousarray(truth.ids).ravel(), np.ascontiguousarray(found.ids).ravel()
    # segments are wide: only where one of the two changes along a row is there work
    changes = np.empty(true.shape, dtype=bool)
    changes[:1] = True
    np.not_equal(true[1:], true[:-1], out=changes[1:])
    changes[1:] |= seen[1:] != seen[:-1]
    starts = np.flatnonzero(changes)
    lengths = np.diff(starts, append=len(true))
    (first, rows), (second, columns) = places(truth, true, starts), places(found, seen, starts)
    if len(rows) * len(columns) > MOST_PAIRS:
        raise ValueError(
            f"{found.title}: {len(rows)} true and {len(columns)} found segments are more than "
            f"{MOST_PAIRS} pairs"
        )
    pairs = first * len(columns) + second
    counts = np.bincount(pairs, weights=lengths, minlength=len(rows) * len(columns))
    return counts.astype(np.int64).reshape(len(rows), len(columns)), rows, columns


def places(
    picture: Segments, ids: Integer[np.ndarray, " pixel"], at: Int64[np.ndarray, " run"]
) -> tuple[Int64[np.ndarray, " run"], list[int]]:
    """Place of some pixels' numbers in a list that starts with void, and that list."""
    numbers = [picture.void, *(int(n) for n in picture.names if n != picture.void)]
    here = ids[at]
    low, high = (int(here.min()), int(here.max())) if len(here) else (0, 0)
    if low >= 0 and max([high, *numbers]) < TABLE and min(numbers) >= 0:
        # zeros that nobody touches take no memory: most of so long a table
        table = np.zeros(max([high, *numbers]) + 1, dtype=np.int32)
        table[numbers] = np.arange(1, len(numbers) + 1)
        found = table[here].astype(np.int64) - 1
    else:
        order = np.argsort(numbers)
        place = np.searchsorted(numbers, here, sorter=order).clip(max=len(numbers) - 1)
        found = np.where(np.array(numbers)[order[place]] == here, order[place], -1)
    if len(found) and int(found.min()) < 0:
        row, column = divmod(int(at[int((found < 0).argmax())]), picture.ids.shape[1])
        raise ValueError(
            f"{picture.title}: pixel x {column}, y {row} has the number "
            f"{int(picture.ids[row, column])}, which is none of its {len(picture.names)} segments, "
            f"nor void ({picture.void})"
        )
    return found, numbers


def _same_length(truth: Sequence[object], found: Sequence[object]) -> None:
    if len(truth) != len(found):
        raise ValueError(f"there are {len(truth)} true pictures, but {len(found)} found ones")
