"""Tracks of storms in files: CSV read and written, GeoJSON written."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tenfold.data.io.spreadsheets import delimiter_of, without_sep
from tenfold.files import write_text
from tenfold.metrics.weather import Position

from .cyclone import cut_line

COLUMNS = ("storm", "hour", "lat", "lon", "msl_pa", "wind_m_s", "vorticity_1_s", "skipped")
LIMIT = 100_000_000
"""Bytes of a track file: more is no file of tracks."""


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

    Hours since the start of the forecast; degrees. Split by comma, semicolon or tab. Other columns
    are not read. Errors name file and line: no such file, too large, not text, a column missing, no
    number, out of bounds, hours that do not rise, no position, several storms and none named.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file} is not there. Give a CSV file with hour, lat and lon.")
    if file.stat().st_size > LIMIT:
        raise ValueError(f"{file} has more than {LIMIT} bytes. This is no file of tracks.")
    tracks: dict[str, list[Position]] = {}
    try:
        text = file.read_bytes().decode("utf-8-sig")
        lines = text.splitlines(keepends=True)
        above = int(without_sep(text) != text)  # Excel's line above the header
        delimiter = delimiter_of("".join(lines[above : above + 1]))
        rows = csv.DictReader(lines[above:], delimiter=delimiter)
        missing = {"hour", "lat", "lon"} - set(rows.fieldnames or ())
        if missing:
            names = ", ".join(sorted(missing))
            raise ValueError(f"{file} has no column {names} in line {above + 1}.")
        for row in rows:
            where = f"{file} line {rows.line_num + above}"
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
