"""ADE20K: both forms of its JSON, trees, ViRReq's maps."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tenfold.data.images import ade20k, runs
from tenfold.data.images.ade20k_names import PARTS, SCENE, STUFF, THINGS

SIZE = (20, 30)
OBJECTS = [  # number, typed name, synonyms, part of, box
    (4, "sky", "sky", None, (0, 0, 30, 8)),
    (0, "car", "car, auto, automobile", None, (2, 8, 16, 18)),
    (7, "cars", "car, auto, automobile", None, (18, 8, 30, 12)),
    (9, "zeppelin", "airship, dirigible", None, (18, 13, 30, 19)),
    (2, "door", "door", 0, (4, 9, 9, 16)),
    (3, "window", "window", 2, (5, 10, 8, 13)),
    (5, "rim", "rim", 2, (4, 14, 6, 16)),
    (6, "window", "window", 9, (20, 14, 22, 16)),
]


def box(corners: tuple[int, int, int, int]) -> np.ndarray:
    found = np.zeros(SIZE, dtype=bool)
    x0, y0, x1, y1 = corners
    found[y0:y1, x0:x1] = True
    return found


def level(part_of: int | None) -> int:
    above = {number: whole for number, _, _, whole, _ in OBJECTS}
    return 0 if part_of is None else 1 + level(above[part_of])


def small() -> dict:
    return {
        "image": "a.webp", "height": 20, "width": 30, "objects": [
            {"id": n, "name": raw, "wordnet": words, "part_level": level(whole), "part_of": whole,
             "visible": runs.code_of(box(corners))["counts"]}
            for n, raw, words, whole, corners in OBJECTS
        ],
    }  # fmt: skip


def published(folder: Path) -> dict:
    """The form of 2021_17_01, with a mask of each object: 128 where it is hidden."""
    objects = []
    for rank, (n, raw, words, whole, corners) in enumerate(OBJECTS, 1):
        mask = np.where(box(corners), 255, 0).astype(np.uint8)
        mask[-1] = 128
        (folder / "a").mkdir(exist_ok=True)
        Image.fromarray(mask).save(folder / f"a/instance_{n:03d}_a.png")
        parts = {"hasparts": [], "ispartof": [] if whole is None else whole,
                 "part_level": level(whole)}  # fmt: skip
        objects.append(
            {"id": n, "name": words, "raw_name": raw, "depth_ordering_rank": rank, "crop": "0",
             "parts": parts, "instance_mask": f"a/instance_{n:03d}_a.png"}
        )  # fmt: skip
    annotation = {"filename": "a.jpg", "imsize": [20, 30, 3], "object": objects}
    return {"annotation": annotation}


def test_both_forms_are_read_alike(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(published(tmp_path)))
    (tmp_path / "b.json").write_text(json.dumps(small()))
    first, second = (ade20k.read(file) for file in ade20k.find(tmp_path))
    assert first.objects == second.objects and first.size == second.size == SIZE
    assert (first.file.name, second.file.name) == ("a.jpg", "a.webp")
    assert [one.name for one in first.chain(3)] == ["window", "door", "car"]


def test_trees_name_what_was_annotated(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(small()))
    tree = ade20k.tree_of(ade20k.read(tmp_path / "a.json"))
    cars = [unit for unit in tree.units if unit.name == "car"]
    assert [(unit.state, unit.crowd) for unit in cars] == [("done", False), ("not-annotated", True)]
    door = next(unit for unit in tree.units if unit.name == "door")
    assert door.parent == cars[0].id and door.state == "done" and len(tree.parts(door.id)) == 2
    assert tree.void is not None and not runs.mask_of(tree.void)[0, 0]


def test_maps_for_training(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(small()))
    made = ade20k.prepare(ade20k.read(tmp_path / "a.json"))
    car, sky = SCENE.index("car") + 1, SCENE.index("sky") + 1
    door, window = PARTS.index("door") + 1, PARTS.index("window") + 1
    assert set(np.unique(made.classes)) == {0, car, sky}
    assert made.classes[15, 20] == 0  # of the zeppelin, which is none of the 150
    assert made.parts[11, 6] == window and made.parts[15, 8] == door
    assert made.parts[15, 21] == 0  # a part of something that is none of the 150
    assert made.parts[15, 5] == door  # a rim is none of the 83 words
    assert made.labelled == {1: {door, window}}
    assert (made.instances == np.where(box((2, 8, 16, 18)), 1, 0)).all()
    assert len(SCENE) == 150 and len(PARTS) == 83 and len(THINGS) == 100 and len(STUFF) == 50
    assert len(set(SCENE) | set(PARTS)) == 222


def test_how_often_each_path_occurs(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(small()))
    picture = ade20k.read(tmp_path / "a.json")
    paths = ade20k.hierarchy([picture, picture])
    assert paths["car",] == 4 and paths["car", "door", "rim"] == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c["objects"][4].update(part_of=77), r"object 2 \(door\) is part of 77, not"),
        (lambda c: c["objects"][5].update(part_level=1), "object 3 .* is of part level 1"),
        (lambda c: c["objects"][1].update(part_of=3, part_level=3), "object 2 .* is of part level"),
        (lambda c: c["objects"][1].update(id=4), "two objects have one number"),
        (lambda c: c["objects"][1].update(visible="1"), "object 0: the runs of a mask do not"),
        (lambda c: c["objects"][1].update(wordnet="", name=" "), "object 0 has no name"),
        (lambda c: c["objects"][1].pop("part_of"), "lacks 'part_of'"),
        (lambda c: c.update(height=10**9), "the picture is of"),
        (lambda c: c.update(objects={}), "objects must be a list"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, change: object, words: str) -> None:
    content = small()
    change(content)  # type: ignore[operator]
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf"a.json: .*{words}"):
        ade20k.read(tmp_path / "a.json")


def test_masks_of_another_size_or_elsewhere_are_refused(tmp_path: Path) -> None:
    content = published(tmp_path)
    item = content["annotation"]["object"][0]
    mask = tmp_path / item["instance_mask"]
    Image.fromarray(np.zeros((20, 31), np.uint8)).save(mask)
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf"{mask.name} cannot be read: it has 20 x 31"):
        ade20k.read(tmp_path / "a.json")
    item["instance_mask"] = "../b.png"
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="leads out"):
        ade20k.read(tmp_path / "a.json")


def test_pictures_elsewhere_are_refused_and_links_followed_if_asked(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    file = tmp_path / "set" / "a.json"
    for name in ("../secret.png", str(tmp_path / "secret.png")):
        file.write_text(json.dumps({**small(), "image": name}))
        with pytest.raises(ValueError, match=r"a.json: .*secret.png leads out of .* by its name"):
            ade20k.read(file, follow_links=True)
    content = published(tmp_path / "set")
    content["annotation"]["filename"] = "../secret.png"
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"secret.png leads out"):
        ade20k.read(file)
    content["annotation"]["filename"] = "a.jpg"
    mask = tmp_path / "set" / content["annotation"]["object"][0]["instance_mask"]
    mask.rename(tmp_path / "mask.png")
    mask.symlink_to(tmp_path / "mask.png")
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="set data.follow_links"):
        ade20k.read(file)
    assert len(ade20k.read(file, follow_links=True).objects) == len(OBJECTS)


def test_the_published_sample() -> None:
    folder = Path(os.environ.get("TENFOLD_DATA", "no-data")) / "ade20k_sample"
    if not folder.is_dir():
        pytest.skip("ade20k_sample is not here")
    pictures = [ade20k.read(file) for file in ade20k.find(folder)]
    assert [len(one.objects) for one in pictures] == [70, 37, 32]
    levels = [[one.level for one in picture.objects].count(2) for picture in pictures]
    assert levels == [5, 0, 0]
    words = {PARTS[word - 1] for words in ade20k.prepare(pictures[1]).labelled.values()
             for word in words}  # fmt: skip
    assert words == {"headlight", "license plate", "windshield"}
