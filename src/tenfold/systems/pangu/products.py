"""Writing for `tenfold predict`: tables, tracks, pictures and the page of a forecast."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from tenfold.core.checkpoint import write_text
from tenfold.metrics.weather import Position, track_error
from tenfold.printable import printable
from tenfold.viz.map_axes import MapAxes, map_axes
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

from .figures import forecast_pictures, track_picture
from .forecast import Outcome
from .tracks import write_csv, write_geojson


def write_products(outcome: Outcome, trained: Trained, source: str, out: Path) -> list[Path]:
    """Write all but the states themselves: plan, scores, tracks, pictures, and last the page.

    Args:
        outcome: What was kept of the forecast.
        trained: The system that made it; the real coast is drawn unless its data are generated.
        source: Name of the file or folder of the start.
        out: Folder to write to.
    """
    grid = outcome.grid
    where = map_axes(grid.latitudes, grid.longitudes, outcome.land, trained.kind != "generated")
    write_text(out / "plan.txt", outcome.plan + "\n")
    written, pictures = [out / "plan.txt"], forecast_pictures(outcome, where, out)
    if outcome.scores:
        write_text(out / "scores.csv", scores_csv(outcome.scores))
        written.append(out / "scores.csv")
    if outcome.followers:
        files, track = _tracks(outcome, where, out)
        written, pictures = written + files, [*pictures, track]
    written += [picture.path for picture in pictures]
    return [*written, _page(outcome, trained, pictures, source, out / "forecast.html")]


def scores_csv(rows: Sequence[dict[str, float | str | int]]) -> str:
    """Rows of scores as CSV, errors with six digits."""
    text = io.StringIO()
    names = list(rows[0])
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    for row in rows:
        values = [row[name] for name in names]
        writer.writerow([f"{v:.6g}" if isinstance(v, float) else v for v in values])
    return text.getvalue()


def _tracks(outcome: Outcome, where: MapAxes, out: Path) -> tuple[list[Path], Picture]:
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
    return files, track_picture(outcome, tracks, where, out)


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
    tables = []
    if outcome.scores:
        last = max(int(row["hour"]) for row in outcome.scores)
        head = [key for key in outcome.scores[0] if key != "hour"]
        rows = [
            [Cell(f"{row[k]:.4g}" if isinstance(row[k], float) else str(row[k])) for k in head]
            for row in outcome.scores
            if row["hour"] == last
        ]
        tables.append(Table(f"Errors after {last} h, SI units", head, rows))
    start = f"{outcome.when(0)}" or f"state {outcome.index}, of unknown time"
    verified = "Against the file's own states"
    page = Page(
        title=f"Forecast from {start}",
        lead=f"{outcome.asked} h from {printable(source)}, {outcome.members} member(s)",
        badges=[Badge(f"trained on {trained.kind} data", trained.kind)],
        sections=[
            Section("Pictures", figures=[picture_figure(p, path.parent) for p in pictures]),
            *([Section(verified, tables=tables)] if tables else []),
            Section("Calls", bullets=outcome.plan.splitlines(), closed=True),
        ],
        footer=footer("forecast by a trained model, not a warning"),
    )
    return write_page(page, path)
