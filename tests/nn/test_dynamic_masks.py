"""Masks by networks of each object, against a grouped convolution over copies of the features."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tenfold.nn import dynamic_masks as factored
from tenfold.nn.dynamic_masks import DynamicHead, aligned_bilinear, dynamic_masks


def grouped(
    features: Tensor, numbers: Tensor, centres: Tensor, levels: Tensor, image: Tensor, head
) -> Tensor:
    """As official code computes them (dynamic_mask_head.py)."""
    x = features[image]
    height, width = x.shape[2:]
    if head.coordinates:
        middle = head.stride // 2
        y, at = (torch.arange(n) * head.stride + middle for n in (height, width))
        cells = torch.stack(torch.meshgrid(at, y, indexing="xy"))
        extent = torch.tensor(head.extents)[levels, None, None, None]
        x = torch.cat([(centres[:, :, None, None] - cells) / extent, x], 1)
    x, start, count = x.reshape(1, -1, height, width), 0, len(numbers)
    widths = list(zip(head.widths[:-1], head.widths[1:], strict=True))
    at_bias = sum(a * b for a, b in widths)
    for layer, (wide, out) in enumerate(widths):
        weight = numbers[:, start : start + wide * out].reshape(count * out, wide, 1, 1)
        bias = numbers[:, at_bias : at_bias + out].reshape(-1)
        x = F.conv2d(x if layer == 0 else x.relu(), weight, bias, groups=count)
        start, at_bias = start + wide * out, at_bias + out
    x = x.reshape(count, 1, height, width)
    return aligned_bilinear(x, head.stride // head.out_stride)[:, 0]


def drawn(head: DynamicHead, count: int = 7) -> tuple[Tensor, ...]:
    draw = torch.Generator().manual_seed(count)
    features = torch.randn(3, head.features, 6, 5, generator=draw)
    numbers = torch.randn(count, head.numbers, generator=draw) / 2
    centres = torch.rand(count, 2, generator=draw) * 48
    levels = torch.randint(5, (count,), generator=draw)
    return features, numbers, centres, levels, torch.randint(3, (count,), generator=draw)


@pytest.mark.parametrize("block", [1, 300, 10**6])
@pytest.mark.parametrize(
    "head",
    [
        DynamicHead(),
        DynamicHead(features=16),
        DynamicHead(features=3, channels=4, layers=2, coordinates=False, out_stride=8),
        DynamicHead(features=5, layers=1, out_stride=2),
    ],
    ids=["CondInst", "BoxInst", "two", "one"],
)
def test_equal_to_a_grouped_convolution(
    head: DynamicHead, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(factored, "BLOCK", block)
    features, numbers, *where = drawn(head)
    found = []
    for function in (grouped, dynamic_masks):
        parts = [features.clone().requires_grad_(), numbers.clone().requires_grad_()]
        masks = function(*parts, *where, head)
        weight = torch.linspace(-1, 2, masks.numel()).view(masks.shape)
        found.append((masks, *torch.autograd.grad((masks * weight).sum(), parts)))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_no_object() -> None:
    features, numbers, *where = drawn(DynamicHead(), 0)
    features.requires_grad_()
    masks = dynamic_masks(features, numbers, *where)
    assert masks.shape == (0, 12, 10)
    masks.sum().backward()
    assert features.grad is not None and not features.grad.any()


def test_the_numbers_of_an_object() -> None:
    assert DynamicHead().numbers == 169 and DynamicHead(features=16).numbers == 233
    with pytest.raises(ValueError, match="stride 8 is no multiple of 3"):
        DynamicHead(out_stride=3)
    with pytest.raises(ValueError, match="layers 0"):
        DynamicHead(layers=0)


@pytest.mark.parametrize("factor", [1, 2, 3, 4])
def test_a_cell_stays_where_it_is(factor: int) -> None:
    x = torch.arange(12.0).view(1, 1, 3, 4)
    found = aligned_bilinear(x, factor)
    assert found.shape == (1, 1, 3 * factor, 4 * factor)
    assert torch.autograd.gradcheck(
        lambda y: aligned_bilinear(y, factor), x.double().requires_grad_()
    )
    middle = factor // 2
    torch.testing.assert_close(found[..., middle::factor, middle::factor], x)
