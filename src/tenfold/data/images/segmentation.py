"""Pictures with label maps in the layouts that people have on disk, decoded when asked for."""

from __future__ import annotations

import json
import re
import struct
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from ..io.problems import BROKEN, some
from .decode import ENDINGS, MAX_PIXELS, inside_of, read_picture

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
    held: tuple[Scene, ...] = field(default=(), repr=False)
    """Scenes in memory, of a set without files."""

    def __len__(self) -> int:
        return len(self.files) or len(self.held)

    def at(self, rows: Sequence[int]) -> Segmented:
        """The scenes of these rows."""
        files = tuple(self.files[i] for i in rows) if self.files else ()
        held = tuple(self.held[i] for i in rows) if self.held else ()
        return replace(self, files=files, held=held)

    def scene(self, index: int) -> Scene:
        """A picture and its labels: 0 to the number of classes less one; 255 does not count."""
        if self.held:
            return self.held[index]
        picture_file, label_file = self.files[index]
        picture, stored = read_picture(picture_file), read_labels(label_file)
        if picture.shape[:2] != stored.shape:
            raise ValueError(
                f"label map {label_file} has {stored.shape[1]} x {stored.shape[0]} pixels, its "
                f"picture {picture_file.name} {picture.shape[1]} x {picture.shape[0]}. Resize one "
                "(labels without interpolation), and save upright what an EXIF note turns."
            )
        labels = stored.astype(np.int16) - self.shift
        labels[np.isin(stored, (*self.void, IGNORED))] = IGNORED
        labels[labels < 0] = IGNORED
        wrong = np.argwhere((labels >= len(self.classes)) & (labels != IGNORED))
        if len(wrong):
            row, column = wrong[0]
            first, last = self.shift, len(self.classes) - 1 + self.shift
            raise ValueError(
                f"label map {label_file} holds label {stored[row, column]} at row {row}, column "
                f"{column}, but the set has {len(self.classes)} classes (stored as {first}-{last}; "
                "255 is ignored). Remap it, or list more classes."
            )
        return picture, labels.astype(np.uint8)


def of_arrays(classes: tuple[str, ...], pairs: Sequence[Scene]) -> Segmented:
    """A set in memory."""
    return Segmented(classes, held=tuple(pairs))


def read_labels(file: Path) -> UInt8[np.ndarray, "height width"]:
    """A label map as it is stored: one number a pixel, grey or palette, never converted."""
    if not file.is_file():
        raise FileNotFoundError(f"label map {file} is not there.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(file, formats=("PNG",)) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise ValueError(f"it has more than {MAX_PIXELS} pixels")
                if image.mode not in ("L", "P", "1"):
                    raise ValueError(
                        f"it has mode {image.mode}, not one number (0-255) a pixel; colours must "
                        "be turned into class numbers first"
                    )
                if getattr(image, "n_frames", 1) > 1:
                    raise ValueError("it is an animation; save one frame")
                values = np.asarray(image).astype(np.uint8)
    except Image.UnidentifiedImageError as error:
        raise ValueError(
            f"label map {file} is no PNG, or damaged. Save it as PNG of 8 bits; formats such as "
            "JPEG change labels."
        ) from error
    except (*BROKEN, struct.error, TypeError, IndexError, OverflowError, MemoryError) as error:
        raise ValueError(f"label map {file} cannot be read: {error}") from error
    return values // _stretch(file) if image.mode == "L" else values


def _stretch(file: Path) -> int:
    """Find the factor by which Pillow stretched grey of 2 or 4 bits to 0-255."""
    with file.open("rb") as opened:
        bits = opened.read(25)[24]  # of a number; the place is the same in every PNG
    return {2: 85, 4: 17}.get(bits, 1)


def open_segmentation(folder: Path, name: str, split: str) -> Segmented:
    """Open a split ("train", "val" or "test") of camvid, car_parts, ade20k, voc2012 or folder."""
    openers = {
        "camvid": _camvid, "car_parts": _car_parts, "ade20k": _ade20k, "voc2012": _voc,
        "folder": _folder,
    }  # fmt: skip
    if name not in openers:
        raise ValueError(f"{name!r} is no set of label maps; these are: {', '.join(openers)}")
    found = openers[name](Path(folder), split)
    if not len(found):
        raise ValueError(f"{folder}: split {split!r} of {name} holds no picture")
    return found


def _paired(pictures: Path, labels: Path, split: str) -> tuple[Pair, ...]:
    """Pictures and label maps of the same name (but for the ending)."""
    for folder in (pictures, labels):
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder} is not there; split {split!r} needs it")
    sides = []
    for folder in (pictures, labels):
        files = sorted(f for f in folder.iterdir() if f.suffix.lower() in ENDINGS)
        files = [inside_of(folder, f) for f in files if f.name[0] != "."]
        twice = [stem for stem, times in Counter(f.stem for f in files).items() if times > 1]
        if twice:
            raise ValueError(
                f"{folder} holds several files of one name but for the ending: {some(twice)}. "
                "Keep one of each."
            )
        sides.append({f.stem: f for f in files})
    alone = sorted(set(sides[0]) ^ set(sides[1]))
    if alone:
        place = "label map" if alone[0] in sides[0] else "picture"
        raise ValueError(
            f"{pictures} and {labels}: {alone[0]!r} has no {place} ({len(alone)} such names: "
            f"{some(alone)}). Add what is missing, or remove the other."
        )
    return tuple((sides[0][stem], sides[1][stem]) for stem in sides[0])


def _camvid(folder: Path, split: str) -> Segmented:
    pairs = _paired(folder / split, folder / f"{split}annot", split)
    return Segmented(CAMVID, pairs, void=(len(CAMVID),))


def _text(file: Path, what: str) -> str:
    if not file.is_file():
        raise FileNotFoundError(f"{file} is not there; it {what}")
    if file.stat().st_size > MOST_TEXT:
        raise ValueError(f"{file} has more than {MOST_TEXT} bytes; it should be a list that {what}")
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is no UTF-8 text: {error.reason}. Save it as UTF-8.") from error


def _car_parts(folder: Path, split: str) -> Segmented:
    """The split is how file names begin: "train" or "test"."""
    file = folder / "labels.json"
    try:
        content = json.loads(_text(file, "lists the parts"))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{file} is no JSON: {error}") from error
    names = content.get("labels") if isinstance(content, dict) else content
    if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
        raise ValueError(f"{file} is no list of names")
    pairs = [p for p in _paired(folder / "images", folder / "parts", split)
             if p[0].name.startswith(f"{split}_")]  # fmt: skip
    return Segmented(tuple(names), tuple(pairs))


def _ade20k(folder: Path, split: str) -> Segmented:
    part = ADE_SPLITS.get(split, split)
    pairs = _paired(folder / "images" / part, folder / "annotations" / part, split)
    return Segmented(_ade_names(folder / "objectInfo150.txt"), pairs, shift=1)


def _ade_names(file: Path) -> tuple[str, ...]:
    """Names of the 150 classes, from the benchmark's own list where it lies beside the pictures."""
    if not file.is_file():
        return tuple(f"class {i}" for i in range(1, ADE_CLASSES + 1))
    lines = _text(file, "names the classes").splitlines()[1:]
    rows = [re.split(r"\t+", line.strip()) for line in lines]
    names = tuple(re.split("[,;]", r[-1])[0].strip() for r in rows if r[0].strip().isdigit())
    if len(names) != ADE_CLASSES:
        raise ValueError(f"{file} lists {len(names)} classes, expected {ADE_CLASSES}")
    return names


def _voc(folder: Path, split: str) -> Segmented:
    listing = folder / "ImageSets" / "Segmentation" / f"{split}.txt"
    stems = _text(listing, "lists the split's pictures").split()
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


def _folder(folder: Path, split: str) -> Segmented:
    """`images/<split>` and `labels/<split>`, or `<split>/images` and `<split>/labels`.

    `classes.txt` has a name a line: from the maps alone, a class that a split lacks is not known.
    """
    file = folder / "classes.txt"
    lines = _text(file, "names the classes, one a line").splitlines()
    names = tuple(line.strip() for line in lines if line.strip())
    if not 2 <= len(names) <= IGNORED:
        raise ValueError(f"{file} names {len(names)} classes, allowed are 2 to {IGNORED}")
    sides = [folder / "images" / split, folder / "labels" / split]
    if not sides[0].is_dir() and (folder / split / "images").is_dir():
        sides = [folder / split / "images", folder / split / "labels"]
    return Segmented(names, _paired(sides[0], sides[1], split))
