"""Pictures, tables and the page of a forecast, and the pictures of a run's report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tenfold.core.checkpoint import write_bytes, write_text
from tenfold.metrics.weather import Position, track_error
from tenfold.viz.lead_time import error_over_lead, plume
from tenfold.viz.map_axes import Place, place
from tenfold.viz.maps import animation, ensemble, field_map, panels, style_of, track_map
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

from .cyclone import read_track, write_csv, write_geojson
from .forecast import Forecast, Outcome, scores_csv, write_plan

if TYPE_CHECKING:
    from .system import PanguWeather

MEMBER_TRACKS = 20
"""Members whose tracks are drawn, at most."""


def predict_file(system: PanguWeather, inputs: Path, out: Path) -> list[Path]:
    """Forecast from a file of states into a folder; continues a forecast that was interrupted."""
    forecast = Forecast(system, inputs)
    path = out / f"forecast.{forecast.options.write}"
    forecast.run(path)
    where = _place(system, forecast.outcome)
    written = [path, write_plan(forecast, out)]
    pictures = _maps(forecast.outcome, where, out) + _series(forecast, where, out)
    if forecast.outcome.scores:
        write_text(out / "scores.csv", scores_csv(forecast.outcome.scores))
        written.append(out / "scores.csv")
    if forecast.outcome.followers:
        files, drawn = _tracks(forecast, where, out)
        written, pictures = written + files, drawn + pictures
    written += [picture.path for picture in pictures]
    return [*written, _page(system, forecast, pictures, inputs, out / "forecast.html")]


def _place(system: PanguWeather, outcome: Outcome) -> Place:
    """The map's axes; the real coast only where the data are of the real Earth."""
    earth = system.data_used().kind != "generated"
    grid = outcome.grid
    return place(grid.latitudes, grid.longitudes, outcome.land, earth)


def _put(out: Path, name: str, content: bytes, caption: str) -> Picture:
    write_bytes(out / name, content)
    return Picture(out / name, caption)


def _maps(outcome: Outcome, where: Place, out: Path) -> list[Picture]:
    """Every drawn field at the last hour: beside the truth, or mean and spread, or alone."""
    found = []
    for name, members in outcome.last.items():
        hour, style = outcome.hours[-1], style_of(name)
        many = f"mean of {len(members)} members" if len(members) > 1 else "forecast"
        if name in outcome.truth and outcome.truth[name][0] > 0:
            at, mean, truth = outcome.truth[name]
            content = panels(mean, truth, where, style, title=_title(outcome, name, at))
            caption = f"{name} after {at} h: {many}, truth, and their difference"
            found.append(_put(out, f"map-{name}-truth.png", content, caption))
        title = _title(outcome, name, hour)
        if len(members) > 1:
            content = ensemble(members, where, style, title=title)
            caption = f"{name} after {hour} h: mean and spread of {len(members)} members"
            found.append(_put(out, f"map-{name}-ensemble.png", content, caption))
        elif name not in outcome.truth or outcome.truth[name][0] != hour:
            content = field_map(members[0], where, style, title=title)
            found.append(_put(out, f"map-{name}.png", content, f"{name} after {hour} h"))
    return found


def _title(outcome: Outcome, name: str, hour: int) -> str:
    """What is shown, how far ahead, and the time for which it is valid."""
    return ", ".join(word for word in (f"{name} +{hour} h", outcome.when(hour)) if word)


def _from(outcome: Outcome, name: str) -> str:
    """What is shown and when it starts, for pictures of all hours."""
    return f"{name} from {outcome.when(0)}" if outcome.when(0) else name


def _series(forecast: Forecast, where: Place, out: Path) -> list[Picture]:
    """Values at the point, errors over lead time, and the first field as an animation."""
    outcome, found = forecast.outcome, []
    lat, lon = outcome.point
    lon = (lon + 180) % 360 - 180
    at = f"{abs(lat):.4g}°{'N' if lat >= 0 else 'S'} {abs(lon):.4g}°{'E' if lon >= 0 else 'W'}"
    if forecast.options.members > 1:
        for name, values in outcome.series.items():
            style = style_of(name)
            shown = style(np.stack(values, axis=1))
            truth = outcome.truth_series.get(name, [])
            known = style(np.array(truth)) if len(truth) == len(outcome.hours) else None
            title = _from(outcome, f"{name} at {at}")
            content = plume(outcome.hours, shown, known, title=title, unit=style.unit)
            caption = f"{name} of all members at {at}"
            found.append(_put(out, f"plume-{name}.png", content, caption))
    for name in outcome.last:
        lines = _error_lines(outcome, name)
        if lines:
            title, unit = _from(outcome, name), style_of(name).difference.unit
            content = error_over_lead(lines, title=title, unit=unit)
            found.append(_put(out, f"error-{name}.png", content, f"{name}: error over lead time"))
    frames, truths = outcome.frames, outcome.truth_frames
    if len(frames) > 1:
        name = forecast.drawn[0]
        content = animation(
            np.stack(list(frames.values())),
            list(frames),
            where,
            style_of(name),
            truth=np.stack(list(truths.values())) if len(truths) == len(frames) else None,
            title=_from(outcome, name),
        )
        found.append(_put(out, "animation.gif", content, f"{name} over the forecast"))
    return found


def _error_lines(outcome: Outcome, name: str) -> dict[str, tuple[list[float], list[float]]]:
    """Errors of a field in the unit shown, by what is measured."""
    rows = [row for row in outcome.scores if row["field"] == name]
    if len(rows) < 2:
        return {}
    scale = style_of(name).scale
    shown = {"rmse": "unperturbed" if "spread" in rows[0] else "forecast"}
    hours = [float(row["hour"]) for row in rows]
    return {
        shown.get(key, key): (hours, [float(row[key]) * scale for row in rows])
        for key in rows[0]
        if key not in ("hour", "field")
    }


def _tracks(forecast: Forecast, where: Place, out: Path) -> tuple[list[Path], list[Picture]]:
    """Tracks as CSV and GeoJSON, their errors, and a map."""
    outcome, options = forecast.outcome, forecast.options
    tracks = {name: f.positions for name, f in outcome.followers.items() if f.positions}
    if options.reference:
        tracks["reference"] = read_track(Path(options.reference))
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
    return files, [_track_map(outcome, tracks, where, out)]


def _distances(track: list[Position], reference: list[Position], name: str) -> list[str]:
    """Error of the forecast's position, a line an hour."""
    try:
        errors = track_error(track, reference)
    except ValueError as error:  # the storm was lost before the first hour of the reference
        return [str(error)]
    lines = [f"{hour:4g}  {km:.0f}" for hour, km in errors.items()]
    return [f"hour  distance of the forecast from the {name} (km)", *lines]


def _track_map(
    outcome: Outcome, tracks: dict[str, list[Position]], where: Place, out: Path
) -> Picture:
    """Tracks of more than a point (all start at the same), and isobars when member 0 ends."""
    members = [name for name in tracks if name.startswith("member")][:MEMBER_TRACKS]
    names = [name for name in ("forecast", "reference", "analysis") if name in tracks]
    long = [name for name in (*names, *members) if len(tracks[name]) > 1]
    drawn = {name: _points(tracks[name]) for name in long or ["forecast"]}
    short = [name for name in (*names, *members) if name not in drawn]
    assert outcome.isobars is not None
    hour, msl = outcome.isobars
    alone = f"{next(iter(drawn))}; " if len(drawn) == 1 else ""  # which then has no legend
    title = _title(outcome, f"{alone}isobars", hour)
    content = track_map(drawn, msl=msl, where=where, members=members, title=title)
    caption = f"Tracks of the storm, a dot a state, and the forecast's isobars after {hour} h"
    if short:
        caption += f"; lost after one state: {', '.join(short)}"
    return _put(out, "tracks.png", content, caption)


def _points(track: list[Position]) -> list[tuple[float, float, float, float]]:
    return [(p.lat, p.lon, p.hour, p.msl / 100) for p in track]


def _page(
    system: PanguWeather, forecast: Forecast, pictures: list[Picture], inputs: Path, path: Path
) -> Path:
    """All of it on one page."""
    outcome, used = forecast.outcome, system.data_used()
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
    start = f"{outcome.when(0)}" or f"state {forecast.index}, of unknown time"
    verified = "Against the file's own states"
    page = Page(
        title=f"Forecast from {start}",
        lead=f"{forecast.options.hours} h from {inputs.name}, {forecast.options.members} member(s)",
        badges=[Badge(f"trained on {used.kind} data", used.kind)],
        sections=[
            Section("Pictures", figures=[picture_figure(p, path.parent) for p in pictures]),
            *([Section(verified, tables=tables)] if tables else []),
            Section("Calls", bullets=forecast.plan.splitlines(), closed=True),
        ],
        footer=footer("forecast by a trained model, not a warning"),
    )
    return write_page(page, path)


def report_pictures(system: PanguWeather, out: Path) -> dict[Path, str]:
    """Errors over lead time, and one forecast of the test split beside the truth."""
    found: dict[Path, str] = {}
    scores = system.scores.get("test", {})
    for name in system.shown():
        style = style_of(name)
        lines = {}
        for who, metrics in scores.items():
            keys = [k for k in metrics if k.startswith(f"rmse/{name}/")]
            hours = [float(k.split("/")[-1][:-1]) for k in keys]
            lines[who] = (hours, [metrics[k] * style.scale for k in keys])
        if lines:
            content = error_over_lead(lines, title=name, unit=style.difference.unit)
            write_bytes(out / f"error-{name}.png", content)
            found[out / f"error-{name}.png"] = f"{name}: error over lead time, test split"
    return found | _example(system, out)


def _example(system: PanguWeather, out: Path) -> dict[Path, str]:
    """The first test start at the longest lead time that the evaluation has."""
    hours = max(int(k.split("/")[-1][:-1]) for k in system.scores["test"]["models"])
    index, fields, truth = system.example(hours)
    grid = system.cfg.grid
    earth = system.data_used().kind != "generated"
    where = place(grid.latitudes, grid.longitudes, system.land(), earth)
    found = {}
    for name in system.shown()[:2]:
        row = grid.fields.index(name)
        title = f"{name} +{hours} h"
        content = panels(fields[row], truth[row], where, style_of(name), title=title)
        path = out / f"example-{name}.png"
        write_bytes(path, content)
        found[path] = f"{name} {hours} h after test state {index}: forecast, truth, difference"
    return found
