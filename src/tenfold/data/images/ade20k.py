"""ADE20K with objects, parts and parts of parts: version 2021_17_01, or its JSON with masks inside.

A picture has a JSON beside it that lists objects; each has a PNG of its own (255 where it can be
seen, some 128 where others hide it), or, in the small form, run-length codes `visible` and `full`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from tenfold.files import misfit, read_json, require_bounded
from tenfold.structures import MOST_UNITS, Code, Tree, Unit

from . import runs
from .ade20k_names import PARTS, SCENE, THINGS
from .decode import MAX_PIXELS
from .folders import files_below, inside_of

VISIBLE = 255
"""Value of pixels that can be seen in an object's own PNG."""
MOST_BYTES = 256 * 2**20
MOST_INSTANCES = 254
"""Numbers of instances in a map of one byte; 0 is none and 255 is left free."""
SHAPE = {
    "annotation": {
        "filename": str, "imsize": [int],
        "object": [{
            "id": int, "name": str, "raw_name": str, "instance_mask": str,
            "depth_ordering_rank": int,
            "parts": {"part_level": int, "ispartof": (int, list)},
        }],
    },
    "image": str, "width": int, "height": int,
    "objects": [{
        "id": int, "name": str, "wordnet": str, "part_level": int, "part_of": (int, None),
        "visible": str,
    }],
}  # fmt: skip


@dataclass(frozen=True)
class Object:
    """One object or part of a picture."""

    id: int
    raw: str
    """Name as it was typed."""
    words: tuple[str, ...]
    """Synonyms of its meaning, the first is its name."""
    level: int
    """0 for an object, 1 for a part, 2 for a part of a part."""
    part_of: int | None
    visible: Code
    """Pixels that no other object hides."""
    rank: int
    """Order in depth as it is stored."""

    @property
    def name(self) -> str:
        """First synonym."""
        return self.words[0]

    @property
    def is_crowd(self) -> bool:
        """True if the typed name is the plural of the first synonym: several objects in one."""
        return self.raw in (f"{self.name}s", f"{self.name}es")


@dataclass(frozen=True)
class Picture:
    """The objects of a picture."""

    file: Path
    """Of the picture."""
    size: tuple[int, int]
    objects: tuple[Object, ...]

    def chain(self, number: int) -> list[Object]:
        """An object, what it is a part of, and so on up to an object that is no part."""
        by_id = {one.id: one for one in self.objects}
        found = [by_id[number]]
        while found[-1].part_of is not None:
            found.append(by_id[found[-1].part_of])
        return found


@dataclass(frozen=True)
class Prepared:
    """Maps of a picture as ViRReq trains on, of its own preparation of ADE20K."""

    classes: UInt8[np.ndarray, "height width"]
    """Scene class, 1 to 150; 0 is void."""
    parts: UInt8[np.ndarray, "height width"]
    """Part word, 1 to 83; 0 is void."""
    instances: UInt8[np.ndarray, "height width"]
    """Thing that owns at least one labelled part, 1 to 254; 0 is none."""
    labelled: Mapping[int, frozenset[int]]
    """Instance -> its part words, from 1; what is not in it was not labelled, or is not there."""


# --- reading -------------------------------------------------------------------------------------


def find(folder: Path, follow_links: bool = False) -> list[Path]:
    """The JSON files of pictures below a folder, by path."""
    every = files_below(folder, folder, follow_links)
    found = [file for file in every if file.suffix == ".json"]
    if not found:
        raise ValueError(f"{folder} holds no JSON file of ADE20K's pictures")
    return found


def read(file: Path, follow_links: bool = False) -> Picture:
    """The objects of a picture.

    Raises:
        ValueError: It is no file of ADE20K, a mask is damaged or of another size, or parts form no
            tree; the error names file and object.
    """
    require_bounded(file, MOST_BYTES)
    content = read_json(file)
    problem = misfit(content, SHAPE, "")
    if problem:
        raise ValueError(f"{file}: {problem}; it is not of ADE20K's form")
    try:
        if "annotation" in content:
            picture = _published(file, content["annotation"], follow_links)
        else:
            picture = _small(file, content)
        inside_of(file.parent, picture.file, follow_links)
        _check(picture)
    except (ValueError, KeyError) as error:
        what = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{file}: {what}") from error
    return picture


def _published(file: Path, content: Mapping[str, Any], follow_links: bool) -> Picture:
    """The form of version 2021_17_01."""
    height, width = _sides(content["imsize"][:2])
    found = []
    for item in content["object"]:
        parts = item["parts"]
        above = parts.get("ispartof", [])
        above = above[0] if isinstance(above, list) and above else above
        place = inside_of(file.parent, file.parent / item["instance_mask"], follow_links)
        words = _words(item["name"]) or _words(item["raw_name"])
        found.append(
            Object(
                item["id"], _plain(item.get("raw_name", "")), words, parts["part_level"],
                above if isinstance(above, int) else None, _mask(place, (height, width)),
                item.get("depth_ordering_rank", 0),
            )
        )  # fmt: skip
    return Picture(file.parent / content["filename"], (height, width), tuple(found))


def _small(file: Path, content: Mapping[str, Any]) -> Picture:
    """Masks as codes in the file itself."""
    height, width = _sides([content["height"], content["width"]])
    found = []
    for row, item in enumerate(content["objects"]):
        try:
            code = {"size": [height, width], "counts": item["visible"]}
            visible = runs.checked(code, (height, width))
        except ValueError as error:
            raise ValueError(f"object {item['id']}: {error}") from error
        words = _words(item["wordnet"]) or _words(item["name"])
        found.append(
            Object(
                item["id"], _plain(item["name"]), words, item["part_level"], item["part_of"],
                visible, row + 1,
            )
        )  # fmt: skip
    return Picture(file.parent / content["image"], (height, width), tuple(found))


def _sides(sides: list[int]) -> tuple[int, int]:
    if len(sides) != 2 or min(sides) < 1 or sides[0] * sides[1] > MAX_PIXELS:
        raise ValueError(f"the picture is of {sides} pixels, allowed are 1 to {MAX_PIXELS}")
    return sides[0], sides[1]


def _plain(text: str) -> str:
    return " ".join(text.lower().split())


def _words(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word for part in text.split(",") if (word := _plain(part))))


def _mask(file: Path, size: tuple[int, int]) -> Code:
    """Visible pixels of an object's own PNG."""
    try:
        with Image.open(file, formats=("PNG",)) as image:
            if (image.height, image.width) != size:
                raise ValueError(
                    f"it has {image.height} x {image.width} pixels (height x width), its picture "
                    f"{size[0]} x {size[1]}"
                )
            pixels = np.asarray(image.convert("L"))
    except (ValueError, OSError, SyntaxError, ArithmeticError, KeyError, TypeError) as error:
        raise ValueError(f"the mask {file} cannot be read: {error}") from error
    return runs.code_of(pixels == VISIBLE)


def _check(picture: Picture) -> None:
    """Refuse objects without a name, twice of a number, and parts that form no tree."""
    by_id = {one.id: one for one in picture.objects}
    if len(by_id) < len(picture.objects) or len(by_id) > MOST_UNITS:
        raise ValueError(f"two objects have one number, or there are more than {MOST_UNITS}")
    for one in picture.objects:
        if not one.words:
            raise ValueError(f"object {one.id} has no name")
        if one.part_of is not None and one.part_of not in by_id:
            raise ValueError(f"object {one.id} ({one.name}) is part of {one.part_of}, not there")
        # a part is one level below its whole, so that there is no cycle
        above = by_id[one.part_of].level if one.part_of is not None else -1
        if one.level != above + 1:
            raise ValueError(
                f"object {one.id} ({one.name}) is of part level {one.level}, what it is a part of "
                f"of {above}"
            )


# --- trees and maps ------------------------------------------------------------------------------


def tree_of(picture: Picture) -> Tree:
    """All objects below `scene`, named by their first synonym, parts below their wholes.

    Parts are `done` where there are any, else `not-annotated`: most wholes of ADE20K have none.
    Pixels of no object are void.
    """
    height, width = picture.size
    number = {one.id: i for i, one in enumerate(picture.objects, 1)}
    divided = {one.part_of for one in picture.objects}
    units = [Unit(0, "scene", None, runs.full(height, width), state="done")]
    for one in picture.objects:
        parent = 0 if one.part_of is None else number[one.part_of]
        state: Any = "done" if one.id in divided else "not-annotated"
        crowd = one.level == 0 and one.is_crowd
        units.append(Unit(number[one.id], one.name, parent, one.visible, 1.0, state, crowd=crowd))
    every = runs.mask_of(runs.merged([one.visible for one in picture.objects], height, width))
    void = None if every.all() else runs.code_of(~every)
    return Tree(picture.size, tuple(units), picture.file.name, void=void)


def scene_tree(picture: Picture) -> Tree:
    """`tree_of` by the names that ViRReq has: the 150 classes, and the 83 words of parts.

    What is of neither keeps its own name.
    """
    tree = tree_of(picture)
    names = {0: tree.root.name}
    for number, one in enumerate(picture.objects, 1):
        word = part_of(one) if one.level else class_of(one)
        known = PARTS if one.level else SCENE
        names[number] = known[word - 1] if word else one.name
    return replace(tree, units=tuple(replace(unit, name=names[unit.id]) for unit in tree.units))


def class_of(one: Object) -> int:
    """Number of an object's scene class by its first synonym or typed name; 0 for none."""
    for word in (one.name, one.raw):
        if word in SCENE:
            return SCENE.index(word) + 1
    return 0


def part_of(one: Object) -> int:
    """Number of a part's word by its typed name or first synonym; 0 for none."""
    for word in (one.raw, one.name):
        if word in PARTS:
            return PARTS.index(word) + 1
    return 0


def prepare(picture: Picture) -> Prepared:
    """Maps of 150 classes, 83 part words and instances, of the pixels that can be seen.

    The authors' own preparation was not published. Stuff is painted by falling area, things from
    the far end of the stored depth order on, parts last. Parts count whose chain of wholes ends in
    an object of the 150; instances are things with at least one such part, in order. A picture
    with more than 254 is a ValueError.
    """
    classes, parts, instances = (np.zeros(picture.size, dtype=np.uint8) for _ in range(3))
    tops = [one for one in picture.objects if one.level == 0 and class_of(one)]
    stuff = [one for one in tops if SCENE[class_of(one) - 1] not in THINGS]
    things = [one for one in tops if SCENE[class_of(one) - 1] in THINGS]
    stuff.sort(key=lambda one: -runs.area(one.visible))
    things.sort(key=lambda one: -one.rank)
    for one in [*stuff, *things]:
        classes[runs.mask_of(one.visible)] = class_of(one)
    labelled: dict[int, set[int]] = {}
    number: dict[int, int] = {}
    kept = {one.id for one in things}
    words = [one for one in picture.objects if one.level > 0 and part_of(one)]
    owned = {one.id: picture.chain(one.id)[-1].id for one in words}
    for one in sorted(words, key=lambda one: one.level):
        owner = owned[one.id]
        if owner not in {top.id for top in tops}:
            continue
        parts[runs.mask_of(one.visible)] = part_of(one)
        if owner in kept:
            instance = number.setdefault(owner, len(number) + 1)
            labelled.setdefault(instance, set()).add(part_of(one))
    if len(number) > MOST_INSTANCES:
        raise ValueError(
            f"{picture.file} has {len(number)} things with parts, more than {MOST_INSTANCES}"
        )
    for one in things:
        if one.id in number:
            instances[runs.mask_of(one.visible)] = number[one.id]
    return Prepared(
        classes, parts, instances, {n: frozenset(words) for n, words in labelled.items()}
    )


def hierarchy(pictures: Iterable[Picture]) -> dict[tuple[str, ...], int]:
    """Path of names from an object down to a part -> how often it occurs."""
    found: dict[tuple[str, ...], int] = {}
    for picture in pictures:
        for one in picture.objects:
            path = tuple(above.name for above in reversed(picture.chain(one.id)))
            found[path] = found.get(path, 0) + 1
    return found
