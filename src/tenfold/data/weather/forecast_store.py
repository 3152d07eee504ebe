"""A forecast's arrays on disk: in one NetCDF-4 file, or in the folder of a Zarr store.

Each store is made whole from a plan (a list of ``Variable``), then takes values step by step, and
is alike in use; what the arrays mean, their order and locks are the business of ``forecast_file``.
"""

from __future__ import annotations

import math
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

Array = Shaped[np.ndarray, "..."]


@dataclass(frozen=True)
class Variable:
    """One array of the file; ``values`` is None for what is written step by step (first axis)."""

    name: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    attributes: dict[str, str]
    values: Array | None = None


class Netcdf:
    """NetCDF-4: HDF5 with every array in one piece, so that its values have a known place.

    h5py makes the file and is done; steps are written in place with plain writes. The library's
    own structures are never touched again, so a kill cannot damage them.
    """

    package = "h5py"

    def __init__(self, path: Path) -> None:
        import h5py

        self.path = path
        self.found: dict[str, Variable] = {}
        self._places: dict[str, int] = {}
        with h5py.File(path, "r") as file:
            self.attributes = _read_texts(file.attrs)
            for name in file:
                is_own = isinstance(file.get(name, getlink=True), h5py.HardLink)
                array = file[name] if is_own else None
                if not isinstance(array, h5py.Dataset):
                    raise ValueError(f"{name} is no array of this file")
                place = array.id.get_offset()  # None: in chunks, or in another file
                if place is None or place + array.nbytes > path.stat().st_size:
                    raise ValueError(f"the values of {name} are not in one piece in the file")
                dims = tuple(str(d[0].name).strip("/") for d in array.dims if len(d))
                texts = _read_texts(array.attrs)
                dtype = array.dtype.str
                if array.is_scale:
                    dims = (name,)
                self.found[name] = Variable(name, dims, array.shape, dtype, texts)
                self._places[name] = place

    @staticmethod
    def create(path: Path, plan: list[Variable], attributes: dict[str, str]) -> None:
        """Make the whole file; its fields and marks read as zeros until they are put."""
        import h5py

        with h5py.File(path, "w", libver=("earliest", "v108")) as file:
            for array in plan:
                how = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
                how.set_layout(h5py.h5d.CONTIGUOUS)
                how.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
                how.set_fill_time(h5py.h5d.FILL_TIME_NEVER)  # a hole: nothing is written twice
                how.set_obj_track_times(False)  # equal forecasts are equal bytes
                kind = h5py.h5t.py_create(np.dtype(array.dtype), logical=True)
                space = h5py.h5s.create_simple(array.shape) if array.shape else h5py.h5s.create(0)
                h5py.h5d.create(file.id, array.name.encode(), kind, space, how)
                if array.values is not None:
                    file[array.name][...] = array.values
                if array.dims == (array.name,):
                    file[array.name].make_scale(array.name)
            for array in plan:
                for axis, dim in enumerate(array.dims):
                    if dim != array.name:
                        file[array.name].dims[axis].attach_scale(file[dim])
            for place, texts in [(file, attributes), *((file[a.name], a.attributes) for a in plan)]:
                for key, text in texts.items():
                    data = text.encode()
                    place.attrs.create(key, data, dtype=h5py.string_dtype("utf-8", len(data)))
        _sync(path)

    def values(self, name: str) -> Array:
        """All of an array."""
        return self._read(name, 0, self.found[name].shape)

    def get(self, name: str, step: int) -> Array:
        """One step of an array (its first axis); ValueError where the file ends before it."""
        return self._read(name, step, self.found[name].shape[1:])

    def _read(self, name: str, step: int, shape: tuple[int, ...]) -> Array:
        block = np.empty(shape, self.found[name].dtype)
        with self.path.open("rb") as file:
            file.seek(self._places[name] + step * block.nbytes)
            if file.readinto(block.reshape(-1).view(np.uint8).data) != block.nbytes:
                raise ValueError(f"the file ends within {name}")
        return block

    def put(self, name: str, step: int, block: Array) -> None:
        """Write one step of an array; it is on the disk only after ``flush``."""
        data = np.ascontiguousarray(block, self.found[name].dtype)
        with self.path.open("r+b") as file:
            file.seek(self._places[name] + step * data.nbytes)
            file.write(data.reshape(-1).view(np.uint8).data)

    def flush(self) -> None:
        """Return when all that was put is on the disk."""
        _sync(self.path)


class Zarr:
    """Zarr version 3 in a folder: one chunk a step, member and level; files appear whole."""

    package = "zarr"

    def __init__(self, path: Path) -> None:
        import zarr

        self._path = path
        self._group: Any = zarr.open_group(path, mode="r+", zarr_format=3, use_consolidated=False)
        self._touched: list[Path] = []
        self.attributes = {k: str(v) for k, v in self._group.attrs.items()}
        self.found = {name: self._describe(name) for name in self._group.keys()}

    def _describe(self, name: str) -> Variable:
        array = self._group[name]
        wanted = (1,) * (array.ndim - 2) + array.shape[-2:] if array.ndim > 2 else array.shape
        if array.chunks != wanted:
            raise ValueError(f"{name} has chunks of {array.chunks}, expected {wanted}")
        texts = {k: str(v) for k, v in array.attrs.items()}
        dims = tuple(array.metadata.dimension_names or ())
        return Variable(name, dims, array.shape, array.dtype.str, texts)

    @staticmethod
    def create(path: Path, plan: list[Variable], attributes: dict[str, str]) -> None:
        """Make the whole folder; its fields read as NaN, its marks as 0, until they are put."""
        import zarr
        from zarr.codecs import ZstdCodec

        group = zarr.create_group(path, zarr_format=3, attributes=dict(attributes))
        for array in plan:
            is_field = len(array.shape) > 2
            made = group.create_array(
                array.name,
                shape=array.shape,
                dtype=array.dtype,
                chunks=(1,) * (len(array.shape) - 2) + array.shape[-2:]
                if is_field
                else array.shape,
                compressors=ZstdCodec(level=1, checksum=True),
                fill_value=np.nan if is_field else 0,
                dimension_names=array.dims,
                attributes=dict(array.attributes),
            )
            if array.values is not None:
                made[...] = array.values
        with warnings.catch_warnings():
            # "not yet in the specification": readers want it all the same
            warnings.simplefilter("ignore")
            zarr.consolidate_metadata(path)
        for file in path.rglob("*"):
            _sync(file)

    def values(self, name: str) -> Array:
        """All of an array."""
        return np.asarray(self._group[name][...])

    def get(self, name: str, step: int) -> Array:
        """One step of an array (its first axis); ValueError where a chunk of it is lost."""
        shape = self.found[name].shape[1:]
        chunks = sum(file.is_file() for file in self._folder(name, step).rglob("*"))
        if chunks != math.prod(shape[:-2]):  # zarr would give NaN for what is lost
            raise ValueError(f"{chunks} of {math.prod(shape[:-2])} chunks of {name} are there")
        return np.asarray(self._group[name][step])

    def put(self, name: str, step: int, block: Array) -> None:
        """Write one step of an array; it is on the disk only after ``flush``."""
        array = self._group[name]
        # chunks of nothing but NaN too: else a lost chunk could not be told from one
        array.with_config({"write_empty_chunks": True})[step] = block.reshape(array.shape[1:])
        self._touched.append(
            self._folder(name, step) if array.ndim > 2 else self._path / name / "c"
        )

    def _folder(self, name: str, step: int) -> Path:
        return self._path / name / "c" / str(step)

    def flush(self) -> None:
        """Return when all that was put is on the disk."""
        for top in self._touched:
            for path in (*top.rglob("*"), top, top.parent):
                if path.suffix == ".partial":  # left by the package's atomic write, when killed
                    path.unlink()
                else:
                    _sync(path)
        self._touched.clear()


def _read_texts(attributes: Any) -> dict[str, str]:
    """The texts among an HDF5 object's attributes; the others are HDF5's own links of axes."""
    texts = {}
    for name in attributes:
        if attributes.get_id(name).dtype.kind == "S" and name not in ("CLASS", "NAME"):
            texts[name] = bytes(attributes[name]).decode("utf-8", "replace")
    return texts


def _sync(path: Path) -> None:
    """Return when a file or folder is on the disk."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
