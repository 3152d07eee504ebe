"""Networks of several lead times behind physical units: what a forecast is made with."""

from __future__ import annotations

import hashlib
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from tenfold.data.weather.statistics import Statistics

from .config import Config
from .loss import variable_weights, weighted_mae
from .model import Pangu
from .windows import pad_end

LAND = "lsm"
"""Name of the constant map that holds the share of land."""
Upper = Float[Tensor, "batch variable level lat lon"]
Surface = Float[Tensor, "batch field lat lon"]


@runtime_checkable
class ForecastModel(Protocol):
    """Carries states forward, and knows what a forecast needs besides; SI units."""

    @property
    def leads(self) -> tuple[int, ...]:
        """Lead times in hours."""

    @property
    def device(self) -> torch.device:
        """Device on which `step` takes states, and gives them."""

    def step(self, upper: Upper, surface: Surface, lead: int) -> tuple[Upper, Surface]:
        """States `lead` hours later; missing points NaN."""

    def missing_points(self) -> Bool[np.ndarray, "lat lon"]:
        """Points without a value at any time."""

    def deviations(
        self,
    ) -> tuple[Float[np.ndarray, "variable level"], Float[np.ndarray, " field"]]:
        """Standard deviation of each upper and surface field: the unit of an ensemble's noise."""

    def land_share(self) -> Float[np.ndarray, "lat lon"] | None:
        """Share of land, 0 to 1, where it is known."""

    def digest(self) -> str:
        """Text that tells these weights from others."""


class Forecaster(nn.Module):
    """A network for each lead time, and the statistics that normalise all of them.

    Example:
        forecaster = tenfold.load("runs/pangu-small").forecaster
        upper, surface = forecaster.step(upper, surface, lead=24)  # SI units in and out
        network = forecaster.networks["24"]                        # normalised fields in and out
    """

    upper_mean: Tensor
    upper_std: Tensor
    surface_mean: Tensor
    surface_std: Tensor
    missing: Tensor
    land: Tensor

    def __init__(self, cfg: Config) -> None:
        super().__init__()
        self.grid = grid = cfg.grid
        self.networks = nn.ModuleDict({str(lead): Pangu(cfg.model, grid) for lead in cfg.leads})
        upper, surface = (len(grid.upper), len(grid.levels)), (len(grid.surface),)
        for name, shape in (("upper", upper), ("surface", surface)):
            self.register_buffer(f"{name}_mean", torch.zeros(shape))
            self.register_buffer(f"{name}_std", torch.ones(shape))
        self.register_buffer("missing", torch.zeros(grid.shape, dtype=torch.bool))
        self.register_buffer("land", torch.zeros(grid.shape))

    @property
    def leads(self) -> tuple[int, ...]:
        """Lead times in hours."""
        return tuple(int(lead) for lead in self.networks)

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.missing.device

    def missing_points(self) -> Bool[np.ndarray, "lat lon"]:
        """Points without a value at any time."""
        missing: np.ndarray = self.missing.cpu().numpy()
        return missing

    def deviations(
        self,
    ) -> tuple[Float[np.ndarray, "variable level"], Float[np.ndarray, " field"]]:
        """Standard deviation of each upper and surface field, SI units."""
        return self.upper_std.cpu().numpy(), self.surface_std.cpu().numpy()

    def land_share(self) -> Float[np.ndarray, "lat lon"] | None:
        """Share of land, 0 to 1, where it is among the constant maps.

        Converted networks have that map in a unit that is not known, and none here.
        """
        share: np.ndarray = self.land.cpu().numpy()
        return share if LAND in self.grid.constants and share.any() else None

    def digest(self) -> str:
        """Text that tells these weights from others."""
        digest = hashlib.blake2b(digest_size=8)
        for name, tensor in self.state_dict().items():
            digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def set_statistics(self, statistics: Statistics) -> None:
        """Take the means and standard deviations that normalise."""
        for name in ("upper_mean", "upper_std", "surface_mean", "surface_std"):
            part, what = name.split("_")
            values: np.ndarray = getattr(statistics, f"{what}_{part}")
            getattr(self, name).copy_(torch.tensor(values))

    def set_maps(
        self,
        missing: Bool[np.ndarray, "lat lon"],
        constants: Float[np.ndarray, "constant lat lon"],
    ) -> None:
        """Take points that are never there, and the constant maps.

        The maps are normalised each by its own mean and deviation (ours: the official ones are not
        in a unit that one could choose for others).
        """
        self.missing.copy_(torch.from_numpy(missing))
        maps = torch.from_numpy(np.nan_to_num(constants)).double()
        if LAND in self.grid.constants:
            self.land.copy_(maps[self.grid.constants.index(LAND)])
        if len(maps):
            mean, std = maps.mean((1, 2), keepdim=True), maps.std((1, 2), keepdim=True)
            maps = (maps - mean) / std.clamp(min=1e-12)
        for network in self.networks.values():
            assert isinstance(network, Pangu)
            network.surface_constants.copy_(pad_end(maps.float(), network.embed.patch[1:]))
            height = torch.tensor(network.grid.levels).log()
            spread = height.std() if len(height) > 1 else height.new_ones(())  # one level has none
            height = (height - height.mean()) / spread.clamp(min=1e-6)
            network.upper_constants.copy_(height[:, None, None].expand_as(network.upper_constants))

    def normalised(self, upper: Upper, surface: Surface) -> tuple[Upper, Surface]:
        """Fields less their mean, over their deviation; missing points become 0, the mean."""
        u = (upper - self.upper_mean[..., None, None]) / self.upper_std[..., None, None]
        s = (surface - self.surface_mean[:, None, None]) / self.surface_std[:, None, None]
        if self.missing.any():
            u, s = u.masked_fill(self.missing, 0.0), s.masked_fill(self.missing, 0.0)
        return u, s

    def physical(self, upper: Upper, surface: Surface) -> tuple[Upper, Surface]:
        """The way back, float32; missing points become NaN."""
        u = upper.float() * self.upper_std[..., None, None] + self.upper_mean[..., None, None]
        s = surface.float() * self.surface_std[:, None, None] + self.surface_mean[:, None, None]
        if self.missing.any():
            u, s = u.masked_fill(self.missing, torch.nan), s.masked_fill(self.missing, torch.nan)
        return u, s

    @torch.no_grad()
    def step(self, upper: Upper, surface: Surface, lead: int) -> tuple[Upper, Surface]:
        """States `lead` hours later; SI units in and out, missing points NaN.

        Args:
            upper: Variables on levels, in the order of `grid.upper` and `grid.levels`.
            surface: Variables on one level, in the order of `grid.surface`.
            lead: One of `leads`, in hours.

        Returns:
            Upper and surface fields of the later time, float32, of the same shapes.
        """
        made = self.networks[str(lead)](*self.normalised(upper, surface))
        return self.physical(*made)


class TrainingModel(nn.Module):
    """One network with its loss over one or more calls in a row: what the loop trains."""

    upper_weights: Tensor
    surface_weights: Tensor
    present: Tensor

    def __init__(self, network: Pangu, missing: Bool[Tensor, "lat lon"]) -> None:
        super().__init__()
        self.network = network
        upper, surface = variable_weights(network.grid.upper, network.grid.surface)
        self.register_buffer("upper_weights", upper, persistent=False)
        self.register_buffer("surface_weights", surface, persistent=False)
        self.register_buffer("present", (~missing).float().clone(), persistent=False)
        self.any_missing = bool(missing.any())

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Mean loss over the calls of chains of normalised states (batch, call, ...)."""
        upper, surface = batch["upper"], batch["surface"]
        state, calls = (upper[:, 0], surface[:, 0]), upper.shape[1] - 1
        weights = self.upper_weights, self.surface_weights
        present = self.present if self.any_missing else None
        total: dict[str, Tensor] = {}
        for call in range(1, calls + 1):
            state = self.network(*state)
            terms = weighted_mae(state, (upper[:, call], surface[:, call]), weights, present)
            total = {name: total.get(name, 0.0) + term / calls for name, term in terms.items()}
        return total
