"""Outlines of masks along the borders of their pixels, for tools that draw no masks."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int64

from .crops import Crop

Corners = Int64[np.ndarray, "_ 2"]
"""x y of corners, the last joined to the first."""
STEPS = {(1, 0): 0, (0, 1): 1, (-1, 0): 2, (0, -1): 3}
"""Directions, of which each is the last one turned right (y points down)."""


def outlines(mask: Crop) -> list[Corners]:
    """A polygon for each part of a mask whose pixels share sides, in pixels of the picture.

    Corners are corners of pixels, so that pycocotools draws exactly the mask again. A hole is
    joined to the outline around it by a cut without width, walked there and back.
    """
    from scipy.ndimage import find_objects, label

    if not mask.counts:
        return []
    numbers, _ = label(mask.decode())
    found = []
    for number, place in enumerate(find_objects(numbers), 1):
        loops = _loops(numbers[place] == number)
        corner = (mask.x + place[1].start, mask.y + place[0].start)
        found.append(_joined(loops) + np.array(corner))
    return found


def _loops(part: Bool[np.ndarray, "height width"]) -> list[Corners]:
    """Borders of one part: the outer one clockwise and first, then those of holes, the other way.

    Each step has the part on its right; where two pixels touch in a corner, the right turn stays
    with the same pixel.
    """
    padded = np.pad(part, 1)
    inner = padded[1:-1, 1:-1]
    leaving: dict[tuple[int, int], list[tuple[int, int]]] = {}
    sides = (
        (padded[:-2, 1:-1], (0, 0), (1, 0)), (padded[1:-1, 2:], (1, 0), (0, 1)),
        (padded[2:, 1:-1], (1, 1), (-1, 0)), (padded[1:-1, :-2], (0, 1), (0, -1)),
    )  # fmt: skip
    for beside, (right, down), step in sides:
        for y, x in np.argwhere(inner & ~beside).tolist():
            leaving.setdefault((x + right, y + down), []).append(step)
    loops = [_walked(leaving, min(leaving, key=lambda place: (place[1], place[0])))]
    while leaving:
        loops.append(_walked(leaving, next(iter(leaving))))
    return loops


def _walked(
    leaving: dict[tuple[int, int], list[tuple[int, int]]], start: tuple[int, int]
) -> Corners:
    """Walk a border once round, taking its steps out of those that are left."""
    corners: list[tuple[int, int]] = []
    place, last = start, (0, 0)
    while True:
        steps = leaving[place]
        step = steps[0]
        if len(steps) > 1 and last in STEPS:
            step = next(s for s in steps if STEPS[s] == (STEPS[last] + 1) % 4)
        steps.remove(step)
        if not steps:
            del leaving[place]
        if step != last:
            corners.append(place)
        place, last = (place[0] + step[0], place[1] + step[1]), step
        if place == start:
            return np.array(corners, dtype=np.int64)


def _joined(loops: list[Corners]) -> Corners:
    """One outline of a border and of those of its holes."""
    whole = loops[0]
    for hole in loops[1:]:
        away = ((whole[:, None] - hole[None]) ** 2).sum(2)
        i, j = divmod(int(away.argmin()), len(hole))
        around = np.concatenate([hole[j:], hole[: j + 1]])
        whole = np.concatenate([whole[: i + 1], around, whole[i:]])
    return whole
