"""A Pangu-Weather network filled at random, and what its ONNX file must give back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from tenfold.data.weather.grid import Grid
from tenfold.systems.pangu.config import Model
from tenfold.systems.pangu.model import Pangu
from tenfold.systems.pangu.onnx import network
from tenfold.systems.pangu.onnx.network import OnnxNetwork
from tenfold.systems.pangu.onnx.reader import read_onnx

LEVELS = network.NAMES.levels
SMALL = Model(
    dim=12, depths=(1, 2, 2, 2), heads=(2, 4, 4, 2), window=(2, 3, 6),
    recovery_bias="pixel", height_channel=True,
)  # fmt: skip


@dataclass
class Case:
    network: Pangu
    statistics: tuple[np.ndarray, ...]

    @property
    def tensors(self) -> list[torch.Tensor]:
        return [torch.from_numpy(x)[..., None, None] for x in self.statistics]

    def state(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Two random states in physical units."""
        grid = self.network.grid
        a, b, c, d = self.tensors
        upper = torch.randn(2, len(grid.upper), len(grid.levels), *grid.shape) * b + a
        return upper, torch.randn(2, len(grid.surface), *grid.shape) * d + c

    @torch.no_grad()
    def __call__(self, upper, surface):
        """What the torch network makes of it, in physical units."""
        a, b, c, d = self.tensors
        upper, surface = self.network((upper - a) / b, (surface - c) / d)
        return upper * b + a, surface * d + c


def grid(levels: int, lat: int, lon: int, constants: int = 3) -> Grid:
    return replace(
        network.NAMES,
        levels=LEVELS[:levels],
        constants=network.NAMES.constants[:constants],
        latitudes=tuple(np.linspace(90, -90, lat).tolist()),
        longitudes=tuple((np.arange(lon) * 360 / lon).tolist()),
    )


def case(cfg: Model = SMALL, where: Grid | None = None, seed: int = 0) -> Case:
    """A network filled at random, padded parts of its maps too, and random statistics."""
    torch.manual_seed(seed)
    where = where or grid(5, 17, 48)
    network = Pangu(cfg, where).eval()
    for tensor in (*network.parameters(), *network.buffers()):
        tensor.data = 0.3 * torch.randn_like(tensor)
    rng = np.random.default_rng(seed)
    upper, surface = (len(where.upper), len(where.levels)), (len(where.surface),)
    means = [rng.normal(300, 100, s).astype(np.float32) for s in (upper, surface)]
    stds = [rng.uniform(0.5, 50, s).astype(np.float32) for s in (upper, surface)]
    return Case(network, (means[0], stds[0], means[1], stds[1]))


def check_equal(made: Case, path: Path) -> None:
    """The file gives back every bit of the network and its statistics."""
    found = read_onnx(path)
    state = found.account.require_complete()
    want = made.network.state_dict()
    assert list(found.account.origin) and set(state) == set(want)
    for key, tensor in want.items():
        assert torch.equal(state[key], tensor), key
    for ours, theirs in zip(made.statistics, found.statistics, strict=True):
        assert np.array_equal(ours, theirs)


def check_runs(made: Case, path: Path) -> None:
    """onnxruntime and torch agree to 1e-4 of each field's deviation."""
    given = made.state()
    with OnnxNetwork(path, threads=1) as network:
        outputs = network(*given)
    for ours, theirs, std in zip(made(*given), outputs, made.tensors[1::2], strict=True):
        assert theirs.shape == ours.shape
        assert float(((ours - theirs) / std).abs().max()) < 1e-4
