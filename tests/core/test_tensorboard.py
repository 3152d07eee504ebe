"""What is logged is in TensorBoard's files, too; a resumed stage goes on in them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tenfold.core import run_folder
from tenfold.core.log import MetricsLog


def test_a_resumed_stage_goes_on_in_tensorboards_files(tmp_path: Path) -> None:
    accumulated = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for last, first in ((6, 0), (8, 4)):  # stopped after step 6, whose checkpoint is of step 4
        log = MetricsLog(tmp_path / "metrics.jsonl", True, board=True)
        log.rewind("train", first, [])
        for step in range(first + 1, last + 1):
            log.add("train", step, "train", {"loss": float(step * last)})
    log.add("train", 8, "validation", {"mIoU": 0.5})
    found = accumulated.EventAccumulator(str(tmp_path / "tensorboard" / "train"))
    found.Reload()
    seen = {event.step: event.value for event in found.Scalars("train/loss")}
    assert seen == {step: step * (6 if step < 5 else 8) for step in range(1, 9)}
    assert [event.value for event in found.Scalars("validation/mIoU")] == [0.5]
    assert all("tensorboard" in name or name == "metrics.jsonl"
               for name in run_folder.contents(tmp_path).ours)  # fmt: skip
    assert not run_folder.contents(tmp_path).foreign


def test_without_the_package_the_command_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ModuleNotFoundError, match=r"--loop.tensorboard needs .*\[tensorboard\]"):
        MetricsLog(tmp_path / "metrics.jsonl", True, board=True)
    assert not MetricsLog(tmp_path / "metrics.jsonl", False).enabled
