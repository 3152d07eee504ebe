"""Weather fields and their grid: all that a configuration must know of its data."""

from __future__ import annotations

from dataclasses import dataclass

MISSING_ALLOWED = 0.5
"""Largest share of points that may be missing at every time (corners outside a projection)."""


@dataclass(frozen=True)
class Grid:
    """Fields and grid of states of the atmosphere, in the order in which tensors hold them."""

    upper: tuple[str, ...] = ()
    """Variables on pressure levels (paper: z, q, t, u, v)."""
    levels: tuple[int, ...] = ()
    """Pressure levels in hPa, from the ground up (paper: 1000 925 ... 50)."""
    surface: tuple[str, ...] = ()
    """Variables on one level (paper: msl, u10, v10, t2m)."""
    constants: tuple[str, ...] = ()
    """Maps that do not change, given as further surface fields (paper: land, soil, topography)."""
    latitudes: tuple[float, ...] = ()
    """Degrees, from north to south; rows of a Gaussian grid as they are."""
    longitudes: tuple[float, ...] = ()
    """Degrees east, rising; a global grid starts in [0, 360)."""
    periodic: bool = True
    """True if the last column is a neighbour of the first; false for a region."""
    step: int = 6
    """Hours between states."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return len(self.latitudes), len(self.longitudes)

    @property
    def fields(self) -> tuple[str, ...]:
        """Name of every two-dimensional field: z500, ..., msl; upper ones by variable, level."""
        upper = (f"{name}{level}" for name in self.upper for level in self.levels)
        return (*upper, *self.surface)
