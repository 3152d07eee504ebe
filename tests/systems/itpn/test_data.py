"""Batches of iTPN: which rows they are made of."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tenfold.core.seed import generator
from tenfold.systems.itpn.data import Feed
from tenfold.systems.itpn.recipes import SMALL


def test_rows_are_those_of_a_shuffle_each_epoch() -> None:
    """As runs of earlier versions drew them, so that they can go on."""
    cfg = replace(SMALL, seed=3, data=replace(SMALL.data, batch_size=4))
    rows = np.array([1, 2, 5, 7, 8, 11, 12, 13, 20, 21])
    feed = Feed(cfg, "classify", rows)
    assert feed.steps_per_epoch == 2
    for index in range(5):
        epoch, place = divmod(index, 2)
        order = torch.randperm(10, generator=generator(3, "order", "classify", epoch)).numpy()
        assert feed.at(index) == (rows[order[4 * place : 4 * place + 4]].tolist(), [0, 1, 2, 3])
    with pytest.raises(ValueError, match="do not fill one batch of 11"):
        Feed(replace(cfg, data=replace(cfg.data, batch_size=11)), "classify", rows)
