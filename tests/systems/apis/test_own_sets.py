"""Sets of a user's own: classes of the splits, points in a file of their own, what is left out."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import image_sets
import pytest
from tiny import config, options

from tenfold.data.images.instances import ObjectSet
from tenfold.systems.apis import Config, data, settings

pytestmark = pytest.mark.usefixtures("generated_only")
NOT_ASKED = ("--points.rounds", "0", "--points.initial", "0")


def own(folder: Path, *words: str) -> Config:
    path = ["--data.name", "folder", "--data.path", str(folder)]
    return config("apis", "demo", [*options("apis"), *path, *words])


def named(some: ObjectSet) -> set[tuple[str, float]]:
    """Class and left side of every object."""
    return {(some.classes[s.label], s.box[0]) for one in some.pictures for s in one.asked}


def changed(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def with_points(file: Path, to: Path) -> Path:
    """A file as PointSup writes it: points in place of masks."""
    content = json.loads(file.read_text())
    for item in content["annotations"]:
        del item["segmentation"]
        x, y = (int(value) for value in item["bbox"][:2])
        item |= {"point_coords": [[x + 1, y + 1]], "point_labels": [1]}
    to.write_text(json.dumps(content))
    return to


# --- classes -------------------------------------------------------------------------------------


def test_test_classes_are_those_of_training_by_name(tmp_path: Path) -> None:
    image_sets.roboflow(tmp_path)
    swapped = [{"id": 2, "name": "cat"}, {"id": 1, "name": "dog"}]
    changed(tmp_path / "valid" / "_annotations.coco.json", categories=swapped)
    cfg = own(tmp_path)
    train, test = (data.open_set(cfg.data, split) for split in ("train", "test"))
    assert cfg.classes == train.classes == test.classes == ("cat", "dog")
    assert named(train) == {("cat", 10.0), ("dog", 22.0)}
    assert named(test) == {("dog", 10.0), ("cat", 22.0)}


def test_a_class_that_training_lacks_is_refused_before_training(tmp_path: Path) -> None:
    image_sets.roboflow(tmp_path)
    more = [{"id": i + 1, "name": name} for i, name in enumerate(("cat", "emu"))]
    changed(tmp_path / "valid" / "_annotations.coco.json", categories=more)
    with pytest.raises(ValueError, match="has objects of emu, but the classes of training are cat"):
        own(tmp_path)
    with pytest.warns(UserWarning, match="all objects are one class"):
        assert own(tmp_path, "--data.one-class").classes == (data.ONE,)


# --- points in a file of their own ---------------------------------------------------------------


def test_pictures_of_the_test_are_taken_out_of_the_points(tmp_path: Path) -> None:
    image_sets.cvat(tmp_path / "set")
    file = tmp_path / "set" / "annotations" / "instances_default.json"
    points = with_points(file, tmp_path / "points.json")
    with pytest.warns(UserWarning, match="1 of 5 pictures are of the test or validation split"):
        cfg = own(tmp_path / "set", *NOT_ASKED, "--data.points-path", str(points))
    train, test = (data.open_set(cfg.data, split) for split in ("train", "test"))
    assert (len(train), len(test)) == (4, 1)
    assert not {one.file for one in train.pictures} & {one.file for one in test.pictures}


def test_points_of_the_test_alone_are_refused(tmp_path: Path) -> None:
    image_sets.roboflow(tmp_path)
    words = [*NOT_ASKED, "--data.points-path", str(tmp_path / "valid" / "_annotations.coco.json")]
    with pytest.raises(ValueError, match="all 2 pictures are of the test.*answers about others"):
        own(tmp_path, *words)


def test_pictures_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    """As the page exports them: paths from the folder on."""
    image_sets.roboflow(tmp_path / "set")
    names = ["valid/p0.jpg", "train/p1.jpg", "train/p0.jpg"]
    points = with_points(image_sets.coco(tmp_path / "a.json", names), tmp_path / "points.json")
    with pytest.warns(UserWarning, match="1 of 3 pictures are of the test"):
        cfg = own(tmp_path / "set", *NOT_ASKED, "--data.points-path", str(points))
    train = data.open_set(cfg.data, "train")
    assert {one.file.relative_to(tmp_path / "set").as_posix() for one in train.pictures} == {
        "train/p0.jpg", "train/p1.jpg"
    }  # fmt: skip


def test_points_of_published_layouts_find_their_pictures(tmp_path: Path) -> None:
    """The file lies beside the instances, pictures in train2017."""
    image_sets.published(tmp_path)
    file = tmp_path / "annotations" / "instances_train2017.json"
    points = with_points(file, file.with_name("instances_train2017_n10_v1_without_masks.json"))
    words = [*NOT_ASKED, "--data.name", "coco2017", "--data.points-path", str(points)]
    train = data.open_set(own(tmp_path, *words).data, "train")
    assert {one.file.parent.name for one in train.pictures} == {"train2017"} and len(train) == 4
    assert all(shape.points for one in train.pictures for shape in one.asked)


def test_points_without_their_pictures_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A set that is not there is generated, but points are of its pictures."""
    monkeypatch.setenv("TENFOLD_DATA", str(tmp_path))
    words = ["--data.name", "coco2017", "--data.points-path", str(tmp_path / "points.json")]
    with pytest.raises(FileNotFoundError, match="'coco2017' was not found"):
        config("apis", "demo", words)


def test_answers_that_are_not_learned_from_are_told(tmp_path: Path) -> None:
    image_sets.roboflow(tmp_path)
    file = with_points(tmp_path / "train" / "_annotations.coco.json", tmp_path / "points.json")
    words = [*NOT_ASKED, "--data.points-path", str(file), "--loss.supervision"]
    said = rf"answers about pixels in {file} are not learned from: loss.supervision is box. Add"
    with pytest.warns(UserWarning, match=said):
        own(tmp_path, *words, "box")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        own(tmp_path, *words, "box+points")
    with pytest.raises(ValueError, match=r"points_masks is of data.points_path, which is not"):
        replace(data.Data(), points_masks=True)


# --- what is left out ----------------------------------------------------------------------------


def test_what_a_recipe_leaves_out_is_said(tmp_path: Path) -> None:
    image_sets.cvat(tmp_path)
    with pytest.warns(UserWarning) as caught:
        cfg = own(tmp_path, "--data.one-class", "--data.least", "100")
    said = [str(one.message) for one in caught]
    assert any("all objects are one class" in text for text in said)
    assert any("fewer than 100 pixels" in text for text in said)
    notes = settings.notes(cfg, "real")
    assert {*settings.left_aside(cfg.data)} <= {*notes} and len(settings.left_aside(cfg.data)) == 2
    assert "all objects are one class" in data.used(cfg.data).note


def test_an_empty_training_set_names_its_cause(tmp_path: Path) -> None:
    image_sets.cvat(tmp_path)
    says = r"all 8 training objects .* fewer than 150 pixels \(the largest 120\).*--data.least"
    with pytest.raises(ValueError, match=says):
        own(tmp_path, "--data.least", "150")
    image_sets.pictures(tmp_path / "photos", 2)
    with pytest.raises(ValueError, match="draw boxes first"):
        own(tmp_path / "photos")


def test_numbers_as_text_draw_the_same_points(tmp_path: Path) -> None:
    """What decides the random points has the ids of the objects."""
    image_sets.published(tmp_path)
    file = tmp_path / "annotations" / "instances_train2017.json"
    items = json.loads(file.read_text())["annotations"]
    changed(file, annotations=[item | {"id": str(item["id"])} for item in items])
    cfg = own(tmp_path, "--data.name", "coco2017")
    train = data.open_set(cfg.data, "train")
    ids = [item["id"] for item in data.content(cfg.data, train)["annotations"]]
    assert ids == [shape.id for one in train.pictures for shape in one.shapes]
