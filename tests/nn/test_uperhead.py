"""UPerHead, its loss, and sliding windows."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from tenfold.nn.sliding import slide, starts
from tenfold.nn.uperhead import FcnHead, UPerHead, segmentation_loss


def maps(height: int = 24, width: int = 20) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    sides = [(-(-height // s), -(-width // s)) for s in (1, 2, 4, 8)]
    return [torch.randn(2, 4 + i, *side, generator=draw) for i, side in enumerate(sides)]


@pytest.mark.parametrize("size", [(24, 20), (23, 17)])
def test_size_and_gradients(size: tuple[int, int]) -> None:
    head = UPerHead((4, 5, 6, 7), 8, 3)
    found = head(maps(*size))
    assert found.shape == (2, 3, *size)
    found.square().sum().backward()
    assert not [name for name, p in head.named_parameters() if p.grad is None]


def test_against_its_description() -> None:
    """Top-down sums of laterals, all levels at the finest size, fused."""
    head, x = UPerHead((4, 5, 6, 7), 8, 3).eval(), maps()

    def up(y: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        return F.interpolate(y, like.shape[2:], mode="bilinear")

    pooled = [
        up(part(F.adaptive_avg_pool2d(x[3], side)), x[3])
        for side, part in zip((1, 2, 3, 6), head.pooling.parts, strict=True)
    ]
    p5 = head.pooling.bottleneck(torch.cat([x[3], *pooled], 1))
    l2, l3, l4 = (head.laterals[i](x[i]) for i in range(3))
    l4 = l4 + up(p5, l4)
    l3 = l3 + up(l4, l3)
    l2 = l2 + up(l3, l2)
    levels = [head.smooth[i](level) for i, level in enumerate((l2, l3, l4))]
    fused = torch.cat([levels[0], *(up(y, levels[0]) for y in (levels[1], levels[2], p5))], 1)
    torch.testing.assert_close(head(x), head.classify(head.bottleneck(fused)))


def test_auxiliary_head() -> None:
    head = FcnHead(6, 8, 3, convs=2)
    assert head(maps()[2]).shape == (2, 3, 6, 5)


def test_ignored_labels_do_not_count() -> None:
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    labels = torch.randint(3, (1, 8, 8))
    half = labels.clone()
    half[:, :, 4:] = 255
    left = F.interpolate(logits, (8, 8), mode="bilinear")[..., :4]
    want = F.cross_entropy(left, half[:, :, :4])
    torch.testing.assert_close(segmentation_loss(logits, half), want)
    none = segmentation_loss(logits, torch.full_like(labels, 255))
    none.backward()
    assert none.item() == 0 and logits.grad is not None and not logits.grad.any()


def test_windows_end_inside() -> None:
    assert starts(10, 12, 5) == [0]
    assert starts(12, 5, 4) == [0, 4, 7]
    assert starts(13, 5, 4) == [0, 4, 8]


def test_slide_is_exact_for_pixelwise_prediction() -> None:
    x = torch.randn(2, 3, 23, 31)
    got = slide(lambda part: part * 2 + 1, x, 8, 5, multiple=4)
    torch.testing.assert_close(got, x * 2 + 1)
    sizes: list[torch.Size] = []
    slide(lambda part: sizes.append(part.shape[2:]) or part, x[:, :, :6, :7], 8, 5, multiple=4)
    assert sizes == [(8, 8)]
