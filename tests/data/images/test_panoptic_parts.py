"""Panoptic parts: numbers, TIFF, Cityscapes' layout, specs, trees."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tenfold.data.images import panoptic_parts as parts
from tenfold.structures import PartMap


def street() -> np.ndarray:
    """Sky, road, a car with two parts, one without, a crowd of cars, a number of no class."""
    uids = np.full((12, 20), 23, dtype=np.int32)
    uids[6:] = 7
    uids[2:6, 1:7], uids[4:6, 1:7], uids[2:4, 2:5] = 26_000, 2_600_005, 2_600_001
    uids[2:6, 9:13], uids[2:6, 15:19] = 26_001, 26
    uids[0, 0] = 99
    return uids


@given(st.integers(0, 99), st.integers(0, 999), st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_numbers_are_decoded_and_encoded(sid: int, iid: int, pid: int) -> None:
    numbers = [sid] if not sid else [sid, sid * 1000 + iid, (sid * 1000 + iid) * 100 + pid]
    uids = np.array(numbers, dtype=np.int32)
    ids = parts.decode(uids)
    assert ids.sids.tolist() == [sid] * len(numbers)
    assert ids.iids.tolist() == [-1, iid, iid][: len(numbers)]
    assert ids.pids.tolist() == [-1, -1, pid][: len(numbers)]
    assert (parts.encode(ids) == uids).all()


@pytest.mark.parametrize("number", [100, 999, -1, 10_000_000, 2**31 - 1])
def test_an_illegal_number_is_named(tmp_path: Path, number: int) -> None:
    uids = street()
    uids[5, 3] = number
    with pytest.raises(ValueError, match=f"the map: pixel x 3, y 5 has the number {number}"):
        parts.decode(uids)
    with pytest.raises(ValueError, match=f"a.tif: pixel x 3, y 5 has the number {number}"):
        parts.write(tmp_path / "a.tif", uids)
    Image.fromarray(uids).save(tmp_path / "b.tif")
    with pytest.raises(ValueError, match=f"b.tif: pixel x 3, y 5 has the number {number}"):
        parts.read(tmp_path / "b.tif")


def test_what_cannot_be_encoded_is_refused() -> None:
    ids = parts.decode(street())
    for name, value, words in (
        ("sids", 100, "a class has number 7 to 100"), ("iids", 1000, "an? instance has number"),
        ("pids", 100, "a part has number"), ("iids", -1, "a part but no instance"),
    ):  # fmt: skip
        wrong = getattr(ids, name).copy()
        wrong[5, 3] = value
        with pytest.raises(ValueError, match=words):
            parts.encode(replace(ids, **{name: wrong}))
    lost = ids.sids.copy()
    lost[5, 3] = 0
    with pytest.raises(ValueError, match="class 0"):
        parts.encode(PartMap(lost, ids.iids, ids.pids))


def test_a_tiff_gives_the_numbers_back(tmp_path: Path) -> None:
    uids = np.random.default_rng(0).integers(100_000, 9_999_999, (31, 17)).astype(np.int32)
    parts.write(tmp_path / "a.tif", uids)
    with Image.open(tmp_path / "a.tif") as image:
        assert image.format == "TIFF" and image.mode == "I"
    assert (parts.read(tmp_path / "a.tif") == uids).all()


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        parts.read(tmp_path / "a.tif")
    (tmp_path / "a.tif").write_bytes(b"II*\0 no")
    with pytest.raises(ValueError, match="a.tif cannot be read as panoptic parts"):
        parts.read(tmp_path / "a.tif")
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "b.tif")
    with pytest.raises(ValueError, match="b.tif cannot be read .* mode RGB"):
        parts.read(tmp_path / "b.tif")


def test_trees_of_parts(tmp_path: Path) -> None:
    uids = street()
    tree = parts.tree_of(uids, image="a.png")
    units = [(unit.name, tree.by_id[unit.parent].name, unit.state, unit.crowd)
             for unit in tree.units if unit.parent is not None]  # fmt: skip
    assert sorted(units) == [
        ("car", "scene", "done", False), ("car", "scene", "not-annotated", False),
        ("car", "scene", "not-annotated", True), ("chassis", "car", "done", False),
        ("road", "scene", "done", False), ("sky", "scene", "done", False),
        ("window", "car", "done", False),
    ]  # fmt: skip
    assert tree.void is not None
    again = parts.uids_of(tree)
    want = np.where(uids == 99, 0, uids)
    assert (again == want).all()
    only = parts.tree_of(uids, classes=["car"])
    assert {unit.name for unit in only.units} == {"scene", "car", "window", "chassis"}
    other = parts.PartSpec("ours", {"lorry": ()}, frozenset())
    with pytest.raises(ValueError, match="is no class of ours: lorry"):
        parts.uids_of(tree, other)


def test_parts_stay_within_their_whole() -> None:
    tree = parts.tree_of(street())
    car = next(unit for unit in tree.units if unit.name == "car" and unit.state == "done")
    window = next(unit for unit in tree.units if unit.name == "window")
    sky = next(unit for unit in tree.units if unit.name == "sky")
    wide = tuple(replace(u, mask=sky.mask) if u is window else u for u in tree.units)
    grown = replace(tree, units=wide)
    assert car.id == window.parent
    assert set(np.unique(parts.uids_of(grown))) == {0, 7, 23, 26, 26_000, 26_001, 2_600_005}


def test_cityscapes_layout(tmp_path: Path) -> None:
    names = [("aachen", "aachen_0_1"), ("ulm", "ulm_0_2")]
    for city, name in names:
        tif = tmp_path / f"gtFinePanopticParts/val/{city}/{name}_gtFinePanopticParts.tif"
        parts.write(tif, street())
        picture = tmp_path / f"leftImg8bit/val/{city}/{name}_leftImg8bit.png"
        picture.parent.mkdir(parents=True)
        picture.touch()
    found = parts.find(tmp_path, "val")
    assert [tif.name[:8] for _, tif in found] == ["aachen_0", "ulm_0_2_"]
    found[1][0].unlink()
    with pytest.raises(ValueError, match="ulm_0_2_gtFinePanopticParts.tif has no picture"):
        parts.find(tmp_path, "val")
    with pytest.raises(FileNotFoundError, match="gtFinePanopticParts/train is not there"):
        parts.find(tmp_path, "train")


SPEC = """
name: ours
scene_class2part_classes: {sky: [], car: [window, license plate]}
scene_classes_with_instances: [car]
"""


def test_names_from_a_spec(tmp_path: Path) -> None:
    file = tmp_path / "ours.yaml"
    file.write_text(SPEC)
    spec = parts.read_spec(file)
    assert spec.sids == {1: "sky", 2: "car"} and spec.things == {"car"}
    assert spec.classes["car"] == ("window", "license plate")
    for old, new, words in (
        ("[car]", "[lorry]", "lorry are instances, but no classes"),
        ("[window, license plate]", "[window, window]", "the parts of car are more than 99"),
        ("[window, license plate]", "wheel", "the parts of 'car' are no list"),
        ("scene_classes_with_instances", "things", "lacks scene_class2part_classes"),
        ("name: ours", "name: [", "is no YAML"),
        ("name: ours", "countable_pids_groupings: {car: {}}", "countable_pids_groupings"),
    ):
        file.write_text(SPEC.replace(old, new))
        with pytest.raises(ValueError, match=rf"ours.yaml.*{words}"):
            parts.read_spec(file)
