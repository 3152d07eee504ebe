"""GRIB files, by cfgrib (extra `grib`): one part for each kind of level and set of steps."""

from __future__ import annotations

import importlib
import logging
import warnings
from pathlib import Path

from tenfold.extras import install

from .layout import part_of
from .source import Part

SUFFIXES = (".grib", ".grib1", ".grib2", ".grb", ".grb1", ".grb2", ".gb2")
"""Suffixes of GRIB files; what is in them decides how they are read."""


def grib_parts(path: Path) -> list[Part]:
    """Open a GRIB file; no index is written beside it.

    Raises ImportError without the extra `grib`, and ValueError for a damaged file, and for grids
    without rows and columns (reduced Gaussian, spectral, ICON's).
    """
    try:
        cfgrib = importlib.import_module("cfgrib")
    except (ImportError, RuntimeError) as error:  # RuntimeError: ecCodes itself is not found
        raise ImportError(f"{path} is GRIB; reading it needs cfgrib: {install('grib')}") from error
    logging.getLogger("cfgrib").setLevel(logging.CRITICAL)  # its words on files that we refuse
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of xarray, on cfgrib's own call
            found = cfgrib.open_datasets(
                str(path),
                backend_kwargs={"indexpath": "", "errors": "raise"},
                decode_times=False,
                cache=False,
            )
    except Exception as error:  # ecCodes has types of its own for a damaged file
        raise ValueError(f"{path} is no whole GRIB file: {error}. Get it again.") from error
    if not found:
        raise ValueError(f"{path} holds no GRIB messages that are read. Get it again.")
    for data in found:
        kinds = {str(field.attrs.get("GRIB_gridType")) for field in data.data_vars.values()}
        if any("values" in field.dims for field in data.data_vars.values()):
            raise ValueError(
                f"{path} lies on the grid {', '.join(sorted(kinds))}, without rows and columns. "
                "Regrid it first (cdo -R remapbil,r360x181, or grid: 0.25/0.25 when retrieving)."
            )
    return [part_of(data, path) for data in found]
