"""Trees and segments in the forms of others: COCO panoptic, COCOTree, X-AnyLabeling; outlines."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from metrics.nested_boxes import boxes
from metrics.street_segments import CLASSES, picture
from PIL import Image

from tenfold.data.images import coco_panoptic, coco_tree, relations, runs
from tenfold.data.images.coco_masks import Entry, filled
from tenfold.data.images.crops import crop_of
from tenfold.data.images.outlines import outlines
from tenfold.metrics.panoptic import hpq, pq
from tenfold.structures import Tree, Unit


def painted(polygons: list, height: int, width: int) -> np.ndarray:
    flat = [[float(side) for corner in polygon for side in corner] for polygon in polygons]
    return filled(flat, Entry(Path(), height, width, 0, []))


def shape_of(tree: Tree) -> list:
    """Names and masks from the root down, whatever the numbers."""

    def below(unit: Unit) -> list:
        parts = sorted(below(part) for part in tree.parts(unit.id))
        return [unit.name, unit.mask["counts"], unit.state, parts]

    return below(tree.root)


def test_codes_of_masks_and_maps() -> None:
    rng = np.random.default_rng(1)
    for height, width in ((1, 1), (7, 5), (3, 16)):
        labels = rng.integers(-1, 3, (height, width))
        codes = runs.codes_of(labels)
        assert sorted(codes) == sorted(set(labels.ravel().tolist()))
        for number, code in codes.items():
            assert (runs.mask_of(code) == (labels == number)).all()
            assert runs.area(code) == (labels == number).sum()
            assert runs.checked(code, (height, width)) == code
            flat = np.zeros(labels.size, dtype=bool)
            flat[runs.pixels_of(code)] = True
            assert (flat.reshape(width, height).T == (labels == number)).all()
    assert runs.area(runs.empty(4, 3)) == 0 and runs.area(runs.full(4, 3)) == 12


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ({"size": [4, 3]}, "an object of size and counts"),
        ({"size": [4, 3.0], "counts": [12]}, "the size of a mask"),
        ({"size": [4, 4], "counts": [16]}, "a mask is of 4 x 4 pixels"),
        ({"size": [4, 3], "counts": [11]}, "do not add up to the 12 pixels"),
        ({"size": [4, 3], "counts": [13, -1]}, "negative, or longer"),
        ({"size": [4, 3], "counts": ";"}, "do not add up"),
        ({"size": [4, 3], "counts": "P"}, "ends too early"),
        ({"size": [4, 3], "counts": [True]}, "a list of whole numbers"),
        ({"size": [10**6, 10**6], "counts": [10**12]}, "4 x 3|more than"),
    ],
)  # fmt: skip
def test_damaged_codes_are_refused(code: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        runs.checked(code, (4, 3))


def test_outlines_give_their_masks_back() -> None:
    rng = np.random.default_rng(0)
    for share in (0.2, 0.5, 0.8):
        for _ in range(15):
            height, width = (int(side) for side in rng.integers(1, 14, 2))
            mask = rng.random((height, width)) < share
            if mask.any():
                assert (painted(outlines(crop_of(mask)), height, width) == mask).all()
    ring = np.ones((9, 9), dtype=bool)
    ring[2:7, 2:7] = False
    ring[4, 4] = True
    assert [len(polygon) for polygon in outlines(crop_of(ring))] == [10, 4]


# --- COCO panoptic -------------------------------------------------------------------------------


def panoptic_files(folder: Path) -> tuple[list[Tree], coco_panoptic.PanopticSet]:
    trees = []
    for seed in range(2):
        one = picture(seed)
        codes = runs.codes_of(one.ids)
        void = codes.pop(0)
        units = [Unit(0, "scene", None, runs.full(*one.ids.shape), state="done")]
        units += [Unit(n, one.names[n], 0, c, crowd=n in one.crowd) for n, c in codes.items()]
        trees.append(Tree(one.ids.shape, tuple(units), f"{seed}.jpg", void=void))
    coco_panoptic.write(folder, trees, CLASSES, ("car", "person"))
    return trees, coco_panoptic.open_panoptic(folder / "panoptic.json", folder / "panoptic")


def test_coco_panoptic_is_written_and_read(tmp_path: Path) -> None:
    trees, found = panoptic_files(tmp_path)
    assert found.things == {"car", "person"} and len(found) == 2
    assert pq([picture(0), picture(1)], list(found)).pq == 1
    assert hpq([found.tree(0), found.tree(1)], trees).hpq == 1
    assert found.tree(0).image == "0.jpg" and found.tree(0).void == trees[0].void
    assert sum(unit.crowd for unit in found.tree(1).units) == 1
    content = json.loads((tmp_path / "panoptic.json").read_text())
    segment = content["annotations"][0]["segments_info"][0]
    mask = found.segments(0).ids == segment["id"]
    x, y, wide, tall = segment["bbox"]
    assert segment["area"] == mask.sum() == mask[y : y + tall, x : x + wide].sum()
    with pytest.raises(ValueError, match="'sky' is none of the classes car"):
        coco_panoptic.write(tmp_path, trees, ["car", "road", "person"], [])
    with pytest.raises(ValueError, match=r"two trees are of the picture 0\.jpg"):
        coco_panoptic.write(tmp_path, [trees[0], trees[0]], CLASSES, [])


def test_panoptic_files_name_the_pictures_that_are_there(tmp_path: Path) -> None:
    trees, _ = panoptic_files(tmp_path)
    long = f"{'é' * 120}.png"

    def named(*images: str) -> tuple[list[str], list[str]]:
        given = [replace(tree, image=name) for tree, name in zip(trees, images, strict=True)]
        written = coco_panoptic.write(tmp_path, given, CLASSES, [])
        assert all(file.is_file() for file in written)
        found = json.loads((tmp_path / "panoptic.json").read_text())
        return ([i["file_name"] for i in found["images"]],
                [a["file_name"] for a in found["annotations"]])  # fmt: skip

    assert named("x/a.png", "a.png") == (["x/a.png", "a.png"], ["x__a.png", "a.png"])
    assert named("a.jpg", "A.png") == (["a.jpg", "A.png"], ["000001-a.png", "000002-A.png"])
    assert named(long, "a.png") == ([long, "a.png"], [f"{'é' * 50}.png", "a.png"])


def test_damaged_panoptic_files_are_named(tmp_path: Path) -> None:
    _, found = panoptic_files(tmp_path)
    file, png = tmp_path / "panoptic.json", tmp_path / "panoptic/0.png"
    content = json.loads(file.read_text())
    pixels = np.asarray(Image.open(png)).copy()

    def refused(words: str, change: object = None) -> None:
        changed = copy.deepcopy(content)
        if callable(change):
            change(changed)
        file.write_text(json.dumps(changed))
        with pytest.raises(ValueError, match=words):
            coco_panoptic.open_panoptic(file, tmp_path / "panoptic").segments(0)

    first = lambda c: c["annotations"][0]["segments_info"][0]  # noqa: E731
    refused("is of no category", lambda c: first(c).update(category_id=77))
    refused("has no pixel of segment 70", lambda c: first(c).update(id=70))
    refused("numbered 0", lambda c: first(c).update(id=0))
    refused("which is none of its", lambda c: c["annotations"][0]["segments_info"].pop())
    refused("lacks file_name", lambda c: c["annotations"][0].pop("file_name"))
    refused("must be a list", lambda c: c.update(categories={}))
    refused("leads out", lambda c: c["annotations"][0].update(file_name="../../a.png"))
    pixels[5, 9] = (9, 1, 0)
    Image.fromarray(pixels).save(png)
    refused(r"0.png: pixel x 9, y 5 has the number 265")
    Image.fromarray(pixels[..., 0]).save(png)
    refused("cannot be read as numbers of segments: .* mode L")


# --- COCOTree ------------------------------------------------------------------------------------


def test_cocotree_is_written_and_read(tmp_path: Path) -> None:
    trees = [coco_tree.tree_of(boxes(seed, shaken=True)) for seed in range(2)]
    coco_tree.write(tmp_path / "trees.jsonl", trees, [5, 12])
    again = coco_tree.read(tmp_path / "trees.jsonl")
    assert [tree.image for tree in again] == ["000000000005", "000000000012"]
    assert [shape_of(tree) for tree in again] == [shape_of(tree) for tree in trees]
    item = coco_tree.item_of(trees[0], 5)
    semantic = {node["semantic_id"] for node in item["nodes"]}
    assert len(semantic) < len(item["nodes"])  # the wheels of all cars are one semantic node
    (tmp_path / "7").mkdir()
    (tmp_path / "7/prediction.json").write_text(json.dumps(item | {"image_id": "0007"}))
    (tmp_path / "0008.json").write_text(json.dumps(item | {"image_id": 8}))
    found = coco_tree.read_folder(tmp_path)
    assert [tree.image[-2:] for tree in found] == ["07", "08"]
    (tmp_path / "7/tree.json").write_text(json.dumps(item | {"image_id": 7}))
    with pytest.raises(ValueError, match="000000000007 is there twice"):
        coco_tree.read_folder(tmp_path)
    empty = {"schema": coco_tree.SCHEMA, "image_id": 3, "nodes": []}
    assert len(coco_tree.tree_of(empty, size=(4, 5)).units) == 1
    with pytest.raises(ValueError, match="give size"):
        coco_tree.tree_of(empty)


def test_parents_by_overlap() -> None:
    item = boxes(0)
    lost = copy.deepcopy(item)
    for node in lost["nodes"]:
        node["parent_instance_id"] = "ROOT"
    assert shape_of(coco_tree.tree_of(lost, "overlap")) == shape_of(coco_tree.tree_of(item))
    assert len(coco_tree.tree_of(lost).parts(0)) == len(item["nodes"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.update(schema="v2"), "its schema is 'v2'"),
        (lambda c: c.update(image_id="a7"), "image_id must be a whole number"),
        (lambda c: c["nodes"][3].pop("label"), "'n3' lacks label"),
        (lambda c: c["nodes"][1].update(instance_id="n0"), "two nodes have one instance_id"),
        (lambda c: c["nodes"][1].update(parent_instance_id="n99"), "its parent 'n99' is not there"),
        (lambda c: c["nodes"][0].update(parent_instance_id="n1"), "part of itself: a cycle"),
        (lambda c: c["nodes"][0].update(parent_semantic_id="s_n1"), "'s_n[01]' is part of itself"),
        (lambda c: c["nodes"][1].update(parent_semantic_id="s_x"), "'s_x' is not there"),
        (lambda c: c["nodes"][1].update(semantic_id="s_n5"), "'s_n5' differ in label"),
        (lambda c: c["nodes"][2]["segmentation"].update(size=[30, 41]), "'n2': a mask is of 30 x"),
        (lambda c: c["nodes"][2]["segmentation"].update(counts=[3]), "'n2': the runs"),
        (lambda c: c["nodes"][2].update(segmentation=[[1, 2]]), "segmentation must be an object"),
        (lambda c: c.pop("nodes"), "lacks nodes"),
    ],
)
def test_what_is_no_cocotree_is_named(tmp_path: Path, change: object, words: str) -> None:
    item = boxes(0)
    change(item)  # type: ignore[operator]
    (tmp_path / "a.json").write_text(json.dumps(item))
    with pytest.raises(ValueError, match=rf"a.json: .*{words}"):
        coco_tree.read(tmp_path / "a.json")


# --- X-AnyLabeling -------------------------------------------------------------------------------


def test_links_are_written_and_read(tmp_path: Path) -> None:
    tree = coco_tree.tree_of(boxes(1, shaken=True))
    ring = np.zeros(tree.size, dtype=bool)
    ring[2:9, 2:9], ring[4:6, 4:6], ring[20:25, 30:39] = True, False, True
    odd = Unit(90, "ring", 1, runs.code_of(ring), 0.25, "open")
    tree = replace(tree, units=(*tree.units, odd), image="1.jpg")
    relations.write(tmp_path / "1.json", tree)
    again = relations.read(tmp_path / "1.json")
    assert shape_of(again) == shape_of(tree) and again.image == "1.jpg"
    assert next(unit for unit in again.units if unit.name == "ring").score == 0.25


def linked() -> dict:
    """A car with a round wheel, a rotated mirror and a loose box, as the tool saves them."""
    common = {"score": None, "description": "", "difficult": False, "flags": {}, "attributes": {}}
    shapes = [
        {"label": "car", "points": [[1, 1], [19, 1], [19, 9], [1, 9]], "shape_type": "polygon",
         "group_id": 1, "kie_linking": [[1, 2], [1, 3]]},
        {"label": "wheel", "points": [[5, 7], [7, 7]], "shape_type": "circle", "group_id": 2,
         "kie_linking": []},
        {"label": "mirror", "points": [[12, 2], [14, 4], [12, 6], [10, 4]],
         "shape_type": "rotation", "group_id": 3, "kie_linking": [[1, 3]]},
        {"label": "sign", "points": [[22, 1], [20, 6]], "shape_type": "rectangle",
         "group_id": None, "kie_linking": []},
    ]  # fmt: skip
    return {
        "version": "4.0.0", "flags": {}, "shapes": [shape | common for shape in shapes],
        "imagePath": "a.jpg", "imageData": None, "imageHeight": 12, "imageWidth": 24,
    }  # fmt: skip


def test_links_of_the_tool_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(linked()))
    tree = relations.read(tmp_path / "a.json")
    above = {
        unit.name: tree.by_id[unit.parent].name for unit in tree.units if unit.parent is not None
    }
    assert above == {"car": "scene", "wheel": "car", "mirror": "car", "sign": "scene"}
    areas = {unit.name: runs.area(unit.mask) for unit in tree.units}
    assert areas["car"] == 18 * 8 and areas["sign"] == 2 * 5 and 9 <= areas["wheel"] <= 16


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c["shapes"][1].update(kie_linking=[[2, 1]]), "part of itself: a cycle"),
        (lambda c: c["shapes"][1].update(kie_linking=[[2, 3]]), "group 3 is part of two wholes"),
        (lambda c: c["shapes"][1].update(kie_linking=[[1, 9]]), "is of group 9, which is not"),
        (lambda c: c["shapes"][1].update(kie_linking=[["1", 2]]), "a link is .whole, part."),
        (lambda c: c["shapes"][3].update(group_id=1), "group 1 has the labels"),
        (lambda c: c["shapes"][3].update(shape_type="line"), "a shape is a line, which has no"),
        (lambda c: c["shapes"][3].update(points=[[1, 2, 3]]), "a rectangle has 1 points"),
        (lambda c: c["shapes"][3].update(points=[[1, 2], [1e9, 4]]), "its polygons hold|outline"),
        (lambda c: c.update(imageHeight=10**9), "the picture is"),
        (lambda c: c.pop("imageWidth"), "lacks shapes, imageHeight or imageWidth"),
        (lambda c: c.update(shapes={}), "shapes must be a list"),
    ],
)
def test_links_that_are_no_tree_are_named(tmp_path: Path, change: object, words: str) -> None:
    content = linked()
    change(content)  # type: ignore[operator]
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf"a.json: .*{words}"):
        relations.read(tmp_path / "a.json")
