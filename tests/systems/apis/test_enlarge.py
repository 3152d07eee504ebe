"""Masks within boxes against the published chain over the whole picture."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tenfold.systems.apis.enlarge import enlarged


def aligned(x: Tensor, factor: int) -> Tensor:
    """AdelaiDet's aligned_bilinear."""
    height, width = x.shape[2:]
    x = F.pad(x, (0, 1, 0, 1), mode="replicate")
    size = (factor * height + 1, factor * width + 1)
    x = F.interpolate(x, size, mode="bilinear", align_corners=True)
    x = F.pad(x, (factor // 2, 0, factor // 2, 0), mode="replicate")
    return x[:, :, : factor * height, : factor * width]


@pytest.mark.parametrize(
    ("resized", "original", "box"),
    [
        ((61, 93), (40, 61), (3, 5, 20, 40)),
        ((64, 64), (64, 64), (0, 0, 64, 64)),
        ((50, 40), (200, 160), (100, 150, 160, 200)),
        ((33, 60), (33, 61), (60, 32, 61, 33)),
    ],
)
def test_a_box_is_what_the_whole_chain_has_there(
    resized: tuple[int, int], original: tuple[int, int], box: tuple[int, int, int, int]
) -> None:
    cells = [-(-side // 32) * 8 for side in resized]
    maps = torch.rand(3, *cells, generator=torch.Generator().manual_seed(0))
    whole = aligned(maps[:, None], 4)[:, :, : resized[0], : resized[1]]
    whole = F.interpolate(whole, original, mode="bilinear", align_corners=False)[:, 0]
    x0, y0, x1, y1 = box
    found = enlarged(maps, resized, original, box)
    torch.testing.assert_close(found, whole[:, y0:y1, x0:x1], rtol=1e-5, atol=1e-6)
