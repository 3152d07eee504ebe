"""Files that the labelling page writes and takes, and the backend of Label Studio."""

from __future__ import annotations

import copy
import io
import json
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from systems.apis.pages import TAB, boxes, fresh, pages
from web.discs import DISCS, Discs, box_of

import tenfold
from tenfold.data.images import exchange
from tenfold.data.images.exchange_label_studio import decode_brush
from tenfold.data.images.instance_sets import open_photos
from tenfold.journal import events
from tenfold.systems.apis import data, serving
from tenfold.systems.apis.answers import standing
from tenfold.systems.apis.exports import TITLES
from tenfold.systems.apis.labelling import Labelling
from tenfold.systems.apis.segmenters import NetworkSegmenter
from tenfold.systems.apis.studio import drawn_of, picture_of, tags_of


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[..., Labelling]]:
    with pages(tmp_path) as open_page:
        yield open_page


def answered(page: Labelling, answers: int = 9) -> Labelling:
    """Three boxes with answers in a.png, one box in b.png."""
    page.draw(fresh(), TAB, 1, box_of(DISCS["b.png"][0]), **{"class": "ball"})
    said = boxes(page)
    for number in range(answers):
        label = ("yes", "no", "unsure")[number % 3]
        said = page.answer(fresh(), TAB, said["question"]["id"], label, 1.25)
    return page


def coco_of(page: Labelling, tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    file = tmp_path / "export.json"
    file.write_bytes(page.export("coco").content)
    return file, json.loads(file.read_text())


def test_coco_is_what_pycocotools_reads(
    opened: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = answered(opened(who="ada"))
    file, content = coco_of(page, tmp_path)
    read = COCO(file)
    assert [image["file_name"] for image in read.dataset["images"]] == ["a.png", "b.png"]
    assert [c["name"] for c in read.dataset["categories"]] == ["disc", "ball"]
    assert len(read.anns) == 4
    for one in page.labels.objects:
        found = read.anns[one.id]
        x0, y0, x1, y1 = one.box
        assert found["bbox"] == [x0, y0, x1 - x0, y1 - y0]
        mask = page._look(one).mask.whole(*one.size)
        np.testing.assert_array_equal(read.annToMask(found).astype(bool), mask)
        assert mask.any() and found["area"] == mask.sum()
    kept = content["annotations"][0]["tenfold"]
    assert (kept["shape"]["source"], kept["shape"]["who"]) == ("human", "ada")
    assert (kept["mask"]["source"], kept["mask"]["model"]) == ("model", "model 0")
    assert {p["chosen"] for p in kept["points"]} == {"diverse"}
    assert all(p["who"] == "ada" and p["seconds"] == 1.25 for p in kept["points"])


@pytest.mark.parametrize("form", TITLES)
def test_every_form_is_read_again(opened: Any, tmp_path: Path, form: Any) -> None:
    page = answered(opened())
    media = page.export(form)
    place = tmp_path / "again"
    place.mkdir()
    if media.kind == "application/zip":
        zipfile.ZipFile(io.BytesIO(media.content)).extractall(place)
        files = [file for file in place.glob("*.json")]
        source = files[0] if form == "label_studio" else place
    else:
        source = place / media.name
        source.write_bytes(media.content)
    found = exchange.read(source, form, open_photos(tmp_path / "photos", classes=("disc", "ball")))
    shapes = {shape.id: shape for picture in found.pictures for shape in picture.shapes}
    assert sorted(shapes) == [1, 2, 3, 4]
    for one in page.labels.objects:
        shape = shapes[one.id]
        np.testing.assert_allclose(shape.box, one.box, atol=0.01)
        assert found.classes[shape.label] == one.name and shape.said.source == "human"
        said = {(p.x, p.y, p.label) for p in shape.points}
        assert {(x, y, label) for x, y, label in one.points} <= said
        if shape.mask is not None:
            assert shape.mask_said.source == "model"


def test_an_unknown_form_is_named(opened: Any) -> None:
    with pytest.raises(LookupError, match="no form 'docx'; there are coco, coco_points"):
        opened().export("docx")


def test_what_another_tool_began_goes_on_here(opened: Any, tmp_path: Path) -> None:
    """Boxes become objects, a person's mask stays as it is, a model's is made anew."""
    file, content = coco_of(answered(opened()), tmp_path)
    one = content["annotations"][0]
    for said in ("shape", "mask"):
        one["tenfold"][said] = {"source": "human", "who": "eve", "time": "2026-01-02T03:04:05Z"}
    file.write_text(json.dumps(content))
    for path in (tmp_path / "out").iterdir():
        path.unlink()
    page = opened(boxes=str(file))
    assert [o.id for o in page.labels.objects] == [1, 2, 3, 4]
    own = page.labels.there(one["id"])
    assert own.mask is not None and own.mask_said.who == "eve"
    asked = {page.next(TAB, 0)["question"]["object"]["id"] for _ in range(3)}
    assert own.id not in asked
    with pytest.raises(ValueError, match="has a mask that a person made; it stays as it is"):
        x0, y0 = own.pixels[:2]
        page.click(fresh(), TAB, own.id, x0, y0, "yes", 1.0)
    answers = sum(len(o.answers) for o in page.labels.objects)
    assert answers == sum(len(a["tenfold"]["points"]) for a in content["annotations"]) == 9
    again = coco_of(page, tmp_path)[1]["annotations"][0]
    assert again["segmentation"] == one["segmentation"]
    assert again["tenfold"]["mask"]["time"] == "2026-01-02T03:04:05Z"

    with pytest.raises(ValueError, match="its box is that of the mask"):
        page.change(fresh(), TAB, own.id, box=[1.0, 1.0, 9.0, 9.0])

    page.remove(fresh(), TAB, 4)  # a person's doing: the file does not bring it back
    page = opened(boxes=str(file))
    assert [o.id for o in page.labels.objects] == [1, 2, 3]
    assert len(standing(events(tmp_path / "out" / "answers.jsonl"))) == 9
    file.unlink()  # the log has what it held
    with pytest.warns(UserWarning, match="export.json does not exist any more; its objects"):
        page = opened(boxes=str(file))
    assert [o.id for o in page.labels.objects] == [1, 2, 3]
    with pytest.raises(FileNotFoundError):
        opened(boxes=str(tmp_path / "other.json"))


def changed(content: dict[str, Any], how: str) -> str:
    one = content["annotations"][1]
    one.pop("tenfold")
    if how == "outside":
        one["bbox"] = [500, 500, 20, 20]
    if how == "empty":
        one["bbox"] = [5, 5, 0, 20]
    if how == "size":
        one["segmentation"] = {"size": [9, 9], "counts": "c2"}
    if how == "twice":
        one["id"] = content["annotations"][0]["id"]
    if how == "vanished":
        content["images"][0]["file_name"] = "gone.png"
    if how == "class":
        content["categories"][0]["name"] = "cat"
    return json.dumps(content)


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("outside", "box|bbox"),
        ("empty", "box|bbox"),
        ("size", "size|pixels"),
        ("twice", "id"),
        ("vanished", "gone.png"),
        ("class", "classes that the model does not know: cat; it knows disc, ball"),
    ],
)
def test_files_that_do_not_fit_are_named_and_nothing_is_added(
    opened: Any, tmp_path: Path, how: str, says: str
) -> None:
    file, content = coco_of(answered(opened()), tmp_path)
    log = (tmp_path / "out" / "answers.jsonl").read_bytes()
    file.write_text(changed(copy.deepcopy(content), how))
    with pytest.raises((ValueError, FileNotFoundError), match=says):
        opened(boxes=str(file), segmenter=Discs(grows=False))
    assert (tmp_path / "out" / "answers.jsonl").read_bytes() == log


def test_a_text_that_is_too_long_leaves_no_half_of_a_file(opened: Any, tmp_path: Path) -> None:
    """Of the last answer in it, that the log would not be read with."""
    file, content = coco_of(answered(opened()), tmp_path)
    said = next(a for a in reversed(content["annotations"]) if a["tenfold"]["points"])
    said["tenfold"]["points"][-1]["who"] = "e" * 300
    file.write_text(json.dumps(content))
    log = (tmp_path / "out" / "answers.jsonl").read_bytes()
    with pytest.raises(ValueError, match=r"export.json: answer .* a text of 300 characters"):
        opened(boxes=str(file))
    assert (tmp_path / "out" / "answers.jsonl").read_bytes() == log


@pytest.mark.parametrize(("form", "ending"), [("cvat", "xml"), ("label_studio", "json")])
def test_a_file_of_another_tool_is_told_from_a_damaged_one(
    opened: Any, tmp_path: Path, form: str, ending: str
) -> None:
    page = answered(opened(), 0)
    file = tmp_path / f"{form}.{ending}"
    file.write_bytes(page.export(form).content)
    with pytest.raises(ValueError, match=f"{file.name}.*say which tool wrote it: --form .*{form}"):
        opened(boxes=str(file))
    file = tmp_path / "boxes.json"
    file.write_text('{"images": []')
    with pytest.raises(ValueError, match="boxes.json is no JSON") as error:
        opened(boxes=str(file))
    assert "--form" not in str(error.value)


def test_a_crowd_in_front_shifts_nothing_and_is_not_asked_about(
    opened: Any, tmp_path: Path
) -> None:
    file, content = coco_of(answered(opened(), 0), tmp_path)
    crowd = content["annotations"][0]
    crowd["iscrowd"], crowd["id"] = 1, 77
    crowd.pop("tenfold")
    file.write_text(json.dumps(content))
    for path in (tmp_path / "out").iterdir():
        path.unlink()
    page = opened(boxes=str(file))
    assert page.labels.there(77).is_crowd
    assert 77 not in {one["id"] for one in page.next(TAB, 0)["strip"]}
    read = json.loads(page.export("coco").content)
    assert {a["id"]: a["iscrowd"] for a in read["annotations"]}[77] == 1


def test_classes_of_a_file_are_added_where_they_can_be(opened: Any, tmp_path: Path) -> None:
    file, content = coco_of(answered(opened(), 0), tmp_path)
    content["categories"].append({"id": 3, "name": "cat"})
    content["annotations"][2]["category_id"] = 3
    file.write_text(json.dumps(content))
    for path in (tmp_path / "out").iterdir():
        path.unlink()
    page = opened(boxes=str(file))
    assert page.labels.classes == ["disc", "ball", "cat"]
    assert [o.name for o in page.labels.objects].count("cat") == 1


def test_shapes_that_are_not_read_are_warned_of(opened: Any, tmp_path: Path) -> None:
    line = '<polyline label="disc" points="1,1;9,9" occluded="0"></polyline>'
    box = '<box label="disc" xtl="1" ytl="1" xbr="9" ybr="9" occluded="0"></box>'
    album = opened().album
    height, width = album.picture(0).shape[:2]
    file = tmp_path / "cvat.xml"
    file.write_text(
        f'<annotations><version>1.1</version><image id="0" name="{album.names[0]}" '
        f'width="{width}" height="{height}">{box}{line}</image></annotations>'
    )
    with pytest.warns(UserWarning, match=r"cvat\.xml: 1 polyline left out"):
        page = opened(boxes=str(file), form="cvat")
    assert len(page.labels.objects) == 1


@pytest.mark.usefixtures("generated_only")
def test_training_learns_from_answers_and_from_masks_that_people_made(
    opened: Any, tmp_path: Path, made: Any
) -> None:
    """What a training of the page reads: a person's mask is known, a network's is not."""
    file, content = coco_of(answered(opened()), tmp_path)
    one = content["annotations"][0]
    one["tenfold"]["mask"] = {"source": "human", "who": "eve"}
    file.write_text(json.dumps(content))
    for path in (tmp_path / "out").iterdir():
        path.unlink()
    system = tenfold.load(made("apis"))
    now = NetworkSegmenter(system.model, system.cfg)
    with pytest.raises(ValueError, match="no answer to train on yet, and no mask"):
        serving.training(opened(segmenter=now), now)
    words = serving.training(opened(boxes=str(file), segmenter=now), now)
    known = json.loads(Path(words[1]).read_text())["config"]["data"]
    own = replace(system.cfg.data, **{k: known[k] for k in ("name", "path", "points_path")})
    cfg = replace(system.cfg, data=replace(own, points_masks=known["points_masks"], least=1))
    train = data.open_set(cfg.data, "train")
    shapes = [shape for some in train.pictures for shape in some.shapes]
    assert [shape.id for shape in shapes if data.is_masked(cfg, shape)] == [one["id"]]
    assert sum(len(shape.points) > 0 for shape in shapes) == 3
    batch = data.Batches(replace(cfg, classes=train.classes), train, "page", lambda _: ())(0)
    assert sum(int(some["has_mask"].sum()) for some in batch["objects"]) >= 1


# --- Label Studio --------------------------------------------------------------------------------

CONFIG = (
    '<View><Image name="photo" value="$image"/><RectangleLabels name="rects" toName="photo">'
    '<Label value="disc"/></RectangleLabels><BrushLabels name="brush" toName="photo"/></View>'
)


def task(address: str) -> dict[str, Any]:
    return {"id": 1, "data": {"image": address}}


@pytest.mark.parametrize(
    ("address", "number"),
    [
        ("a.png", 0),
        ("/data/local-files/?d=set/photos/b.png", 1),
        ("/data/upload/3/1a2b3c4d-c.png", 2),
        ("https://elsewhere.example/some/a.png?x=1", 0),
        ("../../../../etc/passwd", None),
        ("file:///etc/a%2epng", 0),
        ("http://[broken", None),
        ("", None),
        ("\\\\host\\share\\a.png", None),
    ],
)
def test_a_task_is_a_photo_by_its_name_alone(opened: Any, address: str, number: int | None) -> None:
    album = opened().album
    assert picture_of({"n": 3, "image": address}, album) == number


def test_predictions_are_what_the_page_knows_under_the_names_of_the_interface(opened: Any) -> None:
    page = answered(opened())
    here, gone = page.predict([task("x/a.png"), task("other.png")], {}, CONFIG)
    assert gone == {"model_version": "model 0", "score": 0.0, "result": []}
    assert 0 < here["score"] < 1
    kinds = [(one["type"], one["from_name"], one["to_name"]) for one in here["result"]]
    assert kinds.count(("rectanglelabels", "rects", "photo")) == 3
    assert kinds.count(("brushlabels", "brush", "photo")) == 3 and len(kinds) == 6
    brush = next(one for one in here["result"] if one["type"] == "brushlabels")
    one = page.labels.there(int(brush["id"].partition("-")[0]))
    found = decode_brush(brush["value"]["rle"], *one.size)
    np.testing.assert_array_equal(found, page._look(one).mask.whole(*one.size))


def test_predictions_without_objects_are_what_the_network_finds(opened: Any) -> None:
    (found,) = opened().predict([task("c.png")], {}, "")
    assert found["score"] == 0.8
    assert [one["type"] for one in found["result"]] == ["rectanglelabels", "brushlabels"]


def test_what_is_drawn_in_label_studio_is_answered_and_not_kept(opened: Any) -> None:
    page = opened()
    x, y, r = DISCS["a.png"][0]
    place = {"x": (x - r) / 1.6, "y": (y - r) / 1.44, "width": 2 * r / 1.6, "height": 2 * r / 1.44}
    rectangle = {"type": "rectanglelabels", "value": {**place, "rectanglelabels": ["ball"]}}
    point = {"type": "keypointlabels", "value": {"x": x / 1.6, "y": y / 1.44}, "is_positive": True}
    off = {"type": "keypointlabels", "value": {"x": (x + r - 1) / 1.6, "y": y / 1.44,
           "keypointlabels": ["off"]}}  # fmt: skip
    areas = []
    for drawn in ([rectangle], [rectangle, point], [rectangle, point, off]):
        (found,) = page.predict([task("a.png")], {"result": drawn}, CONFIG)
        box, brush = found["result"]
        assert box["value"]["rectanglelabels"] == ["ball"]
        areas.append(decode_brush(brush["value"]["rle"], 144, 160).sum())
    assert areas[2] < areas[0] and not page.labels.objects
    (found,) = page.predict([task("a.png")], {"result": [point]}, CONFIG)
    assert len(found["result"]) in (0, 2)


@pytest.mark.parametrize(
    "regions", [3, [{"type": 1}], [{"value": {"x": "left"}, "type": "keypointlabels"}]]
)
def test_drawn_regions_that_are_none(opened: Any, regions: Any) -> None:
    with pytest.raises(ValueError, match="context.result"):
        opened().predict([task("a.png")], {"result": regions}, CONFIG)


def test_drawn_regions_that_state_no_type() -> None:
    """They are of the tag that they are from, or of the kind of their labels."""
    place = {"x": 1, "y": 2, "width": 3, "height": 4}
    point: dict[str, Any] = {"value": {"x": 1, "y": 2, "keypointlabels": ["on"]}, "type": None}
    rectangle = {"id": "r1", "from_name": "rects", "value": place}
    outline = {"value": {"polygonlabels": ["disc"]}}
    relation = {"type": "relation", "from_id": "a", "to_id": "b"}
    found = drawn_of([rectangle, point, outline, relation], tags_of(CONFIG))
    assert found == [("rectanglelabels", rectangle), ("keypointlabels", point)]
    with pytest.raises(ValueError, match=r"result\[1\] \(id 'r1'\) states no type, .*; send type"):
        drawn_of([point, rectangle], {})
    with pytest.raises(ValueError, match=r"result\[0\] \(id ''\) .* lacks value.y, value.height"):
        drawn_of([{"type": "rectanglelabels", "value": {"x": 1, "width": 3}}], {})
