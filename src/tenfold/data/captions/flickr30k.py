"""Flickr30k Entities: five sentences a photo whose noun phrases have boxes.

`Sentences/<id>.txt` has phrases as `[/EN#<number>/<kind> words]`, `Annotations/<id>.xml` the boxes
of each number, `{train,val,test}.txt` the photos of a split.
"""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

from tenfold.files import require_bounded

from ..images.decode import USUAL, Reading
from ..images.folders import inside_of
from ..io.problems import some
from .files import WAY_OUT, CaptionFiles, Photo, Text, looked_at
from .records import Box, LeftOut, Span, checked_caption, checked_spans

SPLITS = {"train": "train", "validation": "val", "test": "test"}
MOST_BYTES = 2**20
"""Of a list, and of the notes on one photo."""
MARK = re.compile(r"\[/EN#(\d+)(?:/[^\s\]]*)* ([^\]\[]*)\]")
"""A phrase: its number and its words."""
PLACES = ("flickr30k-images", "flickr30k_images", "Images", "images", ".")
"""Folders of the photos."""


def is_flickr30k(folder: Path) -> bool:
    """Return True for a folder of this layout."""
    return (folder / "Sentences").is_dir() and (folder / "Annotations").is_dir()


def open_flickr30k(folder: Path, split: str, reading: Reading = USUAL) -> CaptionFiles:
    """Open a split; without its list, all photos that have sentences are the test split.

    Raises:
        ValueError: Notes on a photo do not fit; the error names them. With `skip_broken` the photo
            is left out.
        FileNotFoundError: A file or a photo is not there.
    """
    if not is_flickr30k(folder):
        raise FileNotFoundError(f"{folder} needs the folders Sentences and Annotations")
    places = [folder / name for name in PLACES if (folder / name).is_dir()]
    photos, left = [], LeftOut()
    for name in _names(folder, split):
        try:
            photos.append(_photo(folder, places, name, reading))
        except (ValueError, FileNotFoundError) as error:
            if not reading.skip_broken:
                raise type(error)(f"{error}. {WAY_OUT}.") from error
            left.add(f"{name}: {error}")
    return looked_at(CaptionFiles("flickr30k", tuple(photos), (), folder, reading, left))


def splits_of(folder: Path) -> tuple[str, ...]:
    """Splits that have a list; the test alone if there is none."""
    found = tuple(split for split, name in SPLITS.items() if (folder / f"{name}.txt").is_file())
    return found or ("test",)


def _names(folder: Path, split: str) -> list[str]:
    if split not in splits_of(folder):
        raise ValueError(f"{folder} has no list {SPLITS.get(split, split)}.txt of a split")
    file = folder / f"{SPLITS[split]}.txt"
    if file.is_file():
        names = [line.strip() for line in _text(file).split("\n") if line.strip()]
        wrong = [name for name in names if not re.fullmatch(r"[\w-]{1,64}", name)]
        if wrong:
            raise ValueError(f"{file} has what is no number of a photo: {some(wrong)}")
        return names
    return sorted(file.stem for file in (folder / "Sentences").glob("*.txt"))


def _text(file: Path) -> str:
    require_bounded(file, MOST_BYTES)
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ValueError(f"{file}, line {line} is no UTF-8 text: {error.reason}") from error


def _photo(folder: Path, places: list[Path], name: str, reading: Reading) -> Photo:
    file = next(
        (f for p in places for f in (p / f"{name}{end}" for end in (".jpg", ".webp", ".png"))
         if f.is_file()), None,
    )  # fmt: skip
    if file is None:
        raise FileNotFoundError(f"{folder}: the photo {name}.jpg is not there")
    boxes, size = _boxes(folder / "Annotations" / f"{name}.xml")
    sentences = folder / "Sentences" / f"{name}.txt"
    texts = []
    for number, line in enumerate(_text(sentences).split("\n"), 1):
        if not line.strip():
            continue
        try:
            texts.append(text_of(line.strip(), boxes))
        except ValueError as error:
            raise ValueError(f"{sentences}, line {number}: {error}") from error
    if not texts:
        raise ValueError(f"{sentences} has no sentence")
    return Photo(inside_of(folder, file, reading.follow_links), file.name, tuple(texts), size=size)


def text_of(line: str, boxes: dict[str, tuple[Box, ...]]) -> Text:
    """A sentence without its marks, and its phrases with the boxes of their numbers."""
    text, phrases, at = "", [], 0
    for mark in MARK.finditer(line):
        text += line[at : mark.start()]
        start, at = len(text), mark.end()
        text += mark[2]
        if mark[2].strip():
            phrases.append(Span(start, len(text), boxes.get(mark[1], ())))
    text = checked_caption(text + line[at:])
    if "[/EN#" in text:
        raise ValueError(f"it has a phrase that does not end: {text[text.index('[/EN#') :][:40]!r}")
    return text, checked_spans(text, phrases)


def _boxes(file: Path) -> tuple[dict[str, tuple[Box, ...]], tuple[int, int]]:
    """Boxes by number, and height and width of the photo."""
    require_bounded(file, MOST_BYTES)
    content = file.read_bytes()
    if b"<!DOCTYPE" in content or b"<!ENTITY" in content:
        raise ValueError(f"{file} defines entities, which these annotations do not")
    try:
        root = ElementTree.fromstring(content)
    except ElementTree.ParseError as error:
        raise ValueError(f"{file} is no XML: {error}") from error
    found: dict[str, tuple[Box, ...]] = {}
    try:
        size = int(root.findtext("size/height", "")), int(root.findtext("size/width", ""))
        for one in root.iter("object"):
            corners = one.find("bndbox")
            if corners is None:  # "scene", or "nobndbox": the number has no place
                continue
            x0, y0, x1, y1 = (
                int(corners.findtext(k, "")) for k in ("xmin", "ymin", "xmax", "ymax")
            )
            # counted from 1, the last pixel inside
            box = (float(x0 - 1), float(y0 - 1), float(x1), float(y1))
            for number in one.iter("name"):
                key = (number.text or "").strip()
                found[key] = (*found.get(key, ()), box)
    except ValueError as error:
        raise ValueError(f"{file} has a size or a box that is no whole number: {error}") from error
    return found, size
