"""Class maps: names and colours of classes, and the numbers by which label maps store them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tenfold.files import misfit

from ..io.problems import some
from .segmentation import CAMVID as CAMVID_NAMES
from .segmentation import IGNORED, read_names

Colour = tuple[int, int, int]

SHAPE = {
    "names": [str], "colours": [[int]], "ids": [(int, list)], "ignored": (str, list),
}  # fmt: skip
OTHERS = "others"
UNKNOWN = -1
"""Place in a table of a number that a label map must not hold."""
NUMBERS = 256


@dataclass(frozen=True)
class ClassMap:
    """Classes in order, and how label maps store them; 255 does not count unless it is listed."""

    names: tuple[str, ...]
    colours: tuple[Colour, ...] = ()
    """One a class: of label maps in colours, and of pictures made from predictions."""
    ids: tuple[tuple[int, ...], ...] = ()
    """Stored numbers of each class; empty: each is stored as its place."""
    ignored: tuple[int, ...] = ()
    """Stored numbers that do not count, besides 255."""

    def __post_init__(self) -> None:
        count = len(self.names)
        if not 2 <= count <= IGNORED:
            raise ValueError(f"names lists {count} classes, allowed are 2 to {IGNORED}")
        if "" in self.names or len(set(self.names)) < count:
            twice = [name for name, times in Counter(self.names).items() if times > 1 or not name]
            raise ValueError(f"names must be different and not empty, got {some(twice)} twice")
        if self.colours:
            if len(self.colours) != count or len(set(self.colours)) < count:
                raise ValueError(f"colours must be {count} different ones, one for each of names")
            if any(not 0 <= min(colour) <= max(colour) < NUMBERS for colour in self.colours):
                raise ValueError("colours must be of numbers 0-255")
        if self.ids and len(self.ids) != count:
            raise ValueError(f"ids has {len(self.ids)} entries, names {count}: give one for each")
        listed = [number for numbers in self.ids for number in numbers] + list(self.ignored)
        wrong = [number for number in listed if not 0 <= number < NUMBERS]
        twice_listed = [number for number, times in Counter(listed).items() if times > 1]
        if wrong or twice_listed:
            raise ValueError(
                f"ids and ignored must be numbers 0-255, each once; {some(wrong or twice_listed)} "
                f"{'is not' if wrong else 'is listed twice'}"
            )

    @property
    def table(self) -> tuple[int, ...]:
        """Place of the class of each number from 0 to 255; 255 does not count, -1 is an error."""
        found = [UNKNOWN] * NUMBERS
        found[IGNORED] = IGNORED
        for number in self.ignored:
            found[number] = IGNORED
        for place, numbers in enumerate(self.ids or [(i,) for i in range(len(self.names))]):
            for number in numbers:
                found[number] = place
        return tuple(found)


def read_class_map(file: Path) -> ClassMap:
    """Read a class map of the user's own.

    A JSON object of `names` (a list); `colours` (of each, [red, green, blue]); `ids` (of each, the
    number or numbers by which it is stored; without, its place); `ignored` (numbers that do not
    count, or "others" for all that no class has). All but the first may be left out.

    Raises:
        ValueError: The file is no such object; the error names file and field.
    """
    content = read_names(file, "names the classes")
    return class_map_of(content, file)


def class_map_of(content: Any, file: Path) -> ClassMap:
    """The class map of a parsed JSON file."""
    problem = misfit(content, SHAPE, "")
    if not problem and not content.get("names"):
        problem = "it lacks names"
    unknown = [] if problem else sorted(set(content) - set(SHAPE))
    if unknown:
        problem = f"it has fields that are not known: {some(unknown)}"
    if problem:
        raise ValueError(f"class map {file}: {problem}; its fields are {', '.join(SHAPE)}")
    ids = [one if isinstance(one, list) else [one] for one in content.get("ids", [])]
    ignored, colours = content.get("ignored", []), content.get("colours", [])
    bad = misfit(ids, [[int]], "ids")
    if not bad and ignored == OTHERS:
        listed = {n for numbers in ids for n in numbers} or set(range(len(content["names"])))
        ignored = [number for number in range(NUMBERS) if number not in listed]
    bad = bad or misfit(ignored, [int], f'ignored (unless "{OTHERS}")')
    if not bad and any(len(colour) != 3 for colour in colours):
        bad = "colours must be [red, green, blue]"
    if bad:
        raise ValueError(f"class map {file}: {bad}")
    try:
        return ClassMap(
            tuple(content["names"]),
            tuple((red, green, blue) for red, green, blue in colours),
            tuple(tuple(numbers) for numbers in ids),
            tuple(ignored),
        )
    except ValueError as error:
        raise ValueError(f"class map {file}: {error}") from error


def is_class_map(content: Any) -> bool:
    """Return True if parsed JSON is meant as a class map: names, and more about them."""
    return isinstance(content, dict) and "names" in content and not SHAPE.keys().isdisjoint(
        content.keys() - {"names"}
    )  # fmt: skip


def agree(source: Sequence[str], target: Sequence[str], where: tuple[str, str]) -> None:
    """Refuse two sets whose classes differ in name or order: a label would change its meaning.

    Args:
        source: Classes of the one set.
        target: Classes of the other.
        where: Names of both sets, for the error.
    """
    if tuple(source) == tuple(target):
        return
    only = [sorted(set(a) - set(b)) for a, b in ((source, target), (target, source))]
    if any(only):
        found = "; ".join(
            f"only {name} has {some(names)}"
            for name, names in zip(where, only, strict=True)
            if names
        )
    else:
        place = next(
            i for i, pair in enumerate(zip(source, target, strict=True)) if len(set(pair)) > 1
        )
        found = f"class {place} is {source[place]!r} in {where[0]}, {target[place]!r} in {where[1]}"
    raise ValueError(
        f"the classes of {where[0]} and {where[1]} differ: {found}. Give one of them a class map "
        "(JSON: names, ids) whose names are those of the other, in the same order."
    )


def require_those_of_run(run: Sequence[str], found: Sequence[str], where: str) -> None:
    """Refuse data of other classes than a run has: their numbers would get the run's names."""
    if tuple(run) != tuple(found):
        raise ValueError(
            f"the run has {len(run)} classes ({', '.join(run[:4])}, ...), but {where} has "
            f"{len(found)} ({', '.join(found[:4])}, ...)"
        )


def require_known(used: Sequence[str], known: Sequence[str], where: Path) -> None:
    """Refuse objects of classes that training does not know.

    Args:
        used: Classes of the objects.
        known: Classes of training.
        where: File of the objects, for the error.
    """
    if alien := [name for name in used if name not in known]:
        raise ValueError(
            f"{where} has objects of {some(alien)}, but the classes of training are "
            f"{some(known)}. Use one list of classes in all files."
        )


# --- public sets ---------------------------------------------------------------------------------

CITYSCAPES_NAMES = (
    "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign",
    "vegetation", "terrain", "sky", "person", "rider", "car", "truck", "bus", "train",
    "motorcycle", "bicycle",
)  # fmt: skip
CITYSCAPES_COLOURS: tuple[Colour, ...] = (
    (128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153),
    (153, 153, 153), (250, 170, 30), (220, 220, 0), (107, 142, 35), (152, 251, 152),
    (70, 130, 180), (220, 20, 60), (255, 0, 0), (0, 0, 142), (0, 0, 70), (0, 60, 100),
    (0, 80, 100), (0, 0, 230), (119, 11, 32),
)  # fmt: skip
"""The official palette (DAFormer, mmseg/datasets/cityscapes.py)."""


def _streets(stored: Sequence[int], last: int) -> ClassMap:
    """The 19 classes, of these stored numbers among 0 to `last`."""
    others = tuple(number for number in range(last + 1) if number not in stored)
    ids = tuple((number,) for number in stored)
    return ClassMap(CITYSCAPES_NAMES, CITYSCAPES_COLOURS, ids, others)


_LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
CITYSCAPES = _streets(_LABEL_IDS, 33)
"""Stored are Cityscapes' labelIds (the licence plate's, -1, as 255)."""
GTA5 = _streets(_LABEL_IDS, 34)
"""The same (DAFormer, tools/convert_datasets/gta.py); the licence plate is 34."""
SYNTHIA = _streets(
    (3, 4, 2, 21, 5, 7, 15, 9, 6, 16, 1, 10, 17, 8, 18, 19, 20, 12, 11), 22
)  # fmt: skip
"""Of SYNTHIA-RAND-CITYSCAPES (DAFormer, tools/convert_datasets/synthia.py). Terrain, truck and
train do not occur there."""
SYNTHIA_16 = tuple(n for n in CITYSCAPES_NAMES if n not in ("terrain", "truck", "train"))
"""Classes over which SYNTHIA to Cityscapes is averaged."""
SYNTHIA_13 = tuple(n for n in SYNTHIA_16 if n not in ("wall", "fence", "pole"))
"""Classes of the other mean that papers give."""
CAMVID_COLOURS: tuple[Colour, ...] = (
    (128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222), (128, 128, 0),
    (192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192),
)  # fmt: skip
CAMVID = ClassMap(CAMVID_NAMES, CAMVID_COLOURS, (), (len(CAMVID_NAMES),))


def colours_of(classes: Sequence[str]) -> tuple[Colour, ...]:
    """The colours in which papers show these classes; empty if none are usual."""
    known = (CITYSCAPES, CAMVID)
    return next((one.colours for one in known if one.names == tuple(classes)), ())
