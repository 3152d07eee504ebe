"""`torchrun` with two processes: evaluation and prediction equal those of one."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import forked
import pytest
from PIL import Image

from tenfold import cli
from tenfold.generated import shapes
from tenfold.systems.ldc import predict

pytestmark = pytest.mark.usefixtures("generated_only")

WORKER = """
import sys
from tenfold import cli
from tenfold.systems.ldc import predict
predict.BATCH = 3
run, photos, out = sys.argv[1:]
cli.main(["evaluate", run, "--device", "cpu"])
cli.main(["predict", run, photos, "--out", out, "--device", "cpu"])
"""


def test_two_processes_measure_and_predict_as_one(
    made: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run, photos = made("ldc"), tmp_path / "photos"
    for label in range(3):
        (photos / f"class {label}").mkdir(parents=True)
        for i, picture in enumerate(shapes.draw(label, [f"photo {i}" for i in range(4)])):
            photo = Image.fromarray(picture.transpose(1, 2, 0))
            photo.save(photos / f"class {label}/{i}.png")
    (photos / "class 1/2.png").write_bytes(b"no picture")
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    done = forked.torchrun(2, script, run, photos, tmp_path / "two")
    assert done.returncode == 0, done.stderr
    monkeypatch.setattr(predict, "BATCH", 3)
    capsys.readouterr()
    cli.main(["evaluate", str(run), "--device", "cpu"])
    cli.main(["predict", str(run), str(photos), "--out", str(tmp_path / "one"), "--device", "cpu"])
    said = capsys.readouterr().out
    assert "LDA" in said and done.stdout == said.replace(
        str(tmp_path / "one"), str(tmp_path / "two")
    )
    one, two = (
        {file.relative_to(folder): file.read_bytes() for file in folder.rglob("*")}
        for folder in (tmp_path / "one", tmp_path / "two")
    )
    page = Path("predictions.html")
    pages = [re.sub(rb"written [\d-]+ [\d:]+", b"", files.pop(page)) for files in (one, two)]
    assert len(one) == 3 and one == two and pages[0] == pages[1]
