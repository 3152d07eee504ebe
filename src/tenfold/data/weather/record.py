"""One pass over all states: which are whole, and values that cannot be true."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float32

from .limits import impossible, is_fill, limits
from .series import Layer, Series


@dataclass
class Fault:
    """One field where something is wrong with it."""

    field: str
    """Name and level."""
    first: int
    """Index of the first state."""
    states: int = 1
    """Number of states."""
    points: int = 0
    """Points of the first state."""
    at: tuple[int, int] = (0, 0)
    """Row and column of the first of them."""
    value: float = float("nan")
    """Value there; NaN if it is missing."""
    allowed: tuple[float, float] = (0.0, 0.0)
    """Limits of the values, if it is not missing."""


@dataclass
class Record:
    """Findings of the pass."""

    complete: Bool[np.ndarray, " time"]
    """False where a field lacks values at points that are not always missing."""
    gaps: list[Fault] = field(default_factory=list)
    """Fields with such states."""
    impossible: list[Fault] = field(default_factory=list)
    """Fields with values that cannot be true."""


def record(layers: dict[Layer, Series], times: int, present: Bool[np.ndarray, "lat lon"]) -> Record:
    """Read every chosen field of every time once, 64 MiB at a time."""
    found = Record(np.ones(times, bool))
    for layer, series in layers.items():
        faults: dict[tuple[bool, int], Fault] = {}
        for first, values in series.blocks(layer):
            for k, (level, fields) in enumerate(_each(layer, values)):
                missing = ~np.isfinite(fields) & present
                found.complete[first : first + len(fields)] &= ~missing.any((1, 2))
                wrong = _outside(fields, layer.name, level)
                for kind, bad in ((False, missing), (True, wrong)):
                    if bad is not None and bad.any():
                        _enter(faults, (kind, k), layer, level, first, bad, fields)
        found.gaps += [fault for (kind, _), fault in faults.items() if not kind]
        found.impossible += [fault for (kind, _), fault in faults.items() if kind]
    found.complete.setflags(write=False)
    return found


def _each(
    layer: Layer, values: Float32[np.ndarray, "time level lat lon"]
) -> Iterator[tuple[int, Float32[np.ndarray, "time lat lon"]]]:
    for k in range(values.shape[1]):
        yield layer.levels[k] if layer.levels else 0, values[:, k]


def _outside(
    fields: Float32[np.ndarray, "time lat lon"], name: str, level: int
) -> Bool[np.ndarray, "time lat lon"] | None:
    """Points that cannot be true, or None for none: most blocks need no more than their ends."""
    low, high = limits(name, level)
    if np.fmin.reduce(fields, axis=None) >= low and np.fmax.reduce(fields, axis=None) <= high:
        return None
    return impossible(fields, name, level) & np.isfinite(fields)


def _enter(
    faults: dict[tuple[bool, int], Fault],
    key: tuple[bool, int],
    layer: Layer,
    level: int,
    first: int,
    bad: Bool[np.ndarray, "time lat lon"],
    fields: Float32[np.ndarray, "time lat lon"],
) -> None:
    states = int(bad.any((1, 2)).sum())
    if key in faults:
        faults[key].states += states
        return
    time, row, column = (int(i) for i in np.argwhere(bad)[0])
    name = f"{layer.name} at {level} hPa" if level else layer.name
    value = float(fields[time, row, column])
    points = int(bad[time].sum())
    faults[key] = Fault(
        name, first + time, states, points, (row, column), value, limits(layer.name, level)
    )


def words(fault: Fault, when: Callable[[int], str], where: Callable[[int, int], str]) -> str:
    """Sentence that says field, value, time, place, and what to do."""
    more = f", and in {fault.states - 1} more states" if fault.states > 1 else ""
    points = f"{fault.points} point{'s' * (fault.points > 1)}"
    place = f"{points} of {when(fault.first)} (index {fault.first}){more}, first {where(*fault.at)}"
    if not np.isfinite(fault.value):
        return f"{fault.field} is missing at {place}"
    low, high = fault.allowed
    if is_fill(fault.value):
        way = (
            "this stands for a missing value, which the file does not say: set its attribute "
            "_FillValue (ncatted), or drop those times"
        )
    else:
        way = "mend those values, or drop those times"
    return f"{fault.field} is {fault.value:.4g} at {place}; expected {low:.4g} to {high:.4g}: {way}"
