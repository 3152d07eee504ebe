"""Exports of every system equal eager: as torch.export has them, and in ONNX."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

import tenfold
from tenfold import systems
from tenfold.runner.export import TOLERANCE, export_checked, require_own_export

ONNX = ("itpn", "ldc", "loupe")
"""Windows, convolutions, and a plain transformer. Larger ones take a third of a minute on a slow
machine, so that the others' is the half that both formats begin with."""
CASES = [
    pytest.param(name, to, marks=() if (to == "onnx") == (name in ONNX) else pytest.mark.slow)
    for name in systems.SYSTEMS
    for to in ("onnx", "torch")
]


@pytest.mark.usefixtures("generated_only")
@pytest.mark.parametrize(("name", "to"), CASES)
def test_export_equals_eager(
    name: str,
    to: str,
    made: Callable[[str], Path],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    target = tmp_path / "network"
    assert export_checked(tenfold.load(made(name)).export(), to, target) < TOLERANCE
    require_own_export(target)
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["network"]
    # of other libraries, about what a user cannot change
    assert not [one for one in caplog.records if one.levelno >= logging.WARNING]
