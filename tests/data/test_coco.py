"""COCO instances and segmentation folders: layouts, and what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tenfold.data import coco, segmentation


def picture(path: Path, width: int = 30, height: int = 20) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((height, width, 3), 90, dtype=np.uint8)).save(path)
    return path


def annotation(number: int = 1, **changes: Any) -> dict[str, Any]:
    square = [5, 4, 15, 4, 15, 10, 5, 10]
    base = {"id": number, "image_id": 7, "category_id": 3, "bbox": [5, 4, 10, 6], "iscrowd": 0}
    return {**base, "segmentation": [square], "area": 60, **changes}


def write(folder: Path, annotations: list[dict[str, Any]], **changes: Any) -> Path:
    picture(folder / "images" / "a.png")
    content = {
        "images": [{"id": 7, "file_name": "a.png", "height": 20, "width": 30}],
        "categories": [{"id": 9, "name": "dog"}, {"id": 3, "name": "cat"}],
        "annotations": annotations,
    } | changes
    (folder / "instances_train.json").write_text(json.dumps(content))
    return folder


def opened(folder: Path) -> coco.Instances:
    return coco.open_coco(*coco.find_split(folder, "train"))


def test_polygons_codes_and_crowds(tmp_path: Path) -> None:
    code = {"size": [20, 30], "counts": [4 * 20 + 2, 3, 20 * 25 - 5 + 20]}
    crowd = annotation(2, iscrowd=1, category_id=9, bbox=[4, 2, 1, 3], segmentation=code)
    scene = opened(write(tmp_path, [annotation(), crowd])).scene(0)
    assert scene.boxes.tolist() == [[5, 4, 15, 10]] and scene.labels.tolist() == [0]
    assert scene.masks is not None and abs(int(scene.masks[0].sum()) - 60) <= 4
    assert scene.ignored.tolist() == [[4, 2, 5, 5]] and scene.ignored_labels.tolist() == [1]
    assert scene.ignored_masks is not None and scene.ignored_masks[0, 2:5, 4].all()


def test_boxes_are_cut_and_empty_ones_left_out(tmp_path: Path) -> None:
    wide, empty = annotation(bbox=[20, 10, 50, 50]), annotation(2, bbox=[3, 3, 0, 5])
    with pytest.warns(UserWarning, match="1 boxes without area left out"):
        found = opened(write(tmp_path, [wide, empty]))
    assert found.scene(0).boxes.tolist() == [[20, 10, 30, 20]]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"category_id": 4}, r"annotation 1 has category 4, the file's categories are 3\.\.9"),
        ({"bbox": [1, 2, 3]}, r"bbox \[1, 2, 3\], expected x, y, width, height"),
        ({"bbox": [1, 2, float("nan"), 3]}, "bbox"),
        ({"image_id": 8}, "image 8, which is not listed"),
        ({"iscrowd": 2}, "iscrowd 2"),
    ],
)
def test_wrong_annotations(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        opened(write(tmp_path, [annotation(**changes)]))


@pytest.mark.parametrize(
    ("image", "kind", "says"),
    [
        ({"file_name": "../../etc/passwd"}, ValueError, "leads out of"),
        ({"file_name": "b.png"}, FileNotFoundError, r"b\.png, image 7 of"),
        ({"height": 10**6, "width": 10**6}, ValueError, "more than"),
        ({"height": -1}, ValueError, "size 30 x -1"),
    ],
)
def test_wrong_images(
    tmp_path: Path, image: dict[str, Any], kind: type[Exception], says: str
) -> None:
    base = {"id": 7, "file_name": "a.png", "height": 20, "width": 30}
    with pytest.raises(kind, match=says):
        opened(write(tmp_path, [annotation()], images=[base | image]))


def test_other_pictures_than_the_file_was_made_for(tmp_path: Path) -> None:
    found = opened(write(tmp_path, [annotation()]))
    picture(tmp_path / "images" / "a.png", 31, 20)
    with pytest.raises(ValueError, match="31 x 20 pixels, its annotation says 30 x 20"):
        found.scene(0)


@pytest.mark.parametrize("shape", [[[1, 2, 3, 4]], {"size": [5, 5], "counts": "x"}, [["a"] * 6]])
def test_segmentations_that_cannot_be_read(tmp_path: Path, shape: Any) -> None:
    found = opened(write(tmp_path, [annotation(segmentation=shape)]))
    with pytest.raises(ValueError, match="annotation 1 has a segmentation that cannot be read"):
        found.scene(0)


def test_no_json_and_no_file(tmp_path: Path) -> None:
    (tmp_path / "instances_train.json").write_text("{")
    with pytest.raises(ValueError, match="no JSON"):
        opened(tmp_path)
    with pytest.raises(FileNotFoundError, match="instances_val.json .*annotations/"):
        coco.find_split(tmp_path, "val")


# --- label maps --------------------------------------------------------------------------------


def labels(path: Path, values: np.ndarray, mode: str = "L") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).convert(mode).save(path)
    return path


def camvid(folder: Path, value: int = 3) -> Path:
    picture(folder / "train" / "x.png")
    map_ = np.full((20, 30), 2)
    map_[0, 5], map_[1, 6] = value, 11
    labels(folder / "trainannot" / "x.png", map_)
    return folder


def test_camvid(tmp_path: Path) -> None:
    found = segmentation.open_segmentation(camvid(tmp_path), "camvid", "train")
    shown, known = found.scene(0)
    assert shown.shape == (20, 30, 3) and (known[0, 5], known[1, 6]) == (3, 255)


def test_a_label_out_of_range_is_named(tmp_path: Path) -> None:
    found = segmentation.open_segmentation(camvid(tmp_path, 42), "camvid", "train")
    with pytest.raises(
        ValueError, match=r"x\.png holds label 42 at row 0, column 5, .* 11 classes"
    ):
        found.scene(0)


def test_pairs_and_sizes(tmp_path: Path) -> None:
    folder = camvid(tmp_path)
    picture(folder / "train" / "y.png")
    with pytest.raises(ValueError, match="'y' has no label map"):
        segmentation.open_segmentation(folder, "camvid", "train")
    labels(folder / "trainannot" / "y.png", np.zeros((5, 6)))
    found = segmentation.open_segmentation(folder, "camvid", "train")
    with pytest.raises(ValueError, match="6 x 5 pixels, its picture y.png 30 x 20"):
        found.scene(1)


def test_ade20k_counts_from_one(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "training" / "x.jpg")
    map_ = np.full((20, 30), 150)
    map_[0, 0] = 0
    labels(tmp_path / "annotations" / "training" / "x.png", map_)
    found = segmentation.open_segmentation(tmp_path, "ade20k", "train")
    known = found.scene(0)[1]
    assert len(found.classes) == 150 and (known[0, 0], known[1, 1]) == (255, 149)


def test_voc_reads_palettes_and_lists(tmp_path: Path) -> None:
    picture(tmp_path / "JPEGImages" / "x.jpg")
    map_ = np.full((20, 30), 20)
    map_[0] = 255
    path = tmp_path / "SegmentationClass" / "x.png"
    path.parent.mkdir()
    image = Image.fromarray(map_.astype(np.uint8), "P")
    image.putpalette(list(range(256)) * 3)
    image.save(path)
    listing = tmp_path / "ImageSets" / "Segmentation" / "train.txt"
    listing.parent.mkdir(parents=True)
    listing.write_text("x\n")
    known = segmentation.open_segmentation(tmp_path, "voc2012", "train").scene(0)[1]
    assert set(np.unique(known)) == {20, 255}
    listing.write_text("../x\n")
    with pytest.raises(ValueError, match="no name of a picture"):
        segmentation.open_segmentation(tmp_path, "voc2012", "train")


def test_colours_are_no_labels(tmp_path: Path) -> None:
    folder = camvid(tmp_path)
    labels(folder / "trainannot" / "x.png", np.zeros((20, 30)), "RGB")
    with pytest.raises(ValueError, match="mode RGB, not one number"):
        segmentation.open_segmentation(folder, "camvid", "train").scene(0)


def test_own_folders(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "train" / "x.jpg")
    labels(tmp_path / "labels" / "train" / "x.png", np.ones((20, 30)))
    with pytest.raises(FileNotFoundError, match="classes.txt"):
        segmentation.open_segmentation(tmp_path, "folder", "train")
    (tmp_path / "classes.txt").write_text("ground\nsky\n")
    found = segmentation.open_segmentation(tmp_path, "folder", "train")
    assert found.classes == ("ground", "sky") and found.scene(0)[1].max() == 1
