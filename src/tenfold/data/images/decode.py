"""Pictures of any origin, decoded safely and held in memory as square uint8 tensors."""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from PIL import Image, features
from torch import Tensor

from ..io.problems import BROKEN, some

How = Literal["shorter", "stretch"]

T = TypeVar("T")

HAS_AVIF = "avif" in features.modules and bool(features.check_module("avif"))
"""True if this Pillow was built with it (its own packages are, from 11.3 on)."""
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "PPM", "GIF") + (("AVIF",) if HAS_AVIF else ())
"""Formats that are decoded; the others of Pillow include some that start programs."""
ENDINGS = frozenset(
    ".jpg .jpeg .jpe .jfif .png .webp .bmp .tif .tiff .ppm .pgm .gif".split() + [".avif"] * HAS_AVIF
)
SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
"""Split -> names that its folder has in the sets and tools that people use."""
JUNK = frozenset(("thumbs.db", "desktop.ini"))
"""Files that systems leave in folders of pictures, in small letters."""
MAX_PIXELS = 100_000_000
MAX_RATIO = 100
"""Of the sides: resizing the shorter side of a thinner picture would need any amount of memory."""
MAX_BYTES = 4 * 2**30
"""Most memory for the pictures of one call of `read_pictures`."""

_UNREADABLE = (
    *BROKEN, struct.error, TypeError, IndexError, AttributeError, AssertionError, ArithmeticError,
    MemoryError, EOFError,
)  # fmt: skip
BITS = 258
"""Tag of TIFF: bits of a value."""
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
class Reading:
    """Choices of a user about the reading of pictures."""

    skip_broken: bool = False
    """Leave out what cannot be read, with a warning, instead of stopping."""
    follow_links: bool = False
    """Follow symbolic links that lead out of the folder."""
    ignore_exif: bool = False
    """Take pictures as they are stored, without the turn that an EXIF note asks for."""


USUAL = Reading()
"""As it is done where nothing else is asked for."""


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


def read_picture(
    path: str | Path, ignore_exif: bool = False
) -> UInt8[np.ndarray, "height width 3"]:
    """One picture as upright RGB: transparency over white, first frame of an animation.

    ignore_exif: as it is stored, without the turn that an EXIF note asks for. Raises
    FileNotFoundError if there is no such file, and ValueError with the reason if it is no picture,
    is damaged, or has more than MAX_PIXELS.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there, or is not a file. Give a picture.")
    return _decode(path, str(path), ignore_exif)


def read_header(path: Path) -> tuple[int, int, int]:
    """Height and width as stored, and EXIF's orientation (1 is upright).

    Pixels are not decoded, but for those of a PNG, in which the note may stand after them.
    """
    return _of_header(path, lambda image: (image.height, image.width, _orientation(image)))


def read_size(path: Path) -> tuple[int, int]:
    """Height and width as stored; pixels are never decoded."""
    return _of_header(path, lambda image: (image.height, image.width))


def _of_header(path: Path, of: Callable[[Image.Image], T]) -> T:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there, or is not a file. Give a picture.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=FORMATS) as image:
                return of(image)
    except (*_UNREADABLE, Image.UnidentifiedImageError) as error:
        raise ValueError(f"{path} cannot be read as a picture: {_reason(error)}.") from error


def damage(file: Path) -> str:
    """Say what is wrong with a picture's file, as far as can be told fast; empty if nothing.

    Decoded whole are small files, and those that lack the mark at their end: a truncated JPEG has a
    whole header.
    """
    try:
        with file.open("rb") as opened:
            head = opened.read(12)
            size = opened.seek(0, 2)
            opened.seek(max(0, size - TAIL))
            tail = opened.read()
        if size < SMALL or _is_cut(head, tail, size):
            read_picture(file)
            return ""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(file, formats=FORMATS) as image:
                image.verify()
        return ""
    except (*_UNREADABLE, Image.UnidentifiedImageError) as error:
        text = str(error).rstrip(".")
        return text if str(file) in text else f"{file} cannot be read: {text}"


def _is_cut(head: bytes, tail: bytes, size: int) -> bool:
    """Return True if a file seems to end too early: most likely, but not surely."""
    if head.startswith(b"\xff\xd8"):
        return b"\xff\xd9" not in tail
    if head.startswith(b"\x89PNG"):
        return b"IEND" not in tail
    return head.startswith(b"RIFF") and int.from_bytes(head[4:8], "little") > size - 8


TAIL = 2**10
"""Bytes at the end of a file in which the mark of its end is looked for."""
SMALL = 2**18
"""Bytes of a file that is decoded whole to see if it is sound."""


def first_sound(
    read: Callable[[int], T], rows: Sequence[int], name: Callable[[int], str],
    replaced: dict[str, str],
) -> T:  # fmt: skip
    """The first of these rows that can be read; those that cannot are noted with the reason.

    The rows are tried in their order, so that the same picture stands in for a broken one each
    time, in every process.
    """
    for row in rows:
        if name(row) in replaced:
            continue
        try:
            return read(row)
        except (ValueError, OSError) as error:
            replaced[name(row)] = str(error)
    raise ValueError(f"none of {len(rows)} pictures can be read: {some(list(replaced.values()))}")


def warn_of_replaced(replaced: Mapping[str, str], split: str) -> None:
    """Say which pictures could not be read when they were needed."""
    if replaced:
        warnings.warn(
            f"{len(replaced)} of the {split} split could not be read and were replaced or left "
            f"out: {some(list(replaced.values()), 20)}",
            stacklevel=3,
        )


def decode(content: bytes, name: str) -> UInt8[np.ndarray, "height width 3"]:
    """The same for the bytes of a picture file; `name` says in errors what they are."""
    return _decode(io.BytesIO(content), name)


def _decode(
    source: Path | io.BytesIO, name: str, ignore_exif: bool = False
) -> UInt8[np.ndarray, "height width 3"]:
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
                _refuse_unclear(image)
                return np.asarray(_rgb(image if ignore_exif else _upright(image)))
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
        raise ValueError(f"{name} cannot be read: {_reason(error)}.") from error


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def _orientation(image: Image.Image) -> int:
    try:
        found = image.getexif().get(0x0112, 1)
    except _UNREADABLE:  # as viewers do: a broken note about a whole picture is not followed
        found = 1
    return found if isinstance(found, int) and found in _TURNS else 1


def _upright(image: Image.Image) -> Image.Image:
    for turn in _TURNS.get(_orientation(image), ()):
        image = image.transpose(turn)
    return image


def _refuse_unclear(image: Image.Image) -> None:
    """Raise ValueError for 32 bits a value that may be 8 or 16 of them: white is not told."""
    bits = getattr(image, "tag_v2", {}).get(BITS, ())
    if image.mode == "I" and bits == (32,) and 0 < np.asarray(image).max() < 256:
        raise ValueError(
            f"it has 32 bits a value, but none above {np.asarray(image).max()}, which does not "
            "tell whether 255 or 65535 is white: save it as 8 bits"
        )


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
