"""Scores of forecasts, ensembles and what needs no training, on a split of the states."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tenfold.data.weather.climatology import Climatology
from tenfold.metrics import weather

from .aggregation import Call, chain
from .config import Config
from .data import Archive
from .forecaster import Forecaster
from .noise import Noise, perturbation

BATCH = 16
"""Starts that are carried forward together."""
Fields = Float[Tensor, "*lead field lat lon"]
Scores = dict[str, list[Tensor]]


def reachable(cfg: Config) -> tuple[int, ...]:
    """Those hours of evaluation.hours that a chain of the models makes from the data's step."""
    found = []
    for hours in sorted(set(cfg.evaluation.hours)):
        try:
            chain(hours, cfg.leads)
        except ValueError:
            continue
        if hours % cfg.grid.step == 0:
            found.append(hours)
    if not found:
        raise ValueError(
            f"models of {cfg.leads} h reach none of evaluation.hours {cfg.evaluation.hours} "
            f"in steps of {cfg.grid.step} h"
        )
    return tuple(found)


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


class Evaluation:
    """Scores of a run on one split, field by field and lead by lead."""

    def __init__(
        self, cfg: Config, archive: Archive, forecaster: Forecaster, climatology: Climatology
    ) -> None:
        self.cfg, self.archive, self.forecaster = cfg, archive, forecaster
        self.climatology = climatology
        self.device = forecaster.upper_mean.device
        self.weights = weather.latitude_weights(torch.tensor(cfg.grid.latitudes)).to(self.device)
        self.valid = ~forecaster.missing if bool(forecaster.missing.any()) else None
        self.levels = weather.quantile_levels()
        self.remarks: list[str] = []
        """What a reader of the scores must know."""

    def starts(self, split: str, hours: int) -> np.ndarray:
        """Index of every chosen start with a state `hours` later in its block.

        Starts are chosen among all states: so those of a long lead time are among those of a short
        one, and leads can be compared.
        """
        chosen = self.archive.indices(split)[:: self.cfg.evaluation.every]
        found = self.archive.chains(split, [hours])[:, 0]
        return found[np.isin(found, chosen)]

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

    def scores(self, split: str) -> dict[str, dict[str, float]]:
        """Metrics of the models, of persistence and of the climatology: name -> flat metrics."""
        hours = reachable(self.cfg)
        step, calls = self.cfg.grid.step, calls_to(hours, self.cfg.leads)
        have = {h: set(self.starts(split, h).tolist()) for h in hours}
        self.remarks = [
            f"no start of the {split} split has a state {h} h later in its block"
            for h in hours
            if not have[h]
        ]
        hours = tuple(h for h in hours if have[h])
        if not hours:
            raise ValueError(
                f"no start of the {split} split has a state {min(reachable(self.cfg))} h later in "
                "its block; give the split more times, or lower evaluation.every"
            )
        found: dict[str, Scores] = defaultdict(lambda: defaultdict(list))
        starts = np.array(sorted(set.union(*have.values())))
        for first in range(0, len(starts), BATCH):
            batch = starts[first : first + BATCH]
            upper, surface = (part.to(self.device) for part in self.archive.stack(batch))
            states = {0: (upper, surface)}
            for call in calls:
                if call.hour > max(hours):
                    break
                states[call.hour] = self.forecaster.step(*states[call.source], call.model)
            for h in hours:
                rows = [n for n, start in enumerate(batch.tolist()) if start in have[h]]
                if not rows:
                    continue
                at = batch[rows] + h // step
                truth, normal = self.fields(at), self.normal(at)
                made = as_fields(*states[h])[rows]
                self._add(found["models"], h, made, truth, normal)
                now = as_fields(upper, surface)[rows]
                self._add(found["persistence"], h, now, truth, normal)
                self._add(found["climatology"], h, normal, truth, normal)
        if self.cfg.evaluation.members:
            self._ensembles(found["models"], split, hours)
        flat = {name: self._flat(scores) for name, scores in found.items()}
        lost = [key for key in flat["persistence"] if key not in flat["models"]]
        if lost:
            self.remarks.append(
                f"NOT FINITE, so without a number: {len(lost)} scores of the models, such as "
                f"{lost[0]}; the forecasts diverge"
            )
        return flat

    def _add(self, to: Scores, hours: int, made: Fields, truth: Fields, normal: Fields) -> None:
        weights, valid = self.weights, self.valid
        to[f"rmse/{hours}h"].append(weather.rmse(made, truth, weights, valid))
        to[f"acc/{hours}h"].append(weather.acc(made, truth, normal, weights, valid))
        to[f"bias/{hours}h"].append(weather.bias(made, truth, weights, valid))
        to[f"rqe/{hours}h"].append(weather.rqe(made, truth, self.levels, valid))

    def _ensembles(self, to: Scores, split: str, hours: tuple[int, ...]) -> None:
        """Ensembles from every so manieth start that has a truth at the last hour."""
        settings, step = self.cfg.evaluation, self.cfg.grid.step
        calls = calls_to(hours, self.cfg.leads)
        noise = Noise(amplitude=settings.amplitude, tileable=self.cfg.grid.periodic)
        noise = fitting(noise, self.cfg.grid.shape)
        shape = (len(self.cfg.grid.fields), *self.cfg.grid.shape)
        for start in self.starts(split, hours[-1])[:: settings.ensemble_every].tolist():
            drawn = perturbation(shape, settings.members, self.cfg.seed + start, noise)
            states = {0: self._perturbed(start, drawn.to(self.device))}
            for call in calls:
                states[call.hour] = self.forecaster.step(*states[call.source], call.model)
            for h in hours:
                truth = self.fields([start + h // step])[0]
                made = as_fields(*states[h])
                weights, valid = self.weights, self.valid
                to[f"crps/{h}h"].append(weather.crps(made, truth, weights, valid, fair=True)[None])
                mean = weather.ensemble_mean_rmse(made, truth, weights, valid)
                to[f"ensemble rmse/{h}h"].append(mean[None])
                single = weather.rmse(made[0], truth, weights, valid)
                to[f"unperturbed rmse/{h}h"].append(single[None])
                to[f"spread/{h}h"].append(weather.spread(made, weights, valid)[None])

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
        means = {key: torch.cat(values).double().mean(0) for key, values in scores.items()}
        for key in [k for k in means if k.startswith("spread/")]:
            hours = key.split("/")[1]
            means[f"spread over error/{hours}"] = means[key] / means[f"ensemble rmse/{hours}"]
        flat = {}
        for key, values in means.items():
            group, hours = key.split("/")
            for name, value in zip(self.cfg.grid.fields, values.tolist(), strict=True):
                if np.isfinite(value):  # the climatology has no anomaly to correlate
                    flat[f"{group}/{name}/{hours}"] = float(value)
        return flat


def fitting(noise: Noise, shape: tuple[int, int]) -> Noise:
    """The noise, its first period halved until the finest octave fits a coarse grid (ours)."""
    finest = noise.lacunarity ** (noise.octaves - 1)
    rows, columns = noise.period
    while rows > 1 and rows * finest > shape[0]:
        rows //= 2
    while columns > 1 and columns * finest > shape[1]:
        columns //= 2
    return replace(noise, period=(rows, columns))
