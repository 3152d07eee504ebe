"""`torchrun` with two processes: predictions and figures equal those of one, file by file."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import forked
import numpy as np
import pytest
from PIL import Image

from tenfold import cli
from tenfold.generated import streets
from tenfold.viz.films import write_mp4

pytestmark = pytest.mark.usefixtures("generated_only")
WORKER = """
import sys
from tenfold import cli
run, photos, film, out = sys.argv[1:]
cli.main(["evaluate", run, "--device", "cpu"])
cli.main(["predict", run, photos, "--out", out + "/photos", "--device", "cpu"])
cli.main(["predict", run, film, "--out", out + "/film", "--device", "cpu"])
"""


def test_two_processes_measure_and_predict_as_one(
    made: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder with one picture that cannot be read and one in a folder of its own, and a film."""
    run, photos = made("dts"), tmp_path / "given"
    (photos / "more").mkdir(parents=True)
    pictures = [streets.scene("two", row, size=(40, 56))[0] for row in range(5)]
    for row, name in enumerate(("a.png", "b.png", "more/a.png")):
        Image.fromarray(pictures[row]).save(photos / name)
    (photos / "broken.png").write_bytes(b"no picture")
    write_mp4(tmp_path / "drive.mp4", (np.asarray(picture) for picture in pictures), 5.0)
    (tmp_path / "worker.py").write_text(WORKER)
    words = [run, photos, tmp_path / "drive.mp4"]
    done = forked.torchrun(2, tmp_path / "worker.py", *words, tmp_path / "two")
    assert done.returncode == 0, done.stderr
    capsys.readouterr()
    cli.main(["evaluate", str(run), "--device", "cpu"])
    for given, name in ((photos, "photos"), (tmp_path / "drive.mp4", "film")):
        out = str(tmp_path / "one" / name)
        cli.main(["predict", str(run), str(given), "--out", out, "--device", "cpu"])
    said = capsys.readouterr().out
    assert "mean IoU" in said and done.stdout == said.replace(f"{tmp_path}/one", f"{tmp_path}/two")
    one, two = (
        {
            file.relative_to(folder): re.sub(rb"written [\d-]+ [\d:]+", b"", file.read_bytes())
            for file in folder.rglob("*")
            if file.is_file()
        }
        for folder in (tmp_path / "one", tmp_path / "two")
    )
    assert len(one) == 34 and one == two
