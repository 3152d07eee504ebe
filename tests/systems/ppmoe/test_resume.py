"""Checkpoints of a divided model: any layout reads them; a killed rank, a restart, exact resume."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import forked
import pytest
import torch
from safetensors.torch import load_file
from systems.ppmoe import reshard as work
from tiny import options

import tenfold
from tenfold.core import checkpoint, dist

HERE = dist.World(0, 1, torch.device("cpu"))


@pytest.mark.parametrize(
    "layouts",
    [
        pytest.param(("2-1-2", "1-2-2", "2-2-1-zbv"), id="some"),
        pytest.param(tuple(work.LAYOUTS), id="all", marks=pytest.mark.slow),
    ],
)
def test_a_checkpoint_goes_on_on_any_layout(layouts: tuple[str, ...], tmp_path: Path) -> None:
    """Saved after 3 steps on (2,1,2): two more steps, optimiser state and all, are the same on
    (1,1,1), (1,2,2) with ZeRO, (4,1,1), with all-to-all, and on a V-shaped schedule. What the
    processes then measure together is what one measures with their weights."""
    done = forked.torchrun(4, work.__file__, tmp_path, *layouts, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    steps = [p.name for p in (tmp_path / "stopped/checkpoints/train").glob("step-*")]
    assert steps == ["step-000000003"]
    files = list((tmp_path / "stopped/checkpoints/train/step-000000003").iterdir())
    # nothing pickled but numbers
    assert {f.suffix for f in files} == {".safetensors", ".pt", ".sha256"}
    shutil.copytree(tmp_path / "stopped", tmp_path / "1-1-1")
    work.train(tmp_path / "1-1-1", work.Layout(), 1, HERE)
    names = [*layouts, "1-1-1"]
    found = {n: checkpoint.read_whole(tmp_path / n / "checkpoints/train/final") for n in names}
    for name in names:
        measured = checkpoint.read_json(tmp_path / name / "measured.json")
        alone = tenfold.load(tmp_path / name / "weights.safetensors").evaluate("test").metrics
        assert len(measured) == (1 if name == "1-1-1" else 4)
        for one in measured:  # sums of tensor ranks come in another order
            assert one == pytest.approx(alone, rel=1e-6), name
    before = checkpoint.read_whole(tmp_path / "stopped/checkpoints/train/step-000000003")
    reference = found.pop("2-1-2")
    assert len(reference) > 30
    moved = [k for k, v in reference.items() if not torch.equal(v, before[f"model.{k}"])]
    assert len(moved) > 30
    for name, weights in found.items():
        assert weights.keys() == reference.keys()
        for key, value in weights.items():
            torch.testing.assert_close(
                value, reference[key], rtol=1e-4, atol=2e-5, msg=f"{name} {key}"
            )


KILLER = """
import os, signal, sys
from tenfold import cli
from tenfold.systems.ppmoe.pipeline import Part
step, count = Part.train_step, 0
def counted(self, batches):
    global count
    count += 1
    first = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
    if first and os.environ["RANK"] == "1" and count == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, batches)
Part.train_step = counted
cli.main(sys.argv[1:])
"""


@pytest.mark.usefixtures("generated_only")
def test_a_killed_rank_is_told_and_resumes_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL of rank 1 in step 4: the other leaves, and the restart equals an unkilled run.

    That torchrun restarts a job is a test of the watch.
    """
    script = tmp_path / "killer.py"
    script.write_text(KILLER)
    words = ["train", "ppmoe", "demo", *options("ppmoe"), "--loop.save-every", "2"]
    words += ["--layout.pp", "2", "--loop.accumulate", "2"]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    done = forked.torchrun(2, script, *words, "--run.folder", killed)
    assert done.returncode == -signal.SIGKILL and "lost contact with rank 1" in done.stderr
    assert [p.name for p in (killed / "checkpoints/train").glob("step-*")] == ["step-000000002"]
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    done = forked.torchrun(2, script, *words, "--run.folder", killed)
    assert done.returncode == 0, done.stderr[-3000:]
    done = forked.torchrun(2, "-m", "tenfold", *words, "--run.folder", whole)
    assert done.returncode == 0, done.stderr[-3000:]
    a, b = (load_file(f / "weights.safetensors") for f in (killed, whole))
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
