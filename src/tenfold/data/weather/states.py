"""States of the atmosphere in files, read one at a time."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Int8, Integer

from .axes import Times
from .grid import Grid
from .record import Record, record, words
from .series import Layer, Series
from .source import Stored
from .survey import Survey, survey

MOST = 5
"""Fields with wrong values that an error names."""


class States:
    """States that lie in files; none is held in memory, any may be read by any thread.

    The same fields come out in the same order and units whatever the names, orders, packing and
    format of the files: see `Grid` for the order, SI for the units.
    """

    def __init__(
        self,
        path: Path,
        grid: Grid,
        series: list[Series],
        constants: tuple[Stored, ...] = (),
        gaps: Integer[np.ndarray, " gap"] | None = None,
        left_out: tuple[str, ...] = (),
    ) -> None:
        """Made by `weather.open_states`. Reads the first, the middle and the last state."""
        self.path = path
        """File or folder that was opened."""
        self.grid = grid
        """Fields and grid, in the order of what `read` returns."""
        self.times: Times = series[0].times
        """datetime64[s], ascending; NaT where the file does not say."""
        self.split: Int8[np.ndarray, " time"] | None = next(
            (found for one in series if (found := one.split()) is not None), None
        )
        """Variable `split` of the file: 0 training, 1 validation, 2 test, -1 gap; or None."""
        self.gaps: Integer[np.ndarray, " gap"] = np.empty(0, np.int64) if gaps is None else gaps
        """Indices of times after which more than `grid.step` hours pass."""
        self.left_out = left_out
        """A line for each variable of the files that is not read, with the reason."""
        upper = [Layer(name, grid.levels) for name in grid.upper]
        surface = [Layer(name) for name in grid.surface]
        self._upper, self._surface = tuple(upper), tuple(surface)
        self._of = {layer: one for one in reversed(series) for layer in one.layers}
        self._constants = constants
        self._lock = threading.Lock()
        self._record: Record | None = None
        last = len(self) - 1
        sample = tuple(sorted({0, last // 2, last}))
        self.survey: Survey = survey(self.read, sample)
        """Range and missing values of every field at those three times."""
        self.missing: Bool[np.ndarray, "lat lon"] = self.survey.missing
        """Points where some field is missing at every time (of those three)."""

    def __len__(self) -> int:
        return len(self.times)

    @property
    def files(self) -> int:
        """Number of files (or stores) that hold the fields."""
        found = (layer.paths(part) for layer, one in self._of.items() for part in one.parts)
        return len(set[Path]().union(*found))

    @property
    def units(self) -> dict[str, str]:
        """Attribute `units` of every variable in the files: upper ones as ``upper z``."""
        return {
            f"upper {layer.name}" if layer.levels else layer.name: layer.units(one.parts[0])
            for layer, one in self._of.items()
        }

    def read(
        self, index: int
    ) -> tuple[
        Float32[np.ndarray, "variable level lat lon"], Float32[np.ndarray, "surface lat lon"]
    ]:
        """Upper and surface fields at one time, unpacked, SI units; NaN where missing.

        Raises ValueError for an index outside 0 to len - 1, or naming file and variable if the
        file is damaged there.
        """
        if not 0 <= index < len(self):
            raise ValueError(
                f"{self.path}: there is no state {index}; it has 0 to {len(self) - 1}."
            )
        lat, lon = self.grid.shape
        upper = np.empty((len(self._upper), len(self.grid.levels), lat, lon), np.float32)
        surface = np.empty((len(self._surface), lat, lon), np.float32)
        for k, layer in enumerate(self._upper):
            upper[k] = self._of[layer].read(layer, index)
        for k, layer in enumerate(self._surface):
            surface[k] = self._of[layer].read(layer, index)[0]
        return upper, surface

    def constants(self) -> Float32[np.ndarray, "constant lat lon"]:
        """Maps that do not change, in the order of ``grid.constants``."""
        out = np.empty((len(self._constants), *self.grid.shape), np.float32)
        for k, stored in enumerate(self._constants):
            out[k] = stored.load(slice(0, 1))[0, 0]
        return out

    @property
    def complete(self) -> Bool[np.ndarray, " time"]:
        """False where a field lacks values at points that are not `missing`.

        The first use reads every chosen field of every time once, 64 MiB at a time; the answer is
        kept. Raises ValueError naming file and variable if a file is damaged, and naming field,
        value and time if a value cannot be true (a fill value that the file does not declare).
        """
        found = self._all()
        if found.impossible:
            said = [words(fault, self._when, self._place) for fault in found.impossible[:MOST]]
            rest = len(found.impossible) - MOST
            more = f"; and {rest} more fields" if rest > 0 else ""
            raise ValueError(f"{self.path}: {'; '.join(said)}{more}.")
        return found.complete

    @property
    def incomplete(self) -> tuple[str, ...]:
        """A line for each field that makes states incomplete: points, time and place."""
        return tuple(words(fault, self._when, self._place) for fault in self._all().gaps)

    def _all(self) -> Record:
        with self._lock:
            if self._record is None:
                self._record = record(self._of, len(self), ~self.missing)
            return self._record

    def _when(self, index: int) -> str:
        return "unknown time" if np.isnat(self.times[index]) else str(self.times[index])

    def _place(self, row: int, column: int) -> str:
        lat, lon = self.grid.latitudes[row], self.grid.longitudes[column]
        return f"at latitude {lat:g}, longitude {lon:g}"
