"""Training on sets of a user's own, from the command line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import image_sets
import pytest
import tiny
from image_sets import coco, maps, picture, pictures
from PIL import Image
from tiny import options

from tenfold.cli import main
from tenfold.runner.weights import construct
from tenfold.systems.itpn import Itpn
from tenfold.systems.itpn.config import Data

DENSE = (
    "--dense.head-dim 16 --dense.fc-dim 16 --dense.size 32 --dense.stride 0 --dense.longest 48 "
    "--dense.short-sides 32 --dense.proposals 16 --loop.amp off --data.holdout 0"
)


def train(task: str, data: Path, run: Path, *more: str) -> str:
    """Two steps on a set; returns what was measured."""
    words = [*options("itpn"), *(DENSE.split() if task != "classify" else ())]
    words += ["--data.name", "folder", "--data.path", str(data), "--run.folder", str(run)]
    main(["train", "itpn", task, *words, "--data.batch-size", "2", "--steps", "2", *more])
    return (run / "result.json").read_text()


@pytest.mark.filterwarnings("ignore:.*have no segmentation")
def test_an_object_without_a_polygon(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its box counts, its mask does not; by the name of the set that has this form."""
    image_sets.roboflow(tmp_path / "set")
    for split in ("train", "valid"):
        file = tmp_path / "set" / split / "_annotations.coco.json"
        content = json.loads(file.read_text())
        content["annotations"][0]["segmentation"] = []
        file.write_text(json.dumps(content))
    measured = train("detect", tmp_path / "set", tmp_path / "run", "--data.name", "coco2017")
    assert "ap/boxes/AP50" in measured and "ap/masks/AP50" in measured
    said = "COCO's form (_annotations.coco.json); train 4 pictures, 8 objects with masks; test 2"
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("crowd", [0, 1])
def test_pictures_without_objects_are_nothing_to_validate_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], crowd: int
) -> None:
    """Told before the first step: their average precision has no value, with crowds or without."""
    image_sets.roboflow(tmp_path / "set")
    file = tmp_path / "set" / "train" / "_annotations.coco.json"
    content = json.loads(file.read_text())
    (held,) = Itpn.held_out(SimpleNamespace(cfg=SimpleNamespace(data=Data(holdout=0.25))), 4)  # type: ignore[arg-type]
    own = [a for a in content["annotations"] if a["image_id"] == content["images"][held]["id"]]
    for item in own:
        item["iscrowd"] = crowd
        content["annotations"] = [a for a in content["annotations"] if crowd or a not in own]
    file.write_text(json.dumps(content))
    with pytest.raises(SystemExit) as left:
        train("detect", tmp_path / "set", tmp_path / "run", "--data.holdout", "0.25")
    assert left.value.code == 2
    said = "data.holdout 0.25 keeps 1 of 4 pictures for validation, and none of them has an object"
    assert said in capsys.readouterr().err


def test_boxes_without_masks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image_sets.roboflow_yolo(tmp_path / "set")
    measured = train("detect", tmp_path / "set", tmp_path / "run")
    assert "warning: the set has boxes only: no masks are trained" in capsys.readouterr().err
    assert "ap/boxes/AP50" in measured
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert '"masks": false' in json.dumps(config)


def test_label_maps_and_what_broke_while_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A picture of another size than its map is known at once, a cut one when it is read."""
    maps(tmp_path / "set" / "images", tmp_path / "set" / "masks", 5, values=(0, 255, 255))
    images = tmp_path / "set" / "images"
    Image.open(images / "p2.jpg").resize((20, 20)).save(images / "p2.jpg")
    with pytest.raises(SystemExit) as stopped:
        train("segment", tmp_path / "set", tmp_path / "none")
    assert stopped.value.code == 2 and "its picture p2.jpg 20 x 20" in capsys.readouterr().err
    cut = (images / "p1.jpg").read_bytes()
    (images / "p1.jpg").write_bytes(cut[: 2 * len(cut) // 3])
    measured = train("segment", tmp_path / "set", tmp_path / "run", "--data.skip-broken")
    said = capsys.readouterr().err.splitlines()
    assert any("0 and 255 alone, taken as two classes" in text for text in said)
    assert any("pictures left out" in text and "p2.jpg" in text for text in said)
    assert any("could not be read and were replaced" in text and "p1.jpg" in text for text in said)
    assert "iou/segmentation/mIoU" in measured


def test_no_annotations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coco(tmp_path / "a.json", pictures(tmp_path / "images", 3), annotations=[])
    with pytest.raises(SystemExit) as stopped:
        train("detect", tmp_path, tmp_path / "run")
    assert stopped.value.code == 2 and "no object in any of them" in capsys.readouterr().err


def test_class_folders_of_many_endings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for kind in ("train", "valid"):
        for name in ("a", "b"):
            for i in range(2):
                picture(tmp_path / "set" / kind / name / f"{i}.jfif", i, format="JPEG")
                (tmp_path / "set" / kind / name / f"{i}.heic").write_bytes(b"")
            picture(tmp_path / "set" / kind / name / "deeper" / "x.png")
    measured = train("classify", tmp_path / "set", tmp_path / "run")
    said = capsys.readouterr().err
    assert "train: 4 of 10 files are left out" in said and "4 .heic" in said
    assert "sub-folders count to their class folder: a (deeper), b (deeper)" in said
    assert "accuracy/fine-tuned/top1" in measured


# --- classes -------------------------------------------------------------------------------------


def test_data_of_other_classes_are_refused(tmp_path: Path) -> None:
    """As `--config RUN --data.path OTHER` has it, and a folder that was changed since."""
    for kind, names in (("own", ("cat", "dog")), ("other", ("emu", "fox"))):
        for name in names:
            for number in range(3):
                picture(tmp_path / kind / name / f"{number}.png")
    words = ["--tasks", "classify", "--data.name", "folder", "--data.path", str(tmp_path / "own")]
    cfg = tiny.config("itpn", "demo", [*tiny.options("itpn"), *words, "--data.batch-size", "2"])
    assert cfg.classes == ("cat", "dog") == Itpn.complete(cfg).classes
    said = r"the run has 2 classes \(cat, dog, ...\), but {}/{} has 2 \({}, ...\)"
    other = replace(cfg, data=replace(cfg.data, path=str(tmp_path / "other")))
    with pytest.raises(ValueError, match=said.format(tmp_path, "other", "emu, fox")):
        Itpn.complete(other)
    with pytest.raises(ValueError, match=r"the run has 2 classes \(dog, cat"):
        Itpn.complete(replace(cfg, classes=("dog", "cat")))
    (tmp_path / "own" / "cat").rename(tmp_path / "own" / "wolf")
    with pytest.raises(ValueError, match=said.format(tmp_path, "own", "dog, wolf")):
        construct(Itpn, replace(cfg, probes=False)).evaluate()
