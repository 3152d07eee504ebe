"""Values that a field of the atmosphere can have, and those that files put where there is none."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Bool, Num

from .names import GRAVITY

LIMITS = {
    "q": (-5e-3, 0.1),  # kg/kg; spectral models have small negative values
    "t": (130.0, 370.0),  # K
    "t2m": (130.0, 370.0),
    "msl": (7e4, 1.4e5),  # Pa; wide, for it is extrapolated below high ground
    "u": (-250.0, 250.0),  # m/s
    "v": (-250.0, 250.0),
    "u10": (-150.0, 150.0),
    "v10": (-150.0, 150.0),
}
"""Values outside of which a unit or scale factor is certainly wrong."""
FILL = 1e19
"""Magnitude from which a value of any field is none: NetCDF's own fill is 9.97e36, CMIP's 1e20."""
FILLS = (-32768.0, -32767.0, -99999.0, -9999.0, -999.0, -999.9, 999999.0, 9999.0)
"""Other numbers that stand for a missing value."""


def limits(name: str, level: int = 0) -> tuple[float, float]:
    """Smallest and largest value of a field that can be true."""
    if name == "z" and level:
        middle = standard_geopotential(level)
        room = 0.4 * abs(middle) + 15_000.0
        return middle - room, middle + room
    return LIMITS.get(name, (-FILL, FILL))


def impossible(
    values: Num[np.ndarray, "*any"], name: str, level: int = 0
) -> Bool[np.ndarray, "*any"]:
    """Points whose value cannot be true; NaN is none of them."""
    low, high = limits(name, level)
    return (values < low) | (values > high)


def is_fill(value: float) -> bool:
    """Return True for numbers that stand for a missing value."""
    return abs(value) >= FILL or any(math.isclose(value, fill, rel_tol=1e-6) for fill in FILLS)


def standard_geopotential(level: int) -> float:
    """Geopotential of the ICAO standard atmosphere (m2/s2) at a pressure in hPa."""
    if level > 226.32:
        height = 44330.77 * (1 - (level / 1013.25) ** 0.190263)
    else:
        height = 11000 + 6341.62 * np.log(226.32 / level)
    return float(GRAVITY * height)
