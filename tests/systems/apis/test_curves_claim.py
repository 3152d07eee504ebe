"""The claim's curves: what is read of runs, and how many answers a row needs."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

FILE = Path(__file__).parents[3] / "claims" / "apis_curves.py"
spec = importlib.util.spec_from_file_location("apis_curves", FILE)
assert spec is not None and spec.loader is not None
curves = importlib.util.module_from_spec(spec)
spec.loader.exec_module(curves)


def result(values: list[float], asks: bool = True) -> dict[str, dict[str, float]]:
    metrics: dict[str, float] = {}
    for number, value in enumerate([*values, values[-1]]):
        stage = "final" if number == len(values) else f"round{number}" if number else "boxes"
        metrics[f"given/{stage}/IoU"] = metrics[f"masks/{stage}/AP"] = value
        count = min(number, len(values) - 1) + 1 if asks else 0
        metrics[f"answers/{stage}/per object"] = count
        metrics[f"answers/{stage}/all"] = 10.0 * count
        metrics[f"seconds/{stage}/total"] = 70 + 9.0 * count
    return {"metrics": metrics}


def test_rows_that_ask_have_curves_and_what_they_need() -> None:
    results = {
        "random": [result([40.0, 44.0, 46.0]), result([42.0, 44.0, 48.0])],
        "entropy": [result([41.0, 49.0, 50.0])] * 2,
        "worse": [result([41.0, 41.0, 42.0])] * 2,
        "full masks": [result([60.0, 61.0], asks=False)] * 2,
    }
    answers, found = curves.curves_of(results, "given")
    assert answers == [1, 2, 3] and set(found) == {"random", "entropy", "worse"}
    needed = curves.needed(answers, found, "random")
    assert needed == {"random": 3.0, "entropy": pytest.approx(1.75), "worse": None}
    text = "\n".join(curves.page(results, "some data"))
    assert "| entropy | 41.0 ± 0.0 | 49.0 ± 0.0 | 50.0 ± 0.0 | 1.75 |" in text
    assert "| hours of people (stated) | 0.0 | 0.0 | 0.0 |" in text
    assert "not reached" in text and "- full masks: 61.0 (0.0 hours)" in text
    assert "Means of 2 seeds" in text
    for in_hours in (False, True):
        assert curves.draw(results, "masks", in_hours).startswith(b"\x89PNG")


def test_another_set_has_the_same_rows() -> None:
    names = [[claim.method.name for claim in curves.claims_on(name)] for name in curves.SETS]
    assert names[0] == names[1]
    assert curves.claims_on("car_parts")[0].method.config.data.name == "car_parts"
