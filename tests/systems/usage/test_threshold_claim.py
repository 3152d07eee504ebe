"""The claim on label-free thresholds, on drawn pictures."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch

from tenfold.systems.usage.config import Config
from tenfold.systems.usage.recipes import DEMO
from tenfold.systems.usage.system import Usage

CLAIMS = Path(__file__).parents[3] / "claims"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], ModuleType]:
    """Scripts of claims/ that write to `tmp_path`."""
    monkeypatch.setenv("TENFOLD_CACHE", str(tmp_path / "cache"))

    def loaded(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(name, CLAIMS / f"{name}.py")
        assert spec is not None and spec.loader is not None
        found = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, found)
        spec.loader.exec_module(found)
        monkeypatch.setattr(found, "HERE", tmp_path)
        monkeypatch.setattr(found, "SETS", ("shapes_wsss",))
        return found

    return loaded


@pytest.fixture
def script(load: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    found = load("usage_threshold")
    monkeypatch.setattr(found, "SLOW", {"edges": 2, "confidence": 1})
    return found


@pytest.fixture
def cfg() -> Config:
    model = replace(DEMO.model, width=8, frozen_stages=-1)
    pictures = replace(DEMO.data, crop=32, generated=(8, 2), holdout=0.3, batch_size=4)
    seeds = replace(DEMO.seeds, size=32)
    parts = replace(DEMO, model=model, data=pictures, seeds=seeds, steps=2, allow_missing=True)
    return Usage.complete(parts)


def test_rows_of_a_set_and_their_tables(script: ModuleType, cfg: Config, tmp_path: Path) -> None:
    rows, advice = script.of_set(cfg, [0])
    assert len(rows) >= len(script.TAUS) * 4 + 2 and len(advice) == 1  # confidence may see nothing
    assert all(row.lost >= 0 for row in rows)
    assert {row.name for row in rows} >= {"swept", "fixed", "edges", "activation"}
    environment = {"cpu": "some", "torch": "2", "date": "now", "commit": "abc", "command": "it"}
    script.write(rows, advice, environment)
    page = (tmp_path / "usage-threshold.md").read_text()
    assert "[usage-criteria.md](usage-criteria.md)" in page and "| activation |" in page
    assert "Hits: " in page and "shapes_wsss, tau 0.2, seed 0" in page


def test_a_criterion_is_chosen_on_parts_of_one_set(
    load: Callable[[str], ModuleType],
    cfg: Config,
    tmp_path: Path,
    script: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wide = load("usage_criteria")
    monkeypatch.setattr(wide, "SEEDS", (0,))
    monkeypatch.setattr(wide, "LOOKED_AT", 3)
    monkeypatch.setattr(wide, "CHOSEN_ON", "shapes_wsss")
    monkeypatch.setattr(wide, "CONFIRMED_ON", "shapes_wsss")
    found = wide.of_set(cfg, tmp_path)
    assert [one.tau for one in found] == [0, 0.1, -0.2, 0.2] and found[0].advice
    monkeypatch.setattr(wide, "Bench", None)  # all is read again
    assert wide.of_set(cfg, tmp_path) == found
    chosen, largest = wide.decided(found)
    assert largest[chosen] == min(largest.values())
    worst = max(sum(wide.lost(found, "shapes_wsss", chosen, part)) / 2 for part in wide.PARTS)
    assert largest[chosen] == pytest.approx(worst)
    environment = {"cpu": "some", "torch": "2", "date": "now", "commit": "abc", "command": "it"}
    wide.write(found, environment)
    page = (tmp_path / "usage-criteria.md").read_text()
    assert f"Chosen on shapes_wsss: `{chosen}`" in page and "Hits by evidence:" in page
    assert "Rule, written before the run" in page and "| otsu |" in page


def test_a_choice_beyond_what_papers_sweep_is_measured(script: ModuleType) -> None:
    one = torch.full((8, 8), 0.64)
    one[:4] = 0.9
    truth = torch.zeros(8, 8, dtype=torch.int64)
    truth[:4] = 1
    seeds = script.Seeds(torch.zeros(8, 8, 3, dtype=torch.uint8), one[None])
    looked = script.look_at(2, [(seeds, truth)], ["activation"])
    rows, _ = script.compare("here", 2, looked, ["activation"])
    found = {row.name: row for row in rows}
    assert found["activation"].threshold == pytest.approx(0.77)
    assert found["activation"].miou == 100 and found["activation"].lost == 0
    assert found["fixed"].lost > 50


def test_halves_by_foreground(load: Callable[[str], ModuleType], script: ModuleType) -> None:
    looked = [script.Looked(torch.zeros(1), {}, share) for share in (0.5, 0.1, 0.3, 0.2)]
    less, more = load("usage_criteria").divided(looked)
    assert [one.share for one in less] == [0.1, 0.2] and [one.share for one in more] == [0.3, 0.5]
