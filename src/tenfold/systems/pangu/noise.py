"""Perlin noise on the grid, with which the members of an ensemble start."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

Random = torch.Generator | np.random.Generator | np.random.RandomState


@dataclass(frozen=True)
class Noise:
    """Fractal noise: octaves of Perlin noise, each finer and weaker than the one before."""

    amplitude: float = 0.2
    """Factor of the sum, in standard deviations of a field (pseudocode)."""
    period: tuple[int, int] = (12, 12)
    """Lattice cells of the first octave along latitude and longitude (pseudocode: 12)."""
    octaves: int = 3
    """Number of octaves (pseudocode: 3, so 12, 24 and 48 cells)."""
    persistence: float = 0.5
    """Amplitude of an octave over that of the one before (pseudocode)."""
    lacunarity: int = 2
    """Cells of an octave over those of the one before (pseudocode)."""
    tileable: bool = True
    """True if the last column continues in the first: yes for a globe, no for a region. The
    official code does not, which leaves a seam at 0 degrees east. (ours)"""

    def cells(self) -> list[tuple[int, int]]:
        """Lattice cells of every octave; ValueError if a setting has no meaning."""
        if self.octaves < 1 or self.lacunarity < 1 or min(self.period) < 1:
            raise ValueError(
                f"noise of {self.octaves} octaves, lacunarity {self.lacunarity} and period "
                f"{self.period}: give 1 or more of each."
            )
        if not (math.isfinite(self.amplitude) and math.isfinite(self.persistence)):
            raise ValueError(
                f"noise of amplitude {self.amplitude} and persistence {self.persistence}: "
                "give finite numbers."
            )
        rows, columns = self.period
        factors = [self.lacunarity**octave for octave in range(self.octaves)]
        return [(rows * factor, columns * factor) for factor in factors]

    def check(self, shape: tuple[int, int]) -> None:
        """Refuse a grid (rows, columns) on which the finest octave has less than a point a cell."""
        for cells, points, axis in zip(
            self.cells()[-1], shape, ("latitude", "longitude"), strict=True
        ):
            if cells > points:
                raise ValueError(
                    f"noise has {cells} cells along {axis}, the grid {points} points: a cell needs "
                    "one point at least. Choose a shorter period or fewer octaves."
                )


def angles(
    cells: tuple[int, int], random: Random, fields: int = 1, tileable: bool = False
) -> Float[Tensor, "fields nodes_lat nodes_lon"]:
    """Directions of the gradients at the nodes of a lattice, uniform in 0 to 2 pi, float64.

    The last column is the first if tileable; as many numbers are drawn either way.
    """
    size = (fields, cells[0] + 1, cells[1] + 1)
    if isinstance(random, torch.Generator):
        drawn = torch.rand(size, generator=random, dtype=torch.float64, device=random.device)
    else:
        drawn = torch.from_numpy(random.random(size))
    if tileable:
        drawn[..., -1] = drawn[..., 0]
    return 2 * math.pi * drawn


def _axis(cells: int, points: int, whole: int) -> tuple[Tensor, Tensor]:
    """Matrices (points, cells + 1) of the two nodes beside each point of one axis.

    Point i lies at i * cells / whole. First their weights, the fade of the distance; then these
    times the offset from the node, which is what the gradient is multiplied with.
    """
    at = torch.arange(points, dtype=torch.float64) * cells / whole
    # The product is rounded: a point on a node may come out just below it, which changes nothing.
    node = at.floor().clamp(max=cells - 1).long()
    t = at - node
    fade = t**3 * (t * (6 * t - 15) + 10)
    weights = torch.zeros(points, cells + 1, dtype=torch.float64)
    weights.scatter_(1, node[:, None], (1 - fade)[:, None])
    weights.scatter_(1, node[:, None] + 1, fade[:, None])
    offsets = at[:, None] - torch.arange(cells + 1, dtype=torch.float64)
    return weights, weights * offsets


def perlin(
    directions: Float[Tensor, "fields nodes_lat nodes_lon"],
    shape: tuple[int, int],
    whole: tuple[int, int] | None = None,
) -> Float[Tensor, "fields lat lon"]:
    """Perlin noise of gradients (cos along latitude, sin along longitude), about -1 to 1, float64.

    The lattice covers `whole` rows and columns, of which the first `shape` are made (default: all).
    Interpolation is a product of two axes, so all fields are four matrix products. Equal to
    perlin-numpy, which the pseudocode uses.
    """
    whole = whole or shape
    device = directions.device
    rows, rows_off = (m.to(device) for m in _axis(directions.shape[1] - 1, shape[0], whole[0]))
    columns, columns_off = (
        m.to(device) for m in _axis(directions.shape[2] - 1, shape[1], whole[1])
    )
    along_lat = rows_off @ directions.cos() @ columns.T
    along_lon = rows @ directions.sin() @ columns_off.T
    return math.sqrt(2) * (along_lat + along_lon)


def covered(shape: tuple[int, int], noise: Noise) -> tuple[int, int]:
    """Rows and columns that the lattice covers: the grid, padded so that cells have whole points.

    721 rows become 768. Columns of tileable noise stay: cropping would break the
    tile, so there a cell may have a fraction of a point.
    """
    finest = noise.cells()[-1]
    rows, columns = (math.ceil(n / cells) * cells for n, cells in zip(shape, finest, strict=True))
    return rows, shape[1] if noise.tileable else columns


def fractal(
    shape: tuple[int, int], noise: Noise, random: Random, fields: int = 1
) -> Float[Tensor, "fields lat lon"]:
    """Octaves of noise summed, `amplitude` not applied; each field independent, float64.

    Any rows and columns. Errors: `Noise.check`.
    """
    noise.check(shape)
    whole = covered(shape, noise)
    total = torch.zeros(1, dtype=torch.float64)
    for octave, cells in enumerate(noise.cells()):
        directions = angles(cells, random, fields, noise.tileable)
        total = total.to(directions.device) + noise.persistence**octave * perlin(
            directions, shape, whole
        )
    return total


def member_noise(
    shape: tuple[int, int, int], member: int, seed: int, noise: Noise | None = None
) -> Float[Tensor, "fields lat lon"]:
    """Noise added to the normalised fields of one member; member 0 gets zeros (paper), float32.

    Every field has its own noise (ours; the paper does not say). It follows from seed and member
    alone: members made one at a time, elsewhere or in a larger ensemble are the same.
    """
    if member < 0 or seed < 0:
        raise ValueError(f"member {member} of seed {seed}: neither may be negative.")
    noise = noise or Noise()
    fields, *size = shape
    grid = (size[0], size[1])
    noise.check(grid)
    if member == 0:
        return torch.zeros(shape)
    random = np.random.default_rng([seed, member])
    return (noise.amplitude * fractal(grid, noise, random, fields)).float()


def perturbation(
    shape: tuple[int, int, int], members: int, seed: int, noise: Noise | None = None
) -> Float[Tensor, "members fields lat lon"]:
    """`member_noise` of all members, the unperturbed one first.

    At 69 fields of 721 x 1440 points a member has 287 MB: make them one at a time there.
    """
    if members < 1:
        raise ValueError(f"an ensemble of {members} members: give 1 or more.")
    return torch.stack([member_noise(shape, member, seed, noise) for member in range(members)])
