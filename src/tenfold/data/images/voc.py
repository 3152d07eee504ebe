"""Pascal VOC 2012 with image-level labels, and SBD's masks beside it, as papers on seeds use them.

Lists hold bare names (VOC, IRN, MCTformer) or pairs of paths (PSA, SEAM). Labels are those of
`cls_labels.npy`, else of `Annotations/*.xml`, else of the masks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree

import numpy as np

from ..io.problems import some
from .cls_labels import find_cls_labels, read_cls_labels
from .decode import Reading
from .folders import inside_of
from .image_labels import Item, MultiLabelSet, plain_table
from .segmentation import IGNORED, VOC, read_labels, read_text

CLASSES = VOC[1:]
XML_NAMES = {name.replace(" ", ""): row for row, name in enumerate(CLASSES)}
"""Names as annotations write them."""
LISTS = {
    "train": ("train_aug", "trainaug", "train_aug_id", "train_id", "train"),
    "val": ("val", "val_id"),
    "test": ("test", "test_id"),
}
"""Split -> names of its list; of the first that is there, the pictures are taken."""
PLACES = ("ImageSets/Segmentation", "ImageSets/SegmentationAug", "ImageSets", "voc12", "voc", ".")
"""Folders of lists."""
MOST_XML = 2**20

Named = tuple[str, Path, Path | None]
"""Name of a picture, its file and its mask."""


def open_voc(path: Path, split: str, reading: Reading) -> MultiLabelSet:
    """Open a split of the folder VOC2012, or of one above it.

    "train" is SBD's list of 10,582 pictures if it is there. A mask is what the list pairs with the
    picture; of a bare name, that in `SegmentationClass`: the other pictures of SBD have none, so
    that seeds are measured on the 1,464 that papers measure on. Only if there is no such folder,
    `SegmentationClassAug` is taken for all.

    Raises:
        ValueError: A list, a label or a mask does not fit; the error names it.
        FileNotFoundError: A list or a picture is not there.
    """
    folder = _root(path)
    if split not in LISTS:
        raise ValueError(f"VOC has no split {split!r}; it has {', '.join(LISTS)}")
    listing = _listing(folder, path, split)
    named = _pairs(listing, folder, reading)
    missing = [str(image) for _, image, _ in named if not image.is_file()]
    missing += [str(mask) for _, _, mask in named if mask is not None and not mask.is_file()]
    if missing:
        raise FileNotFoundError(
            f"{listing} lists {len(missing)} files that are not there: {some(missing)}. Unpack the "
            "set again."
        )
    label, how = _labels(folder, path, named)
    table, items = plain_table(len(CLASSES)), []
    for name, image, mask in named:
        ignore = reading.ignore_exif
        items.append(Item(name, image, label(name, mask), mask, table, ignore_exif=ignore))
    return MultiLabelSet("voc2012", "real", CLASSES, tuple(items), how)


def _root(path: Path) -> Path:
    places = (path, path / "VOC2012", path / "VOCdevkit" / "VOC2012")
    found = next((place for place in places if (place / "JPEGImages").is_dir()), None)
    if found is None:
        raise FileNotFoundError(f"{path} holds no JPEGImages. Give the folder VOCdevkit/VOC2012.")
    return found


def _listing(folder: Path, path: Path, split: str) -> Path:
    roots = dict.fromkeys((folder, path))
    files = [r / p / f"{name}.txt" for name in LISTS[split] for r in roots for p in PLACES]
    found = next((file for file in files if file.is_file()), None)
    if found is None:
        raise FileNotFoundError(
            f"{folder / PLACES[0] / split}.txt is not there; it lists the pictures of the split"
        )
    return found


def _pairs(listing: Path, folder: Path, reading: Reading) -> list[Named]:
    """Name, picture and mask of each line."""
    own, of_sbd = folder / "SegmentationClass", folder / "SegmentationClassAug"
    masks = own if own.is_dir() or not of_sbd.is_dir() else of_sbd
    found: list[Named] = []
    lines = read_text(listing, "lists the split's pictures").splitlines()
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words:
            continue
        where = f"{listing} line {number}"
        if len(words) > 2 or not all(re.fullmatch(r"[\w./-]+", word) for word in words):
            raise ValueError(f"{where} is no name and no pair of paths: {line[:80]!r}")
        if len(words) == 1 and "/" not in words[0]:
            name = _underlined(words[0].removesuffix(".jpg"))
            image, mask = folder / "JPEGImages" / f"{name}.jpg", masks / f"{name}.png"
            known = mask if mask.is_file() else None
        else:
            image, *more = (folder / word.lstrip("/") for word in words)
            name, known = PurePosixPath(words[0]).stem, more[0] if more else None
            if known is not None and known.stem != name:
                raise ValueError(f"{where} pairs {name} with {known.name}; it needs its own mask")
        for file in (image, known):
            if file is not None:
                inside_of(folder, file, reading.follow_links)
        found.append((name, image, known))
    names = [name for name, _, _ in found]
    if len(set(names)) < len(names):
        raise ValueError(f"{listing} lists a picture twice. Keep one line of each.")
    return found


def _underlined(name: str) -> str:
    """IRN's numbers as VOC's names: 2007000032 is 2007_000032."""
    return f"{name[:4]}_{name[4:]}" if name.isdecimal() and len(name) == 10 else name


# --- labels --------------------------------------------------------------------------------------

Label = Callable[[str, Path | None], tuple[int, ...]]


def _labels(folder: Path, path: Path, named: Sequence[Named]) -> tuple[Label, str]:
    """What gives a picture's labels, and how to say so."""
    places = [r / p for r in dict.fromkeys((folder, path, folder.parent)) for p in PLACES]
    file = find_cls_labels(*places)
    if file is not None:
        labels = read_cls_labels(file, len(CLASSES))
        lost = [name for name, _, _ in named if name not in labels]
        if lost:
            raise ValueError(
                f"{file} has no labels of {len(lost)} listed pictures: {some(lost)}. Take the file "
                "of the whole set, or remove it: labels are read from Annotations then."
            )
        return lambda name, _: labels[name], f"{file.name}"
    notes = folder / "Annotations"
    has_note = [(notes / f"{name}.xml").is_file() for name, _, _ in named]
    bare = [n for (n, _, mask), there in zip(named, has_note, strict=True) if not (there or mask)]
    if bare:
        raise ValueError(
            f"{folder}: {len(bare)} pictures have neither cls_labels.npy, nor Annotations/*.xml, "
            f"nor a mask to take labels from: {some(bare)}"
        )
    how = "Annotations/*.xml (objects called difficult too)"
    if not all(has_note):
        others = len(has_note) - sum(has_note)
        how = f"{how}; of {others} pictures the masks" if any(has_note) else "made from the masks"

    def label(name: str, mask: Path | None) -> tuple[int, ...]:
        file = notes / f"{name}.xml"
        return _of_xml(file) if file.is_file() or mask is None else _of_mask(mask)

    return label, how


def _of_xml(file: Path) -> tuple[int, ...]:
    """Classes of the objects of an annotation."""
    if file.stat().st_size > MOST_XML:
        raise ValueError(f"{file} has more than {MOST_XML} bytes; it should be a short annotation")
    content = file.read_bytes()
    if b"<!" in content and (b"<!DOCTYPE" in content or b"<!ENTITY" in content):
        raise ValueError(f"{file} defines entities, which VOC's annotations do not. Remove them.")
    try:
        names = [one.findtext("name", "").strip() for one in ElementTree.fromstring(content).iter(
            "object")]  # fmt: skip
    except ElementTree.ParseError as error:
        raise ValueError(f"{file} is no XML: {error}. Unpack the set again.") from error
    wrong = [name for name in names if name.replace(" ", "") not in XML_NAMES]
    if wrong:
        raise ValueError(f"{file} has an object {wrong[0][:40]!r}, which is no class of VOC.")
    return tuple(sorted({XML_NAMES[name.replace(" ", "")] for name in names}))


def _of_mask(mask: Path) -> tuple[int, ...]:
    numbers = np.unique(read_labels(mask))
    numbers = numbers[(numbers != 0) & (numbers != IGNORED)]
    if numbers.max(initial=0) > len(CLASSES):
        raise ValueError(f"{mask} holds {numbers.max()}; VOC has classes 1 to {len(CLASSES)}")
    return tuple((numbers.astype(int) - 1).tolist())
