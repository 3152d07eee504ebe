"""Axes of a map on which fields lie, and the coast there, with nothing to download."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float

Number = int | float
SAMPLES = 70_000
"""Points at which `landcheck` is asked for one map: about a second and a half."""


@dataclass(frozen=True)
class MapAxes:
    """Latitudes and longitudes of fields, and the coast there; made by `map_axes`."""

    latitudes: Float[np.ndarray, "lat"]
    longitudes: Float[np.ndarray, "lon"]
    coast: tuple[np.ndarray, ...] = ()
    """Lines of (longitude, latitude), (points, 2) each."""

    @property
    def is_global(self) -> bool:
        """True if the first column is the eastern neighbour of the last."""
        x = self.longitudes
        return len(x) > 1 and bool(abs(x[-1] - x[0] + (x[1] - x[0]) - 360) < 1e-3)

    def closed(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Longitudes and a field, with the first column repeated at the end of a whole globe."""
        if not self.is_global:
            return self.longitudes, values
        return np.append(self.longitudes, self.longitudes[0] + 360), np.c_[values, values[:, :1]]

    def rolled(self, values: np.ndarray, centre: Number) -> tuple[MapAxes, np.ndarray]:
        """The same with longitudes within 180 degrees of `centre`, rising again.

        A region may come apart where it is wider than that on one side: what lies between its two
        ends is a column of missing values, over which nothing is drawn.
        """
        x = near(self.longitudes, centre)
        order = np.argsort(x)
        x, values = x[order], values[:, order]
        steps = np.diff(x)
        hole = int(steps.argmax())
        if not self.is_global and steps[hole] > 1.5 * np.diff(self.longitudes).max():
            x = np.insert(x, hole + 1, x[hole : hole + 2].mean())
            values = np.insert(values.astype(float), hole + 1, np.nan, axis=1)
        return MapAxes(self.latitudes, x, self.coast), values


def near(longitudes: np.ndarray, centre: Number) -> np.ndarray:
    """Longitudes moved by whole turns to within 180 degrees of `centre`."""
    return (longitudes - centre + 180) % 360 - 180 + centre


def map_axes(
    latitudes: Sequence[Number] | np.ndarray,
    longitudes: Sequence[Number] | np.ndarray,
    land: np.ndarray | None = None,
    earth: bool = True,
) -> MapAxes:
    """Axes of a grid, with its coast if one can be had.

    Args:
        latitudes: Degrees north, rising or falling.
        longitudes: Degrees east in any convention, rising.
        land: Share of land (lat, lon), 0 to 1.
        earth: Whether fields are of the real Earth. Then, if the package landcheck is installed
            (Natural Earth at about 7 km), the coast is drawn from that; else it is the contour of
            a half of `land`, else there is none.

    Raises:
        ValueError: An axis is not monotone or has fewer than two points, or `land` has another
            shape.
    """
    y, x = (np.array(axis, dtype=float) for axis in (latitudes, longitudes))
    steps = np.diff(y)
    if len(y) < 2 or not ((steps < 0).all() or (steps > 0).all()):
        raise ValueError(f"a map needs 2 or more monotone latitudes, got {y.tolist()[:6]} ...")
    if len(x) < 2 or not (np.diff(x) > 0).all() or x[-1] - x[0] > 360:
        raise ValueError(
            f"a map needs 2 or more rising longitudes within 360 degrees, got {x.tolist()[:6]} ..."
        )
    bare = MapAxes(y, x)
    if land is not None:
        check(land, bare)
    if earth:
        right = x[0] + 360 if bare.is_global else x[-1]
        coast = _earth(float(y.min()), float(y.max()), float(x[0]), float(right))
        if coast is not None:
            return MapAxes(y, x, coast)
    if land is None:
        return bare
    return MapAxes(y, x, _outline(bare.closed(land)[0], y, bare.closed(land)[1]))


@lru_cache(maxsize=8)
def _earth(south: float, north: float, west: float, east: float) -> tuple[np.ndarray, ...] | None:
    """Coast of the Earth in a window, or None without the package."""
    try:
        from landcheck import LandCheck
    except ImportError:
        return None
    step = max(0.2, math.sqrt((north - south) * (east - west) / SAMPLES))
    y = np.linspace(south, north, max(2, round((north - south) / step) + 1))
    x = np.linspace(west, east, max(2, round((east - west) / step) + 1))
    is_land = LandCheck().is_land
    turned = near(x, 0).tolist()
    mask = np.array([[is_land(lon, lat) for lon in turned] for lat in y.tolist()], dtype=float)
    # averaged, or the outline would be a staircase; around the globe, or its edge would be a seam
    padded = np.pad(mask, 1, mode="edge")
    if east - west > 359.99:  # the first and last columns are the same
        padded[1:-1, 0], padded[1:-1, -1] = mask[:, -2], mask[:, 1]
    rows = (padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4
    lines = _outline(x, y, (rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]) / 4)
    return tuple(line for line in lines if np.ptp(line, axis=0).max() > 2 * step)  # no specks


def _outline(x: np.ndarray, y: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, ...]:
    import contourpy

    generator = contourpy.contour_generator(x, y, mask, line_type=contourpy.LineType.Separate)
    return tuple(np.asarray(line) for line in generator.lines(0.5))


def check(values: np.ndarray, where: MapAxes, extra: int = 0) -> None:
    """Raise ValueError unless fields, after `extra` axes, lie on these axes."""
    shape = (len(where.latitudes), len(where.longitudes))
    if values.ndim != 2 + extra or values.shape[extra:] != shape:
        raise ValueError(
            f"fields of shape {values.shape} do not lie on a grid of {shape[0]} latitudes and "
            f"{shape[1]} longitudes"
        )
