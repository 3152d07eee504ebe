"""Quantities over lead time to PNG or SVG bytes: errors of forecasts, plumes of ensembles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from .plots import INK, STYLES, Format, Line, Number, Theme, canvas, colour, encoded, legend_below


def error_over_lead(
    lines: Mapping[str, Line],
    *,
    title: str = "",
    ylabel: str = "RMSE",
    unit: str = "",
    theme: Theme = "light",
    fmt: Format = "png",
    size: tuple[Number, Number] = (5.4, 3.3),
) -> bytes:
    """Errors over lead time: name -> (hours, values); the axis starts at zero, missing ones gap.

    Raises ValueError if a line has not as many values as hours.
    """
    with canvas(theme, *size) as figure:
        axes = figure.subplots()
        for i, (name, (hours, values)) in enumerate(lines.items()):
            if len(hours) != len(values):
                raise ValueError(f"line {name!r}: {len(values)} values for {len(hours)} hours")
            axes.plot(
                hours, np.asarray(values, dtype=float), STYLES[i % len(STYLES)],
                color=colour(i, theme), marker="o", markersize=4, linewidth=1.8, label=name,
            )  # fmt: skip
        axes.set(title=title, ylabel=f"{ylabel} ({unit})" if unit else ylabel)
        axes.set_ylim(bottom=0)
        _hours(axes)
        legend_below(axes, len(lines) if len(lines) > 1 else 0)
        return encoded(figure, fmt)


def plume(
    hours: Sequence[Number] | np.ndarray,
    members: Float[np.ndarray, "member hour"],
    truth: Float[np.ndarray, "hour"] | None = None,
    *,
    title: str = "",
    unit: str = "",
    theme: Theme = "light",
    fmt: Format = "png",
    size: tuple[Number, Number] = (5.8, 3.5),
) -> bytes:
    """Every member of an ensemble at a point over lead time, the middle 80 %, the mean, the truth.

    Raises ValueError if members or truth have not as many values as there are hours.
    """
    for name, values in (("members", members), ("truth", truth)):
        if values is not None and values.shape[-1] != len(hours):
            raise ValueError(f"{name}: {values.shape[-1]} values for {len(hours)} hours")
    with canvas(theme, *size) as figure:
        axes = figure.subplots()
        tint = colour(0, theme)
        axes.plot(hours, members.T, color=tint, linewidth=0.7, alpha=0.35)
        low, high = np.percentile(members, (10, 90), axis=0)
        axes.fill_between(hours, low, high, color=tint, alpha=0.18, linewidth=0, label="80 %")
        axes.plot(
            hours, members.mean(0), color=tint, linewidth=2.2, label=f"mean of {len(members)}"
        )
        if truth is not None:
            axes.plot(hours, truth, "--", color=INK[theme][0], linewidth=1.8, label="truth")
        axes.set(title=title, ylabel=unit)
        _hours(axes)
        legend_below(axes, 3)
        return encoded(figure, fmt)


def _hours(axes: Any) -> None:
    """Lead time in hours, marked at whole days where that leaves enough marks."""
    from matplotlib.ticker import MultipleLocator

    low, high = axes.get_xlim()
    step = next((s for s in (1, 3, 6, 12, 24, 48, 120) if (high - low) / s <= 9), 240)
    axes.xaxis.set_major_locator(MultipleLocator(step))
    axes.set_xlabel("lead time (h)")
