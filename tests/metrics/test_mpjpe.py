"""MPJPE against a plain loop, and the official rule for joints that a network does not see."""

import numpy as np
import pytest
import torch

from tenfold.data.motion.skeleton import CMU, Skeleton
from tenfold.metrics.mpjpe import fill_unused, mpjpe, mpjpe_at


def test_mpjpe_by_hand():
    truth = torch.zeros(2, 2, 2, 3)
    pred = truth.clone()
    pred[0, 0, 0] = torch.tensor([3.0, 4.0, 0.0])
    pred[:, 1, 1] = torch.tensor([0.0, 0.0, 2.0])
    assert mpjpe(pred, truth).tolist() == [5 / 4, 1.0]
    assert mpjpe_at(pred, truth, (1,)).tolist() == [1.0]


def test_mpjpe_equals_a_loop():
    random = np.random.RandomState(0)
    pred, truth = random.standard_normal((2, 3, 4, 5, 3))
    want = [
        np.mean([np.sqrt(((pred[b, f, j] - truth[b, f, j]) ** 2).sum())
                 for b in range(3) for j in range(5)])
        for f in range(4)
    ]  # fmt: skip
    np.testing.assert_allclose(mpjpe(torch.from_numpy(pred), torch.from_numpy(truth)), want)


@pytest.mark.parametrize("frames", [(25,), (-1,), ()])
def test_a_horizon_that_was_not_predicted(frames):
    x = torch.zeros(1, 25, 2, 3)
    with pytest.raises(ValueError, match="must lie in 0 to 24"):
        mpjpe_at(x, x, frames)


def test_unused_joints_are_filled():
    body = Skeleton(joints=tuple("abcd"), used=(1, 3), twins=((2, 3),))
    truth = torch.arange(12.0).reshape(1, 1, 4, 3)
    full = fill_unused(truth, torch.tensor([[[[1.0] * 3, [2.0] * 3]]]), body)
    assert full[0, 0].tolist() == [[0, 1, 2], [1, 1, 1], [2, 2, 2], [2, 2, 2]]
    assert truth[0, 0, 1].tolist() == [3, 4, 5]
    with pytest.raises(ValueError, match="has 3 joints, but the skeleton uses 2"):
        fill_unused(truth, torch.zeros(1, 1, 3, 3), body)


def test_constant_joints_dilute_the_mean():
    truth = torch.zeros(1, 1, 38, 3)
    pred = torch.zeros(1, 1, 25, 3)
    pred[..., 0] = 1
    full = fill_unused(truth, pred, CMU)
    assert mpjpe(full, truth).item() == pytest.approx(32 / 38)
