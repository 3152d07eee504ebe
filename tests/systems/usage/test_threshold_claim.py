"""The claim on label-free thresholds, on drawn pictures."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from tenfold.systems.usage.recipes import DEMO
from tenfold.systems.usage.system import Usage

FILE = Path(__file__).parents[3] / "claims" / "usage_threshold.py"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("usage_threshold", FILE)
    assert spec is not None and spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "usage_threshold", found)
    spec.loader.exec_module(found)
    monkeypatch.setattr(found, "HERE", tmp_path)
    monkeypatch.setattr(found, "SETS", ("shapes_wsss",))
    monkeypatch.setattr(found, "SLOW", {"edges": 2, "confidence": 1})
    monkeypatch.setenv("TENFOLD_CACHE", str(tmp_path / "cache"))
    return found


def test_rows_of_a_set_and_their_tables(script: ModuleType, tmp_path: Path) -> None:
    model = replace(DEMO.model, width=8, frozen_stages=-1)
    pictures = replace(DEMO.data, crop=32, generated=(8, 2), holdout=0.3, batch_size=4)
    seeds = replace(DEMO.seeds, size=32)
    parts = replace(DEMO, model=model, data=pictures, seeds=seeds, steps=2, allow_missing=True)
    cfg = Usage.complete(parts)
    rows, advice = script.of_set(cfg, [0])
    assert len(rows) >= len(script.TAUS) * 4 + 2 and len(advice) == 1  # confidence may see nothing
    assert all(row.lost >= 0 for row in rows)
    assert {row.name for row in rows} >= {"swept", "fixed", "edges", "activation"}
    environment = {"cpu": "some", "torch": "2", "date": "now", "commit": "abc", "command": "it"}
    script.write(rows, advice, environment)
    page = (tmp_path / "usage-threshold.md").read_text()
    assert "Goal: a criterion chosen on shapes_wsss" in page and "| activation |" in page
    assert "Hits: " in page and "shapes_wsss, tau 0.2, seed 0" in page
