"""Weather data: open ERA5, IFS or model states from NetCDF, zarr or npy files, and pair times.

`open_states` understands the names of the CDS, WeatherBench2, ecCodes, CF and CMIP, any order of
latitudes, longitudes and levels, and refuses what is certainly wrong (`check_states`).
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Integer

from . import names
from .axes import Times, spacing
from .check_states import Finding, check_states
from .files import open_parts
from .grid import Grid
from .left_out import left_out
from .series import Layer, gather_levels, join
from .source import Part, Stored
from .states import States

__all__ = ["Finding", "States", "check_states", "open_states", "pairs"]

_FLAT_FIELDS = (*names.SURFACE, *names.NEAR_SURFACE)


def open_states(
    path: Path,
    *,
    upper: tuple[str, ...] = (),
    levels: tuple[int, ...] = (),
    surface: tuple[str, ...] = (),
    constants: tuple[str, ...] = (),
) -> States:
    """Open states and check a sample of them; no field stays in memory.

    ``path``: a NetCDF 3 or 4 file; a folder of them (the same variables are joined in time, other
    variables and levels side by side, files without times give constants); a .zarr store; or a
    folder with the official pair input_upper.npy, input_surface.npy (or folders of such, named by
    dates). A choice names variables (in any naming that is understood) and levels in hPa. An empty
    choice takes what there is: known variables in the order of the paper, or if no known one is
    there at all, every field on this grid by the alphabet; the levels that all upper variables
    have, from the ground up.

    Raises FileNotFoundError, ImportError without the extra `weather`, names.Absent for choices that
    are not there (with the nearest names), and ValueError for everything that `check_states` is
    certain of, with how to convert.
    """
    parts = open_parts(path)
    gather_levels(parts)
    where = str(path)
    dated = [part for part in parts if part.dated] or parts
    known = _known(dated)
    _refuse_height(upper, dated, where)
    uppers = _choose(
        upper, _offered(dated, "upper"), names.UPPER, known, "upper variable", parts, where
    )
    shared = _levels(uppers, levels, dated, where)
    surfaces = _choose(
        surface, _offered(dated, "surface"), _FLAT_FIELDS, known, "surface variable", parts, where
    )
    if not uppers and not surfaces:
        raise ValueError(f"{where} has no field with latitude and longitude.{_skipped(parts)}")
    stored = _constants(parts, constants, surfaces, where)
    layers = (*(Layer(n, shared) for n in uppers), *(Layer(n) for n in surfaces))
    for part in parts:
        if part not in dated and any(layer.within(part) for layer in layers):
            raise ValueError(
                f"{part.path} has states but no time axis, while {dated[0].path} has one. Add the "
                "dimension (ncecat -u time), or take the file out of the folder."
            )
    series = join(dated, layers, where)
    step, gaps = spacing(series[0].times, where)
    grid = Grid(
        upper=uppers,
        levels=shared,
        surface=surfaces,
        constants=tuple(stored),
        latitudes=parts[0].horizontal.latitudes,
        longitudes=parts[0].horizontal.longitudes,
        periodic=parts[0].horizontal.periodic,
        step=step,
    )
    unread = left_out(parts, uppers, shared, surfaces, stored)
    states = States(path, grid, series, tuple(stored.values()), gaps, unread)
    wrong = [finding.what for finding in check_states(states) if finding.certain]
    if wrong:
        raise ValueError(f"{where}: {'; '.join(wrong)}.")
    return states


def pairs(
    times: Times,
    lead_hours: int,
    allowed: Bool[np.ndarray, " _"],
    block: Integer[np.ndarray, " _"],
) -> Integer[np.ndarray, "pair 2"]:
    """Indices (i, j) of all times that lie ``lead_hours`` apart, with nothing wrong between.

    All three arrays have one entry a time. Every time from i to j must be ``allowed`` and of the
    same ``block``, and no step from i to j may be a gap (longer than the most common one): neither
    splits nor gaps are crossed. Raises ValueError for unknown dates, times that do not ascend, and
    a lead that is no multiple of the step.
    """
    if not len(times) == len(allowed) == len(block):
        raise ValueError(f"{len(times)} times, {len(allowed)} allowed, {len(block)} block: differ.")
    if np.isnat(times).any():
        raise ValueError("times without dates cannot be paired; give files with a time axis.")
    step, _ = spacing(times, "times")
    if lead_hours < 1 or (len(times) > 1 and lead_hours % step):
        raise ValueError(
            f"a lead of {lead_hours} h is no positive multiple of the {step} h between times."
        )
    seconds = times.astype("datetime64[s]").astype(np.int64)
    ends = seconds + lead_hours * 3600
    j = np.searchsorted(seconds, ends)
    i = np.flatnonzero(j < len(times))
    j = j[i]
    exact = seconds[j] == ends[i]
    i, j = i[exact], j[exact]
    barred = np.concatenate([[0], np.cumsum(~allowed)])
    breaks = (np.diff(block) != 0) | (np.diff(seconds) != step * 3600)
    crossed = np.concatenate([[0], np.cumsum(breaks)])
    good = (barred[j + 1] == barred[i]) & (crossed[j] == crossed[i])
    return np.stack([i[good], j[good]], axis=1)


def _offered(parts: list[Part], kind: str) -> set[str]:
    return {name for part in parts for name in getattr(part, kind)}


def _known(parts: list[Part]) -> bool:
    """Return True if any variable of the paper is there: then the others are left alone."""
    flat = _offered(parts, "surface") & set(_FLAT_FIELDS)
    return bool(flat or _offered(parts, "upper") & {*names.UPPER, names.HEIGHT})


def _refuse_height(chosen: Collection[str], parts: list[Part], where: str) -> None:
    """Raise ValueError where geopotential is wanted, and only its height is there."""
    wanted = not chosen or "z" in map(names.canonical, chosen)
    there = _offered(parts, "upper")
    if wanted and names.HEIGHT in there and "z" not in there:
        part = next(part for part in parts if names.HEIGHT in part.upper)
        stored = next(iter(part.upper[names.HEIGHT].values()))[0]
        others = [name for name in names.UPPER if name in there]
        raise ValueError(
            f"{where}: {stored.name} is geopotential height, not geopotential: multiply it by "
            f"{names.GRAVITY} and name the result z (m2/s2), or choose upper variables without z: "
            f"{' '.join(others) or 'none is there'}."
        )


def _choose(
    chosen: Collection[str],
    there: set[str],
    order: tuple[str, ...],
    known: bool,
    kind: str,
    parts: list[Part],
    where: str,
) -> tuple[str, ...]:
    """The choice by our names, or what is there if nothing was chosen."""
    if not chosen:
        return names.ordered(there & set(order) if known else there, order)
    ours = tuple(name if name in there else names.canonical(name) for name in chosen)
    try:
        names.require(ours, names.ordered(there, order), kind, where)
    except names.Absent as error:
        raise names.Absent(f"{error}{_skipped(parts)}", error.kind, error.there) from None
    if len(set(ours)) < len(ours):
        raise ValueError(f"{kind} chosen twice: {', '.join(chosen)}.")
    return ours


def _skipped(parts: list[Part]) -> str:
    lines = [f"{name} {reason}" for part in parts for name, reason in part.skipped.items()]
    return f" Not usable: {'; '.join(sorted(set(lines))[:5])}." if lines else ""


def _levels(
    uppers: tuple[str, ...], chosen: tuple[int, ...], parts: list[Part], where: str
) -> tuple[int, ...]:
    """Levels of all upper variables, from the ground up."""
    if not uppers:
        names.require(chosen, (), "pressure level", where)
        return ()
    there = {
        name: {level for part in parts for level in part.upper.get(name, ())} for name in uppers
    }
    for name, found in there.items():
        names.require(chosen, sorted(found, reverse=True), f"{name} at pressure level", where)
    shared = set(chosen) or set.intersection(*there.values())
    if not shared:
        texts = (f"{name} has {sorted(found, reverse=True)}" for name, found in there.items())
        raise ValueError(
            f"{where}: the upper variables have no level in common ({'; '.join(texts)}). Choose "
            "fewer variables."
        )
    return tuple(sorted(shared, reverse=True))


def _constants(
    parts: list[Part], chosen: tuple[str, ...], surfaces: tuple[str, ...], where: str
) -> dict[str, Stored]:
    """Chosen maps; else the known ones, or without any of those all of dated files."""
    there: dict[str, Stored] = {}
    for part in sorted(parts, key=lambda part: part.dated, reverse=True):
        for name, stored in part.constants.items():
            there.setdefault(name, stored)
    free = set(there) - set(surfaces)
    # Without a time axis anything may be a constant, so that only those known by name are taken.
    only_known = bool(free & set(names.CONSTANTS)) or not any(part.dated for part in parts)
    taken = _choose(chosen, free, names.CONSTANTS, only_known, "constant", parts, where)
    return {name: there[name] for name in taken}
