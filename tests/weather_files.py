"""A small atmosphere with known values, for tests that write it to files in many ways."""

import numpy as np

LEVELS = (850, 500, 200)
HEIGHTS = {1000: 100, 925: 760, 850: 1460, 700: 3010, 600: 4200, 500: 5570, 400: 7180, 300: 9160,
           250: 10360, 200: 11780, 150: 13600, 100: 16200, 50: 20600}  # fmt: skip
LAT = np.arange(78.75, -90, -22.5)
LON = np.arange(16) * 22.5
TIMES = np.datetime64("2018-01-01T00", "s") + np.arange(4) * np.timedelta64(6, "h")
UPPER, SURFACE = ("z", "q", "t", "u", "v"), ("msl", "u10", "v10", "t2m")
UNITS = {"z": "m2 s-2", "q": "kg kg-1", "t": "K", "u": "m s-1", "v": "m s-1", "msl": "Pa",
         "u10": "m s-1", "v10": "m s-1", "t2m": "K", "lsm": "1"}  # fmt: skip


def atmosphere(times=4, levels=LEVELS, lat=LAT, lon=LON, seed=0):
    """Variables of the paper by name: (time, level, lat, lon) or (time, lat, lon), float32."""
    random = np.random.default_rng(seed)

    def field(mean, spread, *shape):
        noise = random.uniform(-1, 1, (times, *shape, len(lat), len(lon)))
        return (mean + spread * noise).astype(np.float32)

    height = np.array([HEIGHTS[level] for level in levels])[:, None, None]
    humidity = np.array([0.01 * (level / 1000) ** 3 for level in levels])[:, None, None]
    wide = len(levels)
    return {
        "z": field(9.80665 * height, 300.0, wide),
        "q": field(humidity, 0.3 * humidity, wide),
        "t": field(288 - 0.0065 * np.minimum(height, 11000), 12.0, wide),
        "u": field(8, 20.0, wide),
        "v": field(0, 20.0, wide),
        "msl": field(101300, 2000.0),
        "u10": field(0, 8.0),
        "v10": field(0, 8.0),
        "t2m": field(285, 20.0),
    }


def land(lat=LAT, lon=LON):
    """A land mask with an Antarctica."""
    return np.repeat((lat < -70)[:, None], len(lon), 1).astype(np.float32)


def dataset(values=None, *, constants=True, times=TIMES, levels=LEVELS, lat=LAT, lon=LON):
    """The atmosphere as an xarray.Dataset in tenfold's own names and order."""
    import xarray

    values = atmosphere(len(times), levels, lat, lon) if values is None else values
    dims = {4: ("time", "level", "lat", "lon"), 3: ("time", "lat", "lon")}
    data = xarray.Dataset(
        {name: (dims[v.ndim], v, {"units": UNITS[name]}) for name, v in values.items()}
    )
    if constants:
        data["lsm"] = ("lat", "lon"), land(lat, lon), {"units": "1"}
    data = data.assign_coords(lat=lat, lon=lon, level=np.array(levels, np.int32))
    hours = (times - np.datetime64("2000-01-01T00", "s")) // np.timedelta64(1, "h")
    return data.assign_coords(
        time=("time", hours.astype(np.int64), {"units": "hours since 2000-01-01"})
    )
