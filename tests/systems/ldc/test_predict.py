"""The files of LDC's predictions, from a classifier that is made up."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from torch import Tensor

from tenfold.systems.ldc import predict
from tenfold.systems.ldc.classifier import Classifier
from tenfold.systems.ldc.config import PredictOptions
from tenfold.viz.predictions import Trained

NAMES = ["red", "green", "blue", "=1+1", "<b>bold</b>", "grey"]
TWO = PredictOptions(top=2)
TRAINED = Trained("Painter", "colours", "real", ["a note"])


class Painter(Classifier):
    """Knows colours; a picture that is black is unknown."""

    def __init__(self) -> None:
        self.known = list(NAMES)
        self.kind = "ldc"
        self.view = SimpleNamespace(side=8)  # type: ignore[assignment]

    def features(self, images: Tensor) -> Tensor:
        assert images.shape[1:] == (3, 8, 8)
        return images.float().mean((2, 3))

    def classify(self, features: Tensor, unknown: int | float = 95.0) -> tuple[Tensor, Tensor]:
        logits = torch.cat([features / 50, features.new_tensor([[0, -1, -2]]) + 0 * features], 1)
        return logits.softmax(1), (features.sum(1) == 0) & (unknown < 100)


def paint(path: Path, colour: tuple[int, int, int], size: tuple[int, int] = (9, 7)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def predicted(
    inputs: Path, out: Path, options: PredictOptions = TWO
) -> tuple[list[list[str]], str]:
    """Rows of the table, and the page."""
    files = predict.predict_files(Painter(), inputs, out, options, TRAINED)
    assert [file.name for file in files] == [f"predictions.{end}" for end in ("csv", "png", "html")]
    with Image.open(files[1]) as sheet:
        sheet.load()
    rows = list(csv.reader(io.StringIO(files[0].read_text(encoding="utf-8"))))
    assert len({len(row) for row in rows}) == 1
    return rows, files[2].read_text(encoding="utf-8")


def fails(inputs: Path, out: Path) -> str:
    with pytest.raises(ValueError) as error:
        predict.predict_files(Painter(), inputs, out, PredictOptions(), TRAINED)
    return str(error.value)


def test_one_picture(tmp_path: Path) -> None:
    file = paint(tmp_path / "photo.png", (0, 250, 0), (300, 40))
    rows, page = predicted(file, tmp_path / "out")
    head = ["file", "unknown", "class 1", "probability 1", "class 2", "probability 2", "problem"]
    assert rows[0] == head
    assert rows[1][:3] == ["photo.png", "no", "green"] and 0.9 < float(rows[1][3]) < 1
    assert "accuracy" not in page and "a note" in page and "95 %" in page


def test_class_folders_give_accuracy(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    paint(folder / "Red/1.png", (250, 0, 0))  # capitals do not matter
    paint(folder / "Red/2.png", (0, 0, 250))
    paint(folder / "\uff47reen/1.png", (0, 250, 0))  # nor how Unicode writes a letter
    paint(folder / "purple/1.png", (0, 0, 0))
    rows, page = predicted(folder, tmp_path / "out")
    names = ["Red/1.png", "Red/2.png", "purple/1.png", "\uff47reen/1.png"]
    assert [row[0] for row in rows[1:]] == names
    assert [row[1] for row in rows[1:]] == ["no", "no", "yes", "no"]
    assert "66.7 %" in page and "2 of 3 in folders named like a known class" in page
    assert "1 (50 %)" in page and "no known class" in page


def test_what_is_broken_is_listed_and_stops_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    paint(folder / "b.png", (0, 0, 250))
    (folder / "a.png").write_bytes(b"<script>alert(1)</script>")
    rows, page = predicted(folder, tmp_path / "out")
    assert rows[1][:2] == ["a.png", ""] and "not a picture" in rows[1][-1]
    assert rows[2][:3] == ["b.png", "no", "blue"] and rows[2][-1] == ""
    assert "1 of 2 files cannot be read" in page and "a.png is not a picture" in page


def test_what_cannot_be_read_alone_is_an_error(tmp_path: Path) -> None:
    bad = tmp_path / "in/bad.png"
    bad.parent.mkdir()
    bad.write_bytes(b"no")
    assert "bad.png is not a picture" in fails(bad, tmp_path / "out")
    said = fails(bad.parent, tmp_path / "out")
    assert "none of 1 pictures can be read" in said and "bad.png" in said
    (tmp_path / "empty").mkdir()
    assert "holds no picture" in fails(tmp_path / "empty", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_names_are_harmless(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    for name in ("=1+1", "<b>bold</b>", "+x\ny"):
        paint(folder / name.replace("/", "_") / "@evil<i>.png", (0, 0, 0))
    rows, page = predicted(folder, tmp_path / "out", PredictOptions(top=6, unknown=100.0))
    assert not [cell for row in rows for cell in row if cell.startswith(("=", "+", "-", "@"))]
    assert "'=1+1" in rows[1] and rows[1][0].startswith("'")
    assert "<b>bold" not in page and "<i>" not in page and "&lt;b&gt;bold" in page
    assert "turns that off" in page
    assert all(cell.isprintable() for row in rows for cell in row)


def test_more_than_the_page_holds_is_in_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predict, "SHOWN", 4)
    monkeypatch.setattr(predict, "BATCH", 3)  # several batches, one with a broken file
    for i in range(8):
        paint(tmp_path / f"in/{i}.png", (0, 250 * (i % 2), 250 * (1 - i % 2)))
    (tmp_path / "in/4.png").write_bytes(b"no")
    rows, page = predicted(tmp_path / "in", tmp_path / "out", PredictOptions(top=99))
    assert [row[0] for row in rows[1:]] == [f"{i}.png" for i in range(8)]
    wanted = ["blue", "green", "blue", "green", "", "green", "blue", "green"]
    assert [row[2] for row in rows[1:]] == wanted
    assert len(rows[0]) == 3 + 2 * len(NAMES)
    assert "4 of 7 pictures; predictions.csv has all" in page
    shown = [i for i in range(8) if f">{i}.png<" in page]
    assert len(shown) == 4 and shown[0] == 0 and shown[-1] == 7


def test_every_picture_below_the_folder_is_answered_under_its_path(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    paint(folder / "a.png", (250, 0, 0))
    paint(folder / "a.bmp", (0, 250, 0))
    paint(folder / "c/a.png", (0, 0, 250))
    paint(folder / "c/red/deep/red/a.png", (250, 0, 0))
    paint(folder / "d/red/a.png", (0, 250, 0))
    rows, page = predicted(folder, tmp_path / "out")
    answers = {row[0]: row[2] for row in rows[1:]}
    assert answers == {
        "a.bmp": "green", "a.png": "red", "c/a.png": "blue",
        "c/red/deep/red/a.png": "red", "d/red/a.png": "green",
    }  # fmt: skip
    # two folders of one name are two rows
    assert ">c/red/deep/red<" in page and ">d/red<" in page and "50.0 %" in page


def test_where_all_that_were_to_be_shown_are_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predict, "SHOWN", 2)
    for i in (0, 2):  # the first and the last
        (tmp_path / f"{i}.png").write_bytes(b"no")
    paint(tmp_path / "1.png", (0, 250, 0))
    rows, page = predicted(tmp_path, tmp_path / "out")
    assert [row[2] for row in rows[1:]] == ["", "green", ""] and ">1.png<" in page


def test_one_photo_is_in_memory_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept of a photo, whatever its size, is a small square and a small thumbnail."""
    import weakref

    alive: list[weakref.ref] = []
    decode = predict.read_offered

    def watched(inputs: Path, file: Path) -> object:
        assert not [one for one in alive if one() is not None]
        photo = decode(inputs, file).copy()
        alive.append(weakref.ref(photo))
        return photo

    monkeypatch.setattr(predict, "read_offered", watched)
    for i in range(5):
        paint(tmp_path / f"in/{i}.png", (0, 250, 0), (900, 700))
    predicted(tmp_path / "in", tmp_path / "out")
    assert len(alive) == 5


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_listed(tmp_path: Path) -> None:
    paint(tmp_path / "in/a.png", (0, 250, 0))
    paint(tmp_path / "in/b.png", (0, 250, 0)).chmod(0)
    rows, _ = predicted(tmp_path / "in", tmp_path / "out")
    assert "b.png" in rows[2][-1]
