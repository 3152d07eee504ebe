"""Range and missing values of every field at a few times: what the checks judge by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float32

Field = tuple[int, int, int]
"""0 or 1 (upper, surface), variable, level (0 for surface): its place in a state."""
State = tuple[Float32[np.ndarray, "variable level lat lon"], Float32[np.ndarray, "surface lat lon"]]


@dataclass
class Summary:
    """One field at the times surveyed."""

    low: float = np.inf
    high: float = -np.inf
    total: float = 0.0
    """Sum of the finite values."""
    count: int = 0
    """Number of the finite values."""
    absent: list[int] = field(default_factory=list)
    """Times at which the whole field is missing."""
    patches: list[tuple[int, int, int, int]] = field(default_factory=list)
    """Missing values that are not always missing: time, how many, row and column of the first."""

    @property
    def mean(self) -> float:
        """Mean of the finite values; NaN without any."""
        return self.total / self.count if self.count else float("nan")


@dataclass(frozen=True)
class Survey:
    """Values at a few times."""

    times: tuple[int, ...]
    """Their indices."""
    missing: Bool[np.ndarray, "lat lon"]
    """Points where some field is missing at each of them (but where it is missing as a whole)."""
    fields: dict[Field, Summary]


def survey(read: Callable[[int], State], times: tuple[int, ...]) -> Survey:
    """Read the states at some indices, one after the other, and summarize every field.

    Infinite values count as missing. The means weigh all points alike.
    """
    fields: dict[Field, Summary] = {}
    always: dict[Field, np.ndarray] = {}
    masks: dict[Field, dict[int, np.ndarray]] = {}
    shape: tuple[int, ...] = ()
    for time in times:
        upper, surface = read(time)
        shape = upper.shape[2:]
        layers = ((0, upper), (1, surface[:, None]))
        for kind, array in layers:
            for k, level in np.ndindex(*array.shape[:2]):
                key = (kind, k, level)
                bad = _add(fields.setdefault(key, Summary()), array[k, level], time)
                if bad is not None:
                    masks.setdefault(key, {})[time] = bad
                    always[key] = always[key] & bad if key in always else bad
    missing = np.zeros(shape, bool)
    for key, summary in fields.items():
        seen = [time for time in times if time not in summary.absent]
        # A field without any missing value at one of the times is never missing always.
        if key in always and all(time in masks[key] for time in seen):
            missing |= always[key]
    for key, found in masks.items():
        for time, bad in found.items():
            extra = bad & ~missing
            if extra.any():
                row, column = (int(k) for k in np.argwhere(extra)[0])
                fields[key].patches.append((time, int(extra.sum()), row, column))
    return Survey(times, missing, fields)


def _add(summary: Summary, values: np.ndarray, time: int) -> np.ndarray | None:
    """Count one field in; returns the mask of missing values if only some are."""
    bad = ~np.isfinite(values)
    if bad.all():
        summary.absent.append(time)
        return None
    partly = bool(bad.any())
    finite = values[~bad] if partly else values
    summary.low = min(summary.low, float(finite.min()))
    summary.high = max(summary.high, float(finite.max()))
    summary.total += float(finite.sum(dtype=np.float64))
    summary.count += finite.size
    return bad if partly else None
