"""Sets of trees as training sets: Cityscapes Panoptic Parts, ADE20K with parts; and car_parts."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tenfold.data import checks
from tenfold.data.images import panoptic_parts, runs
from tenfold.structures import PartMap, Tree, Unit
from tenfold.systems.virreq import data, knowledge_sets, sets
from tenfold.systems.virreq.config import Config, Data
from tenfold.systems.virreq.model import ObjectTraining, RequestTraining
from tenfold.systems.virreq.recipes import DEMO
from tenfold.systems.virreq.system import Virreq

SIZE = (48, 64)
CASES = ["cityscapes_parts", "ade20k_parts"]


def street(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Road and sky; a car with two parts, one whose parts nobody labelled, and a crowd of cars."""
    draw = np.random.default_rng(seed)
    sids, iids, pids = np.zeros(SIZE, int), np.full(SIZE, -1), np.full(SIZE, -1)
    sids[:20], sids[20:] = 23, 7
    sids[:, :3] = 4  # static: no class of the 19
    at = 4 + int(draw.integers(6))
    for place, number in ((np.s_[15:35, at : at + 20], 0), (np.s_[15:35, 40:56], 5)):
        sids[place], iids[place] = 26, number
    sids[36:44, 30:60] = 26
    pids[15:22, at : at + 20], pids[30:35, at + 3 : at + 8] = 1, 2
    picture = draw.integers(0, 30, (*SIZE, 3)) + 8 * sids[..., None]
    ids = PartMap(*(x.astype(np.int32) for x in (sids, iids, pids)))
    return picture.astype(np.uint8), panoptic_parts.encode(ids)


def write_cityscapes(folder: Path) -> None:
    for split, count in (("train", 3), ("val", 1)):
        names = ("leftImg8bit", "png"), ("gtFinePanopticParts", "tif")
        for number in range(count):
            places = []
            for kind, ending in names:
                place = folder / kind / split / "ulm" / f"ulm_{number}_{kind}.{ending}"
                place.parent.mkdir(parents=True, exist_ok=True)
                places.append(place)
            picture, uids = street(number)
            Image.fromarray(picture).save(places[0])
            panoptic_parts.write(places[1], uids)


def write_ade20k(folder: Path) -> None:
    boxes = [
        (1, "sky", None, 0, np.s_[:20, :]), (2, "car, auto", None, 0, np.s_[20:40, 4:30]),
        (3, "car, auto", None, 0, np.s_[20:40, 34:60]), (4, "wheel", 2, 1, np.s_[34:40, 6:12]),
        (5, "door", 2, 1, np.s_[24:34, 12:24]), (6, "window", 5, 2, np.s_[25:29, 14:20]),
        (7, "zeppelin", None, 0, np.s_[41:47, 2:20]), (8, "wheel", 7, 1, np.s_[42:44, 4:9]),
    ]  # fmt: skip
    for number in range(3):
        objects = []
        for row, name, above, level, place in boxes:
            mask = np.zeros(SIZE, dtype=bool)
            mask[place] = True
            objects.append({
                "id": row, "name": name.split(",")[0], "wordnet": name, "part_level": level,
                "part_of": above, "visible": runs.code_of(mask)["counts"],
            })  # fmt: skip
        image = f"ADE_{number}.png"
        content = {"image": image, "width": SIZE[1], "height": SIZE[0], "objects": objects}
        (folder / f"ADE_{number}.json").write_text(json.dumps(content))
        Image.fromarray(street(number)[0]).save(folder / image)


WRITE: dict[str, Callable[[Path], None]] = {
    "cityscapes_parts": write_cityscapes, "ade20k_parts": write_ade20k,
}  # fmt: skip


def config(name: str, folder: Path, **changes: object) -> Config:
    few = Data(name=name, path=str(folder), batch_size=2, crop=48, scales=(1.0, 1.0))  # type: ignore[arg-type]
    model = replace(DEMO.model, dims=(8, 8, 16, 16), depths=(1, 1, 1, 1), heads=(1, 1, 2, 2))
    own = replace(DEMO.separate, batch_size=2, least=4)
    return Virreq.complete(replace(DEMO, data=few, model=model, separate=own, **changes))


@pytest.mark.parametrize("name", CASES)
def test_a_set_of_trees_trains_both_networks(tmp_path: Path, name: str) -> None:
    WRITE[name](tmp_path)
    cfg = config(name, tmp_path, loss=replace(DEMO.loss, groups="level", parts="present"))
    system = Virreq(cfg)
    divide, separate = system.stages()
    assert isinstance(divide.model, RequestTraining) and isinstance(separate.model, ObjectTraining)
    batch = divide.batches(0)
    assert batch["codes"].shape == batch["objects"].shape == (2, 48, 48)
    loss = divide.model(batch)
    loss["loss"].backward()
    assert loss["loss/level 1"] > 0 and loss["loss/level 2"] > 0
    few = separate.batches(0)["objects"]
    kb = data.knowledge_of(cfg)
    names = [kb.node(number).name for number in system.model.things]
    assert {names[label] for one in few for label in one["labels"].tolist()} == {"car"}
    separate.model(separate.batches(0))["loss"].backward()
    metrics = system.evaluate().metrics
    assert {"iou/scene/mIoU", "iou/car/mIoU", "concept/car/wheel", "hpq/regions/all",
            "probe/objects/IoU"} <= metrics.keys()  # fmt: skip


def test_labels_of_cityscapes(tmp_path: Path) -> None:
    """Objects that are told apart, a crowd that is none, and void that does not count."""
    write_cityscapes(tmp_path)
    cfg = config("cityscapes_parts", tmp_path)
    kb, codes = data.knowledge_of(cfg), data.codes_of(cfg)
    assert [node.name for node in kb.children(kb.root.id)] == [*sets.OFFICIAL_CLASSES]
    item = data.open_split(cfg, "test").items[0]
    labels = item.read()[1]
    numbers, objects = sets.numbers_in(labels), sets.objects_in(labels)
    shown = {tuple(kb.node(i).name for i in codes[n]) for n in np.unique(numbers) if n in codes}
    assert shown == {
        ("road",), ("sky",), ("car",), ("car", "window"), ("car", "wheel"),
    }  # fmt: skip
    assert (numbers[:, :3] == sets.WIDE_OUTSIDE).all(), "void"
    assert objects is not None
    cars = np.isin(numbers, [n for n, path in codes.items() if kb.node(path[0]).name == "car"])
    assert len(np.unique(objects[cars])) == 3 and (objects[36:44, 30:60] == 0).all()
    things = data.things_of(kb, codes, sets.table_size(cfg.data))
    found = data.objects_of(numbers, things, 4, objects=objects)
    assert len(found["labels"]) == 2 and found["masks"].sum((1, 2)).tolist()[1] == 20 * 16
    truth = item.truth(kb)
    assert truth.void is not None
    assert [unit.state for unit in truth.units if unit.name == "car" and not unit.crowd] == [
        "done", "not-annotated",
    ]  # fmt: skip
    assert len(data.open_split(cfg, "train")) == 2 and len(data.open_split(cfg, "validation")) == 1


def test_labels_of_ade20k(tmp_path: Path) -> None:
    """A part of a part below its whole; what is none of the 150 classes is of nothing."""
    write_ade20k(tmp_path)
    cfg = config("ade20k_parts", tmp_path)
    kb, codes = data.knowledge_of(cfg), data.codes_of(cfg)
    item = data.open_split(cfg, "train").items[0]
    numbers = sets.numbers_in(item.read()[1])
    path = tuple(kb.node(i).name for i in codes[int(numbers[26, 15])])
    assert path == ("car", "door", "window") and kb.depth == 3
    assert numbers[45, 3] == 0 and numbers[43, 5] == 0
    truth = item.truth(kb)
    assert "zeppelin" not in {unit.name for unit in truth.units}
    assert truth.void is not None and runs.mask_of(truth.void)[43, 5]
    states = [unit.state for unit in truth.units if unit.name == "car"]
    assert states == ["done", "not-annotated"]


def test_a_whole_of_unknown_parts_is_not_annotated() -> None:
    kb = knowledge_sets.of_parts(classes=("car",))
    full = runs.full(4, 4)
    tree = Tree((4, 4), (
        Unit(0, "scene", None, full, state="done"), Unit(1, "car", 0, full, state="done"),
        Unit(2, "flag", 1, full, state="done"),
    ))  # fmt: skip
    known = sets.known_to(kb, tree)
    assert [(unit.name, unit.state) for unit in known.units] == [
        ("scene", "done"), ("car", "not-annotated"),
    ]  # fmt: skip
    assert known.void is None


def test_damaged_files_are_named_before_training(tmp_path: Path) -> None:
    write_cityscapes(tmp_path)
    assert not checks.check("cityscapes_parts", tmp_path).problems
    place = tmp_path / "gtFinePanopticParts/train/ulm"
    bad = street(0)[1]
    bad[3, 9] = 512
    Image.fromarray(bad).save(place / "ulm_0_gtFinePanopticParts.tif")
    panoptic_parts.write(place / "ulm_1_gtFinePanopticParts.tif", street(0)[1][:40])
    alien = street(2)[1]
    alien[alien == 2600001] = 2600009
    panoptic_parts.write(place / "ulm_2_gtFinePanopticParts.tif", alien)
    found = checks.check("cityscapes_parts", tmp_path)
    said = {problem.file.split("/")[-1][:5]: problem.what for problem in found.problems}
    assert said.keys() == {"ulm_0", "ulm_1"}
    assert "pixel x 9, y 3 has the number 512" in said["ulm_0"]
    assert "is of 64 x 40 pixels, its picture" in said["ulm_1"]
    assert any("does not have, taken for none: 2609" in note for note in found.notes)
    with pytest.raises(ValueError, match=r"ulm_0_gtFinePanopticParts\.tif.*number 512"):
        for item in data.open_split(config("cityscapes_parts", tmp_path), "train").items:
            item.read()
    lone = place / "ulm_9_gtFinePanopticParts.tif"
    panoptic_parts.write(lone, street(0)[1])
    [problem] = checks.check("cityscapes_parts", tmp_path).problems[:1]
    assert "ulm_9" in problem.what and "has no picture" in problem.what


def test_what_does_not_fit_can_be_left_out(tmp_path: Path) -> None:
    """At once what a header tells, later the next in place of what cannot be read; both named."""
    write_cityscapes(tmp_path)
    place = tmp_path / "gtFinePanopticParts/train/ulm"
    panoptic_parts.write(place / "ulm_0_gtFinePanopticParts.tif", street(0)[1][:40])
    cfg = config("cityscapes_parts", tmp_path)
    with pytest.raises(ValueError, match=r"ulm_0.* has 64 x 40 pixels.* data\.skip_broken"):
        data.open_split(cfg, "train")
    lenient = replace(cfg, data=replace(cfg.data, skip_broken=True))
    with pytest.warns(UserWarning, match=r"1 of 2 pictures left out: .*ulm_0"):
        assert len(found := data.open_split(lenient, "train")) == 1
    Image.new("I", SIZE[::-1], 512).save(place / "ulm_2_gtFinePanopticParts.tif")
    with pytest.raises(ValueError, match=r"none of 1 pictures can be read: .*ulm_2.* number 512"):
        found.read(0)
    (tmp_path / "leftImg8bit/train/ulm/ulm_1_leftImg8bit.png").unlink()
    with pytest.raises(ValueError, match=r"ulm_1_gtFinePanopticParts\.tif has no picture"):
        data.open_split(cfg, "validation")
    with pytest.raises(ValueError, match=r"no picture fits its label map: .*ulm_1.* is not there"):
        data.open_split(lenient, "validation")


def test_the_next_picture_stands_in_for_a_broken_one(tmp_path: Path) -> None:
    write_ade20k(tmp_path)
    for number in (3, 4):
        content = (tmp_path / "ADE_0.json").read_text().replace("ADE_0.png", f"ADE_{number}.png")
        (tmp_path / f"ADE_{number}.json").write_text(content)
        Image.fromarray(street(number)[0]).save(tmp_path / f"ADE_{number}.png")
    cfg = config("ade20k_parts", tmp_path)
    lenient = replace(cfg, data=replace(cfg.data, skip_broken=True))
    (tmp_path / "ADE_3.png").write_bytes(b"no picture")
    found = data.open_split(lenient, "train")
    assert [item.name for item in found.items] == ["ADE_0", "ADE_3", "ADE_4"]
    assert found.read(1)[0].name == "ADE_4" and [*found.replaced] == ["ADE_3"]
    with pytest.warns(UserWarning, match=r"1 of the train split could not be read.*ADE_3\.png"):
        [*Virreq(lenient).stages()]
    with pytest.raises(ValueError, match=r"ADE_3\.png is not a picture"):
        data.open_split(cfg, "train").read(1)


def test_links_out_of_the_folder_are_followed_if_asked(tmp_path: Path) -> None:
    for folder in ("set", "other"):
        (tmp_path / folder).mkdir()
    write_ade20k(tmp_path / "set")
    (tmp_path / "set" / "ADE_1.json").rename(tmp_path / "other" / "ADE_1.json")
    (tmp_path / "set" / "ADE_1.json").symlink_to(tmp_path / "other" / "ADE_1.json")
    (tmp_path / "set" / "ADE_1.png").rename(tmp_path / "other" / "ADE_1.png")
    (tmp_path / "set" / "ADE_1.png").symlink_to(tmp_path / "other" / "ADE_1.png")
    with pytest.raises(ValueError, match=r"ADE_1\.json leads out of .* set data\.follow_links"):
        config("ade20k_parts", tmp_path / "set")
    asked = Data(name="ade20k_parts", path=str(tmp_path / "set"), follow_links=True)
    (item,) = sets.open_pictures(asked, "validation", sets.knowledge_in(asked)).items
    assert item.read()[0].shape == (*SIZE, 3)


def test_damaged_files_of_ade20k_are_named(tmp_path: Path) -> None:
    write_ade20k(tmp_path)
    good = checks.check("ade20k_parts", tmp_path)
    assert not good.problems and "6 of 12 objects are divided into parts" in good.notes[-1]
    content = json.loads((tmp_path / "ADE_1.json").read_text())
    content["objects"][3]["part_of"] = 99
    (tmp_path / "ADE_1.json").write_text(json.dumps(content))
    (tmp_path / "ADE_2.png").unlink()
    said = {p.file: p.what for p in checks.check("ade20k_parts", tmp_path).problems}
    assert said.keys() == {"ADE_1.json", "ADE_2.json"}
    assert "is part of 99, not there" in said["ADE_1.json"] and "ADE_2.png" in said["ADE_2.json"]


def test_doors_of_a_car_that_touch_are_two() -> None:
    """Parts whose side the words leave out keep their own numbers in the label map."""
    kb = knowledge_sets.of_car_parts(["background", "front_left_door", "back_left_door", "hood"])
    codes = sets.codes_of(Data(name="car_parts"), kb)
    things = data.things_of(kb, codes)
    labels = np.zeros((20, 40), dtype=np.uint8)
    labels[5:15, 5:15], labels[5:15, 15:25], labels[5:15, 25:30] = 1, 2, 3
    found = data.objects_of(labels, things, 4)
    names = [kb.node(things.ids[label]).name for label in found["labels"].tolist()]
    assert sorted(names) == ["car", "door", "door", "hood"]
    assert torch.equal(found["masks"][names.index("car")], torch.from_numpy(labels > 0))
