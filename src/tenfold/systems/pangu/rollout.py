"""A forecast from one state, written as it goes and continued where it was left."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32

from tenfold.core.log import Bar
from tenfold.data.weather.forecast_file import ForecastFile
from tenfold.data.weather.grid import Grid

from .aggregation import Call, hourly
from .forecaster import Stepper
from .noise import Noise, member_noise

Members = tuple[
    Float32[np.ndarray, "member variable level lat lon"],
    Float32[np.ndarray, "member field lat lon"],
]


@dataclass(frozen=True)
class Start:
    """Where a forecast starts."""

    grid: Grid
    time: np.datetime64
    upper: Float32[np.ndarray, "variable level lat lon"]
    surface: Float32[np.ndarray, "field lat lon"]


@dataclass(frozen=True)
class Ensemble:
    """How members differ at the start."""

    members: int
    """Their number, the first unperturbed; 1 is a single forecast."""
    noise: Noise
    """What is added to the others, in standard deviations."""
    upper_std: Float32[np.ndarray, "variable level"]
    """Standard deviation of each upper field."""
    surface_std: Float32[np.ndarray, " field"]
    """Standard deviation of each surface field."""
    seed: int = 0
    """Seed of the noise."""

    def initial(self, start: Start) -> Members:
        """The members' first states."""
        many = self.upper_std.size
        upper = np.repeat(start.upper[None], self.members, 0)
        surface = np.repeat(start.surface[None], self.members, 0)
        shape = (many + len(self.surface_std), *start.grid.shape)
        for member in range(1, self.members):
            drawn = member_noise(shape, member, self.seed, self.noise).numpy()
            upper[member] += drawn[:many].reshape(upper[0].shape) * self.upper_std[..., None, None]
            surface[member] += drawn[many:] * self.surface_std[:, None, None]
        return upper, surface


class Rollout:
    """States of a forecast, hour by hour: read back if they are written, else computed.

    Every state passes through float32 in SI units, as it is in the file, so a forecast that was
    interrupted goes on with exactly the numbers it would have had.
    """

    def __init__(
        self,
        stepper: Stepper,
        start: Start,
        ensemble: Ensemble,
        hours: int,
        every: int,
        batch: int,
        device: torch.device,
    ) -> None:
        self.stepper, self.start, self.ensemble = stepper, start, ensemble
        self.batch, self.device = batch, device
        self.calls = {call.hour: call for call in hourly(hours, stepper.leads, every)}
        self.hours = (0, *(h for h, call in self.calls.items() if call.output))
        self._last_use = {call.source: hour for hour, call in self.calls.items()}
        self._kept: dict[int, Members] = {}
        """Hour -> states that a later call starts from."""

    def digest(self) -> str:
        """What tells this forecast's start from another's."""
        found = hashlib.blake2b(digest_size=8)
        for part in (self.start.upper, self.start.surface):
            found.update(np.ascontiguousarray(part).tobytes())
        return found.hexdigest()

    def run(self, path: Path, attributes: dict[str, str]) -> Iterator[tuple[int, Members]]:
        """Write what is missing of the forecast; yields every hour and its states, in order."""
        grid = written(self.start.grid)
        attributes = {**attributes, "initial_state": self.digest()}
        members = self.ensemble.members
        with ForecastFile.create_or_continue(
            path, grid, self.start.time, self.hours, members, attributes
        ) as file:
            bar = Bar("forecast", len(self.hours), file.done, True)
            try:
                for number, hour in enumerate(self.hours):
                    if number < file.done:
                        states = file.read(number)
                    else:
                        states = self._state(hour, file)
                        file.write(number, *states)
                        bar.update(number + 1, f"{hour} h")
                    yield hour, states
            finally:
                bar.close()

    def _state(self, hour: int, file: ForecastFile) -> Members:
        """The members at an hour, from the nearest earlier state that is known."""
        way: list[int] = []
        while (states := self._known(hour, file)) is None:
            way.append(hour)
            hour = self.calls[hour].source
        for hour in reversed(way):
            states = self._step(states, self.calls[hour])
            self._kept[hour] = states
            self._kept = {
                made: kept for made, kept in self._kept.items() if self._needed(made, hour)
            }
        return states

    def _needed(self, made: int, now: int) -> bool:
        """Whether states stay in memory: of those that the file gives back only the last ones."""
        in_file = made in self.hours and made != now
        return self._last_use.get(made, 0) > now and not in_file

    def _known(self, hour: int, file: ForecastFile) -> Members | None:
        """The members at an hour if they need not be computed."""
        if hour in self._kept:
            return self._kept[hour]
        if hour in self.hours and (number := self.hours.index(hour)) < file.done:
            return file.read(number)
        return self.ensemble.initial(self.start) if hour == 0 else None

    def _step(self, states: Members, call: Call) -> Members:
        """Carry all members forward, a few at a time.

        The first goes alone: rounding may depend on the size of a batch, and it shall be the single
        forecast bit for bit.
        """
        made: list[Members] = []
        edges = [0, *range(1, len(states[0]), self.batch), len(states[0])]
        for first, end in pairwise(edges):
            part = [torch.from_numpy(s[first:end]).to(self.device) for s in states]
            upper, surface = self.stepper.step(part[0], part[1], call.model)
            made.append((upper.float().cpu().numpy(), surface.float().cpu().numpy()))
        return np.concatenate([m[0] for m in made]), np.concatenate([m[1] for m in made])


def written(grid: Grid) -> Grid:
    """The grid as a file names its fields: a surface field called as an upper one gets a suffix."""
    surface = tuple(f"{n}_surface" if n in grid.upper else n for n in grid.surface)
    return replace(grid, surface=surface)
