"""Dense 3x3 convolutions by fewer products."""

from __future__ import annotations

import pytest
import torch

from tenfold.nn import winograd
from tenfold.nn.winograd import conv3x3


@pytest.mark.parametrize("size", [(8, 6), (9, 7), (3, 1), (1, 2)])
@pytest.mark.parametrize("tiles", [288, 1])
def test_equals_the_convolution(
    size: tuple[int, int], tiles: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(winograd, "LEAST", 1)
    monkeypatch.setattr(winograd, "TILES", tiles)
    conv = torch.nn.Conv2d(5, 4, 3, padding=1, bias=False)
    x = torch.randn(2, 5, *size, requires_grad=True)
    found, want = conv3x3(conv, x), conv(x)
    assert "Winograd" in type(found.grad_fn.next_functions[0][0]).__name__
    torch.testing.assert_close(found, want, rtol=1e-4, atol=1e-5)
    given = torch.randn_like(want)
    pairs = (torch.autograd.grad(y, [x, conv.weight], given) for y in (found, want))
    for mine, torchs in zip(*pairs, strict=True):
        torch.testing.assert_close(mine, torchs, rtol=1e-4, atol=1e-5)


def test_few_channels_and_other_types_are_left_to_torch() -> None:
    conv = torch.nn.Conv2d(5, 4, 3, padding=1, bias=False)
    x = torch.randn(2, 5, 8, 6)
    assert torch.equal(conv3x3(conv, x), conv(x))
    wide = torch.nn.Conv2d(400, 300, 3, padding=1, bias=False)
    y = torch.randn(1, 400, 4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        assert conv3x3(wide, y).dtype == torch.bfloat16
    assert torch.equal(conv3x3(wide.double(), y.double()), wide(y.double()))
