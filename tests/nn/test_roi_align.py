"""RoIAlign against the published formula, written as loops."""

from __future__ import annotations

import math

import pytest
import torch

from tenfold.nn.roi_align import assign_levels, multi_level_roi_align, roi_align


def bilinear(x: torch.Tensor, row: float, column: float) -> torch.Tensor:
    """One channel vector of x [channel height width], 0 more than a pixel outside."""
    _, height, width = x.shape
    if row < -1 or row > height or column < -1 or column > width:
        return torch.zeros(len(x), dtype=x.dtype)
    row, column = min(max(row, 0.0), height - 1), min(max(column, 0.0), width - 1)
    top, left = math.floor(row), math.floor(column)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    dy, dx = row - top, column - left
    upper = x[:, top, left] * (1 - dx) + x[:, top, right] * dx
    lower = x[:, bottom, left] * (1 - dx) + x[:, bottom, right] * dx
    return upper * (1 - dy) + lower * dy


def slow(
    x: torch.Tensor, boxes: torch.Tensor, owner: torch.Tensor, size: int, stride: int, samples: int
) -> torch.Tensor:
    out = torch.zeros(len(boxes), x.shape[1], size, size, dtype=x.dtype)
    for n, box in enumerate(boxes.tolist()):
        x0, y0, x1, y1 = (v / stride - 0.5 for v in box)
        for i in range(size):
            for j in range(size):
                total = torch.zeros(x.shape[1], dtype=x.dtype)
                for a in range(samples):
                    for b in range(samples):
                        row = y0 + (i + (a + 0.5) / samples) * (y1 - y0) / size
                        column = x0 + (j + (b + 0.5) / samples) * (x1 - x0) / size
                        total += bilinear(x[owner[n]], row, column)
                out[n, :, i, j] = total / samples**2
    return out


BOXES = torch.tensor([
    [3.0, 5, 20, 17], [-9, -4, 12, 30], [30, 30, 70, 90], [8, 8, 8, 8], [200, 200, 220, 230],
])  # fmt: skip
OWNER = torch.tensor([0, 1, 1, 0, 1])


@pytest.mark.parametrize("samples", [1, 2, 3])
def test_equals_the_loops(samples: int) -> None:
    x = torch.randn(2, 3, 9, 12, generator=torch.Generator().manual_seed(0))
    got = roi_align(x, BOXES, OWNER, 4, 4, samples)
    torch.testing.assert_close(got, slow(x, BOXES, OWNER, 4, 4, samples), rtol=1e-5, atol=1e-5)


def test_gradient() -> None:
    x = torch.randn(2, 2, 5, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda f: roi_align(f, BOXES[:3], OWNER[:3], 2, 8), (x,))


def test_a_constant_map_stays_constant() -> None:
    x = torch.full((1, 2, 8, 8), 3.5)
    box = torch.tensor([[4.0, 4, 25, 20]])
    found = roi_align(x, box, torch.tensor([0]), 7, 4)
    torch.testing.assert_close(found, torch.full((1, 2, 7, 7), 3.5))


def test_no_boxes() -> None:
    none = torch.zeros(0, 4)
    assert roi_align(torch.randn(1, 5, 4, 4), none, none[:, 0].long(), 3, 4).shape == (0, 5, 3, 3)


def test_levels_by_size() -> None:
    sides = torch.tensor([10.0, 111, 113, 223, 225, 449, 5000])
    boxes = torch.stack([0 * sides, 0 * sides, sides, sides], 1)
    assert assign_levels(boxes, 4).tolist() == [0, 0, 1, 1, 2, 3, 3]


def test_every_box_comes_from_its_level() -> None:
    draw = torch.Generator().manual_seed(0)
    maps = [torch.randn(2, 3, 64 // 2**i, 64 // 2**i, generator=draw) for i in range(3)]
    boxes = torch.tensor([[0.0, 0, 200, 200], [5, 5, 30, 30], [0, 0, 130, 120]])
    owner = torch.tensor([1, 0, 1])
    got = multi_level_roi_align(maps, (4, 8, 16), boxes, owner, 5)
    for i, level in enumerate((1, 0, 1)):
        want = roi_align(maps[level], boxes[i : i + 1], owner[i : i + 1], 5, 4 * 2**level)
        torch.testing.assert_close(got[i : i + 1], want)
