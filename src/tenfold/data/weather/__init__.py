"""Weather: states of the atmosphere in NetCDF, Zarr and npy."""
