"""Labelled or unlabelled photos, decoded when they are asked for: the sets of classifiers."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int64, UInt8

from ..io.problems import some
from .decode import USUAL, Reading, damage, decode, first_sound, read_picture
from .folders import class_folders, held_out, photos_below, split_folders, visible
from .stored import read_npz

Picture = UInt8[np.ndarray, "height width 3"]

CACHE_BYTES = 2**30
"""Decoded pictures are kept in memory where all of a set need less than this."""
CHECKED = 2000
"""Pictures whose headers are looked at when a set is opened."""
MOST_PHOTOS = 5_000_000
"""Files of one folder tree that are taken."""
TINY_SIDE = 64
NO_CLASSES = frozenset(
    "images imgs jpegimages masks labels annotations segmentationclass segmentationobject".split()
)
"""Folders of sets with masks or boxes, in small letters."""


@dataclass(frozen=True)
class Photos:
    """Pictures by row."""

    classes: tuple[str, ...]
    """In label order; empty for unlabelled photos."""
    labels: Int64[np.ndarray, " image"]
    """-1 where there is none."""
    names: tuple[str, ...]
    """Folder and file, or split and row."""
    load: Callable[[int], Picture]
    """Decodes a row; may be called from several threads."""
    boxes: Float[np.ndarray, "image 4"] | None = None
    """x0 y0 x1 y1 of the one object, exclusive ends, pixels of the picture."""
    skip_broken: bool = False
    """Put the next picture of the same class in place of one that cannot be read."""
    replaced: dict[str, str] = field(default_factory=dict, repr=False, compare=False)
    """Name -> reason, of pictures in whose place another was put so far."""
    _kept: dict[int, Picture] = field(default_factory=dict, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.names)

    def picture(self, row: int) -> Picture:
        """A picture as upright RGB; kept in memory if the whole set is small."""
        found = self._kept.get(row)
        if found is None:
            found = self._sound(row) if self.skip_broken else self.load(row)
            if found.nbytes * len(self) <= CACHE_BYTES:
                self._kept[row] = found
        return found

    def _sound(self, row: int) -> Picture:
        """The picture, or the first after it, of its class, that can be read."""
        same = np.flatnonzero(self.labels == self.labels[row])
        rows = np.roll(same, -int(same.searchsorted(row))).tolist()
        return first_sound(self.load, rows, self.names.__getitem__, self.replaced)

    def at(self, rows: Int64[np.ndarray, " some"]) -> Photos:
        """The pictures of these rows, in this order."""
        names = tuple(self.names[i] for i in rows.tolist())
        boxes = None if self.boxes is None else self.boxes[rows]
        return Photos(
            self.classes, self.labels[rows], names, lambda i: self.picture(int(rows[i])), boxes,
            replaced=self.replaced,
        )  # fmt: skip


def of_arrays(
    pictures: UInt8[np.ndarray, "image height width 3"],
    labels: Int64[np.ndarray, " image"],
    classes: tuple[str, ...],
    boxes: Float[np.ndarray, "image 4"] | None,
    name: str,
) -> Photos:
    """Photos that are in memory already."""
    names = tuple(f"{name}/{i}" for i in range(len(pictures)))
    return Photos(classes, labels, names, lambda i: pictures[i], boxes)


def of_files(
    files: Sequence[Path],
    labels: Sequence[int] = (),
    classes: tuple[str, ...] = (),
    reading: Reading = USUAL,
) -> Photos:
    """Photos in files, of which up to CHECKED are looked at now, all with `skip_broken`.

    A picture that turns out to be damaged later is a ValueError that names it, or with
    `skip_broken` replaced by the next of its class.
    """
    numbers = list(labels) or [-1] * len(files)
    step = 1 if reading.skip_broken else max(1, len(files) // CHECKED)
    broken = {row: text for row in range(0, len(files), step) if (text := damage(files[row]))}
    if broken and not reading.skip_broken:
        more = f" (and {len(broken) - 1} more)" if len(broken) > 1 else ""
        raise ValueError(
            f"{next(iter(broken.values()))}{more}. Mend or remove it, or set data.skip_broken."
        )
    kept = [row for row in range(len(files)) if row not in broken]
    if broken:
        text = f"{len(broken)} of {len(files)} pictures left out: {some(list(broken.values()))}"
        if not kept:
            raise ValueError(f"no picture can be read. {text}")
        lost = sorted(set(numbers) - {numbers[row] for row in kept})
        if lost and classes:
            raise ValueError(
                f"no picture of {some([classes[n] for n in lost])} can be read. {text}"
            )
        warnings.warn(text, stacklevel=2)
    paths = [files[row] for row in kept]
    names = tuple(f"{path.parent.name}/{path.name}" for path in paths)
    array = np.array([numbers[row] for row in kept], dtype=np.int64)
    return Photos(
        classes, array, names, lambda i: read_picture(paths[i], reading.ignore_exif),
        skip_broken=reading.skip_broken,
    )  # fmt: skip


def open_class_folders(
    folder: Path, split: str, test_share: float, seed: int, reading: Reading = USUAL
) -> Photos:
    """Class folders: those of `train` and `val` (or `valid`, `test` ...), or one tree to divide.

    split: "train" or "val". An undivided tree is shuffled by class and seed, `test_share` of each
    class's pictures are for val, at least one.
    """
    parts, links = split_folders(folder, reading.follow_links), reading.follow_links
    if "train" not in parts or len(parts) == 1:
        is_alone = "train" in parts and sum(i.is_dir() for i in visible(folder, folder, True)) == 1
        root = parts["train"] if is_alone else folder
        of_class = class_folders(root, links)
        if {name.casefold() for name in of_class} <= NO_CLASSES:
            raise ValueError(
                f"{folder} holds {some(list(of_class))}, which are pictures with labels and no "
                "classes; they are for the tasks segment and detect, or data.name photos"
            )
        files, labels = [], []
        for label, (name, all_files) in enumerate(of_class.items()):
            names = [file.relative_to(root / name).as_posix() for file in all_files]
            chosen = held_out(names, f"{seed}/{name}", test_share)
            mine = [
                file for file, own in zip(all_files, names, strict=True)
                if (own in chosen) == (split == "val")
            ]  # fmt: skip
            if not mine:
                raise ValueError(
                    f"{root / name} holds {len(all_files)} picture(s), none of which is left for "
                    f"{split}; give at least 2, or change data.test_share"
                )
            files += mine
            labels += [label] * len(mine)
        return of_files(files, labels, tuple(of_class), reading)
    other = parts.get("val") or parts["test"]
    trees = {"train": class_folders(parts["train"], links), "val": class_folders(other, links)}
    differing = sorted(set(trees["train"]) ^ set(trees["val"]))
    if differing:
        raise ValueError(
            f"{folder}: {parts['train'].name} and {other.name} have different classes: "
            f"{some(differing)} are in one of them only"
        )
    own = trees[split]
    labelled = [(file, label) for label, files in enumerate(own.values()) for file in files]
    files, labels = [f for f, _ in labelled], [n for _, n in labelled]
    return of_files(files, labels, tuple(own), reading)


def open_flat(folder: Path, reading: Reading = USUAL) -> Photos:
    """All photos below a folder, without labels, for pre-training."""
    files = photos_below(folder, reading.follow_links)
    if len(files) < 2:
        raise ValueError(f"{folder} holds one picture, {files[0].name}; give at least 2")
    if len(files) > MOST_PHOTOS:
        raise ValueError(f"{folder} holds more than {MOST_PHOTOS} pictures; give a part")
    return of_files(files, reading=reading)


# --- the compact tiny_imagenet_20 ----------------------------------------------------------------

_KEYS = ("jpeg", "offsets", "labels", "boxes", "names", "classes", "wnids")


def open_tiny_imagenet_20(folder: Path, split: str) -> Photos:
    """20 classes of Tiny ImageNet with boxes, from `train.npz` or `val.npz`."""
    file = folder / f"{split}.npz"
    arrays = read_npz(file, _KEYS)
    jpeg, offsets, labels, boxes, names, classes = (arrays[key] for key in _KEYS[:6])
    count = labels.size
    shapes = (labels.shape, boxes.shape, names.shape, offsets.shape)
    if shapes != ((count,), (count, 4), (count,), (count + 1,)) or jpeg.ndim != 1:
        raise ValueError(
            f"{file} has labels, boxes, names and offsets of shapes {shapes}, expected n, n x 4, n "
            "and n + 1. Prepare the set again."
        )
    whole = all(a.dtype.kind in "iu" for a in (labels, boxes, offsets))
    if jpeg.dtype != np.uint8 or not whole or names.dtype.kind != "U" or classes.dtype.kind != "U":
        raise ValueError(f"{file}: jpeg must be bytes, numbers whole, names text.")
    if offsets[0] != 0 or offsets[-1] != len(jpeg) or (np.diff(offsets) <= 0).any():
        raise ValueError(f"{file}: offsets do not rise from 0 to {len(jpeg)}. Prepare it again.")
    wrong = np.flatnonzero((labels < 0) | (labels >= len(classes)))
    if len(wrong):
        raise ValueError(
            f"{file}: picture {wrong[0]} has label {labels[wrong[0]]}, allowed are "
            f"0-{len(classes) - 1}. Prepare the set again."
        )
    # the source gives inclusive corners
    ends = boxes.astype(np.float32) + np.array([0, 0, 1, 1], dtype=np.float32)
    bad = np.flatnonzero(
        (ends[:, :2] < 0).any(1) | (ends[:, 2:] > TINY_SIDE).any(1)
        | (ends[:, 2:] <= ends[:, :2]).any(1)
    )  # fmt: skip
    if len(bad):
        raise ValueError(
            f"{file}: picture {bad[0]} has box {boxes[bad[0]].tolist()}, which is not inside of "
            f"its {TINY_SIDE} x {TINY_SIDE} pixels. Prepare the set again."
        )

    def load(row: int) -> Picture:
        content = jpeg[offsets[row] : offsets[row + 1]].tobytes()
        picture = decode(content, f"{file} picture {row} ({names[row]})")
        if picture.shape != (TINY_SIDE, TINY_SIDE, 3):
            raise ValueError(
                f"{file} picture {row} has {picture.shape[1]} x {picture.shape[0]} pixels, "
                f"expected {TINY_SIDE} x {TINY_SIDE}. Prepare the set again."
            )
        return picture

    return Photos(
        tuple(classes.tolist()), labels.astype(np.int64), tuple(names.tolist()), load, ends
    )
