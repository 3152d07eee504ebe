"""Two resolutions and their fusion, sliding windows in one batch, and the loss of pixels."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tenfold.nn.aspp import DaformerHead
from tenfold.nn.hrda import Box, Hrda, hrda_loss
from tenfold.nn.mit import MixTransformer
from tenfold.nn.pixel_loss import pixel_loss
from tenfold.nn.sliding import slide, slide_at_once


class Quarter(nn.Module):
    """An encoder of one map, means of 4 x 4 pixels."""

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [F.avg_pool2d(x, 4, ceil_mode=True)]


class Scaled(nn.Module):
    """A head: the map times a number."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, maps: list[torch.Tensor]) -> torch.Tensor:
        return self.factor * maps[0]


def network(attention: float, crop: tuple[int, int] = (16, 24)) -> Hrda:
    return Hrda(Quarter(), Scaled(1.0), Scaled(attention), crop)


def test_windows_in_one_batch_equal_windows_one_by_one() -> None:
    x = torch.randn(2, 3, 40, 48)
    sizes = []

    def predict(part: torch.Tensor) -> torch.Tensor:
        sizes.append(tuple(part.shape))
        return part * torch.arange(16.0)[:, None]

    one_by_one = slide(predict, x, 16, 8)
    assert len(sizes) == 20
    torch.testing.assert_close(slide_at_once(predict, x, (16, 16), (8, 8)), one_by_one)
    assert sizes[20:] == [(40, 3, 16, 16)]


def test_windows_of_smaller_logits() -> None:
    x = torch.randn(1, 3, 40, 48)
    got = slide_at_once(lambda part: F.avg_pool2d(part, 4), x, (16, 24), (8, 12))
    torch.testing.assert_close(got, F.avg_pool2d(x, 4))
    small = slide_at_once(lambda part: F.avg_pool2d(part, 4), x[:, :, :8, :12], (16, 24), (8, 12))
    torch.testing.assert_close(small, F.avg_pool2d(x[:, :, :8, :12], 4))


def test_attention_chooses_between_the_resolutions() -> None:
    x = torch.rand(1, 3, 32, 48)
    fine = F.avg_pool2d(x, 4)
    coarse = F.interpolate(F.avg_pool2d(x, 8), scale_factor=2, mode="bilinear")
    torch.testing.assert_close(network(1e6)(x).fused, fine)
    torch.testing.assert_close(network(-1e6)(x).fused, coarse)
    torch.testing.assert_close(network(0.0)(x).fused, (fine + coarse) / 2)


def test_outside_the_crop_the_context_is_alone() -> None:
    x, box = torch.rand(1, 3, 32, 48), Box(8, 24, 16, 40)
    found = network(0.0)(x, box)
    coarse = F.interpolate(F.avg_pool2d(x, 8), scale_factor=2, mode="bilinear")
    torch.testing.assert_close(found.detail, F.avg_pool2d(x[:, :, 8:24, 16:40], 4))
    torch.testing.assert_close(found.context[..., 1:3, 2:5], F.avg_pool2d(x, 8)[..., 1:3, 2:5] / 2)
    torch.testing.assert_close(found.fused[..., -1, :], coarse[..., -1, :])
    assert len(found.features) == 1 and found.features[0].shape == (1, 3, 4, 6)


def test_boxes_are_drawn_inside() -> None:
    own, draw = network(0.0), torch.Generator().manual_seed(0)
    boxes = {own.draw_box(40, 48, draw) for _ in range(100)}
    assert {box.top for box in boxes} == {0, 8, 16} and {box.left for box in boxes} == {0, 8, 16}
    assert {box.bottom - box.top for box in boxes} == {16}
    assert own.draw_box(16, 24, draw) == Box(0, 16, 0, 24)
    assert own.draw_box(18, 24, draw).top == 0


def test_sizes_that_do_not_fit() -> None:
    own = network(0.0)
    with pytest.raises(ValueError, match="8 x 48 is smaller than HRDA's detail crop 16 x 24"):
        own.draw_box(8, 48, torch.Generator())
    with pytest.raises(ValueError, match="36 x 48 pixels .* pad them to multiples of 8"):
        own(torch.rand(1, 3, 36, 48))
    with pytest.raises(ValueError, match="crop 12 x 24 .* must be multiples of 8"):
        network(0.0, (12, 24))


def test_losses_add_up() -> None:
    x, box = torch.rand(2, 3, 32, 48), Box(8, 24, 16, 40)
    labels = torch.randint(3, (2, 32, 48), dtype=torch.uint8)
    labels[:, :5] = 255
    weights = torch.rand(2, 32, 48)
    found = network(0.3)(x, box)
    fused, detail = hrda_loss(found, labels, box, weights, 0.2)
    torch.testing.assert_close(fused, 0.8 * pixel_loss(found.fused, labels, weights))
    want = pixel_loss(found.detail, labels[:, 8:24, 16:40], weights[:, 8:24, 16:40])
    torch.testing.assert_close(detail, 0.2 * want)


def test_bfloat16_trains_all_weights() -> None:
    torch.manual_seed(0)
    sizes = ((8, 16, 24, 32), (1, 2, 3, 4), (1, 1, 1, 1))
    head = DaformerHead(sizes[0], 3, 8, 8, (1, 6))
    own = Hrda(MixTransformer(*sizes), head, DaformerHead(sizes[0], 3, 8, 8, ()), (32, 32))
    x, box, labels = torch.randn(2, 3, 64, 96), Box(8, 40, 16, 48), torch.randint(3, (2, 64, 96))
    with torch.autocast("cpu", torch.bfloat16):
        found = own(x, box)
        low = sum(hrda_loss(found, labels, box))
    low.backward()
    assert found.detail.dtype == torch.bfloat16 and low.dtype == torch.float32
    exact = sum(hrda_loss(own(x, box), labels, box))
    torch.testing.assert_close(low, exact, rtol=0.01, atol=0)
    for name, parameter in own.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name


def test_ignored_pixels_count_in_the_mean() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(1, 3, 4, 4), torch.randint(3, (1, 8, 8))
    labels[:, :, 4:] = 255
    large = F.interpolate(logits, (8, 8), mode="bilinear")
    want = F.cross_entropy(large[..., :4], labels[..., :4], reduction="sum") / 64
    torch.testing.assert_close(pixel_loss(logits, labels), want)
    half = torch.full((1, 8, 8), 0.5)
    torch.testing.assert_close(pixel_loss(logits, labels, half), want / 2)
    assert pixel_loss(logits, torch.full_like(labels, 255)) == 0
