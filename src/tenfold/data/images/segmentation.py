"""Pictures with label maps in the layouts that people have on disk, decoded when asked for."""

from __future__ import annotations

import re
import struct
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int16, UInt8
from PIL import Image

from tenfold.files import parse_json

from ..io.problems import BROKEN, some
from .decode import (
    ENDINGS,
    MAX_PIXELS,
    USUAL,
    Reading,
    first_sound,
    read_header,
    read_picture,
    read_size,
)
from .folders import inside_of, visible

IGNORED = 255
CAMVID = (
    "sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian",
    "bicyclist",
)  # fmt: skip
VOC = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair",
    "cow", "dining table", "dog", "horse", "motorbike", "person", "potted plant", "sheep", "sofa",
    "train", "tv monitor",
)  # fmt: skip
ADE_CLASSES = 150
ADE_SPLITS = {"train": "training", "val": "validation"}
MOST_TEXT = 16 * 2**20
"""Largest list of names or pictures that is read (bytes)."""

Pair = tuple[Path, Path]
Pairs = tuple[Pair, ...]
Scene = tuple[UInt8[np.ndarray, "height width 3"], UInt8[np.ndarray, "height width"]]


@dataclass(frozen=True)
class Segmented:
    """A set of pictures and label maps."""

    classes: tuple[str, ...]
    files: tuple[Pair, ...] = ()
    shift: int = 0
    """Subtracted from stored labels: 1 where 0 means unlabelled (ADE20K)."""
    void: tuple[int, ...] = ()
    """Stored labels that do not count, besides 255."""
    values: tuple[int, ...] = ()
    """Stored number of each class, where it is another than its place: 0 and 255 of a mask."""
    table: tuple[int, ...] = ()
    """Place of the class of each stored number 0-255, where a class map says so: 255 does not
    count, -1 must not be there."""
    first_channel: bool = False
    """Maps of three channels have the class in the first, other things in the others (SYNTHIA)."""
    colours: tuple[tuple[int, int, int], ...] = ()
    """Colour of each class in label maps that are pictures in colours."""
    held: tuple[Scene, ...] = field(default=(), repr=False)
    """Scenes in memory, of a set without files."""
    reading: Reading = USUAL
    replaced: dict[str, str] = field(default_factory=dict, repr=False, compare=False)
    """Name -> reason, of pictures in whose place another was put so far."""

    def __len__(self) -> int:
        return len(self.files) or len(self.held)

    def at(self, rows: Sequence[int]) -> Segmented:
        """The scenes of these rows."""
        files = tuple(self.files[i] for i in rows) if self.files else ()
        held = tuple(self.held[i] for i in rows) if self.held else ()
        return replace(self, files=files, held=held)

    def scene(self, index: int) -> Scene:
        """A picture and its labels: 0 to the number of classes less one; 255 does not count.

        With `skip_broken`, the next pair that can be read is put in place of one that cannot.
        """
        if self.held:
            return self.held[index]
        if not self.reading.skip_broken:
            return self._decoded(index)
        rows = [*range(index, len(self)), *range(index)]
        return first_sound(self._decoded, rows, lambda row: str(self.files[row][0]), self.replaced)

    def _decoded(self, index: int) -> Scene:
        picture_file, label_file = self.files[index]
        stored = self._stored(label_file)
        picture = read_as(picture_file, label_file, stored.shape, self.reading.ignore_exif)
        return picture, self._counted(stored, label_file)

    def labels(self, index: int) -> UInt8[np.ndarray, "height width"]:
        """The labels of a scene without its picture, which is not looked at."""
        if self.held:
            return self.held[index][1]
        file = self.files[index][1]
        return self._counted(self._stored(file), file)

    def _stored(self, file: Path) -> UInt8[np.ndarray, "height width"]:
        return read_labels(file, self.colours, self.first_channel)

    def _counted(
        self, stored: UInt8[np.ndarray, "height width"], label_file: Path
    ) -> UInt8[np.ndarray, "height width"]:
        """Places of the classes, each of which must be one."""
        labels = self._labels(stored)
        wrong = np.argwhere((labels < 0) | ((labels >= len(self.classes)) & (labels != IGNORED)))
        if len(wrong):
            row, column = wrong[0]
            first, last = self.shift, len(self.classes) - 1 + self.shift
            kept = f"stored as {first}-{last}; 255 is ignored"
            if self.values:
                kept = f"stored as {some(self.values)}"
            if self.table:
                known = [number for number, place in enumerate(self.table) if place >= 0]
                kept = f"of the stored numbers, the class map knows {some(known, 50)}"
            raise ValueError(
                f"label map {label_file} holds label {stored[row, column]} at row {row}, column "
                f"{column}, but the set has {len(self.classes)} classes ({kept}). Remap it, or "
                "list more classes."
            )
        return labels.astype(np.uint8)

    def _labels(self, stored: UInt8[np.ndarray, "height width"]) -> Int16[np.ndarray, "h w"]:
        """Places of the classes; -1 for a number that none has."""
        if self.table:
            return np.array(self.table, dtype=np.int16)[stored]
        if self.values:
            table = np.full(256, -1, dtype=np.int16)
            table[list(self.values)] = np.arange(len(self.values))
            return table[stored]
        labels = stored.astype(np.int16) - self.shift
        labels[labels < 0] = IGNORED
        labels[np.isin(stored, (*self.void, IGNORED))] = IGNORED
        return labels


def read_as(
    file: Path, label_file: Path, size: tuple[int, ...], ignore_exif: bool = False
) -> UInt8[np.ndarray, "height width 3"]:
    """A picture of the height and width of its label map; ValueError if it is of another size."""
    picture = read_picture(file, ignore_exif)
    if picture.shape[:2] != size and picture.shape[1::-1] == size:
        # an EXIF note turns one of the two: the labels are of the picture as it is stored
        picture = read_picture(file, not ignore_exif)
    _require_same(file, picture.shape[:2], label_file, size)
    return picture


def _require_same(
    picture_file: Path, picture: tuple[int, ...], label_file: Path, labels: tuple[int, ...]
) -> None:
    if picture != labels:
        raise ValueError(
            f"label map {label_file} has {labels[1]} x {labels[0]} pixels, its picture "
            f"{picture_file.name} {picture[1]} x {picture[0]}. Resize one (labels without "
            "interpolation), or set data.skip_broken."
        )


def fitting(found: Segmented, folder: Path) -> Segmented:
    """A set of the folder, in which each label map has its picture's size; only headers are read.

    An EXIF note may turn either of the two. A pair that does not fit, or of which a header cannot
    be read, is a ValueError, or left out with `skip_broken`.
    """
    kept = fitting_pairs(found.files, folder, found.reading)
    return found if len(kept) == len(found.files) else replace(found, files=kept)


def fitting_pairs(pairs: Sequence[Pair], folder: Path, reading: Reading) -> Pairs:
    """The same of pairs alone."""
    kept, broken = [], []
    for picture, label_map in pairs:
        try:
            size, mapped = read_size(picture), read_size(label_map)
            if size[::-1] == mapped and read_header(picture)[2] > 4:
                size = mapped
            _require_same(picture, size, label_map, mapped)
        except (ValueError, OSError) as error:
            if not reading.skip_broken:
                raise
            broken.append(str(error))
        else:
            kept.append((picture, label_map))
    if broken and not kept:
        raise ValueError(f"{folder}: no picture fits its label map: {some(broken)}")
    if broken:
        warnings.warn(
            f"{folder}: {len(broken)} of {len(pairs)} pictures left out: {some(broken)}",
            stacklevel=4,
        )
    return tuple(kept)


def of_arrays(classes: tuple[str, ...], pairs: Sequence[Scene]) -> Segmented:
    """A set in memory."""
    return Segmented(classes, held=tuple(pairs))


def read_labels(
    file: Path, colours: Sequence[tuple[int, int, int]] = (), first_channel: bool = False
) -> UInt8[np.ndarray, "height width"]:
    """A label map as it is stored: one number a pixel, grey or palette, never converted.

    Grey that is saved as three equal channels counts as grey. With `colours`, a pixel of a map in
    colours has the number of its colour's place; with `first_channel`, that of its first channel.
    """
    if not file.is_file():
        raise FileNotFoundError(f"label map {file} is not there.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(file, formats=("PNG", "BMP", "TIFF")) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise ValueError(f"it has more than {MAX_PIXELS} pixels")
                if getattr(image, "n_frames", 1) > 1:
                    raise ValueError("it is an animation; save one frame")
                values = _indices(image, file, colours, first_channel)
    except Image.UnidentifiedImageError as error:
        raise ValueError(
            f"label map {file} is no PNG, or damaged. Save it as PNG of 8 bits; formats such as "
            "JPEG change labels."
        ) from error
    except (*BROKEN, struct.error, TypeError, IndexError, ArithmeticError, MemoryError) as error:
        raise ValueError(f"label map {file} cannot be read: {error}") from error
    is_stretched = image.format == "PNG" and image.mode == "L"
    return values // STRETCHED.get(_bits(file), 1) if is_stretched else values


def _indices(
    image: Image.Image, file: Path, colours: Sequence[tuple[int, int, int]], first_channel: bool
) -> UInt8[np.ndarray, "height width"]:
    """One number a pixel."""
    if image.mode in ("L", "P", "1"):
        return np.asarray(image).astype(np.uint8)
    if image.mode.startswith("I"):
        wide = np.asarray(image)
        if wide.min() < 0 or wide.max() > IGNORED:
            raise ValueError(f"it holds numbers up to {wide.max()}, more than {IGNORED}")
        return wide.astype(np.uint8)
    if image.mode not in ("RGB", "RGBA", "LA"):
        raise ValueError(f"it has mode {image.mode}, not one number (0-255) a pixel")
    if image.format == "PNG" and image.mode != "LA" and _bits(file) == 16:
        pixels = _lower_bytes(image, file)
    else:
        pixels = np.asarray(image.convert("RGB"))
    if first_channel:
        return pixels[..., 0]
    if colours:
        return _by_colour(pixels, colours)
    if (pixels != pixels[..., :1]).any():
        raise ValueError(
            f"it has mode {image.mode}, not one number (0-255) a pixel; colours must be turned "
            "into class numbers first, or, in a folder of your own, be listed with the classes "
            "(labelmap.txt)"
        )
    return pixels[..., 0]


def _by_colour(
    pixels: UInt8[np.ndarray, "height width 3"], colours: Sequence[tuple[int, int, int]]
) -> UInt8[np.ndarray, "height width"]:
    weights = np.array([1 << 16, 1 << 8, 1])
    codes, wanted = pixels @ weights, np.array(colours) @ weights
    order = wanted.argsort(kind="stable")
    place = order[np.searchsorted(wanted, codes, sorter=order).clip(max=len(wanted) - 1)]
    wrong = np.argwhere(wanted[place] != codes)
    if len(wrong):
        row, column = wrong[0]
        raise ValueError(
            f"it has colour {pixels[row, column].tolist()} at row {row}, column {column}, which no "
            "class has"
        )
    return place.astype(np.uint8)


STRETCHED = {2: 85, 4: 17}
"""Bits of grey -> the factor by which Pillow stretches it to 0-255."""


def _bits(file: Path) -> int:
    """Bits of a number in a PNG; the place is the same in every one."""
    with file.open("rb") as opened:
        return opened.read(25)[24]


def _lower_bytes(image: Image.Image, file: Path) -> UInt8[np.ndarray, "height width 3"]:
    """Colours of 16 bits a channel, which must be below 256.

    Of each two bytes, Pillow keeps the upper one, the first in a PNG: such a map would read as 0
    everywhere. Told that the order is the other one, it keeps the lower.
    """
    upper = np.asarray(image)[..., :3]
    if upper.any():
        raise ValueError(f"it holds numbers of 16 bits, more than {IGNORED}")
    with Image.open(file, formats=("PNG",)) as again:
        again.tile = [tile._replace(args=f"{again.mode};16L") for tile in again.tile]
        return np.asarray(again)[..., :3]


def open_segmentation(folder: Path, name: str, split: str, reading: Reading = USUAL) -> Segmented:
    """Open a split ("train", "val" or "test") of camvid, car_parts, ade20k or voc2012."""
    openers = {"camvid": _camvid, "car_parts": _car_parts, "ade20k": _ade20k, "voc2012": _voc}
    if name not in openers:
        raise ValueError(f"{name!r} is no set of label maps; these are: {', '.join(openers)}")
    found = openers[name](Path(folder), split)
    if not len(found):
        raise ValueError(f"{folder}: split {split!r} of {name} holds no picture")
    return replace(found, reading=reading)


def paired(pictures: Path, labels: Path, split: str, reading: Reading = USUAL) -> Pairs:
    """Pictures and label maps of the same name, but for the ending and one that all maps have.

    A name that has but one of the two is a ValueError, or left out with `skip_broken`.
    """
    for folder in (pictures, labels):
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder} is not there; split {split!r} needs it")
    sides: list[dict[str, Path]] = []
    for folder in (pictures, labels):
        files = [f for f in visible(folder, folder, True) if f.suffix.lower() in ENDINGS]
        files = [inside_of(folder, f, reading.follow_links) for f in files]
        if pictures == labels:
            files = [f for f in files if bool(SUFFIX.search(f.stem)) == (len(sides) == 1)]
        sides.append({f.stem: f for f in files})
        if len(sides[-1]) < len(files):
            twice = [stem for stem, times in Counter(f.stem for f in files).items() if times > 1]
            raise ValueError(
                f"{folder} holds several files of one name but for the ending: {some(twice)}. "
                "Keep one of each."
            )
    if sides[1] and not set(sides[0]) & set(sides[1]):
        sides[1] = {SUFFIX.sub("", stem): file for stem, file in sides[1].items()}
    return matched(sides[0], sides[1], f"{pictures} and {labels}", reading)


def matched(
    pictures: dict[str, Path], labels: dict[str, Path], where: str, reading: Reading
) -> Pairs:
    """Pictures and label maps of the same key; one alone as in `paired`."""
    alone = sorted(set(pictures) ^ set(labels))
    if alone:
        place = "label map" if alone[0] in pictures else "picture"
        text = f"{alone[0]!r} has no {place} ({len(alone)} such names: {some(alone)})"
        if not reading.skip_broken:
            raise ValueError(
                f"{where}: {text}. Add what is missing, remove the other, or set data.skip_broken."
            )
        warnings.warn(f"{where}: {text}; left out", stacklevel=3)
    return tuple((file, labels[key]) for key, file in pictures.items() if key in labels)


SUFFIX = re.compile(
    r"[_-](masks?|labels?|labelids|labeltrainids|seg|segmentation|gt|annot|l)$", re.IGNORECASE
)
"""End of the names of label maps whose pictures are called the same without it."""


def _camvid(folder: Path, split: str) -> Segmented:
    pairs = paired(folder / split, folder / f"{split}annot", split)
    return Segmented(CAMVID, pairs, void=(len(CAMVID),))


def read_text(file: Path, what: str) -> str:
    """A short list in UTF-8; `what` ends the sentence "it ..." of errors."""
    if not file.is_file():
        raise FileNotFoundError(f"{file} is not there; it {what}")
    if file.stat().st_size > MOST_TEXT:
        raise ValueError(f"{file} has more than {MOST_TEXT} bytes; it should be a list that {what}")
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is no UTF-8 text: {error.reason}. Save it as UTF-8.") from error


def read_names(file: Path, what: str) -> Any:
    """The value of a short JSON file; `what` as in `read_text`."""
    text = read_text(file, what)
    try:
        return parse_json(text)
    except ValueError as error:
        raise ValueError(f"{file} is no JSON: {error}") from error


def _car_parts(folder: Path, split: str) -> Segmented:
    """The split is how file names begin: "train" or "test"."""
    file = folder / "labels.json"
    content = read_names(file, "lists the parts")
    names = content.get("labels") if isinstance(content, dict) else content
    if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
        raise ValueError(f"{file} is no list of names")
    pairs = [p for p in paired(folder / "images", folder / "parts", split)
             if p[0].name.startswith(f"{split}_")]  # fmt: skip
    return Segmented(tuple(names), tuple(pairs))


def _ade20k(folder: Path, split: str) -> Segmented:
    part = ADE_SPLITS.get(split, split)
    pairs = paired(folder / "images" / part, folder / "annotations" / part, split)
    return Segmented(_ade_names(folder / "objectInfo150.txt"), pairs, shift=1)


def _ade_names(file: Path) -> tuple[str, ...]:
    """Names of the 150 classes, from the benchmark's own list where it lies beside the pictures."""
    if not file.is_file():
        return tuple(f"class {i}" for i in range(1, ADE_CLASSES + 1))
    lines = read_text(file, "names the classes").splitlines()[1:]
    rows = [re.split(r"\t+", line.strip()) for line in lines]
    names = tuple(re.split("[,;]", r[-1])[0].strip() for r in rows if r[0].strip().isdigit())
    if len(names) != ADE_CLASSES:
        raise ValueError(f"{file} lists {len(names)} classes, expected {ADE_CLASSES}")
    return names


def _voc(folder: Path, split: str) -> Segmented:
    listing = folder / "ImageSets" / "Segmentation" / f"{split}.txt"
    stems = read_text(listing, "lists the split's pictures").split()
    pairs = []
    for stem in stems:
        if not re.fullmatch(r"[\w.-]+", stem):
            raise ValueError(f"{listing}: {stem[:40]!r} is no name of a picture")
        pairs.append((folder / "JPEGImages" / f"{stem}.jpg", folder / "SegmentationClass"
                      / f"{stem}.png"))  # fmt: skip
        for path in pairs[-1]:
            if not inside_of(folder, path).is_file():
                raise FileNotFoundError(f"{path}, listed in {listing}, is not there")
    return Segmented(VOC, tuple(pairs))
