"""Pictures of any origin, decoded safely and held in memory as square uint8 tensors."""

from __future__ import annotations

import io
import struct
import unicodedata
import warnings
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from PIL import Image
from torch import Tensor

from ..io.problems import BROKEN, Problems, some

How = Literal["shorter", "stretch"]

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "PPM", "GIF")
"""Formats that are decoded; the others of Pillow include some that start programs."""
ENDINGS = frozenset(".jpg .jpeg .png .webp .bmp .tif .tiff .ppm .pgm .gif".split())
MAX_PIXELS = 100_000_000
MAX_RATIO = 100
"""Of the sides: resizing the shorter side of a thinner picture would need any amount of memory."""
MAX_BYTES = 4 * 2**30
"""Most memory for the pictures of one call of `read_pictures`."""

_UNREADABLE = (
    *BROKEN, struct.error, TypeError, IndexError, AttributeError, AssertionError, OverflowError,
    MemoryError, EOFError,
)  # fmt: skip
_TURNS = {
    2: (Image.Transpose.FLIP_LEFT_RIGHT,),
    3: (Image.Transpose.ROTATE_180,),
    4: (Image.Transpose.FLIP_TOP_BOTTOM,),
    5: (Image.Transpose.TRANSPOSE,),
    6: (Image.Transpose.ROTATE_270,),
    7: (Image.Transpose.TRANSVERSE,),
    8: (Image.Transpose.ROTATE_90,),
}
"""EXIF orientation -> what makes the picture upright."""


@dataclass(frozen=True)
class Pictures:
    """Pictures with labels, in memory."""

    images: UInt8[Tensor, "image 3 side side"]
    labels: Int64[Tensor, " image"]
    names: tuple[str, ...]
    """Source of each picture: folder and file, or file and row."""

    def __post_init__(self) -> None:
        assert len(self.images) == len(self.labels) == len(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def at(self, indices: Int64[Tensor, " some"]) -> Pictures:
        """The pictures of these rows, in this order."""
        names = tuple(self.names[i] for i in indices.tolist())
        return Pictures(self.images[indices], self.labels[indices], names)


def read_picture(path: str | Path) -> UInt8[np.ndarray, "height width 3"]:
    """One picture as upright RGB: transparency over white, first frame of an animation.

    Raises FileNotFoundError if there is no such file, and ValueError with the reason if it is no
    picture, is damaged, or has more than MAX_PIXELS.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there, or is not a file. Give a picture.")
    return _decode(path, str(path))


def decode(content: bytes, name: str) -> UInt8[np.ndarray, "height width 3"]:
    """The same for the bytes of a picture file; `name` says in errors what they are."""
    return _decode(io.BytesIO(content), name)


def _decode(source: Path | io.BytesIO, name: str) -> UInt8[np.ndarray, "height width 3"]:
    try:
        with warnings.catch_warnings():
            # our limit is below; what Pillow warns of besides (odd EXIF) does not concern pixels
            warnings.simplefilter("ignore")
            with Image.open(source, formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise ValueError(
                        f"it has {image.width} x {image.height} pixels, more than {MAX_PIXELS}: "
                        "make it smaller"
                    )
                if max(image.size) > MAX_RATIO * min(image.size):
                    raise ValueError(
                        f"it has {image.width} x {image.height} pixels, too narrow: crop it"
                    )
                image.load()
                return np.asarray(_rgb(_upright(image)))
    except Image.DecompressionBombError as error:
        raise ValueError(
            f"{name} cannot be read: it has more than {MAX_PIXELS} pixels: make it smaller."
        ) from error
    except Image.UnidentifiedImageError as error:
        raise ValueError(
            f"{name} is not a picture ({', '.join(FORMATS)}), or its beginning is damaged. "
            "Remove it, or save it anew."
        ) from error
    except _UNREADABLE as error:
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise ValueError(f"{name} cannot be read: {reason}.") from error


def _upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(0x0112, 1)
    except _UNREADABLE:  # as viewers do: a broken note about a whole picture is not followed
        orientation = 1
    for turn in _TURNS.get(orientation, ()) if isinstance(orientation, int) else ():
        image = image.transpose(turn)
    return image


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits, which Pillow's own conversion would clip at 255
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(
                f"its values reach {values.min()}..{values.max()}, but grey pictures have 8 or 16 "
                "bits: save it as 8 bits"
            )
        return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers: save it as 8 bits")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def square(
    picture: UInt8[np.ndarray, "height width 3"], side: int, how: How
) -> UInt8[np.ndarray, "side side 3"]:
    """Resize to a square, bilinear with antialiasing.

    shorter: the shorter side becomes `side`, and the centre is kept; stretch: both sides do.
    """
    height, width, _ = picture.shape
    if how == "stretch":
        new_height = new_width = side
    else:
        short = min(height, width)
        new_height, new_width = side * height // short, side * width // short
    image = Image.fromarray(picture).resize((new_width, new_height), Image.Resampling.BILINEAR)
    left, top = round((new_width - side) / 2), round((new_height - side) / 2)
    return np.asarray(image.crop((left, top, left + side, top + side)))


def read_pictures(
    files: Sequence[Path],
    labels: Sequence[int],
    side: int,
    how: How,
    skip_broken: bool = False,
) -> Pictures:
    """Read many pictures as squares of `side`; names are `<folder>/<file>`.

    What cannot be read stops it, or with `skip_broken` is left out with one warning that names it.
    """
    check_memory(len(files), side)
    images = torch.empty(len(files), 3, side, side, dtype=torch.uint8)
    kept: list[int] = []
    broken: list[str] = []
    for row, file in enumerate(files):
        try:
            picture = read_picture(file)
        except ValueError as error:
            if not skip_broken:
                raise
            broken.append(str(error))
            continue
        images[len(kept)] = channels_first(square(picture, side, how))
        kept.append(row)
    if broken:
        text = f"{len(broken)} of {len(files)} pictures left out: {some(broken)}"
        if not kept:
            raise ValueError(f"no picture can be read. {text}")
        warnings.warn(text, stacklevel=2)
    names = tuple(f"{files[row].parent.name}/{files[row].name}" for row in kept)
    numbers = torch.tensor([labels[row] for row in kept], dtype=torch.int64)
    return Pictures(images[: len(kept)], numbers, names)


def channels_first(
    picture: UInt8[np.ndarray, "height width 3"],
) -> UInt8[Tensor, "3 height width"]:
    """The same picture in torch's order."""
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


def check_memory(count: int, side: int) -> None:
    """ValueError if so many squares of `side` need more than MAX_BYTES."""
    need = count * 3 * side * side
    if need > MAX_BYTES:
        raise ValueError(
            f"{count} pictures of {side} x {side} need {need / 2**30:.1f} GiB of memory, more than "
            f"the limit of {MAX_BYTES / 2**30:.0f} GiB. Set a smaller data.size, or give fewer."
        )


def photos(folder: str | Path) -> list[Path]:
    """The pictures that lie in a folder, by name; hidden files and its sub-folders do not count.

    A symbolic link that leaves the folder is refused.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not there, or is not a folder. Give one of pictures.")
    found = [file for file in _visible(folder, folder) if file.suffix.lower() in ENDINGS]
    found = [file for file in found if file.is_file()]
    if not found:
        raise ValueError(
            f"{folder} holds no picture ({' '.join(sorted(ENDINGS))}). Put some in, or remove it."
        )
    return found


def photos_below(folder: str | Path) -> list[Path]:
    """The pictures of a folder and of all folders in it, by path; hidden ones do not count.

    A symbolic link that leaves the folder is refused.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not there, or is not a folder. Give one of pictures.")
    found: list[Path] = []
    waiting = [folder]
    while waiting:
        for item in _visible(waiting.pop(), folder):
            if item.is_dir() and not item.is_symlink():  # a link may lead round in a circle
                waiting.append(item)
            elif item.suffix.lower() in ENDINGS and item.is_file():
                found.append(item)
    if not found:
        raise ValueError(
            f"{folder} holds no picture ({' '.join(sorted(ENDINGS))}), nor do the folders in it."
        )
    return sorted(found)


def class_folders(folder: str | Path) -> dict[str, list[Path]]:
    """Class name -> its pictures, for a folder with one sub-folder a class; sorted by name."""
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not there, or is not a folder.")
    found = [item for item in _visible(folder, folder) if item.is_dir()]
    if len(found) < 2:
        raise ValueError(
            f"{folder} holds {len(found)} class folders, at least 2 are needed. Give the folder "
            "that has one sub-folder of pictures a class."
        )
    same: dict[str, str] = {}
    for name in (item.name for item in found):
        key = " ".join(unicodedata.normalize("NFKC", name).casefold().split())
        if key in same:
            raise ValueError(
                f"{folder} holds two folders for one class: {same[key]!r} and {name!r} differ in "
                "capitals or spaces only. Join or rename them."
            )
        same[key] = name
    return {item.name: photos(item) for item in found}


def _visible(folder: Path, root: Path) -> list[Path]:
    """Entries by name, but hidden ones and those that archives of macOS leave."""
    inside = [item for item in folder.iterdir() if not item.name.startswith((".", "__MACOSX"))]
    return [inside_of(root, item) for item in sorted(inside, key=lambda item: item.name)]


def inside_of(root: Path, path: Path) -> Path:
    """Return `path`; ValueError if it, or what it links to, lies outside of `root`."""
    if not path.resolve().is_relative_to(root.resolve()):
        raise ValueError(
            f"{path} leads out of {root}. Copy the pictures there instead of linking to them."
        )
    return path


@dataclass(frozen=True)
class Stored:
    """Picture files end to end in one array, as the compact sets keep them."""

    file: Path
    side: int
    """Pixels of each picture's sides."""
    jpeg: UInt8[np.ndarray, " byte"]
    offset: Int64[np.ndarray, " end"]
    """Picture i is bytes offset[i] to offset[i + 1]."""
    labels: tuple[int, ...]
    names: tuple[str, ...]

    def read(self, rows: Sequence[int]) -> Pictures:
        """Decode the pictures of these rows."""
        check_memory(len(rows), self.side)
        images = torch.empty(len(rows), 3, self.side, self.side, dtype=torch.uint8)
        for index, row in enumerate(rows):
            name = f"{self.file} picture {row} ({self.names[row]})"
            picture = decode(self.jpeg[self.offset[row] : self.offset[row + 1]].tobytes(), name)
            if picture.shape != (self.side, self.side, 3):
                raise ValueError(
                    f"{name} has {picture.shape[1]} x {picture.shape[0]} pixels, expected "
                    f"{self.side} x {self.side}. Prepare the set again."
                )
            images[index] = channels_first(picture)
        labels = torch.tensor([self.labels[row] for row in rows], dtype=torch.int64)
        return Pictures(images, labels, tuple(self.names[row] for row in rows))


def open_stored(file: Path, side: int, num_classes: int) -> Stored:
    """Open an npz of `jpeg`, `offset`, `label`, `name`; whatever does not fit is a ValueError."""
    arrays = read_npz(file, _KEYS)
    jpeg, offset, label, name = (arrays[key] for key in _KEYS)
    count = label.size
    if jpeg.dtype != np.uint8 or offset.dtype != np.int64 or label.dtype.kind not in "iu":
        raise ValueError(f"{file}: jpeg must be uint8, offset int64, label whole numbers.")
    if name.dtype.kind != "U" or jpeg.ndim != 1:
        raise ValueError(f"{file}: jpeg must be one row, and name text.")
    if label.shape != (count,) or name.shape != (count,) or offset.shape != (count + 1,):
        raise ValueError(
            f"{file} has {label.shape} labels, {name.shape} names and {offset.shape} offsets, "
            "expected n, n and n + 1. Prepare the set again."
        )
    if offset[0] != 0 or offset[-1] != len(jpeg) or (np.diff(offset) <= 0).any():
        raise ValueError(f"{file}: offset does not rise from 0 to {len(jpeg)}. Prepare it again.")
    wrong = np.flatnonzero((label < 0) | (label >= num_classes))
    if len(wrong):
        raise ValueError(
            f"{file}: picture {wrong[0]} has label {label[wrong[0]]}, allowed are "
            f"0-{num_classes - 1}. Prepare the set again."
        )
    return Stored(file, side, jpeg, offset, tuple(label.tolist()), tuple(name.tolist()))


_KEYS = ("jpeg", "offset", "label", "name")


def read_npz(file: Path, keys: Sequence[str]) -> dict[str, np.ndarray]:
    """The arrays of an npz with these keys, whose unpacked sizes are looked at first."""
    problems = Problems(file.parent)
    try:
        if problems.exists(file):
            with zipfile.ZipFile(file) as archive:
                size = sum(item.file_size for item in archive.infolist())
            if size > MAX_BYTES:
                problems.problem(file, f"unpacks to {size} bytes, more than {MAX_BYTES}")
        arrays = None if problems.result.problems else problems.npz(file, keys)
    except (*BROKEN, MemoryError) as error:
        raise ValueError(
            f"{file} cannot be read as npz: {error}. Prepare the set again."
        ) from error
    if arrays is None:
        raise ValueError(f"{file} {problems.result.problems[0].what}. Prepare the set again.")
    return arrays
