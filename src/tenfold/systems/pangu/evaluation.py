"""Scores of forecasts, ensembles and what needs no training, on a split of the states."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tenfold.core.divide import divided
from tenfold.data.weather.climatology import Climatology
from tenfold.metrics import weather

from .aggregation import Call, chain
from .config import Config
from .data import Archive
from .forecaster import Forecaster
from .noise import Noise, perturbation

WEATHERBENCH = ("z500", "t850", "q700", "u850", "v850", "t2m", "msl", "u10", "v10")
"""Fields of WeatherBench 2's score cards, of those that there are."""
WB_RMSE = "weatherbench rmse"
"""Group of its scores: the root of the mean over starts and area, by field and region."""
BATCH = 16
"""Starts that are carried forward together."""
Fields = Float[Tensor, "*lead field lat lon"]
Scores = dict[str, Tensor]
"""Score and lead time ("rmse/24h") -> its value (start, field) for every start that has a truth."""


def reachable(cfg: Config) -> tuple[int, ...]:
    """Those hours of evaluation.hours that a chain of the models makes from the data's step."""
    reached = []
    for hours in sorted(set(cfg.evaluation.hours)):
        try:
            chain(hours, cfg.leads)
        except ValueError:
            continue
        if hours % cfg.grid.step == 0:
            reached.append(hours)
    if not reached:
        raise ValueError(
            f"models of {cfg.leads} h reach none of evaluation.hours {cfg.evaluation.hours} "
            f"in steps of {cfg.grid.step} h"
        )
    return tuple(reached)


def calls_to(hours: Iterable[int], leads: Sequence[int]) -> tuple[Call, ...]:
    """Calls that make the states of these hours by their greedy chains, sources first."""
    wanted = set(hours)
    calls: dict[int, Call] = {}
    for goal in sorted(wanted):
        at = 0
        for model in chain(goal, leads):
            calls.setdefault(at + model, Call(at + model, model, at, at + model in wanted))
            at += model
    return tuple(calls[hour] for hour in sorted(calls))


def as_fields(upper: Tensor, surface: Tensor) -> Fields:
    """All fields of states on one axis: upper by variable and level, then surface."""
    return torch.cat([upper.flatten(-4, -3), surface], -3)


@dataclass(frozen=True)
class Verified:
    """Scores that were measured on a split."""

    split: str
    scores: dict[str, dict[str, float]]
    """Name ("models", "persistence", "climatology") -> flat metrics, "rmse/z500/24h"."""
    remarks: tuple[str, ...]
    """Sentences that a reader of the scores must know."""


class Verification:
    """Scores of a run on one split, field by field and lead by lead.

    Under `torchrun` each process carries its share of the starts forward; scores are put in the
    order of the starts before means are taken.
    """

    def __init__(
        self, cfg: Config, archive: Archive, forecaster: Forecaster, climatology: Climatology
    ) -> None:
        self.cfg, self.archive, self.forecaster = cfg, archive, forecaster
        self.climatology = climatology
        self.device = forecaster.device
        self.weights = weather.latitude_weights(torch.tensor(cfg.grid.latitudes)).to(self.device)
        self.valid = ~forecaster.missing if bool(forecaster.missing.any()) else None
        self.levels = weather.quantile_levels()
        names = cfg.grid.fields
        self.usual = [names.index(name) for name in WEATHERBENCH if name in names]
        lats, lons = torch.tensor(cfg.grid.latitudes), torch.tensor(cfg.grid.longitudes)
        masks = {"": torch.ones(cfg.grid.shape, dtype=torch.bool)}
        masks |= {region: weather.region_mask(lats, lons, region) for region in weather.REGIONS}
        there = ~forecaster.missing.cpu()
        self.regions = {
            name: (mask & there).to(self.device)
            for name, mask in masks.items()
            if bool((mask & there)[lats.abs() < 90].any())
        }

    def starts(self, split: str, hours: int) -> np.ndarray:
        """Index of every chosen start with a state `hours` later in its block.

        Starts are chosen among all states: so those of a long lead time are among those of a short
        one, and leads can be compared.
        """
        chosen = self.archive.indices(split)[:: self.cfg.evaluation.every]
        starts = self.archive.chains(split, [hours])[:, 0]
        return starts[np.isin(starts, chosen)]

    def fields(self, indices: Sequence[int] | np.ndarray) -> Fields:
        """States of the archive as fields."""
        upper, surface = self.archive.stack(indices)
        return as_fields(upper, surface).to(self.device)

    def normal(self, indices: Sequence[int] | np.ndarray) -> Fields:
        """The climatology at the times of some states."""
        states = [self.climatology.at(self.archive.states.times[i]) for i in indices]
        upper = torch.from_numpy(np.stack([s[0] for s in states]))
        surface = torch.from_numpy(np.stack([s[1] for s in states]))
        return as_fields(upper, surface).float().to(self.device)

    def run(self, split: str) -> Verified:
        """Measure the models, persistence and the climatology."""
        have = {h: set(self.starts(split, h).tolist()) for h in reachable(self.cfg)}
        remarks = [
            f"no start of the {split} split has a state {h} h later in its block"
            for h, starts in have.items()
            if not starts
        ]
        have = {h: starts for h, starts in have.items() if starts}
        if not have:
            raise ValueError(
                f"no start of the {split} split has a state {min(reachable(self.cfg))} h later in "
                "its block; give the split more times, or lower evaluation.every"
            )
        starts = np.array(sorted(set.union(*have.values())))
        batches = [starts[first : first + BATCH] for first in range(0, len(starts), BATCH)]
        parts = divided(len(batches), lambda i: self._batch(batches[i], have), "evaluation")
        raw = {name: _joined([part[name] for part in parts]) for name in parts[0]}
        if self.cfg.evaluation.members:
            raw["models"] |= self._ensembles(split, tuple(have))
        scores = {name: self._flat(each) for name, each in raw.items()}
        lost = [key for key in scores["persistence"] if key not in scores["models"]]
        if lost:
            remarks.append(
                f"NOT FINITE, so without a number: {len(lost)} scores of the models, such as "
                f"{lost[0]}; the forecasts diverge"
            )
        return Verified(split, scores, tuple(remarks))

    def _batch(self, batch: np.ndarray, have: dict[int, set[int]]) -> dict[str, Scores]:
        """Scores of forecasts from a few starts; `have`: hours -> starts with a truth then."""
        upper, surface = (part.to(self.device) for part in self.archive.stack(batch))
        states = {0: (upper, surface)}
        for call in calls_to(reachable(self.cfg), self.cfg.leads):
            if call.hour > max(have):
                break
            states[call.hour] = self.forecaster.step(*states[call.source], call.model)
        now = as_fields(upper, surface)
        scores: dict[str, Scores] = {"models": {}, "persistence": {}, "climatology": {}}
        for h, starts in have.items():
            rows = [n for n, start in enumerate(batch.tolist()) if start in starts]
            if not rows:
                continue
            at = batch[rows] + h // self.cfg.grid.step
            truth, normal = self.fields(at), self.normal(at)
            made = {
                "models": as_fields(*states[h])[rows],
                "persistence": now[rows],
                "climatology": normal,
            }
            for name, fields in made.items():
                scores[name] |= self._scores(h, fields, truth, normal)
        return scores

    def _scores(self, hours: int, made: Fields, truth: Fields, normal: Fields) -> Scores:
        weights, valid = self.weights, self.valid
        scores = {
            "rmse": weather.rmse(made, truth, weights, valid),
            "acc": weather.acc(made, truth, normal, weights, valid),
            "bias": weather.bias(made, truth, weights, valid),
            "rqe": weather.rqe(made, truth, self.levels, valid),
        }
        if self.usual:
            fields = made[:, self.usual], truth[:, self.usual]
            for region, mask in self.regions.items():
                scores[f"{WB_RMSE} {region}"] = weather.mse(*fields, weights, mask)
        return {f"{name}/{hours}h": values.cpu() for name, values in scores.items()}

    def _ensembles(self, split: str, hours: tuple[int, ...]) -> Scores:
        """Scores of ensembles from every so manieth start that has a truth at the last hour."""
        settings = self.cfg.evaluation
        calls = calls_to(hours, self.cfg.leads)
        noise = Noise(amplitude=settings.amplitude, tileable=self.cfg.grid.periodic)
        noise = fitting(noise, self.cfg.grid.shape)
        shape = (len(self.cfg.grid.fields), *self.cfg.grid.shape)
        starts = self.starts(split, hours[-1])[:: settings.ensemble_every].tolist()

        def measured(number: int) -> Scores:
            start = starts[number]
            drawn = perturbation(shape, settings.members, self.cfg.seed + start, noise)
            states = {0: self._perturbed(start, drawn.to(self.device))}
            for call in calls:
                states[call.hour] = self.forecaster.step(*states[call.source], call.model)
            scores: Scores = {}
            for h in hours:
                truth = self.fields([start + h // self.cfg.grid.step])[0]
                scores |= self._ensemble_scores(h, as_fields(*states[h]), truth)
            return scores

        return _joined(divided(len(starts), measured, "ensembles"))

    def _ensemble_scores(
        self, hours: int, members: Float[Tensor, "member field lat lon"], truth: Fields
    ) -> Scores:
        """Scores of one ensemble; a start axis of length 1 leads."""
        weights, valid = self.weights, self.valid
        scores = {
            "crps": weather.crps(members, truth, weights, valid, fair=True),
            "ensemble rmse": weather.ensemble_mean_rmse(members, truth, weights, valid),
            "unperturbed rmse": weather.rmse(members[0], truth, weights, valid),
            "spread": weather.spread(members, weights, valid),
        }
        return {f"{name}/{hours}h": values[None].cpu() for name, values in scores.items()}

    def _perturbed(
        self, start: int, noise: Float[Tensor, "member field lat lon"]
    ) -> tuple[Tensor, Tensor]:
        """One state with noise, in standard deviations, added for each member."""
        upper, surface = (part.to(self.device) for part in self.archive.stack([start]))
        above, below = self.forecaster.upper_std, self.forecaster.surface_std
        more = noise[:, : above.numel()].unflatten(1, above.shape) * above[..., None, None]
        return upper + more, surface + noise[:, above.numel() :] * below[:, None, None]

    def _flat(self, scores: Scores) -> dict[str, float]:
        """Means over starts: "rmse/z500/24h"; the ratio of mean spread to mean error as well."""
        means = {key: values.double().mean(0) for key, values in scores.items()}
        flat = self._weatherbench(means)
        for key in [k for k in means if k.startswith("spread/")]:
            hours = key.split("/")[1]
            means[f"spread over error/{hours}"] = means[key] / means[f"ensemble rmse/{hours}"]
        for key, values in means.items():
            group, hours = key.split("/")
            for name, value in zip(self.cfg.grid.fields, values.tolist(), strict=True):
                if np.isfinite(value):  # the climatology has no anomaly to correlate
                    flat[f"{group}/{name}/{hours}"] = float(value)
        return flat

    def _weatherbench(self, means: dict[str, Tensor]) -> dict[str, float]:
        """Take WeatherBench's errors out of the means: "weatherbench rmse/z500 europe/24h"."""
        flat = {}
        for key in [key for key in means if key.startswith(WB_RMSE)]:
            group, hours = key.split("/")
            region = group.removeprefix(WB_RMSE).strip()
            for row, value in zip(self.usual, means.pop(key).sqrt().tolist(), strict=True):
                name = f"{self.cfg.grid.fields[row]} {region}".strip()
                if np.isfinite(value):
                    flat[f"{WB_RMSE}/{name}/{hours}"] = float(value)
        return flat


def _joined(parts: Sequence[Scores]) -> Scores:
    """Scores of all starts, in the order of the parts; not every part has every lead time."""
    keys = dict.fromkeys(key for part in parts for key in part)
    return {key: torch.cat([part[key] for part in parts if key in part]) for key in keys}


def fitting(noise: Noise, shape: tuple[int, int]) -> Noise:
    """The noise, its first period halved until the finest octave fits a coarse grid (ours)."""
    finest = noise.lacunarity ** (noise.octaves - 1)
    rows, columns = noise.period
    while rows > 1 and rows * finest > shape[0]:
        rows //= 2
    while columns > 1 and columns * finest > shape[1]:
        columns //= 2
    return replace(noise, period=(rows, columns))
