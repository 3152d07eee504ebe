"""Data to PNG or SVG bytes; every plot looks alike, in light or dark, and is drawn off screen."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np

from .fonts import families, is_plain, spelled

Theme = Literal["light", "dark"]
Format = Literal["png", "svg"]
Number = int | float
Values = Sequence[Number] | np.ndarray
Line = tuple[Values, Values]

# Okabe and Ito's colour-blind safe set; yellow only on dark, where it can be seen.
COLOURS: dict[Theme, tuple[str, ...]] = {
    "light": ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#B07C00", "#56B4E9", "#555555"),
    "dark": ("#56B4E9", "#E69F00", "#2BC49A", "#E39BC4", "#F0E442", "#FF8A4C", "#BBBBBB"),
}
STYLES = ("-", "--", "-.", ":")
INK: dict[Theme, tuple[str, str, str]] = {  # text, grid, ground
    "light": ("#1c2024", "#d9dde2", "#ffffff"),
    "dark": ("#e6e9ec", "#3a4149", "#191d21"),
}


LINE_ART = "line art on white"
"""Comment of a PNG that a dark page may show inverted."""


@contextmanager
def canvas(theme: Theme, width: Number, height: Number, texts: Sequence[str] = ()) -> Iterator[Any]:
    """Open a figure outside pyplot (no global state) in the house style.

    Args:
        theme: Colours of text, grid and ground.
        width: Width in inches.
        height: Height in inches.
        texts: Words of users that are measured before the figure is encoded, for their fonts.

    Yields:
        A matplotlib `Figure`; draw and encode it inside the context, where the style holds.
    """
    import matplotlib

    text, grid, ground = INK[theme]
    style: dict[Any, Any] = {
        "font.family": families(texts),
        "font.size": 10,
        "axes.titlesize": 11,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "text.color": text,
        "axes.labelcolor": text,
        "axes.edgecolor": text,
        "axes.linewidth": 0.8,
        "xtick.color": text,
        "ytick.color": text,
        "axes.facecolor": ground,
        "figure.facecolor": ground,
        "axes.grid": True,
        "grid.color": grid,
        "grid.linewidth": 0.7,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "legend.frameon": False,
        "legend.fontsize": 9,
        "svg.hashsalt": "tenfold",
        "svg.fonttype": "path",
        "text.parse_math": False,  # a `$` in a label is a `$`
    }
    with matplotlib.rc_context(style):
        from matplotlib.figure import Figure

        yield Figure(figsize=(width, height), layout="constrained")


def encoded(figure: Any, fmt: Format, dpi: int = 180) -> bytes:
    """Encode a figure of `canvas`; the same data give the same bytes.

    Args:
        figure: A matplotlib `Figure`.
        fmt: "png" or "svg".
        dpi: Dots per inch of a PNG.

    Returns:
        The content of a file.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    make_legible(figure)
    out = io.BytesIO()
    metadata: dict[str, str | None] = {"Date": None} if fmt == "svg" else {"Software": None}
    if fmt == "png" and _is_line_art(figure):
        metadata["Comment"] = LINE_ART
    figure.savefig(out, format=fmt, dpi=dpi, metadata=metadata)
    return out.getvalue()


def make_legible(figure: Any) -> None:
    """Give words of other scripts fonts that have them; what no font has is spelled as numbers."""
    from matplotlib.text import Text
    from matplotlib.ticker import FixedLocator

    sides = [axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)]
    named = [axis for axis in sides if isinstance(axis.get_major_locator(), FixedLocator)]
    ticks = [[label.get_text() for label in axis.get_ticklabels()] for axis in named]
    texts = figure.findobj(Text)
    words = [*(text.get_text() for text in texts), *(word for row in ticks for word in row)]
    if all(map(is_plain, words)):
        return
    family = families(words)
    for text in texts:
        text.set_fontfamily(family)
        text.set_text(spelled(text.get_text()))
    for axis, row in zip(named, ticks, strict=True):
        axis.set_ticklabels([spelled(word) for word in row], fontfamily=family)


def _is_line_art(figure: Any) -> bool:
    """Return True if nothing on it has colours that mean a value or belong to a photograph."""
    from matplotlib.collections import QuadMesh

    return not any(
        axes.images or any(isinstance(part, QuadMesh) for part in axes.collections)
        for axes in figure.axes
    )


def colour(index: int, theme: Theme = "light") -> str:
    """Return the colour "#rrggbb" of line or bar number `index`, the same in all of a theme."""
    return COLOURS[theme][index % len(COLOURS[theme])]


def smooth(values: Values, window: int) -> np.ndarray:
    """Average over a centred window, narrower at the ends; never across a gap (a nan).

    Args:
        values: Values in order; those that are not finite are gaps.
        window: Width in values; an even one counts as the next odd one.

    Returns:
        An array of the same length, nan in the gaps.
    """
    y = np.asarray(values, dtype=float)
    out = np.full(len(y), np.nan)
    at = np.flatnonzero(np.isfinite(y))
    for piece in np.split(at, np.flatnonzero(np.diff(at) > 1) + 1) if len(at) else []:
        total = np.concatenate([[0.0], np.cumsum(y[piece])])
        here, half = np.arange(len(piece)), max(window, 1) // 2
        low, high = np.maximum(here - half, 0), np.minimum(here + half + 1, len(piece))
        out[piece] = (total[high] - total[low]) / (high - low)
    return out


def wants_log(lines: Sequence[Values]) -> bool:
    """Return True if all values are positive and their bulk spans more than a factor 20."""
    every = np.concatenate([np.asarray(y, dtype=float) for y in lines] or [np.zeros(0)])
    every = every[np.isfinite(every)]
    if len(every) < 3 or every.min() <= 0:
        return False
    low, high = np.percentile(every, [2, 98])
    return bool(high / low > 20)


def _plain_steps(axes: Any) -> None:
    """Large step numbers as 20k, not 2e4."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    def words(x: float, _: int) -> str:
        return f"{x / 1000:g}k" if abs(x) >= 10_000 else f"{x:g}"

    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(words))


def _log(axes: Any) -> None:
    """A logarithmic y axis with plain numbers; between the decades only if there are few."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_yscale("log")
    low, high = axes.get_ylim()
    steps = (1.0, 2.0, 5.0) if high / low < 1000 else (1.0,)
    axes.yaxis.set_major_locator(LogLocator(subs=steps, numticks=12))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def legend_below(axes: Any, count: int) -> None:
    """Add a legend of `count` entries, if any, below the axes, where it never hides a curve."""
    if count:
        axes.figure.legend(
            loc="outside lower center", ncols=min(count, 3), handlelength=1.8, columnspacing=1.2
        )


def curves(
    lines: Mapping[str, Line],
    *,
    title: str = "",
    xlabel: str = "step",
    ylabel: str = "",
    window: int = 0,
    log: bool | None = None,
    marks: Sequence[Number] = (),
    theme: Theme = "light",
    fmt: Format = "png",
    size: tuple[Number, Number] = (5.4, 3.3),
) -> bytes:
    """Draw lines of y over x; a line of few points gets dots.

    Args:
        lines: Label -> (x, y); a y that is not finite is a gap.
        title: Title above the axes.
        xlabel: Label of the x axis.
        ylabel: Label of the y axis.
        window: Width in values of a moving average; above 1 a line that is long enough is drawn
            pale, with its average on top.
        log: Logarithmic y axis; None decides by the data (`wants_log`).
        marks: x of vertical lines (where a new stage begins).
        theme: "light" or "dark".
        fmt: "png" or "svg".
        size: Width and height in inches.

    Returns:
        The content of an image file.
    """
    with canvas(theme, *size) as figure:
        axes = figure.subplots()
        drawn = 0
        for i, (label, (x, values)) in enumerate(lines.items()):
            y = np.asarray(values, dtype=float)
            y = np.where(np.isfinite(y), y, np.nan)
            if np.isnan(y).all():
                continue
            drawn += 1
            label = f" {label}" if label.startswith("_") else label  # matplotlib hides _labels
            tint, style = colour(i, theme), STYLES[(i // len(COLOURS[theme])) % len(STYLES)]
            if window > 1 and len(y) > 3 * window:
                axes.plot(x, y, color=tint, alpha=0.28, linewidth=0.8)
                axes.plot(x, smooth(y, window), style, color=tint, linewidth=1.8, label=label)
            else:
                marker = "o" if len(y) <= 25 else ""
                axes.plot(
                    x, y, style, color=tint, linewidth=1.6, marker=marker, markersize=4, label=label
                )
        if wants_log([y for _, y in lines.values()]) if log is None else log:
            _log(axes)
        for mark in marks:
            axes.axvline(mark, color=INK[theme][0], linewidth=0.8, linestyle=":", alpha=0.6)
        if not drawn:
            axes.text(0.5, 0.5, "no finite values", ha="center", transform=axes.transAxes)
        axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
        _plain_steps(axes)
        legend_below(axes, drawn if drawn > 1 or len(lines) > 1 else 0)
        return encoded(figure, fmt)


def lines_with_spread(
    lines: Mapping[str, tuple[Values, Sequence[Values] | np.ndarray]],
    *,
    title: str = "",
    xlabel: str = "",
    ylabel: str = "",
    log: bool = False,
    theme: Theme = "light",
    fmt: Format = "png",
    size: tuple[Number, Number] = (5.4, 3.3),
) -> bytes:
    """Draw the mean of several repeats over x, with one standard deviation as a band.

    Args:
        lines: Label -> (x, repeats); repeats are (repeat, x), or (x,) for a single one.
        title: Title above the axes.
        xlabel: Label of the x axis.
        ylabel: Label of the y axis.
        log: Logarithmic y axis.
        theme: "light" or "dark".
        fmt: "png" or "svg".
        size: Width and height in inches.

    Returns:
        The content of an image file.

    Raises:
        ValueError: Repeats of a line and its x differ in length.
    """
    with canvas(theme, *size) as figure:
        axes = figure.subplots()
        for i, (label, (x, repeats)) in enumerate(lines.items()):
            y = np.atleast_2d(np.asarray(repeats, dtype=float))
            if y.shape[1] != len(x):
                raise ValueError(
                    f"line {label!r}: {y.shape[1]} values a repeat, but {len(x)} x values"
                )
            mean = y.mean(0)
            spread = y.std(0, ddof=1) if len(y) > 1 else np.zeros_like(mean)
            tint = colour(i, theme)
            axes.fill_between(x, mean - spread, mean + spread, color=tint, alpha=0.2, linewidth=0)
            axes.plot(x, mean, color=tint, linewidth=1.8, marker="o", markersize=4, label=label)
        if log:
            _log(axes)
        axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
        legend_below(axes, len(lines))
        return encoded(figure, fmt)


def scatter(
    groups: Mapping[str, Line],
    *,
    joined: Sequence[str] = (),
    title: str = "",
    xlabel: str = "",
    ylabel: str = "",
    doublings: bool = False,
    log: bool = False,
    theme: Theme = "light",
    fmt: Format = "png",
    size: tuple[Number, Number] = (5.4, 3.3),
) -> bytes:
    """Draw dots of y over x, a colour a group.

    Args:
        groups: Label -> (x, y).
        joined: Labels of groups that are drawn as rings on a line (a frontier).
        title: Title above the axes.
        xlabel: Label of the x axis.
        ylabel: Label of the y axis.
        doublings: Logarithmic x axis in powers of 2.
        log: Logarithmic y axis in plain numbers.
        theme: "light" or "dark".
        fmt: "png" or "svg".
        size: Width and height in inches.

    Returns:
        The content of an image file.

    Raises:
        ValueError: `joined` names a group that is not there.
    """
    from matplotlib.ticker import LogLocator, NullLocator

    unknown = [name for name in joined if name not in groups]
    if unknown:
        raise ValueError(f"no group is called {unknown[0]!r} to be joined; groups: {list(groups)}")
    with canvas(theme, *size) as figure:
        axes = figure.subplots()
        for i, (label, (x, y)) in enumerate(groups.items()):
            tint = colour(i, theme)
            if label in joined:  # below the dots, which then lie in its rings
                axes.plot(
                    x, y, "-o", color=tint, linewidth=1.6, markersize=6,
                    markerfacecolor=INK[theme][2], label=label, zorder=2,
                )  # fmt: skip
            else:
                axes.scatter(x, y, s=16, color=tint, alpha=0.7, linewidths=0, label=label, zorder=3)
        if log:
            _log(axes)
        if doublings:
            axes.set_xscale("log", base=2)
            axes.xaxis.set_major_locator(LogLocator(base=2, numticks=7))
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_locator(NullLocator())
        axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
        legend_below(axes, len(groups))
        return encoded(figure, fmt)


def bars(
    values: Mapping[str, Mapping[str, Number]],
    *,
    errors: Mapping[str, Mapping[str, Number]] | None = None,
    title: str = "",
    xlabel: str = "",
    ylabel: str = "",
    theme: Theme = "light",
    fmt: Format = "png",
    size: tuple[Number, Number] = (5.4, 3.3),
) -> bytes:
    """Draw grouped bars.

    Args:
        values: Method -> {group: value}; an absent value has no bar.
        errors: Half lengths of whiskers, in the same form; None draws none.
        title: Title above the axes.
        xlabel: Label of the x axis.
        ylabel: Label of the y axis.
        theme: "light" or "dark".
        fmt: "png" or "svg".
        size: Width and height in inches.

    Returns:
        The content of an image file.
    """
    groups = list(dict.fromkeys(group for one in values.values() for group in one))
    width = 0.8 / max(len(values), 1)
    with canvas(theme, *size) as figure:
        axes = figure.subplots()
        for i, (method, one) in enumerate(values.items()):
            x = np.arange(len(groups)) + (i - (len(values) - 1) / 2) * width
            height = [one.get(group, math.nan) for group in groups]
            spread = [(errors or {}).get(method, {}).get(group, 0.0) for group in groups]
            axes.bar(
                x,
                height,
                width * 0.92,
                yerr=spread if any(spread) else None,
                color=colour(i, theme),
                ecolor=INK[theme][0],
                capsize=3,
                label=method,
            )
        long = sum(map(len, groups)) > 45
        axes.set_xticks(
            range(len(groups)), groups, rotation=35 if long else 0, ha="right" if long else "center"
        )
        axes.grid(axis="x", visible=False)
        axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
        legend_below(axes, len(values) if len(values) > 1 else 0)
        return encoded(figure, fmt)


def heatmap(
    values: Sequence[Values] | np.ndarray,
    *,
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    title: str = "",
    xlabel: str = "",
    ylabel: str = "",
    unit: str = "",
    centred: bool = False,
    theme: Theme = "light",
    fmt: Format = "png",
    size: tuple[Number, Number] = (5.4, 4.2),
) -> bytes:
    """Draw a matrix as colours; numbers are written in when there are few.

    Args:
        values: Matrix (row, column); a value that is not finite stays without a number.
        rows: Names of the rows; none if empty.
        columns: Names of the columns; none if empty.
        title: Title above the axes.
        xlabel: Label of the x axis.
        ylabel: Label of the y axis.
        unit: Label of the colour bar.
        centred: Diverging colours with 0 at white, instead of a range from minimum to maximum.
        theme: "light" or "dark".
        fmt: "png" or "svg".
        size: Width and height in inches.

    Returns:
        The content of an image file.

    Raises:
        ValueError: `values` is no matrix, or empty.
    """
    grid = np.asarray(values, dtype=float)
    if grid.ndim != 2 or grid.size == 0:
        raise ValueError(f"a heatmap needs a filled matrix, got shape {grid.shape}")
    finite = grid[np.isfinite(grid)]
    low, high = (finite.min(), finite.max()) if len(finite) else (0.0, 1.0)
    if centred:
        high = max(abs(low), abs(high)) or 1.0
        low = -high
    with canvas(theme, *size) as figure:
        axes = figure.subplots()
        axes.grid(visible=False)
        image = axes.imshow(
            grid,
            cmap="RdBu_r" if centred else "cividis",
            vmin=low,
            vmax=high,
            aspect="auto",
            interpolation="nearest",
        )
        bar = figure.colorbar(image, ax=axes, fraction=0.05, pad=0.03)
        bar.set_label(unit)
        if rows:
            axes.set_yticks(range(len(rows)), rows)
        if columns:
            turn = 35 if sum(map(len, columns)) > 40 else 0
            axes.set_xticks(
                range(len(columns)), columns, rotation=turn, ha="right" if turn else "center"
            )
        if grid.shape[0] <= 12 and grid.shape[1] <= 10:
            for (i, j), value in np.ndenumerate(grid):
                if not math.isfinite(value):
                    continue
                red, green, blue, _ = image.cmap(image.norm(value))
                ink = "#000" if 0.3 * red + 0.59 * green + 0.11 * blue > 0.5 else "#fff"
                axes.text(j, i, f"{value:.3g}", ha="center", va="center", color=ink, fontsize=9)
        axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
        return encoded(figure, fmt)


def animation_gif(frames: Sequence[Any], fps: Number = 10) -> bytes:
    """Encode frames as an endless GIF with one palette.

    Args:
        frames: Arrays (height, width[, 3 or 4]; uint8, or floats in 0..1) or images of Pillow, all
            of one size.
        fps: Frames per second, in (0, 50]; rounded to whole hundredths of a second a frame.

    Returns:
        The content of the GIF file.

    Raises:
        ValueError: There is no frame, sizes differ, or `fps` is out of range.
    """
    from PIL import Image

    if not len(frames):
        raise ValueError("an animation needs at least one frame, got none")
    if not 0 < fps <= 50:
        raise ValueError(f"fps must be in (0, 50] (a GIF knows hundredths of a second), got {fps}")
    images: list[Image.Image] = []
    for frame in frames:
        if not isinstance(frame, Image.Image):
            array = np.asarray(frame)
            if array.dtype.kind in "fb":
                array = np.nan_to_num(array.astype(float)).clip(0, 1) * 255
            frame = Image.fromarray(array.round().clip(0, 255).astype(np.uint8))
        images.append(frame.convert("RGB"))
    sizes = {image.size for image in images}
    if len(sizes) > 1:
        raise ValueError(f"frames of one animation have one size, got {sorted(sizes)}")
    # One palette for all frames: a palette a frame flickers.
    step = max(1, len(images) // 8)
    sample = images[::step]
    strip = Image.new("RGB", (images[0].width, images[0].height * len(sample)))
    for i, image in enumerate(sample):
        strip.paste(image, (0, i * image.height))
    palette = strip.quantize(255, dither=Image.Dither.NONE)
    flat = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    out = io.BytesIO()
    flat[0].save(
        out,
        format="GIF",
        save_all=True,
        append_images=flat[1:],
        duration=10 * round(100 / fps),  # the format counts hundredths of a second
        loop=0,
        disposal=1,
    )
    return out.getvalue()
