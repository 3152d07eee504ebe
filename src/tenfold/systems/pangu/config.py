"""Configuration of Pangu-Weather: training, evaluation, `predict`; each value with its source."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tenfold.core.config import require, require_finite
from tenfold.core.loop import Loop
from tenfold.core.optim import Optim
from tenfold.data.weather.grid import Grid
from tenfold.metrics.weather import EARTH_KM

MAX_HOURS = 24 * 365
"""Longest forecast that `predict` makes."""
MAX_MEMBERS = 1000
"""Largest ensemble that `predict` makes."""


@dataclass(frozen=True)
class Model:
    """The 3D Earth-specific transformer, and its ablations."""

    dim: int = 192
    """Channels of the finer resolution, C (pseudocode); the coarser one has twice as many."""
    depths: tuple[int, int, int, int] = (2, 6, 6, 2)
    """Blocks of the four layers (pseudocode)."""
    heads: tuple[int, int, int, int] = (6, 12, 12, 6)
    """Attention heads of the four layers (pseudocode)."""
    patch: tuple[int, int, int] = (2, 4, 4)
    """Levels, rows and columns of a patch (pseudocode)."""
    window: tuple[int, int, int] = (2, 6, 12)
    """Tokens of a window along level, latitude, longitude (pseudocode)."""
    mlp_ratio: float = 4.0
    """Hidden channels of the MLP over channels (pseudocode)."""
    drop_path: float = 0.2
    """Largest probability to leave a branch out in training (paper, from memory)."""
    bias: Literal["earth", "relative", "none"] = "earth"
    """Position bias: the paper's table for each place on the Earth, or one table of relative
    positions for all, or none (ablations)."""
    attention: Literal["3d", "2d"] = "3d"
    """2d puts all levels and the surface into the channels of one plane (ablation, ours after To
    et al., GMD 2024)."""
    residual: bool = False
    """True adds the network to its input, starting from zero (ours: short runs need not learn the
    identity first). The official network has no such path."""
    recovery_bias: Literal["channel", "pixel"] = "channel"
    """Biases of patch recovery: one a variable (pseudocode), or one a pixel of a patch, as the
    official weights have."""
    height_channel: bool = False
    """True gives the levels a further, constant channel, as the official weights have."""
    checkpoint: bool = False
    """True computes each block again in the backward pass: less memory, a third more time."""

    def __post_init__(self) -> None:
        require(self, "model.", "(0, inf)", "dim", "mlp_ratio")
        require(self, "model.", "[1, inf)", "depths", "heads", "patch", "window")
        require(self, "model.", "[0, 1)", "drop_path")
        for layer, heads in enumerate(self.heads, 1):
            width = self.dim * (2 if layer in (2, 3) else 1)
            if width % heads:
                raise ValueError(
                    f"layer {layer} has {width} channels, not divisible by its {heads} heads; "
                    "change model.dim or model.heads"
                )


@dataclass(frozen=True)
class Data:
    """Choice of states, and their division."""

    name: Literal["era5", "pangu_atmos", "files", "waves"] = "era5"
    """era5 and pangu_atmos are looked for in the catalogue (`tenfold data`); files is any NetCDF,
    Zarr or folder of your own; waves is generated."""
    path: str = ""
    """Folder or file; empty looks for $TENFOLD_DATA/<name>, then falls back to waves."""
    file: str = ""
    """File within the folder, where it holds several sets (pangu_atmos: gcm_t21_6h.nc)."""
    upper: tuple[str, ...] = ()
    """Variables on pressure levels; empty takes the known ones that the files have."""
    levels: tuple[int, ...] = ()
    """Pressure levels in hPa, in any order; empty takes all that the files have."""
    surface: tuple[str, ...] = ()
    """Variables on one level; empty takes the known ones that the files have."""
    constants: tuple[str, ...] = ()
    """Maps given to the network as further surface fields (paper: land, soil, topography); the
    option alone, with nothing behind it, takes none."""
    train: str = ""
    """Times to learn from, FIRST:LAST (paper: 1979-01-01:2017-12-31). All three empty: the files'
    own variable `split`, or else the first 80 % of the times."""
    validation: str = ""
    """Times to watch training on, FIRST:LAST (paper: 2019-01-01:2019-12-31)."""
    test: str = ""
    """Times to report, FIRST:LAST (paper: 2018-01-01:2018-12-31)."""
    holdout_days: float = 2.0
    """Days at the end of each training block kept for validation, where the files' own split has
    none (ours); 0 keeps none."""
    batch_size: int = 192
    """States of one optimiser step, over all processes (paper, from memory: 192)."""
    cache_gib: float = 4.0
    """States stay in memory after their first reading if all of them fit in this much."""

    def __post_init__(self) -> None:
        require(self, "data.", "[1, inf)", "batch_size")
        require(self, "data.", "[0, inf)", "holdout_days", "cache_gib")


@dataclass(frozen=True)
class Evaluation:
    """Settings of the evaluation on the held-out states."""

    hours: tuple[int, ...] = (6, 12, 24, 72, 120)
    """Lead times in hours; those that the models cannot reach are left out, and it is said."""
    every: int = 1
    """Only every so manieth state is a start."""
    members: int = 0
    """Members of the perturbed ensemble; 0 measures single forecasts only."""
    ensemble_every: int = 4
    """Every so manieth of the starts gets an ensemble."""
    amplitude: float = 0.2
    """Size of the first octave of noise, in standard deviations (pseudocode)."""
    climatology: str = ""
    """File of a climatology (.safetensors): read if it is there, else fitted and written. Empty
    fits it anew from the training states."""

    def __post_init__(self) -> None:
        if not self.hours:
            raise ValueError("--evaluation.hours needs one or more lead times in hours")
        require(self, "evaluation.", "[1, inf)", "hours", "every", "ensemble_every")
        require(self, "evaluation.", "[0, inf)", "amplitude")
        if self.members == 1 or self.members < 0:
            raise ValueError("evaluation.members must be 0 (none) or at least 2")


@dataclass(frozen=True)
class Config:
    """Pangu-Weather: what to train on what."""

    model: Model = Model()
    data: Data = Data()
    grid: Grid = Grid()
    """Fields and grid; empty is filled from the data."""
    evaluation: Evaluation = Evaluation()
    optim: Optim = Optim(name="adam", lr=5e-4, weight_decay=3e-6, schedule="cosine")
    loop: Loop = Loop()
    leads: tuple[int, ...] = (24, 6, 3, 1)
    """Lead times in hours, a network each (paper: 1, 3, 6 and 24)."""
    start: str = ""
    """Weights that training starts from: a run, its weights, or an official checkpoint."""
    allow_missing: bool = False
    """Start although some tensors are missing in `start`, unused, or of another shape."""
    steps: int = 0
    """Optimiser steps of each network; 0 means `epochs` passes over its pairs of states."""
    epochs: int = 100
    """Passes over the pairs of states where steps is 0 (official code: 100)."""
    rollout: int = 2
    """Calls of the network in a row whose mean loss fine-tuning minimises (ours)."""
    finetune_steps: int = 0
    """Optimiser steps of fine-tuning after training, for each network; 0 is none, as the paper."""
    finetune_lr: float = 5e-6
    """Learning rate of fine-tuning (zhaoshan2/pangu-pytorch: 5e-6)."""
    seed: int = 0
    """Seed of weights, batches, DropPath and perturbations."""

    def __post_init__(self) -> None:
        if not self.leads or min(self.leads) < 1 or len(set(self.leads)) < len(self.leads):
            raise ValueError(f"leads must be different positive hours, got {self.leads}")
        require(self, "", "[2, inf)", "rollout")
        require(self, "", "[1, inf)", "epochs")
        require(self, "", "[0, inf)", "steps", "finetune_steps")
        require(self, "", "(0, inf)", "finetune_lr")


@dataclass(frozen=True)
class Thresholds:
    """Criteria for a pressure minimum to be the storm; values as remembered from the paper."""

    radius_km: float = 445.0
    """Largest distance that the storm moves from one state to the next (paper: 6 hours). Once its
    motion is known the search is smaller, around where it would be if it went on (ours)."""
    vorticity: float = 5e-5
    """Relative vorticity in 1/s that must be exceeded, cyclonic in either hemisphere (paper)."""
    vorticity_radius_km: float = 278.0
    """Distance from the minimum within which it must be (paper)."""
    vorticity_level: int = 850
    """Pressure level in hPa of the winds it comes from, for who picks the fields (paper)."""
    wind: float = 8.0
    """Wind speed at 10 m in m/s that must be exceeded over land (paper)."""
    wind_radius_km: float = 278.0
    """Distance from the minimum within which it must be, and of the wind reported (paper)."""
    land: float = 0.5
    """Share of land above which a point is over land. (ours)"""
    thickness: bool = False
    """True if an extratropical storm needs a thickness maximum (paper: yes; goldens: no)."""
    thickness_radius_km: float = 278.0
    """Distance from the minimum within which that maximum must be (paper)."""
    thickness_latitude: float = 30.0
    """Degrees from the equator beyond which a storm counts as extratropical. (ours)"""
    thickness_levels: tuple[int, int] = (850, 200)
    """Pressure levels in hPa between which the thickness is, for who picks the fields (paper)."""
    refine: bool = False
    """True if position and pressure come from parabolas through the grid's minimum. (ours)"""
    patience: int = 2
    """Most states in a row that may lack pressure; each widens the search. (ours)"""
    unseen: int = 1
    """Most states in a row with pressure in which the storm may be missed. (ours)"""

    def __post_init__(self) -> None:
        require(self, "tracker.", f"(0, {math.pi * EARTH_KM:.0f}]", "radius_km", "wind_radius_km")
        require(self, "tracker.", f"(0, {math.pi * EARTH_KM:.0f}]", "vorticity_radius_km")
        require(self, "tracker.", f"(0, {math.pi * EARTH_KM:.0f}]", "thickness_radius_km")
        require(self, "tracker.", "[0, inf)", "patience", "unseen")
        require(self, "tracker.", "[0, 1]", "land")
        require_finite(self, "tracker.")


@dataclass(frozen=True)
class PredictOptions:
    """Options of `predict`: how long, how many members, what to follow and to draw.

    Example:
        system.predict("states.nc", "out", PredictOptions(hours=120, members=10))
    """

    hours: int = 72
    """Length of the forecast."""
    every: int = 0
    """Hours between the states that are written; 0 is the shortest lead time of the models."""
    start: str = "last"
    """State to start from: last, first, its number from 0, or its time such as 1996-01-07T06.
    Several: all, or a list with commas; each gets a folder, and their scores a mean."""
    time: str = ""
    """Date of the start where the input has none (npy files), such as 2018-01-01T00."""
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
    """Criteria for a pressure minimum to be the storm."""
    fields: tuple[str, ...] = ()
    """Fields to write and to draw, such as z500 t2m; empty writes all and draws some usual ones."""
    region: str = ""
    """NORTH,WEST,SOUTH,EAST in degrees: what is written, drawn and scored; empty for all."""
    above: tuple[str, ...] = ()
    """Thresholds such as t2m=303.15 (SI units): probabilities that members exceed them, and their
    Brier score."""
    point: str = ""
    """LAT,LON whose values over time are written (points.csv), the first also drawn; several with
    semicolons. Empty takes the storm, 50 N, 10 E if that is on the grid, or the grid's middle."""
    write: Literal["nc", "zarr", "npy"] = "nc"
    """Format of the forecast's file; npy is a folder of pairs as the official scripts write."""
    names: Literal["tenfold", "weatherbench2", "earth2studio"] = "tenfold"
    """Names of variables and axes in NetCDF and Zarr."""
    batch: int = 4
    """Members that are carried forward together: more is faster, and needs more memory."""
    pictures: bool = True
    """Draw maps, values over time and an animation."""
    animate: bool = True
    """Draw the first field as an animation."""

    def __post_init__(self) -> None:
        require(self, "", f"[1, {MAX_HOURS}]", "hours")
        require(self, "", f"[1, {MAX_MEMBERS}]", "members")
        require(self, "", "[1, inf)", "batch")
        require(self, "", "[0, inf)", "every", "seed", "amplitude")
        if self.reference and not self.track:
            raise ValueError("--reference needs --track LAT,LON: where the storm is at the start")
        if self.track:
            parse_lat_lon(self.track, "--track")
        for place in filter(None, self.point.split(";")):
            parse_lat_lon(place, "--point")
        for text in self.above:
            parse_threshold(text)
        if self.time:
            parse_time(self.time, "--time")
        if self.write == "npy" and self.names != "tenfold":
            raise ValueError(f"--names {self.names} is for --write nc or zarr; npy has no names")


def parse_threshold(text: str) -> tuple[str, float]:
    """Field and value of "t2m=303.15"; ValueError if it is none."""
    name, _, value = text.partition("=")
    try:
        number = float(value)
        if not math.isfinite(number):
            raise ValueError("no finite number")
    except ValueError as error:
        raise ValueError(
            f"--above has {text!r}; give FIELD=VALUE in SI units such as t2m=303.15"
        ) from error
    return name.strip(), number


def parse_time(text: str, option: str) -> np.datetime64:
    """A date and hour; the message of the ValueError names `option`."""
    try:
        time = np.datetime64(text, "s")
        if np.isnat(time):
            raise ValueError("no date")
    except ValueError as error:
        raise ValueError(f"{option} is {text!r}; give a time such as 2018-01-01T00") from error
    return time


def parse_lat_lon(text: str, option: str) -> tuple[float, float]:
    """Latitude and longitude in degrees from "LAT,LON"; south and west are negative.

    Raises:
        ValueError: It is no such text; the message names `option`.
    """
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
