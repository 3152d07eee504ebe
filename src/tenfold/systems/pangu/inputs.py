"""Reading for `tenfold predict`: a user's states, of which one is the start of a forecast."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from tenfold.data.weather.grid import Grid
from tenfold.data.weather.limits import impossible
from tenfold.data.weather.reader import States, open_states
from tenfold.metrics.weather import Position

from .config import PredictOptions, parse_time
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
    remarks: list[str] = field(default_factory=list)
    """Sentences on the files that a reader of the forecast must know."""

    @property
    def time(self) -> np.datetime64:
        """Time of the start, NaT if neither the files nor the user say."""
        return self.start.time

    @property
    def has_later(self) -> bool:
        """True if the files go on after the start."""
        return self.index + 1 < len(self.states)

    def later(self, hour: int) -> tuple[np.ndarray, np.ndarray] | None:
        """The files' own upper and surface fields so many hours after the start, if there."""
        valid = np.flatnonzero(self.states.times == self.time + np.timedelta64(3600 * hour, "s"))
        if not len(valid):
            return None
        upper, surface = self.states.read(int(valid[0]))
        for name, level, values in layers_of(self.states.grid, upper, surface):
            wrong = impossible(values, name, level)
            if wrong.any():
                values[wrong] = np.nan
                self.remarks.append(
                    f"{name}{level or ''} of the file has {int(wrong.sum())} values that cannot be "
                    f"true at {self.states.times[valid[0]]}: left out of the scores"
                )
        return upper, surface


def read_inputs(
    states: States, start: str, model: ForecastModel, grid: Grid, options: PredictOptions
) -> Inputs:
    """Read the state to start from.

    Raises:
        ValueError: A start that is not there, has missing points or values that cannot be true, or
            a date although the file has one; or a best track that is none.
    """
    index = start_index(states, start)
    state = initial(states, index, model.missing_points(), options.time)
    reference = read_track(Path(options.reference)) if options.reference else []
    plain = replace(state, grid=replace(grid, constants=()))
    return Inputs(states, index, plain, tuple(reference))


def starts_of(states: States, text: str) -> list[str]:
    """The starts that `--start` asks for: all, or a list with commas."""
    if text == "all":
        return [str(k) for k in range(len(states))]
    starts = [part.strip() for part in text.split(",")]
    chosen = [start_index(states, start) for start in starts]
    if len(set(chosen)) < len(chosen):
        raise ValueError(f"--start is {text!r}, which names a state twice")
    return starts


def land_of(states: States, model: ForecastModel) -> np.ndarray | None:
    """Share of land, 0 to 1: of the run, or else of the file; None where neither knows it."""
    share = model.land_share()
    if share is None and "lsm" in states.grid.constants:
        share = states.constants()[states.grid.constants.index("lsm")]
    return share


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


def layers_of(
    grid: Grid, upper: np.ndarray, surface: np.ndarray
) -> Iterator[tuple[str, int, np.ndarray]]:
    """Name, level (0 on the surface) and values of each field, as views."""
    for k, name in enumerate(grid.upper):
        yield from ((name, level, upper[k, i]) for i, level in enumerate(grid.levels))
    yield from ((name, 0, surface[k]) for k, name in enumerate(grid.surface))


def initial(states: States, index: int, missing: np.ndarray, date: str = "") -> Start:
    """The state at an index, NaN at the points that are missing in the run and nowhere else.

    Its time is NaT if neither the file nor `date` says it.
    """
    upper, surface = states.read(index)
    grid, time = states.grid, states.times[index]
    if date:
        given = parse_time(date, "--time")
        if not np.isnat(time) and time != given:
            raise ValueError(
                f"--time is {date}, but the file says that state {index} is of {time}; leave it out"
            )
        time = given
    when = "unknown time" if np.isnat(time) else str(time)
    for name, level, values in layers_of(grid, upper, surface):
        lacking = ~np.isfinite(values) & ~missing
        wrong = lacking | impossible(values, name, level)
        if wrong.any():
            row, column = np.argwhere(wrong)[0]
            what = "is missing" if lacking.any() else f"is {values[row, column]:.4g}"
            raise ValueError(
                f"{states.path}: {name}{level or ''} of state {index} ({when}) {what} at "
                f"{wrong.sum()} points ({100 * wrong.mean():.1f} %), first at latitude "
                f"{grid.latitudes[row]:g}, longitude {grid.longitudes[column]:g}; choose another "
                "--start, or fill the gap"
            )
    upper[..., missing] = surface[..., missing] = np.nan
    return Start(grid, time, upper, surface)
