"""Outlines of masks along the borders of their pixels, as polygons that other tools draw."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool

Polygon = list[tuple[int, int]]
"""Corners x, y."""


def polygons_of(mask: Bool[np.ndarray, "height width"]) -> list[Polygon]:
    """A polygon for each piece of a mask; filled by even and odd, they give it back.

    Pieces that touch at a corner are two. A hole is joined to the outline by a seam that is gone
    there and back, as such tools have no polygons with holes.
    """
    from scipy import ndimage

    labels, _ = ndimage.label(mask)
    found = []
    for number, place in enumerate(ndimage.find_objects(labels), 1):
        down, right = place
        loops = [_corners(loop) for loop in _loops(labels[place] == number)]
        outer = min(range(len(loops)), key=lambda i: min(loops[i]))
        outline = loops[outer]
        for hole in (loop for i, loop in enumerate(loops) if i != outer):
            outline = _seamed(outline, hole)
        found.append([(x + right.start, y + down.start) for x, y in outline])
    return found


def _loops(piece: Bool[np.ndarray, "height width"]) -> list[Polygon]:
    """Closed walks along the borders of a piece, its pixels to the right."""
    padded = np.pad(piece, 1)
    inner = padded[1:-1, 1:-1]
    # border -> the steps that start at a corner: a pixel's upper border is gone from left to right
    steps: dict[tuple[int, int], list[tuple[int, int]]] = {}
    sides = (
        (inner & ~padded[:-2, 1:-1], (0, 0), (1, 0)), (inner & ~padded[1:-1, 2:], (1, 0), (0, 1)),
        (inner & ~padded[2:, 1:-1], (1, 1), (-1, 0)), (inner & ~padded[1:-1, :-2], (0, 1), (0, -1)),
    )  # fmt: skip
    for border, (x, y), step in sides:
        for row, column in np.argwhere(border).tolist():
            steps.setdefault((column + x, row + y), []).append(step)
    loops = []
    while steps:
        start = next(iter(steps))
        at, heading, loop = start, (0, 0), []
        while at in steps:
            ways = steps[at]
            # where two pixels touch at a corner, turn right and stay at the same pixel
            right = (-heading[1], heading[0])
            way = right if right in ways else ways[0]
            ways.remove(way)
            if not ways:
                del steps[at]
            loop.append(at)
            at, heading = (at[0] + way[0], at[1] + way[1]), way
            if at == start:
                break
        loops.append(loop)
    return loops


def _corners(loop: Polygon) -> Polygon:
    """A closed walk without the points that lie within a straight stretch."""
    points = np.array(loop)
    before, after = points - np.roll(points, 1, 0), np.roll(points, -1, 0) - points
    turns = before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]
    return [(int(x), int(y)) for x, y in points[turns]]


def _seamed(outline: Polygon, hole: Polygon) -> Polygon:
    """An outline with a hole, joined from the corner that is nearest to the hole's first."""
    x, y = hole[0]
    near = min(range(len(outline)), key=lambda i: abs(outline[i][0] - x) + abs(outline[i][1] - y))
    return [*outline[: near + 1], *hole, hole[0], *outline[near:]]
