"""Sets of pictures with image-level labels: written small, read back, damaged."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import image_sets
import numpy as np
import pytest
from PIL import Image

from tenfold.data.checks import check
from tenfold.data.images.decode import Reading
from tenfold.data.images.image_labels import check_seen
from tenfold.data.images.multilabel import GARMENTS, open_set, read_image, read_mask
from tenfold.generated import shapes_wsss

H, W = image_sets.HEIGHT, image_sets.WIDTH
GROUPS = ["person", "vehicle", "animal"]


def png(file: Path, values: np.ndarray) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).save(file)
    return file


def halves(left: int, right: int, size: tuple[int, int] = (H, W)) -> np.ndarray:
    found = np.full(size, left)
    found[:, size[1] // 2 :] = right
    return found


# --- coco_wsss -----------------------------------------------------------------------------------


@pytest.fixture
def wsss(tmp_path) -> Path:
    """Pictures a, b, c for training and v for validation, as coco_wsss has them."""
    labels = {"a": [1, 0, 0], "b": [0, 1, 1], "c": [1, 1, 0], "v": [0, 0, 1]}
    masks = {"a": (0, 1), "b": (2, 3), "c": (1, 2), "v": (3, 255)}
    for name in labels:
        image_sets.picture(tmp_path / "images" / f"{name}.webp", ord(name), lossless=True)
        png(tmp_path / "SegmentationClass" / f"{name}.png", halves(*masks[name]))
    (tmp_path / "ImageSets").mkdir()
    (tmp_path / "ImageSets" / "train.txt").write_text("a\nb\nc\n")
    (tmp_path / "ImageSets" / "val.txt").write_text("v\n")
    content = {"groups": GROUPS, "images": {n: {"label": v} for n, v in labels.items()}}
    (tmp_path / "labels.json").write_text(json.dumps(content))
    return tmp_path


def test_coco_wsss(wsss):
    train, val = open_set("coco_wsss", wsss, "train"), open_set("coco_wsss", wsss, "val")
    assert train.classes == tuple(GROUPS) and train.kind == "real" and train.has_masks
    assert [(i.name, i.labels) for i in train.items] == [("a", (0,)), ("b", (1, 2)), ("c", (0, 1))]
    assert train.positives == (2, 2, 1) and val.positives == (0, 0, 1)
    picture, mask = read_image(train.items[1]), read_mask(train.items[1])
    assert picture.shape == (H, W, 3) and np.array_equal(mask, halves(2, 3))
    assert np.array_equal(read_mask(val.items[0]), halves(3, 255))
    check_seen(train, val, "val")


@pytest.mark.filterwarnings("ignore:.*classes are in no picture")
def test_coco_wsss_damage(wsss):
    png(wsss / "SegmentationClass" / "b.png", halves(2, 3, (H, W + 1)))
    with pytest.raises(
        ValueError, match=r"b\.png has a mask of 41 x 30 pixels, its picture .*40 x"
    ):
        open_set("coco_wsss", wsss, "train")
    with pytest.warns(UserWarning, match=r"1 pictures left out.*b\.png"):
        assert len(open_set("coco_wsss", wsss, "train", Reading(skip_broken=True))) == 2
    png(wsss / "SegmentationClass" / "b.png", halves(2, 4))
    found = open_set("coco_wsss", wsss, "train")
    with pytest.raises(ValueError, match=r"b\.png holds 4 at row 0, column 20; .* 0, 1, 2, 3, 255"):
        read_mask(found.items[1])
    content = json.loads((wsss / "labels.json").read_text())
    content["images"]["a"]["label"] = [0, 0, 0]
    (wsss / "labels.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"1 of 3 pictures have no label \(a\).*data.unlabelled"):
        open_set("coco_wsss", wsss, "train")
    with pytest.warns(UserWarning, match=r"have no label \(a\): left out"):
        assert len(open_set("coco_wsss", wsss, "train", unlabelled="skip")) == 2
    assert open_set("coco_wsss", wsss, "train", unlabelled="keep").items[0].labels == ()
    (wsss / "ImageSets" / "train.txt").write_text("a\nx\n")
    with pytest.raises(ValueError, match=r"train.txt lists 'x', of which .*labels.json has no"):
        open_set("coco_wsss", wsss, "train")
    content["images"]["a"]["label"] = [2, 0, 0]
    (wsss / "labels.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"a has label \[2, 0, 0\], expected 3 of 0 and 1"):
        open_set("coco_wsss", wsss, "train")
    with pytest.raises(ValueError, match="no split 'test'; it has train, val"):
        open_set("coco_wsss", wsss, "test")
    with pytest.raises(ValueError, match="'voc' is no set of image labels; these are: coco_wsss"):
        open_set("voc", wsss)


def test_a_label_that_training_never_sees(wsss):
    (wsss / "ImageSets" / "train.txt").write_text("a\nc\n")
    with pytest.warns(UserWarning, match="1 of 3 classes are in no picture of training.*animal"):
        train = open_set("coco_wsss", wsss, "train")
    with pytest.raises(ValueError, match=r"animal is a label of split 'val' \(v\), but never seen"):
        check_seen(train, open_set("coco_wsss", wsss, "val"), "val")


def test_classes_in_another_order_are_no_labels_of_training(wsss):
    """Each file of COCO lists its own categories."""
    train, val = (open_set("coco_wsss", wsss, split) for split in ("train", "val"))
    other = replace(val, classes=val.classes[::-1])
    with pytest.raises(ValueError, match="classes of split 'val' are .* List the same ones in"):
        check_seen(train, other, "val")


# --- clothing_parsing ----------------------------------------------------------------------------


def test_clothing_parsing(tmp_path):
    tags = ["null", *(tag for group in GARMENTS.values() for tag in group), "skin"]
    (tmp_path / "labels.json").write_text(json.dumps({"labels": tags}))
    coat, bag, skin = tags.index("coat"), tags.index("purse"), tags.index("skin")
    for row in range(12):
        image_sets.picture(tmp_path / "images" / f"{row:04d}.webp", row)
        mask = halves(0, coat)
        mask[0, :10], mask[1] = bag, skin  # 10 of 1200 pixels
        mask[0, 5 if row == 2 else 10 :] = 0  # in one picture too few for a label
        png(tmp_path / "labels" / f"{row:04d}.png", mask)
    png(tmp_path / "labels" / "0003.png", halves(0, skin))
    splits = {s: open_set("clothing_parsing", tmp_path, s) for s in ("val", "test")}
    with pytest.warns(UserWarning, match="4 of 6 classes are in no picture of training"):
        splits["train"] = open_set("clothing_parsing", tmp_path, "train")
    names = {split: [item.name for item in one.items] for split, one in splits.items()}
    assert names["test"] == ["0000", "0010"] and names["val"] == ["0001", "0011"]
    assert names["train"] == ["0002", *(f"{row:04d}" for row in range(4, 10))]
    first, second = splits["train"].items[:2]
    assert first.labels == (0,) and second.labels == (0, 5)
    small, large = read_mask(first), read_mask(second)
    assert set(small[0].tolist()) == {0, 255} and set(large[0].tolist()) == {0, 6}
    assert set(large[1].tolist()) == {255} and set(large[2].tolist()) == {0, 1}
    assert "made from the masks" in splits["train"].labels_from


# --- COCO ----------------------------------------------------------------------------------------

IDS = (1, 13, 90)
"""Category numbers with gaps, as COCO has them; 13 is in order the second."""


@pytest.fixture
def coco(tmp_path) -> Path:
    """Three pictures: two objects of which the smaller lies inside; a crowd; nothing."""
    size = {"height": H, "width": W}
    common = {"iscrowd": 0, "area": 1}
    large, small = [0, 0, 40, 30], [10, 10, 4, 5]
    runs = {"size": [H, W], "counts": [0, H * 3, H * (W - 3)]}
    objects = [
        {"image_id": 1, "category_id": 90, "bbox": small,
         "segmentation": [image_sets.polygon(small)], **common},
        {"image_id": 1, "category_id": 13, "bbox": large,
         "segmentation": [image_sets.polygon(large)], **common},
        {"image_id": 2, "category_id": 1, "bbox": [0, 0, 3, 30], "segmentation": runs, "area": 1,
         "iscrowd": 1},
    ]  # fmt: skip
    for split in ("train", "val"):
        names = image_sets.pictures(tmp_path / f"{split}2014", 3)
        content = {
            "images": [{"id": i, "file_name": n} | size for i, n in enumerate(names, 1)],
            "categories": [{"id": i, "name": f"c{i}"} for i in IDS],
            "annotations": [{"id": i} | one for i, one in enumerate(objects)],
        }
        file = tmp_path / "annotations" / f"instances_{split}2014.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(content))
    return tmp_path


def test_coco_masks_are_drawn(coco):
    with pytest.warns(UserWarning, match="1 pictures have no object"):
        train = open_set("coco2014", coco, "train")
    assert train.classes == ("c1", "c13", "c90")
    assert [item.labels for item in train.items] == [(1, 2), (0,)]
    mask = read_mask(train.items[0])
    assert (mask[10:15, 10:14] == 3).all() and (mask == 3).sum() == 20
    assert (mask == 2).sum() == H * W - 20
    crowd = read_mask(train.items[1])
    assert (crowd[:, :3] == 255).all() and not crowd[:, 3:].any()
    assert len(open_set("coco2014", coco, "val")) == 3


@pytest.mark.parametrize("numbers", [(2, 3), (13, 90)])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_coco_numbers_of_label_maps_are_found_out(coco, numbers):
    png(coco / "masks" / "train2014" / "p0.png", halves(*numbers))
    train = open_set("coco2014", coco, "train")
    assert np.array_equal(read_mask(train.items[0]), halves(2, 3))
    assert read_mask(train.items[1]).max() == 255  # has no PNG, and is drawn


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_coco_numbers_that_are_mixed_are_refused(coco):
    png(coco / "masks" / "train2014" / "p0.png", halves(2, 90))
    with pytest.raises(
        ValueError, match="neither as 1 to 3 nor by COCO's numbers up to 90, or bot"
    ):
        open_set("coco2014", coco, "train")
    said = [problem.what for problem in check("coco2014", coco).problems]
    assert any("COCO's numbers up to 90, or both are mixed" in text for text in said)


# --- generated -----------------------------------------------------------------------------------


def test_generated_pictures_have_the_labels_that_their_masks_show():
    found = shapes_wsss.open_set("train", 30)
    assert found.kind == "generated" and len(found) == 30 and min(found.positives) > 2
    for item in found.items:
        mask = read_mask(item)
        assert {label + 1 for label in item.labels} == set(np.unique(mask).tolist()) - {0, 255}
        assert item.labels and read_image(item).shape == (64, 64, 3)
    again = shapes_wsss.pair("train", 3)
    assert np.array_equal(again[0], read_image(found.items[3]))
    assert not np.array_equal(again[0], shapes_wsss.pair("val", 3)[0])


def test_pictures_turned_by_a_note_fit_their_masks(tmp_path):
    """An EXIF note turns the picture; the mask is of either form."""
    exif = Image.Exif()
    exif[0x0112] = 6
    for i, size in enumerate([(H, W), (W, H)]):
        image_sets.picture(tmp_path / "images" / f"p{i}.jpg", exif=exif)
        png(tmp_path / "masks" / f"p{i}.png", halves(0, 1, size))
    rows = "".join(f"p{i}.jpg,cat,{split}\n" for i in (0, 1) for split in ["train"])
    image_sets.picture(tmp_path / "images" / "v.jpg")
    (tmp_path / "t.csv").write_text("image,label,split\n" + rows + "v.jpg,cat,val\n")
    (tmp_path / "classes.txt").write_text("cat\n")
    found = open_set("folder", tmp_path, "train")
    for item in found.items:
        assert read_image(item).shape[:2] == read_mask(item).shape
