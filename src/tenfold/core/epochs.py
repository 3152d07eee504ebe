"""Choice of a batch's rows: a new order each epoch, a pure function of seed and index."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Int

from .seed import generator


class Epochs:
    """Whole batches of shuffled rows; a short last batch of an epoch is dropped.

    Args:
        count: Rows of the data.
        batch_size: Rows of a batch over all processes.
        name: What the order follows from: the run's seed, then what tells this order from others.
        repeats: Fill one batch by rows taken twice where there are fewer than a batch; without it
            that is a ValueError.
    """

    def __init__(
        self, count: int, batch_size: int, *name: int | str, repeats: bool = False
    ) -> None:
        if count < batch_size and not repeats:
            raise ValueError(
                f"{count} training examples do not fill one batch of {batch_size}; "
                "lower data.batch_size"
            )
        self.count, self.batch_size = count, batch_size
        self.seed, *self.name = name

    @property
    def steps(self) -> int:
        """Batches in one pass over the data."""
        return max(1, self.count // self.batch_size)

    def rows(self, index: int) -> Int[np.ndarray, " row"]:
        """Rows of batch `index`, counted over epochs, of all processes."""
        epoch, place = divmod(index, self.steps)
        order = _order(self.count, self.seed, "order", *self.name, epoch)
        first = place * self.batch_size
        return order[np.arange(first, first + self.batch_size) % self.count]


@lru_cache(maxsize=8)
def _order(count: int, *name: int | str) -> Int[np.ndarray, " count"]:
    return torch.randperm(count, generator=generator(*name)).numpy()
