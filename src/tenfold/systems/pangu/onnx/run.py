"""Official ONNX files as a run: forecasts with them as they are, one file in memory at a time."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import nn

from tenfold.core.checkpoint import read_json, write_json
from tenfold.core.config import from_json, to_json
from tenfold.core.seed import generator
from tenfold.core.system import System
from tenfold.data.weather.grid import Grid
from tenfold.weights.keymap import Converted

from ..config import Config
from ..forecaster import Stepper, Surface, Upper
from ..recipes import PAPER
from ..system import PanguWeather
from .network import NAMES, Official, OnnxNetwork, files_of, grid_of
from .reader import read_onnx
from .writer import write_onnx

GRID_FILE = "grid.json"
"""Beside files that we wrote: which fields they hold, which the layout itself does not say."""
TOLERANCE = 1e-3
"""Largest difference of an official file from its network, in standard deviations."""
DIGESTED = 1 << 20
"""Bytes of the beginning and of the end of a file that tell it from others."""


class OnnxStepper:
    """Official files as what carries states forward."""

    def __init__(self, files: dict[int, Path]) -> None:
        self.files = files
        self._open: tuple[int, OnnxNetwork] | None = None

    @property
    def leads(self) -> tuple[int, ...]:
        """Lead times in hours."""
        return tuple(self.files)

    def network(self, lead: int) -> OnnxNetwork:
        """The file of a lead time, opened; the one before is closed: each needs gigabytes."""
        if self._open is None or self._open[0] != lead:
            if self._open is not None:
                self._open[1].close()
            self._open = lead, OnnxNetwork(self.files[lead])
        return self._open[1]

    def step(self, upper: Upper, surface: Surface, lead: int) -> tuple[Upper, Surface]:
        """States `lead` hours later, SI units."""
        return self.network(lead)(upper.contiguous(), surface.contiguous())


class OfficialRun(PanguWeather):
    """A system that predicts with official files; everything else needs them converted."""

    def __init__(self, source: Path) -> None:
        self.files = files_of(source)
        self._stepper = OnnxStepper(self.files)
        shortest = min(self.files)
        above, below = self._stepper.network(shortest).shapes
        names = names_beside(source)
        grid = grid_of((*above, below[0]), names, tuple(self.files), self.files[shortest])
        cfg = replace(PAPER, grid=grid, leads=self._stepper.leads)
        System.__init__(self, cfg)
        self.model = nn.Module()
        self.scores = {}

    def stepper(self) -> Stepper:
        """The files."""
        return self._stepper

    def device(self) -> torch.device:
        """Where states lie between calls."""
        return torch.device("cpu")

    def missing(self) -> np.ndarray:
        """No point is missing."""
        return np.zeros(self.cfg.grid.shape, bool)

    @cached_property
    def _statistics(self) -> tuple[np.ndarray, ...]:
        return tuple(read_onnx(self.files[min(self.files)]).statistics)

    def deviations(self) -> tuple[np.ndarray, np.ndarray]:
        """Standard deviations of upper and surface fields, from one of the files."""
        return self._statistics[1], self._statistics[3]

    def land(self) -> np.ndarray | None:
        """Not known: the maps in the files are not in a unit of ours."""
        return None

    def digest(self) -> str:
        """What tells these files from others."""
        found = hashlib.blake2b(digest_size=8)
        for lead, path in self.files.items():
            size = path.stat().st_size
            with path.open("rb") as file:
                found.update(f"{lead} {size}".encode() + file.read(DIGESTED))
                file.seek(max(0, size - DIGESTED))
                found.update(file.read())
        return found.hexdigest()

    def evaluate(self, split: str) -> dict[str, float]:
        """Not without converting."""
        raise ValueError("official files are evaluated after `tenfold convert pangu FILES`")


def names_beside(source: Path) -> Grid:
    """Fields of official files: what we wrote beside them, or those of the authors."""
    file = (source if source.is_dir() else source.parent) / GRID_FILE
    return from_json(Grid, read_json(file)) if file.is_file() else NAMES


def converted(official: Official) -> tuple[PanguWeather, Converted]:
    """A system with the weights of official files, and what became of every tensor of each."""
    cfg: Config = replace(PAPER, model=official.model, grid=official.grid, leads=official.leads)
    system, account = PanguWeather(cfg), Converted()
    first = official.weights[official.leads[0]]
    for lead, weights in official.weights.items():
        for mine, theirs in zip(first.statistics, weights.statistics, strict=True):
            if not np.allclose(mine, theirs, rtol=1e-5):
                raise ValueError(
                    f"{weights.path} normalises by other statistics than {first.path}; convert "
                    "them apart"
                )
        prefix, found = f"networks.{lead}.", weights.account
        account.state |= {prefix + key: value for key, value in found.state.items()}
        account.origin |= {prefix + k: f"{weights.path.name}: {v}" for k, v in found.origin.items()}
        account.unused += [f"{weights.path.name}: {key}" for key in found.unused]
        account.missing += [prefix + key for key in found.missing]
        account.ignored += [(f"{weights.path.name}: {k}", why) for k, why in found.ignored]
        account.mismatched += [(prefix + k, got, want) for k, got, want in found.mismatched]
    system.forecaster.set_statistics(official.statistics(official.leads[0]))
    system.model.load_state_dict(account.state, strict=False)
    return system, account


def write_official(system: PanguWeather, out: Path) -> list[Path]:
    """`pangu_weather_<hours>.onnx` for each lead time, equal to the network, and `grid.json`."""
    forecaster, grid = system.forecaster.cpu().eval(), system.cfg.grid
    names = ("upper_mean", "upper_std", "surface_mean", "surface_std")
    statistics = tuple(getattr(forecaster, name).numpy() for name in names)
    out.mkdir(parents=True, exist_ok=True)
    draw = generator("official")
    upper = torch.randn(1, *forecaster.upper_mean.shape, *grid.shape, generator=draw)
    surface = torch.randn(1, *forecaster.surface_mean.shape, *grid.shape, generator=draw)
    state = forecaster.physical(upper, surface)
    written = []
    for lead in system.cfg.leads:
        path = out / f"pangu_weather_{lead}.onnx"
        write_onnx(path, forecaster.networks[str(lead)], statistics)
        with OnnxNetwork(path) as network:
            made = forecaster.normalised(*network(*state))
        wanted = forecaster.normalised(*forecaster.step(*state, lead))
        worst = max(float((a - b).abs().max()) for a, b in zip(made, wanted, strict=True))
        if not worst < TOLERANCE:
            path.unlink()
            raise ValueError(
                f"{path} would differ from the network by {worst:.2g} standard deviations (limit "
                f"{TOLERANCE:g}); nothing was kept"
            )
        written.append(path)
    write_json(out / GRID_FILE, to_json(grid))
    return [*written, out / GRID_FILE]
