"""COCO instances: layouts, masks of both kinds, and what is wrong with hostile files."""

from __future__ import annotations

import json
import os
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as reference

from tenfold.data.images import coco, coco_masks
from tenfold.data.images.coco_files import find_split
from tenfold.data.images.coco_numbers import read_numbers
from tenfold.data.images.decode import Reading

SQUARE = [5, 4, 15, 4, 15, 10, 5, 10]
IMAGE = {"id": 7, "file_name": "a.png", "height": 20, "width": 30}


def picture(path: Path, width: int = 30, height: int = 20) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((height, width, 3), 90, dtype=np.uint8)).save(path)
    return path


def annotation(number: int = 1, **changes: Any) -> dict[str, Any]:
    base = {"id": number, "image_id": 7, "category_id": 3, "bbox": [5, 4, 10, 6], "iscrowd": 0}
    return {**base, "segmentation": [SQUARE], "area": 60, **changes}


def bare(number: int = 1, **changes: Any) -> dict[str, Any]:
    return {k: v for k, v in annotation(number, **changes).items() if k != "segmentation"}


def write(folder: Path, annotations: list[dict[str, Any]], **changes: Any) -> Path:
    picture(folder / "images" / "a.png")
    content = {
        "images": [IMAGE],
        "categories": [{"id": 9, "name": "dog"}, {"id": 3, "name": "cat"}],
        "annotations": annotations,
    } | changes
    (folder / "instances_train.json").write_text(json.dumps(content))
    return folder


def changed(folder: Path, key: str, value: Any) -> Path:
    file = write(folder, [annotation()]) / "instances_train.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {key: value}))
    return folder


def opened(folder: Path, skip_broken: bool = False) -> coco.SceneSet:
    return coco.open_coco(*find_split(folder, "train"), Reading(skip_broken))


def test_polygons_codes_and_crowds(tmp_path: Path) -> None:
    code = {"size": [20, 30], "counts": [4 * 20 + 2, 3, 20 * 25 - 5 + 20]}
    crowd = annotation(2, iscrowd=1, category_id=9, bbox=[4, 2, 1, 3], segmentation=code)
    found = opened(write(tmp_path, [annotation(), crowd]))
    scene = found.scene(0)
    assert found.classes == ("cat", "dog") and found.category_ids == (3, 9) and found.has_masks
    assert found.file.name == "instances_train.json"
    objects = scene.objects
    assert objects.is_crowd.tolist() == [False, True] and objects.labels.tolist() == [0, 1]
    assert objects.boxes.tolist() == [[5, 4, 15, 10], [4, 2, 5, 5]]
    assert objects.masks is not None and abs(int(objects.masks[0].sum()) - 60) <= 4
    assert objects.areas is not None and objects.areas[0] == 60
    assert objects.masks[1].sum() == 3 and objects.masks[1, 2:5, 4].all()


@pytest.mark.parametrize("seed", range(8))
def test_both_run_length_codes_are_those_of_pycocotools(tmp_path: Path, seed: int) -> None:
    random = np.random.RandomState(seed)
    truth = np.repeat(random.rand(20, 6) < (0.5, 0.02, 0.98, 0, 1)[seed % 5], 5, axis=1)
    packed = reference.encode(np.asfortranarray(truth.astype(np.uint8)))
    changes = np.flatnonzero(np.diff(truth.T.ravel().astype(int), prepend=0))
    runs = np.diff([0, *changes, truth.size]).tolist()
    codes = [packed["counts"].decode(), runs]
    items = [
        annotation(i, segmentation={"size": [20, 30], "counts": code})
        for i, code in enumerate(codes)
    ]
    masks = opened(write(tmp_path, items)).scene(0).objects.masks
    assert masks is not None and (masks == truth).all()


def test_a_picture_without_objects_and_rows(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "b.png", 8, 6)
    other = {"id": 2, "file_name": "b.png", "height": 6, "width": 8}
    found = opened(write(tmp_path, [annotation()], images=[IMAGE, other]))
    objects = found.at([1]).scene(0).objects
    assert len(found) == 2 and len(found.at([])) == 0 and found.at([1]).file == found.file
    assert objects.boxes.shape == (0, 4) and len(objects.is_crowd) == 0
    assert objects.masks is not None and objects.masks.shape == (0, 6, 8)
    with pytest.raises(ValueError, match="has 1 pictures, but no object in any of them"):
        opened(write(tmp_path, []))


def test_layouts(tmp_path: Path) -> None:
    (tmp_path / "annotations").mkdir()
    file = tmp_path / "annotations" / "instances_val2017.json"
    file.write_text("{}")
    assert find_split(tmp_path, "val") == (file, tmp_path / "val2017")
    with pytest.raises(FileNotFoundError, match=r"instances_train.json .*annotations/"):
        find_split(tmp_path, "train")
    (tmp_path / "instances_test.json").write_text("{}")
    assert find_split(tmp_path, "test")[1] == tmp_path / "images"


def test_boxes_are_cut_and_empty_ones_left_out(tmp_path: Path) -> None:
    items = [annotation(bbox=[20, 10, 50, 50]), annotation(2, bbox=[3, 3, 0, 5])]
    items += [annotation(3, bbox=[40, 3, 5, 5]), annotation(4, bbox=[9, 9, -2, 5])]
    with pytest.warns(UserWarning, match="3 boxes without area left out"):
        found = opened(write(tmp_path, items))
    assert found.scene(0).objects.boxes.tolist() == [[20, 10, 30, 20]]


def test_sets_of_boxes_only(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        objects = opened(write(tmp_path, [bare(area=-1), bare(2)])).scene(0).objects
    assert objects.masks is None and objects.areas is not None
    assert objects.areas.tolist() == [60, 60]
    with pytest.warns(UserWarning, match="1 of 2 objects have no segmentation: their boxes count"):
        found = opened(write(tmp_path, [bare(), annotation(2)]))
    masks = found.scene(0).objects.masks
    assert found.has_masks and masks is not None and masks.any((1, 2)).tolist() == [False, True]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"category_id": 4}, r"annotation 1 has category 4, the file's categories are 3\.\.9"),
        ({"category_id": [3]}, r"has category \[3\]"),
        ({"bbox": [1, 2, 3]}, r"bbox \[1, 2, 3\], expected x, y, width, height"),
        ({"bbox": [1, 2, float("nan"), 3]}, "bbox"),
        ({"bbox": [10**400, 2, 3, 3]}, "bbox"),
        ({"image_id": 8}, "image 8, which is not listed"),
        ({"image_id": [7]}, "expected a whole number"),
        ({"iscrowd": 2}, "iscrowd 2"),
        ({"id": None}, "needs a whole number as its id"),
        ({"segmentation": [[1, 2, 3, 4]]}, "annotation 1 has no polygon .* 3 corners"),
        ({"segmentation": [1, 2, 3, 4, 5, 6]}, "no list of polygons"),
        ({"segmentation": "abc"}, "no list of polygons"),
    ],
)
def test_wrong_annotations(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    folder = write(tmp_path, [annotation(**changes), annotation(2)])
    with pytest.raises(ValueError, match=says):
        opened(folder)
    with pytest.warns(UserWarning, match=f"1 pictures and annotations left out: .*{says}"):
        assert len(opened(folder, skip_broken=True).scene(0).objects) == 1


@pytest.mark.parametrize(
    ("image", "kind", "says"),
    [
        ({"file_name": "../../etc/passwd"}, ValueError, "leads out of"),
        ({"file_name": "/etc/passwd"}, ValueError, "leads out of"),
        ({"file_name": "a\0b"}, ValueError, "image 7 has an impossible file_name"),
        ({"file_name": "a" * 400}, ValueError, "image 7 has an impossible file_name"),
        ({"file_name": "b.png"}, FileNotFoundError, r"b\.png, image 7 of"),
        ({"height": 10**6, "width": 10**6}, ValueError, "more than"),
        ({"height": -1}, ValueError, "size 30 x -1"),
    ],
)
def test_wrong_images(
    tmp_path: Path, image: dict[str, Any], kind: type[Exception], says: str
) -> None:
    folder = write(tmp_path, [annotation()], images=[IMAGE | image])
    with pytest.raises(kind, match=says):
        opened(folder)
    with pytest.raises(ValueError, match="lists no image: "):
        opened(folder, skip_broken=True)
    items = [annotation(), annotation(2, image_id=8)]
    write(tmp_path, items, images=[IMAGE | image, IMAGE | {"id": 8}])
    with pytest.warns(UserWarning, match="1 pictures and annotations left out"):
        found = opened(folder, skip_broken=True)
    assert len(found) == 1 and [o["id"] for o in found.entries[0].objects] == [2]


@pytest.mark.parametrize("key", ["images", "annotations", "categories"])
def test_keys_and_ids(tmp_path: Path, key: str) -> None:
    one = {"images": IMAGE, "annotations": annotation(), "categories": {"id": 3, "name": "a"}}[key]
    with pytest.raises(ValueError, match=f"ids of {key} must be unique; there twice: "):
        opened(changed(tmp_path, key, [one, one]))
    with pytest.raises(ValueError, match=f"has no list of {key}"):
        opened(changed(tmp_path, key, 5))


def test_more_objects_than_can_be_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = opened(write(tmp_path, [annotation(), annotation(2)]))
    monkeypatch.setattr(coco_masks, "MAX_BYTES", 1000)
    with pytest.raises(ValueError, match="masks of 2 objects need"):
        found.scene(0)
    monkeypatch.setattr(coco, "MOST_OBJECTS", 1)
    with pytest.raises(ValueError, match="image 7 has 2 objects, more than 1"):
        opened(tmp_path)


def test_other_pictures_than_the_file_was_made_for(tmp_path: Path) -> None:
    found = opened(write(tmp_path, [annotation()]))
    picture(tmp_path / "images" / "a.png", 31, 20)
    for read in (lambda: found.scene(0), lambda: opened(tmp_path)):
        with pytest.raises(ValueError, match="31 x 20 pixels, its annotation says 30 x 20"):
            read()
    picture(tmp_path / "images" / "b.png")
    items = [annotation(), annotation(2, image_id=8)]
    write(tmp_path, items, images=[IMAGE | {"width": 31}, IMAGE | {"id": 8, "file_name": "b.png"}])
    with pytest.warns(UserWarning, match="1 pictures and annotations left out: .* 30 x 20 pixels"):
        kept = opened(tmp_path, skip_broken=True)
    assert [entry.file.name for entry in kept.entries] == ["b.png"]


def test_short_polygons_beside_good_ones(tmp_path: Path) -> None:
    items = [annotation(segmentation=[[1, 2, 3, 4], SQUARE])]
    with pytest.warns(UserWarning, match="1 objects have polygons of too few corners"):
        masks = opened(write(tmp_path, items)).scene(0).objects.masks
    whole = opened(write(tmp_path, [annotation()])).scene(0).objects.masks
    assert masks is not None and whole is not None and (masks == whole).all()


def code(counts: Any, size: Any = (20, 30)) -> dict[str, Any]:
    return {"size": size, "counts": counts}


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        (code("x", [5, 5]), "is of size"),
        (code("x", 5), "is of size"),
        ({"counts": "x"}, "size"),
        (code([10]), "do not add up to the 600 pixels"),  # pycocotools: memory as it was
        (code([-1, 601]), "do not add up"),
        (code([2**62, 2**62, 2**62, 2**62 + 600]), "do not add up"),
        (code([10**30]), "no list of whole numbers"),
        (code([]), "no list of whole numbers"),
        (code([300, [300]]), "inhomogeneous"),
        (code([0.5, 599.5]), "no list of whole numbers"),
        (code(5), "no list of whole numbers"),
        (code(""), "ends too early"),
        (code("`"), "ends too early"),  # pycocotools: reads past the end
        (code("ü"), "other characters"),
        (code("oooooooooo0"), "more than 35 bits"),
        (code("00"), "do not add up"),
        ([["a"] * 6], "no number"),
        ([[None] * 6], "no number"),
        ([[0, 0, 1e9, 0, 1e9, 1e9]], "no number from"),  # pycocotools: crashes
        ([[9e5, 9e5, 9e5, 9e5 + 1, 9e5 + 1, 9e5]], "outline is .* long, more than 5000"),
        ([[0, 0, 30, 20] * 200], "outline is .* long, more than 5000"),
    ],
)
def test_segmentations_that_cannot_be_read(tmp_path: Path, shape: Any, says: str) -> None:
    found = opened(write(tmp_path, [annotation(segmentation=shape)]))
    match = f"annotation 1 has a segmentation that cannot be read: .*{says}"
    with pytest.raises(ValueError, match=match):
        found.scene(0)
    kept = opened(tmp_path, skip_broken=True)
    masks = kept.scene(0).objects.masks  # the box remains
    assert masks is not None and masks.shape == (1, 20, 30) and not masks.any()
    assert list(kept.replaced) == ["mask of annotation 1 of a.png"]


def test_whole_floats_nulls_and_a_byte_order_mark(tmp_path: Path) -> None:
    item = annotation(1.0, image_id=7.0, category_id=3.0, iscrowd=None)
    folder = write(tmp_path, [item], images=[IMAGE | {"id": 7.0, "height": 20.0, "width": 30.0}])
    file = folder / "instances_train.json"
    file.write_text("\ufeff" + file.read_text(), encoding="utf-8")
    scene = opened(folder).scene(0)
    assert scene.objects.boxes.tolist() == [[5, 4, 15, 10]] and not scene.objects.is_crowd.any()
    with pytest.raises(ValueError, match="needs a whole id"):
        opened(changed(tmp_path, "images", [IMAGE | {"id": 7.5}]))


def test_another_list_of_classes(tmp_path: Path) -> None:
    found = opened(write(tmp_path, [annotation()]))
    assert found.aligned(found.classes) is found
    other = found.aligned(("emu", "dog", "cat"))
    assert other.scene(0).objects.labels.tolist() == [2]
    with pytest.raises(ValueError, match="has objects of cat, but the classes of training are emu"):
        found.aligned(("emu", "dog"))


def test_numbers_as_text_and_no_box(tmp_path: Path) -> None:
    item = annotation("1", image_id="7", category_id="3")  # type: ignore[arg-type]
    found = opened(write(tmp_path, [item], images=[IMAGE | {"id": "7", "height": "20"}]))
    assert found.entries[0].image_id == 7 and found.entries[0].objects[0]["category_id"] == 3
    with pytest.raises(ValueError, match=r"image seven \(a.png\) needs a whole id.*Number the im"):
        opened(write(tmp_path, [annotation()], images=[IMAGE | {"id": "seven"}]))
    with pytest.raises(ValueError, match="bbox None, expected .*Give it a box, or remove"):
        opened(write(tmp_path, [annotation(bbox=None)]))


def test_a_picture_that_is_listed_twice(tmp_path: Path) -> None:
    """By its name, or by a name that is looked for by its end."""
    items = [annotation(), annotation(2, image_id=8)]
    for name in ("a.png", "/mnt/a.png"):
        write(tmp_path, items, images=[IMAGE, IMAGE | {"id": 8, "file_name": name}])
        with pytest.raises(ValueError, match=r"images 7 and 8 are both of .*a\.png\. List each"):
            opened(tmp_path)
    with pytest.warns(UserWarning, match="left out: .*images 7 and 8 are both of"):
        found = opened(tmp_path, skip_broken=True)
    assert [[o["id"] for o in entry.objects] for entry in found.entries] == [[1]]


def test_categories_of_one_name_are_one_class(tmp_path: Path) -> None:
    names = [{"id": 0, "name": "cat"}, {"id": 3, "name": "cat"}, {"id": 9, "name": "dog"}]
    write(tmp_path, [annotation(), annotation(2, category_id=9)], categories=names)
    with pytest.warns(UserWarning, match="have the name of another are the same class: 3 as 0"):
        found = opened(tmp_path)
    assert found.classes == ("cat", "dog") and "3 as 0" in found.notes[0]
    assert found.scene(0).objects.labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("cam0\\a.png", "cam0/a.png"),
        ("C:\\me\\cam0\\a.png", "cam0/a.png"),
        ("/mnt/me/cam0/a.png", "cam0/a.png"),
        ("images/cam0/a.png", "cam0/a.png"),
        ("there/a.png", "a.png"),
        ("{elsewhere}/cam0/a.png", "cam0/a.png"),
    ],
)
def test_paths_of_other_machines(tmp_path: Path, name: str, where: str) -> None:
    """A file of the set comes before one elsewhere on this machine."""
    picture(tmp_path / "elsewhere" / "cam0" / "a.png")
    picture(tmp_path / "set" / "images" / "cam0" / "a.png")
    name = name.format(elsewhere=tmp_path / "elsewhere")
    write(tmp_path / "set", [annotation()], images=[IMAGE | {"file_name": name}])
    assert opened(tmp_path / "set").files == [(tmp_path / "set" / "images" / where,)]


@pytest.mark.parametrize("turn", [1, 3, 6])
def test_notes_that_turn_pictures(tmp_path: Path, turn: int) -> None:
    """Annotated upright, as stored, or as nobody can tell."""
    pixels = np.zeros((20, 30, 3), dtype=np.uint8)
    pixels[:, :10] = 255
    exif = Image.Exif()
    exif[0x0112] = turn
    folder = write(tmp_path, [annotation()], images=[IMAGE | {"file_name": "b.png"}])
    Image.fromarray(pixels).save(folder / "images" / "b.png", exif=exif)
    says = {1: "", 3: "read upright; .* set data.ignore_exif .b.png", 6: "read as stored"}[turn]
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        found = opened(folder)
    assert [bool(re.search(says, str(w.message))) for w in given] == [True] * bool(says)
    assert bool(found.scene(0).picture[0, 0, 0]) == (turn != 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        reading = Reading(ignore_exif=True)
        raw = coco.open_coco(*find_split(folder, "train"), reading)
    assert raw.scene(0).picture[0, 0, 0] == 255


def test_no_json_and_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "instances_train.json"
    for text in (b"{", b"\xff", b"[" * 100_000):
        file.write_bytes(text)
        with pytest.raises(ValueError, match=r"instances_train.json is no JSON"):
            opened(tmp_path)
    file.write_text("[]")
    with pytest.raises(ValueError, match="holds a list, not an object of COCO's form"):
        opened(tmp_path)
    monkeypatch.setattr(coco, "MOST_BYTES", 1)
    with pytest.raises(ValueError, match="has 2 bytes, more than 1"):
        opened(tmp_path)
    with pytest.raises(FileNotFoundError, match="none.json is not there"):
        coco.open_coco(tmp_path / "none.json", tmp_path)


def real(name: str) -> Path:
    folder = Path(os.environ.get("TENFOLD_DATA", "/nowhere")) / name
    if not folder.is_dir():
        pytest.skip(f"{name} is absent; set TENFOLD_DATA")
    return folder


@pytest.mark.parametrize(
    ("name", "split", "counts"),
    [
        ("coco_tiny", "train", (50, 80, 465, 5)),
        ("coco_tiny", "val", (50, 80, 377, 5)),
        ("car_parts", "test", (100, 18, 855, 0)),
    ],
)
def test_real_sets(name: str, split: str, counts: tuple[int, ...]) -> None:
    """Every mask is that of pycocotools, and fills about its box."""
    found = coco.open_coco(*find_split(real(name), split))
    objects = [o for entry in found.entries for o in entry.objects]
    crowds = sum(o["iscrowd"] for o in objects)
    assert (len(found), len(found.classes), len(objects) - crowds, crowds) == counts
    for index, entry in enumerate(found.entries):
        objects = found.scene(index).objects
        own = [o for o in entry.objects if not o["iscrowd"]]
        assert objects.masks is not None and len(own) == int((~objects.is_crowd).sum())
        crowd = [o["segmentation"] for o in entry.objects if o["iscrowd"]]
        for code, found_mask in zip(crowd, objects.masks[objects.is_crowd], strict=True):
            assert (reference.decode(code) == found_mask).all()
        for item, found_mask in zip(own, objects.masks[~objects.is_crowd], strict=True):
            codes = reference.frPyObjects(item["segmentation"], entry.height, entry.width)
            assert (reference.decode(reference.merge(codes)) == found_mask).all()


def test_numbers_for_results_are_read_as_annotations_are(tmp_path):
    file = tmp_path / "a.json"
    images = [{"id": "7", "file_name": "C:\\our\\a.jpg"}, {"id": 8.0, "file_name": "sub\\b.jpg"}]
    content = {"images": images, "categories": [{"id": "3", "name": "cat"}]}
    file.write_text(json.dumps(content))
    numbers = read_numbers(file)
    assert numbers.of_images(["a.jpg", "sub/b.jpg"]) == [7, 8]
    assert numbers.of_classes(["cat"]) == [3]
    images[0]["file_name"] = "sub/b.jpg"
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"images 7 and 8 are both of 'sub/b.jpg'"):
        read_numbers(file)
