"""Official ONNX files in use: run as they are, taken over by our networks, written from them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import nn

from tenfold.core.checkpoint import read_json, write_json
from tenfold.core.config import from_json, to_json
from tenfold.core.lock import NAME as LOCK
from tenfold.core.seed import generator
from tenfold.data.weather.grid import Grid
from tenfold.files import require_empty
from tenfold.weights.keymap import Converted

from ..config import Config
from ..forecaster import Forecaster, Surface, Upper
from ..recipes import PAPER
from .network import NAMES, Official, OnnxNetwork, files_of, grid_of
from .reader import read_onnx
from .writer import write_onnx

GRID_FILE = "grid.json"
"""Beside files that we wrote: which fields they hold, which the layout itself does not say."""
TOLERANCE = 1e-3
"""Largest difference of an official file from its network, in standard deviations."""
DIGESTED = 1 << 20
"""Bytes of the beginning and of the end of a file that tell it from others."""


class OnnxForecaster(nn.Module):
    """Official files, run as they are by onnxruntime, as what carries states forward.

    One file is open at a time: each needs gigabytes. It has no parameters; states lie on the CPU
    between calls.

    Args:
        files: Lead time in hours -> file; see `files_of`.
        names: Fields of the files, which their layout does not say.

    Raises:
        ModuleNotFoundError: onnxruntime is not installed.
        ValueError: A file is no Pangu-Weather model, or has other numbers of fields than `names`.
    """

    def __init__(self, files: Mapping[int, Path], names: Grid = NAMES) -> None:
        super().__init__()
        self.files = dict(files)
        self._open: tuple[int, OnnxNetwork] | None = None
        shortest = min(self.files)
        above, below = self.network(shortest).shapes
        self.grid = grid_of((*above, below[0]), names, self.leads, self.files[shortest])

    @property
    def leads(self) -> tuple[int, ...]:
        """Lead times in hours."""
        return tuple(self.files)

    @property
    def device(self) -> torch.device:
        """Device of states between calls."""
        return torch.device("cpu")

    def network(self, lead: int) -> OnnxNetwork:
        """The file of a lead time, opened; the one before is closed."""
        if self._open is None or self._open[0] != lead:
            if self._open is not None:
                self._open[1].close()
            self._open = lead, OnnxNetwork(self.files[lead])
        return self._open[1]

    def step(self, upper: Upper, surface: Surface, lead: int) -> tuple[Upper, Surface]:
        """States `lead` hours later, SI units."""
        return self.network(lead)(upper.contiguous(), surface.contiguous())

    def missing_points(self) -> Bool[np.ndarray, "lat lon"]:
        """Points without a value: none."""
        return np.zeros(self.grid.shape, bool)

    @cached_property
    def _statistics(self) -> tuple[np.ndarray, ...]:
        return tuple(read_onnx(self.files[min(self.files)]).statistics)

    def deviations(
        self,
    ) -> tuple[Float[np.ndarray, "variable level"], Float[np.ndarray, " field"]]:
        """Standard deviation of each upper and surface field, SI units, from one of the files."""
        return self._statistics[1], self._statistics[3]

    def land_share(self) -> None:
        """Share of land, which is not known: the maps in the files are in no unit of ours."""

    def digest(self) -> str:
        """Text that tells these files from others."""
        digest = hashlib.blake2b(digest_size=8)
        for lead, path in self.files.items():
            size = path.stat().st_size
            with path.open("rb") as file:
                digest.update(f"{lead} {size}".encode() + file.read(DIGESTED))
                file.seek(max(0, size - DIGESTED))
                digest.update(file.read())
        return digest.hexdigest()


def open_official(source: Path) -> tuple[Config, OnnxForecaster]:
    """One official file, or a folder of them, ready to forecast, and what it is as a configuration.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A file's name lacks its hours, or it is no model of known fields.
    """
    model = OnnxForecaster(files_of(source), names_beside(source))
    evaluation = replace(PAPER.evaluation, hours=model.leads)
    return replace(PAPER, grid=model.grid, leads=model.leads, evaluation=evaluation), model


def names_beside(source: Path) -> Grid:
    """Fields of official files: what we wrote beside them, or those of the authors."""
    file = (source if source.is_dir() else source.parent) / GRID_FILE
    return from_json(Grid, read_json(file)) if file.is_file() else NAMES


def config_of(official: Official) -> Config:
    """The paper's configuration with the sizes, grid and lead times of official files."""
    return replace(PAPER, model=official.model, grid=official.grid, leads=official.leads)


def take_over(forecaster: Forecaster, official: Official) -> Converted:
    """Give a forecaster the weights and statistics of official files.

    Returns:
        What became of every tensor of each file.

    Raises:
        ValueError: The files normalise by different statistics.
    """
    account = Converted()
    first = official.weights[official.leads[0]]
    for lead, weights in official.weights.items():
        for mine, theirs in zip(first.statistics, weights.statistics, strict=True):
            if not np.allclose(mine, theirs, rtol=1e-5):
                raise ValueError(
                    f"{weights.path} normalises by other statistics than {first.path}; convert "
                    "them apart"
                )
        prefix, part = f"networks.{lead}.", weights.account
        account.state |= {prefix + key: value for key, value in part.state.items()}
        account.origin |= {prefix + k: f"{weights.path.name}: {v}" for k, v in part.origin.items()}
        account.unused += [f"{weights.path.name}: {key}" for key in part.unused]
        account.missing += [prefix + key for key in part.missing]
        account.ignored += [(f"{weights.path.name}: {k}", why) for k, why in part.ignored]
        account.mismatched += [(prefix + k, got, want) for k, got, want in part.mismatched]
    forecaster.set_statistics(official.statistics(official.leads[0]))
    forecaster.load_state_dict(account.state, strict=False)
    return account


def write_official(forecaster: Forecaster, out: Path) -> list[Path]:
    """Write `pangu_weather_<hours>.onnx` for each lead time, and `grid.json`.

    Each file is run and compared with its network. If one differs, or cannot be run, none is kept.

    Raises:
        ValueError: A file differs, the folder holds anything, or the run has points without values.
    """
    require_empty(out, "--out", {LOCK})
    if missing := int(forecaster.missing.sum()):
        raise ValueError(
            f"the run has {missing} points without values, which the official layout of ONNX files "
            "cannot have. Use `tenfold export` for an ordinary ONNX file"
        )
    forecaster, grid = forecaster.cpu().eval(), forecaster.grid
    names = ("upper_mean", "upper_std", "surface_mean", "surface_std")
    statistics = tuple(getattr(forecaster, name).numpy() for name in names)
    out.mkdir(parents=True, exist_ok=True)
    draw = generator("official")
    upper = torch.randn(1, *forecaster.upper_mean.shape, *grid.shape, generator=draw)
    surface = torch.randn(1, *forecaster.surface_mean.shape, *grid.shape, generator=draw)
    state = forecaster.physical(upper, surface)
    written: list[Path] = []
    try:
        for lead in forecaster.leads:
            path = out / f"pangu_weather_{lead}.onnx"
            write_onnx(path, forecaster.networks[str(lead)], statistics)
            written.append(path)
            with OnnxNetwork(path) as network:
                made = forecaster.normalised(*network(*state))
            wanted = forecaster.normalised(*forecaster.step(*state, lead))
            worst = max(float((a - b).abs().max()) for a, b in zip(made, wanted, strict=True))
            if not worst < TOLERANCE:
                raise ValueError(
                    f"{path} would differ from the network by {worst:.2g} standard deviations "
                    f"(limit {TOLERANCE:g}); nothing was kept"
                )
    except BaseException:
        for path in written:  # else the same command would find its folder in use
            path.unlink(missing_ok=True)
        raise
    write_json(out / GRID_FILE, to_json(grid))
    return [*written, out / GRID_FILE]
