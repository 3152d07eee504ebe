"""Forecasts as the official scripts write them: a pair of npy files an hour, in a folder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from tenfold.files import read_json, replacing, write_text

from .forecast_file import Lock
from .grid import Grid

ABOUT = "forecast.json"
"""What the arrays are: fields, grid, start, hours, members."""


class NpyForecast:
    """A folder of `output_upper_024h.npy` and `output_surface_024h.npy`; a context manager.

    Upper fields are (variable, level, lat, lon), surface fields (variable, lat, lon), float32, with
    an axis of members before them if there are several. The pair of the last hour is called
    `output_upper.npy` and `output_surface.npy`, as by the official scripts. Files appear whole; the
    surface file of an hour is its last, so that a forecast that was killed goes on.
    """

    def __init__(self, folder: Path, grid: Grid, hours: tuple[int, ...], members: int) -> None:
        self.folder, self.grid, self.members = folder, grid, members
        self._hours = hours
        self._lock = Lock(folder / ABOUT)
        self.done = 0
        """Number of finished steps: the next to write."""
        while self.done < len(hours) and self._files(self.done)[1].is_file():
            self.done += 1

    @classmethod
    def create_or_continue(
        cls,
        folder: Path,
        grid: Grid,
        start: np.datetime64,
        hours: tuple[int, ...],
        members: int,
        attributes: dict[str, str],
    ) -> NpyForecast:
        """A new folder, or that of the same forecast where it was left; ValueError for another."""
        about = {
            **attributes,
            "start": "" if np.isnat(start) else str(start.astype("datetime64[s]")),
            "hours": list(hours),
            "members": members,
            "upper": list(grid.upper),
            "levels_hpa": list(grid.levels),
            "surface": list(grid.surface),
            "latitudes": list(grid.latitudes),
            "longitudes": list(grid.longitudes),
        }
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / ABOUT
        if file.exists():
            there = read_json(file)
            there = there if isinstance(there, dict) else {}
            different = sorted(k for k in {*there, *about} if there.get(k) != about.get(k))
            if different:
                raise ValueError(
                    f"{folder} holds another forecast: it differs in {', '.join(different)}. Give "
                    "another path, or move the folder away; it was not changed."
                )
        else:
            write_text(file, json.dumps(about, indent=1) + "\n")
        return cls(folder, grid, hours, members)

    def _files(self, step: int) -> tuple[Path, Path]:
        hour = "" if step == len(self._hours) - 1 else f"_{self._hours[step]:03d}h"
        return self.folder / f"output_upper{hour}.npy", self.folder / f"output_surface{hour}.npy"

    def write(
        self,
        step: int,
        upper: Float32[np.ndarray, "member variable level lat lon"],
        surface: Float32[np.ndarray, "member field lat lon"],
    ) -> None:
        """Write the next step, SI units; returns when it is on the disk."""
        assert step == self.done
        for file, values in zip(self._files(step), (upper, surface), strict=True):
            if values.size or file == self._files(step)[1]:
                with replacing(file) as temporary, temporary.open("wb") as stream:
                    np.save(stream, values if self.members > 1 else values[0])
        self.done = step + 1

    def read(
        self, step: int
    ) -> tuple[
        Float32[np.ndarray, "member variable level lat lon"],
        Float32[np.ndarray, "member field lat lon"],
    ]:
        """A finished step exactly as it was written; ValueError if it is damaged."""
        grid = self.grid
        shapes = (
            (len(grid.upper), len(grid.levels), *grid.shape),
            (len(grid.surface), *grid.shape),
        )
        found = []
        for file, shape in zip(self._files(step), shapes, strict=True):
            if 0 in shape and file != self._files(step)[1]:  # `write` makes no file of no fields
                found.append(np.empty((self.members, *shape), np.float32))
                continue
            try:
                values = np.load(file, mmap_mode="r", allow_pickle=False)
            except (OSError, ValueError, EOFError) as error:
                raise ValueError(f"{file} is damaged: {error}. Move the folder away.") from error
            wanted = (self.members, *shape) if self.members > 1 else shape
            if values.shape != wanted or values.dtype != np.float32:
                raise ValueError(
                    f"{file} holds {values.dtype} {values.shape}, expected float32 {wanted}. Move "
                    "the folder away."
                )
            found.append(np.array(values).reshape(self.members, *shape))
        return found[0], found[1]

    def __enter__(self) -> NpyForecast:
        return self

    def __exit__(self, *error: object) -> None:
        self._lock.release()
