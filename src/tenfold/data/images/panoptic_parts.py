"""Panoptic parts: class, instance and part of each pixel in one number (TIFF of 32 bits).

A number is sid (0-99), sid * 1000 + iid (1000-99999), or (sid * 1000 + iid) * 100 + pid (100000-
9999999), with a class sid of 0-99, an instance iid of 0-999 and a part pid of 1-99; part 0 is none
(pmeletis/panoptic_parts, docs/source/label_format.md). Numbers of three digits are not used.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int32, UInt8
from PIL import Image

from tenfold.files import replacing
from tenfold.structures import PartMap, Tree, Unit

from ..io.problems import some
from . import runs
from .class_maps import CITYSCAPES
from .decode import MAX_PIXELS, USUAL, Reading
from .folders import files_below

NONE = -1
"""Instance or part of a pixel that has none."""
VOID = 255
"""Train number of pixels that do not count."""
CLASS = 100
"""Numbers below it are classes alone."""
INSTANCE = 100_000
"""Numbers below it, from 1000 on, have an instance and no part."""
LARGEST = 9_999_999
MOST_SPEC = 2**17
"""Bytes of a file of names."""


@dataclass(frozen=True)
class PartSpec:
    """Names of a set's classes and their parts; numbers are places, from 1."""

    name: str
    classes: Mapping[str, tuple[str, ...]]
    """Class -> its parts."""
    things: frozenset[str]

    def __post_init__(self) -> None:
        if not 1 <= len(self.classes) < CLASS:
            raise ValueError(f"{self.name} has {len(self.classes)} classes, allowed are 1 to 99")
        for name, parts in self.classes.items():
            if len(parts) >= CLASS or len(set(parts)) < len(parts):
                raise ValueError(f"{self.name}: the parts of {name} are more than 99, or one twice")
        alien = self.things - self.classes.keys()
        if alien:
            raise ValueError(f"{self.name}: {some(sorted(alien))} are instances, but no classes")

    @property
    def sids(self) -> dict[int, str]:
        """Number -> class."""
        return dict(enumerate(self.classes, 1))


_PERSON = ("torso", "head", "arm", "leg")
_CAR = ("window", "wheel", "light", "license plate", "chassis")
_STUFF = (
    "ego vehicle", "rectification border", "out of roi", "static", "dynamic", "ground", "road",
    "sidewalk", "parking", "rail track", "building", "wall", "fence", "guard rail", "bridge",
    "tunnel", "pole", "polegroup", "traffic light", "traffic sign", "vegetation", "terrain", "sky",
)  # fmt: skip
_THINGS = {
    "person": _PERSON, "rider": _PERSON, "car": _CAR, "truck": _CAR, "bus": _CAR, "caravan": (),
    "trailer": (), "train": (), "motorcycle": (), "bicycle": (),
}  # fmt: skip
CITYSCAPES_PARTS = PartSpec(
    "Cityscapes Panoptic Parts",
    dict.fromkeys(_STUFF, ()) | _THINGS | {"license plate": ()},
    frozenset(_THINGS),
)
"""Classes and parts of version 2 (cpp_datasetspec.yaml)."""


# --- numbers -------------------------------------------------------------------------------------


def decode(uids: Int32[np.ndarray, "*pixel"], title: str = "the map") -> PartMap:
    """Class, instance and part of numbers.

    Raises:
        ValueError: A number is negative, of three digits or of more than seven; the error names
            `title` and the pixel.
    """
    wrong = (uids < 0) | (uids > LARGEST) | ((uids >= CLASS) & (uids < 1000))
    if wrong.any():
        at = tuple(int(i) for i in np.argwhere(wrong)[0])
        where = f"x {at[1]}, y {at[0]}" if len(at) == 2 else f"{at}"
        raise ValueError(
            f"{title}: pixel {where} has the number {int(uids[at])}, which is no class (0-99), "
            "instance (1000-99999) or part (100000-9999999) of the panoptic-parts format; "
            f"{int(wrong.sum())} pixels are so"
        )
    has_part = uids >= INSTANCE
    whole = np.where(has_part, uids // 100, uids)
    has_instance = uids >= CLASS
    sids = np.where(has_instance, whole // 1000, uids)
    iids = np.where(has_instance, whole % 1000, NONE)
    pids = np.where(has_part, uids % 100, NONE)
    sids, iids, pids = (x.astype(np.int32) for x in (sids, iids, pids))
    return PartMap(sids, iids, pids, title)


def encode(ids: PartMap) -> Int32[np.ndarray, "*pixel"]:
    """Numbers of classes, instances and parts; the opposite of `decode`.

    Raises:
        ValueError: One is out of its range, or a part has no instance.
    """
    for name, values, most in (
        ("class", ids.sids, 99), ("instance", ids.iids, 999), ("part", ids.pids, 99),
    ):  # fmt: skip
        least = 0 if name == "class" else NONE
        if values.size and not least <= int(values.min()) <= int(values.max()) <= most:
            raise ValueError(
                f"a {name} has number {int(values.min())} to {int(values.max())}, allowed are "
                f"{least} to {most}"
            )
    if bool(((ids.pids >= 0) & (ids.iids < 0)).any()):
        raise ValueError("a pixel has a part but no instance; give its whole an instance, from 0")
    if bool(((ids.sids == 0) & (ids.iids >= 0)).any()):
        raise ValueError("a pixel of class 0 (unlabelled) has an instance")
    whole = ids.sids_iids
    return np.where(ids.pids < 0, whole, whole * 100 + ids.pids).astype(np.int32)


def within(ids: PartMap, spec: PartSpec) -> PartMap:
    """The same with what the set does not have taken out: class 0, instance and part -1."""
    known = np.isin(ids.sids, [0, *spec.sids])
    sids, iids = np.where(known, ids.sids, 0), np.where(known, ids.iids, NONE)
    counts = np.zeros(CLASS, dtype=np.int64)
    for sid, name in spec.sids.items():
        counts[sid] = len(spec.classes[name])
    has_part = (ids.pids >= 1) & (ids.pids <= counts[sids])
    pids = np.where(has_part, ids.pids, NONE)
    sids, iids, pids = (x.astype(np.int32) for x in (sids, iids, pids))
    return PartMap(sids, iids, pids, ids.title)


def train_ids(ids: PartMap) -> tuple[UInt8[np.ndarray, "*pixel"], UInt8[np.ndarray, "*pixel"]]:
    """Cityscapes' 19 classes, and ViRReq's 9 part words; 255 for other pixels.

    The words are torso, head, arm, leg (of person and rider, train numbers 11 and 12), window,
    wheel, light, license plate, chassis (of car, truck and bus, 13 to 15): ViRReq's
    LoadAnnotationsCitysPart.
    """
    table = np.array([n if n >= 0 else VOID for n in CITYSCAPES.table], dtype=np.uint8)
    classes = table[ids.sids]
    parts = np.full(classes.shape, VOID, dtype=np.uint8)
    first, second = np.isin(classes, (11, 12)), np.isin(classes, (13, 14, 15))
    first &= (ids.pids >= 1) & (ids.pids <= len(_PERSON))
    second &= (ids.pids >= 1) & (ids.pids <= len(_CAR))
    parts[first] = ids.pids[first] - 1
    parts[second] = ids.pids[second] + len(_PERSON) - 1
    return classes, parts


# --- files ---------------------------------------------------------------------------------------


def read(file: Path) -> Int32[np.ndarray, "height width"]:
    """Numbers of a TIFF, checked.

    Raises:
        ValueError: It is no TIFF of whole numbers, is too large, or holds a number that the format
            does not have; the error names file and pixel.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file} is not there, or is not a file")
    try:
        with Image.open(file, formats=("TIFF", "PNG")) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"it has {image.width} x {image.height} pixels, too many")
            if image.mode not in ("I", "L", "I;16", "I;16B"):
                raise ValueError(f"its pixels are of mode {image.mode}, expected whole numbers")
            image.load()
            uids = np.asarray(image).astype(np.int32)
    except (ValueError, OSError, SyntaxError, ArithmeticError, KeyError, TypeError,
            Image.DecompressionBombError) as error:  # fmt: skip
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{file} cannot be read as panoptic parts: {reason}") from error
    decode(uids, str(file))
    return uids


def write(file: Path, uids: Int32[np.ndarray, "height width"]) -> None:
    """Write a TIFF of 32-bit numbers, without loss."""
    decode(uids, str(file))
    with replacing(file) as temporary:
        Image.fromarray(uids).save(temporary, format="TIFF", compression="tiff_deflate")


def read_spec(file: Path) -> PartSpec:
    """Names of a set from a YAML file in the form of panoptic_parts' dataset specs.

    Raises:
        ValueError: It is no such file; the error names it.
    """
    import yaml

    if not file.is_file() or file.stat().st_size > MOST_SPEC:
        raise ValueError(f"{file} is no file, or larger than {MOST_SPEC} bytes")
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{file} is no YAML: {reason}") from error
    content = content if isinstance(content, dict) else {}
    classes = content.get("scene_class2part_classes")
    things: Any = content.get("scene_classes_with_instances")
    if not _is_names(things) or not isinstance(classes, dict) or not _is_names([*classes]):
        raise ValueError(
            f"{file} lacks scene_class2part_classes (class: list of parts) or "
            "scene_classes_with_instances (list of classes)"
        )
    if content.get("countable_pids_groupings"):
        raise ValueError(
            f"{file} groups parts that are numbered singly (countable_pids_groupings), which is "
            "not read: map the numbers to one a part word first"
        )
    wrong = [name for name, parts in classes.items() if not _is_names(parts)]
    if wrong:
        raise ValueError(f"{file}: the parts of {wrong[0]!r} are no list of names")
    parts = {name: tuple(parts) for name, parts in classes.items() if name != "UNLABELED"}
    try:
        return PartSpec(str(content.get("name", file.stem)), parts, frozenset(things))
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) and name for name in value)


def find(folder: Path, split: str, reading: Reading = USUAL) -> list[tuple[Path, Path]]:
    """Pictures and their numbers in the layout of Cityscapes, by name.

    `leftImg8bit/<split>/<city>/*_leftImg8bit.png` and
    `gtFinePanopticParts/<split>/<city>/*_gtFinePanopticParts.tif`. A picture that is not there
    is a ValueError, but for `skip_broken`.
    """
    place = folder / "gtFinePanopticParts" / split
    if not place.is_dir():
        raise FileNotFoundError(f"{place} is not there: the folder of Cityscapes' panoptic parts")
    ending = "_gtFinePanopticParts.tif"
    found = []
    for file in files_below(place, folder, reading.follow_links):
        if file.name.endswith(ending):
            name = file.name.removesuffix(ending) + "_leftImg8bit.png"
            picture = folder / "leftImg8bit" / split / file.parent.relative_to(place) / name
            if not picture.is_file() and not reading.skip_broken:
                raise ValueError(f"{file} has no picture: {picture} is not there")
            found.append((picture, file))
    if not found:
        raise ValueError(f"{place} holds no file *{ending}")
    return sorted(found)


# --- trees ---------------------------------------------------------------------------------------


def tree_of(
    uids: Int32[np.ndarray, "height width"],
    spec: PartSpec = CITYSCAPES_PARTS,
    classes: Collection[str] | None = None,
    image: str = "",
) -> Tree:
    """The tree of a picture: regions and objects below `scene`, parts below these.

    A thing without an instance is a crowd. An object that has no pixel of a part is
    `not-annotated`, if its class has parts. What is of no class in `classes` (all of the spec) is
    void.
    """
    height, width = uids.shape
    ids = within(decode(uids, image or "the map"), spec)
    chosen = [sid for sid, name in spec.sids.items() if classes is None or name in classes]
    counted = np.isin(ids.sids, chosen)
    whole = np.where(counted, ids.sids_iids, -1)
    part = np.where(counted & (ids.pids >= 1), whole * 100 + ids.pids, -1)
    units = [Unit(0, "scene", None, runs.full(height, width), state="done")]
    number_of: dict[int, int] = {}
    parts = {n: code for n, code in runs.codes_of(part).items() if n >= 0}
    divided = {number // 100 for number in parts}
    wholes = runs.codes_of(whole)
    void = wholes.pop(-1, None)
    for number, code in wholes.items():
        name = spec.sids[number if number < CLASS else number // 1000]
        number_of[number] = len(units)
        state = "done" if number in divided or not spec.classes[name] else "not-annotated"
        crowd = name in spec.things and number < CLASS
        units.append(Unit(len(units), name, 0, code, state=state, crowd=crowd))  # type: ignore[arg-type]
    for number, code in parts.items():
        parent = number_of[number // 100]
        name = spec.classes[units[parent].name][number % 100 - 1]
        units.append(Unit(len(units), name, parent, code, state="done"))
    return Tree((height, width), tuple(units), image, void=void)


def uids_of(tree: Tree, spec: PartSpec = CITYSCAPES_PARTS) -> Int32[np.ndarray, "height width"]:
    """Numbers of a tree's first level and of its parts; what is deeper counts to these.

    Later units lie over earlier ones, parts over wholes and inside these. Objects of a class are
    numbered from 0 in order; stuff gets an instance only where it has parts.

    Raises:
        ValueError: A class or part is not of the spec, or a class has more than 1000 objects.
    """
    places = {name: sid for sid, name in spec.sids.items()}
    tree = tree.told_apart()
    title = tree.image or "the tree"
    found = np.zeros(tree.size[0] * tree.size[1], dtype=np.int32)
    seen: dict[str, int] = {}
    for unit in tree.parts(tree.root.id):
        if unit.name not in places:
            raise ValueError(
                f"{title}: {unit.name!r} is no class of {spec.name}: {some([*places])}"
            )
        parts = tree.parts(unit.id)
        base = places[unit.name]
        if (unit.name in spec.things and not unit.crowd) or parts:
            instance = seen.get(unit.name, 0)
            seen[unit.name] = instance + 1
            if instance > 999:
                raise ValueError(f"{title}: {unit.name} has more than 1000 objects")
            base = base * 1000 + instance
        found[runs.pixels_of(unit.mask)] = base
        for part in parts:
            names = spec.classes[unit.name]
            if part.name not in names:
                raise ValueError(f"{title}: {part.name!r} is no part of {unit.name} in {spec.name}")
            inside = runs.pixels_of(part.mask)
            # the whole's own, or those of a part before this one
            own = (found[inside] == base) | (found[inside] // 100 == base)
            found[inside[own]] = base * 100 + names.index(part.name) + 1
    return np.ascontiguousarray(found.reshape(tree.size[::-1]).T)
