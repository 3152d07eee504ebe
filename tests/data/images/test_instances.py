"""Objects of pictures: masks as codes of crops, points, outlines, and the sets that have them."""

from __future__ import annotations

import json
from pathlib import Path

import image_sets
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as reference

from tenfold.data.images.crops import Crop, crop_of
from tenfold.data.images.decode import Reading
from tenfold.data.images.instance_sets import SETS, open_boxes, open_instances, open_photos
from tenfold.data.images.outlines import outlines
from tenfold.data.images.points import drawn_points, true_labels


def noise(seed: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(seed).random((height, width)) < 0.4


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 12), st.integers(1, 12), st.integers(0, 5))
def test_a_crop_is_the_mask(seed: int, height: int, width: int, x: int) -> None:
    mask = noise(seed, height, width)
    whole = np.zeros((height + 3, width + 7), dtype=bool)
    whole[2 : 2 + height, x : x + width] = mask
    crop = crop_of(mask, x, 2)
    assert (crop.whole(*whole.shape) == whole).all() and crop.area == mask.sum()
    assert crop == crop_of(whole) or not mask.any()
    code = crop.code(*whole.shape)
    assert (reference.decode(code) == whole).all()
    assert (crop.within((1, 0, width + 7, height + 1)) == whole[: height + 1, 1:]).all()
    for row, column in ((2, x), (0, 0), (height + 1, x + width - 1)):
        assert crop.at(column, row) == whole[row, column]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 14), st.integers(1, 14))
def test_outlines_are_drawn_as_the_mask(seed: int, height: int, width: int) -> None:
    """Holes, corners that touch and parts within holes included."""
    mask = noise(seed, height, width)
    found = outlines(crop_of(mask))
    assert bool(found) == mask.any()
    if found:
        polygons = [corners.astype(float).ravel().tolist() for corners in found]
        codes = reference.frPyObjects(polygons, height, width)
        assert (reference.decode([reference.merge(codes)])[..., 0] == mask).all()


def test_distance_to_the_border() -> None:
    mask = crop_of(np.ones((5, 5), dtype=bool), 10, 10)
    assert mask.distance_to_border(12, 12) == 2.5 and mask.distance_to_border(10, 12) == 0.5
    assert mask.distance_to_border(9, 12) == 0.5 and mask.distance_to_border(7, 6) == 4.5
    assert Crop(0, 0, 0, 0, b"").distance_to_border(3, 3) == float("inf")


# --- files of COCO's form ------------------------------------------------------------------------

OBJECT = {"image_id": 1, "category_id": 7, "bbox": [2, 1, 4, 3], "iscrowd": 0, "area": 9.5}


def coco(folder: Path, *objects: dict) -> tuple[Path, Path]:
    Image.fromarray(np.zeros((8, 12, 3), np.uint8)).save(folder / "a.png")
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": 8, "width": 12}],
        "categories": [{"id": 7, "name": "cat"}],
        "annotations": [{"id": i, **OBJECT, **one} for i, one in enumerate(objects, 1)],
    }
    file = folder / "instances.json"
    file.write_text(json.dumps(content))
    return file, folder


def test_masks_boxes_and_points_in_one_file(tmp_path: Path) -> None:
    polygon = [[2, 1, 6, 1, 6, 4, 2, 4]]
    crowd = {"iscrowd": 1, "segmentation": {"size": [8, 12], "counts": [90, 4, 2]}}
    points = {"point_coords": [[2, 1], [5, 3.0], [11, 7]], "point_labels": [1, 0, -1]}
    found = open_boxes(*coco(tmp_path, crowd, {"segmentation": polygon}, {}, points))
    (picture,) = found.pictures
    assert [s.supervision for s in picture.shapes] == ["mask", "mask", "box", "points"]
    assert [s.id for s in picture.asked] == [2, 3, 4] and found.num_objects == 3
    mask = picture.shapes[1].mask
    assert mask is not None and mask.box == (2, 1, 6, 4) and mask.area == 12
    assert picture.shapes[1].area == 9.5 and picture.shapes[1].box == (2, 1, 6, 4)
    assert [(p.x, p.y, p.label) for p in picture.shapes[3].points] == [
        (2, 1, 1), (5, 3, 0), (11, 7, -1)
    ]  # fmt: skip
    less = found.known_by("points").pictures[0].shapes
    assert [s.supervision for s in less] == ["box", "box", "box", "points"]
    assert not found.known_by("box").pictures[0].shapes[3].points
    assert found.picture(0).shape == (8, 12, 3)


def test_boxes_that_do_not_lie_in_the_picture_are_named(tmp_path: Path) -> None:
    files = coco(
        tmp_path, {}, {"bbox": [20, 1, 4, 3]}, {"bbox": [2, 1, 0, 3]}, {"bbox": [8, 2, 9, 3]}
    )
    with pytest.warns(UserWarning) as caught:
        found = open_boxes(*files)
    said = " ".join(str(one.message) for one in caught)
    assert "2 boxes without area" in said and "annotations 2, 3" in said
    assert "annotation 4 of" in said and "leaves the picture by 5 pixels: cut" in said
    assert [s.id for s in found.pictures[0].shapes] == [1, 4]
    assert found.pictures[0].shapes[1].box == (8, 2, 12, 5)
    assert len(found.notes) == 2


LIES = {"size": [8, 12], "counts": [0, 10**15]}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"segmentation": {"size": [9, 12], "counts": [108]}}, r"of size \[9, 12\]"),
        ({"segmentation": LIES}, "do not add up to the 96 pixels"),
        ({"segmentation": {"size": [8, 12], "counts": "0000000000000000o7"}}, "do not add up"),
        ({"segmentation": {"size": [8, 12], "counts": [10**30]}}, "no list of whole numbers"),
        ({"point_coords": [[1, 1]]}, "point_coords or point_labels is missing"),
        ({"point_coords": [[1, 1]], "point_labels": []}, "as many point_labels"),
        ({"point_coords": [[12, 1]], "point_labels": [1]}, "12, 1 of label 1"),
        ({"point_coords": [[1, 1]], "point_labels": [2]}, "its label is 0, 1 or -1"),
        ({"point_coords": [["1", 1]], "point_labels": [1]}, "must be a number"),
        ({"id": 1}, "ids of annotations must be unique; there twice: 1"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, wrong: dict, message: str) -> None:
    files = coco(tmp_path, {}, wrong)
    with pytest.raises(ValueError, match=message) as caught:
        open_boxes(*files)
    assert "annotation" in str(caught.value) and str(tmp_path) in str(caught.value)
    if "id" not in wrong:
        with pytest.warns(UserWarning, match="left out"):
            found = open_boxes(*files, Reading(skip_broken=True))
        assert [s.id for s in found.pictures[0].shapes] == [1]


def test_a_picture_that_vanishes(tmp_path: Path) -> None:
    files = coco(tmp_path, {})
    found = open_boxes(*files)
    Image.fromarray(np.zeros((8, 13, 3), np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="has 13 x 8 pixels, its objects are of 12 x 8"):
        found.picture(0)
    (tmp_path / "a.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"a\.png is not there"):
        found.picture(0)
    with pytest.raises(FileNotFoundError, match=r"a\.png, image 1 of .*, is not there"):
        open_boxes(*files)


def test_validation_of_an_undivided_folder_is_none_of_training(tmp_path: Path) -> None:
    image_sets.cvat(tmp_path)
    names = {
        split: {one.name for one in open_instances("folder", tmp_path, split).pictures}
        for split in ("train", "val", "test")
    }
    assert names["val"] == names["test"] and not names["val"] & names["train"]


def test_photos_without_objects(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((8, 12, 3), np.uint8)).save(tmp_path / "b.png")
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"a\.png cannot be read"):
        open_photos(tmp_path)
    with pytest.warns(UserWarning, match=r"a\.png"):
        found = open_photos(tmp_path, Reading(skip_broken=True), ("cat",))
    assert [(p.name, p.height, p.width) for p in found.pictures] == [("b.png", 8, 12)]
    assert found.category_ids == (1,) and not found.num_objects
    (tmp_path / "a.png").unlink()
    assert open_instances("folder", tmp_path, "train").pictures[0].name == "b.png"


# --- sets of label maps --------------------------------------------------------------------------


def test_regions_of_tags(tmp_path: Path) -> None:
    """Every tenth picture is for testing, the next for validation; small regions do not count."""
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels.json").write_text(json.dumps({"labels": ["null", "coat", "hat"]}))
    labels = np.zeros((30, 40), np.uint8)
    labels[:5, :30] = 1
    labels[20:, 20:] = 1
    labels[6:7, :10] = 2
    for number in range(11):
        name = f"{number:04d}"
        Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(tmp_path / "images" / f"{name}.webp")
        Image.fromarray(labels).save(tmp_path / "labels" / f"{name}.png")
    sets = {s: open_instances("clothing_parsing", tmp_path, s) for s in ("train", "val", "test")}
    assert [len(one) for one in sets.values()] == [8, 1, 2]
    (coat,) = sets["val"].pictures[0].shapes
    assert sets["val"].classes == ("coat", "hat") and coat.id == 101 and coat.label == 0
    assert coat.box == (0, 0, 40, 30) and coat.area == 350  # two places, one object
    ids = [s.id for one in sets.values() for p in one.pictures for s in p.shapes]
    assert len(set(ids)) == 11
    labels[0, 0] = 3
    Image.fromarray(labels).save(tmp_path / "labels" / "0001.png")
    with pytest.raises(ValueError, match=r"0001\.png holds label 3, but .* lists 3"):
        open_instances("clothing_parsing", tmp_path, "val")


def test_numbered_nuclei(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    numbers = np.zeros((9, 11), np.uint16)
    numbers[1:3, 1:4], numbers[5, 5:] = 1, 300
    for name in "ab":
        Image.fromarray(np.zeros((9, 11), np.uint8)).save(tmp_path / "images" / f"{name}.webp")
        Image.fromarray(numbers).save(tmp_path / "masks" / f"{name}.png")
    index = [{"name": "a", "split": "train"}, {"name": "b", "split": "test"}]
    (tmp_path / "index.json").write_text(json.dumps(index))
    found = open_instances("nuclei_dsb2018", tmp_path, "test")
    shapes = found.pictures[0].shapes
    assert [(s.id, s.box, s.area) for s in shapes] == [
        (100_001, (1, 1, 4, 3), 6), (100_300, (5, 5, 11, 6), 6)
    ]  # fmt: skip
    with pytest.raises(ValueError, match="lists no picture of the split val"):
        open_instances("nuclei_dsb2018", tmp_path, "val")
    (tmp_path / "images" / "b.webp").unlink()
    with pytest.raises(FileNotFoundError, match="has no picture b"):
        open_instances("nuclei_dsb2018", tmp_path, "test")


def test_unknown_sets_and_splits(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there are clothing_parsing, car_parts"):
        open_instances("voc", tmp_path, "train")
    with pytest.raises(ValueError, match="has no split 'dev'"):
        open_instances(SETS[0], tmp_path, "dev")


# --- points --------------------------------------------------------------------------------------


def file_of(box: list, size: tuple[int, int] = (12, 8)) -> dict:
    x, y, w, h = box
    outline = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    return {
        "images": [{"id": 1, "width": size[0], "height": size[1]}],
        "annotations": [{"id": 5, "image_id": 1, "bbox": box, "segmentation": outline}],
    }


def test_points_stay_in_the_picture() -> None:
    """A box at the edge, whose last draw rounds out of it, and one pixel."""
    places = drawn_points(file_of([11.5, 7.5, 0.6, 0.6]), 50)[5]
    assert (places == [11, 7]).all()
    content = file_of([3, 2, 1, 1])
    places = drawn_points(content)
    assert (places[5] == [3, 2]).all() and true_labels(content, places)[5] == [1] * 10
    first = drawn_points(file_of([0, 0, 12, 8]), 10)[5]
    assert (drawn_points(file_of([0, 0, 12, 8]), 10)[5] == first).all()
    assert (drawn_points(file_of([0, 0, 12, 8]), 10, 7)[5] != first).any()


@pytest.mark.parametrize(
    ("box", "message"),
    [([12, 0, 3, 3], "nothing lies"), ([0, 0, -1, 3], "nothing lies"), ([0, 1, 2], "no x y w h"),
     ([0, 0, float("nan"), 1], "no x y w h")],
)  # fmt: skip
def test_boxes_without_points(box: list, message: str) -> None:
    content = file_of([0, 0, 1, 1])
    content["annotations"][0]["bbox"] = box
    with pytest.raises(ValueError, match=message):
        drawn_points(content)
