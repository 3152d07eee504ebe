"""Street scenes with label maps as they are published: Cityscapes, GTA5, SYNTHIA, CamVid.

Labels are read as stored and mapped by a table; nothing has to be converted first. Files that the
official preparation writes beside them (`*_labelTrainIds.png`) are left alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from . import class_maps
from .class_maps import ClassMap
from .decode import ENDINGS, USUAL, Reading
from .folders import files_below, photos_below
from .segmentation import CAMVID, Segmented, matched, open_segmentation

WHOLE = ("gta5", "synthia", "streetsim")
"""Sets that are for training alone, and not divided."""
PARTS = {
    "camvid-day": ("camvid", ("0006R0_", "0016E5_", "Seq05VD_")),
    "camvid-dusk": ("camvid", ("0001TP_",)),
}
"""Part of a set -> the set, and how names of the pictures of its sequences begin. Pictures stay in
their published split: of the dusk, the first half of the film is for training, the second for the
test."""


def whole_of(name: str) -> str:
    """The set in the catalogue that a set is, or is a part of."""
    return PARTS[name][0] if name in PARTS else name


def _is_in(name: str, file: Path) -> bool:
    """True if a picture belongs to a part; all do to a whole set."""
    return name not in PARTS or file.name.startswith(PARTS[name][1])


def open_streets(folder: Path, name: str, split: str, reading: Reading = USUAL) -> Segmented:
    """Open a split of cityscapes, gta5, synthia, camvid or a part of it, or streetsim.

    split: "train", "val" or "test"; the synthetic sets have but "train".
    """
    folder = Path(folder)
    openers: dict[str, Callable[[], Segmented]] = {
        "cityscapes": lambda: _cityscapes(folder, split, reading),
        "gta5": lambda: _gta5(folder, reading),
        "synthia": lambda: _synthia(folder, reading),
        "camvid": lambda: open_segmentation(folder, "camvid", split, reading),
        "streetsim": lambda: _streetsim(folder, reading),
    }
    if whole_of(name) not in openers:
        known = ", ".join((*openers, *PARTS))
        raise ValueError(f"{name!r} is no set of streets; these are: {known}")
    if name in WHOLE and split != "train":
        raise ValueError(f"{name} has no split {split!r}: all of it is for training")
    found = openers[whole_of(name)]()
    if name in PARTS:
        found = found.at([row for row, pair in enumerate(found.files) if _is_in(name, pair[0])])
    if not len(found):
        raise ValueError(f"{folder}: split {split!r} of {name} holds no picture")
    return replace(found, reading=reading)


def pictures_of(folder: Path, name: str, split: str, reading: Reading = USUAL) -> list[Path]:
    """The pictures of a split without their labels, which need not be there: a target's."""
    folder = Path(folder)
    places = {
        "cityscapes": folder / "leftImg8bit" / split,
        "gta5": folder / "images",
        "synthia": _synthia_root(folder) / "RGB",
        "camvid": folder / split,
        "streetsim": folder / "images",
    }
    if whole_of(name) not in places:
        known = ", ".join((*places, *PARTS))
        raise ValueError(f"{name!r} is no set of streets; these are: {known}")
    found = photos_below(places[whole_of(name)], reading.follow_links)
    return [file for file in found if _is_in(name, file)]


def _cityscapes(folder: Path, split: str, reading: Reading) -> Segmented:
    """`leftImg8bit/<split>/<city>/*_leftImg8bit.png`, `gtFine/.../*_gtFine_labelIds.png`."""
    sides = [
        _files(folder / part / split, folder, ending, reading)
        for part, ending in (("leftImg8bit", "_leftImg8bit"), ("gtFine", "_gtFine_labelIds"))
    ]
    return _segmented(class_maps.CITYSCAPES, sides, folder / "gtFine" / split, reading)


def _gta5(folder: Path, reading: Reading) -> Segmented:
    """`images/00001.png` and `labels/00001.png`, a palette whose index is a labelId."""
    sides = [_files(folder / part, folder, "", reading) for part in ("images", "labels")]
    return _segmented(class_maps.GTA5, sides, folder / "labels", reading)


def _synthia(folder: Path, reading: Reading) -> Segmented:
    """`RGB/0000000.png` and `GT/LABELS/0000000.png`, 16 bits, the class in the first channel."""
    root = _synthia_root(folder)
    sides = [_files(place, folder, "", reading) for place in (root / "RGB", root / "GT/LABELS")]
    found = _segmented(class_maps.SYNTHIA, sides, root / "GT/LABELS", reading)
    return replace(found, first_channel=True)


def _synthia_root(folder: Path) -> Path:
    inside = folder / "RAND_CITYSCAPES"
    return inside if inside.is_dir() else folder


def _streetsim(folder: Path, reading: Reading) -> Segmented:
    sides = [_files(folder / part, folder, "", reading) for part in ("images", "labels")]
    return Segmented(CAMVID, matched(sides[0], sides[1], str(folder), reading))


def _segmented(
    kinds: ClassMap, sides: list[dict[str, Path]], where: Path, reading: Reading
) -> Segmented:
    pairs = matched(sides[0], sides[1], str(where), reading)
    return Segmented(kinds.names, pairs, table=kinds.table)


def _files(place: Path, root: Path, ending: str, reading: Reading) -> dict[str, Path]:
    """Path below `place` without `ending` -> picture whose name ends so."""
    if not place.is_dir():
        raise FileNotFoundError(f"{place} is not there. Give the folder that holds the set.")
    found = {}
    for file in files_below(place, root, reading.follow_links):
        is_ours = file.stem.endswith(ending) and not file.stem.endswith("_labelTrainIds")
        if is_ours and file.suffix.lower() in ENDINGS:
            key = file.relative_to(place).with_name(file.stem.removesuffix(ending))
            found[key.as_posix()] = file
    return found
