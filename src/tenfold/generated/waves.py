"""Generated weather: Rossby-Haurwitz waves, whose future is known exactly at any time.

Not observed, and not integrated step by step. The flow of each level solves the non-divergent
barotropic vorticity equation on the sphere, D(zeta + 2 Omega sin(lat))/Dt = 0, in closed form. Let

    psi = -w a^2 sin(lat) + psi',   psi' = Re sum_m A_m P_n^m(sin(lat)) exp(i m (lon - c t)),

a solid rotation w and spherical harmonics of *one* degree n with any orders m. psi is exact for

    c = w - 2 (Omega + w) / (n (n + 1)).

Proof: zeta' = -n(n+1)/a^2 psi' is a multiple of psi', so the quadratic term J(psi', zeta') is
zero. What is left is linear: zeta'_t + w zeta'_lon + 2 (Omega + w)/a^2 psi'_lon = 0, which a
pattern that turns at the angular speed c solves (Haurwitz 1940). So the whole pattern turns about
the poles' axis, and its speed can be read off one state: n from its shape, w from its mean wind.

The other variables are functions of psi that travel with it (ours, formulas at `fields`). Used
where no weather data are found.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Complex, Float, Int8, Integer
from numpy.polynomial import legendre

from tenfold.data.weather.grid import Grid
from tenfold.extras import install

RADIUS = 6.371e6
"""Of the Earth, m."""
OMEGA = 7.292e-5
"""Rotation of the Earth, 1/s."""
GRAVITY, GAS = 9.80665, 287.05
"""m/s2, and of dry air J/(kg K)."""
CONTRAST = 30.0
"""Zonal mean temperature at the equator minus that at the poles, K."""
BALANCED = 650.0
"""Level (hPa) at which the zonal mean of z is in balance with the solid rotation."""
PEAK, DEPTH = 300.0, 1.2
"""Waves are strongest at this level (hPa); their decay away from it in ln p."""
TILT = 0.3
"""Westward lean of the waves with height, radians of longitude a unit of ln p."""
AIR = 1.2
"""Density that turns geopotential at 1000 hPa into pressure, kg/m3."""
FRICTION = 0.7
"""Wind at 10 m over wind at 1000 hPa."""
DEGREES = (4, 5, 6)
"""Degrees n of the series, in turn: all that 16 rows resolve well and that move fast."""
DAYS = (20, 3, 5)
"""Days of training, validation and test in a series."""
GAP = 1
"""Days between two series; they belong to no split."""
UNITS = {
    **{"z": "m2 s-2", "q": "kg kg-1", "t": "K", "u": "m s-1", "v": "m s-1"},
    **{"msl": "Pa", "u10": "m s-1", "v10": "m s-1", "t2m": "K", "lsm": "1", "orog": "m"},
}
"""Every variable that is made; the first five on levels, the last two constant."""
UPPER, SURFACE, CONSTANTS = ("z", "q", "t", "u", "v"), ("msl", "u10", "v10", "t2m"), ("lsm", "orog")


def default_grid(rows: int = 16, columns: int = 32) -> Grid:
    """All variables at 850 and 500 hPa and the ground, on an even grid without poles, 6-hourly."""
    return Grid(
        upper=UPPER,
        levels=(850, 500),
        surface=SURFACE,
        constants=("lsm",),
        latitudes=tuple(90 - (row + 0.5) * 180 / rows for row in range(rows)),
        longitudes=tuple(column * 360 / columns for column in range(columns)),
    )


@dataclass(frozen=True)
class Wave:
    """One Rossby-Haurwitz wave: a solid rotation and harmonics of one degree."""

    degree: int
    """n, at least 1."""
    rotation: float
    """w, 1/s."""
    amplitudes: Complex[np.ndarray, "orders"]
    """A_m of the orders m = 1 ... n, m2/s, for harmonics with a mean square of 1 on the sphere."""

    @property
    def speed(self) -> float:
        """Angular speed of the pattern, radians a second, eastward positive."""
        return self.rotation - 2 * (OMEGA + self.rotation) / (self.degree * (self.degree + 1))


def random_wave(series: int, seed: int = 0) -> Wave:
    """The wave of a series: degree in turn, rotation, amplitudes and phases drawn (ours).

    The root mean square of the wave's wind over the sphere, at the level where it is strongest, is
    10 to 15 m/s, from mean |grad psi'|^2 = n(n+1)/a^2 mean psi'^2.
    """
    random = np.random.default_rng([seed, series])
    degree = DEGREES[series % len(DEGREES)]
    drawn = random.uniform(0.4, 1, degree) * np.exp(2j * np.pi * random.uniform(size=degree))
    wind = random.uniform(10, 15)
    mean_square = 0.5 * np.sum(np.abs(drawn) ** 2) * degree * (degree + 1) / RADIUS**2
    return Wave(degree, random.uniform(1.2e-6, 2.4e-6), drawn * wind / math.sqrt(mean_square))


def _harmonic(degree: int, order: int, latitudes: np.ndarray) -> Float[np.ndarray, "3 lat"]:
    """P_n^m of mean square 1, its derivative by latitude, and m P_n^m / cos(lat); poles included.

    P_n^m = cos^m d^m P_n / dx^m: with the derivatives as polynomials nothing is divided by cos.
    """
    if order > degree:
        return np.zeros((3, len(latitudes)))
    sine, cosine = np.sin(latitudes), np.cos(latitudes)
    norm = math.sqrt((2 * degree + 1) * math.factorial(degree - order))
    norm /= math.sqrt(math.factorial(degree + order))
    polynomial = legendre.legder([0.0] * degree + [norm], order)
    inner = legendre.legval(sine, polynomial)
    slope = legendre.legval(sine, legendre.legder(polynomial))
    over = order * cosine ** (order - 1) * inner
    return np.stack([cosine**order * inner, cosine ** (order + 1) * slope - sine * over, over])


@lru_cache(maxsize=32)
def _shapes(degree: int, latitudes: tuple[float, ...]) -> Float[np.ndarray, "3 orders lat"]:
    """By order and latitude: slope and m P/cos of the streamfunction, and its geopotential.

    The geopotential solves the linear balance equation lap(phi) = div(mu grad(psi)), mu the sine of
    latitude, which couples degree n with n - 1 and n + 1 (ours, by the recurrence of mu P_n^m).
    """
    angles = np.deg2rad(np.array(latitudes))
    rows = []
    for m in range(1, degree + 1):
        _, slope, over = _harmonic(degree, m, angles)
        below, above = (math.sqrt((n * n - m * m) / (4 * n * n - 1)) for n in (degree, degree + 1))
        balanced = degree / (degree + 1) * above * _harmonic(degree + 1, m, angles)[0]
        balanced += (degree + 1) / degree * below * _harmonic(degree - 1, m, angles)[0]
        rows.append(np.stack([slope, over, balanced]))
    return np.stack(rows, axis=1)


def _standard(pressure: Float[np.ndarray, "level"]) -> tuple[np.ndarray, np.ndarray]:
    """Geopotential and temperature of the ICAO standard atmosphere up to 20 km."""
    exponent, top = GAS * 0.0065 / GRAVITY, 226.32
    low = 288.15 * (np.maximum(pressure, top) / 1013.25) ** exponent
    geopotential = GRAVITY * (288.15 - low) / 0.0065
    return geopotential + GAS * low * np.log(np.maximum(top / pressure, 1)), low


def fields(
    wave: Wave,
    pressures: Sequence[int | float],
    latitudes: tuple[float, ...],
    longitudes: tuple[float, ...],
    hours: int | float | np.number,
) -> dict[str, Float[np.ndarray, "level lat lon"]]:
    """z, q, t, u, v of a wave on levels (hPa) at a time, in float64 (formulas ours).

    u, v: the flow of psi; wave times V(p) = exp(-(ln(p/300)/1.2)^2 / 2) and turned west with
    height, both of which leave it an exact solution of its level. z: standard atmosphere, plus
    gradient wind balance of the rotation, -a^2 w (w + 2 Omega)/2 (sin^2(lat) - 1/3), plus a
    thermal part R 30 K (sin^2(lat) - 1/3) ln(p/650), plus linear balance of the wave with
    2 (Omega + w) (what the wave's own advection J(u', v') adds is left out).
    t: -1/R dz/dln(p), exactly. q: saturation at t after Bolton (1980) times a relative humidity
    0.6 + 0.3 tanh(v sin(lat) / 5 m/s), moist where air flows to the pole, and times (p/300)^2
    above 300 hPa.
    """
    p, y = np.array(pressures, float), np.deg2rad(np.array(latitudes))
    slope, over, balanced = _shapes(wave.degree, tuple(latitudes))
    orders = np.arange(1, wave.degree + 1)
    x = np.deg2rad(np.array(longitudes)) - wave.speed * 3600 * hours
    turned = wave.amplitudes[:, None] * np.exp(1j * orders[:, None] * x)
    height = np.log(p / PEAK)[:, None] / DEPTH
    size = np.exp(-(height**2) / 2 + 1j * orders * TILT * np.log(1000 / p)[:, None])
    change = size * (-height / DEPTH - 1j * orders * TILT)  # by ln p

    def total(factors: np.ndarray, shapes: np.ndarray) -> np.ndarray:
        return np.einsum("km,my,mx->kyx", factors, shapes, turned).real

    w, coriolis = wave.rotation, 2 * (OMEGA + wave.rotation)
    u = (w * RADIUS * np.cos(y))[:, None] - total(size, slope) / RADIUS
    v = total(1j * size, over) / RADIUS
    north = (np.sin(y) ** 2 - 1 / 3)[:, None]
    thermal = GAS * CONTRAST * np.log(p / BALANCED)[:, None, None] * north
    solid = -(RADIUS**2) * w * (w + 2 * OMEGA) / 2 * north
    z, t = (part[:, None, None] for part in _standard(p))
    z = z + solid + thermal + coriolis * total(size, balanced)
    t = t - CONTRAST * north - coriolis / GAS * total(change, balanced)
    vapour = 611.2 * np.exp(17.67 * (t - 273.15) / (t - 29.65))  # Pa
    humidity = 0.6 + 0.3 * np.tanh(v * np.sin(y)[:, None] / 5)
    humidity *= np.minimum(1, p / PEAK)[:, None, None] ** 2  # the stratosphere is dry
    q = 0.622 * humidity * vapour / (100 * p[:, None, None])
    return {"z": z, "q": q, "t": t, "u": u, "v": v}


class WaveStates:
    """Series of generated states, one wave each, with the interface of a reader's states.

    A series has 20 days of training, then 3 of validation and 5 of test; a day that belongs to no
    split (-1) lies between two series. Nothing is stored: a state is computed when it is read.
    Raises ValueError for a grid with other fields, or a step that does not divide a day.
    """

    def __init__(self, grid: Grid | None = None, series: int = 3, seed: int = 0):
        self.grid = grid or default_grid()
        _check(self.grid, series)
        self.path = Path("generated waves")
        self.waves = [random_wave(number, seed) for number in range(series)]
        a_day = 24 // self.grid.step
        parts = (*zip(DAYS, (0, 1, 2), strict=True), (GAP, -1))
        one = np.concatenate([np.full(days * a_day, split, np.int8) for days, split in parts])
        self.length = len(one)
        last = series * len(one) - GAP * a_day  # no gap after the last series
        self.split: Int8[np.ndarray, "time"] = np.tile(one, series)[:last]
        """0 training, 1 validation, 2 test, -1 between series."""
        hours = np.arange(last) * np.timedelta64(self.grid.step * 3600, "s")
        self.times = np.datetime64("2001-01-01T00:00:00", "s") + hours
        """Valid time of each state, datetime64[s] (time,)."""
        self.gaps: Integer[np.ndarray, "gap"] = np.empty(0, np.int64)
        """Indices after which time jumps: none."""
        self.missing: Bool[np.ndarray, "lat lon"] = np.zeros(self.grid.shape, bool)
        self.complete: Bool[np.ndarray, "time"] = np.ones(last, bool)
        self.left_out: tuple[str, ...] = ()
        """Lines on what is not read: none."""

    def __len__(self) -> int:
        return len(self.times)

    def read(
        self, index: int | np.integer
    ) -> tuple[Float[np.ndarray, "upper level lat lon"], Float[np.ndarray, "surface lat lon"]]:
        """One state, float32 in SI units. Raises ValueError for an index out of range."""
        if not 0 <= index < len(self):
            raise ValueError(f"{self.path} have states 0 to {len(self) - 1}, not {index}")
        series, step = divmod(int(index), self.length)
        return self.at(series, step * self.grid.step)

    def at(
        self, series: int, hours: int | float | np.number
    ) -> tuple[Float[np.ndarray, "upper level lat lon"], Float[np.ndarray, "surface lat lon"]]:
        """The state of a series at any time after (or before) its start: the exact future."""
        if not 0 <= series < len(self.waves):
            raise ValueError(f"{self.path} have series 0 to {len(self.waves) - 1}, not {series}")
        grid = self.grid
        levels = (*grid.levels, 1000)  # the last one stands for the ground
        found = fields(self.waves[series], levels, grid.latitudes, grid.longitudes, hours)
        ground = {
            # hydrostatic at constant density; the standard atmosphere has 1013.25 hPa at height 0
            "msl": 101325 + AIR * (found["z"][-1] - _standard(np.array([1000.0]))[0]),
            "u10": FRICTION * found["u"][-1],
            "v10": FRICTION * found["v"][-1],
            "t2m": found["t"][-1],
        }
        upper = np.zeros((len(grid.upper), len(grid.levels), *grid.shape), np.float32)
        surface = np.zeros((len(grid.surface), *grid.shape), np.float32)
        for row, name in enumerate(grid.upper):
            upper[row] = found[name][:-1]
        for row, name in enumerate(grid.surface):
            surface[row] = ground[name]
        return upper, surface

    def constants(self) -> Float[np.ndarray, "constants lat lon"]:
        """The constant maps that the grid names, float32: `lsm` in 0..1, `orog` in m.

        Smooth, invented continents (harmonics of degree 3), alike for every seed. The waves know
        neither land nor hills.
        """
        grid = self.grid
        _, _, balanced = _shapes(3, grid.latitudes)
        x = np.deg2rad(np.array(grid.longitudes))
        shape = np.einsum("my,mx->yx", balanced, np.cos(np.arange(1, 4)[:, None] * (x - 1.2)))
        land = 0.5 + 0.5 * np.tanh(4 * (shape - 0.35))
        maps = {"lsm": land, "orog": 3000 * np.maximum(land - 0.5, 0)}
        out = np.zeros((len(grid.constants), *grid.shape), np.float32)
        for row, name in enumerate(grid.constants):
            out[row] = maps[name]
        return out


def _check(grid: Grid, series: int) -> None:
    """Refuse what cannot be generated, before anything is computed."""
    if series < 1:
        raise ValueError(f"generated waves need at least 1 series, got {series}")
    for kind, known in (("upper", UPPER), ("surface", SURFACE), ("constants", CONSTANTS)):
        unknown = [name for name in getattr(grid, kind) if name not in known]
        if unknown:
            raise ValueError(
                f"generated waves have no {kind} field {unknown[0]!r}; "
                f"take some of {', '.join(known)}"
            )
    if not all(20 <= level <= 1100 for level in grid.levels):
        raise ValueError(f"generated waves have levels from 20 to 1100 hPa, not {grid.levels}")
    if not all(grid.shape) or max(abs(lat) for lat in grid.latitudes) > 90:
        raise ValueError(
            f"generated waves need latitudes in -90..90 and longitudes, got a grid of {grid.shape}"
        )
    if grid.step < 1 or 24 % grid.step:
        raise ValueError(f"the step must divide a day, got {grid.step} h; take 1, 3, 6, 12 or 24")


def write_netcdf(path: Path, states: WaveStates, indices: Sequence[int] | np.ndarray) -> Path:
    """Write some states as a CF NetCDF-4 file, to try `predict` without data of one's own.

    Dimensions time, level (hPa, in the grid's order), lat, lon; variables by their short names,
    float32 in SI units; constants without time. Returns the path. Raises ValueError for no or
    unknown indices, ImportError without the extra `weather`.
    """
    try:
        import h5netcdf  # noqa: F401  (the engine: xarray would say only that none was found)
        import xarray
    except ImportError as error:
        raise ImportError(f"writing NetCDF needs {error.name}: {install('weather')}") from error
    if not len(indices):
        raise ValueError(f"{path}: no state to write was named; give at least one index")
    grid, read = states.grid, [states.read(index) for index in indices]
    variables: dict[str, tuple[tuple[str, ...], np.ndarray]] = {
        name: (("time", "level", "lat", "lon"), np.stack([upper[row] for upper, _ in read]))
        for row, name in enumerate(grid.upper)
    }
    variables |= {
        name: (("time", "lat", "lon"), np.stack([surface[row] for _, surface in read]))
        for row, name in enumerate(grid.surface)
    }
    maps = zip(grid.constants, states.constants(), strict=True)
    variables |= {name: (("lat", "lon"), values) for name, values in maps}
    level = {"units": "hPa", "standard_name": "air_pressure", "positive": "down"}
    north = {"units": "degrees_north", "standard_name": "latitude"}
    east = {"units": "degrees_east", "standard_name": "longitude"}
    dataset = xarray.Dataset(
        {
            name: (dims, values, {"units": UNITS[name]})
            for name, (dims, values) in variables.items()
        },
        {
            "time": ("time", states.times[np.asarray(indices)].astype("datetime64[ns]")),
            "level": ("level", np.array(grid.levels, np.int32), level),
            "lat": ("lat", np.array(grid.latitudes), north),
            "lon": ("lon", np.array(grid.longitudes), east),
        },
        {"Conventions": "CF-1.8", "title": "Rossby-Haurwitz waves (generated, not observed)"},
    )
    hours = {"time": {"units": "hours since 2001-01-01", "dtype": "int32"}}
    dataset.to_netcdf(path, engine="h5netcdf", encoding=hours)
    return path
