"""Grounding: overlaps of boxes in pairs, and points in boxes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tenfold.metrics import grounding
from tenfold.nn.boxes import iou


def test_overlaps_are_those_of_all_pairs() -> None:
    low = np.random.default_rng(0).uniform(0, 5, (2, 8, 2))
    size = np.random.default_rng(1).uniform(0, 5, (2, 8, 2))
    a, b = np.concatenate([low, low + size], 2)
    want = iou(torch.from_numpy(a), torch.from_numpy(b)).diagonal()
    np.testing.assert_allclose(grounding.paired_iou(a, b), want, atol=1e-12)


def test_empty_and_turned_boxes_overlap_nothing() -> None:
    empty, turned = [3.0, 3, 3, 3], [5.0, 5, 1, 1]
    found = grounding.paired_iou(
        np.array([empty, turned, empty]), np.array([empty, turned, turned])
    )
    assert found.tolist() == [0, 0, 0]


def test_each_phrase_has_a_box_and_a_point() -> None:
    box, point = np.array([[0.0, 0, 2, 2]]), np.array([[2.0, 1]])
    numbers = grounding.grounding(box, box, point)
    assert numbers == {"acc@0.5": 100, "acc@0.3": 100, "iou": 100, "pointing": 0}
    with pytest.raises(ValueError, match="0 boxes and 0 points for 0 phrases"):
        grounding.grounding(box[:0], box[:0], point[:0])
    with pytest.raises(ValueError, match="1 boxes and 0 points for 1 phrases"):
        grounding.grounding(box, box, point[:0])
