"""VOC 2012 in the forms of its lists and labels."""

from __future__ import annotations

from pathlib import Path

import image_sets
import numpy as np
import pytest
from PIL import Image

from tenfold.data.checks import check
from tenfold.data.images.cls_labels import read_cls_labels
from tenfold.data.images.multilabel import open_set, read_image, read_mask

IDS = ("2007_000032", "2007_000039", "2008_000001")
"""Two of VOC's own, and one that only SBD has masks of."""
VAL = "2007_000033"
LABELS = {IDS[0]: (0, 14), IDS[1]: (19,), IDS[2]: (14,), VAL: (0,)}


def mask(file: Path, labels: tuple[int, ...], mode: str = "P") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    values = np.zeros((image_sets.HEIGHT, image_sets.WIDTH), dtype=np.uint8)
    for row, label in enumerate(labels):
        values[5 * row : 5 * row + 5] = label + 1
    values[-1] = 255
    image = Image.fromarray(values)
    if mode == "P":
        image.putpalette(np.random.default_rng(0).integers(0, 256, 768, dtype=np.uint8).tobytes())
    image.save(file)


@pytest.fixture
def voc(tmp_path) -> Path:
    root = tmp_path / "VOCdevkit" / "VOC2012"
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for name, labels in LABELS.items():
        image_sets.picture(root / "JPEGImages" / f"{name}.jpg", len(labels))
        if name != IDS[2]:
            mask(root / "SegmentationClass" / f"{name}.png", labels)
        mask(root / "SegmentationClassAug" / f"{name}.png", labels, "L")
    (lists / "train.txt").write_text("\n".join(IDS[:2]))
    (lists / "val.txt").write_text(f"{VAL}\n")
    return root


def npy(file: Path, keys: str = "text") -> None:
    rows = {}
    for name, labels in LABELS.items():
        row = np.zeros(20, dtype=np.float32)
        row[list(labels)] = 1
        key = {"text": name, "number": int(name.replace("_", "")), "jpg": f"{name}.jpg"}[keys]
        rows[key] = row
    np.save(file, rows)


def note(root: Path, name: str, *objects: str) -> None:
    (root / "Annotations").mkdir(exist_ok=True)
    text = "".join(
        f"<object><name>{o}</name><part><name>head</name></part></object>" for o in objects
    )
    (root / "Annotations" / f"{name}.xml").write_text(f"<annotation>{text}</annotation>")


@pytest.mark.filterwarnings("ignore:.*classes are in no picture")
@pytest.mark.parametrize("keys", ["text", "number", "jpg"])
@pytest.mark.parametrize("form", ["names", "numbers", "pairs"])
def test_lists_and_labels(voc, keys, form):
    lines = {
        "names": IDS,
        "numbers": [name.replace("_", "") for name in IDS],
        "pairs": [f"/JPEGImages/{n}.jpg /SegmentationClassAug/{n}.png" for n in IDS],
    }[form]
    (voc / "ImageSets" / "Segmentation" / "train_aug.txt").write_text("\n".join(lines) + "\n")
    npy(voc / "cls_labels.npy", keys)
    train = open_set("voc2012", voc.parent, "train")
    assert len(train.classes) == 20 and train.labels_from == "cls_labels.npy"
    assert {item.name: item.labels for item in train.items} == {n: LABELS[n] for n in IDS}
    assert [item.has_mask for item in train.items] == [True, True, form == "pairs"]
    for item in train.items:
        assert read_image(item).shape == (image_sets.HEIGHT, image_sets.WIDTH, 3)
        if item.has_mask:
            seen = set(np.unique(read_mask(item)).tolist())
            assert seen == {0, 255, *(label + 1 for label in item.labels)}
    assert [item.labels for item in open_set("voc2012", voc, "val").items] == [(0,)]


@pytest.mark.filterwarnings("ignore:.*classes are in no picture")
def test_labels_of_annotations_and_of_masks(voc):
    train = open_set("voc2012", voc, "train")
    assert [item.labels for item in train.items] == [LABELS[n] for n in IDS[:2]]
    assert train.labels_from == "made from the masks"
    note(voc, IDS[0], "person", "diningtable", "person")
    train = open_set("voc2012", voc, "train")
    assert train.items[0].labels == (10, 14) and train.items[1].labels == (19,)
    assert "of 1 pictures the masks" in train.labels_from
    assert not check("voc2012", voc).problems


@pytest.mark.filterwarnings("ignore:.*classes are in no picture")
def test_what_does_not_fit_is_named(voc):
    note(voc, IDS[0], "unicorn")
    with pytest.raises(ValueError, match="_000032.xml has an object 'unicorn'"):
        open_set("voc2012", voc, "train")
    (voc / "Annotations" / f"{IDS[0]}.xml").write_text('<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>')
    with pytest.raises(ValueError, match="_000032.xml defines entities"):
        open_set("voc2012", voc, "train")
    (voc / "Annotations" / f"{IDS[0]}.xml").write_text("<annotation>")
    with pytest.raises(ValueError, match="_000032.xml is no XML"):
        open_set("voc2012", voc, "train")
    aug = voc / "ImageSets" / "Segmentation" / "train_aug.txt"
    aug.write_text("\n".join(IDS))
    with pytest.raises(ValueError, match=r"1 pictures have neither cls_labels.npy.*2008_000001"):
        open_set("voc2012", voc, "train")
    for text, said in (
        (f"{IDS[0]}\n2009_1\n", r"lists 1 files that are not there: .*2009_1.jpg"),
        (f"{IDS[0]}\n{IDS[0]}\n", "lists a picture twice"),
        ("/../../x.jpg /x.png\n", "leads out of"),
        ("a b c\n", "train_aug.txt line 1 is no name and no pair"),
        (f"/JPEGImages/{IDS[0]}.jpg /SegmentationClass/{IDS[1]}.png\n", "needs its own mask"),
    ):
        aug.write_text(text)
        with pytest.raises((ValueError, FileNotFoundError), match=said):
            open_set("voc2012", voc, "train")


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([1, 2], "holds a ndarray, not labels by picture"),
        ({"a": np.zeros(19)}, r"a has values of shape \(19,\).*expected 20 of 0 and 1"),
        ({"a": np.full(20, 0.5)}, "a has the value 0.5, expected 0 or 1"),
        ({"a": "x"}, r"a has values of shape \(0,\)"),
        ({3.5: np.zeros(20)}, "'3.5' is no name of a picture"),
        ({"a": np.zeros(20), "a.jpg": np.ones(20)}, "two rows for a, which differ"),
    ],
)
def test_damaged_cls_labels(tmp_path, rows, said):
    np.save(tmp_path / "cls_labels.npy", np.array(rows, dtype=object))
    with pytest.raises(ValueError, match=f"cls_labels.npy.*{said}|cls_labels.npy {said}"):
        read_cls_labels(tmp_path / "cls_labels.npy", 20)


def test_coco_rows_of_91_are_named(tmp_path):
    np.save(tmp_path / "cls_labels.npy", {"000000000009": np.zeros(90)})
    with pytest.raises(ValueError, match="COCO's numbers up to 90: convert them to the 80"):
        read_cls_labels(tmp_path / "cls_labels.npy", 80)
