"""Sets of a user's own for detection and segmentation, whatever tool exported them.

What a folder holds is found by looking: JSON of COCO's form, YOLO's text files, or label maps.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from . import coco_files, maps, yolo
from .class_maps import ClassMap
from .coco import SceneSet, open_coco
from .coco_files import WHOLE
from .decode import USUAL, Reading
from .folders import held_out
from .segmentation import Segmented

S = TypeVar("S", SceneSet, Segmented)


def open_objects(
    folder: Path, split: str, test_share: float, seed: int, reading: Reading = USUAL
) -> SceneSet:
    """Pictures with boxes, and with masks where there are some.

    split: "train", or "test", which is the set's validation split if it has one. A set that is not
    divided is, by the names of its pictures and the seed: `test_share` of them are for the test.
    """
    files = coco_files.find(folder, reading.follow_links)
    if files:
        name = _part(folder, split, files)
        return _divided(open_coco(*files[name], reading), files, split, test_share, (folder, seed))
    found = yolo.find_yolo(folder, reading.follow_links)
    if found is None:
        raise FileNotFoundError(
            f"{folder} holds no objects: neither JSON of COCO's form, nor text files of YOLO's "
            f"beside pictures or in labels/.{_instead(folder, reading)}"
        )
    pictures = found.parts[_part(folder, split, found.parts)]
    return _divided(
        yolo.open_yolo(found, pictures, reading), found.parts, split, test_share, (folder, seed)
    )


def open_maps(
    folder: Path,
    split: str,
    test_share: float,
    seed: int,
    reading: Reading = USUAL,
    class_map: ClassMap | None = None,
) -> Segmented:
    """Pictures with label maps; `split` and what is not divided as in `open_objects`.

    class_map: the meaning of the labels, where the folder itself does not say it, or another.
    """
    parts = maps.open_maps(folder, reading, class_map)
    return _divided(parts[_part(folder, split, parts)], parts, split, test_share, (folder, seed))


def described(folder: Path, sets: Mapping[str, SceneSet | Segmented]) -> str:
    """One line: what was found, and how much of it in each split."""
    one = next(iter(sets.values()))
    if isinstance(one, Segmented):
        kind = "label maps"
    elif one.file.suffix.lower() == ".json":
        kind = f"JSON of COCO's form ({one.file.name})"
    else:
        kind = "YOLO's text files"
    parts = []
    for split, found in sets.items():
        objects = ""
        if isinstance(found, SceneSet):
            what = "objects with masks" if found.has_masks else "objects, boxes only"
            objects = f", {found.num_objects} {what}"
        parts.append(f"{split} {len(found)} pictures{objects}")
    classes = one.classes
    shown = ", ".join(classes[:5]) + (", ..." if len(classes) > 5 else "")
    return f"{folder}: {kind}; {'; '.join(parts)}; {len(classes)} classes ({shown})"


def _part(folder: Path, split: str, parts: Mapping[str, object]) -> str:
    """The name of the part that serves as a split."""
    wanted = ["train"] if split == "train" else ["val", "test", "train"]
    for name in (*wanted, WHOLE):
        if name in parts:
            return name
    raise FileNotFoundError(
        f"{folder} has annotations for {', '.join(parts)}, but none to train on. Name one part "
        "train, or give a set that is not divided."
    )


def _divided(
    found: S, parts: Mapping[str, object], split: str, test_share: float, key: tuple[Path, int]
) -> S:
    """The set, or the split's share of it where there is but one part."""
    if "val" in parts or "test" in parts:
        return found
    folder, seed = key
    names = [os.path.relpath(file[0], folder) for file in found.files]
    if len(names) == 1:
        warnings.warn(
            f"{names[0]} is the only picture: it is for training and test alike", stacklevel=3
        )
        return found
    held = held_out(names, f"{seed}/own", test_share)
    return found.at([row for row, name in enumerate(names) if (name in held) == (split != "train")])


def _instead(folder: Path, reading: Reading) -> str:
    """What a folder without objects holds."""
    if maps.find_maps(folder, reading.follow_links):
        return " It has label maps, which the task segment takes."
    return ""


def kinds_of(folder: Path, reading: Reading = USUAL) -> Sequence[str]:
    """The kinds of annotations that a folder holds: "objects", "maps"."""
    has_objects = coco_files.find(folder, reading.follow_links) or yolo.find_yolo(
        folder, reading.follow_links
    )
    has_maps = maps.find_maps(folder, reading.follow_links)
    return ["objects"] * bool(has_objects) + ["maps"] * bool(has_maps)
