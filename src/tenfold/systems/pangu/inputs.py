"""Reading for `tenfold predict`: a user's states, of which one is the start of a forecast."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tenfold.data.weather.grid import Grid
from tenfold.data.weather.reader import States, open_states
from tenfold.metrics.weather import Position

from .config import PredictOptions
from .forecaster import ForecastModel
from .rollout import Start
from .tracks import read_track


@dataclass(frozen=True)
class Inputs:
    """A user's start, the states after it that the files have, perhaps a best track."""

    states: States
    index: int
    """Number of the state to start from."""
    start: Start
    reference: tuple[Position, ...] = ()
    """Best track with which those of the forecast are compared."""

    @property
    def time(self) -> np.datetime64:
        """Time of the start, NaT if the files do not say."""
        time: np.datetime64 = self.states.times[self.index]
        return time

    @property
    def has_later(self) -> bool:
        """True if the files go on after the start."""
        return self.index + 1 < len(self.states)

    def later(self, hour: int) -> tuple[np.ndarray, np.ndarray] | None:
        """The files' own upper and surface fields so many hours after the start, if there."""
        valid = np.flatnonzero(self.states.times == self.time + np.timedelta64(3600 * hour, "s"))
        return self.states.read(int(valid[0])) if len(valid) else None


def read_inputs(source: Path, model: ForecastModel, grid: Grid, options: PredictOptions) -> Inputs:
    """Open a file or folder of states and read the one to start from.

    Raises:
        ValueError: Other fields or another grid than the run's, a start that is not there or has
            missing points, or a best track that is none.
    """
    states = open_input(source, grid)
    index = start_index(states, options.start)
    start = initial(states, index, model.missing_points())
    reference = read_track(Path(options.reference)) if options.reference else []
    return Inputs(states, index, replace(start, grid=replace(grid, constants=())), tuple(reference))


def open_input(source: Path, grid: Grid) -> States:
    """A user's states, which must have the fields and the grid of the run."""
    states = open_states(source, upper=grid.upper, levels=grid.levels, surface=grid.surface)
    for name in ("latitudes", "longitudes"):
        have, want = np.array(getattr(states.grid, name)), np.array(getattr(grid, name))
        if have.shape != want.shape or np.abs(have - want).max() > 0.01:
            raise ValueError(
                f"{source} has {axis_text(have)} {name}, but the run was trained on "
                f"{axis_text(want)}. Regrid the file (cdo remapbil, xarray's interp), or train on "
                "its grid"
            )
    return states


def axis_text(values: np.ndarray) -> str:
    """Number and ends of a coordinate, for errors."""
    return f"{len(values)} ({values[0]:g} to {values[-1]:g})"


def start_index(states: States, text: str) -> int:
    """The index that `--start` means."""
    times = states.times
    if text in ("first", "last"):
        return 0 if text == "first" else len(times) - 1
    if text.lstrip("-").isdigit():
        if not 0 <= int(text) < len(times):
            raise ValueError(f"--start is {text}, but the file has states 0 to {len(times) - 1}")
        return int(text)
    try:
        wanted = np.datetime64(text)
    except ValueError as error:
        raise ValueError(
            f"--start is {text!r}; give first, last, a number, or a time such as 1996-01-07T06"
        ) from error
    at = np.flatnonzero(times == wanted)
    if not len(at):
        raise ValueError(
            f"--start is {text}, but no state of the file is valid then: they run from {times[0]} "
            f"to {times[-1]}"
        )
    return int(at[0])


def initial(states: States, index: int, missing: np.ndarray) -> Start:
    """The state at an index, NaN at the points that are missing in the run and nowhere else."""
    upper, surface = states.read(index)
    grid = states.grid
    layers = [*upper.reshape(-1, *grid.shape), *surface]
    for name, values in zip(grid.fields, layers, strict=True):
        wrong = ~np.isfinite(values) & ~missing
        if wrong.any():
            row, column = np.argwhere(wrong)[0]
            raise ValueError(
                f"{states.path}: {name} of state {index} ({states.times[index]}) is missing at "
                f"{wrong.sum()} points ({100 * wrong.mean():.1f} %), first at latitude "
                f"{grid.latitudes[row]:g}, longitude {grid.longitudes[column]:g}; choose another "
                "--start, or fill the gap"
            )
    time = states.times[index]
    if np.isnat(time):  # the file does not say; a forecast's file needs a beginning
        time = np.datetime64("2000-01-01T00:00:00")
    upper[..., missing] = surface[..., missing] = np.nan
    return Start(grid, time, upper, surface)
