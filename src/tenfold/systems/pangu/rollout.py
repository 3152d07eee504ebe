"""A forecast from one state, hour by hour; knows no file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float32

from tenfold.core import dist
from tenfold.core.log import Bar
from tenfold.data.weather.grid import Grid

from .aggregation import Call, hourly
from .forecaster import ForecastModel
from .noise import Noise, member_noise

Members = tuple[
    Float32[np.ndarray, "member variable level lat lon"],
    Float32[np.ndarray, "member field lat lon"],
]


@runtime_checkable
class Written(Protocol):
    """States of the forecast that are safe already, from the first hour on; a file, say."""

    @property
    def done(self) -> int:
        """Hours that are there."""

    def read(self, step: int) -> Members:
        """All members at one of these hours, counted from 0, exactly as they were made."""


@dataclass(frozen=True)
class Start:
    """State from which a forecast starts, SI units, missing points NaN."""

    grid: Grid
    time: np.datetime64
    upper: Float32[np.ndarray, "variable level lat lon"]
    surface: Float32[np.ndarray, "field lat lon"]


@dataclass(frozen=True)
class Ensemble:
    """Noise that tells members apart at the start."""

    members: int
    """Their number, the first unperturbed; 1 is a single forecast."""
    noise: Noise
    """Noise that is added to the others, in standard deviations."""
    upper_std: Float32[np.ndarray, "variable level"]
    """Standard deviation of each upper field."""
    surface_std: Float32[np.ndarray, " field"]
    """Standard deviation of each surface field."""
    seed: int = 0
    """Seed of the noise."""

    def initial(self, start: Start, chosen: Sequence[int]) -> Members:
        """First states of some of the members."""
        many = self.upper_std.size
        upper = np.repeat(start.upper[None], len(chosen), 0)
        surface = np.repeat(start.surface[None], len(chosen), 0)
        shape = (many + len(self.surface_std), *start.grid.shape)
        for row, member in enumerate(chosen):
            if member == 0:
                continue
            drawn = member_noise(shape, member, self.seed, self.noise).numpy()
            upper[row] += drawn[:many].reshape(upper[0].shape) * self.upper_std[..., None, None]
            surface[row] += drawn[many:] * self.surface_std[:, None, None]
        return upper, surface


def divided_members(members: int, batch: int, processes: int) -> list[list[list[int]]]:
    """Rank -> groups of members that are carried forward together; some ranks may have none.

    The groups are the same for any number of processes; the unperturbed member is one by itself.
    """
    every = list(range(members))
    groups = [every[:1], *(every[first : first + batch] for first in range(1, members, batch))]
    return [groups[rank::processes] for rank in range(processes)]


class Rollout:
    """States of a forecast, hour by hour: read back if they are written, else computed.

    Every state passes through float32 in SI units, as it is in a file, so a forecast that was
    interrupted goes on with exactly the numbers it would have had.

    Members are carried forward in groups. The unperturbed one goes alone: rounding may depend on
    the size of a batch, and it shall be the single forecast bit for bit. Under `torchrun` each
    process has groups of its own, so the numbers are those of one process.
    """

    def __init__(
        self,
        model: ForecastModel,
        start: Start,
        ensemble: Ensemble,
        hours: int,
        every: int,
        batch: int,
        given_back: bool = True,
    ) -> None:
        """`given_back`: what is written holds whole states, from which the forecast can go on."""
        self.model, self.start, self.ensemble = model, start, ensemble
        self.calls = {call.hour: call for call in hourly(hours, model.leads, every)}
        self.hours = (0, *(h for h, call in self.calls.items() if call.output))
        self._last_use = {call.source: hour for hour, call in self.calls.items()}
        self._kept: dict[int, Members] = {}
        """Hour -> states of this process's members that a later call starts from."""
        self._given_back = given_back
        self._world = dist.current()
        shares = divided_members(ensemble.members, batch, self._world.size)
        self._groups = shares[self._world.rank]
        self._owned = [[member for group in share for member in group] for share in shares]
        """Rank -> its members, in the order of its states."""

    def digest(self) -> str:
        """Text that tells this forecast's start from another's."""
        digest = hashlib.blake2b(digest_size=8)
        for part in (self.start.upper, self.start.surface):
            digest.update(np.ascontiguousarray(part).tobytes())
        return digest.hexdigest()

    def run(self, written: Written | None) -> Iterator[tuple[int, Members | None]]:
        """Every hour and the states of all members, in order.

        Only the first process is given `written`, and gets states; it must write each before it
        takes the next. The other processes must take all hours, too: they make their members.
        """
        first = written.done if written is not None and self._given_back else 0
        done: int = self._world.gather(first)[0]
        bar = Bar("forecast", len(self.hours), done, self._world.is_first)
        try:
            for number, hour in enumerate(self.hours):
                if number < done:
                    yield hour, None if written is None else written.read(number)
                else:
                    yield hour, self._together(self._state(number, written))
                    bar.update(number + 1, f"{hour} h")
        finally:
            bar.close()

    def _state(self, number: int, written: Written | None) -> Members:
        """This process's members at an hour, from the nearest earlier state that is known."""
        hour, way = self.hours[number], []
        while (states := self._known(hour, number, written)) is None:
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
        """Return True if states stay in memory: of those that a file gives back only the last ones.

        With many processes, which would have to send them around, all that a call starts from;
        so, too, where a part of the states is written.
        """
        alone = self._given_back and self._world.size == 1
        return self._last_use.get(made, 0) > now and not (
            alone and made in self.hours and made != now
        )

    def _known(self, hour: int, number: int, written: Written | None) -> Members | None:
        """This process's members at an hour, if they need not be computed.

        All before hour `number` are written. All processes come to the same branch.
        """
        if hour in self._kept:
            return self._kept[hour]
        earlier = self.hours.index(hour) if hour in self.hours else number
        if self._given_back and earlier < number:
            return self._apart(None if written is None else written.read(earlier))
        if hour == 0:
            self._kept[0] = self.ensemble.initial(self.start, self._owned[self._world.rank])
        return self._kept.get(hour)

    def _step(self, states: Members, call: Call) -> Members:
        """Carry this process's members forward, a group at a time."""
        made: list[Members] = [(states[0][:0], states[1][:0])]
        first = 0
        for group in self._groups:
            rows = slice(first, first + len(group))
            part = [torch.from_numpy(s[rows]).to(self.model.device) for s in states]
            upper, surface = self.model.step(part[0], part[1], call.model)
            made.append((upper.float().cpu().numpy(), surface.float().cpu().numpy()))
            first = rows.stop
        return np.concatenate([m[0] for m in made]), np.concatenate([m[1] for m in made])

    def _together(self, own: Members) -> Members | None:
        """States of all members, in their order, on the first process."""
        if self._world.size == 1:
            return own
        self._world.barrier(patient=True)  # groups are not equally many
        shares = self._world.to_first(own)
        if not shares:
            return None
        order = np.argsort([member for owned in self._owned for member in owned])
        upper, surface = (np.concatenate(parts)[order] for parts in zip(*shares, strict=True))
        return upper, surface

    def _apart(self, states: Members | None) -> Members:
        """Each process's members of what the first has."""
        if self._world.size == 1:
            assert states is not None
            return states
        shares = [] if states is None else [(states[0][o], states[1][o]) for o in self._owned]
        own: Members = self._world.from_first(shares)
        return own
