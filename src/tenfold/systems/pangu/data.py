"""From files of states to batches of normalised fields."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, Int, Shaped
from torch import Tensor

from tenfold.core import dist
from tenfold.core.epochs import Epochs
from tenfold.core.system import DataUsed
from tenfold.data import catalog
from tenfold.data.weather import names
from tenfold.data.weather.grid import Grid
from tenfold.data.weather.reader import States, open_states, pairs
from tenfold.generated import waves

from .config import Config, Data

TRAIN, VALIDATION, TEST = 0, 1, 2
SPLITS = {"train": TRAIN, "validation": VALIDATION, "test": TEST}
SHARES = (0.8, 0.9)
"""Ends of training and validation as shares, in files that say nothing of a split (ours)."""
FILES = {"pangu_atmos": "gcm_t21_6h.nc"}
"""The file that is read where a set has several and none is named."""
SIMULATED = {"gcm_t21_6h.nc"}
"""Files of the catalogue that hold no observations."""
MOST_WAVES = 16
"""Largest batch where generated waves stand in for absent data: there are few of them."""
State = tuple[Float32[np.ndarray, "variable level lat lon"], Float32[np.ndarray, "field lat lon"]]


AnyStates = States | waves.WaveStates
"""States of files, or generated ones."""


def find(data: Data) -> Path | None:
    """File or folder of the data, or None where it is not there; a given path must exist."""
    if data.name == "waves":
        return None
    if data.name == "files":
        if not data.path:
            raise ValueError("data.name is files; say where they are: --data.path FILE_OR_FOLDER")
        path: Path | None = Path(data.path).expanduser()
    else:
        path = catalog.find(data.name, data.path)
    if path is None:
        return None
    file = data.file or FILES.get(data.name, "")
    path = path / file if file and path.is_dir() else path
    if not path.exists():
        known = f" {data.name} has it." if file and not data.file else ""
        raise FileNotFoundError(f"{path} does not exist; see data.path and data.file.{known}")
    return path


def open_data(data: Data) -> AnyStates:
    """The states of a configuration, opened but not read."""
    if data.name == "waves":
        return waves.WaveStates(_waves_grid(data))
    path = find(data) or catalog.find_or_explain(data.name)  # the latter says how to get it
    try:
        return open_states(
            path,
            upper=data.upper,
            levels=data.levels,
            surface=data.surface,
            constants=data.constants,
        )
    except names.Absent as error:
        if error.kind != "constant":
            raise
        given = " ".join(("--data.constants", *error.there))
        some = f"{given} takes those, " if error.there else ""
        raise ValueError(f"{error} {some}--data.constants with nothing behind it none.") from error


def _waves_grid(data: Data) -> Grid:
    """The default grid with the fields that were asked for."""
    names = ("upper", "levels", "surface", "constants")
    chosen = {name: getattr(data, name) for name in names if getattr(data, name)}
    return replace(waves.default_grid(), **chosen)


def complete(cfg: Config) -> Config:
    """Choose the data (generated waves where none is found) and take the grid from it."""
    if cfg.data.file and cfg.data.name == "waves":
        raise ValueError(
            f"data.file is {cfg.data.file}, but data.name is waves, which is not read from files. "
            "A file of your own is --data.name files --data.path FILE."
        )
    if cfg.data.name != "waves" and find(cfg.data) is None:
        if cfg.data.file not in catalog.entry(cfg.data.name).layout:  # the user's, not a recipe's
            catalog.find_or_explain(cfg.data.name)
        cfg = _fallback(cfg)
    if not cfg.grid.latitudes:
        cfg = replace(cfg, grid=open_data(cfg.data).grid)
    return cfg


def _fallback(cfg: Config) -> Config:
    """The generated waves instead, with lead times, patches and windows that suit their grid."""
    grid = waves.default_grid()
    leads = tuple(hours for hours in cfg.leads if hours % grid.step == 0) or (grid.step,)
    if leads != cfg.leads:
        warnings.warn(
            f"no data {cfg.data.name!r} was found; the generated waves that stand in have a state "
            f"every {grid.step} h, so the lead times are {leads} instead of {cfg.leads}",
            stacklevel=2,
        )
    return replace(
        cfg,
        data=Data(name="waves", batch_size=min(cfg.data.batch_size, MOST_WAVES)),
        grid=Grid(),
        leads=leads,
        model=replace(cfg.model, patch=(2, 2, 2), window=(2, 4, 8)),
    )


def used(data: Data) -> DataUsed:
    """Data that a result rests on, by name and kind."""
    if data.name == "waves":
        note = "exact Rossby-Haurwitz waves of our own, not an atmosphere"
        return DataUsed("waves", "generated", note, "MIT")
    file = data.file or FILES.get(data.name, "")
    if data.name == "files":
        return DataUsed("files", "real", f"{Path(data.path).name}, your own", "your own")
    entry = catalog.entry(data.name)
    if file in SIMULATED:
        note = f"{file}: states of a climate model, no observations"
        return DataUsed(data.name, "simulated", note, entry.licence)
    return DataUsed(data.name, "real", file or entry.what, entry.licence)


class Archive:
    """The states of one configuration: read when needed, divided, and put into batches."""

    def __init__(self, cfg: Config) -> None:
        self.cfg = cfg
        self._kept: dict[int, State] = {}
        self._chains: dict[tuple[int, int], np.ndarray] = {}

    @cached_property
    def states(self) -> AnyStates:
        """The states, checked against the grid of the configuration."""
        states = open_data(self.cfg.data)
        for name in ("upper", "levels", "surface", "constants", "latitudes", "longitudes", "step"):
            if getattr(states.grid, name) != getattr(self.cfg.grid, name):
                raise ValueError(
                    f"the data's {name} are {getattr(states.grid, name)}, but this run has "
                    f"{getattr(self.cfg.grid, name)}; give data on the run's grid"
                )
        return states

    @property
    def left_out(self) -> tuple[str, ...]:
        """Lines on what the files hold and is not read, if they were opened."""
        opened: AnyStates | None = self.__dict__.get("states")
        return () if opened is None else opened.left_out

    @cached_property
    def split(self) -> Int[np.ndarray, " time"]:
        """Split of every time: 0 training, 1 validation, 2 test, -1 none."""
        data, states = self.cfg.data, self.states
        times = states.times
        if data.train or data.validation or data.test:
            return _by_dates(times, data)
        if states.split is None:
            at = np.arange(len(times)) / len(times)
            return np.searchsorted(SHARES, at, "right")
        split = states.split.astype(np.int64)
        if data.holdout_days and not (split == VALIDATION).any():
            held = round(data.holdout_days * 24 / self.cfg.grid.step)
            for block in _blocks(split):
                if split[block[0]] == TRAIN and len(block) > 2 * held:
                    split[block[len(block) - held :]] = VALIDATION
        return split

    def indices(self, name: str) -> Int[np.ndarray, " state"]:
        """Complete states of a split, in time order."""
        if name not in SPLITS:
            raise ValueError(f"unknown split {name!r}; known: {', '.join(SPLITS)}")
        indices = np.flatnonzero((self.split == SPLITS[name]) & self.states.complete)
        if not len(indices):
            raise ValueError(
                f"no state is in the {name} split of {used(self.cfg.data).name}; "
                f"set data.{name}, FIRST:LAST, to times that the files have"
            )
        return indices

    def chains(self, name: str, hours: Sequence[int]) -> Int[np.ndarray, "chain state"]:
        """Indices of states `hours` apart from a start, all in one split without a gap between.

        The first column is the start; `hours` rise and are multiples of the data's step. Every
        time on the way must be in the split, too.
        """
        inside = self.split == SPLITS[name]
        starts = pairs(self.states.times, hours[-1], inside, self.split)[:, 0]
        ahead = np.array([0, *hours]) // self.cfg.grid.step
        whole = np.zeros(len(self.split), bool)
        whole[self.indices(name)] = True
        chains = starts[:, None] + ahead
        return chains[whole[chains].all(1)]

    def read(self, index: int) -> State:
        """One state in SI units; kept in memory if all states fit in data.cache_gib."""
        if index in self._kept:
            return self._kept[index]
        state = self.states.read(int(index))
        size = (state[0].nbytes + state[1].nbytes) * len(self.split)
        if size <= self.cfg.data.cache_gib * 2**30:
            self._kept[index] = state
        return state

    def stack(self, indices: Sequence[int] | np.ndarray) -> tuple[Tensor, Tensor]:
        """States as tensors with a batch axis, SI units."""
        upper, surface = zip(*(self.read(int(i)) for i in indices), strict=True)
        return torch.from_numpy(np.stack(upper)), torch.from_numpy(np.stack(surface))

    def training_chains(self, lead: int, calls: int) -> Int[np.ndarray, "chain state"]:
        """A start and the states after 1 .. `calls` lead times, for every start of training."""
        if (lead, calls) not in self._chains:
            chains = self.chains("train", [lead * n for n in range(1, calls + 1)])
            if not len(chains):
                raise ValueError(
                    f"no training state has another one {calls} x {lead} h later in its block; "
                    "choose shorter leads or longer blocks"
                )
            self._chains[lead, calls] = chains
        return self._chains[lead, calls]

    def epochs(self, lead: int, calls: int) -> Epochs:
        """Order of the chains; fewer than a batch are repeated within it."""
        cfg, count = self.cfg, len(self.training_chains(lead, calls))
        return Epochs(count, cfg.data.batch_size, cfg.seed, f"{lead}h x {calls}", repeats=True)

    def batch(self, index: int, lead: int, calls: int) -> dict[str, Tensor]:
        """Micro-batch `index` of a stage, this process's rows: states (batch, call, ...)."""
        rows = self.epochs(lead, calls).rows(index)
        share = dist.current().share(len(rows))
        chosen = self.training_chains(lead, calls)[rows[share]]
        upper, surface = self.stack(chosen.flatten())
        return {
            "upper": upper.unflatten(0, chosen.shape),
            "surface": surface.unflatten(0, chosen.shape),
        }


def _by_dates(times: Shaped[np.ndarray, " time"], data: Data) -> Int[np.ndarray, " time"]:
    """Splits from FIRST:LAST; the last day or hour counts as a whole."""
    split = np.full(len(times), -1, np.int64)
    for name, number in SPLITS.items():
        text = getattr(data, name)
        if not text:
            continue
        first, colon, last = text.partition(":")
        try:
            if not colon or first.count("T") != last.count("T"):
                raise ValueError("FIRST:LAST")
            low, high = np.datetime64(first), np.datetime64(last) + 1
        except ValueError as error:
            raise ValueError(
                f"data.{name} is {text!r}; give FIRST:LAST such as 1979-01-01:2017-12-31"
            ) from error
        chosen = (times >= low) & (times < high)
        if not chosen.any():
            raise ValueError(
                f"data.{name} is {text!r}, but the states run from {times[0]} to {times[-1]}"
            )
        if (split[chosen] >= 0).any():
            raise ValueError(f"data.{name} {text!r} shares times with another split")
        split[chosen] = number
    return split


def _blocks(split: Int[np.ndarray, " time"]) -> list[Int[np.ndarray, " block"]]:
    """Runs of neighbours in the same split."""
    return np.split(np.arange(len(split)), np.flatnonzero(np.diff(split)) + 1)
