"""`tenfold predict`: read a state, carry it forward, write each state as it is made."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tenfold.core import dist
from tenfold.data.weather.forecast_file import ForecastFile
from tenfold.data.weather.grid import Grid
from tenfold.files import claim
from tenfold.viz.predictions import Trained

from .config import PredictOptions
from .forecast import Forecast
from .forecaster import ForecastModel
from .inputs import read_inputs
from .products import write_products


def predict(
    source: Path,
    out: Path,
    model: ForecastModel,
    grid: Grid,
    options: PredictOptions,
    trained: Trained,
) -> list[Path]:
    """Forecast from a file of states into a folder; continues a forecast that was interrupted.

    Under `torchrun` the members of an ensemble are divided among the processes; the first writes.

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
    given = read_inputs(source, model, grid, options)
    forecast = Forecast(model, options, given)
    path = out / f"forecast.{options.write}"
    if dist.current().is_first:
        claim(path)
    write_states(forecast, path, trained.system)
    if not dist.current().is_first:
        return []
    return [path, *write_products(forecast.outcome, trained, source.name, out)]


def write_states(forecast: Forecast, path: Path, title: str) -> None:
    """Make the states of a forecast, writing each before the next is made.

    Args:
        forecast: Its `outcome` is filled on the way.
        path: File, .nc or .zarr; a forecast that it holds a part of goes on.
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
    start, hours = rollout.start, rollout.hours
    with ForecastFile.create_or_continue(
        path, named(start.grid), start.time, hours, options.members, attributes
    ) as file:
        for number, (hour, states) in enumerate(rollout.run(file)):
            assert states is not None  # on the first process
            if number == file.done:
                file.write(number, *states)
            forecast.collect(hour, states)


def named(grid: Grid) -> Grid:
    """The grid as a file names its fields: a surface field called as an upper one gets a suffix."""
    surface = tuple(f"{n}_surface" if n in grid.upper else n for n in grid.surface)
    return replace(grid, surface=surface)
