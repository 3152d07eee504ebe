"""Seeds follow from their parts alone: the same in every process, on every machine, ever."""

import random

import numpy as np
import torch

from tenfold.core.seed import seed_everything, seed_of, undisturbed


def test_a_seed_is_the_same_in_every_process() -> None:
    """A number of an earlier process: hash() would give another one in each."""
    assert seed_of("order", 3, "a") == 4485740719081466559
    assert seed_of("order", 3, "a") != seed_of("order", 3) != seed_of("order", "3")


def test_generators_of_others_go_on_where_they_were() -> None:
    seed_everything("theirs")
    expected = random.random(), np.random.rand(), torch.rand(3)
    seed_everything("theirs")
    with undisturbed():
        seed_everything("ours")
        torch.rand(3)
    assert (random.random(), np.random.rand()) == expected[:2]
    assert torch.equal(torch.rand(3), expected[2])
    assert torch.initial_seed() == seed_of("theirs")
