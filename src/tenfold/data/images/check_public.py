"""Checks of large public sets in their original layouts, by the readers that training uses."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from ..io.problems import Problems, some
from . import own, tags
from .check_labels import check_labels, check_tags
from .coco import SceneSet, open_coco
from .coco_labels import find_year
from .decode import damage
from .folders import class_folders, split_folders
from .segmentation import Segmented, open_segmentation
from .streets import open_streets

COUNTS = {
    "imagenet": {"train": 1_281_167, "val": 50_000},
    "ade20k": {"train": 20_210, "val": 2_000},
    "voc2012": {"train": 1_464, "val": 1_449},
    "coco2014": {"train": 82_783, "val": 40_504},
    "coco2017": {"train": 118_287, "val": 5_000},
    "cityscapes": {"train": 2_975, "val": 500, "test": 1_525},
    "gta5": {"train": 24_966},
    "synthia": {"train": 9_400},
}
"""Pictures of each split."""
IMAGENET_CLASSES = 1000


def _scenes(f: Problems, name: str, open_split: Callable[[str], Any]) -> None:
    """Open all splits and decode (some of) their scenes; what is wrong is a problem of the split.

    A split that is not there is a note if another one is.
    """
    absent: dict[str, str] = {}
    for split, count in COUNTS[name].items():
        where = f.folder / split
        try:
            found = open_split(split)
        except FileNotFoundError as error:
            absent[split] = str(error)
            continue
        except ValueError as error:
            f.problem(where, str(error))
            continue
        f.published(where, "pictures", len(found), count)
        _decoded(f, found, where)
    for split, text in absent.items():
        if len(absent) == len(COUNTS[name]):
            f.problem(f.folder / split, text)
        else:
            f.note(f"{split}: {text}")


def _decoded(f: Problems, found: SceneSet | Segmented, where: Path) -> None:
    """Decode (some of) the scenes of a set."""
    for index in f.sample(list(range(len(found)))):
        f.seen()
        try:
            found.scene(index)
        except (ValueError, FileNotFoundError) as error:
            f.problem(where, str(error))


def check_ade20k(f: Problems) -> None:
    """Every picture has a label map of its size, with labels 0-150."""
    _scenes(f, "ade20k", partial(open_segmentation, f.folder, "ade20k"))


def check_voc2012(f: Problems) -> None:
    """Every listed picture has a label map of its size, with labels 0-20 and 255."""
    _scenes(f, "voc2012", partial(open_segmentation, f.folder, "voc2012"))
    check_labels(f, "voc2012")


def check_cityscapes(f: Problems) -> None:
    """Every picture of a city has a map of labelIds 0-33."""
    _scenes(f, "cityscapes", partial(open_streets, f.folder, "cityscapes"))


def check_gta5(f: Problems) -> None:
    """Every picture has a map of its size, whose indices are labelIds 0-34."""
    _scenes(f, "gta5", partial(open_streets, f.folder, "gta5"))


def check_synthia(f: Problems) -> None:
    """Every picture has a map of three channels, the first of which holds classes 0-22."""
    _scenes(f, "synthia", partial(open_streets, f.folder, "synthia"))


def check_coco2014(f: Problems) -> None:
    """Annotations refer to pictures that are there, and every mask can be read."""
    _scenes(f, "coco2014", lambda split: open_coco(*find_year(f.folder, split, "2014")))
    check_labels(f, "coco2014")


def check_coco2017(f: Problems) -> None:
    """Annotations refer to pictures that are there, and every mask can be read."""
    _scenes(f, "coco2017", lambda split: open_coco(*find_year(f.folder, split, "2017")))
    check_labels(f, "coco2017")


def check_imagenet(f: Problems) -> None:
    """A thousand class folders in each split, and every picture opens."""
    for split, count in COUNTS["imagenet"].items():
        folder = f.folder / split
        try:
            found = class_folders(folder)
        except (ValueError, FileNotFoundError) as error:
            f.problem(folder, str(error))
            continue
        f.published(folder, "classes", len(found), IMAGENET_CLASSES)
        files = [file for some in found.values() for file in some]
        f.published(folder, "pictures", len(files), count)
        for file in f.sample(files):
            f.image(file)


SHARE = 0.2
"""Of a set that is not divided, for the test: as training has it unless told otherwise."""


def check_folder(f: Problems) -> None:
    """A set of the user's own: what it is, and whether all of it can be read."""
    try:
        kinds = own.kinds_of(f.folder)
    except ValueError as error:
        f.problem(f.folder, str(error))
        return
    has_labels = tags.has_labels(f.folder)
    if has_labels:  # whose masks need not be of all pictures, and are read with them
        kinds = [kind for kind in kinds if kind != "maps"]
    openers: dict[str, Callable[..., SceneSet | Segmented]]
    openers = {"objects": own.open_objects, "maps": own.open_maps}
    for kind in kinds:
        sets: dict[str, SceneSet | Segmented] = {}
        for split in ("train", "test"):
            try:
                sets[split] = openers[kind](f.folder, split, SHARE, 0)
            except (ValueError, FileNotFoundError) as error:
                f.problem(f.folder, str(error))
                return
        f.note(own.described(f.folder, sets))
        _compared(f, sets["train"], sets["test"])
        for found in sets.values():
            _decoded(f, found, f.folder)
    if has_labels:
        check_tags(f, is_alone=not kinds)
    elif not kinds:
        _classes(f)


def _compared(f: Problems, train: SceneSet | Segmented, test: SceneSet | Segmented) -> None:
    """What was left out, and classes: of objects, each split has its own list."""
    if not isinstance(train, SceneSet) or not isinstance(test, SceneSet):
        return
    for note in dict.fromkeys((*train.notes, *test.notes)):
        f.note(note)
    try:
        test.aligned(train.classes)
    except ValueError as error:
        f.problem(test.file, str(error))
    if set(test.classes) == set(train.classes) and test.classes != train.classes:
        f.note(f"{f.name(test.file)} lists the classes in another order than training; names count")
    used = {*train.used, *test.used}
    if idle := [name for name in train.classes if name not in used]:
        f.note(f"classes of which there is no object: {some(idle)}")


def _classes(f: Problems) -> None:
    """Class folders, in splits or not."""
    for place in split_folders(f.folder).values() or [f.folder]:
        try:
            found = class_folders(place)
        except (ValueError, FileNotFoundError) as error:
            f.problem(place, str(error))
            continue
        files = [file for some in found.values() for file in some]
        f.note(f"{place}: class folders; {len(files)} pictures; {len(found)} classes")
        for file in f.sample(files):
            f.seen()
            if text := damage(file):
                f.problem(file, text)
