"""`tenfold predict`: a forecast from a file of states, verified where the file goes on."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from jaxtyping import Float

from tenfold.core.checkpoint import write_text
from tenfold.data.weather.grid import Grid
from tenfold.data.weather.reader import States, open_states
from tenfold.metrics.weather import EARTH_KM, great_circle_km, latitude_weights, rmse

from .aggregation import plan_text
from .cyclone import Thresholds, read_track
from .evaluation import as_fields, fitting
from .noise import Noise
from .rollout import Ensemble, Members, Rollout, Start
from .storms import Follower, per_step, require_storm

if TYPE_CHECKING:
    from .system import PanguWeather

EUROPE = (50.0, 10.0)
MAX_HOURS = 24 * 365
MAX_MEMBERS = 1000
MAX_FRAMES = 120
"""Frames of an animation; of more hours every second, third, ... is drawn."""


@dataclass(frozen=True)
class Forecasting:
    """What `tenfold predict` may be asked for."""

    hours: int = 72
    """Length of the forecast."""
    every: int = 0
    """Hours between the states that are written; 0 is the shortest lead time of the models."""
    start: str = "last"
    """State to start from: last, first, its number from 0, or its time such as 1996-01-07T06."""
    members: int = 1
    """Members of the ensemble, the first unperturbed; 1 is a single forecast."""
    amplitude: float = 0.2
    """Size of the first octave of the noise, in standard deviations (pseudocode)."""
    seed: int = 0
    """The same seed gives the same members."""
    track: str = ""
    """LAT,LON of a low at the start, which is then followed: tracks.csv, tracks.geojson, a map."""
    reference: str = ""
    """CSV of the best track (hour,lat,lon,...) with which tracks are compared."""
    tracker: Thresholds = Thresholds()
    """When a pressure minimum is the storm."""
    fields: tuple[str, ...] = ()
    """Fields to draw, such as z500 t2m; empty draws some usual ones."""
    point: str = ""
    """LAT,LON whose values over time are drawn; empty takes the storm, 50 N, 10 E if that is on the
    grid, or the grid's middle."""
    write: Literal["nc", "zarr"] = "nc"
    """Format of the forecast's file."""
    batch: int = 4
    """Members that are carried forward together: more is faster, and needs more memory."""
    animate: bool = True
    """Draw the first field as an animation."""

    def __post_init__(self) -> None:
        if not 1 <= self.hours <= MAX_HOURS:
            raise ValueError(f"--hours must be in 1..{MAX_HOURS}, got {self.hours}")
        if not 1 <= self.members <= MAX_MEMBERS:
            raise ValueError(f"--members must be in 1..{MAX_MEMBERS}, got {self.members}")
        if self.batch < 1 or self.every < 0:
            raise ValueError("--batch must be at least 1 and --every not negative")
        if self.seed < 0 or not (math.isfinite(self.amplitude) and self.amplitude >= 0):
            raise ValueError(
                f"--seed {self.seed} and --amplitude {self.amplitude:g} must be finite and not "
                "negative"
            )
        if self.reference and not self.track:
            raise ValueError("--reference needs --track LAT,LON: where the storm is at the start")
        for name in ("track", "point"):
            if getattr(self, name):
                place(getattr(self, name), f"--{name}")


def place(text: str, option: str) -> tuple[float, float]:
    """Latitude and longitude from "LAT,LON"; south and west are negative."""
    try:
        lat, lon = (float(part) for part in text.split(","))
    except ValueError as error:
        raise ValueError(
            f"{option} is {text!r}; give LAT,LON in degrees such as 31.25,-85 "
            f"(with a negative latitude: {option}=-20,60)"
        ) from error
    if not (abs(lat) <= 90 and abs(lon) <= 360):
        raise ValueError(f"{option} is {text!r}; latitudes are within 90, longitudes within 360")
    return lat, lon


@dataclass
class Outcome:
    """What a forecast leaves for pages and pictures: series and a few fields, not the states."""

    grid: Grid
    start: np.datetime64
    """Time of the initial state, NaT if the file does not say."""
    hours: list[int] = field(default_factory=list)
    frames: dict[int, np.ndarray] = field(default_factory=dict)
    """Hour -> first drawn field of member 0, of those hours that an animation shows."""
    series: dict[str, list[np.ndarray]] = field(default_factory=dict)
    """Drawn field -> its values at the point, (member,), at every hour."""
    truth_series: dict[str, list[float]] = field(default_factory=dict)
    truth_frames: dict[int, np.ndarray] = field(default_factory=dict)
    last: dict[str, np.ndarray] = field(default_factory=dict)
    """Drawn field -> all members at the last hour."""
    first: dict[str, np.ndarray] = field(default_factory=dict)
    """Drawn field -> the initial state."""
    truth: dict[str, tuple[int, np.ndarray, np.ndarray]] = field(default_factory=dict)
    """Drawn field -> last hour with a truth, the mean of the members then, the truth."""
    scores: list[dict[str, float | str | int]] = field(default_factory=list)
    """Rows of scores.csv: hour, field, rmse of the mean, of member 0, of persistence, spread."""
    land: np.ndarray | None = None
    point: tuple[float, float] = (0.0, 0.0)
    """Latitude and longitude of the grid point whose series are kept."""
    followers: dict[str, Follower] = field(default_factory=dict)
    """Name of a track -> who follows it."""
    isobars: tuple[int, np.ndarray] | None = None
    """The last hour at which member 0 has the storm, and its msl then."""

    def when(self, hour: int) -> str:
        """The time of an hour, such as 1996-01-07 06 UTC; empty if the file does not say."""
        if np.isnat(self.start):
            return ""
        time = self.start + np.timedelta64(3600 * hour, "s")
        return str(time.astype("datetime64[m]")).replace("T", " ").removesuffix(":00") + " UTC"


def open_input(system: PanguWeather, file: Path) -> States:
    """A user's states, which must have the fields and the grid of the run."""
    grid = system.cfg.grid
    states = open_states(file, upper=grid.upper, levels=grid.levels, surface=grid.surface)
    for name in ("latitudes", "longitudes"):
        have, want = np.array(getattr(states.grid, name)), np.array(getattr(grid, name))
        if have.shape != want.shape or np.abs(have - want).max() > 0.01:
            raise ValueError(
                f"{file} has {_axis(have)} {name}, but the run was trained on {_axis(want)}. "
                "Regrid the file (cdo remapbil, xarray's interp), or train on its grid"
            )
    return states


def _axis(values: np.ndarray) -> str:
    return f"{len(values)} ({values[0]:g} to {values[-1]:g})"


def start_index(states: States, text: str) -> int:
    """The index that `--start` means."""
    times = states.times
    if text in ("first", "last"):
        return 0 if text == "first" else len(times) - 1
    if text.lstrip("-").isdigit():
        if not 0 <= int(text) < len(times):
            raise ValueError(f"--start is {text}, but the file has states 0 to {len(times) - 1}")
        return int(text)
    try:
        wanted = np.datetime64(text)
    except ValueError as error:
        raise ValueError(
            f"--start is {text!r}; give first, last, a number, or a time such as 1996-01-07T06"
        ) from error
    found = np.flatnonzero(times == wanted)
    if not len(found):
        raise ValueError(
            f"--start is {text}, but no state of the file is valid then: they run from {times[0]} "
            f"to {times[-1]}"
        )
    return int(found[0])


def initial(states: States, index: int, missing: np.ndarray) -> Start:
    """The state at an index, NaN at the points that are missing in the run and nowhere else."""
    upper, surface = states.read(index)
    grid = states.grid
    layers = [*upper.reshape(-1, *grid.shape), *surface]
    for name, values in zip(grid.fields, layers, strict=True):
        wrong = ~np.isfinite(values) & ~missing
        if wrong.any():
            row, column = np.argwhere(wrong)[0]
            raise ValueError(
                f"{states.path}: {name} of state {index} ({states.times[index]}) is missing at "
                f"{wrong.sum()} points ({100 * wrong.mean():.1f} %), first at latitude "
                f"{grid.latitudes[row]:g}, longitude {grid.longitudes[column]:g}; choose another "
                "--start, or fill the gap"
            )
    time = states.times[index]
    if np.isnat(time):  # the file does not say; a forecast's file needs a beginning
        time = np.datetime64("2000-01-01T00:00:00")
    upper[..., missing] = surface[..., missing] = np.nan
    return Start(grid, time, upper, surface)


class Forecast:
    """One call of `tenfold predict`: what is asked, the roll-out, and what is kept of it."""

    def __init__(self, system: PanguWeather, file: Path) -> None:
        options, cfg = system.options, system.cfg
        assert isinstance(options, Forecasting)
        self.system, self.options = system, options
        self.states = open_input(system, file)
        grid = replace(cfg.grid, constants=())
        self.index = start_index(self.states, options.start)
        stepper = system.stepper()
        missing = system.missing()
        start = replace(initial(self.states, self.index, missing), grid=grid)
        every = options.every or min(stepper.leads)
        if options.hours < every:
            raise ValueError(
                f"--hours {options.hours} is less than a step of {every} h; the models of this "
                f"run make {', '.join(map(str, stepper.leads))} h"
            )
        device = system.device()
        self.rollout = Rollout(
            stepper, start, self._ensemble(grid), options.hours, every, options.batch, device
        )
        self.plan = plan_text(options.hours, stepper.leads, every)
        self.drawn = self._drawn(grid)
        self.missing = missing
        self.weights = latitude_weights(torch.tensor(grid.latitudes))
        self.outcome = Outcome(grid, self.states.times[self.index], land=system.land())
        self._point(grid)
        self._follow(start, every)

    def _ensemble(self, grid: Grid) -> Ensemble:
        """How members differ; a single forecast needs no statistics (perhaps of large files)."""
        members, seed = self.options.members, self.options.seed
        noise = fitting(Noise(self.options.amplitude, tileable=grid.periodic), grid.shape)
        if members == 1:
            shape = len(grid.upper), len(grid.levels)
            none = np.zeros(shape, np.float32), np.zeros(len(grid.surface), np.float32)
            return Ensemble(1, noise, *none, seed)
        noise.check(grid.shape)
        return Ensemble(members, noise, *self.system.deviations(), seed)

    def _drawn(self, grid: Grid) -> list[str]:
        for name in self.options.fields:
            if name not in grid.fields:
                raise ValueError(
                    f"--fields has {name!r}; the run forecasts {', '.join(grid.fields)}"
                )
        return list(self.options.fields) or self.system.shown()

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

        row, column, far = nearest(*(place(text, "--point") if text else EUROPE))
        if far > spacing and self.options.point:
            raise ValueError(
                f"--point {text} is {far:.0f} km from the nearest point with values; the grid has "
                f"{_axis(lats)} latitudes, {_axis(lons)} longitudes"
            )
        if far > spacing and not text:
            row, column, _ = nearest(float(lats.mean()), float(lons.mean()))
        self.at = (row, column)
        self.outcome.point = (float(lats[row]), float(lons[column]))

    def _follow(self, start: Start, every: int) -> None:
        """Trackers of the forecast's members and of the file's own states."""
        options = self.options
        if not options.track:
            return
        if options.reference:
            self._check_reference(Path(options.reference))
        where, land = place(options.track, "--track"), self.outcome.land
        require_storm(start, where, options.tracker, land)
        thresholds = per_step(options.tracker, every)
        names = ["forecast", *(f"member {m}" for m in range(1, options.members))]
        if self.index + 1 < len(self.states):
            names.append("analysis")
        for name in names:
            self.outcome.followers[name] = Follower(start.grid, where, thresholds, land)

    def _check_reference(self, file: Path) -> None:
        """Refuse a best track of other hours before a long forecast."""
        hours, ours = {position.hour for position in read_track(file)}, self.rollout.hours
        if not hours & set(ours):
            raise ValueError(
                f"{file} has hours {min(hours):g} to {max(hours):g}, none of which is among the "
                f"forecast's: 0, {ours[1]}, ... {ours[-1]}; count them from its start"
            )

    def run(self, path: Path) -> None:
        """Write the forecast to `path`, collecting what pictures and tables need."""
        attributes = {
            "source": f"tenfold, {self.system.paper.title}",
            "models": ", ".join(f"{lead} h" for lead in self.rollout.stepper.leads),
            "weights": self.system.digest(),
        }
        if self.options.members > 1:  # a single forecast is the same whatever the noise
            attributes["noise_amplitude"] = f"{self.options.amplitude:g}"
            attributes["noise_seed"] = str(self.options.seed)
        for hour, members in self.rollout.run(path, attributes):
            self._collect(hour, members)

    def _collect(self, hour: int, members: Members) -> None:
        out = self.outcome
        fields = as_fields(torch.from_numpy(members[0]), torch.from_numpy(members[1]))
        rows = [out.grid.fields.index(name) for name in self.drawn]
        out.hours.append(hour)
        stride = -(-len(self.rollout.hours) // MAX_FRAMES)
        if self.options.animate and (len(out.hours) - 1) % stride == 0:
            out.frames[hour] = fields[0, rows[0]].numpy()
        for name, row in zip(self.drawn, rows, strict=True):
            values = fields[:, row].numpy()
            out.series.setdefault(name, []).append(values[:, self.at[0], self.at[1]])
            out.last[name] = values
            if hour == 0:
                out.first[name] = values[0]
        for number, follower in enumerate(list(out.followers.values())[: len(members[0])]):
            follower.step(hour, members[0][number], members[1][number])
            if number == 0 and follower.positions[-1].hour == hour:
                out.isobars = hour, members[1][0, out.grid.surface.index("msl")]
        self._verify(hour, fields, rows)

    def _verify(
        self, hour: int, fields: Float[torch.Tensor, "m f lat lon"], rows: list[int]
    ) -> None:
        """Compare with the file's own state of that hour, if it has one."""
        out, times = self.outcome, self.states.times
        valid = times[self.index] + np.timedelta64(3600 * hour, "s")
        found = np.flatnonzero(times == valid)
        if not len(found):
            return
        upper, surface = self.states.read(int(found[0]))
        truth = as_fields(torch.from_numpy(upper), torch.from_numpy(surface))
        if "analysis" in out.followers:
            out.followers["analysis"].step(hour, upper, surface)
        if hour in out.frames:
            out.truth_frames[hour] = truth[rows[0]].numpy()
        mean = fields.double().mean(0).float()
        for name, row in zip(self.drawn, rows, strict=True):
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
                found = {key: float(values[row]) for key, values in errors.items()}
                self.outcome.scores.append({"hour": hour, "field": name, **found})


def scores_csv(rows: Sequence[dict[str, float | str | int]]) -> str:
    """Rows of scores as CSV, errors with six digits."""
    text = io.StringIO()
    names = list(rows[0])
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    for row in rows:
        values = [row[name] for name in names]
        writer.writerow([f"{v:.6g}" if isinstance(v, float) else v for v in values])
    return text.getvalue()


def write_plan(forecast: Forecast, out: Path) -> Path:
    """The chain of models as text."""
    write_text(out / "plan.txt", forecast.plan + "\n")
    return out / "plan.txt"
