"""Scores of weather forecasts and ensembles over the sphere, in float64, a number for each field.

Fields are (..., lat, lon) and every score has the leading axes (...); an ensemble has its members
first. `weights` are those of `latitude_weights`. `valid` says which points count (all, if None);
what invalid points hold, NaN too, changes nothing, and where no point is valid a score is NaN. NaN
at a valid point gives NaN: it is never left out in silence. RMSE, ACC and relative quantile
error are those of the Pangu-Weather paper (arXiv 2211.02556); those of ensembles the usual ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

Degrees = float | np.ndarray

EARTH_KM = 6371.0
"""Radius of the Earth (ours)."""
SAME_HOUR = 1e-6
LEVELS = 50
"""Quantiles of the relative quantile error (paper)."""
MISFIT = "Give one weight a row, `latitude_weights(latitudes of the file)`."


def latitude_weights(latitudes: Float[Tensor, " lat"]) -> Float[Tensor, " lat"]:
    """Weight of each row: the cosine of its latitude (degrees) over the mean of all cosines.

    The mean is 1; rows at the poles have 0. Rows of a Gaussian grid are as good as even ones, but
    must be those of the file. Errors: a latitude beyond 90 degrees, or no row off the poles.
    """
    if not bool((latitudes.abs() <= 90).all()):
        worst = float(latitudes[~(latitudes.abs() <= 90)][0])
        raise ValueError(f"latitude {worst} is not within -90 to 90. Give latitudes in degrees.")
    # The cosine of 90 degrees is 6e-17 in floating point; it must not be below 0.
    cosines = torch.cos(torch.deg2rad(latitudes.double())).clamp(min=0)
    if not float(cosines.sum()) > 1e-9:
        raise ValueError(f"{len(latitudes)} latitudes, none off the poles: there is no area.")
    return cosines / cosines.mean()


def area_mean(
    values: Float[Tensor, "*lead lat lon"],
    weights: Float[Tensor, "rows"],
    valid: Bool[Tensor, "*#lead lat lon"] | None = None,
) -> Float[Tensor, "*lead"]:
    """Mean over the valid points by area, in the unit of the values."""
    rows, columns = values.shape[-2:]
    if len(weights) != rows:
        raise ValueError(f"{len(weights)} weights for fields of {rows} rows. {MISFIT}")
    weights = weights.to(values.device, torch.float64)
    # Along a row the weight is one number: so only rows need float64, not fields.
    if valid is None:
        sums = values.sum(-1, dtype=torch.float64)
        return (sums * weights).sum(-1) / (weights.sum() * columns)
    sums = torch.where(valid, values, 0).sum(-1, dtype=torch.float64)
    counts = valid.sum(-1, dtype=torch.float64)
    return (sums * weights).sum(-1) / (counts * weights).sum(-1)


REGIONS: dict[str, tuple[float, float, float, float]] = {
    "tropics": (20.0, -180.0, -20.0, 180.0),
    "northern extratropics": (90.0, -180.0, 20.0, 180.0),
    "southern extratropics": (-20.0, -180.0, -90.0, 180.0),
    "europe": (75.0, -12.5, 35.0, 42.5),
    "north america": (60.0, -120.0, 25.0, -75.0),
    "east asia": (60.0, 102.5, 25.0, 150.0),
}
"""Regions of WeatherBench 2: north, west, south, east."""


def region_mask(
    latitudes: Float[Tensor, " lat"], longitudes: Float[Tensor, " lon"], region: str
) -> Bool[Tensor, "lat lon"]:
    """Points of a grid (degrees) in one of `REGIONS`, edges included."""
    north, west, south, east = REGIONS[region]
    rows = (latitudes <= north) & (latitudes >= south)
    columns = torch.remainder(longitudes - west, 360.0) <= east - west
    return rows[:, None] & columns


def difference(
    pred: Float[Tensor, "*lead lat lon"], truth: Float[Tensor, "*#lead lat lon"]
) -> Float[Tensor, "*lead lat lon"]:
    """Forecast minus truth, at least in float32: half precision has no digit left to compare."""
    kind = torch.promote_types(torch.promote_types(pred.dtype, truth.dtype), torch.float32)
    return pred.to(kind) - truth.to(kind)


def mse(
    pred: Float[Tensor, "*lead lat lon"],
    truth: Float[Tensor, "*#lead lat lon"],
    weights: Float[Tensor, "lat"],
    valid: Bool[Tensor, "*#lead lat lon"] | None = None,
) -> Float[Tensor, "*lead"]:
    """Mean squared error, in the unit squared.

    WeatherBench2 takes the root of its mean over times, the paper the mean of `rmse` over times.
    """
    return area_mean(difference(pred, truth).square(), weights, valid)


def rmse(
    pred: Float[Tensor, "*lead lat lon"],
    truth: Float[Tensor, "*#lead lat lon"],
    weights: Float[Tensor, "lat"],
    valid: Bool[Tensor, "*#lead lat lon"] | None = None,
) -> Float[Tensor, "*lead"]:
    """Root of the mean squared error, in the unit of the fields; average it over times (paper)."""
    return mse(pred, truth, weights, valid).sqrt()


def bias(
    pred: Float[Tensor, "*lead lat lon"],
    truth: Float[Tensor, "*#lead lat lon"],
    weights: Float[Tensor, "lat"],
    valid: Bool[Tensor, "*#lead lat lon"] | None = None,
) -> Float[Tensor, "*lead"]:
    """Mean of forecast minus truth, in the unit of the fields."""
    return area_mean(difference(pred, truth), weights, valid)


def acc(
    pred: Float[Tensor, "*lead lat lon"],
    truth: Float[Tensor, "*#lead lat lon"],
    climatology: Float[Tensor, "*#lead lat lon"],
    weights: Float[Tensor, "lat"],
    valid: Bool[Tensor, "*#lead lat lon"] | None = None,
) -> Float[Tensor, "*lead"]:
    """Anomaly correlation, -1 to 1: forecast and truth less the climatology, not centred (paper).

    The climatology is that of the day of the year. A field's own mean in its place gives higher,
    incomparable values. NaN where forecast or truth equals the climatology everywhere.
    """
    a, b = difference(pred, climatology), difference(truth, climatology)
    a, b = torch.broadcast_tensors(a, b)
    products = (area_mean(a * b, weights, valid), area_mean(a * a, weights, valid))
    return products[0] / (products[1] * area_mean(b * b, weights, valid)).sqrt()


def quantile_levels(
    count: int = LEVELS, low: float = 0.9, high: float = 0.9999
) -> Float[Tensor, " levels"]:
    """Levels from low to high, even in log(1 - level): 0.9 to 0.9999 in 50 (paper)."""
    if count < 1 or not 0 <= low <= high < 1:
        raise ValueError(
            f"{count} quantiles from {low} to {high}: give at least one, and 0 <= low <= high < 1."
        )
    ends = torch.log1p(-torch.tensor([low, high], dtype=torch.float64))
    tails = torch.linspace(float(ends[0]), float(ends[1]), count, dtype=torch.float64)
    return -torch.expm1(tails)


def quantiles(
    values: Float[Tensor, "*lead lat lon"],
    levels: Float[Tensor, "levels"],
    valid: Bool[Tensor, "*#lead lat lon"] | None = None,
) -> Float[Tensor, "*lead levels"]:
    """Quantiles of all valid points of a field, each point alike, linear between two values.

    torch.quantile refuses more than 16 million values and knows no mask.
    """
    if valid is not None:
        # Invalid points go to the end, behind infinite values and NaN alike (sort puts NaN last).
        counts = valid.expand(values.shape).flatten(-2).sum(-1, keepdim=True)
        bad = (values.isnan() & valid).flatten(-2).any(-1, keepdim=True)
        values = torch.where(valid, values, torch.inf)
    else:
        bad = values.isnan().flatten(-2).any(-1, keepdim=True)
        counts = torch.full_like(bad, values.shape[-2] * values.shape[-1], dtype=torch.int64)
    ordered = values.flatten(-2).sort(-1).values
    place = levels.to(values.device, torch.float64) * (counts - 1).clamp(min=0)
    below = place.floor()
    last = (counts - 1).clamp(min=0)
    low = ordered.gather(-1, below.long()).double()
    high = ordered.gather(-1, torch.minimum(below.long() + 1, last)).double()
    share = place - below
    found = torch.where(share > 0, low + share * (high - low), low)
    return torch.where(bad | (counts == 0), torch.nan, found)


def rqe(
    pred: Float[Tensor, "*lead lat lon"],
    truth: Float[Tensor, "*lead lat lon"],
    levels: Float[Tensor, "levels"] | None = None,
    valid: Bool[Tensor, "*#lead lat lon"] | None = None,
) -> Float[Tensor, "*lead"]:
    """Relative quantile error: sum over levels of (Q_pred - Q_truth) / Q_truth, without unit.

    Below 0 the extremes are too weak. Points count alike, whatever their area (paper). It has a
    meaning for positive quantities only: a true quantile near 0 makes it arbitrarily large.
    """
    levels = quantile_levels() if levels is None else levels
    true = quantiles(truth, levels, valid)
    return ((quantiles(pred, levels, valid) - true) / true).sum(-1)


def _several(ensemble: Tensor, what: str) -> int:
    members = ensemble.shape[0]
    if members < 2:
        raise ValueError(f"{what} needs 2 members, the ensemble has {members}. Make it larger.")
    return members


def ensemble_mean_rmse(
    ensemble: Float[Tensor, "members *lead lat lon"],
    truth: Float[Tensor, "*#lead lat lon"],
    weights: Float[Tensor, "lat"],
    valid: Bool[Tensor, "*#lead lat lon"] | None = None,
) -> Float[Tensor, "*lead"]:
    """Root mean squared error of the mean of the members, in the unit of the fields."""
    return rmse(_mean(ensemble), truth, weights, valid)


def _mean(ensemble: Tensor) -> Tensor:
    """Mean of the members in their precision, which float64 sums keep however many there are."""
    return (ensemble.sum(0, dtype=torch.float64) / len(ensemble)).to(
        torch.promote_types(ensemble.dtype, torch.float32)
    )


def spread(
    ensemble: Float[Tensor, "members *lead lat lon"],
    weights: Float[Tensor, "lat"],
    valid: Bool[Tensor, "*#lead lat lon"] | None = None,
) -> Float[Tensor, "*lead"]:
    """Root of the mean over points of the members' unbiased variance, in the unit of the fields."""
    members = _several(ensemble, "the spread")
    # Less the first member: temperatures of 300 K, or geopotential, would lose digits squared.
    away = ensemble.double() - ensemble[0].double()
    variance = (away - away.mean(0)).square().sum(0) / (members - 1)
    return area_mean(variance, weights, valid).sqrt()


def spread_skill(
    ensemble: Float[Tensor, "members *lead lat lon"],
    truth: Float[Tensor, "*#lead lat lon"],
    weights: Float[Tensor, "lat"],
    valid: Bool[Tensor, "*#lead lat lon"] | None = None,
    finite: bool = False,
) -> Float[Tensor, "*lead"]:
    """Spread over the error of the mean: below 1 the ensemble is too sure.

    `finite` multiplies by sqrt((members + 1) / members), without which an ideal ensemble of few
    members has less than 1 (Fortin et al. 2014, doi 10.1175/JHM-D-14-0008.1); the plain ratio is
    what is usually tabled.
    """
    factor = ((len(ensemble) + 1) / len(ensemble)) ** 0.5 if finite else 1.0
    error = ensemble_mean_rmse(ensemble, truth, weights, valid)
    return factor * spread(ensemble, weights, valid) / error


def crps_points(
    ensemble: Float[Tensor, "members *lead lat lon"],
    truth: Float[Tensor, "*#lead lat lon"],
    fair: bool = False,
) -> Float[Tensor, "*lead lat lon"]:
    """Continuous ranked probability score of each point, in the unit of the fields.

    mean |x_i - y| - sum_ij |x_i - x_j| / (2 m^2), or over 2 m (m - 1) if `fair`, which is right for
    an ensemble of any size (Ferro 2014). The double sum comes from the sorted members: twice the
    sum of (2 i - m - 1) x_(i), i from 1, so time is m log m and memory m. Needs 2 members if fair.
    """
    members = _several(ensemble, "the fair CRPS") if fair else len(ensemble)
    # Around the truth, as large offsets would cancel; in float64, as the two terms nearly do.
    errors = ensemble.double() - truth.double()
    accuracy = errors.abs().mean(0)
    ranks = torch.arange(1, members + 1, dtype=torch.float64, device=errors.device)
    pairs = members * (members - 1) if fair else members**2
    factors = (2 * ranks - members - 1) / pairs
    return accuracy - torch.tensordot(factors, errors.sort(0).values, dims=1)


def crps(
    ensemble: Float[Tensor, "members *lead lat lon"],
    truth: Float[Tensor, "*#lead lat lon"],
    weights: Float[Tensor, "lat"],
    valid: Bool[Tensor, "*#lead lat lon"] | None = None,
    fair: bool = False,
) -> Float[Tensor, "*lead"]:
    """Continuous ranked probability score, mean by area, in the unit of the fields."""
    return area_mean(crps_points(ensemble, truth, fair), weights, valid)


def exceedance_probability(
    ensemble: Float[Tensor, "members *lead lat lon"],
    threshold: float | Float[Tensor, "*#lead lat lon"],
) -> Float[Tensor, "*lead lat lon"]:
    """Share of the members above a threshold (in the fields' unit) at each point; NaN stays NaN."""
    share = (ensemble > threshold).double().mean(0)
    return torch.where(ensemble.isnan().any(0), torch.nan, share)


def brier(
    probability: Float[Tensor, "*lead lat lon"],
    truth: Float[Tensor, "*#lead lat lon"],
    threshold: float | Float[Tensor, "*#lead lat lon"],
    weights: Float[Tensor, "lat"],
    valid: Bool[Tensor, "*#lead lat lon"] | None = None,
) -> Float[Tensor, "*lead"]:
    """Mean squared error of a probability that the truth is above a threshold: 0 is best, 1 worst.

    Error: a probability outside 0 to 1 at a valid point.
    """
    outside = (probability < 0) | (probability > 1)
    if bool((outside if valid is None else outside & valid).any()):
        raise ValueError(
            f"probabilities reach from {float(probability.min())} to {float(probability.max())}, "
            "not within 0 to 1. Pass `exceedance_probability(ensemble, threshold)`."
        )
    happened = torch.where(truth.isnan(), torch.nan, (truth > threshold).double())
    return mse(probability, happened, weights, valid)


@dataclass(frozen=True)
class Position:
    """Place of a storm at one time; numbers that are not known are NaN."""

    hour: float
    """Hours since the start of the forecast."""
    lat: float
    """Degrees north."""
    lon: float
    """Degrees east."""
    msl: float = math.nan
    """Pressure of the minimum in Pa."""
    wind: float = math.nan
    """Highest 10 m wind speed around it in m/s."""
    vorticity: float = math.nan
    """Highest cyclonic vorticity around it in 1/s."""
    skipped: tuple[str, ...] = ()
    """Tests of the tracker that were left out since their fields are missing here."""


def great_circle_km(lat1: Degrees, lon1: Degrees, lat2: Degrees, lon2: Degrees) -> np.ndarray:
    """Distance in km on a sphere of 6371 km between points in degrees, which are broadcast."""
    phi1, lam1, phi2, lam2 = (
        np.radians(np.asarray(x, dtype=np.float64)) for x in (lat1, lon1, lat2, lon2)
    )
    a = np.sin((phi2 - phi1) / 2) ** 2
    a = a + np.cos(phi1) * np.cos(phi2) * np.sin((lam2 - lam1) / 2) ** 2
    # Rounding can lift the haversine of antipodes above 1.
    return np.asarray(2 * EARTH_KM * np.arcsin(np.sqrt(np.minimum(a, 1.0))))


def track_error(track: Sequence[Position], reference: Sequence[Position]) -> dict[float, float]:
    """Hour -> km between a track and the reference, for the hours that both have (paper).

    Error: no hour in common. A storm lost early has no late errors, which flatters a mean: compare
    forecasts only over hours that all of them have.
    """
    found: dict[float, float] = {}
    for here in track:
        for there in reference:
            if abs(here.hour - there.hour) <= SAME_HOUR:
                found[here.hour] = float(great_circle_km(here.lat, here.lon, there.lat, there.lon))
    if not found:
        raise ValueError(
            f"track (hours {_span(track)}) and reference (hours {_span(reference)}) have no hour "
            "in common. Count both from the same start."
        )
    return found


def _span(track: Sequence[Position]) -> str:
    return f"{track[0].hour:g} to {track[-1].hour:g}" if track else "none"
