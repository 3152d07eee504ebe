"""Objects written for other tools and read back: shapes, points, and who said what."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tenfold.data.images import exchange, exchange_cvat, exchange_label_studio
from tenfold.data.images.crops import crop_of
from tenfold.data.images.exchange import FORMATS, merged, read, updated, write
from tenfold.data.images.instance_sets import open_photos
from tenfold.data.images.instances import ObjectSet, Point, Said, Shape

HUMAN = Said("human", "anna", "", "2026-11-29T05:00:00Z")
MODEL = Said("model", "", "round2", "2026-11-29T06:00:00Z")
EXACT = ("coco", "cvat", "label_studio", "x_anylabeling", "labelme")
"""Formats that hold masks."""


def ring() -> np.ndarray:
    y, x = np.mgrid[:15, :17]
    away = (y - 7) ** 2 + (x - 8) ** 2
    return (away < 49) & (away > 9)


@pytest.fixture
def objects(tmp_path: Path) -> ObjectSet:
    """Two pictures: a person's box with the model's mask and points, a crowd, a model's find."""
    for name in ("a.png", "deep/b c.png"):
        file = tmp_path / "photos" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(file)
    photos = open_photos(tmp_path / "photos", classes=("car", "a & <b>"))
    hollow, two = crop_of(ring(), 4, 6), np.zeros((9, 9), dtype=bool)
    two[:3, :4] = two[5:, 6:] = True
    asked = (
        Point(5, 8, 1, HUMAN, 1.25, "entropy"),
        Point(12, 13, 0, HUMAN, 2.5, "human"),
        Point(39, 29, -1, replace(HUMAN, who="ben"), 0.5, "bald"),
    )
    first = (
        Shape(7, 1, (4.0, 6.25, 21.5, 21.0), hollow, asked, False, float(hollow.area), None, HUMAN,
              MODEL),
        Shape(3, 0, (0.0, 0.0, 40.0, 30.0), crop_of(two), (), True, 24.0, None, HUMAN, HUMAN),
    )  # fmt: skip
    box = (30.0, 20.0, 38.0, 29.0)
    found = Shape(11, 0, box, crop_of(two, 30, 20), (), False, 24.0, 0.75, MODEL, MODEL)
    bare = Shape(12, 1, (1.0, 2.0, 3.0, 4.0), None, (), False, 4.0, None, HUMAN)
    pictures = [
        replace(one, shapes=shapes)
        for one, shapes in zip(photos.pictures, (first, (found, bare)), strict=True)
    ]
    return replace(photos, pictures=tuple(pictures))


def without(objects: ObjectSet) -> ObjectSet:
    return replace(objects, pictures=tuple(replace(p, shapes=()) for p in objects.pictures))


@pytest.mark.parametrize("form", EXACT)
def test_all_comes_back(objects: ObjectSet, tmp_path: Path, form: exchange.Format) -> None:
    out = tmp_path / "out"
    write(objects, out, form)
    found = read(out, form, without(objects))
    assert found.classes == objects.classes
    for before, after in zip(objects.pictures, found.pictures, strict=True):
        assert {s.id: s for s in after.shapes} == {s.id: s for s in before.shapes}


@pytest.mark.parametrize("form", EXACT)
def test_an_object_of_number_0_comes_back(
    objects: ObjectSet, tmp_path: Path, form: exchange.Format
) -> None:
    first, second = objects.pictures
    zero = replace(first, shapes=(replace(first.shapes[0], id=0), first.shapes[1]))
    objects = replace(objects, pictures=(zero, second))
    write(objects, tmp_path / "out", form)
    found = read(tmp_path / "out", form, without(objects))
    assert {s.id: s for s in found.pictures[0].shapes} == {s.id: s for s in zero.shapes}
    assert sorted(s.id for s in found.pictures[1].shapes) == [11, 12]


def test_points_come_back(objects: ObjectSet, tmp_path: Path) -> None:
    """As PointSup reads them: as many for all objects of a picture, unknown ones as -1."""
    notes = write(objects, tmp_path, "coco_points").notes
    assert "filled up" in notes[0] and "have a mask" in notes[1]
    content = json.loads((tmp_path / "instances_points.json").read_text())
    counts = [len(item["point_labels"]) for item in content["annotations"]]
    assert counts == [3, 3, 0, 0] and content["annotations"][1]["point_labels"] == [-1, -1, -1]
    assert "segmentation" not in json.dumps(content)
    found = read(tmp_path, "coco_points", without(objects))
    assert found.pictures[0].shapes[0].points == objects.pictures[0].shapes[0].points
    assert found.pictures[0].shapes[1].points == ()
    for item in content["annotations"]:  # of another tool
        del item["tenfold"]
    (tmp_path / "instances_points.json").write_text(json.dumps(content))
    points = read(tmp_path, "coco_points", without(objects)).pictures[0].shapes[0].points
    assert [(p.x, p.y, p.label) for p in points] == [(5, 8, 1), (12, 13, 0), (39, 29, -1)]


def test_coco_is_read_by_pycocotools(objects: ObjectSet, tmp_path: Path) -> None:
    from pycocotools.coco import COCO

    write(objects, tmp_path, "coco")
    coco = COCO(str(tmp_path / "instances.json"))
    mask = coco.annToMask(coco.anns[7]).astype(bool)
    shape = objects.pictures[0].shapes[0]
    assert shape.mask is not None and (mask == shape.mask.whole(30, 40)).all()
    assert coco.imgs[1]["file_name"] == "a.png" and len(coco.getAnnIds(iscrowd=True)) == 1


def test_who_said_it_is_where_each_tool_looks(objects: ObjectSet, tmp_path: Path) -> None:
    write(objects, tmp_path, "cvat")
    root = ElementTree.parse(tmp_path / "annotations.xml").getroot()
    image = root.find("image")
    assert image is not None and image.get("name") == "a.png"
    sources = [(one.tag, one.get("source"), one.get("group_id")) for one in image]
    assert sources[:3] == [("box", "manual", "7"), ("mask", "auto", "7"), ("points", "manual", "7")]
    write(objects, tmp_path, "label_studio")
    tasks = json.loads((tmp_path / "label_studio.json").read_text())
    person, model = tasks[0]["annotations"][0]["result"], tasks[0]["predictions"][0]
    assert [r["type"] for r in person[:2]] == ["rectanglelabels", "keypointlabels"]
    assert model["model_version"] == "round2" and model["result"][0]["type"] == "brushlabels"
    assert tasks[1]["data"]["image"].endswith("?d=deep/b%20c.png")
    write(objects, tmp_path, "x_anylabeling")
    shapes = json.loads((tmp_path / "deep/b c.json").read_text())["shapes"]
    kinds = [one["shape_type"] for one in shapes]
    assert kinds == ["rectangle", "polygon", "polygon", "rectangle"]
    assert shapes[0]["group_id"] == 11 and shapes[0]["score"] == 0.75
    assert len(shapes[0]["points"]) == 4


# --- what other tools write ----------------------------------------------------------------------


def photo(tmp_path: Path) -> ObjectSet:
    Image.fromarray(np.zeros((10, 20, 3), np.uint8)).save(tmp_path / "p.png")
    return open_photos(tmp_path)


def cvat(tmp_path: Path, elements: str, size: str = 'width="20" height="10"') -> Path:
    file = tmp_path / "cvat.xml"
    file.write_text(
        f'<annotations><version>1.1</version><image id="0" name="p.png" {size}>{elements}</image>'
        "</annotations>"
    )
    return file


def test_cvat_of_another_maker(tmp_path: Path) -> None:
    known = photo(tmp_path)
    file = cvat(
        tmp_path,
        '<box label="car" source="manual" xtl="1" ytl="2" xbr="6.5" ybr="8"/>'
        '<box label="car" xtl="1" ytl="2" xbr="6" ybr="8" group_id="4"/>'
        '<box label="bus" xtl="7" ytl="2" xbr="9" ybr="8" group_id="4"/>'
        '<polygon label="dog" source="auto" points="10,1;14,1;14,5;10,5"/>'
        '<mask label="cat" rle="1, 2, 1" left="3" top="4" width="2" height="2"/>'
        '<polyline label="dog" points="1,1;2,2"/><points label="dog" points="3.5,4.9"/>',
    )
    found = read(file, "cvat", known)
    boxes = [(s.label, s.box, s.said.source) for s in found.pictures[0].shapes]
    assert found.classes == ("car", "bus", "dog", "cat")
    assert boxes == [
        (0, (1.0, 2.0, 6.5, 8.0), "human"),
        (0, (1.0, 2.0, 6.0, 8.0), "human"),
        (1, (7.0, 2.0, 9.0, 8.0), "human"),
        (2, (10.0, 1.0, 14.0, 5.0), "model"),
        (3, (3.0, 4.0, 5.0, 6.0), "human"),
    ]
    masks = [s.mask.decode().astype(int).tolist() for s in found.pictures[0].shapes if s.mask]
    assert masks == [[[1] * 4] * 4, [[0, 1], [1, 0]]]
    assert [s.id for s in found.pictures[0].shapes] == [1, 2, 3, 4, 5]
    assert "polyline" in found.notes[0] and "a point of no object" in found.notes[1]


def test_label_studio_of_another_maker(tmp_path: Path) -> None:
    known = photo(tmp_path)
    box = {"x": 10, "y": 20, "width": 30, "height": 40, "rotation": 0}
    region = {
        "id": "abc", "type": "rectanglelabels", "original_width": 20, "original_height": 10,
        "value": box | {"rectanglelabels": ["car"]}, "from_name": "tag", "to_name": "img",
    }  # fmt: skip
    outline = {"points": [[0, 0], [50, 0], [50, 100], [0, 100]], "polygonlabels": ["tree"]}
    task = {
        "id": 1, "data": {"img": "/data/upload/1/12ab34cd-p.png"},
        "annotations": [
            {"result": [], "was_cancelled": True},
            {"result": [region, region | {"id": "p", "type": "polygonlabels", "value": outline}]},
        ],
        "predictions": [{"model_version": "m1", "result": [region, region | {"id": "new"}]}],
    }  # fmt: skip
    file = tmp_path / "ls.json"
    file.write_text(json.dumps([task]))
    shapes = read(file, "label_studio", known).pictures[0].shapes
    assert [(s.said.source, s.said.model) for s in shapes] == [
        ("human", ""), ("human", ""), ("model", "m1")
    ]  # fmt: skip
    assert shapes[0].box == pytest.approx((2.0, 2.0, 8.0, 6.0))
    assert shapes[1].mask is not None and shapes[1].mask.box == (0.0, 0.0, 10.0, 10.0)
    for one in task["annotations"][1]["result"]:  # type: ignore[index]
        del one["type"]  # the kind of its labels tells it
    file.write_text(json.dumps([task]))
    again = read(file, "label_studio", known)
    assert [s.box for s in again.pictures[0].shapes] == [s.box for s in shapes] and not again.notes


def test_labelme_of_another_maker(tmp_path: Path) -> None:
    known = photo(tmp_path)
    made = io.BytesIO()
    Image.fromarray(np.array([[0, 1], [1, 1]], np.uint8)).save(made, format="PNG")
    left, right = [[1, 1], [5, 1], [5, 4], [1, 4]], [[7, 1], [9, 1], [9, 4], [7, 4]]
    shapes = [
        {"label": "car", "points": [[6, 8], [1, 2]], "shape_type": "rectangle"},
        {"label": "car", "points": left, "shape_type": None, "group_id": 3},
        {"label": "car", "points": right, "group_id": 3, "flags": None},
        {"label": "cat", "points": [[3, 4], [4, 5]], "shape_type": "mask",
         "mask": base64.b64encode(made.getvalue()).decode()},
        {"label": "cat", "points": [[3, 4], [4, 5]], "shape_type": "circle"},
    ]  # fmt: skip
    content = {"flags": {}, "imagePath": "..\\photos\\p.png", "imageData": None, "shapes": shapes}
    (tmp_path / "p.json").write_text(json.dumps(content))
    found = read(tmp_path, "labelme", known)
    boxes = [s.box for s in found.pictures[0].shapes]
    assert boxes[0] == (1.0, 2.0, 6.0, 8.0) and len(boxes) == 3
    assert boxes[1] == (1.0, 1.0, 9.0, 4.0)  # one object of two outlines
    mask = found.pictures[0].shapes[2].mask
    assert mask is not None and mask.decode().tolist() == [[False, True], [True, True]]
    assert "circle" in found.notes[0]
    with pytest.raises(ValueError, match="shapes of another tool"):
        write(found, tmp_path, "labelme")


@pytest.mark.parametrize("form", ["labelme", "x_anylabeling"])
def test_pictures_that_differ_in_their_ending(tmp_path: Path, form: exchange.Format) -> None:
    for name in ("a.jpg", "a.png"):
        Image.fromarray(np.zeros((10, 20, 3), np.uint8)).save(tmp_path / name)
    known = open_photos(tmp_path, classes=("car",))
    pictures = [
        replace(one, shapes=(Shape(row + 1, 0, (0.0, 0.0, 9.0, 9.0), area=9.0, said=HUMAN),))
        for row, one in enumerate(known.pictures)
    ]
    made = write(replace(known, pictures=tuple(pictures)), tmp_path / "out", form)
    assert [file.name for file in made.files] == ["a.json", "a.png.json"]
    assert any("a.png.json" in note for note in made.notes)
    found = read(tmp_path / "out", form, known)
    assert [[shape.id for shape in one.shapes] for one in found.pictures] == [[1], [2]]


# --- a model beside humans -----------------------------------------------------------------------


def test_a_model_never_writes_over_a_human(objects: ObjectSet) -> None:
    old = objects.pictures[0].shapes[0]
    drawn = replace(old, mask_said=HUMAN)
    other = crop_of(np.ones((3, 3), dtype=bool), 5, 7)
    point = Point(9, 9, 1, HUMAN)
    new = replace(old, label=0, box=(0.0, 0.0, 9.0, 9.0), mask=other, points=(point,))
    new = replace(new, said=MODEL, mask_said=MODEL)
    kept, notes = updated(drawn, new)
    assert (kept.label, kept.box, kept.mask) == (old.label, old.box, old.mask)
    assert kept.points == (*old.points, point)
    assert notes == [
        "annotation 7: class and box of a human are kept",
        "annotation 7: the mask of a human is kept",
    ]
    redrawn, notes = updated(old, replace(new, label=old.label, box=old.box))
    assert redrawn.mask == other and redrawn.said == HUMAN and not notes
    corrected, notes = updated(kept, replace(new, said=HUMAN, mask_said=HUMAN))
    assert corrected.label == 0 and corrected.mask == other and not notes


def test_a_mask_that_stays_keeps_its_area(objects: ObjectSet) -> None:
    """Without a mask the area is that of the box, by which COCO calls objects small or large."""
    old = objects.pictures[0].shapes[0]
    assert old.mask is not None and old.area == old.mask.area
    boxed = replace(old, box=(4.0, 6.0, 22.0, 21.0), mask=None, area=270.0)
    found, _ = updated(old, boxed)
    assert found.box == boxed.box and (found.mask, found.area) == (old.mask, old.area)
    found, _ = updated(replace(old, mask=None, area=9.0), boxed)
    assert found.area == 270.0
    refused = replace(boxed, mask=crop_of(np.ones((3, 3), dtype=bool), 5, 7), mask_said=MODEL)
    found, notes = updated(replace(old, mask_said=HUMAN), refused)
    assert notes and found.area == old.area


def test_sets_are_joined_by_id(objects: ObjectSet) -> None:
    (found, _), other = objects.pictures[1].shapes, objects.pictures[0]
    fresh = replace(found, id=20, label=1)
    second = replace(objects.pictures[1], shapes=(replace(found, score=0.5), fresh))
    new = replace(objects, classes=("car", "bus"), pictures=(replace(other, shapes=()), second))
    both = merged(objects, new)
    assert both.classes == ("car", "a & <b>", "bus") and both.category_ids == (1, 2, 3)
    assert [(s.id, s.label) for s in both.pictures[1].shapes] == [(11, 0), (12, 1), (20, 2)]
    assert both.pictures[1].shapes[0].score == 0.5 and both.pictures[0] == other
    second = replace(second, shapes=(replace(fresh, id=7),))
    with pytest.raises(ValueError, match="annotation 7 is of a.png, and now of deep/b c.png"):
        merged(objects, replace(new, pictures=(new.pictures[0], second)))


# --- input that does not fit ---------------------------------------------------------------------

BOX = '<box label="a" xtl="{}" ytl="2" xbr="{}" ybr="8"/>'
NUMBERED = BOX.format(1, 5).replace("/>", '><attribute name="id">4</attribute></box>')
MASK = '<mask label="a" rle="{}" left="{}" top="0" width="{}" height="2"/>'


@pytest.mark.parametrize(
    ("elements", "message"),
    [
        (BOX.format(20, 25), "nothing lies in p.png"),
        (BOX.format(5, 5), "nothing lies in p.png"),
        (BOX.format("x", 5), "could not convert"),
        (BOX.format("nan", 5), "no number below 1e6"),
        (MASK.format("1, 2, 2", 3, 2), "do not add up to the 2 x 2"),
        (MASK.format("1, -2, 5", 3, 2), "do not add up"),
        (MASK.format("1, 99999999999999999999", 3, 2), "do not add up"),
        (MASK.format("0, 18000000000", 3, 9000000000), "leaves p.png"),
        (MASK.format("0, 4", 19, 2), "leaves p.png"),
        (MASK.format("0", 3, 0), "mask is 0 x 2 pixels"),
        (MASK.format("4", 3, 2), "mask without a pixel"),
        ('<polygon label="a" points="1,1;2,2;1e5,1e5;0,9e5"/>', "outline is"),
        ('<polygon label="a" points="1,1;2"/>', "not enough values"),
        ('<box label="" xtl="1" ytl="2" xbr="5" ybr="8"/>', "has no class"),
        (2 * NUMBERED, "has the id 4, and so has image"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(tmp_path: Path, elements: str, message: str) -> None:
    """With file and element; left out and noted if that is wished."""
    known, sound = photo(tmp_path), BOX.format(1, 3)
    file = cvat(tmp_path, sound + elements)
    with pytest.raises(ValueError, match=message) as caught:
        read(file, "cvat", known)
    assert str(file) in str(caught.value) and "p.png" in str(caught.value)
    found = read(file, "cvat", known, skip=True)
    assert found.pictures[0].shapes[0].box == (1.0, 2.0, 3.0, 8.0)
    assert len(found.notes) == 1 and "left out" in found.notes[0]


def test_pictures_that_vanished_and_files_that_are_none(tmp_path: Path) -> None:
    known = photo(tmp_path)
    file = cvat(tmp_path, BOX.format(1, 3), 'width="20" height="11"')
    with pytest.raises(ValueError, match="has 20 x 11 pixels, p.png has 20 x 10"):
        read(file, "cvat", known)
    file.write_text(file.read_text().replace("p.png", "gone.png"))
    with pytest.raises(FileNotFoundError, match="not there: gone.png. Put them back"):
        read(file, "cvat", known)
    assert "gone.png" in read(file, "cvat", known, skip=True).notes[0]
    file.write_text('<!DOCTYPE x [<!ENTITY a "b">]><annotations/>')
    with pytest.raises(ValueError, match="defines entities"):
        read(file, "cvat", known)
    for form, text, message in (
        ("cvat", "<annotations>", "is no XML"), ("cvat", "<other/>", "no CVAT for images"),
        ("label_studio", "{}", "must be a list"), ("label_studio", "[", "is no JSON"),
        ("labelme", "[]", "not of LabelMe's form"), ("coco", "[]", "not an object"),
    ):  # fmt: skip
        file.write_text(text)
        with pytest.raises(ValueError, match=message):
            read(file, form, known)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="there are coco, coco_points"):
        read(file, "voc", known)  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError, match="is not there"):
        read(tmp_path / "none.json", "coco", known)


def test_coco_with_an_id_twice_and_another_size(tmp_path: Path) -> None:
    known = photo(tmp_path)
    item = {"id": 1, "image_id": 5, "category_id": 2, "bbox": [1, 2, 3, 4], "iscrowd": 0}
    content = {
        "images": [{"id": 5, "file_name": "p.png", "width": 20, "height": 10}],
        "annotations": [item, item],
        "categories": [{"id": 2, "name": "car"}],
    }
    file = tmp_path / "c.json"
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="ids of annotations must be unique; there twice: 1"):
        read(file, "coco", known)
    code = {"size": [9, 20], "counts": [180]}
    content["annotations"] = [item, item | {"id": 2, "segmentation": code}]
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"annotation 2 has a segmentation .* of size \[9, 20\]"):
        read(file, "coco", known)
    assert len(read(file, "coco", known, skip=True).pictures[0].shapes) == 1
    content["images"][0]["height"] = 9  # type: ignore[index]
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="image 5 has 20 x 9 pixels, p.png has 20 x 10"):
        read(file, "coco", known)


# --- codes of masks ------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(1, 70), st.integers(0, 2**32))
def test_codes_are_exact(height: int, width: int, seed: int) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < 0.5
    mask[:, width // 2 :] = bool(seed % 2)  # longer runs
    code = exchange_label_studio.encode_brush(mask)
    assert (exchange_label_studio.decode_brush(code, height, width) == mask).all()
    if mask.any():
        crop = crop_of(mask)
        runs = exchange_cvat.runs_of_rows(crop)
        assert exchange_cvat.of_runs(runs, crop.x, crop.y, crop.height, crop.width) == crop


def test_a_brush_by_the_tool_itself() -> None:
    """Numbers of label_studio_converter's encode_rle, for single values and runs of all lengths."""
    mask = np.zeros((3, 30), dtype=bool)
    mask[0, 2] = mask[1, 5:28] = True
    code = exchange_label_studio.encode_brush(mask)
    assert code == [
        0, 0, 1, 104, 57, 27, 252, 224, 17, 255, 231, 240, 12, 183, 255, 159, 192, 0
    ]  # fmt: skip
    single = f"{4:032b}" + "00111" + "0010001101111111"
    bits = single + "000011" + "".join(f"{v:08b}" for v in (0, 0, 0, 9))  # four single values
    bits += "0" * (-len(bits) % 8)
    values = [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]
    assert exchange_label_studio.decode_brush(values, 1, 1).tolist() == [[True]]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ([0, 0, 1], "ends too early"),
        ([255] * 8, "is of 4294967295 values"),
        ([0, 0, 0, 8], "ends too early"),
        ([0, 0, 0, 8, 0x39, 0x1B, 0xFF], "ends too early"),
        ([0, 300], "no list of bytes"),
        ("abc", "must be a list"),
        (None, "must be a list"),
    ],
)
def test_a_brush_that_lies(code: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        exchange_label_studio.decode_brush(code, 1, 2)  # type: ignore[arg-type]


def test_every_format_has_a_reader_and_a_writer(objects: ObjectSet, tmp_path: Path) -> None:
    for form in FORMATS:
        done = write(objects, tmp_path / form, form)
        assert all(file.is_file() for file in done.files)
        read(tmp_path / form, form, without(objects))
