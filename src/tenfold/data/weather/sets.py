"""The weather sets that tenfold knows."""

from __future__ import annotations

from ..dataset import ONCE, DataSet

SETS = (
    DataSet(
        "pangu_atmos",
        ("pangu",),
        "640 six-hourly states of a coarse climate model, and 3 small sets of real analyses",
        "simulated",
        "Apache-2.0 (jcm, neuralgcm), BSD-style (NCL); ERA5 and ERA-Interim under ECMWF terms",
        "jcm 3.0.0 (simulation); NCL example data; neuralgcm 1.2.2; pydata/xarray-data @ 58de68c",
        "36 MB",
        "gcm_t21_6h.nc (simulated), storm1996_6h.nc, era5_snapshot_19590102T00.nc, "
        "eraint_monthly_uvz.nc (real)",
        ONCE,
    ),
    DataSet(
        "era5",
        ("pangu",),
        "your own states of the atmosphere: ERA5, IFS analyses or a model's, any grid",
        "real",
        "ERA5 and IFS open data: free use with attribution (Copernicus, ECMWF terms)",
        "cds.climate.copernicus.eu, WeatherBench2 and ARCO-ERA5 (Google Cloud), data.ecmwf.int",
        "0.29 GB a state at 0.25 degrees",
        "*.nc or *.grib (any number), or one *.zarr, or input_upper.npy and input_surface.npy",
        "see 'Weather: your own ERA5 or IFS files' in docs/data.md",
        "as is",
        bring_your_own=True,
    ),
)
"""One entry a set."""
