"""Prediction of large pictures by windows, with bounded memory."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from tenfold.nn import sliding


def predict(part: torch.Tensor) -> torch.Tensor:
    """Logits that depend on place within the window, as a network's do."""
    rows = torch.linspace(0, 1, part.shape[2])[:, None]
    return torch.stack([part[:, 0] + rows, part[:, 1] * rows.flip(0), part[:, 2]], 1)


SIZES = [(50, 70, 7), (20, 33, 12), (9, 8, 5), (50, 30, 99), (41, 20, 20)]


@pytest.mark.parametrize(("height", "width", "stride"), SIZES)
def test_a_row_of_windows_at_a_time_is_the_same(height: int, width: int, stride: int) -> None:
    picture = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(height))
    want = sliding.slide(predict, picture, 20, stride, multiple=4).argmax(1)[0]
    got = sliding.slide_classes(predict, picture, 20, stride, multiple=4)
    assert torch.equal(got.long(), want)


@pytest.mark.parametrize("size", [(30, 44), (7, 9), (12, 16), (100, 3)])
def test_classes_at_another_size(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    logits = torch.randn(4, 12, 16, generator=torch.Generator().manual_seed(0))
    want = F.interpolate(logits[None], size, mode="bilinear", align_corners=False)[0]
    monkeypatch.setattr(sliding, "AT_ONCE", 4 * 16 * 5)  # a few rows at a time
    found = sliding.classes_at(logits, *size)
    best = want.gather(0, found[None].long())[0]
    assert torch.allclose(best, want.amax(0), atol=1e-5)
