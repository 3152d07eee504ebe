"""Labelled or unlabelled photos, decoded when they are asked for: the sets of classifiers."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int64, UInt8
from PIL import Image

from ..io.problems import BROKEN, some
from .decode import ENDINGS, FORMATS, class_folders, decode, inside_of, read_npz, read_picture

Picture = UInt8[np.ndarray, "height width 3"]

CACHE_BYTES = 2**30
"""Decoded pictures are kept in memory where all of a set need less than this."""
CHECKED = 2000
"""Pictures whose headers are looked at when a set is opened."""
MOST_PHOTOS = 5_000_000
"""Files of one folder tree that are taken."""
TINY_SIDE = 64


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
    _kept: dict[int, Picture] = field(default_factory=dict, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.names)

    def picture(self, row: int) -> Picture:
        """A picture as upright RGB; kept in memory if the whole set is small."""
        found = self._kept.get(row)
        if found is None:
            found = self.load(row)
            if found.nbytes * len(self) <= CACHE_BYTES:
                self._kept[row] = found
        return found

    def at(self, rows: Int64[np.ndarray, " some"]) -> Photos:
        """The pictures of these rows, in this order."""
        names = tuple(self.names[i] for i in rows.tolist())
        boxes = None if self.boxes is None else self.boxes[rows]
        return Photos(
            self.classes, self.labels[rows], names, lambda i: self.picture(int(rows[i])), boxes
        )


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
    skip_broken: bool = False,
) -> Photos:
    """Photos in files. Headers of up to CHECKED of them are read now, of all with `skip_broken`.

    A picture that turns out to be damaged later is a ValueError that names it.
    """
    numbers = list(labels) or [-1] * len(files)
    step = 1 if skip_broken else max(1, len(files) // CHECKED)
    broken = {row: text for row in range(0, len(files), step) if (text := _damage(files[row]))}
    if broken and not skip_broken:
        more = f" (and {len(broken) - 1} more)" if len(broken) > 1 else ""
        raise ValueError(
            f"{next(iter(broken.values()))}{more}. Mend or remove it, or set data.skip_broken."
        )
    kept = [row for row in range(len(files)) if row not in broken]
    if broken:
        text = f"{len(broken)} of {len(files)} pictures left out: {some(list(broken.values()))}"
        if not kept:
            raise ValueError(f"no picture can be read. {text}")
        warnings.warn(text, stacklevel=2)
    paths = [files[row] for row in kept]
    names = tuple(f"{path.parent.name}/{path.name}" for path in paths)
    array = np.array([numbers[row] for row in kept], dtype=np.int64)
    return Photos(classes, array, names, lambda i: read_picture(paths[i]))


def _damage(file: Path) -> str:
    """Say what is wrong with a picture's file, as far as header and length tell; empty if nothing.

    Small files are decoded whole, because a truncated JPEG has a whole header.
    """
    try:
        if file.stat().st_size < 2**18:
            read_picture(file)
            return ""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(file, formats=FORMATS) as image:
                image.verify()
        return ""
    except (*BROKEN, Image.DecompressionBombError, Image.UnidentifiedImageError) as error:
        text = str(error).rstrip(".")
        return text if str(file) in text else f"{file} cannot be read: {text}"


def open_class_folders(
    folder: Path, split: str, test_share: float, seed: int, skip_broken: bool = False
) -> Photos:
    """Class folders: those of `train` and `val` (or `test`) below, or one tree that is divided.

    split: "train" or "val". An undivided tree is shuffled by class and seed, `test_share` of each
    class's pictures are for val, at least one.
    """
    parts = {name: folder / name for name in ("train", "val", "test") if (folder / name).is_dir()}
    if "train" not in parts or len(parts) == 1:
        of_class = _classes_of(folder)
        files, labels = [], []
        for label, (name, all_files) in enumerate(of_class.items()):
            chosen = _share(all_files, f"{seed}/{name}", test_share)
            mine = [f for f in all_files if (f in chosen) == (split == "val")]
            if not mine:
                raise ValueError(
                    f"{folder / name} holds {len(all_files)} picture(s), none of which is left for "
                    f"{split}; give at least 2, or change data.test_share"
                )
            files += mine
            labels += [label] * len(mine)
        return of_files(files, labels, tuple(of_class), skip_broken)
    other = "val" if "val" in parts else "test"
    trees = {"train": _classes_of(parts["train"]), "val": _classes_of(parts[other])}
    differing = sorted(set(trees["train"]) ^ set(trees["val"]))
    if differing:
        raise ValueError(
            f"{folder}: train and {other} have different classes: {some(differing)} are in one of "
            "them only"
        )
    own = trees[split]
    labelled = [(file, label) for label, files in enumerate(own.values()) for file in files]
    files, labels = [f for f, _ in labelled], [n for _, n in labelled]
    return of_files(files, labels, tuple(own), skip_broken)


def _classes_of(folder: Path) -> dict[str, list[Path]]:
    return class_folders(folder)


def _share(files: Sequence[Path], key: str, share: float) -> set[Path]:
    """Some of the files, chosen by their names: adding a picture moves no other one."""
    order = sorted(files, key=lambda f: hashlib.blake2b(f"{key}/{f.name}".encode()).digest())
    return set(order[: max(1, round(share * len(files)))])


def open_flat(folder: Path, skip_broken: bool = False) -> Photos:
    """All photos below a folder, without labels, for pre-training."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not there, or is not a folder. Give one of pictures.")
    files = []
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in ENDINGS and not path.name.startswith(".") and path.is_file():
            files.append(inside_of(folder, path))
            if len(files) > MOST_PHOTOS:
                raise ValueError(f"{folder} holds more than {MOST_PHOTOS} pictures; give a part")
    if len(files) < 2:
        raise ValueError(f"{folder} holds {len(files)} picture(s) ({' '.join(sorted(ENDINGS))})")
    return of_files(files, skip_broken=skip_broken)


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
