"""Motion of lows from one state to the next: where one is expected, and which is which. (ours)

A storm that is sought around its last position is lost for another one as soon as states lie
further apart than storms do. So it is sought where it would be if it went on as before, and the
storms near it are followed, too: those of a state are shared out among them all so that the squared
distances from where they are expected are least. Where two pass each other their pressures have one
lowest point for a while; then both go on as before until there are two again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import linear_sum_assignment

from tenfold.metrics.weather import great_circle_km

Place = tuple[float, float]
"""Latitude and longitude, degrees."""
MEMORY = 6.0
"""Hours over which motion is measured at least: in shorter steps a storm jumps between points."""
APART_KM = 150.0
"""Distance below which two lowest points belong to one storm."""
MERGED = 3
"""States in a row for which two storms may have one lowest point; then one has swallowed the other.
"""
NEVER = 1e15
"""Squared km that no assignment takes: storms do not go there."""


@dataclass
class Trail:
    """Sightings of one low."""

    places: list[tuple[float, Place]] = field(default_factory=list)
    """Hour and place, the last `MEMORY` hours and the one before."""
    merged: int = 0
    """States in a row in which it had its place together with another low."""

    @property
    def last(self) -> Place | None:
        """Place where it was seen last."""
        return self.places[-1][1] if self.places else None

    def see(self, hour: float, place: Place, alone: bool = True) -> None:
        """Enter a sighting, later than all others; one shared with another low says no motion."""
        self.merged = 0 if alone else self.merged + 1
        if not alone and len(self.places) > 1 and self.merged <= MERGED:
            return
        self.places.append((hour, place))
        while len(self.places) > 2 and hour - self.places[1][0] >= MEMORY:
            del self.places[0]

    def hours_since(self, hour: float) -> float:
        """Hours since it was seen last."""
        return hour - self.places[-1][0] if self.places else 0.0

    def moved_km(self, hour: float) -> float | None:
        """Distance it goes until that hour if it goes on as before; None after one sighting."""
        if len(self.places) < 2:
            return None
        (first, start), (last, end) = self.places[0], self.places[-1]
        return float(great_circle_km(*start, *end)) * (hour - last) / (last - first)

    def expected(self, hour: float) -> Place | None:
        """Where it is at that hour if it goes on along its great circle as before."""
        if len(self.places) < 2:
            return self.last
        (first, start), (last, end) = self.places[0], self.places[-1]
        return continued(start, end, (hour - last) / (last - first))


def continued(start: Place, end: Place, share: float) -> Place:
    """The place beyond `end` on the great circle from `start`, by a share of their distance."""
    a, b = _vector(start), _vector(end)
    angle = math.atan2(float(np.linalg.norm(np.cross(a, b))), float(a @ b))
    if not 1e-9 < angle < math.pi - 1e-6:
        return end
    further = angle * (1 + share)
    x, y, z = (a * math.sin(angle - further) + b * math.sin(further)) / math.sin(angle)
    return math.degrees(math.atan2(z, math.hypot(x, y))), math.degrees(math.atan2(y, x))


def _vector(place: Place) -> np.ndarray:
    lat, lon = np.radians(place)
    return np.array([math.cos(lat) * math.cos(lon), math.cos(lat) * math.sin(lon), math.sin(lat)])


def assigned(
    expected: Sequence[Place], limits: Sequence[float], found: Sequence[Place]
) -> list[int | None]:
    """Number of the place found that belongs to each expected one, or None for none.

    Args:
        expected: Where storms should be.
        limits: Distance in km that each may be from there. To be without a place costs the largest
            of them, for all alike: else one that was missed for long would take another's.
        found: Where storms are.
    """
    if not found:
        return [None] * len(expected)
    there = np.array(found)
    cost = np.full((len(expected), len(found) + len(expected)), NEVER)
    for row, (place, limit) in enumerate(zip(expected, limits, strict=True)):
        squared = great_circle_km(*place, there[:, 0], there[:, 1]) ** 2
        cost[row, : len(found)] = np.where(squared <= limit**2, squared, NEVER)
        cost[row, len(found) + row] = max(limits) ** 2
    columns = linear_sum_assignment(cost)[1].tolist()
    return [column if column < len(found) else None for column in columns]


def with_merged(
    chosen: Sequence[int | None],
    expected: Sequence[Place],
    found: Sequence[Place],
    apart: float,
) -> list[int | None]:
    """The same, and for what got nothing the place of another within `apart` km of where it is."""
    taken = sorted({number for number in chosen if number is not None})
    shared = list(chosen)
    for row, place in enumerate(expected):
        if chosen[row] is None and taken:
            far = [float(great_circle_km(*place, *found[number])) for number in taken]
            if min(far) <= apart:
                shared[row] = taken[far.index(min(far))]
    return shared
