"""Checks of large public sets in their original layouts, by the readers that training uses."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from ..io.problems import Problems
from .coco import SceneSet, find_split, open_coco
from .decode import class_folders
from .segmentation import open_segmentation

COUNTS = {
    "imagenet": {"train": 1_281_167, "val": 50_000},
    "ade20k": {"train": 20_210, "val": 2_000},
    "voc2012": {"train": 1_464, "val": 1_449},
    "coco2017": {"train": 118_287, "val": 5_000},
}
"""Pictures of each split."""
IMAGENET_CLASSES = 1000


def _scenes(f: Problems, name: str, split: str, open_it: Callable[[], Any]) -> None:
    """Open a split and decode (some of) its scenes; what is wrong is a problem of the split."""
    where = f.folder / split
    try:
        found = open_it()
    except (ValueError, FileNotFoundError) as error:
        f.problem(where, str(error))
        return
    f.expect(where, "number of pictures", len(found), COUNTS[name][split])
    for index in f.sample(list(range(len(found)))):
        try:
            found.scene(index)
        except (ValueError, FileNotFoundError) as error:
            f.problem(where, str(error))


def check_ade20k(f: Problems) -> None:
    """Every picture has a label map of its size, with labels 0-150."""
    for split in COUNTS["ade20k"]:
        _scenes(f, "ade20k", split, partial(open_segmentation, f.folder, "ade20k", split))


def check_voc2012(f: Problems) -> None:
    """Every listed picture has a label map of its size, with labels 0-20 and 255."""
    for split in COUNTS["voc2012"]:
        _scenes(f, "voc2012", split, partial(open_segmentation, f.folder, "voc2012", split))


def _coco(f: Problems, split: str) -> SceneSet:
    return open_coco(*find_split(f.folder, split))


def check_coco2017(f: Problems) -> None:
    """Annotations refer to pictures that are there, and every mask can be read."""
    for split in COUNTS["coco2017"]:
        _scenes(f, "coco2017", split, partial(_coco, f, split))


def check_imagenet(f: Problems) -> None:
    """A thousand class folders in each split, and every picture opens."""
    for split, count in COUNTS["imagenet"].items():
        folder = f.folder / split
        try:
            found = class_folders(folder)
        except (ValueError, FileNotFoundError) as error:
            f.problem(folder, str(error))
            continue
        f.expect(folder, "number of classes", len(found), IMAGENET_CLASSES)
        files = [file for some in found.values() for file in some]
        f.expect(folder, "number of pictures", len(files), count)
        for file in f.sample(files):
            f.image(file)
