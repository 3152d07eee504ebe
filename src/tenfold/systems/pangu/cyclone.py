"""Follows a cyclone through forecast states, one state at a time.

Longitudes come out in the convention of the grid; any is taken in. Grids may be global or regional,
with rows from north to south or south to north, and have missing points (NaN).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from tenfold.metrics.weather import EARTH_KM, Position, great_circle_km

from .config import Thresholds
from .following import APART_KM, MERGED, Trail, assigned, with_merged
from .lows import check_grid, minima, vorticity


class Tracker:
    """Follows one storm; give it one state after another, whatever the time between them."""

    def __init__(
        self,
        lat: Float[np.ndarray, " lat"],
        lon: Float[np.ndarray, " lon"],
        start: tuple[float, float],
        thresholds: Thresholds | None = None,
        periodic: bool = True,
    ) -> None:
        """Grid in degrees; (lat, lon) of the storm in its first state or a step before.

        Errors: no grid, or a start further from every grid point than the search radius.
        """
        check_grid(lat, lon, periodic)
        self.lat, self.lon, self.periodic = lat.astype(np.float64), lon.astype(np.float64), periodic
        self.thresholds = thresholds or Thresholds()
        self.start = start
        self.trail = Trail()
        """Sightings of the storm."""
        self.missed = 0
        """States without pressure near the storm since it was last seen."""
        self.unseen = 0
        """States in which there was pressure but no storm since then."""
        self.ended = ""
        """Reason why the storm is followed no longer; empty while it is."""
        self._rivals: list[Trail] = []
        self._hour, self._every = math.nan, math.nan
        steps = np.abs(np.diff(self.lat)).max(), np.diff(self.lon).max()
        self._spacing = EARTH_KM * math.radians(float(max(steps)))
        if not (abs(start[0]) <= 90 and abs(start[1]) <= 360):
            raise ValueError(f"start {start} is no latitude and longitude in degrees.")
        nearest = float(self._distance(start, slice(None)).min())
        if nearest > self.thresholds.radius_km:
            raise ValueError(
                f"start {start} is {nearest:.0f} km from the nearest point of the grid, beyond the "
                f"search radius of {self.thresholds.radius_km} km. Give (latitude, longitude)."
            )

    @property
    def last(self) -> tuple[float, float]:
        """Last position at which the storm was seen by itself; the start before that."""
        return self.trail.last or self.start

    def step(
        self,
        hour: float,
        msl: Float[np.ndarray, "lat lon"] | None,
        u: Float[np.ndarray, "lat lon"] | None = None,
        v: Float[np.ndarray, "lat lon"] | None = None,
        u10: Float[np.ndarray, "lat lon"] | None = None,
        v10: Float[np.ndarray, "lat lon"] | None = None,
        land: Float[np.ndarray, "lat lon"] | None = None,
        thickness: Float[np.ndarray, "lat lon"] | None = None,
    ) -> Position | None:
        """The storm in the state of that hour, or None: then `ended` says whether to go on.

        Pressure in Pa, winds of the vorticity level and at 10 m in m/s, land 0 to 1 (None: sea),
        thickness in any unit; hours rise. The storm is sought around where it would be if it went
        on as before, and the storms near it are followed, too, so that it is not taken for one of
        them (ours: see `following`). A test for which nothing is known near a minimum is left
        out, and named in `Position.skipped`. A state without pressure there is passed over, and so
        is a state without the storm, `Thresholds.patience` and `Thresholds.unseen` times.
        """
        if self.ended:
            return None
        if self.trail.places:  # hours before the first sighting have no meaning
            self._every = min(hour - self._hour, self._every if self._every > 0 else math.inf)
        self._hour = hour
        centre, reach = self.trail.expected(hour) or self.start, self._reach(self.trail, hour)
        wide = reach + self._radius(self.trail, hour)  # whence a rival may come until next time
        rows = self._rows(centre, wide)
        if rows is None:
            self.ended = f"the storm left the grid before hour {hour:g}"
            return None
        given = (msl, u, v, u10, v10, land, thickness)
        pressure, u, v, u10, v10, land, thick = (self._cut(field, rows) for field in given)
        distance = self._distance(centre, rows)
        if not np.isfinite(pressure[distance <= reach]).any():
            self.missed += 1
            if distance.min() > reach:
                self.ended = f"the storm left the grid before hour {hour:g}"
            elif self.missed > self.thresholds.patience:
                self.ended = f"no pressure in {self.missed} states up to hour {hour:g}"
            return None
        spin = vorticity(u, v, self.lat[rows], self.lon, self.periodic)
        peaks = thick
        if self.thresholds.thickness:
            highest = minima(-thick, self.periodic).astype(float)
            peaks = np.where(np.isfinite(thick), highest, np.nan)
        evidence = (spin, np.hypot(u10, v10), peaks, land)
        storms: list[Position] = []
        faults: list[str] = []
        candidates = np.argwhere(minima(pressure, self.periodic) & (distance <= wide))
        # argwhere goes by rows and columns, and the sort is stable: so ties are won by the first.
        for i, j in candidates[np.argsort(distance[tuple(candidates.T)], kind="stable")]:
            found = self._judge(hour, (int(i), int(j)), rows, pressure, evidence)
            if isinstance(found, Position):
                storms.append(found)
            elif distance[i, j] <= reach:
                faults.append(found)
        position = self._choose(hour, storms, centre, reach)
        if position is not None:
            self.missed = self.unseen = 0
            return position
        self.unseen += 1
        if not self.trail.places or self.unseen > self.thresholds.unseen:
            why = f"; the nearest has {faults[0]}" if faults else ""
            self.ended = f"no minimum that is a storm within {reach:.0f} km at hour {hour:g}{why}"
        return None

    def _choose(
        self, hour: float, storms: list[Position], centre: tuple[float, float], reach: float
    ) -> Position | None:
        """Share the storms out among the one that is followed and its rivals."""
        trails = [self.trail, *self._rivals]
        expected = [centre, *(trail.expected(hour) or centre for trail in self._rivals)]
        limits = [reach, *(self._reach(trail, hour) for trail in self._rivals)]
        places = [(p.lat, p.lon) for p in storms]
        chosen = assigned(expected, limits, places)
        seen = with_merged(chosen, expected, places, self.thresholds.vorticity_radius_km)
        for trail, number in zip(trails, seen, strict=True):
            if number is not None:
                trail.see(hour, places[number], alone=seen.count(number) == 1)
        self._rivals = [
            trail
            for trail, own, any_ in zip(self._rivals, chosen[1:], seen[1:], strict=True)
            if own is not None or (any_ is not None and trail.merged <= MERGED)
        ]
        here = self.last if seen[0] is None else places[seen[0]]
        for number, place in enumerate(places):
            # What lies nearer belongs to the storm itself: its lowest points are often several.
            if number not in seen and great_circle_km(*here, *place) > APART_KM:
                self._rivals.append(Trail([(hour, place)]))
        return None if seen[0] is None else storms[seen[0]]

    def _radius(self, trail: Trail, hour: float) -> float:
        """Largest distance that a storm goes from where it was last seen, km."""
        steps = 1.0 if self._every != self._every else trail.hours_since(hour) / self._every
        return min(self.thresholds.radius_km * max(steps, 1.0), math.pi * EARTH_KM)

    def _reach(self, trail: Trail, hour: float) -> float:
        """Largest distance from where a storm is expected, km (ours).

        Once a motion is known the storm is within half of it, a quarter of the radius (for what
        changes in it) and one and a half grid spacings (for what the grid hides).
        """
        radius, moved = self._radius(trail, hour), trail.moved_km(hour)
        if moved is None:
            return radius
        return min(radius, 0.5 * moved + 0.25 * radius + 1.5 * self._spacing)

    def _judge(
        self,
        hour: float,
        at: tuple[int, int],
        rows: slice,
        pressure: np.ndarray,
        evidence: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
    ) -> Position | str:
        """The position if the minimum there passes every test of which something is known.

        Else what it fails in.
        """
        t, (spin, wind, peaks, land) = self.thresholds, evidence
        lat, lon, msl = float(self.lat[rows][at[0]]), float(self.lon[at[1]]), float(pressure[at])
        near = self._near((lat, lon), rows)
        away = self._distance((lat, lon), rows, near)
        spin, wind, peaks = (field[near] for field in (spin, wind, peaks))
        cyclonic = _highest(spin if lat >= 0 else -spin, away <= t.vorticity_radius_km)
        fastest = _highest(wind, away <= t.wind_radius_km)
        tests = [("vorticity", "a vorticity of", cyclonic, t.vorticity, "1/s")]
        if land[at] > t.land:
            tests.append(("wind", "over land a wind of", fastest, t.wind, "m/s"))
        if t.thickness and abs(lat) > t.thickness_latitude:
            warm = _highest(peaks, away <= t.thickness_radius_km)
            tests.append(("thickness", "maxima of thickness", warm, 0.5, ""))
        for _, words, value, limit, unit in tests:
            if value <= limit:
                return f"{words} {value:.2g} {unit}".rstrip() + f", needed is above {limit:g}"
        if t.refine:
            lat, lon, msl = self._refined(at, rows, pressure)
        skipped = tuple(name for name, _, value, _, _ in tests if math.isnan(value))
        return Position(hour, lat, lon, msl, fastest, cyclonic, skipped)

    def _refined(
        self, at: tuple[int, int], rows: slice, pressure: np.ndarray
    ) -> tuple[float, float, float]:
        """Latitude, longitude and pressure of the bottom of a parabola along each axis.

        Neighbours are finite and not lower, or it were no minimum: so it is within half a step.
        """
        (i, j), lat = at, self.lat[rows]
        west, east = j - 1, (j + 1) % len(self.lon)
        up, depth = _bottom(pressure[i - 1, j], pressure[at], pressure[i + 1, j])
        along, more = _bottom(pressure[i, west], pressure[at], pressure[i, east])
        beside = lat[i + 1] - lat[i] if up > 0 else lat[i] - lat[i - 1]
        step = self.lon[east] - self.lon[j] if along > 0 else self.lon[j] - self.lon[west]
        lon = (self.lon[j] + along * (step % 360) - self.lon[0]) % 360 + self.lon[0]
        return float(lat[i] + up * beside), float(lon), float(pressure[at] - depth - more)

    def _around(self) -> float:
        """Largest distance from a minimum that a test looks at, km."""
        t = self.thresholds
        return max(t.vorticity_radius_km, t.wind_radius_km, t.thickness_radius_km)

    def _rows(self, centre: tuple[float, float], reach: float) -> slice | None:
        """Rows that the search can need: with those for differences at its edge; None for none."""
        degrees = math.degrees((reach + self._around()) / EARTH_KM)
        near = np.flatnonzero(np.abs(self.lat - centre[0]) <= degrees)
        return slice(max(int(near[0]) - 2, 0), int(near[-1]) + 3) if len(near) else None

    def _near(self, place: tuple[float, float], rows: slice) -> tuple[np.ndarray, np.ndarray]:
        """Rows (of those of the search) and columns that hold all that is near a place."""
        degrees = math.degrees(self._around() / EARTH_KM)
        lat = self.lat[rows]
        high = np.flatnonzero(np.abs(lat - place[0]) <= degrees)
        cos = math.cos(math.radians(min(abs(place[0]) + degrees, 90.0)))
        wide = degrees / max(cos, 1e-9)
        east = np.abs((self.lon - place[1] + 180) % 360 - 180)
        return high[:, None], np.flatnonzero(east <= wide)[None]

    def _cut(self, field: np.ndarray | None, rows: slice) -> np.ndarray:
        """Those rows in float64; NaN where a field is not given."""
        if field is None:
            return np.full((len(self.lat[rows]), len(self.lon)), np.nan)
        if field.shape != (len(self.lat), len(self.lon)):
            raise ValueError(f"field of {field.shape}, grid of {len(self.lat)} x {len(self.lon)}.")
        return field[rows].astype(np.float64)

    def _distance(
        self,
        place: tuple[float, float],
        rows: slice,
        near: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> np.ndarray:
        lat, lon = self.lat[rows, None], self.lon[None]
        if near is not None:
            lat, lon = lat[near[0].ravel()], lon[:, near[1].ravel()]
        return great_circle_km(place[0], place[1], lat, lon)


def _highest(field: np.ndarray, where: np.ndarray) -> float:
    """Largest value that is known there; NaN if none is."""
    known = field[where & np.isfinite(field)]
    return float(known.max()) if len(known) else math.nan


def _bottom(before: float, middle: float, after: float) -> tuple[float, float]:
    """Lowest point of the parabola of three even points, in steps; its depth below the middle."""
    bend = before - 2 * middle + after
    offset = 0.5 * (before - after) / bend if bend > 0 else 0.0  # 0: all three are equal
    return offset, 0.25 * (before - after) * offset


def track(
    tracker: Tracker,
    hours: Sequence[float],
    fields: Mapping[str, Float[np.ndarray, "time lat lon"]],
    land: Float[np.ndarray, "lat lon"] | None = None,
) -> list[Position]:
    """All positions of a storm in states that are in memory, by a tracker not used before.

    `fields` by the names and in the units of `Tracker.step`: msl, u, v, u10, v10, thickness; NaN
    where missing. States after the storm's end are not looked at.
    """
    positions: list[Position] = []
    for index, hour in enumerate(hours):
        state = {name: field[index] for name, field in fields.items()}
        position = tracker.step(hour, land=land, **state)
        positions += [] if position is None else [position]
        if tracker.ended:
            break
    return positions


def cut_line(points: Sequence[tuple[float, float]]) -> list[list[list[float]]]:
    """Lines of [lon, lat] within -180 to 180 degrees of a path, cut at 180 (RFC 7946, 3.1.9).

    Each way goes the short way round; the latitude of a cut is linear between its ends.
    """
    path = [((lon + 180) % 360 - 180, lat) for lon, lat in points]
    lines = [[path[0]]] if path else []
    for (lon, lat), (to, to_lat) in zip(path, path[1:], strict=False):
        if abs(to - lon) > 180:
            side = math.copysign(180.0, lon)
            share = (side - lon) / (to + 2 * side - lon)
            middle = lat + share * (to_lat - lat)
            lines[-1].append((side, middle))
            lines.append([(-side, middle)])
        lines[-1].append((to, to_lat))
    rounded = [[[round(x, 6), round(y, 6)] for x, y in line] for line in lines]
    # A storm that stays repeats its point, and a line of one point is none.
    kept = [[p for k, p in enumerate(line) if k == 0 or p != line[k - 1]] for line in rounded]
    return [line for line in kept if len(line) > 1]
