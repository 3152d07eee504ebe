"""Lows and rotation of weather fields: what a tracker looks for in one state."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import ndimage

from tenfold.metrics.weather import EARTH_KM


def check_grid(
    lat: Float[np.ndarray, " lat"], lon: Float[np.ndarray, " lon"], periodic: bool
) -> None:
    """Refuse coordinates (degrees) that are no grid: ValueError names what is wrong."""
    if len(lat) < 3 or len(lon) < 3:
        raise ValueError(f"{len(lat)} x {len(lon)} points: tracking needs 3 x 3 at least.")
    steps, gaps = np.diff(lat), np.diff(lon)
    if not (np.all(steps > 0) or np.all(steps < 0)) or not np.all(np.abs(lat) <= 90):
        raise ValueError("latitudes must rise or fall throughout, within -90 to 90 degrees.")
    if not np.all(gaps > 0) or not lon[-1] - lon[0] < 360:
        raise ValueError("longitudes must rise throughout and span less than 360 degrees.")
    seam = lon[0] + 360 - lon[-1]
    if periodic and not 0.5 * gaps.min() <= seam <= 1.5 * gaps.max():
        raise ValueError(
            f"longitudes {lon[0]} to {lon[-1]} leave a gap of {seam} degrees, so the grid does not "
            "go round the Earth. Set periodic=False for a region."
        )


def vorticity(
    u: Float[np.ndarray, "lat lon"],
    v: Float[np.ndarray, "lat lon"],
    lat: Float[np.ndarray, " lat"],
    lon: Float[np.ndarray, " lon"],
    periodic: bool = True,
) -> Float[np.ndarray, "lat lon"]:
    """Relative vorticity in 1/s of winds in m/s, float64: dv/dx - d(u cos lat)/dy / cos lat.

    Centred differences, one-sided at the edges, for uneven rows too; 0 in rows at a pole, where it
    has no value; NaN beside a missing point.
    """
    check_grid(lat, lon, periodic)
    u, v = u.astype(np.float64), v.astype(np.float64)
    phi, lam = np.radians(lat.astype(np.float64)), np.radians(lon.astype(np.float64))
    if periodic:
        lam = np.concatenate([lam[-1:] - 2 * np.pi, lam, lam[:1] + 2 * np.pi])
        dv = np.gradient(np.pad(v, ((0, 0), (1, 1)), mode="wrap"), lam, axis=1)[:, 1:-1]
    else:
        dv = np.gradient(v, lam, axis=1)
    cos = np.cos(phi)[:, None]
    poles = np.abs(lat) > 90 - 1e-6
    du = np.gradient(u * cos, phi, axis=0)
    spin = (dv - du) / (EARTH_KM * 1000 * np.where(poles[:, None], 1.0, cos))
    spin[poles] = 0.0
    return spin


def minima(
    field: Float[np.ndarray, "lat lon"], periodic: bool = True
) -> Bool[np.ndarray, "lat lon"]:
    """One point of each minimum: a value, or several equal ones side by side, below all around.

    Packed files round pressure, so that the lowest points of a low are often equal; the one in
    their middle stands for them. Not in the first and last row, nor column of a region, nor beside
    a missing point: what lies beyond is not known.
    """
    rows, columns = field.shape
    padded = np.pad(field, ((1, 1), (1, 1)), constant_values=np.nan)
    if periodic:
        padded[1:-1, 0], padded[1:-1, -1] = field[:, -1], field[:, 0]
    around = [
        padded[i : i + rows, j : j + columns] for i, j in np.ndindex(3, 3) if (i, j) != (1, 1)
    ]
    lowest = np.logical_and.reduce([field <= other for other in around])
    lower = np.logical_and.reduce([field < other for other in around])
    if np.array_equal(lowest, lower):
        return lower
    label = _labels(lowest, periodic)
    # A flat is no minimum if one of its points lies beside a lower, a missing or an unknown one.
    marks = np.pad(lowest, ((1, 1), (1, 1)))
    if periodic:
        marks[1:-1, 0], marks[1:-1, -1] = lowest[:, -1], lowest[:, 0]
    inside = [marks[i : i + rows, j : j + columns] for i, j in np.ndindex(3, 3) if (i, j) != (1, 1)]
    open_ = np.logical_or.reduce([(field == v) & ~m for v, m in zip(around, inside, strict=True)])
    flat = lowest & ~lower
    points, numbers = np.argwhere(flat), label[flat]
    order = np.argsort(numbers, kind="stable")
    ends = np.flatnonzero(np.diff(numbers[order])) + 1
    bad = set(label[flat & open_].tolist())
    for group in np.split(order, ends):
        if numbers[group[0]] not in bad:
            lower[_middle(points[group], columns)] = True
    return lower


def _labels(marked: Bool[np.ndarray, "lat lon"], periodic: bool) -> Int[np.ndarray, "lat lon"]:
    """Number of the group of neighbours (of eight) that each marked point belongs to."""
    if not periodic:
        return np.asarray(ndimage.label(marked, np.ones((3, 3)))[0])
    # The first column once more at the end: there the same points have two numbers, which are one.
    label = np.asarray(ndimage.label(np.c_[marked, marked[:, :1]], np.ones((3, 3)))[0])
    for row in np.flatnonzero(marked[:, 0]):
        if label[row, -1] != label[row, 0]:
            label[label == label[row, -1]] = label[row, 0]
    return label[:, :-1]


def _middle(points: Int[np.ndarray, "point 2"], columns: int) -> tuple[int, int]:
    """The point nearest to the mean of all, also of those on both sides of the seam."""
    east = (points[:, 1] - points[0, 1] + columns // 2) % columns
    place = np.stack([points[:, 0], east], axis=1)
    row, column = points[np.square(place - place.mean(0)).sum(1).argmin()]
    return int(row), int(column)
