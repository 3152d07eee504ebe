"""Random walks against dense matrices, and what they must leave alone."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from tenfold.systems.usage import random_walk


def dense(features: torch.Tensor, radius: int, cropped: bool) -> torch.Tensor:
    """PSA's affinities of all pairs as a matrix, self included."""
    rows, columns = features.shape[1:]
    places = [(y, x) for y in range(rows) for x in range(columns)]
    matrix = torch.eye(len(places), dtype=features.dtype)
    for i, (y, x) in enumerate(places):
        inside = y < rows - radius + 1 and radius - 1 <= x < columns - radius + 1
        for j, (v, u) in enumerate(places):
            after = v > y or (v == y and u > x)
            if after and (v - y) ** 2 + (u - x) ** 2 < radius**2 and (inside or not cropped):
                apart = (features[:, y, x] - features[:, v, u]).abs().mean()
                matrix[i, j] = matrix[j, i] = torch.exp(-apart)
    return matrix


@pytest.mark.parametrize("cropped", [False, True])
def test_psa_is_the_dense_walk(cropped: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(5, 6, 7, generator=generator)
    maps = torch.rand(2, 23, 26, generator=generator)
    found = random_walk.psa(features, maps, 4, 3, 2.0, 3.0, 3, full_border=not cropped)
    matrix = dense(features.double(), 3, cropped) ** 3
    steps = torch.linalg.matrix_power(matrix / matrix.sum(0), 8)
    seeds = F.pad(torch.cat([(1 - maps.amax(0, keepdim=True)) ** 2, maps]), (0, 2, 0, 1)).double()
    walked = (F.avg_pool2d(seeds, 4).flatten(1) @ steps).view(1, 3, 6, 7)
    wanted = F.interpolate(walked, scale_factor=4, mode="bilinear")[0, :, :23, :26]
    torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=1e-6)


def test_a_wall_holds_the_walk() -> None:
    boundary, maps = torch.zeros(9, 12), torch.zeros(1, 9, 12)
    boundary[:, 6], maps[0, 4, 2] = 1, 1
    walked = random_walk.irn(boundary, maps)[0]
    assert float(walked[:, 6:].abs().max()) == 0 and float(walked[:, :6].min()) > 0.01
    free = random_walk.irn(boundary * 0, maps)[0]
    assert float(free[:, 6:].min()) > 0


def test_a_path_is_the_pixels_near_the_line() -> None:
    assert random_walk.path((0, 2)) == [(0, 0), (0, 1), (0, 2)]
    assert random_walk.path((1, -1)) == [(0, -1), (0, 0), (1, -1), (1, 0)]
    assert len(random_walk.offsets(5)) == 34
    with pytest.raises(ValueError, match="radius of 1"):
        random_walk.offsets(1)


def test_a_grid_smaller_than_the_radius() -> None:
    for rows, columns in ((1, 1), (2, 9), (9, 2)):
        maps = torch.rand(2, rows, columns)
        assert random_walk.irn(torch.zeros(rows, columns), maps).shape == maps.shape


def test_features_must_fit_the_maps() -> None:
    with pytest.raises(ValueError, match="expected 3x4"):
        random_walk.psa(torch.zeros(2, 3, 3), torch.zeros(1, 20, 30))


def test_attention_is_a_product() -> None:
    affinity, maps = torch.rand(6, 6), torch.rand(2, 2, 3)
    found = random_walk.by_attention(affinity, maps)
    wanted = torch.stack([(affinity @ one.flatten()).view(2, 3) for one in maps])
    torch.testing.assert_close(found, wanted)
