"""Pictures of a forecast, and those of a run's report."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tenfold.core.checkpoint import write_bytes
from tenfold.metrics.weather import Position
from tenfold.viz.lead_time import error_over_lead, plume
from tenfold.viz.map_axes import MapAxes
from tenfold.viz.maps import animation, ensemble, field_map, panels, style_of, track_map
from tenfold.viz.page import Picture

from .coast import axes_of
from .data import Archive
from .evaluation import Verified, as_fields, calls_to
from .forecast import Outcome, shown
from .forecaster import Forecaster

MEMBER_TRACKS = 20
"""Members whose tracks are drawn, at most."""


# --- a forecast ---------------------------------------------------------------------------------


def forecast_pictures(outcome: Outcome, where: MapAxes, out: Path) -> list[Picture]:
    """Maps at the last hour, values and errors over time, an animation."""
    return _maps(outcome, where, out) + _series(outcome, where, out)


def _put(out: Path, name: str, content: bytes, caption: str) -> Picture:
    write_bytes(out / name, content)
    return Picture(out / name, caption)


def _maps(outcome: Outcome, where: MapAxes, out: Path) -> list[Picture]:
    """Every drawn field at the last hour: beside the truth, or mean and spread, or alone."""
    pictures = []
    for name, members in outcome.last.items():
        hour, style = outcome.hours[-1], style_of(name)
        many = f"mean of {len(members)} members" if len(members) > 1 else "forecast"
        if name in outcome.truth and outcome.truth[name][0] > 0:
            at, mean, truth = outcome.truth[name]
            content = panels(mean, truth, where, style, title=_title(outcome, name, at))
            caption = f"{name} after {at} h: {many}, truth, and their difference"
            pictures.append(_put(out, f"map-{name}-truth.png", content, caption))
        title = _title(outcome, name, hour)
        if len(members) > 1:
            content = ensemble(members, where, style, title=title)
            caption = f"{name} after {hour} h: mean and spread of {len(members)} members"
            pictures.append(_put(out, f"map-{name}-ensemble.png", content, caption))
        elif name not in outcome.truth or outcome.truth[name][0] != hour:
            content = field_map(members[0], where, style, title=title)
            pictures.append(_put(out, f"map-{name}.png", content, f"{name} after {hour} h"))
    return pictures


def _title(outcome: Outcome, name: str, hour: int) -> str:
    """Field, hours ahead, and the time for which it is valid."""
    return ", ".join(word for word in (f"{name} +{hour} h", outcome.when(hour)) if word)


def _from(outcome: Outcome, name: str) -> str:
    """Field and time of the start, for pictures of all hours."""
    return f"{name} from {outcome.when(0)}" if outcome.when(0) else name


def _series(outcome: Outcome, where: MapAxes, out: Path) -> list[Picture]:
    """Values at the point, errors over lead time, and the first field as an animation."""
    pictures = []
    lat, lon = outcome.points[0]
    lon = (lon + 180) % 360 - 180
    at = f"{abs(lat):.4g}°{'N' if lat >= 0 else 'S'} {abs(lon):.4g}°{'E' if lon >= 0 else 'W'}"
    if outcome.members > 1:
        truths = [t for t in outcome.truth_series if t is not None]
        for name in outcome.drawn:
            style, row = style_of(name), outcome.grid.fields.index(name)
            shown = style(np.stack([values[:, row, 0] for values in outcome.series], axis=1))
            known = None
            if len(truths) == len(outcome.hours):
                known = style(np.array([values[row, 0] for values in truths]))
            title = _from(outcome, f"{name} at {at}")
            content = plume(outcome.hours, shown, known, title=title, unit=style.unit)
            caption = f"{name} of all members at {at}"
            pictures.append(_put(out, f"plume-{name}.png", content, caption))
    for name in outcome.last:
        lines = _error_lines(outcome, name)
        if lines:
            title, unit = _from(outcome, name), style_of(name).difference.unit
            content = error_over_lead(lines, title=title, unit=unit)
            pictures.append(
                _put(out, f"error-{name}.png", content, f"{name}: error over lead time")
            )
    frames, shots = outcome.frames, outcome.truth_frames
    if len(frames) > 1:
        name = outcome.drawn[0]
        content = animation(
            np.stack(list(frames.values())),
            list(frames),
            where,
            style_of(name),
            truth=np.stack(list(shots.values())) if len(shots) == len(frames) else None,
            title=_from(outcome, name),
        )
        pictures.append(_put(out, "animation.gif", content, f"{name} over the forecast"))
    return pictures


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
        if key not in ("hour", "field", "crps") and not key.startswith("brier")
    }


def track_picture(
    outcome: Outcome, tracks: dict[str, list[Position]], where: MapAxes, out: Path
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


# --- a run's report -----------------------------------------------------------------------------


def report_pictures(
    verified: Verified, forecaster: Forecaster, archive: Archive, earth: bool, out: Path
) -> dict[Path, str]:
    """Draw errors over lead time, and one forecast of the split beside the truth.

    Args:
        verified: What an evaluation measured.
        forecaster: Makes the one forecast.
        archive: Has its start and its truth.
        earth: Whether the data are of the real Earth, whose coast is then drawn.
        out: Folder to write to.

    Returns:
        File -> caption.
    """
    pictures: dict[Path, str] = {}
    for name in shown(forecaster.grid):
        style = style_of(name)
        lines = {}
        for who, metrics in verified.scores.items():
            keys = [k for k in metrics if k.startswith(f"rmse/{name}/")]
            hours = [float(k.split("/")[-1][:-1]) for k in keys]
            lines[who] = (hours, [metrics[k] * style.scale for k in keys])
        content = error_over_lead(lines, title=name, unit=style.difference.unit)
        write_bytes(out / f"error-{name}.png", content)
        pictures[out / f"error-{name}.png"] = (
            f"{name}: error over lead time, {verified.split} split"
        )
    return pictures | _example(verified, forecaster, archive, earth, out)


def _example(
    verified: Verified, forecaster: Forecaster, archive: Archive, earth: bool, out: Path
) -> dict[Path, str]:
    """The first start of the split at the longest lead time that was measured."""
    hours = max(int(k.split("/")[-1][:-1]) for k in verified.scores["models"])
    start, end = archive.chains(verified.split, [hours])[0].tolist()
    upper, surface = (part.to(forecaster.device) for part in archive.stack([start]))
    states = {0: (upper, surface)}
    for call in calls_to([hours], forecaster.leads):
        states[call.hour] = forecaster.step(*states[call.source], call.model)
    fields = as_fields(*states[hours])[0].cpu().numpy()
    truth = as_fields(*archive.stack([end]))[0].numpy()
    grid = forecaster.grid
    where = axes_of(grid.latitudes, grid.longitudes, forecaster.land_share(), earth)
    pictures = {}
    for name in shown(grid)[:2]:
        row = grid.fields.index(name)
        title = f"{name} +{hours} h"
        path = out / f"example-{name}.png"
        write_bytes(path, panels(fields[row], truth[row], where, style_of(name), title=title))
        pictures[path] = (
            f"{name} {hours} h after {verified.split} state {start}: forecast, truth, difference"
        )
    return pictures
