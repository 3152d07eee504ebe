"""Checks of weather data: the four NetCDF-4 files of `pangu_atmos`, and states of your own."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from ..io.problems import BROKEN, Problems, some

MAGIC = b"\x89HDF\r\n\x1a\n"
"""First bytes of a NetCDF-4 (HDF5) file."""
PANGU_LEVELS = [1000, 925, 850, 700, 600, 500, 400, 300, 250, 200, 150, 100, 50]
GCM_LEVELS = [850, 700, 500, 300, 200]
SURFACE = ("msl", "u10", "v10", "t2m")
LIMITS = {
    "z": (-5e3, 3e5),  # m2/s2
    "q": (0.0, 0.05),  # kg/kg
    "t": (150.0, 350.0),  # K
    "u": (-150.0, 150.0),  # m/s
    "v": (-150.0, 150.0),
    "msl": (8e4, 1.3e5),  # Pa; wide, for the simulated field is meaningless over high ground
    "sst": (260.0, 320.0),
    "sic": (0.0, 1.0),
    "lsm": (0.0, 1.0),
    "orog": (-500.0, 9000.0),  # m
    "albedo": (0.0, 1.0),
}
"""Physical limits by quantity; outside them a unit or a scale factor is wrong."""
FILES: dict[str, dict[str, tuple[int, ...]]] = {
    "gcm_t21_6h.nc": {
        **{f"{name}{level}": (640, 32, 64) for name in "zqtuv" for level in GCM_LEVELS},
        **{name: (640, 32, 64) for name in SURFACE},
        **{name: (32, 64) for name in ("lsm", "orog", "albedo")},
    },
    "storm1996_6h.nc": {name: (64, 33, 36) for name in ("msl", "t", "u", "v", "u500", "v500")},
    "era5_snapshot_19590102T00.nc": {
        **{name: (13, 32, 64) for name in "zqtuv"},
        **{name: (32, 64) for name in ("sst", "sic")},
    },
    "eraint_monthly_uvz.nc": {name: (2, 3, 81, 160) for name in "uvz"},
}
"""Variables and shapes of every file."""
LEVELS = {"gcm_t21_6h.nc": GCM_LEVELS, "era5_snapshot_19590102T00.nc": PANGU_LEVELS}
SPLIT = {0: 448, 2: 160, -1: 32}
"""Steps of the simulation: training, test, gap."""
STORM_MISSING = {"t": [17], "v": [17, 37], "v500": [36]}
"""Steps of the storm set that are missing as a whole; 224 corner points are missing always."""


def check_pangu_atmos(f: Problems) -> None:
    """Shapes, levels, order of latitudes, physical limits and missing values."""
    has_h5py = importlib.util.find_spec("h5py") is not None
    if not has_h5py:
        f.note("h5py is not installed (extra `weather`): only signature and size were checked")
    for name, variables in FILES.items():
        file = f.folder / name
        if not f.exists(file):
            continue
        f.seen()
        with file.open("rb") as stream:
            is_hdf = stream.read(len(MAGIC)) == MAGIC
        if not is_hdf:
            f.problem(file, f"is not a NetCDF-4 file ({file.stat().st_size} bytes)")
        elif has_h5py:
            _netcdf(f, file, variables)


def check_era5(f: Problems) -> None:
    """Whatever files of states the folder holds, opened by the reader that training uses.

    Units, levels, order and missing values of the first, middle and last state; without a limit
    every state is read for missing values.
    """
    from .reader import check_states, open_states

    try:
        states = open_states(f.folder)
        f.seen(states.files)
        lat, lon = states.grid.shape
        f.note(
            f"{len(states)} states of {len(states.grid.fields)} fields on {lat} x {lon} points, "
            f"{states.times[0]} to {states.times[-1]}, every {states.grid.step} h"
        )
        for finding in check_states(states):
            f.note(finding.what)
        for line in states.left_out:
            f.note(f"left out: {line}")
        partial = [] if f.limit else np.flatnonzero(~states.complete).tolist()
        for line in states.incomplete if partial else ():
            f.note(line)
    except ImportError as error:
        f.note(str(error))
    except (ValueError, FileNotFoundError) as error:
        f.problem(f.folder, str(error))
    else:
        if partial:
            f.note(f"{len(partial)} states lack values and are left out: index {some(partial)}")


def _netcdf(f: Problems, file: Path, variables: dict[str, tuple[int, ...]]) -> None:
    import h5py

    try:
        with h5py.File(file, "r") as data:
            missing = sorted(set(variables) - set(data))
            if missing:
                f.problem(file, f"lacks the variables {', '.join(missing)}")
            _axes(f, file, data)
            for name in f.sample(sorted(set(variables) - set(missing))):
                if f.expect(file, f"shape of {name}", data[name].shape, variables[name]):
                    _values(f, file, name, _unpacked(data[name]))
    except (*BROKEN, RuntimeError) as error:  # h5py raises RuntimeError for a damaged tree
        f.problem(file, f"cannot be read as HDF5: {error}")


def _unpacked(variable: Any) -> np.ndarray:
    """Values after scale_factor and add_offset, missing ones as NaN."""
    raw = variable[()]
    attributes = variable.attrs
    values = raw * np.float64(attributes.get("scale_factor", [1.0])[0])
    values += np.float64(attributes.get("add_offset", [0.0])[0])
    if "_FillValue" in attributes:
        values[raw == attributes["_FillValue"][0]] = np.nan
    return np.asarray(values)


def _axes(f: Problems, file: Path, data: Any) -> None:
    lat, lon = data["lat"][()], data["lon"][()]
    descending = file.name != "storm1996_6h.nc"
    steps = -np.diff(lat) if descending else np.diff(lat)
    if not (steps > 0).all() or np.abs(lat).max() > 90:
        order = "north to south" if descending else "south to north"
        f.problem(file, f"latitudes must run from {order} within 90 degrees")
    if not np.allclose(np.diff(lon), lon[1] - lon[0]) or lon[1] <= lon[0]:
        f.problem(file, "longitudes must rise in equal steps")
    if "time" in data and not (np.diff(data["time"][()]) == 6).all():
        f.problem(file, "times must be 6 hours apart")
    if file.name in LEVELS:
        f.expect(file, "levels (hPa)", data["level"][()].tolist(), LEVELS[file.name])
    if "split" in data:
        numbers, counts = np.unique(data["split"][()], return_counts=True)
        found = dict(zip(numbers.tolist(), counts.tolist(), strict=True))
        f.expect(
            file, "steps of each split", dict(sorted(found.items())), dict(sorted(SPLIT.items()))
        )


def _values(f: Problems, file: Path, name: str, values: np.ndarray) -> None:
    missing = np.isnan(values)
    if file.name == "storm1996_6h.nc":
        per_step = missing.reshape(len(values), -1).sum(1)
        expected = np.full(len(values), 224)
        expected[STORM_MISSING.get(name, [])] = values[0].size
        wrong = np.flatnonzero(per_step != expected).tolist()
        if wrong:
            f.problem(file, f"{name}: unexpected missing values at step {some(wrong)}")
    elif missing.any():
        f.problem(file, f"{name}: {missing.sum()} missing values, expected none")
    low, high = LIMITS[name if name in LIMITS else name[0]]
    finite = values[~missing]
    if finite.size and (finite.min() < low or finite.max() > high):
        f.problem(
            file,
            f"{name}: values {finite.min():.5g} to {finite.max():.5g}, "
            f"expected {low:g} to {high:g}",
        )
