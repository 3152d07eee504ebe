"""Weather fields to PNG, SVG or GIF bytes: maps, ensembles, tracks, error over lead time.

Fields come in SI units and are shown as forecasters read them (`style_of`). Maps are plain:
longitude across, latitude up; a whole globe is closed at its edge, and a region keeps its shape.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image

from .map_axes import MapAxes, check, near
from .plots import INK, Format, Number, Theme, animation_gif, canvas, colour, encoded, legend_below

Field = Float[np.ndarray, "lat lon"]
Track = Sequence[tuple[Number, Number, Number, Number]]
"""Points (latitude, longitude, hour, central pressure in hPa) in order of time."""
BANDS = 18
"""About so many colours of a filled map."""
MAX_FRAMES = 240
"""Of an animation, which is drawn frame by frame."""
ABSENT: dict[Theme, str] = {"light": "#d5d8dc", "dark": "#4a5058"}
"""Colour of missing values."""


@dataclass(frozen=True)
class Style:
    """Look of a variable on a map; `scale` and `offset` lead from SI to `unit`."""

    unit: str = ""
    scale: Number = 1.0
    offset: Number = 0.0
    contours: Number | None = None
    """Interval of isolines in `unit`; None for none."""
    centred: bool = False
    """Colours diverge from zero."""
    colours: str = "viridis"

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """SI values in the unit shown, any shape."""
        return np.asarray(values, dtype=float) * self.scale + self.offset

    @property
    def difference(self) -> Style:
        """For differences of two fields: no offset, no isolines, diverging."""
        return Style("K" if self.unit == "°C" else self.unit, self.scale, centred=True)


PLAIN = Style()
"""Values as they are."""


def style_of(field: str) -> Style:
    """The usual way to show a field, by its name (z500, msl, t2m, ...); others as they are."""
    name = field.rstrip("0123456789")
    if name == "z":
        level = int(field[1:] or 500)
        return Style("dam", 1 / 98.0665, contours=4 if level >= 700 else 8 if level >= 300 else 12)
    if field in ("u10", "v10") or name in ("u", "v"):
        return Style("m/s", centred=True)
    if field == "t2m" or name in ("t", "sst"):
        return Style("°C", offset=-273.15)
    if name == "msl":
        return Style("hPa", 0.01, contours=4)
    if name == "q":
        return Style("g/kg", 1000.0)
    return Style()


def _levels(fields: Sequence[np.ndarray], style: Style) -> np.ndarray:
    """Round limits of some BANDS colours that hold all finite values; isolines lie on limits."""
    from matplotlib.ticker import MaxNLocator, MultipleLocator

    finite = np.concatenate([one[np.isfinite(one)] for one in fields])
    low, high = (finite.min(), finite.max()) if len(finite) else (0.0, 1.0)
    if style.centred:
        high = max(abs(low), abs(high))
        low = -high
    if high - low < 1e-6 * max(abs(low), abs(high), 1e-12):  # a constant field
        low, high = low - 0.5 * (abs(low) or 1), high + 0.5 * (abs(high) or 1)
    if style.contours and (high - low) / style.contours <= BANDS + 4:
        return np.asarray(MultipleLocator(style.contours).tick_values(low, high))
    steps = [1, 2, 2.5, 4, 5, 10]
    locator = MaxNLocator(BANDS, steps=steps, symmetric=style.centred)
    return np.asarray(locator.tick_values(low, high))


def _degrees(value: float, positive: str, negative: str) -> str:
    rounded = round(value, 6)
    side = (
        ""
        if rounded in (0, 180, -180) and positive == "E" or rounded == 0
        else (positive if rounded > 0 else negative)
    )
    return f"{abs(rounded):g}°{side}"


def _frame(axes: Any, x: tuple[float, float], y: tuple[float, float], ground: str) -> None:
    """Limits, shape and degrees of a map."""
    from matplotlib.ticker import FuncFormatter, MultipleLocator

    axes.set(xlim=x, ylim=y, facecolor=ground)
    # A degree of longitude is shorter away from the equator; a globe stays 2 to 1.
    middle = 0.0 if x[1] - x[0] > 300 else sum(y) / 2
    axes.set_aspect(1 / max(math.cos(math.radians(middle)), 0.2))
    for axis, (low, high) in ((axes.xaxis, x), (axes.yaxis, y)):
        step = next((s for s in (1, 2, 5, 10, 20, 30) if (high - low) / s <= 6.5), 60)
        axis.set_major_locator(MultipleLocator(step))
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda at, _: _degrees((at + 180) % 360 - 180, "E", "W"))
    )
    axes.yaxis.set_major_formatter(FuncFormatter(lambda at, _: _degrees(at, "N", "S")))
    axes.tick_params(length=3, labelsize=8)
    axes.grid(visible=False)


def _coast(axes: Any, where: MapAxes, ink: str = "#16191c", halo: str = "#ffffffa0") -> None:
    """Coast in every convention of longitudes; the halo keeps it visible on dark colours."""
    from matplotlib.collections import LineCollection
    from matplotlib.patheffects import withStroke

    lines = [line + (turn, 0) for line in where.coast for turn in (-360, 0, 360)]
    around = [withStroke(linewidth=1.7, foreground=halo)]
    axes.add_collection(
        LineCollection(lines, colors=ink, linewidths=0.7, path_effects=around), autolim=False
    )


def _map(
    axes: Any, shown: np.ndarray, where: MapAxes, levels: np.ndarray, style: Style, theme: Theme
) -> Any:
    """A filled map with isolines and coast, in the unit shown; what a colour bar needs."""
    x, values = where.closed(shown)
    values, y = np.ma.masked_invalid(values), where.latitudes
    colours = "RdBu_r" if style.centred else style.colours
    filled = axes.contourf(x, y, values, levels=levels, cmap=colours)
    if style.contours:
        drawn = axes.contour(x, y, values, levels, colors="#ffffff", linewidths=0.6, alpha=0.85)
        axes.clabel(drawn, drawn.levels[::2], fontsize=6.5, fmt="%g")
    _coast(axes, where)
    _frame(axes, (x[0], x[-1]), (y.min(), y.max()), ABSENT[theme])
    if not np.isfinite(shown).any():
        axes.text(0.5, 0.5, "no finite values", ha="center", transform=axes.transAxes)
    return filled


def _bar(figure: Any, filled: Any, axes: Any, unit: str) -> None:
    layout = {"orientation": "horizontal", "pad": 0.03, "shrink": 0.9, "aspect": 45 * len(axes)}
    bar = figure.colorbar(filled, ax=axes, **layout)
    bar.set_label(unit, fontsize=9)
    bar.ax.tick_params(labelsize=8, length=3)
    bar.ax.locator_params(nbins=9)
    figure.get_layout_engine().set(h_pad=0.08)


def _height(where: MapAxes, width: Number) -> float:
    """Height in inches of a map of a width."""
    x = where.closed(np.zeros((len(where.latitudes), len(where.longitudes))))[0]
    y = where.latitudes
    middle = 0.0 if x[-1] - x[0] > 300 else y.mean()
    shape = (y.max() - y.min()) / (x[-1] - x[0]) / max(math.cos(math.radians(middle)), 0.2)
    return float(np.clip(width * shape, 1.2, 1.6 * width))


def field_map(
    values: Field,
    where: MapAxes,
    style: Style = PLAIN,
    *,
    title: str = "",
    theme: Theme = "light",
    fmt: Format = "png",
    width: Number = 7.2,
) -> bytes:
    """One field in SI units, with the style's colours, isolines and unit; missing values grey."""
    return _row([(values, title, style)], where, theme, fmt, width)


def panels(
    forecast: Field,
    truth: Field,
    where: MapAxes,
    style: Style = PLAIN,
    *,
    title: str = "",
    theme: Theme = "light",
    fmt: Format = "png",
    width: Number = 13.5,
) -> bytes:
    """Forecast and truth in one scale, and their difference with its RMSE weighted by cos(lat)."""
    for values in (forecast, truth):
        check(values, where)
    error = forecast.astype(float) - truth
    weights = np.broadcast_to(np.cos(np.deg2rad(where.latitudes))[:, None], error.shape)
    there = np.isfinite(error)
    mean = np.sum(weights[there] * error[there] ** 2) / max(weights[there].sum(), 1e-12)
    rmse = math.sqrt(mean) * style.scale if there.any() else math.nan
    fields = [
        (forecast, f"{title} forecast".strip(), style),
        (truth, "truth", style),
        (error, f"forecast − truth, RMSE {rmse:.3g} {style.difference.unit}", style.difference),
    ]
    return _row(fields, where, theme, fmt, width)


def ensemble(
    members: Float[np.ndarray, "member lat lon"],
    where: MapAxes,
    style: Style = PLAIN,
    *,
    title: str = "",
    theme: Theme = "light",
    fmt: Format = "png",
    width: Number = 10.0,
) -> bytes:
    """Mean and spread (standard deviation, n - 1) of two or more members."""
    check(members, where, extra=1)
    if len(members) < 2:
        raise ValueError(f"a spread needs at least 2 members, got {len(members)}")
    spread = replace(style.difference, centred=False, colours="magma_r")
    exact = members.astype(float)
    fields = [
        (exact.mean(0), f"{title} mean of {len(members)} members".strip(), style),
        (exact.std(0, ddof=1), "spread", spread),
    ]
    return _row(fields, where, theme, fmt, width)


def _row(
    fields: Sequence[tuple[np.ndarray, str, Style]],
    where: MapAxes,
    theme: Theme,
    fmt: Format,
    width: Number,
    dpi: int = 180,
) -> bytes:
    """Maps side by side; neighbours of one style have one scale and one colour bar."""
    for values, _, _ in fields:
        check(values, where)
    shown = [style(values) for values, _, style in fields]
    height = _height(where, (width - 0.7) / len(fields)) + 1.05
    with canvas(theme, width, height) as figure:
        axes = figure.subplots(1, len(fields), sharey=True, squeeze=False)[0]
        groups: dict[Style, list[int]] = {}
        for i, (_, _, style) in enumerate(fields):
            groups.setdefault(style, []).append(i)
        for style, members in groups.items():
            levels = _levels([shown[i] for i in members], style)
            for i in members:
                filled = _map(axes[i], shown[i], where, levels, style, theme)
                axes[i].set_title(fields[i][1])
            _bar(figure, filled, [axes[i] for i in members], style.unit)
        return encoded(figure, fmt, dpi)


def animation(
    frames: Float[np.ndarray, "time lat lon"],
    hours: Sequence[Number] | np.ndarray,
    where: MapAxes,
    style: Style = PLAIN,
    *,
    truth: Float[np.ndarray, "times lat lon"] | None = None,
    title: str = "",
    fps: Number = 4,
    theme: Theme = "light",
    width: Number = 7.2,
) -> bytes:
    """A GIF of fields at lead times `hours`, in one scale; with `truth`, the truth below."""
    check(frames, where, extra=1)
    if truth is not None and truth.shape != frames.shape:
        raise ValueError(f"truth of shape {truth.shape} for frames of shape {frames.shape}")
    if not 1 <= len(frames) <= MAX_FRAMES or len(hours) != len(frames):
        raise ValueError(
            f"an animation has 1 to {MAX_FRAMES} frames with an hour each, got {len(frames)} "
            f"frames and {len(hours)} hours; give every second one, say"
        )
    rows = {"forecast": style(frames)} | ({} if truth is None else {"truth": style(truth)})
    levels = _levels(list(rows.values()), style)
    height = (_height(where, width - 0.7) + 0.35) * len(rows) + 0.75
    pictures = []
    for i, hour in enumerate(hours):
        with canvas(theme, width, height) as figure:
            axes = figure.subplots(len(rows), 1, sharex=True, squeeze=False)[:, 0]
            for one, (name, shown) in zip(axes, rows.items(), strict=True):
                filled = _map(one, shown[i], where, levels, style, theme)
                words = (title, name if truth is not None else "", f"+{hour:g} h")
                one.set_title(" ".join(word for word in words if word))
            _bar(figure, filled, axes[-1:], style.unit)
            picture = Image.open(io.BytesIO(encoded(figure, "png", dpi=90)))
            pictures.append(picture.convert("RGB"))
    return animation_gif(pictures, fps)


def track_map(
    tracks: Mapping[str, Track],
    *,
    msl: Field | None = None,
    where: MapAxes | None = None,
    members: Sequence[str] = (),
    title: str = "",
    theme: Theme = "light",
    fmt: Format = "png",
    width: Number = 7.2,
) -> bytes:
    """Tracks of storms, a dot a point; the first track says hour and pressure.

    Tracks named in `members` are thin lines with one entry in the legend. The window is that of
    the tracks, which may cross the date line. `msl` (Pa), a field on `where`, is drawn as isobars;
    `where` alone gives the coast. Raises ValueError without a finite position.
    """
    points = {name: np.array(track, dtype=float).reshape(-1, 4) for name, track in tracks.items()}
    every = np.concatenate([*points.values(), np.zeros((0, 4))])
    if not len(every) or not np.isfinite(every[:, :2]).all():
        raise ValueError(f"a map of tracks needs finite positions; tracks: {list(tracks)}")
    # the mean direction has no seam, so that a track over the date line stays whole
    centre = float(np.rad2deg(np.angle(np.exp(1j * np.deg2rad(every[:, 1])).mean())))
    x, y = _window(near(every[:, 1], centre), every[:, 0])
    shape = (y[1] - y[0]) / (x[1] - x[0]) / max(math.cos(math.radians(sum(y) / 2)), 0.2)
    with canvas(theme, width, (width - 0.7) * shape + 1.1) as figure:
        axes = figure.subplots()
        _frame(axes, x, y, INK[theme][2])  # first: labels of isobars are placed in the window
        if where is not None and msl is not None:
            check(msl, where)
            turned, values = where.rolled(style_of("msl")(msl), centre)
            _isobars(axes, turned, values, theme)
        if where is not None:
            _coast(axes, where, *INK[theme][::2])
        thin = [points.pop(name) for name in members if name in points]
        for i, track in enumerate(thin):
            label = f"{len(thin)} members" if i == 0 else None
            line = near(track[:, 1], centre), track[:, 0]
            axes.plot(*line, color=INK[theme][1], linewidth=0.8, alpha=0.6, label=label)
        for i, (name, track) in enumerate(points.items()):
            _track(axes, name, track, near(track[:, 1], centre), colour(i, theme))
        first = next((track for track in points.values() if len(track)), every)
        _words(axes, first, near(first[:, 1], centre), INK[theme][0], INK[theme][2])
        axes.set_title(title)
        entries = len(points) + bool(thin)
        legend_below(axes, entries if entries > 1 else 0)
        figure.get_layout_engine().set(h_pad=0.08)
        return encoded(figure, fmt)


def _window(x: np.ndarray, y: np.ndarray) -> tuple[tuple[float, float], tuple[float, float]]:
    """Limits of a map about some points, with a margin, not too narrow."""
    margin = max(6.0, 0.2 * max(np.ptp(x), np.ptp(y)))
    low, high = max(y.min() - margin, -90.0), min(y.max() + margin, 90.0)
    middle = (x.min() + x.max()) / 2
    half = min(max(np.ptp(x) / 2 + margin, 0.6 * (high - low)), 180.0)
    return (float(middle - half), float(middle + half)), (float(low), float(high))


def _isobars(axes: Any, where: MapAxes, shown: np.ndarray, theme: Theme) -> None:
    x, values = where.closed(shown)
    levels = np.arange(800, 1120, 4)
    drawn = axes.contour(
        x, where.latitudes, np.ma.masked_invalid(values), levels,
        colors=INK[theme][0], linewidths=0.6, alpha=0.45,
    )  # fmt: skip
    axes.clabel(drawn, fontsize=7, fmt="%g")


def _track(axes: Any, name: str, track: np.ndarray, x: np.ndarray, tint: str) -> None:
    daily = track[:, 2] % 24 == 0
    axes.plot(x, track[:, 0], "-o", color=tint, linewidth=1.8, markersize=3.5, label=name)
    axes.plot(x[daily], track[daily, 0], "o", color=tint, markersize=7)


def _words(axes: Any, track: np.ndarray, x: np.ndarray, tint: str, ground: str) -> None:
    """Hour and pressure at whole days and at both ends."""
    from matplotlib.patheffects import withStroke

    halo = [withStroke(linewidth=2.5, foreground=ground)]
    told = track[:, 2] % 24 == 0
    told[[0, -1]] = True
    for at, (lat, _, hour, pressure) in zip(x[told], track[told], strict=True):
        words = f"{hour:g} h" + (f", {pressure:.0f} hPa" if math.isfinite(pressure) else "")
        style = {"fontsize": 8, "color": tint, "path_effects": halo, "zorder": 5}
        axes.annotate(words, (at, lat), (8, -11), textcoords="offset points", **style)
