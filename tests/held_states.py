"""States in memory with known values, for tests of what is computed from states."""

from dataclasses import dataclass, field

import numpy as np

from tenfold.data.weather.grid import Grid

GRID = Grid(("z", "t"), (850, 500), ("msl",), (), (60.0, 0.0, -60.0), (0.0, 90.0, 180.0, 270.0))


@dataclass
class Held:
    """States in memory, (time, field, lat, lon), in the order of the grid's fields."""

    values: np.ndarray
    grid: Grid = GRID
    step: float = 6.0
    first: str = "2000-01-01T00"
    reads: list[int] = field(default_factory=list)

    @property
    def times(self) -> np.ndarray:
        seconds = (np.arange(len(self.values)) * self.step * 3600).astype(np.int64)
        return np.datetime64(self.first, "s") + seconds.astype("timedelta64[s]")

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        self.reads.append(index)
        above = (len(self.grid.upper), len(self.grid.levels))
        upper = self.values[index, : above[0] * above[1]].reshape(*above, *self.grid.shape)
        return upper, self.values[index, above[0] * above[1] :]


def weather(times: int, seed: int = 0, missing: float = 0.0) -> np.ndarray:
    """Fields with the size and offset of z, t and msl; a share of points is missing."""
    random = np.random.default_rng(seed)
    middle = np.array([1.4e4, 5.5e4, 280.0, 255.0, 1.01e5])[:, None, None]
    spread = np.array([900.0, 2000.0, 15.0, 12.0, 1000.0])[:, None, None]
    values = (middle + spread * random.normal(size=(times, 5, *GRID.shape))).astype("f4")
    values[random.random(values.shape) < missing] = np.nan
    return values
