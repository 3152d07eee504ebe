"""Records that several rooms share; this file imports nothing of tenfold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int, Int64, Integer

Code = dict[str, Any]
"""A mask as COCO's run-length code: {"size": [height, width], "counts": text}."""
State = Literal["done", "open", "not-annotated"]
"""Of a unit's division into parts: complete; begun or asked for; never asked for."""
Origin = Literal["type1", "type2", "human"]
"""Who made a unit: a request to divide a region by classes, one for an instance, a person."""
MOST_UNITS = 100_000
"""Of one tree."""
DEEPEST = 64
"""Levels of a tree; who walks one may recurse."""


@dataclass(frozen=True)
class Instances:
    """Objects of one image: true ones, or found ones with scores.

    Row i of every array is of object i; what does not fit is a ValueError.

    Example:
        sure = found.at(found.scores >= 0.5)
    """

    boxes: Float[np.ndarray, "object 4"]
    """x0 y0 x1 y1 in pixels of the image, ends exclusive."""
    labels: Int64[np.ndarray, " object"]
    """Classes from 0."""
    scores: Float[np.ndarray, " object"] | None = None
    """From 0 to 1, of found objects."""
    masks: Bool[np.ndarray, "object height width"] | None = None
    """Pixels of each object; None in a set of boxes."""
    areas: Float[np.ndarray, " object"] | None = None
    """Pixels, by which objects count as small or large; None: of mask or box."""
    crowd: Bool[np.ndarray, " object"] | None = None
    """Regions that are neither to be found nor wrong if found; None: no object is one."""

    def __post_init__(self) -> None:
        count = len(self.boxes)
        size = (0, 0) if self.masks is None or self.masks.ndim != 3 else self.masks.shape[1:]
        kinds = {
            "boxes": ("f", (count, 4)),
            "labels": ("i", (count,)),
            "scores": ("f", (count,)),
            "masks": ("b", (count, *size)),
            "areas": ("f", (count,)),
            "crowd": ("b", (count,)),
        }
        for name, (kind, shape) in kinds.items():
            value = getattr(self, name)
            if value is not None and (value.dtype.kind != kind or value.shape != shape):
                raise ValueError(
                    f"{name} of {count} objects are {value.dtype} {value.shape}, expected kind "
                    f"{kind!r} and shape {shape}"
                )

    def __len__(self) -> int:
        return len(self.boxes)

    @property
    def is_crowd(self) -> Bool[np.ndarray, " object"]:
        """True for each object that is a crowd."""
        return np.zeros(len(self), dtype=bool) if self.crowd is None else self.crowd

    def at(self, rows: Bool[np.ndarray, " object"] | Int[np.ndarray, " some"]) -> Instances:
        """Return some of the objects, by rows or by a mask of rows."""
        arrays = (self.boxes, self.labels, self.scores, self.masks, self.areas, self.crowd)
        return Instances(*(None if x is None else x[rows] for x in arrays))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Segments:
    """A picture divided into segments.

    A pixel of a number that is neither `void` nor in `names` is a ValueError where it is measured.
    """

    ids: Integer[np.ndarray, "height width"]
    """Number of the segment of each pixel."""
    names: Mapping[int, str]
    """Number -> class."""
    crowd: frozenset[int] = frozenset()
    """Numbers of true segments that are several objects: neither to be found, nor wrong."""
    void: int = 0
    """Number of pixels that are of no segment."""
    title: str = "the picture"
    """Name in errors."""


@dataclass(frozen=True)
class PartMap:
    """A picture as class, instance and part of each pixel."""

    sids: Integer[np.ndarray, "*pixel"]
    """Class."""
    iids: Integer[np.ndarray, "*pixel"]
    """Instance in its class; -1 for pixels without one: a region of stuff, or in the truth of a
    thing a crowd."""
    pids: Integer[np.ndarray, "*pixel"]
    """Part of its class, from 1; 0 or -1 where there is none, in what was found 255 for unknown."""
    title: str = "the picture"
    """Name in errors."""

    @property
    def sids_iids(self) -> Integer[np.ndarray, "*pixel"]:
        """Class and instance in one number, as in Cityscapes' instance maps."""
        return np.where(self.iids < 0, self.sids, self.sids * 1000 + self.iids).astype(np.int32)

    @property
    def sids_pids(self) -> Integer[np.ndarray, "*pixel"]:
        """Class and part in one number."""
        return np.where(self.pids < 0, self.sids, self.sids * 100 + self.pids).astype(np.int32)


@dataclass(frozen=True)
class Unit:
    """A region of a picture with its class, in a tree of such."""

    id: int
    """Number in its tree."""
    name: str
    """Class."""
    parent: int | None
    """Number of the unit that it is a part of; None is the whole picture."""
    mask: Code
    score: float = 1.0
    state: State = "not-annotated"
    source: Origin = "human"
    crowd: bool = False
    """Several objects that were not told apart: neither to be found, nor wrong if found."""


@dataclass(frozen=True)
class Tree:
    """A picture divided into units, and these into parts, as far as someone went.

    Exactly one unit, the root, is no part of another. What is no tree is a ValueError.

    Example:
        wheels = [unit for unit in tree.units if unit.name == "wheel"]
    """

    size: tuple[int, int]
    """Height and width of the picture, and of every mask."""
    units: tuple[Unit, ...]
    image: str = ""
    """File of the picture."""
    kb: str = ""
    """File of the knowledge base and its sum."""
    void: Code | None = None
    """Pixels of which nobody knows what they are."""

    def __post_init__(self) -> None:
        name = self.image or "the tree"
        if len(self.units) > MOST_UNITS:
            raise ValueError(f"{name} has {len(self.units)} units, more than {MOST_UNITS}")
        twice = [key for key, times in Counter(unit.id for unit in self.units).items() if times > 1]
        if twice:
            raise ValueError(f"{name}: two units have the number {twice[0]}")
        roots = [unit.id for unit in self.units if unit.parent is None]
        if len(roots) != 1:
            raise ValueError(
                f"{name} has {len(roots)} units without a parent ({roots[:5]}), a tree has one"
            )
        for unit in self.units:
            if unit.parent is not None and unit.parent not in self.by_id:
                raise ValueError(
                    f"{name}: the parent {unit.parent} of unit {unit.id} ({unit.name}) is not there"
                )
        for code in (*(unit.mask for unit in self.units), *([self.void] if self.void else [])):
            if tuple(code["size"]) != self.size:
                raise ValueError(
                    f"{name}: a mask is of {code['size'][0]} x {code['size'][1]} pixels (height x "
                    f"width), the picture of {self.size[0]} x {self.size[1]}"
                )
        if len(self.depths) < len(self.units):
            lost = next(unit for unit in self.units if unit.id not in self.depths)
            raise ValueError(f"{name}: unit {lost.id} ({lost.name}) is part of itself: a cycle")
        if max(self.depths.values()) >= DEEPEST:
            raise ValueError(f"{name} is deeper than {DEEPEST} levels")

    @cached_property
    def by_id(self) -> dict[int, Unit]:
        """Number -> unit."""
        return {unit.id: unit for unit in self.units}

    @cached_property
    def _parts(self) -> dict[int | None, list[Unit]]:
        found: dict[int | None, list[Unit]] = {}
        for unit in self.units:
            found.setdefault(unit.parent, []).append(unit)
        return found

    @property
    def root(self) -> Unit:
        """The unit that is the whole picture."""
        return self._parts[None][0]

    def parts(self, number: int) -> list[Unit]:
        """The units that are parts of one, in order."""
        return self._parts.get(number, [])

    @cached_property
    def depths(self) -> dict[int, int]:
        """Number -> level, 0 for the root, of all that hang on it."""
        found: dict[int, int] = {}
        depth, level = 0, [self.root.id]
        while level:
            found |= dict.fromkeys(level, depth)
            depth += 1
            level = [part.id for number in level for part in self.parts(number)]
        return found

    def walk(self) -> Iterator[Unit]:
        """All units, each before its parts, parts in order."""
        left = [self.root]
        while left:
            unit = left.pop()
            yield unit
            left += reversed(self.parts(unit.id))

    def told_apart(self) -> Tree:
        """The tree without the regions that were divided into the objects of their class.

        A request by classes makes one region of all cars, and one for an instance makes each car a
        part of it; here each car is a part of what the region was a part of.
        """
        gone = {
            unit.id: unit.parent
            for unit in self.units
            if unit.parent is not None and unit.state == "done"
            and {part.name for part in self.parts(unit.id)} == {unit.name}
        }  # fmt: skip
        kept = []
        for unit in self.units:
            parent = unit.parent
            while parent in gone:
                parent = gone[parent]
            if unit.id not in gone:
                kept.append(replace(unit, parent=parent))
        return replace(self, units=tuple(kept))
