"""Forecasts on disk, one step at a time: NetCDF-4 or Zarr that survives a kill at any moment.

The file is made whole before the first step: names, coordinates, units and the place of every
value. After that only values are written, and after each step's values its mark in ``finished``.
So a killed forecast continues at the first step without a mark, and the finished file has the
same bytes as an unbroken one. The layout is ours, its names are those of CF-1.10.
"""

from __future__ import annotations

import math
import os
import re
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from tenfold.extras import install

from .forecast_plan import MARKER, TENFOLD, Convention, plan_of
from .forecast_store import Array, Netcdf, Variable, Zarr
from .grid import Grid

MADE_BY = {
    "Conventions": "CF-1.10",
    "title": "weather forecast",
    "institution": "not given",
    "source": "tenfold",
    "history": "written by tenfold, one step after another",  # no date: equal runs, equal bytes
}
"""Attributes of the file unless the caller gives others (but for the conventions)."""
LONGEST = 16_000
"""Bytes of an attribute; HDF5 ends at 64 KiB."""
SPARE = 2**20
"""Bytes on the disk beside the values: names, coordinates, folders."""
SHOWN = 6
"""Most differences that an error lists."""


class ForecastFile:
    """A forecast that is written step by step; made by ``create_or_continue``, a context manager.

    Others may read the file meanwhile; a step whose ``finished`` is 0 is not a forecast yet (it
    reads as zeros in NetCDF, as NaN in Zarr).
    """

    def __init__(
        self,
        path: Path,
        grid: Grid,
        members: int,
        store: Netcdf | Zarr,
        convention: Convention = TENFOLD,
    ) -> None:
        marks = store.values(MARKER)
        self.path = path
        self.grid = grid
        self.done = int((marks == 1).sum())
        """Number of finished steps: the next to write."""
        self._steps = len(marks)
        if (marks[self.done :] != 0).any():  # then the ones, as many as done, come first
            raise _damaged(path, f"the marks in `{MARKER}` are not ones and then zeros")
        self._store, self._named = store, convention.name_of
        self._lock: Lock | None = None
        self._upper = (members, len(grid.upper), len(grid.levels), *grid.shape)
        self._surface = (members, len(grid.surface), *grid.shape)

    @classmethod
    def create_or_continue(
        cls,
        path: Path,
        grid: Grid,
        start: np.datetime64,
        hours: tuple[int, ...],
        members: int,
        attributes: dict[str, str],
        convention: Convention = TENFOLD,
    ) -> ForecastFile:
        """A new file, or the one of the same forecast where it was left.

        Args:
            path: What to write, ending in ``.nc`` (NetCDF-4) or ``.zarr`` (Zarr version 3).
            grid: Fields and coordinates of the states; its constants are not written.
            start: Time of the initial state, UTC, to the second; NaT where it is not known.
            hours: Lead of every step in hours, rising; 0 is the initial state itself.
            members: Size of the ensemble; with 1 the file has no dimension ``member``.
            attributes: Attributes of the file, such as a digest of the weights. They belong to the
                configuration: give nothing that may differ when the forecast continues.
            convention: Names of variables and axes.

        Raises ValueError for what cannot be written, a file of another configuration (which stays
        as it is), a damaged one, one that another process writes and too small a disk; ImportError
        where h5py or zarr is not installed.
        """
        kinds: dict[str, type[Netcdf] | type[Zarr]] = {".nc": Netcdf, ".zarr": Zarr}
        if path.suffix not in kinds:
            raise ValueError(f"{path} ends in {path.suffix!r}; name it .nc or .zarr.")
        kind = kinds[path.suffix]
        if find_spec(kind.package) is None:
            raise ImportError(f"{path}: writing it needs {kind.package}: {install('weather')}")
        plan = plan_of(grid, start, hours, members, convention)
        texts = _texts(attributes)
        path.parent.mkdir(parents=True, exist_ok=True)
        lock, store = Lock(path), None
        try:
            if not path.exists():
                _check_space(path, plan, len(hours))
                new = path.with_name(f".{path.name}.new")
                shutil.rmtree(new) if new.is_dir() else new.unlink(missing_ok=True)
                kind.create(new, plan, texts)
                new.rename(path)  # whole or absent
            try:
                store = kind(path)
                different = list(_differences(plan, texts, store))
            except Exception as error:  # h5py and zarr raise many types for a damaged file
                raise _damaged(path, str(error)) from error
            if different:
                more = f"; and {len(different) - SHOWN} more" * (len(different) > SHOWN)
                raise ValueError(
                    f"{path} holds another forecast: {'; '.join(different[:SHOWN])}{more}. Give "
                    "another path, or move the file away; it was not changed."
                )
            forecast = cls(path, grid, members, store, convention)
            _check_space(path, plan, len(hours) - forecast.done)
        except BaseException:
            lock.release()
            raise
        forecast._lock = lock
        return forecast

    def write(
        self,
        step: int,
        upper: Float32[np.ndarray, "member variable level lat lon"],
        surface: Float32[np.ndarray, "member field lat lon"],
    ) -> None:
        """Write the next step, SI units, in the grid's order; returns when it is on the disk.

        Raises ValueError for a step that is not the next one, other shapes and other types.
        """
        if step != self.done or step >= self._steps or self._lock is None:
            raise ValueError(
                f"{self.path}: step {step} cannot be written: {self.done} of {self._steps} steps "
                f"are{' and the file is closed' * (self._lock is None)}. Write them in order."
            )
        for given, shape in ((upper, self._upper), (surface, self._surface)):
            if given.shape != shape or given.dtype != np.float32:
                raise ValueError(
                    f"{self.path}: step {step} has a field of {given.dtype} {given.shape}, "
                    f"expected float32 {shape}: members first, then as the grid says."
                )
        for name, block in self._blocks(upper, surface):
            self._store.put(name, step, block)
        self._store.flush()  # the values first: a mark must never vouch for what is not there
        self._store.put(MARKER, step, np.ones((), np.int8))
        self._store.flush()
        self.done = step + 1

    def read(
        self, step: int
    ) -> tuple[
        Float32[np.ndarray, "member variable level lat lon"],
        Float32[np.ndarray, "member field lat lon"],
    ]:
        """A finished step exactly as it was written; ValueError for another one."""
        if not 0 <= step < self.done:
            raise ValueError(
                f"{self.path}: step {step} is not there; of {self._steps} steps the first "
                f"{self.done} are written, counted from 0."
            )
        upper, surface = np.empty(self._upper, np.float32), np.empty(self._surface, np.float32)
        try:
            for name, block in self._blocks(upper, surface):
                block[...] = self._store.get(name, step).reshape(block.shape)
        except Exception as error:  # zarr's codecs raise many types
            raise _damaged(self.path, f"step {step} cannot be read: {error}") from error
        return upper, surface

    def _blocks(self, upper: Array, surface: Array) -> Iterator[tuple[str, Array]]:
        """Every variable's part (a view) of one step."""
        named = self._named
        yield from ((named(name), upper[:, i]) for i, name in enumerate(self.grid.upper))
        yield from ((named(name), surface[:, i]) for i, name in enumerate(self.grid.surface))

    def close(self) -> None:
        """Let go of the file; a second call does nothing."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def __enter__(self) -> ForecastFile:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class Lock:
    """The right to write a path: ``.<name>.lock`` beside it, with the writer's process id.

    The system's ``flock`` ends with its process, however that ends, so what a killed one leaves
    behind is taken over (and a process id used again deceives nobody); the number is for people.
    """

    def __init__(self, path: Path) -> None:
        import fcntl  # not on Windows, where the rest of the package can be imported

        self._file = path.with_name(f".{path.name}.lock")
        while True:
            self._fd = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(self._fd), self._file.stat()):
                    break
            except FileNotFoundError:
                pass  # its owner removed it between our opening and our locking: once more
            except BlockingIOError:
                owner = os.read(self._fd, 20).decode("ascii", "replace").strip()
                os.close(self._fd)
                raise ValueError(
                    f"{path} is being written by process {owner or '(unknown)'}. Only one may: "
                    "wait for it, end it, or give another path."
                ) from None
            os.close(self._fd)
        os.ftruncate(self._fd, 0)
        os.write(self._fd, f"{os.getpid()}\n".encode())

    def release(self) -> None:
        """Give the path free."""
        self._file.unlink(missing_ok=True)  # while it is locked, or it might be another's
        os.close(self._fd)


def _texts(attributes: dict[str, str]) -> dict[str, str]:
    """The attributes of the file; ValueError for what not both formats can hold."""
    for name, text in attributes.items():
        size = len(text.encode("utf-8", "surrogatepass"))
        allowed = re.fullmatch(r"[A-Za-z]\w{0,63}", name, re.ASCII) and name != "Conventions"
        if not allowed or not 0 < size <= LONGEST or not _is_text(text):
            raise ValueError(
                f"attribute {name!r} of a forecast has {size} bytes: {text[:40]!r}. Expected a "
                f"name of letters, digits and _ (not Conventions) and 1 to {LONGEST} bytes of text."
            )
    return {**MADE_BY, **attributes}


def _is_text(text: str) -> bool:
    """Return True if an attribute may hold it: no NUL (it ends HDF5's strings), no half letters."""
    return text.replace("\n", " ").replace("\t", " ").isprintable()


def _differences(
    plan: list[Variable], attributes: dict[str, str], store: Netcdf | Zarr
) -> Iterator[str]:
    """Differences of an existing file from the plan, in words."""
    yield from _unlike("attribute ", store.attributes, attributes)
    wanted = {array.name: array for array in plan}
    for name in sorted(set(store.found) ^ set(wanted)):
        yield f"variable {name} is {'not in the file' if name in wanted else 'not asked for'}"
    for name in [name for name in wanted if name in store.found]:
        is_, ask = store.found[name], wanted[name]
        for what in ("dims", "shape", "dtype"):
            found, asked = getattr(is_, what), getattr(ask, what)
            if found != asked:
                yield f"{what} of {name} {found} in the file, {asked} asked"
        yield from _unlike(f"{name}: ", is_.attributes, ask.attributes)
        if ask.values is not None and (is_.shape, is_.dtype) == (ask.shape, ask.dtype):
            values = store.values(name)
            if not np.array_equal(values, ask.values):
                yield f"{name} {_short(values)} in the file, {_short(ask.values)} asked"


def _unlike(what: str, found: dict[str, str], asked: dict[str, str]) -> Iterator[str]:
    for key in sorted(found.keys() | asked.keys()):
        if found.get(key) != asked.get(key):
            texts = (repr(d[key][:80]) if key in d else "none" for d in (found, asked))
            yield "{}{} {} in the file, {} asked".format(what, key, *texts)


def _short(values: Array) -> str:
    return np.array2string(values, threshold=8, edgeitems=4, max_line_width=200)


def _check_space(path: Path, plan: list[Variable], steps: int) -> None:
    """ValueError if the disk has no room for so many steps (Zarr needs less: it compresses)."""
    step = sum(math.prod(a.shape[1:]) * np.dtype(a.dtype).itemsize for a in plan if len(a.dims) > 2)
    need, free = steps * step + SPARE, shutil.disk_usage(path.parent).free
    if need > free:
        raise ValueError(
            f"{path} needs {need / 1e9:.3g} GB for {steps} steps of {step / 1e6:.3g} MB, but the "
            f"disk has {free / 1e9:.3g} GB free. Make room, or write fewer hours or members."
        )


def _damaged(path: Path, why: str) -> ValueError:
    return ValueError(
        f"{path} is damaged or was not written here: {why}. It was not changed; move it away and "
        "the forecast is written anew, or give another path."
    )
