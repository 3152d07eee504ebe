"""Shares of the domains in what PPMoE is trained on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tenfold.core.dist import World
from tenfold.systems.ppmoe import data
from tenfold.systems.ppmoe.config import Config
from tenfold.systems.ppmoe.recipes import RECIPES


def completed(folder: Path, weights: str = "") -> Config:
    cfg = RECIPES["demo"]
    cfg = replace(cfg, data=replace(cfg.data, path=str(folder), weights=weights), batch=200)
    return data.complete(cfg)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tiny.txt").write_text("t iny text\n" * 2_000)
    (tmp_path / "big.txt").write_text("BIG TEXT IS\n" * 22_000)
    return tmp_path


@pytest.mark.parametrize(
    "weights, of_tiny", [("", 0.077), ("bytes", 0.077), ("equal", 0.5), ("tiny=3, big=1", 0.75),
                         ("big=2", 0.0)],
)  # fmt: skip
def test_rows_follow_the_weights(folder: Path, weights: str, of_tiny: float) -> None:
    cfg = completed(folder, weights)
    rows = data.Text(cfg).batch(3, World(0, 1, torch.device("cpu")))["tokens"].numpy()
    is_tiny = (rows == ord("t")).any(1)
    assert is_tiny.mean() == pytest.approx(of_tiny, abs=0.01)
    assert f"tiny {data.weights(cfg.data)['tiny']:.1%}" in data.used(cfg.data).note
    tests = data.Text(cfg).windows("test")
    assert set(tests.domains) == {"big", "tiny"}


@pytest.mark.parametrize(
    "weights, said",
    [("tiny", "has 'tiny'; give bytes, equal"), ("tiny=-1", "'tiny=-1'"), ("none=1", "'none=1'"),
     ("tiny=nan", "'tiny=nan'"), ("big=0", "no domain has more than 0"),
     ("big=1,big=2", "each once")],
)  # fmt: skip
def test_weights_that_fit_no_text(folder: Path, weights: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        completed(folder, weights)
