"""Sets of picture files with captions, decoded when asked for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from tenfold.structures import Instances

from ..images.coco import MOST_OBJECTS
from ..images.coco_masks import is_number
from ..images.decode import USUAL, Reading, damage, read_header, read_picture
from ..images.picture_names import PictureNames
from ..io.problems import some
from .records import (
    MOST_PHRASES,
    Box,
    Kind,
    LeftOut,
    Pair,
    Picture,
    Span,
    check_box,
    checked_caption,
    checked_spans,
    cut_box,
)

CHECKED = 2000
"""Pictures without boxes whose headers are looked at when a set is opened."""
Text = tuple[str, tuple[Span, ...]]
"""A caption and its phrases."""
Object = tuple[str, Box]
"""Name of a class, and a box."""


@dataclass(frozen=True)
class Record:
    """A picture and what a file says of it."""

    image: str
    """Name of the picture's file, as it is stated."""
    texts: tuple[Text, ...]
    objects: tuple[Object, ...] = ()
    split: str = ""
    """Empty where it is not stated."""


@dataclass(frozen=True)
class Photo:
    """A picture of a set."""

    file: Path
    key: str
    texts: tuple[Text, ...]
    boxes: tuple[Box, ...] = ()
    """Of objects; crowds too."""
    labels: tuple[int, ...] = ()
    crowd: tuple[bool, ...] = ()
    size: tuple[int, int] | None = None
    """Height and width that boxes are in, if known."""
    split: str = ""


@dataclass(frozen=True)
class CaptionFiles:
    """Pictures with captions in files."""

    name: str
    photos: tuple[Photo, ...]
    names: tuple[str, ...] = ()
    source: Path = Path()
    """File or folder that the captions are of."""
    reading: Reading = USUAL
    left: LeftOut = field(default_factory=LeftOut, repr=False, compare=False)
    kind: Kind = "real"

    def __len__(self) -> int:
        return len(self._rows)

    @cached_property
    def _rows(self) -> list[tuple[int, int]]:
        return [(i, k) for i, photo in enumerate(self.photos) for k in range(len(photo.texts))]

    @property
    def owners(self) -> Int64[np.ndarray, " pair"]:
        """Number of the picture of each pair."""
        return np.array([photo for photo, _ in self._rows], dtype=np.int64)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out."""
        return self.left.said(f"records left out of {self.source.name}")

    def pair(self, index: int) -> Pair:
        """A caption with its phrases."""
        photo, place = self._rows[index]
        found = self.photos[photo]
        caption, phrases = found.texts[place]
        return Pair(found.file, caption, phrases, found.key)

    def picture(self, index: int) -> Picture:
        """The picture of a pair: upright, or as stored if only that is of the stated size.

        Raises:
            ValueError: It cannot be read, or is of another size; the error names it.
            FileNotFoundError: It is not there any more.
        """
        photo = self.photos[self._rows[index][0]]
        picture = read_picture(photo.file, self.reading.ignore_exif)
        if photo.size not in (None, picture.shape[:2]) and photo.size == picture.shape[1::-1]:
            picture = read_picture(photo.file, not self.reading.ignore_exif)
        if photo.size not in (None, picture.shape[:2]):
            raise ValueError(_mismatch(photo, (picture.shape[0], picture.shape[1])))
        return picture

    def objects(self, index: int) -> Instances:
        """The objects in the picture of a pair."""
        photo = self.photos[self._rows[index][0]]
        return Instances(
            np.array(photo.boxes, dtype=np.float32).reshape(-1, 4),
            np.array(photo.labels, dtype=np.int64),
            crowd=np.array(photo.crowd, dtype=bool) if photo.crowd else None,
        )

    def at(self, photos: Sequence[int]) -> CaptionFiles:
        """The set of some of its pictures."""
        return replace(self, photos=tuple(self.photos[i] for i in photos))


def _mismatch(photo: Photo, size: tuple[int, int]) -> str:
    assert photo.size is not None
    return (
        f"{photo.file} has {size[1]} x {size[0]} pixels, but boxes were made on one of "
        f"{photo.size[1]} x {photo.size[0]}. Use the pictures that they were made on."
    )


# --- from records --------------------------------------------------------------------------------

Rows = Iterable[tuple[str, Record | ValueError]]
"""Place in its file and content of each record, or what is wrong with it."""
WAY_OUT = "Mend it, or set data.skip_broken to leave out what does not fit"


def assembled(
    name: str, source: Path, rows: Rows, pictures: PictureNames, reading: Reading
) -> CaptionFiles:
    """A set of records whose pictures have been found.

    Args:
        name: Of the set.
        source: File of the records, named in errors.
        rows: The records.
        pictures: Files that names in records can mean.
        reading: With `skip_broken`, what does not fit is left out, counted and named in `notes`;
            else it is a ValueError.
    """
    left = LeftOut()
    found: dict[Path, list[Record]] = {}
    find = lru_cache(maxsize=1024)(pictures.find)  # records of a picture are often neighbours
    for where, record in rows:
        try:
            if isinstance(record, ValueError):
                raise record
            file = find(record.image)
            if file is None:
                raise ValueError(f"its picture {record.image[:80]!r} is not there")
            found.setdefault(file, []).append(record)
        except ValueError as error:
            if not reading.skip_broken:
                raise ValueError(f"{source}, {where}: {error}. {WAY_OUT}.") from error
            left.add(f"{where}: {error}")
    classes = sorted({one for some in found.values() for r in some for one, _ in r.objects})
    number = {one: i for i, one in enumerate(classes)}
    photos = []
    for file, records in found.items():
        name_of = file.relative_to(pictures.root).as_posix()
        splits = list(dict.fromkeys(record.split for record in records if record.split))
        if len(splits) > 1:  # as of captions that were divided, and not pictures
            problem = f"{name_of} is stated to be of {' and of '.join(splits)}; it can be of one"
            if not reading.skip_broken:
                raise ValueError(f"{source}: {problem}. {WAY_OUT}.")
            left.add(problem)
            continue
        # a line a caption says the same objects in each of them
        objects = list(dict.fromkeys(one for record in records for one in record.objects))
        photos.append(
            Photo(
                file,
                name_of,
                tuple(text for record in records for text in record.texts),
                tuple(box for _, box in objects),
                tuple(number[one] for one, _ in objects),
                split=splits[0] if splits else "",
            )
        )
    return looked_at(CaptionFiles(name, tuple(photos), tuple(classes), source, reading, left))


def looked_at(found: CaptionFiles) -> CaptionFiles:
    """The set without pictures that cannot be read, and with boxes cut at their borders.

    Headers are read of every picture with boxes of which no size is stated, and of up to CHECKED
    others; to skip what is broken, of all.
    """
    photos, skip = [], found.reading.skip_broken
    step = 1 if skip else max(1, len(found.photos) // CHECKED)
    for row, photo in enumerate(found.photos):
        spans = [span for _, phrases in photo.texts for span in phrases]
        has_boxes = bool(photo.boxes) or any(span.boxes for span in spans)
        try:
            if len(photo.boxes) > MOST_OBJECTS:
                raise ValueError(f"it has {len(photo.boxes)} objects, more than {MOST_OBJECTS}")
            size = photo.size
            if row % step == 0 or (has_boxes and size is None):
                size = _size(photo, found.reading)
            if not has_boxes:
                photos.append(photo)
                continue
            assert size is not None
            texts = tuple((text, _cut(phrases, size)) for text, phrases in photo.texts)
            boxes = tuple(cut_box(box, size, "an object") for box in photo.boxes)
            photos.append(replace(photo, texts=texts, boxes=boxes, size=size))
        except (ValueError, OSError) as error:
            if not skip:
                text = str(error)
                where = "" if str(photo.file) in text else f"{photo.key}: "
                raise ValueError(f"{found.source}: {where}{text.rstrip('.')}. {WAY_OUT}") from error
            found.left.add(f"{photo.key}: {error}")
    if not photos:
        why = f": {some(found.left.reasons)}" if found.left.count else ""
        raise ValueError(f"{found.source} has no picture with a caption that can be read{why}")
    return replace(found, photos=tuple(photos))


def _size(photo: Photo, reading: Reading) -> tuple[int, int]:
    """Height and width that the picture is read with, which are those that are stated."""
    if reading.skip_broken and (problem := damage(photo.file)):
        raise ValueError(problem)
    height, width, turn = read_header(photo.file)
    stored = (height, width)
    upright = (width, height) if turn > 4 else stored
    if photo.size is not None and photo.size not in (stored, upright):
        raise ValueError(_mismatch(photo, upright))
    return photo.size or (stored if reading.ignore_exif else upright)


def _cut(phrases: Sequence[Span], size: tuple[int, int]) -> tuple[Span, ...]:
    return tuple(
        replace(s, boxes=tuple(cut_box(b, size, f"phrase {s.start}-{s.end}") for b in s.boxes))
        for s in phrases
    )


# --- from JSON -----------------------------------------------------------------------------------


def box_of(value: Any, where: str) -> Box:
    """A box of JSON, x0 y0 x1 y1 in pixels."""
    if not isinstance(value, list) or len(value) != 4 or not all(map(is_number, value)):
        raise ValueError(f"{where} has the box {str(value)[:60]}, expected x0, y0, x1, y1")
    box = (float(value[0]), float(value[1]), float(value[2]), float(value[3]))
    if not (box[0] < box[2] and box[1] < box[3]):
        check_box(box, None, where)
    return box


def text_of(caption: object, phrases: object = None) -> Text:
    """A caption of JSON and the phrases [{"start", "end", "boxes"}, ...] of it, if stated.

    Raises:
        ValueError: One does not fit.
    """
    text = checked_caption(caption)
    if phrases is None:
        return text.strip(), ()
    if not isinstance(phrases, list) or not all(isinstance(item, dict) for item in phrases):
        raise ValueError("its phrases are no list of objects with start, end and boxes")
    if len(phrases) > MOST_PHRASES:
        raise ValueError(f"it has {len(phrases)} phrases, more than {MOST_PHRASES}")
    found = []
    for item in phrases:
        start, end, boxes = item.get("start"), item.get("end"), item.get("boxes", [])
        if not all(isinstance(n, int) and not isinstance(n, bool) for n in (start, end)):
            raise ValueError(f"phrase {str(item)[:60]} needs whole numbers start and end")
        if not isinstance(boxes, list):
            raise ValueError(f"phrase {start}-{end} has boxes that are no list")
        where = f"phrase {start}-{end}"
        found.append(Span(start, end, tuple(box_of(box, where) for box in boxes)))
    return text, checked_spans(text, found)


def objects_of(value: object) -> tuple[Object, ...]:
    """Objects of JSON, [{"name", "box"}, ...]."""
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise ValueError("its objects are no list of objects with name and box")
    found = []
    for item in value:
        name = item.get("name")
        if not isinstance(name, str) or not name.strip():
            raise ValueError(f"object {str(item)[:60]} needs a name")
        found.append((name.strip(), box_of(item.get("box"), f"object {name[:40]!r}")))
    return tuple(found)
