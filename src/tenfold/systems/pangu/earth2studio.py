"""A run or official files with the model interface of earth2studio, for its workflows and scores.

Nothing of earth2studio is imported: its interface (`PrognosticModel`) is a protocol of tensors and
ordered coordinates. States are tensors (..., lead_time, variable, lat, lon) in SI units.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from tenfold.data.weather.forecast_plan import EARTH2STUDIO
from tenfold.data.weather.grid import Grid

from .aggregation import checked
from .evaluation import as_fields
from .forecaster import ForecastModel

Coordinates = OrderedDict[str, np.ndarray]
"""Name of each axis of a tensor, in order -> its values."""
State = Float[Tensor, "*batch lead variable lat lon"]
HOUR = np.timedelta64(1, "h")


class Prognostic(nn.Module):
    """Forecasts in steps of so many hours, each by the longest model that divides its hour.

    Args:
        model: Carries states forward: the model of a run, or of official files.
        grid: Its fields and grid.
        every: Hours of a step; 0 is the shortest lead time of the model.

    Raises:
        ValueError: The model has no lead time of `every` hours.

    Example:
        system = tenfold.load("runs/pangu-small")
        model = Prognostic(system.model.eval(), system.cfg.grid)
        earth2studio.run.deterministic(["2018-01-01"], 20, model, data, io)
    """

    def __init__(self, model: ForecastModel, grid: Grid, every: int = 0) -> None:
        super().__init__()
        self.model, self.grid = model, grid
        self.every = every or min(model.leads)
        if self.every not in model.leads:
            raise ValueError(
                f"steps of {every} h need a model of {every} h; there are those of "
                f"{', '.join(map(str, model.leads))} h"
            )
        self.leads = checked(lead for lead in model.leads if lead % self.every == 0)
        """Lead times that reach only hours that are multiples of a step, the longest first."""

    def input_coords(self) -> Coordinates:
        """Axes of what is taken in; `batch` stands for any axes before the others."""
        names = [EARTH2STUDIO.name_of(name) for name in self.grid.fields]
        return OrderedDict(
            batch=np.empty(0),
            lead_time=np.array([np.timedelta64(0, "h")]),
            variable=np.array(names),
            lat=np.array(self.grid.latitudes),
            lon=np.array(self.grid.longitudes),
        )

    def output_coords(self, input_coords: Coordinates) -> Coordinates:
        """Axes of what comes out of a step; ValueError if it could not be taken in."""
        own = self.input_coords()
        tail = list(own)[1:]
        if list(input_coords)[-len(tail) :] != tail:
            raise ValueError(
                f"the last axes are {list(input_coords)[-len(tail) :]}, expected {tail}; transpose "
                "the state"
            )
        if len(input_coords["lead_time"]) != 1:
            raise ValueError(
                f"{len(input_coords['lead_time'])} lead times, but the model needs one state alone"
            )
        for name in tail[1:]:
            given, wanted = input_coords[name], own[name]
            same = given.shape == wanted.shape and (
                bool((given == wanted).all())
                if name == "variable"
                else np.allclose(given, wanted, rtol=0, atol=1e-3)
            )
            if not same:
                raise ValueError(
                    f"{name} is {given[:3]} ... ({len(given)}), but the model has {wanted[:3]} ... "
                    f"({len(wanted)}); select and regrid the state (map_coords)"
                )
        out = OrderedDict((name, values.copy()) for name, values in input_coords.items())
        out["lead_time"] = input_coords["lead_time"] + self.every * HOUR
        return out

    def forward(self, x: State, coords: Coordinates) -> tuple[State, Coordinates]:
        """States one step later, by the model of that many hours."""
        out = self.output_coords(coords)
        return self._step(x, self.every), out

    def create_iterator(self, x: State, coords: Coordinates) -> Iterator[tuple[State, Coordinates]]:
        """The state itself, then one step after another without end.

        A step whose hour a longer model divides is made by that from an earlier state, as in
        `tenfold predict`: few long steps rather than many short ones (paper).
        """
        states, hour = {0: x}, 0
        start = coords.copy()
        self.output_coords(start)
        yield x, start
        while True:
            hour += self.every
            lead = next(lead for lead in self.leads if hour % lead == 0)
            states[hour] = self._step(states[hour - lead], lead)
            needed = {hour - hour % lead for lead in self.leads}
            states = {made: state for made, state in states.items() if made in needed}
            out = start.copy()
            out["lead_time"] = start["lead_time"] + hour * HOUR
            yield states[hour], out

    @torch.no_grad()
    def _step(self, x: State, lead: int) -> State:
        grid, device = self.grid, x.device
        above = len(grid.upper) * len(grid.levels)
        fields = x.reshape(-1, *x.shape[-3:]).to(self.model.device, torch.float32)
        upper = fields[:, :above].unflatten(1, (len(grid.upper), len(grid.levels)))
        made = self.model.step(upper, fields[:, above:], lead)
        return as_fields(*made).reshape(x.shape).to(device, x.dtype)
