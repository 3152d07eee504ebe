"""The rule by which a claim's budget is doubled."""

import importlib.util
import sys
from pathlib import Path

import pytest

FILE = Path(__file__).parents[1] / "claims" / "length.py"
spec = importlib.util.spec_from_file_location("length", FILE)
assert spec is not None and spec.loader is not None
length = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = length  # where its dataclass looks for types
spec.loader.exec_module(length)

BUDGETS = (10, 20, 40, 80)


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ({10: 50.0, 20: 49.5, 40: 30.0}, (10, {10: 50.0, 20: 49.5}, True)),
        ({10: 50.0, 20: 40.0, 40: 39.5, 80: 1.0}, (20, {10: 50.0, 20: 40.0, 40: 39.5}, True)),
        ({10: 9.0, 20: 8.0, 40: 7.0, 80: 6.0}, (80, {10: 9.0, 20: 8.0, 40: 7.0, 80: 6.0}, False)),
        ({10: 9.0, 20: 9.5}, (10, {10: 9.0, 20: 9.5}, True)),
    ],
)
def test_a_budget_is_doubled_until_that_gains_too_little(
    scores: dict[int, float], expected: tuple[int, dict[int, float], bool]
) -> None:
    gain = length.questions()["spgsn"].gain  # per cent of an error
    assert length.enough(BUDGETS, scores.__getitem__, gain, 2.0) == expected


def test_gains_of_a_probe_are_points_upwards() -> None:
    gain = length.questions()["itpn"].gain
    assert gain(40.0, 43.0) == 3.0
    assert gain(43.0, 40.0) == -3.0


@pytest.mark.parametrize("name", ["spgsn", "itpn"])
def test_each_budget_is_twice_the_one_before_and_nothing_of_the_test_split_is_held(
    name: str,
) -> None:
    asked = length.questions()[name]
    pairs = zip(asked.budgets, asked.budgets[1:], strict=False)
    assert all(2 * once == twice for once, twice in pairs)
    for cfg in asked.arms.values():
        assert cfg.data.holdout > 0
        longer = [asked.longer(cfg, budget) for budget in asked.budgets]
        assert len({repr(one) for one in longer}) == len(asked.budgets)
