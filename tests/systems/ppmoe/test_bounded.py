"""No process of several ever holds the whole model: it would not fit."""

from __future__ import annotations

import json
from pathlib import Path

import forked
import pytest
from safetensors import safe_open
from systems.ppmoe import bounded as work

import tenfold
from tenfold.core import checkpoint

WHOLE, PARTS = 192, 4 * 96
"""MiB of all experts' weights; of half of them with gradients and AdamW's two averages."""


def test_a_model_that_fits_no_process_is_trained_stored_and_measured(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("".join(f"line {i} of a text\n" for i in range(2_000)))
    done = forked.torchrun(2, work.__file__, tmp_path, str(PARTS + 7 * WHOLE // 8))
    assert done.returncode == 0, done.stderr[-3000:]
    file = tmp_path / "run" / "weights.safetensors"
    assert file.stat().st_size > WHOLE * 2**20
    measured = json.loads((tmp_path / "measured.json").read_text())
    alone = tenfold.load(tmp_path / "run").evaluate("test").metrics
    assert measured["trained"] == measured["opened"] == pytest.approx(alone, rel=1e-5)
    plain = tmp_path / "plain.safetensors"  # the file is what one process writes
    with safe_open(file, "pt") as weights:
        checkpoint.write_tensors(plain, tenfold.load(file).model.state_dict(), weights.metadata())
    assert plain.read_bytes() == file.read_bytes()
    assert (tmp_path / "run" / "pictures" / "expert-load-0.png").exists()
