"""Overlap of label maps and boxes, against loops."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tenfold.metrics import iou


def maps(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    truth = torch.randint(4, (6, 7), generator=draw)
    truth[torch.rand(6, 7, generator=draw) < 0.2] = 255
    return torch.randint(4, (6, 7), generator=draw), truth


@given(st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_against_loops(seed: int) -> None:
    predicted, truth = maps(seed)
    counts = iou.confusion(predicted, truth, 5)
    pairs = [(int(p), int(t)) for p, t in zip(predicted.flatten(), truth.flatten(), strict=True)]
    pairs = [(p, t) for p, t in pairs if t != 255]
    each = iou.iou(counts)
    for c in range(5):
        both = sum(p == c and t == c for p, t in pairs)
        either = sum(p == c or t == c for p, t in pairs)
        assert math.isnan(each[c]) if not either else each[c] == pytest.approx(both / either)
    found = iou.scores(counts)
    assert found["aAcc"] == pytest.approx(100 * sum(p == t for p, t in pairs) / len(pairs))
    assert found["mIoU"] == pytest.approx(100 * float(each.nanmean()))


def test_order_of_pixels_and_ignored_ones_do_not_matter() -> None:
    predicted, truth = maps(0)
    order = torch.randperm(42)
    shuffled = iou.confusion(predicted.flatten()[order], truth.flatten()[order], 4)
    assert torch.equal(shuffled, iou.confusion(predicted, truth, 4))
    other = torch.where(truth == 255, 3 - predicted, predicted)
    assert torch.equal(iou.confusion(other, truth, 4), iou.confusion(predicted, truth, 4))


def test_labels_out_of_range_are_named() -> None:
    with pytest.raises(ValueError, match=r"true labels reach 0\.\.7, allowed are 0\.\.3"):
        iou.confusion(torch.zeros(3).long(), torch.tensor([0, 7, 255]), 4)


def test_boxes() -> None:
    a = torch.tensor([[0.0, 0, 2, 2], [0, 0, 1, 1], [5, 5, 4, 4]])
    b = torch.tensor([[1.0, 1, 3, 3], [0, 0, 1, 1], [4, 4, 5, 5]])
    assert iou.box_iou(a, b).tolist() == pytest.approx([1 / 7, 1, 0])
