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
    brier,
    crps,
    exceedance_probability,
    great_circle_km,
    latitude_weights,
    rmse,
    spread,
)

from .aggregation import plan_text
from .chances import Chances, threshold_text
from .config import PredictOptions, parse_lat_lon
from .evaluation import as_fields, fitting
from .forecaster import ForecastModel
from .inputs import Inputs, axis_text, land_of
from .noise import Noise
from .rollout import Ensemble, Members, Rollout
from .selection import Selection
from .storms import Follower, per_step, require_storm

EUROPE = (50.0, 10.0)
MAX_FRAMES = 120
"""Frames of an animation; of more hours every second, third, ... is drawn."""
SHOWN = ("z500", "t850", "t2m", "msl")
"""Fields that a page shows first, of those that there are."""


def shown(grid: Grid) -> list[str]:
    """Fields that a page shows first."""
    return [name for name in SHOWN if name in grid.fields] or list(grid.fields[:2])


Row = dict[str, float | str | int]
"""One row of a table."""


@dataclass
class Outcome:
    """Series and a few fields that a forecast leaves for pages and pictures, not its states."""

    grid: Grid
    """Fields and grid of the states."""
    kept: Grid
    """Those that are written and drawn."""
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
    series: list[np.ndarray] = field(default_factory=list)
    """Values of all fields at the points, (member, field, point), at every hour."""
    truth_series: list[np.ndarray | None] = field(default_factory=list)
    """Those of the file's own states, (field, point); None where it has none."""
    truth_frames: dict[int, np.ndarray] = field(default_factory=dict)
    last: dict[str, np.ndarray] = field(default_factory=dict)
    """Drawn field -> all members at the last hour."""
    truth: dict[str, tuple[int, np.ndarray, np.ndarray]] = field(default_factory=dict)
    """Drawn field -> last hour with a truth, the mean of the members then, the truth."""
    scores: list[Row] = field(default_factory=list)
    """Rows of scores.csv: hour, field, rmse of the mean, of member 0, of persistence, spread, CRPS,
    and Brier scores."""
    remarks: list[str] = field(default_factory=list)
    """Sentences on the files: what was left out."""
    land: np.ndarray | None = None
    points: list[tuple[float, float]] = field(default_factory=list)
    """Latitude and longitude of the grid points whose series are kept; the first is drawn."""
    followers: dict[str, Follower] = field(default_factory=dict)
    """Name of a track -> who follows it."""
    reference: tuple[Position, ...] = ()
    """Best track to compare with."""
    isobars: tuple[int, np.ndarray] | None = None
    """The last hour at which member 0 has the storm, and its msl then."""
    pictures: bool = True
    """Whether they are drawn."""

    def time(self, hour: int) -> str:
        """The time of an hour in ISO 8601; empty if nobody says it."""
        if np.isnat(self.start):
            return ""
        return str((self.start + np.timedelta64(3600 * hour, "s")).astype("datetime64[s]"))

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
        fields = options.fields
        if options.names == "earth2studio":  # which has each field as an array of its own
            fields = fields or grid.fields
        self.selection = Selection(grid, fields, options.region)
        self.chances = Chances(grid, options.above)
        if options.above and options.members < 2:
            raise ValueError("--above needs an ensemble: give --members 10, say")
        self.rollout = Rollout(
            model,
            given.start,
            self._ensemble(grid),
            options.hours,
            every,
            options.batch,
            self.selection.whole,
        )
        self.missing = model.missing_points()
        self.weights = latitude_weights(torch.tensor(grid.latitudes))
        self.inside = torch.from_numpy(self.selection.inside(grid.shape) & ~self.missing)
        self.outcome = Outcome(
            grid,
            self.selection.grid,
            given.index,
            given.time,
            list(options.fields) or shown(grid),
            plan_text(options.hours, model.leads, every),
            options.hours,
            options.members,
            land=land_of(given.states, model),
            reference=given.reference,
            pictures=options.pictures,
            remarks=[f"left out of the files: {line}" for line in given.states.left_out],
        )
        self._points(grid)
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

    def _points(self, grid: Grid) -> None:
        """The grid points whose values are kept: those asked for, the storm, or Europe."""
        text = self.options.point or self.options.track
        lats, lons = np.array(grid.latitudes), np.array(grid.longitudes)
        spacing = EARTH_KM * math.radians(max(np.abs(np.diff(lats)).max(), np.diff(lons).max()))

        def nearest(lat: float, lon: float) -> tuple[int, int, float]:
            far = great_circle_km(lat, lon, lats[:, None], lons[None])
            far = np.where(self.missing, np.inf, far)
            row, column = np.unravel_index(far.argmin(), far.shape)
            return int(row), int(column), float(far.min())

        places = [parse_lat_lon(part, "--point") for part in filter(None, text.split(";"))]
        self.at: list[tuple[int, int]] = []
        for place in places or [EUROPE]:
            row, column, far = nearest(*place)
            if far > spacing and self.options.point:
                raise ValueError(
                    f"--point {place[0]:g},{place[1]:g} is {far:.0f} km from the nearest point "
                    f"with values; the grid has {axis_text(lats)} latitudes, {axis_text(lons)} "
                    "longitudes"
                )
            if far > spacing and not text:
                row, column, _ = nearest(float(lats.mean()), float(lons.mean()))
            self.at.append((row, column))
        self.outcome.points = [(float(lats[row]), float(lons[column])) for row, column in self.at]

    def _follow(self, given: Inputs, every: int) -> None:
        """Trackers of the forecast's members and of the file's own states."""
        options, start = self.options, given.start
        if not options.track:
            return
        if options.reference:
            self._check_reference(given.reference)
        where, land = parse_lat_lon(options.track, "--track"), self.outcome.land
        require_storm(start, where, options.tracker, land)
        hours = dict.fromkeys(
            ["forecast", *(f"member {m}" for m in range(1, options.members))], every
        )
        if given.has_later:  # states that both have
            hours["analysis"] = math.lcm(every, given.states.grid.step)
        for name, apart in hours.items():
            limits = per_step(options.tracker, apart)
            self.outcome.followers[name] = Follower(start.grid, where, limits, land)

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
        if self.options.animate and self.options.pictures and (len(out.hours) - 1) % stride == 0:
            out.frames[hour] = self.selection.cut(fields[0, rows[0]].numpy())
        out.series.append(self._at(fields.numpy()))
        for name, row in zip(out.drawn, rows, strict=True):
            out.last[name] = self.selection.cut(fields[:, row].numpy())
        for number, follower in enumerate(list(out.followers.values())[: len(members[0])]):
            follower.step(hour, members[0][number], members[1][number])
            if number == 0 and follower.positions[-1].hour == hour:
                msl = members[1][0, out.grid.surface.index("msl")]
                out.isobars = hour, self.selection.cut(msl)
        self._verify(hour, fields, rows)

    def _at(self, fields: np.ndarray) -> np.ndarray:
        """Values at the points, which become the last axis."""
        return np.stack([fields[..., row, column] for row, column in self.at], axis=-1)

    def _verify(
        self, hour: int, fields: Float[torch.Tensor, "m f lat lon"], rows: list[int]
    ) -> None:
        """Compare with the file's own state of that hour, if it has one."""
        out, later = self.outcome, self.given.later(hour)
        out.remarks += self.given.remarks
        self.given.remarks.clear()
        if later is None:
            out.truth_series.append(None)
            return
        upper, surface = later
        truth = as_fields(torch.from_numpy(upper), torch.from_numpy(surface))
        if "analysis" in out.followers:
            out.followers["analysis"].step(hour, upper, surface)
        cut = self.selection.cut
        if hour in out.frames:
            out.truth_frames[hour] = cut(truth[rows[0]].numpy())
        out.truth_series.append(self._at(truth.numpy()))
        mean = fields.double().mean(0).float()
        for name, row in zip(out.drawn, rows, strict=True):
            out.truth[name] = (hour, cut(mean[row].numpy()), cut(truth[row].numpy()))
        if hour:
            self._score(hour, fields, mean, truth)

    def _score(
        self, hour: int, fields: torch.Tensor, mean: torch.Tensor, truth: torch.Tensor
    ) -> None:
        """Scores of every field, over the region that is kept."""
        start, weights = self.rollout.start, self.weights
        before = as_fields(torch.from_numpy(start.upper), torch.from_numpy(start.surface))
        valid = torch.isfinite(truth) & self.inside
        errors = {
            "rmse": rmse(fields[0], truth, weights, valid),
            "persistence": rmse(before, truth, weights, valid),
        }
        if len(fields) > 1:
            errors["ensemble mean"] = rmse(mean, truth, weights, valid)
            each = range(len(truth))  # one by one: in float64 all members of all fields are large
            errors["spread"] = torch.stack([spread(fields[:, k], weights, valid[k]) for k in each])
            errors["crps"] = torch.stack(
                [crps(fields[:, k], truth[k], weights, valid[k], fair=True) for k in each]
            )
        names = self.outcome.grid.fields
        briers: dict[str, dict[str, float]] = {name: {} for name in names}
        for name, value in self.chances.thresholds:
            row = names.index(name)
            chance = exceedance_probability(fields[:, row], value)
            score = brier(chance, truth[row], value, weights, valid[row])
            briers[name][f"brier above {threshold_text(value)}"] = float(score)
        for row, name in enumerate(names):
            if bool(valid[row].any()):
                row_of = {key: float(values[row]) for key, values in errors.items()}
                self.outcome.scores.append({"hour": hour, "field": name, **row_of, **briers[name]})
