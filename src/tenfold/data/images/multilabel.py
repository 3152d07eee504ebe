"""Sets of pictures with image-level labels: public ones, and folders of a user's own.

Training sees pictures and labels; masks are for measuring.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from tenfold.files import misfit

from ..catalog import find_or_explain
from .class_maps import NUMBERS, UNKNOWN
from .coco_labels import open_coco_labels
from .decode import ENDINGS, USUAL, Reading
from .folders import inside_of, visible
from .image_labels import (
    Item,
    Mask,
    MultiLabelSet,
    Picture,
    Unlabelled,
    check_seen,
    checked,
    plain_table,
    read_image,
    read_mask,
)
from .segmentation import IGNORED, read_labels, read_names, read_text
from .tags import open_folder
from .voc import open_voc

__all__ = [
    "Item", "Mask", "MultiLabelSet", "Picture", "Unlabelled", "check_seen", "open_set",
    "read_image", "read_mask",
]  # fmt: skip

OWN = "folder"
"""Name of a set of the user's own."""
SMALL_SHARE = 0.005
"""Of a picture's pixels: a smaller region gives no label and does not count in the mask."""
GARMENTS = {
    "outerwear": ("coat", "jacket", "blazer", "cape", "suit", "cardigan"),
    "top": (
        "blouse", "shirt", "t-shirt", "sweater", "sweatshirt", "top", "vest", "hoodie", "jumper",
    ),
    "trousers": ("pants", "jeans", "shorts", "leggings"),
    "skirt": ("skirt",),
    "dress": ("dress", "romper", "bodysuit"),
    "bag": ("bag", "purse", "wallet"),
}  # fmt: skip
"""Tags of clothing_parsing in groups. Those that nearly every picture has (skin, hair, shoes) teach
nothing as labels: they, and the small things that remain, do not count."""


def open_set(
    name: str,
    path: str | Path = "",
    split: str = "train",
    reading: Reading = USUAL,
    unlabelled: Unlabelled = "refuse",
    test_share: float = 0.2,
    seed: int = 0,
) -> MultiLabelSet:
    """Open a split ("train", "val", or "test" where there is one) of a set.

    Args:
        name: coco_wsss, clothing_parsing, voc2012, coco2014, coco2017, or folder for pictures of
            the user's own.
        path: Folder of the set (of the user's own: or a table of labels); empty looks where
            $TENFOLD_DATA has it.
        split: Name of the split.
        reading: Wishes of the user about what cannot be read.
        unlabelled: Treatment of training pictures without labels: refuse (an error that names
            them), skip (leave out), keep (as pictures of background alone).
        test_share: Share of a folder without validation pictures that is kept for validation.
        seed: Seed of the choice of these.

    Raises:
        ValueError: The name or split is unknown, or something does not fit: the error names it.
        FileNotFoundError: The set, or a file that it lists, is not there.
    """
    if name == OWN:
        if path == "":
            raise ValueError("set folder has no path. Give one: --data.path FOLDER_OR_TABLE")
        own = open_folder(Path(path).expanduser(), split, reading, test_share, seed)
        parts = {part: checked(one, part, reading, unlabelled) for part, one in own.items()}
        if split != "train":
            check_seen(parts["train"], parts[split], split)
        return parts[split]
    openers: dict[str, Callable[[Path, str, Reading], MultiLabelSet]] = {
        "coco_wsss": _coco_wsss,
        "clothing_parsing": _clothing_parsing,
        "voc2012": open_voc,
        "coco2014": partial(open_coco_labels, year="2014"),
        "coco2017": partial(open_coco_labels, year="2017"),
    }
    if name not in openers:
        raise ValueError(
            f"{name!r} is no set of image labels; these are: {', '.join(openers)}, {OWN}"
        )
    found = openers[name](find_or_explain(name, path), split, reading)
    return checked(found, split, reading, unlabelled)


# --- coco_wsss -----------------------------------------------------------------------------------

WSSS_SHAPE = {
    "groups": [str], "images": {"*": {"label": [int]}},
}  # fmt: skip


def _coco_wsss(folder: Path, split: str, reading: Reading) -> MultiLabelSet:
    """`images/<id>.webp`, `SegmentationClass/<id>.png`, labels in labels.json."""
    _known_split("coco_wsss", split, ("train", "val"))
    file = folder / "labels.json"
    content = read_names(file, "has the label of each picture")
    problem = misfit(content, WSSS_SHAPE, "")
    if not problem and not {"groups", "images"} <= content.keys():
        problem = "it lacks groups or images"
    if problem:
        raise ValueError(f"{file}: {problem}. Copy the set again.")
    classes = tuple(content["groups"])
    listing = folder / "ImageSets" / f"{split}.txt"
    table, items = plain_table(len(classes)), []
    for name in read_text(listing, "lists the split's pictures").split():
        one = content["images"].get(name)
        if one is None:
            raise ValueError(f"{listing} lists {name[:40]!r}, of which {file} has no label.")
        row = one.get("label", [])
        if len(row) != len(classes) or set(row) - {0, 1}:
            raise ValueError(
                f"{file}: {name} has label {str(row)[:60]}, expected {len(classes)} of 0 and 1."
            )
        image = inside_of(folder, folder / "images" / f"{name}.webp", reading.follow_links)
        mask = folder / "SegmentationClass" / f"{name}.png"
        labels = tuple(i for i, value in enumerate(row) if value)
        items.append(
            Item(name, image, labels, mask, table=table, ignore_exif=reading.ignore_exif)
        )  # fmt: skip
    return MultiLabelSet("coco_wsss", "real", classes, tuple(items), "labels.json of the set")


# --- clothing_parsing ----------------------------------------------------------------------------


def _clothing_parsing(folder: Path, split: str, reading: Reading) -> MultiLabelSet:
    """`images/NNNN.webp`, `labels/NNNN.png` of 58 tags; every tenth picture is test, and val."""
    remainders = {"test": (0,), "val": (1,), "train": tuple(range(2, 10))}
    _known_split("clothing_parsing", split, tuple(remainders))
    file = folder / "labels.json"
    content = read_names(file, "names the tags")
    problem = misfit(content, {"labels": [str]}, "")
    tags = [] if problem else content.get("labels", [])
    absent = sorted({tag for group in GARMENTS.values() for tag in group} - set(tags))
    if problem or absent or len(tags) > NUMBERS:
        raise ValueError(f"{file}: {problem or f'it lacks {absent}'}. Copy the set again.")
    place = folder / "images"
    if not place.is_dir():
        raise FileNotFoundError(f"{place} is not there. Give the folder that holds the set.")
    images = [file for file in visible(place, folder, reading.follow_links)
              if file.suffix.lower() in ENDINGS]  # fmt: skip
    stored = np.full(NUMBERS, IGNORED)
    stored[0] = 0
    stored[len(tags) : IGNORED] = UNKNOWN
    for number, group in enumerate(GARMENTS.values(), 1):
        stored[[tags.index(tag) for tag in group]] = number
    items = []
    for row, image in enumerate(images):
        if row % 10 in remainders[split]:
            mask = folder / "labels" / f"{image.stem}.png"
            labels = _large_groups(mask, stored)
            if split == "train" and not labels:
                continue
            # groups that are there, but too small for a label, do not count as background either
            small = [n for n in range(1, len(GARMENTS) + 1) if n - 1 not in labels]
            table = tuple(np.where(np.isin(stored, small), IGNORED, stored).tolist())
            items.append(Item(image.stem, image, labels, mask, table, None, reading.ignore_exif))
    how = (
        f"made from the masks: a group of tags is a label if it covers {SMALL_SHARE:.1%} of the "
        "picture; pictures without any are not trained on"
    )
    return MultiLabelSet("clothing_parsing", "real", tuple(GARMENTS), tuple(items), how)


def _large_groups(mask: Path, stored: np.ndarray) -> tuple[int, ...]:
    """Classes that cover at least SMALL_SHARE of a mask."""
    places = stored[read_labels(mask)]
    counts = np.bincount(places[places >= 0], minlength=len(GARMENTS) + 1)
    shares = counts[1 : len(GARMENTS) + 1] / places.size
    return tuple(np.flatnonzero(shares >= SMALL_SHARE).tolist())


def _known_split(name: str, split: str, splits: Sequence[str]) -> None:
    if split not in splits:
        raise ValueError(f"{name} has no split {split!r}; it has {', '.join(splits)}")
