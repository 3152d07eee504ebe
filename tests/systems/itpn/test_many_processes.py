"""Two processes of `torchrun` measure and predict what one does, each its share."""

from __future__ import annotations

import re
from pathlib import Path

import forked
import pytest
import tiny
from PIL import Image
from systems.itpn import use_worker

from tenfold import cli
from tenfold.generated import scenes
from tenfold.systems.itpn import data, evaluation

WORKER = Path(use_worker.__file__)
DENSE = ["--dense.head-dim", "8", "--dense.size", "64", "--dense.short-sides", "64"]


def files(folder: Path) -> dict[str, bytes]:
    """Every file below a folder; pages without the minute in which they were written."""
    found = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    contents = {name: path.read_bytes() for name, path in found.items()}
    return {
        name: re.sub(rb"written [\d-]+ [\d:]+", b"", content)
        for name, content in contents.items()
    }  # fmt: skip


def test_two_processes_are_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All tasks, a folder with sub-folders and a broken photo."""
    monkeypatch.setattr(data, "GENERATED", use_worker.SETS)
    monkeypatch.setattr(evaluation, "BATCH", use_worker.BATCH)
    monkeypatch.setenv("COLUMNS", "120")
    run, photos = tmp_path / "run", tmp_path / "photos"
    words = [*tiny.options("itpn"), *DENSE, "--dense.fc-dim", "16", "--data.name", "scenes"]
    words += ["--tasks", "pretrain", "classify", "localise", "segment", "detect", "--steps", "1"]
    for cached in (data.photographs, data.segmented, data.instances):
        cached.cache_clear()
    cli.main(["train", "itpn", "demo", *words, "--run.folder", str(run)])
    for number, name in enumerate(["a.png", "c/d/a.png", "c/d/b.png"]):
        path = photos / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(scenes.scene("own", number).picture).save(path, lossless=True)
    (photos / "c/broken.jpg").write_bytes(b"\xff\xd8 nothing")
    capsys.readouterr()

    use_worker.main(str(run), str(photos), str(tmp_path / "one"))
    one = capsys.readouterr().out
    done = forked.torchrun(2, WORKER, run, photos, tmp_path / "two")
    for cached in (data.photographs, data.segmented, data.instances):
        cached.cache_clear()
    assert done.returncode == 0, done.stderr
    assert "segmentation" in one and "mean box" in one
    assert done.stdout == one.replace(str(tmp_path / "one"), str(tmp_path / "two"))
    alone, shared = files(tmp_path / "one"), files(tmp_path / "two")
    assert {"c/d/b.png-objects.png", "predictions.html", "objects.json"} <= set(alone)
    assert alone.keys() == shared.keys()
    assert not [name for name in alone if alone[name] != shared[name]]
