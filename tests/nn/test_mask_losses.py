"""Losses of masks: hand-computed cases, and what must have no influence."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from tenfold.nn import mask_losses as losses


def test_dice_and_projection_by_hand() -> None:
    scores = torch.tensor([[[0.5, 1.0], [0.0, 0.0]]])
    truth = torch.tensor([[[1.0, 1.0], [0.0, 0.0]]])
    assert losses.dice_loss(scores, truth).item() == pytest.approx(1 - 3 / (1.25 + 2 + 1e-5))
    columns, rows = 1 - 3 / (3.25 + 1e-5), 1 - 2 / (2 + 1e-5)
    assert losses.projection_loss(scores, truth).item() == pytest.approx(columns + rows)


def test_cells_of_boxes_are_sampled_at_their_middle() -> None:
    boxes = torch.tensor([[8.0, 10.0, 50.0, 44.0], [60.3, 4.7, 80.2, 30.1], [1.0, 1.0, 1.5, 1.5]])
    found = losses.cells_of_boxes(boxes, 16, 24)
    for box, cells in zip(boxes.tolist(), found, strict=True):
        whole = torch.zeros(64, 96, dtype=torch.bool)
        whole[int(box[1]) : int(box[3] + 1), int(box[0]) : int(box[2] + 1)] = True
        assert torch.equal(cells, whole[2::4, 2::4])


@pytest.mark.parametrize(
    ("rgb", "wanted"),
    [
        ((255, 255, 255), (100, 0, 0)), ((0, 0, 0), (0, 0, 0)),
        ((255, 0, 0), (53.24, 80.09, 67.20)), ((0, 0, 255), (32.30, 79.19, -107.86)),
    ],
)  # fmt: skip
def test_lab_of_known_colours(rgb: tuple, wanted: tuple) -> None:
    found = losses.lab(torch.tensor(rgb, dtype=torch.float32).view(1, 3, 1, 1)).flatten()
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float32), rtol=0, atol=0.02)


def test_colours_outside_the_picture_are_like_none() -> None:
    images = torch.full((1, 3, 32, 32), 90.0)
    valid = torch.ones(1, 32, 32, dtype=torch.bool)
    valid[:, 20:] = False
    found = losses.colour_similarity(images, valid)
    counts = losses.neighbours(F.pad(torch.ones(1, 5, 8), (0, 0, 0, 3)))
    assert torch.equal(found, counts)


def test_disagreement_by_hand_and_far_out() -> None:
    a, b = torch.tensor([0.3, 40.0, -60.0, 50.0]), torch.tensor([-1.2, 40.0, -60.0, -50.0])
    p, q = a[0].sigmoid(), b[0].sigmoid()
    plain = -(p * q + (1 - p) * (1 - q)).log().item()
    wanted = torch.tensor([plain, 0.0, 0.0, 50 - math.log(2)])
    torch.testing.assert_close(losses.disagreement(a, b), wanted, rtol=1e-6, atol=1e-5)


def test_pairs_that_count() -> None:
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 6, 7, generator=draw)
    edges = torch.rand(2, 8, 6, 7, generator=draw) < 0.3
    edges &= losses.neighbours(torch.ones(2, 6, 7)) > 0  # none leads out of the map
    total, count = 0.0, 0
    for m, s, y, x in edges.nonzero().tolist():
        dy, dx = losses.STEPS[s]
        total += losses.disagreement(logits[m, y, x], logits[m, y + dy, x + dx]).item()
        count += 1
    assert losses.pairwise_loss(logits, edges).item() == pytest.approx(total / count, rel=1e-5)
    divided = losses.pairwise_loss(logits, edges, torch.tensor(7.0))
    assert divided.item() == pytest.approx(total / 7, rel=1e-5)
    assert losses.pairwise_loss(logits, edges & False).item() == 0


def slope(logits: torch.Tensor, xy: list, labels: list) -> torch.Tensor:
    x = logits.clone().requires_grad_()
    losses.point_loss(x, torch.tensor(xy), torch.tensor(labels)).backward()
    assert x.grad is not None
    return x.grad


def test_a_point_moves_its_four_cells_alone() -> None:
    logits = torch.randn(1, 8, 8, generator=torch.Generator().manual_seed(0))
    moved = slope(logits, [[[13.0, 21.0]]], [[1]])[0].nonzero().tolist()
    # 13 / 4 - .5 = 2.75 and 21 / 4 - .5 = 4.75
    assert moved == [[4, 2], [4, 3], [5, 2], [5, 3]]


def test_a_point_without_a_label_counts_for_nothing() -> None:
    """Official code divides by the number of all points."""
    logits = torch.randn(2, 8, 8, generator=torch.Generator().manual_seed(0))
    xy = [[[13.0, 21.0], [5.5, 5.5]], [[9.5, 9.5], [20.5, 8.5]]]
    known = slope(logits, [[xy[0][0]], [xy[1][0]]], [[1], [0]])
    assert torch.equal(slope(logits, xy, [[1, -1], [0, -1]]), known)
    assert not slope(logits, xy, [[-1, -1], [-1, -1]]).any()


def test_points_of_a_batch_with_more_padding() -> None:
    """Points are pixels of the whole batch, whatever its size (PointSup's are shares of it)."""
    logits = torch.randn(1, 8, 8, generator=torch.Generator().manual_seed(0))
    xy, labels = torch.tensor([[[13.0, 21.0], [25.0, 3.5]]]), torch.tensor([[1, 0]])
    small = losses.point_loss(logits, xy, labels)
    large = losses.point_loss(F.pad(logits, (0, 5, 0, 3), value=9.0), xy, labels)
    torch.testing.assert_close(small, large)
