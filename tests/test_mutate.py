"""A small sample of `mutate.py`: damaged inputs end in a result or in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from mutate import OUTCOMES, Bench, damaged
from readers import readers

QUICK = (
    "picture png", "picture jpg", "COCO", "label maps", "BVH", "motion text", "npz of pictures",
    "CMU npz", "npy pair", "text gz", "textmix", "torch", "safetensors", "best track",
)  # fmt: skip
"""Readers whose samples are made at once; all are tried by hand (CONTRIBUTING.md)."""


def test_damaged_inputs(tmp_path: Path, generated_only: None) -> None:
    every = readers()
    bench = Bench(tmp_path, 0, {name: every[name] for name in QUICK})
    bench.check_samples()
    bad = [one for one in bench.run(28) if one.kind not in OUTCOMES[:2]]
    assert not bad


def test_what_dies_or_hangs_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os
    import signal
    import time

    import mutate

    def read(folder: Path) -> None:
        content = (folder / "a").read_bytes()
        if len(content) % 3 == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        if len(content) % 3 == 1:
            time.sleep(9)

    reader = mutate.Reader(lambda folder: (folder / "a").write_bytes(b"1 2 3\n" * 9) and None, read)
    monkeypatch.setattr(mutate, "SECONDS", 0.3)
    found = Bench(tmp_path, 1, {"own": reader}).run(7)
    assert [one.number for one in found] == list(range(7))
    assert {one.kind for one in found} >= {"HANG", "TRACEBACK"}


def test_the_same_seed_is_the_same_damage() -> None:
    import random

    content = b'{"a": [1, 2, {"b": "text"}]}'
    made = [damaged(content, random.Random(f"{seed}")) for seed in (*range(40), *range(40))]
    assert made[:40] == made[40:] and len(set(made)) > 20
