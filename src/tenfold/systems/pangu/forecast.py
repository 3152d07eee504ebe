"""A forecast: what is asked of it, its states hour by hour, and what pages keep of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float

from tenfold.data.weather.grid import Grid
from tenfold.metrics.weather import (
    EARTH_KM,
    Position,
    great_circle_km,
    latitude_weights,
    rmse,
)

from .aggregation import plan_text
from .config import PredictOptions, parse_lat_lon
from .evaluation import as_fields, fitting
from .forecaster import ForecastModel
from .inputs import Inputs, axis_text
from .noise import Noise
from .rollout import Ensemble, Members, Rollout
from .storms import Follower, per_step, require_storm

EUROPE = (50.0, 10.0)
MAX_FRAMES = 120
"""Frames of an animation; of more hours every second, third, ... is drawn."""
SHOWN = ("z500", "t850", "t2m", "msl")
"""Fields that a page shows first, of those that there are."""


def shown(grid: Grid) -> list[str]:
    """Fields that a page shows first."""
    return [name for name in SHOWN if name in grid.fields] or list(grid.fields[:2])


@dataclass
class Outcome:
    """Series and a few fields that a forecast leaves for pages and pictures, not its states."""

    grid: Grid
    index: int
    """Number of the initial state in the file."""
    start: np.datetime64
    """Time of the initial state, NaT if the file does not say."""
    drawn: list[str]
    """Fields that pictures show."""
    plan: str
    """The calls of the models, as text."""
    asked: int
    """Hours that were asked for."""
    members: int
    hours: list[int] = field(default_factory=list)
    frames: dict[int, np.ndarray] = field(default_factory=dict)
    """Hour -> first drawn field of member 0, of those hours that an animation shows."""
    series: dict[str, list[np.ndarray]] = field(default_factory=dict)
    """Drawn field -> its values at the point, (member,), at every hour."""
    truth_series: dict[str, list[float]] = field(default_factory=dict)
    truth_frames: dict[int, np.ndarray] = field(default_factory=dict)
    last: dict[str, np.ndarray] = field(default_factory=dict)
    """Drawn field -> all members at the last hour."""
    truth: dict[str, tuple[int, np.ndarray, np.ndarray]] = field(default_factory=dict)
    """Drawn field -> last hour with a truth, the mean of the members then, the truth."""
    scores: list[dict[str, float | str | int]] = field(default_factory=list)
    """Rows of scores.csv: hour, field, rmse of the mean, of member 0, of persistence, spread."""
    land: np.ndarray | None = None
    point: tuple[float, float] = (0.0, 0.0)
    """Latitude and longitude of the grid point whose series are kept."""
    followers: dict[str, Follower] = field(default_factory=dict)
    """Name of a track -> who follows it."""
    reference: tuple[Position, ...] = ()
    """Best track to compare with."""
    isobars: tuple[int, np.ndarray] | None = None
    """The last hour at which member 0 has the storm, and its msl then."""

    def when(self, hour: int) -> str:
        """The time of an hour, such as 1996-01-07 06 UTC; empty if the file does not say."""
        if np.isnat(self.start):
            return ""
        time = self.start + np.timedelta64(3600 * hour, "s")
        return str(time.astype("datetime64[m]")).replace("T", " ").removesuffix(":00") + " UTC"


class Forecast:
    """One forecast: checked before anything is computed; then `rollout` makes the states.

    Args:
        model: Carries states forward.
        options: What is asked for.
        given: Start and later states.

    Raises:
        ValueError: The models do not reach the hours, a field to draw is not forecast, a point is
            off the grid, there is no storm to follow, or the noise is too fine for the grid.
    """

    def __init__(self, model: ForecastModel, options: PredictOptions, given: Inputs) -> None:
        self.model, self.options, self.given = model, options, given
        grid, every = given.start.grid, options.every or min(model.leads)
        if options.hours < every:
            raise ValueError(
                f"--hours {options.hours} is less than a step of {every} h; the models of this "
                f"run make {', '.join(map(str, model.leads))} h"
            )
        self.rollout = Rollout(
            model, given.start, self._ensemble(grid), options.hours, every, options.batch
        )
        self.missing = model.missing_points()
        self.weights = latitude_weights(torch.tensor(grid.latitudes))
        self.outcome = Outcome(
            grid,
            given.index,
            given.time,
            self._drawn(grid),
            plan_text(options.hours, model.leads, every),
            options.hours,
            options.members,
            land=model.land_share(),
            reference=given.reference,
        )
        self._point(grid)
        self._follow(given, every)

    def _ensemble(self, grid: Grid) -> Ensemble:
        """Noise of the members; a single forecast needs no statistics (perhaps of large files)."""
        members, seed = self.options.members, self.options.seed
        noise = fitting(Noise(self.options.amplitude, tileable=grid.periodic), grid.shape)
        if members == 1:
            shape = len(grid.upper), len(grid.levels)
            none = np.zeros(shape, np.float32), np.zeros(len(grid.surface), np.float32)
            return Ensemble(1, noise, *none, seed)
        noise.check(grid.shape)
        return Ensemble(members, noise, *self.model.deviations(), seed)

    def _drawn(self, grid: Grid) -> list[str]:
        for name in self.options.fields:
            if name not in grid.fields:
                raise ValueError(
                    f"--fields has {name!r}; the run forecasts {', '.join(grid.fields)}"
                )
        return list(self.options.fields) or shown(grid)

    def _point(self, grid: Grid) -> None:
        """The grid point whose values are kept: the one asked for, the storm, or Europe."""
        text = self.options.point or self.options.track
        lats, lons = np.array(grid.latitudes), np.array(grid.longitudes)
        spacing = EARTH_KM * math.radians(max(np.abs(np.diff(lats)).max(), np.diff(lons).max()))

        def nearest(lat: float, lon: float) -> tuple[int, int, float]:
            far = great_circle_km(lat, lon, lats[:, None], lons[None])
            far = np.where(self.missing, np.inf, far)
            row, column = np.unravel_index(far.argmin(), far.shape)
            return int(row), int(column), float(far.min())

        row, column, far = nearest(*(parse_lat_lon(text, "--point") if text else EUROPE))
        if far > spacing and self.options.point:
            raise ValueError(
                f"--point {text} is {far:.0f} km from the nearest point with values; the grid has "
                f"{axis_text(lats)} latitudes, {axis_text(lons)} longitudes"
            )
        if far > spacing and not text:
            row, column, _ = nearest(float(lats.mean()), float(lons.mean()))
        self.at = (row, column)
        self.outcome.point = (float(lats[row]), float(lons[column]))

    def _follow(self, given: Inputs, every: int) -> None:
        """Trackers of the forecast's members and of the file's own states."""
        options, start = self.options, given.start
        if not options.track:
            return
        if options.reference:
            self._check_reference(given.reference)
        where, land = parse_lat_lon(options.track, "--track"), self.outcome.land
        require_storm(start, where, options.tracker, land)
        thresholds = per_step(options.tracker, every)
        names = ["forecast", *(f"member {m}" for m in range(1, options.members))]
        if given.has_later:
            names.append("analysis")
        for name in names:
            self.outcome.followers[name] = Follower(start.grid, where, thresholds, land)

    def _check_reference(self, track: Sequence[Position]) -> None:
        """Refuse a best track of other hours before a long forecast."""
        hours, ours = {position.hour for position in track}, self.rollout.hours
        if not hours & set(ours):
            raise ValueError(
                f"{self.options.reference} has hours {min(hours):g} to {max(hours):g}, none of "
                f"which is among the forecast's: 0, {ours[1]}, ... {ours[-1]}; count them from its "
                "start"
            )

    def collect(self, hour: int, members: Members) -> None:
        """Keep what pages and pictures need of the states of an hour; hours come in order."""
        out = self.outcome
        fields = as_fields(torch.from_numpy(members[0]), torch.from_numpy(members[1]))
        rows = [out.grid.fields.index(name) for name in out.drawn]
        out.hours.append(hour)
        stride = -(-len(self.rollout.hours) // MAX_FRAMES)
        if self.options.animate and (len(out.hours) - 1) % stride == 0:
            out.frames[hour] = fields[0, rows[0]].numpy()
        for name, row in zip(out.drawn, rows, strict=True):
            values = fields[:, row].numpy()
            out.series.setdefault(name, []).append(values[:, self.at[0], self.at[1]])
            out.last[name] = values
        for number, follower in enumerate(list(out.followers.values())[: len(members[0])]):
            follower.step(hour, members[0][number], members[1][number])
            if number == 0 and follower.positions[-1].hour == hour:
                out.isobars = hour, members[1][0, out.grid.surface.index("msl")]
        self._verify(hour, fields, rows)

    def _verify(
        self, hour: int, fields: Float[torch.Tensor, "m f lat lon"], rows: list[int]
    ) -> None:
        """Compare with the file's own state of that hour, if it has one."""
        out, later = self.outcome, self.given.later(hour)
        if later is None:
            return
        upper, surface = later
        truth = as_fields(torch.from_numpy(upper), torch.from_numpy(surface))
        if "analysis" in out.followers:
            out.followers["analysis"].step(hour, upper, surface)
        if hour in out.frames:
            out.truth_frames[hour] = truth[rows[0]].numpy()
        mean = fields.double().mean(0).float()
        for name, row in zip(out.drawn, rows, strict=True):
            out.truth_series.setdefault(name, []).append(float(truth[row][self.at]))
            out.truth[name] = (hour, mean[row].numpy(), truth[row].numpy())
        if hour:
            self._score(hour, fields, mean, truth)

    def _score(
        self, hour: int, fields: torch.Tensor, mean: torch.Tensor, truth: torch.Tensor
    ) -> None:
        start = self.rollout.start
        before = as_fields(torch.from_numpy(start.upper), torch.from_numpy(start.surface))
        valid = torch.isfinite(truth) & torch.from_numpy(~self.missing)
        errors = {
            "rmse": rmse(fields[0], truth, self.weights, valid),
            "persistence": rmse(before, truth, self.weights, valid),
        }
        if len(fields) > 1:
            errors["ensemble mean"] = rmse(mean, truth, self.weights, valid)
            deviation = fields.double().std(0, correction=1)
            zero = torch.zeros_like(deviation)
            errors["spread"] = rmse(deviation, zero, self.weights, valid)
        for row, name in enumerate(self.outcome.grid.fields):
            if bool(valid[row].any()):
                row_of = {key: float(values[row]) for key, values in errors.items()}
                self.outcome.scores.append({"hour": hour, "field": name, **row_of})
