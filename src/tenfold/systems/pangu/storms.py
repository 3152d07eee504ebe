"""A storm in states of a run: which of their fields the tracker gets."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from jaxtyping import Float32

from tenfold.data.weather.grid import Grid
from tenfold.metrics.weather import Position, great_circle_km

from .cyclone import Thresholds, Tracker
from .lows import minima
from .rollout import Start

Field = Float32[np.ndarray, "lat lon"]
WINDS = (("u10", "v10"), ("u", "v"))
"""Names of the wind near the surface, the usual ones first."""


class Follower:
    """Follows one storm through states, given hour by hour."""

    def __init__(
        self,
        grid: Grid,
        start: tuple[float, float],
        thresholds: Thresholds,
        land: np.ndarray | None,
    ) -> None:
        if "msl" not in grid.surface:
            raise ValueError(
                f"--track needs the pressure at mean sea level, msl; the run has {grid.surface}"
            )
        lats, lons = np.array(grid.latitudes), np.array(grid.longitudes)
        self.grid, self.thresholds, self.land = grid, thresholds, land
        self.tracker = Tracker(lats, lons, start, thresholds, grid.periodic)
        self.positions: list[Position] = []

    def step(self, hour: int, upper: np.ndarray, surface: np.ndarray) -> None:
        """Look for the storm in the state of an hour."""
        t = self.thresholds
        u10, v10 = (self._surface(surface, pair) for pair in zip(*WINDS, strict=True))
        u, v = (self._upper(upper, name, t.vorticity_level) for name in ("u", "v"))
        if u is None or v is None:  # the wind near the surface turns, too
            u, v = u10, v10
        high, low = (self._upper(upper, "z", level) for level in sorted(t.thickness_levels))
        thickness = None if high is None or low is None else high - low
        msl = surface[self.grid.surface.index("msl")]
        land = None if self.land is None else self.land.astype(np.float32)
        position = self.tracker.step(float(hour), msl, u, v, u10, v10, land, thickness)
        if position is not None:
            self.positions.append(position)

    def _surface(self, surface: np.ndarray, names: tuple[str, ...]) -> Field | None:
        known = next((name for name in names if name in self.grid.surface), None)
        return None if known is None else surface[self.grid.surface.index(known)]

    def _upper(self, upper: np.ndarray, name: str, level: int) -> Field | None:
        if name not in self.grid.upper or level not in self.grid.levels:
            return None
        field: Field = upper[self.grid.upper.index(name), self.grid.levels.index(level)]
        return field


def per_step(thresholds: Thresholds, hours: int) -> Thresholds:
    """Thresholds whose search radius, meant for 6 hours, grows with the time between states."""
    radius = min(thresholds.radius_km * max(1.0, hours / 6), math.pi * 6371)
    return replace(thresholds, radius_km=radius)


def require_storm(
    start: Start, where: tuple[float, float], thresholds: Thresholds, land: np.ndarray | None
) -> None:
    """Refuse a place at which the first state has no storm, naming the lows near it."""
    follower = Follower(start.grid, where, thresholds, land)
    follower.step(0, start.upper, start.surface)
    if follower.positions:
        return
    grid = start.grid
    msl = start.surface[grid.surface.index("msl")]
    lats, lons = np.array(grid.latitudes), np.array(grid.longitudes)
    lows = np.argwhere(minima(msl.astype(np.float64), grid.periodic))
    far = [float(great_circle_km(*where, float(lats[i]), float(lons[j]))) for i, j in lows]
    near = [
        f"{lats[i]:g},{(lons[j] + 180) % 360 - 180:g} ({msl[i, j] / 100:.0f} hPa, {far[n]:.0f} km)"
        for n in np.argsort(far)[:3]
        for i, j in [lows[n]]
    ]
    raise ValueError(
        f"--track {where[0]:g},{where[1]:g}: the first state has no storm there "
        f"({follower.tracker.ended}). The nearest lows: {'; '.join(near) or 'none'}. A low also "
        f"needs a vorticity of {thresholds.vorticity:g} 1/s near it, which coarse grids do not "
        "reach: lower --tracker.vorticity there"
    )
