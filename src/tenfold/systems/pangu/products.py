"""Writing for `tenfold predict`: tables, tracks, pictures and the page of a forecast."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

from tenfold.core.checkpoint import write_text
from tenfold.metrics.weather import Position, track_error
from tenfold.printable import printable
from tenfold.viz.map_axes import MapAxes
from tenfold.viz.page import (
    Badge,
    Cell,
    Page,
    Picture,
    Section,
    Table,
    footer,
    picture_figure,
    write_page,
)
from tenfold.viz.predictions import Trained

from .coast import axes_of
from .config import PredictOptions
from .figures import forecast_pictures, track_picture
from .forecast import Outcome, Row
from .tracks import write_csv, write_geojson


def write_products(outcome: Outcome, trained: Trained, source: str, out: Path) -> list[Path]:
    """Write all but the states themselves: plan, scores, tracks, pictures, and last the page.

    Args:
        outcome: What was kept of the forecast.
        trained: The system that made it; the real coast is drawn unless its data are generated.
        source: Name of the file or folder of the start.
        out: Folder to write to.
    """
    write_text(out / "plan.txt", outcome.plan + "\n")
    written, pictures, where = [out / "plan.txt"], list[Picture](), None
    if outcome.pictures:
        where = _map_axes(outcome, trained.kind != "generated")
        pictures = forecast_pictures(outcome, where, out)
    if outcome.scores:
        write_text(out / "scores.csv", scores_csv(outcome.scores))
        written.append(out / "scores.csv")
    write_text(out / "points.csv", points_csv(outcome))
    written.append(out / "points.csv")
    if outcome.followers:
        files, track = _tracks(outcome, where, out)
        written, pictures = written + files, [*pictures, *track]
    written += [picture.path for picture in pictures]
    return [*written, _page(outcome, trained, pictures, source, out / "forecast.html")]


def _map_axes(outcome: Outcome, earth: bool) -> MapAxes:
    kept = outcome.kept
    land = outcome.land if kept.shape == outcome.grid.shape else None
    return axes_of(kept.latitudes, kept.longitudes, land, earth)


def points_csv(outcome: Outcome) -> str:
    """Values of all fields at the points: a row an hour, point and member; SI units."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["hour", "time", "lat", "lon", "member", *outcome.grid.fields])
    for hour, values, truth in zip(
        outcome.hours, outcome.series, outcome.truth_series, strict=True
    ):
        time = outcome.time(hour)
        for number, (lat, lon) in enumerate(outcome.points):
            rows = [(str(m), values[m, :, number]) for m in range(len(values))]
            if truth is not None:
                rows.append(("truth", truth[:, number]))
            for member, fields in rows:
                shown = ["" if math.isnan(v) else f"{v:.8g}" for v in fields.tolist()]
                writer.writerow([hour, time, f"{lat:g}", f"{lon:g}", member, *shown])
    return text.getvalue()


def mean_scores(scores: dict[str, list[Row]]) -> list[Row]:
    """Mean of every score over the starts that have it, by hour and field."""
    found: dict[tuple[float | str | int, float | str | int], dict[str, list[float]]] = {}
    for rows in scores.values():
        for row in rows:
            cell = found.setdefault((row["hour"], row["field"]), {})
            for key, value in row.items():
                if key not in ("hour", "field"):
                    cell.setdefault(key, []).append(float(value))
    return [
        {
            "hour": hour,
            "field": name,
            "starts": max(map(len, cell.values())),
            **{key: sum(values) / len(values) for key, values in cell.items()},
        }
        for (hour, name), cell in found.items()
    ]


def write_summary(
    scores: dict[str, list[Row]],
    options: PredictOptions,
    trained: Trained,
    source: str,
    out: Path,
) -> list[Path]:
    """Table and page of the forecasts from several starts; `scores` by their folders."""
    rows, written, tables = mean_scores(scores), [], []
    if rows:
        write_text(out / "scores.csv", scores_csv(rows))
        written.append(out / "scores.csv")
        tables = [_score_table(rows, "Mean errors")]
    page = Page(
        title=f"Forecasts from {len(scores)} starts",
        lead=f"{options.hours} h from {printable(source)}, {options.members} member(s)",
        badges=[Badge(f"trained on {trained.kind} data", trained.kind)],
        sections=[
            *([Section("Against the file's own states", tables=tables)] if tables else []),
            Section("A folder each", bullets=[f"{folder}/forecast.html" for folder in scores]),
        ],
        footer=footer("forecasts by a trained model, not a warning"),
    )
    return [*written, write_page(page, out / "forecast.html")]


def scores_csv(rows: Sequence[Row]) -> str:
    """Rows of scores as CSV, errors with six digits."""
    text = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    for row in rows:
        values = [row.get(name, "") for name in names]
        writer.writerow([f"{v:.6g}" if isinstance(v, float) else v for v in values])
    return text.getvalue()


def _tracks(outcome: Outcome, where: MapAxes | None, out: Path) -> tuple[list[Path], list[Picture]]:
    """Tracks as CSV and GeoJSON, their errors, and a map."""
    tracks = {name: f.positions for name, f in outcome.followers.items() if f.positions}
    if outcome.reference:
        tracks["reference"] = list(outcome.reference)
    write_csv(out / "tracks.csv", tracks)
    write_geojson(out / "tracks.geojson", tracks)
    lines = [
        f"{name}: ended, {follower.tracker.ended}"
        for name, follower in outcome.followers.items()
        if follower.tracker.ended
    ]
    best = next((name for name in ("reference", "analysis") if name in tracks), "")
    if best:
        lines += _distances(tracks["forecast"], tracks[best], best)
    write_text(out / "tracks.txt", "\n".join(lines) + "\n")
    files = [out / "tracks.csv", out / "tracks.geojson", out / "tracks.txt"]
    return files, [] if where is None else [track_picture(outcome, tracks, where, out)]


def _distances(track: list[Position], reference: list[Position], name: str) -> list[str]:
    """Error of the forecast's position, a line an hour."""
    try:
        errors = track_error(track, reference)
    except ValueError as error:  # the storm was lost before the first hour of the reference
        return [str(error)]
    lines = [f"{hour:4g}  {km:.0f}" for hour, km in errors.items()]
    return [f"hour  distance of the forecast from the {name} (km)", *lines]


def _page(
    outcome: Outcome, trained: Trained, pictures: list[Picture], source: str, path: Path
) -> Path:
    """All of it on one page."""
    tables = [_score_table(outcome.scores, "Errors")] if outcome.scores else []
    start = f"{outcome.when(0)}" or f"state {outcome.index}, of unknown time"
    verified = "Against the file's own states"
    page = Page(
        title=f"Forecast from {start}",
        lead=f"{outcome.asked} h from {printable(source)}, {outcome.members} member(s)",
        badges=[Badge(f"trained on {trained.kind} data", trained.kind)],
        sections=[
            *(
                [Section("Pictures", figures=[picture_figure(p, path.parent) for p in pictures])]
                if pictures
                else []
            ),
            *([Section(verified, tables=tables)] if tables else []),
            Section("Calls", bullets=outcome.plan.splitlines(), closed=True),
            *(
                [Section("Left out", bullets=[printable(line) for line in outcome.remarks])]
                if outcome.remarks
                else []
            ),
        ],
        footer=footer("forecast by a trained model, not a warning"),
    )
    return write_page(page, path)


def _score_table(rows: Sequence[Row], what: str) -> Table:
    """Scores at the last hour."""
    last = max(int(row["hour"]) for row in rows)
    head = [key for key in dict.fromkeys(k for row in rows for k in row) if key != "hour"]
    cells = [
        [
            Cell(f"{value:.4g}" if isinstance(value := row.get(key, ""), float) else str(value))
            for key in head
        ]
        for row in rows
        if row["hour"] == last
    ]
    return Table(f"{what} after {last} h, SI units", head, cells)
