"""Pictures of a user: trees, levels, tables, panoptic files and pages; and a run's figures."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tenfold.data.images import coco_panoptic, panoptic_parts, runs
from tenfold.generated import dolls
from tenfold.runner.weights import construct
from tenfold.structures import Tree
from tenfold.systems.virreq import knowledge, trees
from tenfold.systems.virreq.config import PredictOptions
from tenfold.systems.virreq.levels import OTHERS, level_map, names_of
from tenfold.systems.virreq.recipes import DEMO
from tenfold.systems.virreq.recogniser import OpenedPicture
from tenfold.systems.virreq.requests import Object
from tenfold.systems.virreq.system import Virreq


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Virreq:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TENFOLD_DATA", str(tmp_path_factory.mktemp("none")))
        small = replace(DEMO, data=replace(DEMO.data, generated=(4, 3)))
        made = construct(Virreq, Virreq.complete(small))
    made.model.divide.classifier.logit_scale.data.fill_(3.0)
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in" / "more").mkdir(parents=True)
    for row, name in enumerate(("a.png", "more/a.png")):
        Image.fromarray(dolls.pair("test", row)[0]).save(tmp_path / "in" / name)
    return tmp_path


def test_a_folder_becomes_trees(system: Virreq, folder: Path) -> None:
    (folder / "in" / "broken.png").write_bytes(b"no picture")
    files = system.predict(folder / "in", folder / "out", PredictOptions(depth=2))
    names = {file.relative_to(folder / "out").as_posix() for file in files}
    assert {"a.png-tree.json", "more/a.png-tree.json", "a.png-level1.png", "predictions.csv",
            "knowledge.json", "panoptic.json", "predictions.html"} <= names  # fmt: skip
    kb = knowledge.read(folder / "out" / "knowledge.json")
    tree = trees.read(folder / "out" / "a.png-tree.json")
    trees.check(tree, kb)
    assert tree.size == (64, 64) and tree.root.state == "done" and kb.sha in tree.kb
    with (folder / "out" / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert sum(row["file"] == "a.png" for row in rows) == len(tree.units)
    assert "broken.png" in next(row["problem"] for row in rows if row["problem"])
    panoptic = json.loads((folder / "out" / "panoptic.json").read_text())
    assert [image["file_name"] for image in panoptic["images"]] == ["a.png", "more/a.png"]
    assert {"panoptic/a.png", "panoptic/more__a.png"} <= names
    assert [c["name"] for c in panoptic["categories"]] == ["doll", "cart"]
    spec = panoptic_parts.read_spec(folder / "out" / "parts.yaml")
    uids = panoptic_parts.read(folder / "out" / "a.png-parts.tif")
    assert list(spec.classes) == ["doll", "cart"] and spec.classes["cart"] == dolls.NAMES[5:]
    told = panoptic_parts.tree_of(uids, spec).parts(0)
    assert {unit.name for unit in told} == {unit.name for unit in tree.parts(0)}
    page = (folder / "out" / "predictions.html").read_text()
    assert "not annotated" in page and "learned with the network" in page


def test_requests_of_a_file(system: Virreq, folder: Path) -> None:
    asked = folder / "requests.json"
    asked.write_text(json.dumps([{"unit": "scene", "names": ["cart"]}]))
    options = PredictOptions(request=str(asked), panoptic=False)
    files = system.predict(folder / "in" / "a.png", folder / "out", options)
    tree = trees.read(next(file for file in files if file.name == "a-tree.json"))
    assert {unit.name for unit in tree.units} <= {"scene", "cart"}
    assert tree.root.state == "open" and not (folder / "out" / "panoptic.json").exists()
    asked.write_text(json.dumps([{"unit": 0, "names": ["dog"]}]))
    with pytest.raises(ValueError, match=r"a\.png: request 0: 'scene' has no part 'dog'"):
        system.predict(folder / "in" / "a.png", folder / "out2", options)
    with pytest.raises(ValueError, match=r"--depth must be in \[1, 64\], got 0"):
        PredictOptions(depth=0)


def test_an_object_at_a_pixel(
    system: Virreq, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture, asked = folder / "in" / "a.png", folder / "requests.json"

    def answered(requests: list[dict[str, object]]) -> Tree:
        asked.write_text(json.dumps(requests))
        options = PredictOptions(request=str(asked))
        files = system.predict(picture, folder / "out", options)
        return trees.read(next(file for file in files if file.name == "a-tree.json"))

    regions = answered([{"unit": 0}]).parts(0)
    region = max(regions, key=lambda unit: runs.area(unit.mask))
    pixels = np.argwhere(runs.mask_of(region.mask))
    half = np.zeros((64, 64), dtype=bool)
    half[tuple(pixels[: len(pixels) // 2].T)] = True
    monkeypatch.setattr(OpenedPicture, "probe", lambda *_: Object(half, 0.9))
    y, x = (int(i) for i in pixels[0])
    probe = {"unit": region.id, "kind": "instance", "probe": [x, y]}
    one = answered([{"unit": 0}, probe]).parts(region.id)[0]
    assert (one.name, one.source) == (region.name, "type2")
    spec = panoptic_parts.read_spec(folder / "out" / "parts.yaml")
    parts = panoptic_parts.tree_of(panoptic_parts.read(folder / "out" / "a-parts.tif"), spec)
    place = folder / "out" / "panoptic"
    panoptic = coco_panoptic.open_panoptic(folder / "out" / "panoptic.json", place).tree(0)
    assert 0 < runs.area(one.mask) < runs.area(region.mask)
    for told in (parts, panoptic):  # the object, and what is left of its region
        same = [unit for unit in told.parts(0) if unit.name == region.name]
        assert sorted(unit.crowd for unit in same) == [False, True]
        assert next(unit.mask for unit in same if not unit.crowd) == one.mask


def test_levels_of_a_tree(system: Virreq) -> None:
    from tenfold.systems.virreq import data
    from tenfold.systems.virreq.knowledge_sets import tree_of_labels

    kb = data.knowledge_of(system.cfg)
    labels = dolls.pair("test", 0)[1].astype(np.int64)
    tree = tree_of_labels(labels, kb)
    assert names_of(kb, 1) == ["doll", "cart"] and names_of(kb, 2) == list(dolls.NAMES)
    parts = level_map(tree, names_of(kb, 2), 2)
    assert (parts == np.where(labels == 0, OTHERS, labels - 1)).all()
    wholes = level_map(tree, names_of(kb, 1), 1)
    assert (wholes == np.where(labels == 0, OTHERS, labels > 5)).all()


def test_figures_and_numbers_of_a_run(system: Virreq, tmp_path: Path) -> None:
    found = system.evaluate()
    assert found.metrics["probe/objects/agreement"] > 0
    assert {"hpq/regions/all", "hpq/regions/level 1", "iou/scene/mIoU"} <= found.metrics.keys()
    assert all(0 <= value <= 100 for value in found.metrics.values())
    drawn = system.pictures(found, tmp_path)
    assert {file.name for file in drawn} == {"level1.png", "level2.png", "concepts.png"}
    with pytest.raises(ValueError, match="unknown split 'train'"):
        system.evaluate("train")
