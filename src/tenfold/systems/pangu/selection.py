"""What a forecast keeps of its states: some fields, a region, or all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Shaped

from tenfold.data.weather.grid import Grid

from .rollout import Members


class Selection:
    """Fields and region of the states that are written and drawn.

    Args:
        grid: Fields and grid of the states.
        fields: Names such as z500 and t2m; none for all.
        region: NORTH,WEST,SOUTH,EAST in degrees (as the CDS and MARS have it); empty for all.

    Raises:
        ValueError: A field is not forecast, or the region has less than two rows or columns.
    """

    def __init__(self, grid: Grid, fields: tuple[str, ...] = (), region: str = "") -> None:
        for name in fields:
            if name not in grid.fields:
                raise ValueError(
                    f"--fields has {name!r}; the run forecasts {', '.join(grid.fields)}"
                )
        self.whole = not fields and not region
        self._chosen = [grid.fields.index(name) for name in fields]
        lats, lons = np.array(grid.latitudes), np.array(grid.longitudes)
        self.rows, self.columns = np.arange(len(lats)), np.arange(len(lons))
        periodic = grid.periodic
        if region:
            north, west, south, east = parse_region(region)
            self.rows = np.flatnonzero((lats <= north + 1e-6) & (lats >= south - 1e-6))
            # 1e-6: a column that rounding puts just west of the edge is the first, not the last
            away = np.mod(lons - west + 1e-6, 360.0)
            wide = east - west if east - west >= 360 else (east - west) % 360
            inside = np.flatnonzero(away <= wide + 2e-6)
            self.columns = inside[np.argsort(away[inside], kind="stable")]
            periodic = periodic and len(inside) == len(lons)
            if min(len(self.rows), len(self.columns)) < 2:
                raise ValueError(
                    f"--region {region} holds {len(self.rows)} rows, {len(self.columns)} columns "
                    f"of the grid ({lats[0]:g} to {lats[-1]:g} north, {lons[0]:g} to {lons[-1]:g} "
                    "east); at least 2 of each are needed. Give NORTH,WEST,SOUTH,EAST"
                )
            first = (lons[self.columns[0]] + 180) % 360 - 180 if not periodic else lons[0]
            lons = first + np.mod(lons[self.columns] - lons[self.columns[0]], 360.0)
        self.grid = replace(
            grid,
            latitudes=tuple(lats[self.rows].tolist()),
            longitudes=tuple(np.round(lons, 6).tolist()),
            periodic=periodic,
        )
        if fields:  # not every variable on every level: each is a field on one level
            self.grid = replace(self.grid, upper=(), levels=(), surface=fields)

    def cut(self, values: Shaped[np.ndarray, "*any lat lon"]) -> Shaped[np.ndarray, "*any y x"]:
        """The region of fields."""
        if len(self.rows) == values.shape[-2] and len(self.columns) == values.shape[-1]:
            return values[..., self.columns] if self.columns[0] else values
        return values[..., self.rows[:, None], self.columns]

    def inside(self, shape: tuple[int, int]) -> Bool[np.ndarray, "lat lon"]:
        """Points of the whole grid that are in the region."""
        inside = np.zeros(shape, bool)
        inside[self.rows[:, None], self.columns] = True
        return inside

    def take(self, members: Members) -> Members:
        """The chosen fields of states, on the region."""
        upper, surface = members
        if self._chosen:
            flat = upper.reshape(len(upper), -1, *upper.shape[-2:])
            every = [
                flat[:, k] if k < flat.shape[1] else surface[:, k - flat.shape[1]]
                for k in self._chosen
            ]
            upper, surface = upper[:, :0, :0], np.stack(every, axis=1)
        cut = self.cut(upper), self.cut(surface)
        return np.ascontiguousarray(cut[0]), np.ascontiguousarray(cut[1])


def parse_region(text: str) -> tuple[float, float, float, float]:
    """North, west, south and east of "NORTH,WEST,SOUTH,EAST"; ValueError if it is none."""
    try:
        north, west, south, east = (float(part) for part in text.split(","))
    except ValueError as error:
        raise ValueError(
            f"--region is {text!r}; give NORTH,WEST,SOUTH,EAST in degrees such as 72,-25,34,45"
        ) from error
    if not (90 >= north > south >= -90 and abs(west) <= 360 and abs(east) <= 360):
        raise ValueError(
            f"--region is {text!r}: north must be above south, within 90, and west and east within "
            "360 degrees"
        )
    return north, west, south, east
