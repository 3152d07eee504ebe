"""Follows a cyclone through forecast states, one state at a time; reads and writes its track.

Longitudes come out in the convention of the grid; any is taken in. Grids may be global or regional,
with rows from north to south or south to north, and have missing points (NaN).
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from tenfold.files import write_text
from tenfold.metrics.weather import EARTH_KM, Position, great_circle_km

from .config import Thresholds

COLUMNS = ("storm", "hour", "lat", "lon", "msl_pa", "wind_m_s", "vorticity_1_s", "skipped")
LIMIT = 100_000_000
"""Bytes of a track file: more is no file of tracks."""


def check_grid(
    lat: Float[np.ndarray, " lat"], lon: Float[np.ndarray, " lon"], periodic: bool
) -> None:
    """Refuse coordinates (degrees) that are no grid: ValueError names what is wrong."""
    if len(lat) < 3 or len(lon) < 3:
        raise ValueError(f"{len(lat)} x {len(lon)} points: tracking needs 3 x 3 at least.")
    steps, gaps = np.diff(lat), np.diff(lon)
    if not (np.all(steps > 0) or np.all(steps < 0)) or not np.all(np.abs(lat) <= 90):
        raise ValueError("latitudes must rise or fall throughout, within -90 to 90 degrees.")
    if not np.all(gaps > 0) or not lon[-1] - lon[0] < 360:
        raise ValueError("longitudes must rise throughout and span less than 360 degrees.")
    seam = lon[0] + 360 - lon[-1]
    if periodic and not 0.5 * gaps.min() <= seam <= 1.5 * gaps.max():
        raise ValueError(
            f"longitudes {lon[0]} to {lon[-1]} leave a gap of {seam} degrees, so the grid does not "
            "go round the Earth. Set periodic=False for a region."
        )


def vorticity(
    u: Float[np.ndarray, "lat lon"],
    v: Float[np.ndarray, "lat lon"],
    lat: Float[np.ndarray, " lat"],
    lon: Float[np.ndarray, " lon"],
    periodic: bool = True,
) -> Float[np.ndarray, "lat lon"]:
    """Relative vorticity in 1/s of winds in m/s, float64: dv/dx - d(u cos lat)/dy / cos lat.

    Centred differences, one-sided at the edges, for uneven rows too; 0 in rows at a pole, where it
    has no value; NaN beside a missing point.
    """
    check_grid(lat, lon, periodic)
    u, v = u.astype(np.float64), v.astype(np.float64)
    phi, lam = np.radians(lat.astype(np.float64)), np.radians(lon.astype(np.float64))
    if periodic:
        lam = np.concatenate([lam[-1:] - 2 * np.pi, lam, lam[:1] + 2 * np.pi])
        dv = np.gradient(np.pad(v, ((0, 0), (1, 1)), mode="wrap"), lam, axis=1)[:, 1:-1]
    else:
        dv = np.gradient(v, lam, axis=1)
    cos = np.cos(phi)[:, None]
    poles = np.abs(lat) > 90 - 1e-6
    du = np.gradient(u * cos, phi, axis=0)
    spin = (dv - du) / (EARTH_KM * 1000 * np.where(poles[:, None], 1.0, cos))
    spin[poles] = 0.0
    return spin


def minima(
    field: Float[np.ndarray, "lat lon"], periodic: bool = True
) -> Bool[np.ndarray, "lat lon"]:
    """Points whose value is below all its eight neighbours.

    Not in the first and last row, nor column of a region, nor beside a missing point: what lies
    beyond is not known.
    """
    padded = np.pad(field, ((1, 1), (1, 1)), constant_values=np.nan)
    if periodic:
        padded[1:-1, 0], padded[1:-1, -1] = field[:, -1], field[:, 0]
    rows, columns = field.shape
    lower = np.ones(field.shape, dtype=bool)
    for i, j in ((i, j) for i in range(3) for j in range(3) if (i, j) != (1, 1)):
        lower &= field < padded[i : i + rows, j : j + columns]
    return lower


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
        self.last = start
        """Last position at which the storm was seen."""
        self.missed = 0
        """States without pressure since then."""
        self.ended = ""
        """Reason why the storm is followed no longer; empty while it is."""
        if not (abs(start[0]) <= 90 and abs(start[1]) <= 360):
            raise ValueError(f"start {start} is no latitude and longitude in degrees.")
        nearest = float(self._distance(start, slice(None)).min())
        if nearest > self.thresholds.radius_km:
            raise ValueError(
                f"start {start} is {nearest:.0f} km from the nearest point of the grid, beyond the "
                f"search radius of {self.thresholds.radius_km} km. Give (latitude, longitude)."
            )

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
        thickness in any unit. Of the minima that pass the tests the nearest is taken (ours). A test
        for which nothing is known near the minimum is left out, and named in `Position.skipped`.
        A state without pressure near the storm is passed over; the next search reaches further.
        """
        if self.ended:
            return None
        reach = self.thresholds.radius_km * (1 + self.missed)
        rows = self._rows(reach)
        given = (msl, u, v, u10, v10, land, thickness)
        pressure, u, v, u10, v10, land, thick = (self._cut(field, rows) for field in given)
        distance = self._distance(self.last, rows)
        if not np.isfinite(pressure[distance <= reach]).any():
            self.missed += 1
            if self.missed > self.thresholds.patience:
                self.ended = f"no pressure in {self.missed} states up to hour {hour:g}"
            return None
        spin = vorticity(u, v, self.lat[rows], self.lon, self.periodic)
        peaks = np.where(np.isfinite(thick), minima(-thick, self.periodic).astype(float), np.nan)
        evidence = (spin, np.hypot(u10, v10), peaks, land)
        candidates = np.argwhere(minima(pressure, self.periodic) & (distance <= reach))
        # argwhere goes by rows and columns, and the sort is stable: so ties are won by the first.
        for i, j in candidates[np.argsort(distance[tuple(candidates.T)], kind="stable")]:
            position = self._judge(hour, (int(i), int(j)), rows, pressure, evidence)
            if position is not None:
                self.last, self.missed = (position.lat, position.lon), 0
                return position
        self.ended = f"no minimum that is a storm within {reach:g} km at hour {hour:g}"
        return None

    def _judge(
        self,
        hour: float,
        at: tuple[int, int],
        rows: slice,
        pressure: np.ndarray,
        evidence: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
    ) -> Position | None:
        """The position if the minimum there passes every test of which something is known."""
        t, (spin, wind, peaks, land) = self.thresholds, evidence
        lat, lon, msl = float(self.lat[rows][at[0]]), float(self.lon[at[1]]), float(pressure[at])
        away = self._distance((lat, lon), rows)
        cyclonic = _highest(spin if lat >= 0 else -spin, away <= t.vorticity_radius_km)
        fastest = _highest(wind, away <= t.wind_radius_km)
        tests = [("vorticity", cyclonic, t.vorticity)]
        if land[at] > t.land:
            tests.append(("wind", fastest, t.wind))
        if t.thickness and abs(lat) > t.thickness_latitude:
            tests.append(("thickness", _highest(peaks, away <= t.thickness_radius_km), 0.5))
        if any(value <= limit for _, value, limit in tests):
            return None
        if t.refine:
            lat, lon, msl = self._refined(at, rows, pressure)
        skipped = tuple(name for name, value, _ in tests if math.isnan(value))
        return Position(hour, lat, lon, msl, fastest, cyclonic, skipped)

    def _refined(
        self, at: tuple[int, int], rows: slice, pressure: np.ndarray
    ) -> tuple[float, float, float]:
        """Latitude, longitude and pressure of the bottom of a parabola along each axis.

        Neighbours are finite and higher, or it were no minimum: so it is within half a step.
        """
        (i, j), lat = at, self.lat[rows]
        west, east = j - 1, (j + 1) % len(self.lon)
        up, depth = _bottom(pressure[i - 1, j], pressure[at], pressure[i + 1, j])
        along, more = _bottom(pressure[i, west], pressure[at], pressure[i, east])
        beside = lat[i + 1] - lat[i] if up > 0 else lat[i] - lat[i - 1]
        step = self.lon[east] - self.lon[j] if along > 0 else self.lon[j] - self.lon[west]
        lon = (self.lon[j] + along * (step % 360) - self.lon[0]) % 360 + self.lon[0]
        return float(lat[i] + up * beside), float(lon), float(pressure[at] - depth - more)

    def _rows(self, reach: float) -> slice:
        """Rows that the search can need: with those for differences at its edge."""
        t = self.thresholds
        around = max(t.vorticity_radius_km, t.wind_radius_km, t.thickness_radius_km)
        degrees = math.degrees((reach + around) / EARTH_KM)
        near = np.flatnonzero(np.abs(self.lat - self.last[0]) <= degrees)
        return slice(max(int(near[0]) - 2, 0), int(near[-1]) + 3)

    def _cut(self, field: np.ndarray | None, rows: slice) -> np.ndarray:
        """Those rows in float64; NaN where a field is not given."""
        if field is None:
            return np.full((len(self.lat[rows]), len(self.lon)), np.nan)
        if field.shape != (len(self.lat), len(self.lon)):
            raise ValueError(f"field of {field.shape}, grid of {len(self.lat)} x {len(self.lon)}.")
        return field[rows].astype(np.float64)

    def _distance(self, place: tuple[float, float], rows: slice) -> np.ndarray:
        return great_circle_km(place[0], place[1], self.lat[rows, None], self.lon[None])


def _highest(field: np.ndarray, where: np.ndarray) -> float:
    """Largest value that is known there; NaN if none is."""
    known = field[where & np.isfinite(field)]
    return float(known.max()) if len(known) else math.nan


def _bottom(before: float, middle: float, after: float) -> tuple[float, float]:
    """Lowest point of the parabola of three even points, in steps; its depth below the middle."""
    offset = 0.5 * (before - after) / (before - 2 * middle + after)
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


def write_csv(file: Path, tracks: Mapping[str, Sequence[Position]]) -> None:
    """Storm name -> track, one row a position; what is not known is empty."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(COLUMNS)
    for storm, p in ((storm, p) for storm, positions in tracks.items() for p in positions):
        numbers = (p.hour, p.lat, p.lon, p.msl, p.wind, p.vorticity)
        shown = ["" if math.isnan(x) else repr(float(x)) for x in numbers]
        rows.writerow([storm, *shown, " ".join(p.skipped)])
    write_text(file, text.getvalue())


def read_track(file: Path, storm: str | None = None) -> list[Position]:
    """Hours and places of one storm of a CSV file with columns hour, lat, lon, perhaps storm.

    Hours since the start of the forecast; degrees. Other columns are not read. Errors name file
    and line: no such file, too large, not text, a column missing, no number, out of bounds, hours
    that do not rise, no position, several storms and none named.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file} is not there. Give a CSV file with hour, lat and lon.")
    if file.stat().st_size > LIMIT:
        raise ValueError(f"{file} has more than {LIMIT} bytes. This is no file of tracks.")
    tracks: dict[str, list[Position]] = {}
    try:
        with file.open(newline="", encoding="utf-8-sig") as text:
            rows = csv.DictReader(text)
            missing = {"hour", "lat", "lon"} - set(rows.fieldnames or ())
            if missing:
                raise ValueError(f"{file} has no column {', '.join(sorted(missing))} in line 1.")
            for row in rows:
                where = f"{file} line {rows.line_num}"
                hour = _number(row, "hour", 1e6, where)
                lat, lon = _number(row, "lat", 90.0, where), _number(row, "lon", 360.0, where)
                before = tracks.setdefault(row.get("storm") or "", [])
                if before and hour <= before[-1].hour:
                    raise ValueError(f"{where}: hour {hour:g} does not rise. Sort the rows.")
                before.append(Position(hour, lat, lon))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{file} is no CSV file in UTF-8: {error}.") from error
    if storm is None and len(tracks) == 1:
        return next(iter(tracks.values()))
    if storm not in tracks:
        names = ", ".join(map(repr, list(tracks)[:10]))
        raise ValueError(f"{file} has storms {names or 'none'}, asked is {storm!r}. Name one.")
    return tracks[storm]


def _number(row: Mapping[str, str | None], name: str, limit: float, where: str) -> float:
    try:
        value = float(row[name] or "")
    except ValueError:
        raise ValueError(f"{where}: {name} is {row[name]!r}, which is no number.") from None
    if not abs(value) <= limit:
        raise ValueError(f"{where}: {name} is {value}, not within {-limit:g} to {limit:g}.")
    return value


def write_geojson(file: Path, tracks: Mapping[str, Sequence[Position]]) -> None:
    """Storm name -> track: for each a line and its points, by RFC 7946. One position: no line."""
    features: list[dict[str, Any]] = []

    def add(kind: str, coordinates: Any, **properties: Any) -> None:
        geometry = {"type": kind, "coordinates": coordinates}
        features.append({"type": "Feature", "geometry": geometry, "properties": properties})

    for storm, positions in tracks.items():
        lines = cut_line([(p.lon, p.lat) for p in positions])
        if len(lines) == 1:
            add("LineString", lines[0], storm=storm)
        elif lines:
            add("MultiLineString", lines, storm=storm)
        for p in positions:
            numbers = {"msl_pa": p.msl, "wind_m_s": p.wind, "vorticity_1_s": p.vorticity}
            known = {name: None if math.isnan(x) else x for name, x in numbers.items()}
            place = [round((p.lon + 180) % 360 - 180, 6), round(p.lat, 6)]
            add("Point", place, storm=storm, hour=p.hour, **known, skipped=list(p.skipped))
    whole = {"type": "FeatureCollection", "features": features}
    write_text(file, json.dumps(whole, indent=1, allow_nan=False) + "\n")


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
