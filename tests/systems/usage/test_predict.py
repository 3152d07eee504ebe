"""Predictions: files, tables, and the page with the threshold's slider."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import config, options

from tenfold.data.images import cam_files
from tenfold.generated import shapes_wsss
from tenfold.runner.weights import construct
from tenfold.systems.usage import PredictOptions, Usage
from tenfold.viz import slider

pytestmark = pytest.mark.usefixtures("generated_only")


@pytest.fixture(scope="module")
def system() -> Usage:
    """An untrained system: what it says does not matter here."""
    patch = pytest.MonkeyPatch()
    patch.delenv("TENFOLD_DATA", raising=False)
    found = construct(Usage, config("usage", "demo", options("usage")))
    patch.undo()
    found.model.eval()
    return found


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of two sizes in two folders, one that is broken, and a table of labels."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "c").mkdir()
    for number, name in enumerate(["a.png", "b.png", "c/a.png"]):
        picture = shapes_wsss.pair("pictures", number)[0]
        Image.fromarray(picture[: 64 - 8 * number]).save(folder / name)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 nothing")
    (folder / "labels.csv").write_text("file,labels\na.png,disc\nc/a.png,star;square\n")
    return folder


def test_a_folder_has_masks_maps_table_and_pages(
    system: Usage, pictures: Path, tmp_path: Path
) -> None:
    asked = PredictOptions(labels=str(pictures / "labels.csv"), threshold=0.4, sure=0.01)
    with pytest.warns(UserWarning, match="files are left out"):
        files = system.predict(pictures, tmp_path, asked)
    names = {file.relative_to(tmp_path).as_posix() for file in files}
    kinds = ("mask.png", "overlay.png", "heat.png", "seeds.png", "seeds.npz")
    assert {f"c/a.png-{kind}" for kind in kinds} | {"threshold.html"} <= names
    mask = np.asarray(Image.open(tmp_path / "b.png-mask.png"))
    assert mask.shape == (56, 64) and mask.max() <= len(system.cfg.classes)
    maps = cam_files.read(tmp_path / "c/a.png-seeds.npz", 5)
    assert maps.shape == (5, 48, 64) and set(np.flatnonzero(maps.any((1, 2)))) <= {1, 4}
    best = np.concatenate([np.full((1, 48, 64), 0.4), maps]).argmax(0)
    seeds = np.asarray(Image.open(tmp_path / "c/a.png-seeds.png"))
    assert (best == seeds).mean() > 0.99  # maps are kept as float16
    rows = {row["file"]: row for row in csv.DictReader((tmp_path / "predictions.csv").open())}
    assert rows["c/a.png"]["labels"] == "square;star" and rows["a.png"]["origin"] == "given"
    assert rows["b.png"]["origin"] == "found" and "broken.jpg" in rows["broken.jpg"]["problem"]
    shares = [float(v) for k, v in rows["b.png"].items() if k.startswith("share of")]
    assert sum(shares) == pytest.approx(1, abs=1e-2)
    assert "1 of 4 files cannot be read" in files[-1].read_text()


def test_a_lone_picture_and_wrong_labels(system: Usage, pictures: Path, tmp_path: Path) -> None:
    files = system.predict(pictures / "a.png", tmp_path / "one", PredictOptions(crf=True))
    assert {"a-mask.png", "a-seeds.npz"} <= {file.name for file in files}
    (tmp_path / "labels.csv").write_text("file,labels\na.png,zebra\nb.png,disc\n")
    nested = PredictOptions(labels=str(pictures / "labels.csv"))
    system.predict(pictures / "c" / "a.png", tmp_path / "below", nested)
    (row,) = csv.DictReader((tmp_path / "below/predictions.csv").open())
    assert row["labels"] == "square;star" and row["origin"] == "given"
    with pytest.raises(ValueError, match="zebra"):
        asked = PredictOptions(labels=str(tmp_path / "labels.csv"))
        system.predict(pictures / "a.png", tmp_path / "two", asked)
    (tmp_path / "labels.csv").write_text("file,labels\na.png,disc\ngone.png,disc\n")
    with pytest.raises(FileNotFoundError, match=r"gone\.png\)\. Add them, or remove their rows\.$"):
        system.predict(pictures / "a.png", tmp_path / "three", asked)


def test_maps_in_half_precision(system: Usage, pictures: Path, tmp_path: Path) -> None:
    """`seeds.precision bfloat16` is what predictions are computed in."""
    half = replace(system.cfg, seeds=replace(system.cfg.seeds, precision="bfloat16"))
    other = Usage(half)
    other.model.load_state_dict(system.model.state_dict())
    asked = PredictOptions(labels=str(pictures / "labels.csv"))
    for one, name in ((system, "whole"), (other, "half")):
        one.predict(pictures / "a.png", tmp_path / name, asked)
    maps = [cam_files.read(tmp_path / name / "a-seeds.npz", 5) for name in ("whole", "half")]
    apart = np.abs(maps[0] - maps[1])
    assert 0 < apart.max() < 0.1 and apart.mean() < 4e-3


def test_the_slider_page_holds_all_that_it_shows(tmp_path: Path) -> None:
    """No link leads out, and a name cannot end the script."""
    picture = np.zeros((300, 400, 3), np.uint8)
    maps = {2: np.linspace(0, 1, 300 * 400, dtype=np.float32).reshape(300, 400)}
    shown = [slider.shown("</script><b>", picture, maps), slider.shown("bare", picture[:9], {})]
    page = slider.write_slider(
        tmp_path / "page.html", shown, ["background", "a", "b"], 0.3, {"best": 0.4}, title="page"
    ).read_text()
    text = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    assert text is not None
    found = json.loads(text[1])
    assert found["pictures"][0]["name"] == "</script><b>" and found["threshold"] == 0.3
    assert (found["pictures"][0]["height"], found["pictures"][0]["width"]) == (144, 192)
    assert found["pictures"][1]["classes"] == [] and len(found["colours"]) == 3
    assert not re.search(r"(src|href)=\"(?!data:)", page) and page.count("<script") == 2
    assert "script-src 'unsafe-inline'" in page
