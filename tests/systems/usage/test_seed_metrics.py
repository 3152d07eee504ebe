"""The threshold sweep and average precision against loops."""

from __future__ import annotations

import pytest
import torch

from tenfold.metrics.iou import confusion, iou
from tenfold.systems.usage.seed_metrics import Sweep, average_precision, labels_at


def test_the_sweep_is_every_label_map_counted() -> None:
    generator = torch.Generator().manual_seed(0)
    thresholds = (0.0, 0.25, 0.5, 0.75)
    sweep = Sweep(4, thresholds)
    counts = torch.zeros(4, 4, 4, dtype=torch.int64)
    for present in ([1, 0, 0], [1, 1, 0], [0, 0, 0]):
        # values that equal a threshold do not exceed it
        maps = torch.randint(0, 9, (3, 6, 5), generator=generator) / 8
        maps *= torch.tensor(present)[:, None, None]
        truth = torch.randint(0, 4, (6, 5), generator=generator)
        truth[0] = 255
        sweep.add(maps, truth)
        for row, threshold in enumerate(thresholds):
            counts[row] += confusion(labels_at(maps, threshold), truth, 4)
    assert torch.equal(sweep.counts, counts)
    curve = sweep.curve()
    torch.testing.assert_close(curve.iou[1], 100 * iou(counts[1]))
    assert curve.best == int(curve.miou.argmax()) and curve.at(0.3) == 1


def test_a_class_that_never_occurs() -> None:
    sweep = Sweep(3, (0.5,))
    sweep.add(torch.tensor([[[0.9, 0.1]], [[0.0, 0.0]]]), torch.tensor([[1, 0]]))
    assert float(sweep.curve().miou) == 100 and bool(sweep.curve().iou[0, 2].isnan())
    assert float(sweep.curve("zero").miou) == pytest.approx(200 / 3)
    assert float(Sweep(3, (0.5,)).curve().miou) == 0  # no picture at all


def test_errors_of_both_kinds() -> None:
    sweep = Sweep(2, (0.5,))
    sweep.add(torch.tensor([[[0.9, 0.9, 0.9, 0.1]]]), torch.tensor([[1, 0, 0, 0]]))
    curve = sweep.curve()
    assert float(curve.fp) == pytest.approx(100 * (2 / 3 + 0) / 2)
    assert float(curve.fn) == pytest.approx(100 * (0 + 2 / 3) / 2)


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="thresholds must rise"):
        Sweep(2, (0.5, 0.4))
    with pytest.raises(ValueError, match="1 maps, but 2 classes"):
        Sweep(3).add(torch.zeros(1, 2, 2), torch.zeros(2, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"true labels reach 0\.\.7, allowed are 0\.\.1"):
        Sweep(2).add(torch.zeros(1, 1, 2), torch.tensor([[0, 7]]))


def test_average_precision_of_a_class() -> None:
    scores = torch.tensor([[0.9, 0.1], [0.8, 0.1], [0.7, 0.1], [0.6, 0.1]])
    labels = torch.tensor([[True, True], [False, False], [True, False], [False, False]])
    found = average_precision(scores, labels)
    assert float(found[0]) == pytest.approx(100 * (1 + 2 / 3) / 2)
    assert float(found[1]) == pytest.approx(25)  # all equal: chance
    assert bool(average_precision(scores, labels & False)[0].isnan())
