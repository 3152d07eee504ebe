"""PPMoE's evaluation and prediction under torchrun: what one process gives, by their shares."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import forked
import pytest
from systems.ppmoe import verbs

WORDS = ["--tokens", "12", "--samples", "2"]


@pytest.mark.usefixtures("generated_only")
def test_two_processes_give_what_one_gives(made: Callable[[str], Path], tmp_path: Path) -> None:
    texts = tmp_path / "texts"
    for name in ("a.txt", "b.txt", "c/a.txt", "broken.txt", "d.txt"):
        (texts / name).parent.mkdir(parents=True, exist_ok=True)
        (texts / name).write_bytes(b"\xff" if name == "broken.txt" else b"def " + name.encode())
    run = str(made("ppmoe"))

    def commands(out: Path) -> dict[str, list[str]]:
        return {
            "table": ["evaluate", run, "--device", "cpu"],
            "validation": ["evaluate", run, "--split", "validation", "--device", "cpu"],
            "folder": ["predict", run, str(texts), "--out", str(out / "folder"), *WORDS],
            "file": ["predict", run, str(texts / "a.txt"), "--out", str(out / "file"), *WORDS],
        }

    one, two = tmp_path / "one", tmp_path / "two"
    for folder, processes in ((one, 1), (two, 2)):
        folder.mkdir()
        job = folder / "commands.json"
        job.write_text(
            json.dumps([[words, str(folder / n)] for n, words in commands(folder).items()])
        )
        done = forked.torchrun(processes, verbs.__file__, job)
        assert done.returncode == 0, done.stderr[-3000:]
    for name in commands(one):
        printed = (one / f"{name}.0").read_text()
        assert (two / f"{name}.0").read_text() == printed.replace(str(one), str(two))
        assert (two / f"{name}.1").read_text() == ""
    assert "bits per byte" in (one / "table.0").read_text()
    assert "--- continuation 2 of 2" in (one / "file.0").read_text()
    for kind in ("folder", "file"):
        files = {p.relative_to(one / kind) for p in (one / kind).rglob("*") if p.is_file()}
        assert files == {p.relative_to(two / kind) for p in (two / kind).rglob("*") if p.is_file()}
        assert len(files) == (4 if kind == "file" else 4 * 3 + 3)  # the journal is one
        for file in files:
            left, right = (re.sub(r"written [\d: -]+", "", (x / kind / file).read_text())
                           for x in (one, two))  # fmt: skip
            assert left == right, file
