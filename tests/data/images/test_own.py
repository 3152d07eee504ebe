"""Sets of a user's own, in the layouts of the tools that people annotate with."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import image_sets
import numpy as np
import pytest
from image_sets import BOXES, COCO, MAPS, YOLO, coco, label_map, maps, picture, pictures, yolo
from PIL import Image

from tenfold.data.checks import check
from tenfold.data.images import own
from tenfold.data.images.coco_files import WHOLE, find
from tenfold.data.images.decode import Reading
from tenfold.data.images.maps import class_names_in
from tenfold.data.images.yolo import find_yolo, open_yolo

SKIP = Reading(skip_broken=True)
CORNERS = [[x, y, x + w, y + h] for x, y, w, h in BOXES]
DIVIDED = {"roboflow": (4, 2), "fiftyone": (4, 2), "published": (4, 2), "ultralytics": (4, 2),
           "roboflow_yolo": (4, 2), "splits_inside": (4, 2), "splits_around": (4, 2),
           "like_camvid": (4, 2), "by_words": (4, 2), "roboflow_maps": (4, 2)}  # fmt: skip
"""Pictures to train and to test on; of the others one fifth is held out."""


def both(folder: Path, reading: Reading = Reading()) -> list[own.SceneSet]:  # noqa: B008 - frozen
    return [own.open_objects(folder, split, 0.2, 0, reading) for split in ("train", "test")]


def pixels(labels: np.ndarray) -> list[int]:
    """Of each class."""
    return np.bincount(labels.ravel()).tolist()


@pytest.mark.parametrize("name", [*COCO, *YOLO])
def test_objects(tmp_path: Path, name: str) -> None:
    (COCO | YOLO)[name](tmp_path)
    sets = both(tmp_path)
    assert tuple(map(len, sets)) == DIVIDED.get(name, (4, 1))
    assert all(found.classes == ("cat", "dog") for found in sets)
    assert sets[0].has_masks == (name in COCO or name == "ultralytics")
    files = [{str(file[0]) for file in found.files} for found in sets]
    assert not files[0] & files[1]
    scenes = [found.scene(i) for found in sets for i in range(len(found))]
    full = [scene.objects for scene in scenes if len(scene.objects)]
    empty = len(scenes) - len(full)
    assert empty == (0 if name in COCO else len(sets) if name in DIVIDED else 1)
    for objects in full:
        assert np.allclose(objects.boxes, CORNERS, atol=1e-3) and objects.labels.tolist() == [0, 1]
        assert np.allclose(objects.areas, [120, 72], atol=0.1)
        if objects.masks is not None:
            assert objects.masks.sum((1, 2)).tolist() == [120, 72]
    result = check("folder", tmp_path)
    assert not result.problems and result.files == len(scenes)
    pattern = rf"{'JSON of COCO' if name in COCO else 'YOLO'}.*; train \d pictures, \d objects.*"
    assert re.search(pattern + r"; test \d .*; 2 classes \(cat, dog\)", result.notes[0])


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.filterwarnings("ignore:.*0 is taken as background")
def test_label_maps(tmp_path: Path, name: str) -> None:
    MAPS[name](tmp_path)
    sets = [own.open_maps(tmp_path, split, 0.2, 0) for split in ("train", "test")]
    assert tuple(map(len, sets)) == DIVIDED.get(name, (4, 1))
    first = "background" if name == "like_camvid" else "ground"
    for found in sets:
        assert found.classes == (first, "cat", "dog")
        shown, labels = found.scene(0)
        assert shown.shape == (30, 40, 3) and np.bincount(labels.ravel()).tolist() == [
            1008,
            120,
            72,
        ]
    result = check("folder", tmp_path)
    assert not result.problems and "label maps; train 4 pictures" in result.notes[0]


def test_what_a_folder_does_not_hold(tmp_path: Path) -> None:
    (tmp_path / "maps").mkdir()
    MAPS["undivided"](tmp_path / "maps")
    with pytest.raises(
        FileNotFoundError, match="holds no objects.*label maps, which the task segm"
    ):
        own.open_objects(tmp_path / "maps", "train", 0.2, 0)
    YOLO["label_studio_yolo"](tmp_path / "yolo")
    with pytest.raises(FileNotFoundError, match="holds no pictures with label maps"):
        own.open_maps(tmp_path / "yolo", "train", 0.2, 0)
    coco(tmp_path / "b" / "val.json", pictures(tmp_path / "b" / "images", 2))
    with pytest.raises(FileNotFoundError, match="annotations for val, but none to train on"):
        own.open_objects(tmp_path / "b", "train", 0.2, 0)
    for name in ("one.json", "two.json"):
        coco(tmp_path / "c" / name, pictures(tmp_path / "c" / "images", 2))
    with pytest.raises(ValueError, match="several annotation files: one.json, two.json. Keep one"):
        own.open_objects(tmp_path / "c", "train", 0.2, 0)


def test_a_division_follows_names_and_not_places(tmp_path: Path) -> None:
    for place in ("a", "b"):
        image_sets.cvat(tmp_path / place)
    picture(tmp_path / "b" / "images" / "q.jpg")
    names = [{f[0].name for f in both(tmp_path / place)[1].files} for place in ("a", "b")]
    assert names[0] == names[1]


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    """By its beginning or its name; what is of others is left alone."""
    image_sets.cvat(tmp_path)
    (tmp_path / "notes.json").write_text("{")
    assert not check("folder", tmp_path).problems
    file = tmp_path / "annotations" / "instances_default.json"
    for place, text in ((file, "["), (file.with_name("export.json"), file.read_text()[:900])):
        file.rename(place)
        place.write_text(text)
        with pytest.raises(ValueError, match=rf"{place.name} is no JSON: .*char \d+.*take it out"):
            both(tmp_path)
        assert "is no JSON" in check("folder", tmp_path).problems[0].what
        place.rename(file)
        image_sets.cvat(tmp_path)


def test_classes_of_the_splits_are_compared(tmp_path: Path) -> None:
    """In another order they are the same; those that training lacks are a problem."""
    image_sets.roboflow(tmp_path)
    file = tmp_path / "valid" / "_annotations.coco.json"
    content = json.loads(file.read_text())
    for names, says in ((("dog", "cat"), "another order"), (("cat", "emu"), "has objects of emu")):
        content["categories"] = [{"id": i + 1, "name": name} for i, name in enumerate(names)]
        file.write_text(json.dumps(content))
        found = check("folder", tmp_path)
        problems = [one.what for one in found.problems]
        assert any(says in text for text in (*found.notes, *problems))
        assert bool(problems) == ("emu" in names)


def test_a_file_without_a_split_beside_one_for_training_is_named(tmp_path: Path) -> None:
    image_sets.roboflow(tmp_path)
    shutil.copy(tmp_path / "valid/_annotations.coco.json", tmp_path / "more.json")
    count = len(json.loads((tmp_path / "more.json").read_text())["images"])
    with pytest.warns(UserWarning, match=rf"left out: more.json \({count} pictures\), whose name"):
        assert WHOLE not in find(tmp_path)


def test_a_class_without_an_object_is_noted(tmp_path: Path) -> None:
    """As Roboflow's category 0 is."""
    names = [{"id": i, "name": name} for i, name in enumerate(("animals", "cat", "dog"))]
    coco(tmp_path / "x.json", pictures(tmp_path / "images", 5), categories=names)
    assert "classes of which there is no object: animals" in check("folder", tmp_path).notes


def test_one_picture_serves_for_both(tmp_path: Path) -> None:
    coco(tmp_path / "x.json", pictures(tmp_path / "images", 1))
    with pytest.warns(UserWarning, match="p0.jpg is the only picture"):
        assert list(map(len, both(tmp_path))) == [1, 1]


# --- label maps ----------------------------------------------------------------------------------


def test_masks_of_0_and_255(tmp_path: Path) -> None:
    maps(tmp_path / "images", tmp_path / "masks", 5, values=(0, 255, 255))
    with pytest.warns(UserWarning, match="hold 0 and 255 alone, taken as two classes"):
        found = own.open_maps(tmp_path, "train", 0.2, 0)
    assert found.classes == ("background", "foreground")
    assert pixels(found.scene(0)[1]) == [1008, 192]
    label_map(tmp_path / "masks" / "p0.png", (0, 1, 255))  # 255 is ignored where there are others
    found = own.open_maps(tmp_path, "train", 0.2, 0)
    assert found.classes == ("class 0", "class 1")


def test_numbers_without_names(tmp_path: Path) -> None:
    maps(tmp_path / "images", tmp_path / "masks", 3)
    assert own.open_maps(tmp_path, "train", 0.2, 0).classes == ("class 0", "class 1", "class 2")
    (tmp_path / "classes.txt").write_text("ground\n")
    with pytest.raises(ValueError, match=r"hold label 2, but 1 classes are named \(ground\)"):
        own.open_maps(tmp_path, "train", 0.2, 0)
    (tmp_path / "classes.txt").unlink()
    Image.fromarray(np.arange(1200, dtype=np.uint8).reshape(30, 40)).save(
        tmp_path / "masks" / "p0.png"
    )
    with pytest.raises(ValueError, match=r"255 different numbers.*classes\.txt"):
        own.open_maps(tmp_path, "train", 0.2, 0)


@pytest.mark.parametrize("text", ["name,r,g,b\na,0,0,1\nb,0,2,0\n", "n;x;y;z\na;0;0;1\nb;0;2;0"])
@pytest.mark.parametrize("above", ["", "sep=;\n"])
def test_a_table_of_classes_as_spreadsheets_write_it(tmp_path: Path, above: str, text: str) -> None:
    (tmp_path / "class_dict.csv").write_text(above + text)
    found = class_names_in(tmp_path / "class_dict.csv")
    assert found == (("a", "b"), ((0, 0, 1), (0, 2, 0)))


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("labelmap.txt", "a:0,0,0::\nb:0,0,0::\nc:1,1,1::", "a colour of its own"),
        ("_classes.csv", "x\n1,2,3\n", "is no table of number, class"),
        ("labels.json", "{", "is no JSON"),
        ("labels.json", '{"1": "a", "2": "b"}', "numbers 0, 1"),
    ],
)
def test_lists_of_classes_that_are_none(tmp_path: Path, name: str, text: str, says: str) -> None:
    maps(tmp_path / "images", tmp_path / "masks", 2)
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=says):
        own.open_maps(tmp_path, "train", 0.2, 0)


def test_a_colour_that_no_class_has(tmp_path: Path) -> None:
    image_sets.cvat_maps(tmp_path)
    file = tmp_path / "labelmap.txt"
    file.write_text(file.read_text().replace("51,221,255", "51,221,254"))
    with pytest.raises(ValueError, match=r"colour \[51, 221, 255\] at row 8, column 22, which"):
        own.open_maps(tmp_path, "train", 0.2, 0)


# --- YOLO ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("0 0.5 0.5", "expected a class and 4 numbers of a box"),
        ("0 0.5 0.5 0.1 0.1 0.9", "expected a class and 4 numbers of a box"),
        ("cat 0.5 0.5 0.1 0.1", "'cat 0.5 0.5 0.1 0.1', expected a class"),
        ("0 nan 0.5 0.1 0.1", "expected a class"),
        ("0.5 0.5 0.5 0.1 0.1", "class 0.5, expected a whole number"),
        ("-1 0.5 0.5 0.1 0.1", "class -1, expected"),
        ("1e300 0.5 0.5 0.1 0.1", "class 1e.300, expected"),
        ("0 20 15 4 4", "shares of the picture's sides"),
        ("2 0.5 0.5 0.1 0.1", "names 2 classes, but label files hold class 2"),
    ],
)
def test_wrong_lines(tmp_path: Path, line: str, says: str) -> None:
    image_sets.label_studio_yolo(tmp_path)
    file = tmp_path / "labels" / "p1.txt"
    file.write_text(file.read_text() + line)
    with pytest.raises(ValueError, match=says):
        both(tmp_path)
    if "names 2" not in says:
        with pytest.warns(UserWarning, match=r"1 pictures and annot.* left out: .*p1\.txt line 3"):
            assert sum(map(len, both(tmp_path, SKIP))) == 4


@pytest.mark.parametrize("names", ["[cat, dog]", "{0: cat, 1: dog}", '\n- cat # first\n- "dog"'])
def test_names_in_yaml(tmp_path: Path, names: str) -> None:
    yolo(tmp_path / "images", tmp_path / "labels", 3)
    (tmp_path / "data.yaml").write_text(f"names: {names}\n", encoding="utf-8-sig")
    found = find_yolo(tmp_path)
    assert found is not None and found.classes == ("cat", "dog")


@pytest.mark.parametrize(
    "text", ["names: {1: a}", "names: 5", "names: [[a]]", "{", "a: 2020-13-45"]
)
def test_yaml_that_says_nothing(tmp_path: Path, text: str) -> None:
    yolo(tmp_path / "images", tmp_path / "labels", 3)
    (tmp_path / "data.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"names|is no YAML"):
        find_yolo(tmp_path)


def test_a_folder_of_a_list_that_is_not_there_is_named(tmp_path: Path) -> None:
    for place in ("a", "b"):
        yolo(tmp_path / "images" / place, tmp_path / "labels" / place, 3)
    text = "train: [images/a, images/{}]\nval: ../valid/images\nnames: [cat, dog]\n"
    (tmp_path / "data.yaml").write_text(text.format("b"))
    found = find_yolo(tmp_path)
    assert found is not None and len(found.parts["train"]) == 6 and "val" not in found.parts
    (tmp_path / "data.yaml").write_text(text.format("c"))
    with pytest.raises(ValueError, match="train lists images/c, which is not there"):
        find_yolo(tmp_path)


def test_objects_of_yolo_are_numbered_from_1(tmp_path: Path) -> None:
    """pycocotools marks what was not found by 0, and would take an object of that number for it."""
    yolo(tmp_path / "images", tmp_path / "labels", 3)
    found = find_yolo(tmp_path)
    assert found is not None
    entries = open_yolo(found, found.parts["all"], Reading()).entries
    ids = [item["id"] for entry in entries for item in entry.objects]
    assert ids == list(range(1, len(ids) + 1)) and len(ids) > 3


def test_keypoints_are_left_aside(tmp_path: Path) -> None:
    yolo(tmp_path / "images", tmp_path / "labels", 2)
    file = tmp_path / "labels" / "p0.txt"
    file.write_text(
        "".join(line + " 0.1 0.2 2 0.3 0.4 2\n" for line in file.read_text().split("\n")[:2])
    )
    (tmp_path / "data.yaml").write_text("kpt_shape: [2, 3]\nnames: [cat, dog]\n")
    about = find_yolo(tmp_path)
    assert about is not None and about.is_pose
    found = open_yolo(about, about.parts["all"], Reading())
    assert not found.has_masks and found.num_objects == 2


# --- what is broken, links, notes ----------------------------------------------------------------


def test_a_broken_picture_is_replaced_by_the_next(tmp_path: Path) -> None:
    image_sets.roboflow(tmp_path / "a")
    image_sets.splits_around(tmp_path / "b")
    found = own.open_objects(tmp_path / "a", "train", 0.2, 0, SKIP)
    pairs = own.open_maps(tmp_path / "b", "train", 0.2, 0, SKIP)
    for file in (
        tmp_path / "a" / "train" / "p1.jpg",
        tmp_path / "b" / "train" / "images" / "p3.jpg",
    ):
        file.write_bytes(file.read_bytes()[:300])  # after the set was opened
    for _ in range(2):
        assert (found.scene(1).picture == found.scene(2).picture).all()
        assert (pairs.scene(3)[0] == pairs.scene(0)[0]).all()
    assert [Path(name).name for name in found.replaced] == ["p1.jpg"]
    assert ["p3.jpg cannot be read" in why for why in pairs.replaced.values()] == [True]
    assert found.at([1, 2]).replaced is found.replaced
    with pytest.raises(ValueError, match="p1.jpg cannot be read"):
        own.open_objects(tmp_path / "a", "train", 0.2, 0).scene(1)
    with pytest.warns(UserWarning, match="1 pictures and annotations left out: .*p1.jpg"):
        assert len(own.open_objects(tmp_path / "a", "train", 0.2, 0, SKIP)) == 3


def test_a_name_without_its_other(tmp_path: Path) -> None:
    image_sets.undivided(tmp_path)
    picture(tmp_path / "images" / "alone.jpg")
    with pytest.raises(ValueError, match="'alone' has no label map.*data.skip_broken"):
        own.open_maps(tmp_path, "train", 0.2, 0)
    with pytest.warns(UserWarning, match="'alone' has no label map .*; left out"):
        assert len(own.open_maps(tmp_path, "train", 0.2, 0, SKIP)) == 4


@pytest.mark.parametrize("make", [image_sets.cvat, image_sets.roboflow_yolo, image_sets.undivided])
def test_links_that_lead_out(tmp_path: Path, make) -> None:  # type: ignore[no-untyped-def]
    make(tmp_path / "set")
    inside = next(p for p in (tmp_path / "set").rglob("images"))
    inside.rename(tmp_path / "far")
    inside.symlink_to(tmp_path / "far")
    opened = own.open_maps if make is image_sets.undivided else own.open_objects
    with pytest.raises(ValueError, match=r"leads out of .*data\.follow_links"):
        opened(tmp_path / "set", "train", 0.2, 0)
    found = opened(tmp_path / "set", "train", 0.2, 0, Reading(follow_links=True))
    assert len(found) == 4


@pytest.mark.parametrize("make", [image_sets.label_studio_yolo, image_sets.undivided])
def test_notes_that_turn_pictures(tmp_path: Path, make) -> None:  # type: ignore[no-untyped-def]
    make(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 3
    picture(tmp_path / "images" / "p0.jpg", exif=exif)
    opened = own.open_maps if make is image_sets.undivided else own.open_objects
    with pytest.warns(UserWarning, match=r"read upright; .*data.ignore_exif \(p0.jpg\)"):
        opened(tmp_path, "train", 0.2, 0)


def test_a_part_of_coco_in_another_layout(tmp_path: Path) -> None:
    image_sets.roboflow(tmp_path)
    result = check("coco2017", tmp_path)
    assert not result.problems and "train: 4 pictures; the published set has 118287" in result.notes
    data = json.loads((tmp_path / "train" / "_annotations.coco.json").read_text())
    data["annotations"] = []
    (tmp_path / "train" / "_annotations.coco.json").write_text(json.dumps(data))
    assert "no object in any of them" in check("folder", tmp_path).problems[0].what
