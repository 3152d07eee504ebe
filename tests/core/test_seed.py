"""Seeds follow from their parts alone: the same in every process, on every machine, ever."""

from tenfold.core.seed import seed_of


def test_a_seed_is_the_same_in_every_process() -> None:
    """A number of an earlier process: hash() would give another one in each."""
    assert seed_of("order", 3, "a") == 4485740719081466559
    assert seed_of("order", 3, "a") != seed_of("order", 3) != seed_of("order", "3")
