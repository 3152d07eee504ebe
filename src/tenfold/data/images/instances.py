"""Objects of pictures, one record for all sets: class, box, mask as the code of a crop, points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import UInt8

from .class_maps import require_known
from .crops import Crop
from .decode import USUAL, Reading, read_picture

Supervision = Literal["mask", "box", "points"]
"""By what an object is known: its mask, its box alone, its box and points."""
Source = Literal["human", "model"]


@dataclass(frozen=True)
class Said:
    """Who said something, and when."""

    source: Source = "human"
    """A file that does not say it counts as of a human, so that no model writes over it."""
    who: str = ""
    model: str = ""
    """Version of the model."""
    time: str = ""
    """In ISO 8601."""


FROM_FILE = Said()


@dataclass(frozen=True)
class Point:
    """A pixel of which it is known if it is on the object."""

    x: int
    y: int
    label: Literal[0, 1, -1]
    """On it, not on it; -1: not known."""
    said: Said = FROM_FILE
    seconds: float = 0.0
    chosen: str = ""
    """Who chose the pixel: a strategy, or "human"."""


@dataclass(frozen=True)
class Shape:
    """One object of a picture."""

    id: int
    """Of the annotation, in its file."""
    label: int
    """Class, from 0."""
    box: tuple[float, float, float, float]
    """x0 y0 x1 y1 in pixels, ends exclusive, within the picture."""
    mask: Crop | None = None
    points: tuple[Point, ...] = ()
    is_crowd: bool = False
    """Neither asked about nor trained on."""
    area: float = 0.0
    """Pixels, by which COCO calls objects small or large."""
    score: float | None = None
    """From 0 to 1, of what a model found."""
    said: Said = FROM_FILE
    """Of class and box."""
    mask_said: Said = FROM_FILE

    @property
    def supervision(self) -> Supervision:
        """The most that is known of it."""
        return "mask" if self.mask is not None else "points" if self.points else "box"

    def known_by(self, kind: Supervision) -> Shape:
        """The same object with no more than that."""
        if kind == "mask":
            return self
        return replace(self, mask=None, points=self.points if kind == "points" else ())


@dataclass(frozen=True)
class Objects:
    """A picture and its objects, in the order of their file."""

    file: Path
    name: str
    """As results and exports call it: the path below the set's folder."""
    image_id: int
    height: int
    width: int
    shapes: tuple[Shape, ...] = ()

    @property
    def asked(self) -> tuple[Shape, ...]:
        """The objects that are no crowds."""
        return tuple(shape for shape in self.shapes if not shape.is_crowd)


@dataclass(frozen=True)
class ObjectSet:
    """Pictures with objects; pixels are decoded when asked for."""

    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    """Number of each class in COCO's files."""
    pictures: tuple[Objects, ...]
    reading: Reading = USUAL
    notes: tuple[str, ...] = field(default=(), compare=False)
    """What was cut or left out, in words; warned of as well."""
    kind: Literal["real", "simulated"] = "real"

    def __len__(self) -> int:
        return len(self.pictures)

    @property
    def num_objects(self) -> int:
        """Objects that are no crowds."""
        return sum(len(picture.asked) for picture in self.pictures)

    @property
    def files(self) -> list[tuple[Path]]:
        """The pictures' files."""
        return [(picture.file,) for picture in self.pictures]

    def at(self, rows: Sequence[int]) -> ObjectSet:
        """The pictures of these rows."""
        return replace(self, pictures=tuple(self.pictures[i] for i in rows))

    def aligned(self, classes: tuple[str, ...], where: Path) -> ObjectSet:
        """The same set with labels in another list of classes, which must have all that occur.

        where: File or folder of the set, for the error.
        """
        if self.classes == classes:
            return self
        labels = {shape.label for one in self.pictures for shape in one.shapes}
        require_known([self.classes[label] for label in sorted(labels)], classes, where)
        place = {label: classes.index(self.classes[label]) for label in labels}
        pictures = [
            replace(one, shapes=tuple(replace(s, label=place[s.label]) for s in one.shapes))
            for one in self.pictures
        ]
        ids = tuple(range(1, len(classes) + 1))
        return replace(self, classes=classes, category_ids=ids, pictures=tuple(pictures))

    def known_by(self, kind: Supervision) -> ObjectSet:
        """The same set, each object known by no more than that."""
        less = [
            replace(one, shapes=tuple(shape.known_by(kind) for shape in one.shapes))
            for one in self.pictures
        ]
        return replace(self, pictures=tuple(less))

    def picture(self, index: int) -> UInt8[np.ndarray, "height width 3"]:
        """Decode a picture, of the size that its objects are of.

        Raises:
            FileNotFoundError: It has vanished since the set was opened.
            ValueError: It is damaged, or of another size.
        """
        one = self.pictures[index]
        size = (one.height, one.width)
        found = read_picture(one.file, self.reading.ignore_exif)
        if found.shape[:2] != size and found.shape[1::-1] == size:
            found = read_picture(one.file, not self.reading.ignore_exif)
        if found.shape[:2] != size:
            raise ValueError(
                f"{one.file} has {found.shape[1]} x {found.shape[0]} pixels, its objects are of "
                f"{one.width} x {one.height}. Put the picture back that they were made on."
            )
        return found


def cut(box: Sequence[float], height: int, width: int) -> tuple[float, float, float, float]:
    """A box x0 y0 x1 y1 cut at a picture's borders."""
    x0, y0, x1, y1 = (float(value) for value in box)
    return (
        min(max(x0, 0.0), float(width)), min(max(y0, 0.0), float(height)),
        min(max(x1, 0.0), float(width)), min(max(y1, 0.0), float(height)),
    )  # fmt: skip
