"""Probabilities that an ensemble exceeds thresholds."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float32

from tenfold.data.weather.grid import Grid
from tenfold.metrics.weather import exceedance_probability

from .config import parse_threshold
from .rollout import Members


class Chances:
    """Thresholds of fields, such as t2m=303.15.

    Raises:
        ValueError: A field is not forecast, or a threshold is given twice.
    """

    def __init__(self, grid: Grid, above: tuple[str, ...]) -> None:
        self.thresholds = [parse_threshold(text) for text in above]
        """Field and value in SI units."""
        self._rows = []
        for number, (name, value) in enumerate(self.thresholds):
            if (name, value) in self.thresholds[:number]:
                raise ValueError(f"--above has {name}={threshold_text(value)} twice; give it once")
            if name not in grid.fields:
                raise ValueError(
                    f"--above has {name!r}; the run forecasts {', '.join(grid.fields)}"
                )
            self._rows.append(grid.fields.index(name))

    def grid(self, where: Grid) -> Grid:
        """The probabilities as fields on a grid: t2m_above_303_15."""
        names = (
            f"{name}_above_{re.sub(r'[^0-9A-Za-z]', '_', threshold_text(value))}"
            for name, value in self.thresholds
        )
        return replace(where, upper=(), levels=(), surface=tuple(names), constants=())

    def of(self, members: Members) -> Float32[np.ndarray, "threshold lat lon"]:
        """Share of the members above each threshold."""
        upper, surface = members
        flat = np.concatenate([upper.reshape(len(upper), -1, *surface.shape[-2:]), surface], axis=1)
        found = [
            exceedance_probability(torch.from_numpy(flat[:, row]), value).float().numpy()
            for row, (_, value) in zip(self._rows, self.thresholds, strict=True)
        ]
        return np.stack(found)


def threshold_text(value: float) -> str:
    """A threshold with as many digits as tell it from others: 255, 303.15, 101325.5."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value)
