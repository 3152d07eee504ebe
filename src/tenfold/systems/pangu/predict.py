"""`tenfold predict`: read a state, carry it forward, write each state as it is made."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tenfold.core import dist
from tenfold.data.weather.forecast_file import ForecastFile
from tenfold.data.weather.forecast_plan import CONVENTIONS
from tenfold.data.weather.grid import Grid
from tenfold.data.weather.npy_forecast import NpyForecast
from tenfold.data.weather.reader import States
from tenfold.files import claim
from tenfold.viz.predictions import Trained

from .config import PredictOptions
from .forecast import Forecast, Row
from .forecaster import ForecastModel
from .inputs import open_input, read_inputs, start_index, starts_of
from .products import write_products, write_summary


def predict(
    source: Path,
    out: Path,
    model: ForecastModel,
    grid: Grid,
    options: PredictOptions,
    trained: Trained,
) -> list[Path]:
    """Forecast from a file of states into a folder; continues a forecast that was interrupted.

    Several starts get a folder each. Under `torchrun` the members of an ensemble are divided among
    the processes; the first writes.

    Args:
        source: A file of states, or a folder of files that are one series.
        out: Folder to write to.
        model: Carries states forward.
        grid: Its fields and grid.
        options: What is asked for.
        trained: What the page says of the system.

    Returns:
        The files written, the page last; none on processes other than the first.
    """
    states = open_input(source, grid)
    starts = starts_of(states, options.start)
    if options.time and len(starts) > 1:
        raise ValueError("--time is the date of one start; a file of several must have dates")
    each = Each(states, model, grid, options, trained, source.name)
    if len(starts) == 1:
        return each.forecast(starts[0], out)[0]
    written, scores = [], {}
    for start in starts:
        folder = f"start-{each.name(start)}"
        files, rows = each.forecast(start, out / folder)
        written += files
        scores[folder] = rows
    if not dist.current().is_first:
        return []
    return [*written, *write_summary(scores, options, trained, source.name, out)]


@dataclass(frozen=True)
class Each:
    """A forecast from each of several states."""

    states: States
    model: ForecastModel
    grid: Grid
    options: PredictOptions
    trained: Trained
    source: str

    def name(self, start: str) -> str:
        """Name of a start: its time, or its number."""
        index = start_index(self.states, start)
        time = self.states.times[index]
        return str(index) if np.isnat(time) else str(time.astype("datetime64[m]")).replace(":", "")

    def forecast(self, start: str, out: Path) -> tuple[list[Path], list[Row]]:
        """The files written, and the scores; none on processes other than the first."""
        given = read_inputs(self.states, start, self.model, self.grid, self.options)
        forecast = Forecast(self.model, self.options, given)
        path = out / f"forecast.{self.options.write}"
        if dist.current().is_first:
            for file in (path, *([out / PROBABILITIES] if self.options.above else [])):
                claim(file)
        write_states(forecast, path, self.trained.system)
        if not dist.current().is_first:
            return [], []
        products = write_products(forecast.outcome, self.trained, self.source, out)
        more = [out / PROBABILITIES] if self.options.above else []
        return [path, *more, *products], forecast.outcome.scores


PROBABILITIES = "probabilities.nc"


def write_states(forecast: Forecast, path: Path, title: str) -> None:
    """Make the states of a forecast, writing each before the next is made.

    Args:
        forecast: Its `outcome` is filled on the way.
        path: File, .nc or .zarr, or a folder .npy; a forecast that it holds a part of goes on.
        title: Name of the system, which becomes the file's source.
    """
    rollout, options = forecast.rollout, forecast.options
    if not dist.current().is_first:
        for _ in rollout.run(None):
            pass  # this process's members are made; the first writes them
        return
    attributes = {
        "source": f"tenfold, {title}",
        "models": ", ".join(f"{lead} h" for lead in forecast.model.leads),
        "weights": forecast.model.digest(),
    }
    if options.members > 1:  # a single forecast is the same whatever the noise
        attributes["noise_amplitude"] = f"{options.amplitude:g}"
        attributes["noise_seed"] = str(options.seed)
    attributes["initial_state"] = rollout.digest()
    start, hours, selection = rollout.start, rollout.hours, forecast.selection
    grid = named(selection.grid)
    with ExitStack() as held:
        file: ForecastFile | NpyForecast
        if options.write == "npy":
            file = NpyForecast.create_or_continue(
                path, grid, start.time, hours, options.members, attributes
            )
        else:
            convention = CONVENTIONS[options.names]
            file = ForecastFile.create_or_continue(
                path, grid, start.time, hours, options.members, attributes, convention
            )
        held.enter_context(file)
        chances = None
        if options.above:
            chances = held.enter_context(
                ForecastFile.create_or_continue(
                    path.with_name(PROBABILITIES),
                    forecast.chances.grid(selection.grid),
                    start.time,
                    hours,
                    1,
                    {**attributes, "members": str(options.members)},
                )
            )
        for number, (hour, states) in enumerate(rollout.run(file)):
            assert states is not None  # on the first process
            if number == file.done:
                file.write(number, *selection.take(states))
            if chances is not None and number == chances.done:
                fields = selection.cut(forecast.chances.of(states))
                none = np.empty((1, 0, 0, *fields.shape[-2:]), np.float32)
                chances.write(number, none, np.ascontiguousarray(fields[None]))
            forecast.collect(hour, states)


def named(grid: Grid) -> Grid:
    """The grid as a file names its fields: a surface field called as an upper one gets a suffix."""
    surface = tuple(f"{n}_surface" if n in grid.upper else n for n in grid.surface)
    return replace(grid, surface=surface)
