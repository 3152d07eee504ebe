"""Maps of an explanation over its photo."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image, ImageDraw
from torch import Tensor

from tenfold.viz.colours import palette
from tenfold.viz.fonts import line_of, write
from tenfold.viz.overlays import INK, PAPER

from .explanation import Explanation
from .options import Box

Rgb = UInt8[np.ndarray, "height width 3"]
LONGEST = 480
"""Pixels of the longer side of a map."""
FOR, AGAINST = np.array([214, 39, 20.0]), np.array([20, 90, 214.0])
"""Colours of what is above and below 0."""
CLEAR = 2.0
"""Standard errors from 0 from which a number is drawn in full."""
FAINT = 0.25
OUTSIDE = 0.45
"""Brightness of what the encoder does not see."""


def scaled(photo: UInt8[np.ndarray, "_ _ 3"]) -> tuple[Rgb, float]:
    """The photo at the size of a map, and the factor."""
    factor = LONGEST / max(photo.shape[:2])
    size = (max(1, round(photo.shape[1] * factor)), max(1, round(photo.shape[0] * factor)))
    return np.asarray(Image.fromarray(photo).resize(size, Image.Resampling.LANCZOS)), factor


def named(picture: Rgb, name: str) -> UInt8[np.ndarray, "_ _ 3"]:
    """A map with its name on a strip below."""
    line = line_of(name, 20, picture.shape[1] - 8)
    strip = Image.new("RGB", (picture.shape[1], 30), PAPER)
    write(ImageDraw.Draw(strip), (4, 2), line, INK)
    return np.concatenate([picture, np.asarray(strip)])


def base(photo: UInt8[np.ndarray, "_ _ 3"], said: Explanation) -> tuple[Rgb, float]:
    """The photo in pale grey at the size of a map, what is not seen darker; and the factor."""
    picture, factor = scaled(photo)
    size = (picture.shape[1], picture.shape[0])
    grey = picture.mean(2, keepdims=True).repeat(3, 2)
    found = OUTSIDE * grey
    for cell in said.players.cells:
        y, x = _slices(cell, factor, size)
        found[y, x] = 70 + 0.72 * grey[y, x]
    return found.round().astype(np.uint8), factor


def signed_map(
    photo: UInt8[np.ndarray, "_ _ 3"],
    said: Explanation,
    values: Float[Tensor, " player"],
    errors: Float[Tensor, " player"],
    largest: float,
) -> Rgb:
    """Red where a value is above 0 and blue where it is below, the stronger the nearer `largest`.

    Values within two standard errors of 0 are faint.
    """
    picture, factor = base(photo, said)
    found = picture.astype(np.float64)
    size = (picture.shape[1], picture.shape[0])
    for cell, value, error in zip(
        said.players.cells, values.tolist(), errors.tolist(), strict=True
    ):
        share = min(1.0, abs(value) / largest) ** 0.7 if largest > 0 else 0.0
        alpha = 0.85 * share * (1.0 if abs(value) >= CLEAR * error else FAINT)
        y, x = _slices(cell, factor, size)
        found[y, x] = (1 - alpha) * found[y, x] + alpha * (FOR if value > 0 else AGAINST)
    return with_box(found.round().astype(np.uint8), said, factor)


def word_map(
    photo: UInt8[np.ndarray, "_ _ 3"], said: Explanation, words: Int[Tensor, " player"]
) -> Rgb:
    """Each patch in the colour of a word; none where the number is below 0."""
    picture, factor = base(photo, said)
    found, colours = picture.astype(np.float64), palette(len(said.words))
    size = (picture.shape[1], picture.shape[0])
    for cell, word in zip(said.players.cells, words.tolist(), strict=True):
        if word >= 0:
            y, x = _slices(cell, factor, size)
            found[y, x] = 0.4 * found[y, x] + 0.6 * colours[word]
    return with_box(found.round().astype(np.uint8), said, factor)


def numbered(photo: UInt8[np.ndarray, "_ _ 3"], said: Explanation, patches: Sequence[int]) -> Rgb:
    """The photo with frames about some patches, numbered from 1."""
    picture, factor = scaled(photo)
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    labels: dict[int, list[str]] = {}
    for number, patch in enumerate(patches, 1):
        labels.setdefault(patch, []).append(str(number))
    for patch, numbers in labels.items():
        x0, y0, x1, y1 = (v * factor for v in said.players.cells[patch])
        draw.rectangle((x0 + 1, y0 + 1, x1 - 1, y1 - 1), outline=PAPER, width=4)
        draw.rectangle((x0 + 2, y0 + 2, x1 - 2, y1 - 2), outline=INK, width=2)
        line = line_of(",".join(numbers), 15)
        draw.rectangle((x0 + 3, y0 + 3, x0 + line.width + 9, y0 + line.height + 3), fill=PAPER)
        write(draw, (x0 + 6, y0 + 3), line, INK)
    return with_box(np.asarray(image), said, factor)


def with_box(picture: Rgb, said: Explanation, factor: float) -> Rgb:
    """The same with the asked box drawn in, if there is one."""
    if said.box is None:
        return picture
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    x0, y0, x1, y1 = (v * factor for v in said.box.box)
    draw.rectangle((x0, y0, x1 - 1, y1 - 1), outline=INK, width=5)
    draw.rectangle((x0 + 1, y0 + 1, x1 - 2, y1 - 2), outline=(255, 214, 10), width=3)
    return np.asarray(image)


def _slices(cell: Box, factor: float, size: tuple[int, int]) -> tuple[slice, slice]:
    """Rows and columns of a picture that a part of the photo covers."""
    x0, y0, x1, y1 = (round(v * factor) for v in cell)
    x, y = slice(max(0, x0), min(size[0], x1)), slice(max(0, y0), min(size[1], y1))
    return y, x
