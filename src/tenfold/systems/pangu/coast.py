"""Coasts for maps, computed once for a grid and kept: asking for them takes longer than drawing."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from tenfold.data.io import cache
from tenfold.viz.map_axes import MapAxes, map_axes

VERSION = "1"
"""Of what is kept; another one is computed anew."""
LARGEST = 2**24
"""Bytes of a file of coasts, at most."""


def axes_of(
    latitudes: tuple[float, ...],
    longitudes: tuple[float, ...],
    land: np.ndarray | None,
    earth: bool,
) -> MapAxes:
    """Axes of maps on a grid, and the coast there; see `map_axes`.

    The Earth's own coast lies in $TENFOLD_CACHE/coast after its first use.
    """
    y, x = np.array(latitudes), np.array(longitudes)
    if not earth or find_spec("landcheck") is None:
        return map_axes(y, x, land, earth)
    digest = hashlib.blake2b(y.tobytes() + b"/" + x.tobytes(), digest_size=12).hexdigest()
    file = cache.folder("coast") / f"{digest}-{VERSION}.npy"
    lines = _read(file)
    if lines is not None:
        return MapAxes(y, x, lines)
    where = map_axes(y, x, land, earth)
    cache.keep(file, lambda path: _write(path, where.coast), "coasts")
    return where


def _write(path: Path, lines: tuple[np.ndarray, ...]) -> None:
    """One array of points, with NaN after each line."""
    gap = np.full((1, 2), np.nan)
    points = [part for line in lines for part in (line, gap)]
    with path.open("wb") as stream:
        np.save(stream, np.concatenate([*points, np.zeros((0, 2))]))


def _read(file: Path) -> tuple[np.ndarray, ...] | None:
    """Lines of a file, or None where there is none that is whole."""
    try:
        if file.stat().st_size > LARGEST:
            return None
        points = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    if points.ndim != 2 or points.shape[1] != 2 or points.dtype != np.float64:
        return None
    ends = np.flatnonzero(np.isnan(points[:, 0]))
    return tuple(line[~np.isnan(line[:, 0])] for line in np.split(points, ends + 1)[: len(ends)])
