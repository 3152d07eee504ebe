"""Packages that only some uses need, and the command that installs them."""

from __future__ import annotations

EXTRAS = {
    "export": ("onnx", "onnxruntime", "onnxscript"),
    "grib": ("cfgrib", "eccodes"),
    "tensorboard": ("tensorboard",),
    "text": ("tokenizers",),
    "video": ("imageio_ffmpeg",),
    "web": ("starlette", "uvicorn"),
    "weather": ("h5py", "h5netcdf", "xarray", "zarr", "landcheck"),
}
"""Extra of the package -> the modules that it installs."""


def install(extra: str) -> str:
    """The command that installs an extra, from a checkout and from an index."""
    return f"pip install -e '.[{extra}]' in a checkout, or pip install 'tenfold[{extra}]'"


def extra_of(module: str) -> str:
    """The extra that installs a module (or the package it is in), or nothing."""
    top = module.partition(".")[0]
    return next((extra for extra, modules in EXTRAS.items() if top in modules), "")
