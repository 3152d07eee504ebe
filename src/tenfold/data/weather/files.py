"""One weather file, opened but not read: NetCDF, GRIB, zarr, or the official pair of npy files."""

from __future__ import annotations

import importlib
import json
import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tenfold.extras import install

from ..io import npz
from ..io.problems import some
from . import names
from .axes import horizontal
from .grib import SUFFIXES, grib_parts
from .layout import part_of
from .source import BROKEN, Part, Stored

NETCDF = (".nc", ".nc4", ".netcdf", ".cdf")
"""Suffixes of NetCDF files; what is in them decides how they are read."""
PAIR = ("input_upper.npy", "input_surface.npy")
"""Names of the official input files."""
DATE = re.compile(r"(\d{4})-?(\d\d)-?(\d\d)(?:[T_]?(\d\d)(?:00|:00)?)?")
"""Name of a folder with a pair, which has no date itself."""
PANGU_LEVELS = (1000, 925, 850, 700, 600, 500, 400, 300, 250, 200, 150, 100, 50)
"""Levels of the official input, in hPa (official README)."""
CACHE = 2**24
"""Bytes of the longest HDF5 chunk that is kept unpacked, one for each variable."""
SAFE_CODECS = frozenset(
    "blosc zlib gzip zstd lz4 bz2 lzma shuffle delta fixedscaleoffset bitround quantize astype "
    "packbits adler32 crc32 crc32c fletcher32 bytes transpose sharding_indexed vlen-utf8".split()
)
"""Codecs of zarr that do nothing but calculate; `pickle` would run code from the file."""


def open_parts(path: Path) -> list[Part]:
    """Open every file of `path`, which is a file, a zarr store or a folder of files."""
    if not path.exists():
        raise FileNotFoundError(
            f"{path} does not exist. Give a NetCDF or GRIB file, a folder of them, a .zarr "
            f"store, or a folder with {' and '.join(PAIR)}."
        )
    if path.is_file():
        return _file(path, keep=True)
    if _is_zarr(path):
        return [_zarr(path)]
    if any((path / name).exists() for name in PAIR):
        return [_pair(path)]
    pairs = [folder for folder in _folders(path) if any((folder / n).exists() for n in PAIR)]
    if pairs:
        _warn_of_unread(path, pairs)
        return [_pair(folder) for folder in pairs]
    files = _within(path)
    if files:
        _warn_of_unread(path, files)
    files = files or [file for folder in _folders(path) for file in _within(folder)]
    if files:
        return [part for file in files for part in _file(file, keep=len(files) == 1)]
    stores = [folder for folder in sorted(path.iterdir()) if _is_zarr(folder)]
    if len(stores) == 1:
        return [_zarr(stores[0])]
    raise ValueError(
        f"{path} holds {len(stores)} zarr stores and no file of {', '.join((*NETCDF, *SUFFIXES))} "
        f"or {PAIR[0]}. Give the folder or store that holds the states."
    )


def _warn_of_unread(path: Path, read: list[Path]) -> None:
    """Name the files, and the folders and stores with states, that lie beside those that are read.

    Of a folder one kind is read: pairs, the files in it, or those in its folders.
    """
    unread = [one.name for one in sorted(path.iterdir()) if one not in read and _has_states(one)]
    if unread:
        warnings.warn(
            f"{path} has {read[0].name}, so what is of another kind there is not read: "
            f"{some(unread)}. Put files of one kind into one folder, or give what is meant.",
            stacklevel=4,
        )


def _has_states(path: Path) -> bool:
    if path.is_dir():
        return _is_zarr(path) or (os.access(path, os.R_OK) and bool(_within(path)))
    return path.suffix.lower() in (*NETCDF, *SUFFIXES)


def _within(folder: Path) -> list[Path]:
    """Weather files of a folder."""
    return sorted(f for f in folder.iterdir() if f.suffix.lower() in (*NETCDF, *SUFFIXES))


def _folders(folder: Path) -> list[Path]:
    """Folders of a folder (WeatherBench 1 has one for each variable) that are no zarr store."""
    return sorted(f for f in folder.iterdir() if f.is_dir() and not _is_zarr(f))


def _file(path: Path, keep: bool) -> list[Part]:
    """Open one file, told by its first bytes."""
    with path.open("rb") as stream:
        is_grib = stream.read(4) == b"GRIB"
    return grib_parts(path) if is_grib else [_netcdf(path, keep)]


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"reading weather files needs {name}: {install('weather')}") from error


def _netcdf(path: Path, keep: bool) -> Part:
    """Open a NetCDF 3 or 4 file, told apart by its first bytes."""
    xarray = _library("xarray")
    size = path.stat().st_size
    with path.open("rb") as stream:
        magic = stream.read(8)
    if magic.startswith(b"\x89HDF\r\n\x1a\n"):
        _library("h5netcdf")
        engine = "h5netcdf"
    elif magic.startswith((b"CDF\x01", b"CDF\x02")):
        engine = "scipy"
    else:
        raise ValueError(f"{path} is no NetCDF file ({size} bytes): {_what(magic)}.")
    kept: list[Any] = []
    try:
        if keep and engine == "h5netcdf":
            kept = _kept(path)
        data = xarray.open_dataset(
            path, engine=engine, decode_times=False, decode_coords=False, cache=False
        )
    except BROKEN as error:
        ends = re.search(r"eof = (\d+).*stored_eof = (\d+)", str(error))
        found = f"{ends[1]} of {ends[2]} bytes" if ends else f"{size} bytes: {error}"
        kind = "truncated" if ends or engine == "scipy" else "damaged"
        raise ValueError(f"{path} is {kind}: {found}. Get it again.") from error
    part = part_of(data, path)
    part.kept = kept
    return part


def _kept(path: Path) -> list[Any]:
    """Handles that keep HDF5's chunk caches alive while the file is open.

    h5netcdf opens a variable anew for every read, and with it goes the unpacked chunk. Where one
    chunk holds many times, that is to unpack all of them for each (measured: 12 times slower).
    """
    h5py = _library("h5py")
    file = h5py.File(path, "r", rdcc_nbytes=CACHE)
    found = [file[name] for name in file if isinstance(file[name], h5py.Dataset)]
    return [
        data
        for data in found
        if data.chunks and data.chunks[0] > 1 and np.prod(data.chunks) * data.dtype.itemsize < CACHE
    ]


def _what(magic: bytes) -> str:
    if magic.startswith(b"PK"):
        return "it is a zip archive, as the CDS sends for several streams: unpack it"
    if magic.startswith(b"CDF\x05"):
        return "it is NetCDF of the 64-bit data kind: `nccopy -k nc4 in.nc out.nc`"
    return f"it begins with {magic!r}; was the download an error page?"


def _is_zarr(path: Path) -> bool:
    marks = (".zgroup", ".zmetadata", "zarr.json")
    return path.is_dir() and (path.suffix == ".zarr" or any((path / m).exists() for m in marks))


def _zarr(path: Path) -> Part:
    xarray = _library("xarray")
    _library("zarr")
    metadata = [path / ".zmetadata", path / "zarr.json"]
    consolidated = metadata[0].exists()
    for file in [*metadata, *sorted(path.glob("*/.zarray")), *sorted(path.glob("*/zarr.json"))]:
        if not file.exists():
            continue
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            unsafe = sorted(set(_codecs(content)) - SAFE_CODECS)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{file} is damaged: {error}. Get the store again.") from error
        if unsafe:
            raise ValueError(
                f"{file} uses the codec {unsafe[0]!r}, which is not known to be safe. Write the "
                "store anew with plain compression, e.g. blosc or zstd."
            )
        consolidated |= file == metadata[1] and "consolidated_metadata" in content
    try:
        data = xarray.open_dataset(
            path,
            engine="zarr",
            decode_times=False,
            decode_coords=False,
            consolidated=consolidated,
            cache=False,
        )
    except BROKEN as error:
        raise ValueError(f"{path} is no whole zarr store: {error}. Get it again.") from error
    return part_of(data, path)


def _codecs(content: Any) -> Iterator[str]:
    """Names of all codecs in the metadata of zarr 2 or 3, at any depth."""
    if isinstance(content, list):
        for item in content:
            yield from _codecs(item)
    elif isinstance(content, dict):
        for key, value in content.items():
            if key in ("compressor", "filters", "codecs", "index_codecs"):
                for codec in value if isinstance(value, list) else [value]:
                    if isinstance(codec, dict):
                        name = str(codec.get("id", codec.get("name")))
                        yield name.removeprefix("numcodecs.")
            yield from _codecs(value)


def _date(name: str) -> str:
    """Date of a folder that is named by one (2018-01-01T06, 2018010106); else NaT."""
    found = DATE.fullmatch(name)
    if not found:
        return "NaT"
    year, month, day, hour = found.groups()
    try:
        return str(np.datetime64(f"{year}-{month}-{day}T{hour or '00'}", "s"))
    except ValueError:
        return "NaT"


def _pair(path: Path) -> Part:
    """The official input: upper (5, 13, lat, lon) and surface (4, lat, lon), memory-mapped."""
    arrays = []
    for name in PAIR:
        file = path / name
        if not file.exists():
            raise FileNotFoundError(f"{file} is missing; {' and '.join(PAIR)} belong together.")
        try:
            arrays.append(np.load(file, mmap_mode="r", allow_pickle=False))
        except npz.BROKEN as error:
            size = file.stat().st_size
            raise ValueError(
                f"{file} ({size} bytes) is truncated or no plain npy file: {error}."
            ) from error
        if arrays[-1].dtype.kind != "f":
            raise ValueError(f"{file} holds {arrays[-1].dtype}, expected float32.")
    upper, surface = arrays
    lat, lon = upper.shape[-2:] if upper.ndim == 4 else (0, 0)
    expected = (len(names.UPPER), len(PANGU_LEVELS), lat, lon), (len(names.SURFACE), lat, lon)
    if (upper.shape, surface.shape) != expected or lat < 3 or lat % 2 == 0 or lon < 2:
        raise ValueError(
            f"{path}: {PAIR[0]} has shape {upper.shape}, {PAIR[1]} {surface.shape}, expected "
            "(5, 13, lat, lon) and (4, lat, lon) with an odd number of latitudes, both poles "
            "included (official: 721 x 1440)."
        )
    grid = horizontal(np.linspace(90, -90, lat), np.arange(lon) * (360 / lon), str(path))
    part = Part(path, grid, np.array([_date(path.name)], "datetime64[s]"), dated=False)
    for k, name in enumerate(names.UPPER):
        stored = Stored(path / PAIR[0], name, upper[k], ("level", "lat", "lon"), grid)
        part.upper[name] = {level: (stored, i) for i, level in enumerate(PANGU_LEVELS)}
    for k, name in enumerate(names.SURFACE):
        part.surface[name] = Stored(path / PAIR[1], name, surface[k], ("lat", "lon"), grid)
    return part
