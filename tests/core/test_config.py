"""How two configurations differ."""

from __future__ import annotations

from tenfold.core.config import differences


def test_a_field_that_only_one_has_is_a_difference() -> None:
    one = {"model": {"width": 8}, "seed": 0, "sizes": (1, 2)}
    other = {"model": {"width": 8, "depth": 2}, "sizes": [1, 2]}
    assert differences(one, other) == ["model.depth: (absent) -> 2", "seed: 0 -> (absent)"]
    assert differences(one, one) == []
