"""The weights of the training loss, written out: golden cases bring weights of their own."""

from __future__ import annotations

import torch

from tenfold.systems.pangu.loss import variable_weights


def test_variables_have_the_papers_weights() -> None:
    upper, surface = variable_weights(
        ("z", "q", "t", "u", "v", "own"), ("msl", "u10", "v10", "t2m", "own")
    )
    assert torch.equal(upper, torch.tensor([3.0, 0.6, 1.5, 0.77, 0.54, 1.0]))
    assert torch.equal(surface, torch.tensor([1.5, 0.77, 0.66, 3.0, 1.0]))
