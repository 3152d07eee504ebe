"""Boxes: overlap, coding and suppression against slow references."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from tenfold.nn import boxes


def some(count: int, seed: int, side: float = 50.0) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    low = torch.rand(count, 2, generator=draw) * side
    return torch.cat([low, low + 1 + torch.rand(count, 2, generator=draw) * side / 2], 1)


def slow_iou(a: list[float], b: list[float]) -> float:
    wide = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    tall = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = [(c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)]
    return wide * tall / (sum(areas) - wide * tall)


def slow_nms(found: torch.Tensor, scores: torch.Tensor, threshold: float) -> list[int]:
    order = sorted(range(len(found)), key=lambda i: (-float(scores[i]), i))
    kept: list[int] = []
    for i in order:
        overlaps = [slow_iou(found[i].tolist(), found[j].tolist()) for j in kept]
        if all(o <= threshold for o in overlaps):
            kept.append(i)
    return kept


def test_iou_and_area() -> None:
    a, b = some(7, 0), some(5, 1)
    want = torch.tensor([[slow_iou(x.tolist(), y.tolist()) for y in b] for x in a])
    torch.testing.assert_close(boxes.iou(a, b), want)
    assert boxes.area(torch.tensor([[3.0, 3.0, 1.0, 9.0]])).item() == 0
    torch.testing.assert_close(boxes.iou(a, a).diagonal(), torch.ones(7))


def test_covered_is_of_the_own_area() -> None:
    small, large = torch.tensor([[2.0, 2, 4, 4]]), torch.tensor([[0.0, 0, 3, 8]])
    assert boxes.covered(small, large).item() == pytest.approx(0.5)
    assert boxes.covered(large, small).item() == pytest.approx(2 / 24)


def test_giou_by_hand() -> None:
    a, b = torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[3.0, 0, 5, 2]])
    # no overlap, union 8, outer box 5 x 2: GIoU = 0 - (10 - 8) / 10
    assert boxes.giou_loss(a, b).item() == pytest.approx(1.2, abs=1e-5)
    assert boxes.giou_loss(a, a).item() == pytest.approx(0.0, abs=1e-5)


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_decode_undoes_encode(seed: int) -> None:
    a, b = some(6, seed), some(6, seed + 1)
    weights = (10.0, 10.0, 5.0, 5.0)
    torch.testing.assert_close(
        boxes.decode(boxes.encode(a, b, weights), b, weights), a, rtol=1e-4, atol=1e-3
    )


def test_decode_limits_growth() -> None:
    wild = boxes.decode(torch.tensor([[0.0, 0, 99, 99]]), torch.tensor([[0.0, 0, 16, 16]]))
    assert (wild[0, 2] - wild[0, 0]).item() == pytest.approx(1000)


@given(st.integers(0, 10_000), st.floats(0.1, 0.9))
@settings(max_examples=30, deadline=None)
def test_nms_is_the_greedy_one(seed: int, threshold: float) -> None:
    found = some(25, seed, 20.0)
    scores = (torch.rand(25, generator=torch.Generator().manual_seed(seed)) * 8).round() / 8
    assert boxes.nms(found, scores, threshold).tolist() == slow_nms(found, scores, threshold)


def test_batched_nms_keeps_groups_apart() -> None:
    found, draw = some(60, 3, 20.0), torch.Generator().manual_seed(0)
    scores, groups = torch.rand(60, generator=draw), torch.randint(4, (60,), generator=draw)
    want = []
    for group in range(4):
        rows = (groups == group).nonzero()[:, 0]
        want += rows[torch.tensor(slow_nms(found[rows], scores[rows], 0.4))].tolist()
    want.sort(key=lambda i: -float(scores[i]))
    assert boxes.batched_nms(found, scores, groups, 0.4).tolist() == want


def test_nothing_in_nothing_out() -> None:
    none, no_scores = torch.zeros(0, 4), torch.zeros(0)
    assert boxes.nms(none, no_scores, 0.5).shape == (0,)
    assert boxes.batched_nms(none, no_scores, torch.zeros(0).long(), 0.5).shape == (0,)
    assert boxes.iou(none, some(2, 0)).shape == (0, 2)
    assert boxes.giou_loss(none, none).shape == (0,)


def test_clip_and_size() -> None:
    cut = boxes.clip_to(torch.tensor([[-3.0, 2, 50, 60]]), 40, 30)
    assert cut.tolist() == [[0, 2, 30, 40]]
    assert boxes.is_large(cut, 30).tolist() == [True]
    assert boxes.is_large(cut, 31).tolist() == [False]


def test_shapes_are_checked_in_tests() -> None:
    """conftest.py checks what is called by a named shape, and what has one in the annotation."""
    with pytest.raises(TypeCheckError, match="boxes"):
        boxes.clip_to(torch.zeros(3, 5), 10, 10)
    with pytest.raises(TypeCheckError, match="a"):
        boxes.iou(torch.zeros(3, 5), torch.zeros(2, 4))
