"""Label maps, boxes and masks drawn on photographs, and sheets of pictures."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image, ImageDraw

from .colours import palette
from .fonts import captions as shown_names
from .fonts import line_of, write

Rgb = UInt8[np.ndarray, "_ _ 3"]

IGNORED = 255
INK, PAPER = (28, 28, 30), (255, 255, 255)
SMALLEST = 220
"""Pixels of the longer side below which a picture is enlarged before anything is drawn on it."""
GAP = 8
HEAT = np.array([(60, 0, 80), (180, 20, 60), (240, 110, 20), (255, 210, 40), (255, 255, 220)])
"""Colours of a map of values, from 0 to 1."""
LETTERS, LINES = 40, 220
"""Of captions' letters and of boxes' lines that fit along a picture's side (the geometric mean of
its two), so that they can be read on a large picture as on a small one."""


def colour_map(labels: UInt8[np.ndarray, "height width"], num_classes: int) -> Rgb:
    """Colours of classes; what is ignored is striped grey."""
    table = np.zeros((256, 3), dtype=np.uint8)
    table[:num_classes] = palette(num_classes)
    found = table[labels]
    y, x = np.indices(labels.shape)
    stripes = np.where(((x + y) // 4 % 2 == 0)[..., None], np.uint8(110), np.uint8(150))
    return np.where((labels == IGNORED)[..., None], stripes, found).astype(np.uint8)


def blend(
    picture: Rgb,
    labels: UInt8[np.ndarray, "height width"],
    num_classes: int,
    share: float = 0.6,
    bare: int = -1,
) -> Rgb:
    """The picture in grey under the colours of its classes; `bare` is one without a colour."""
    grey = picture.mean(2, keepdims=True).repeat(3, 2)
    mixed = (1 - share) * grey + share * colour_map(labels, num_classes)
    return np.where((labels == bare)[..., None], grey, mixed).round().astype(np.uint8)


def heat(picture: Rgb, values: Float[np.ndarray, "height width"], share: float = 0.75) -> Rgb:
    """The picture in grey under a map of values from 0 to 1: nothing, red, yellow, white."""
    grey = picture.mean(2, keepdims=True).repeat(3, 2)
    places = np.linspace(0, 1, len(HEAT))
    tones = np.stack([np.interp(values, places, tone) for tone in HEAT.T], -1)
    alpha = (share * values.clip(0, 1) ** 0.7)[..., None]
    return ((1 - alpha) * grey + alpha * tones).round().astype(np.uint8)


def enlarged(picture: Rgb, longest: int = SMALLEST) -> tuple[Rgb, int]:
    """A small picture enlarged by a whole factor, and the factor."""
    factor = max(1, -(-longest // max(picture.shape[:2])))
    if factor == 1:
        return picture, 1
    size = (picture.shape[1] * factor, picture.shape[0] * factor)
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC)), factor


def thickness(picture: Rgb) -> tuple[int, int]:
    """Height of letters and width of lines, in pixels, that suit a picture of this size."""
    side = math.sqrt(picture.shape[0] * picture.shape[1])
    return max(12, round(side / LETTERS)), max(2, round(side / LINES))


def draw_objects(
    picture: Rgb,
    boxes: Float[np.ndarray, "object 4"],
    captions: Sequence[str],
    labels: Int[np.ndarray, " object"],
    masks: Bool[np.ndarray, "object height width"] | None = None,
) -> Rgb:
    """Masks, outlines and captions of objects, the last drawn on top; colours are of classes."""
    picture, factor = enlarged(picture)
    colours = palette(int(labels.max()) + 1 if len(labels) else 1)
    canvas = picture.copy()
    if masks is not None:
        for mask, label in zip(masks, labels, strict=True):
            large = mask.repeat(factor, 0).repeat(factor, 1)
            mixed = (canvas[large].astype(np.uint16) + colours[label] + 1) // 2
            canvas[large] = mixed.astype(np.uint8)
    image = Image.fromarray(canvas)
    draw = ImageDraw.Draw(image)
    letters, line = thickness(picture)
    for box, caption, label in zip(boxes, captions, labels, strict=True):
        colour = tuple(int(v) for v in colours[label])
        x0, y0, x1, y1 = (float(v) * factor for v in box)
        draw.rectangle((x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)), outline=colour, width=line)
        if caption:
            _caption(draw, image.size, (x0, y0), caption, colour, letters)
    return np.asarray(image)


def _caption(
    draw: ImageDraw.ImageDraw,
    size: tuple[int, int],
    corner: tuple[float, float],
    text: str,
    colour: tuple[int, ...],
    letters: int,
) -> None:
    """Text on its class's colour, above the corner, or inside where there is no room."""
    room = max(2, letters // 4)
    line = line_of(text, letters, size[0] - 2 * room)
    wide, tall = line.width + 2 * room, line.height
    x = min(max(0.0, corner[0]), max(0.0, size[0] - wide))
    y = corner[1] - tall if corner[1] >= tall else corner[1]
    y = min(max(0.0, y), max(0.0, size[1] - tall))
    draw.rectangle((x, y, x + wide, y + tall), fill=colour)
    bright = sum(w * c for w, c in zip((0.299, 0.587, 0.114), colour, strict=True)) > 140
    write(draw, (x + room, y), line, INK if bright else PAPER)


def legend(names: Sequence[str], rows: Sequence[int], width: int) -> Rgb:
    """A strip of coloured squares with the names of some classes, wrapped to a width."""
    colours, shown = palette(len(names)), shown_names(tuple(names))
    places, x, y = [], 4, 4
    for row in rows:
        line = line_of(shown[row], 13, width - 32)
        wide = 24 + round(line.width)
        if x + wide > width and x > 4:
            x, y = 4, y + 22
        places.append((row, line, x, y))
        x += wide + 8
    image = Image.new("RGB", (width, y + 24), PAPER)
    draw = ImageDraw.Draw(image)
    for row, line, left, top in places:
        fill = tuple(int(v) for v in colours[row])
        draw.rectangle((left, top, left + 14, top + 14), fill=fill)
        write(draw, (left + 20, top - 1), line, INK)
    return np.asarray(image)


def png(picture: Rgb) -> bytes:
    """A picture as the bytes of a PNG file."""
    content = io.BytesIO()
    Image.fromarray(picture).save(content, "PNG", optimize=True)
    return content.getvalue()


def label_png(labels: UInt8[np.ndarray, "height width"], count: int) -> bytes:
    """Class numbers below `count` as a palette PNG, which viewers show in colours."""
    image = Image.fromarray(labels, "P")
    image.putpalette(palette(count).tobytes())
    content = io.BytesIO()
    image.save(content, "PNG")
    return content.getvalue()


def sheet(
    rows: Sequence[Sequence[Rgb]],
    titles: Sequence[str] = (),
    captions: Sequence[str] = (),
    height: int = 160,
    footer: Rgb | None = None,
) -> bytes:
    """Pictures in rows of one height, with a title over each column, as a PNG.

    captions: a line under each row. Small pictures are enlarged without smoothing.
    """
    scaled = [[fitted(picture, height) for picture in row] for row in rows]
    columns = max((len(row) for row in scaled), default=1)
    widths = [max((row[i].shape[1] for row in scaled if i < len(row)), default=1)
              for i in range(columns)]  # fmt: skip
    head, line = 24 if titles else 0, 20 if captions else 0
    total = (sum(widths) + GAP * (columns + 1), head + GAP + len(scaled) * (height + line + GAP))
    image = Image.new("RGB", total, PAPER)
    draw = ImageDraw.Draw(image)
    x = GAP
    for title, width in zip(titles, widths, strict=False):
        write(draw, (x, 4), line_of(title, 13), INK)
        x += width + GAP
    y = head + GAP
    for number, row in enumerate(scaled):
        x = GAP
        for picture, width in zip(row, widths, strict=False):
            image.paste(Image.fromarray(picture), (x, y))
            x += width + GAP
        if captions:
            write(draw, (GAP, y + height + 1), line_of(captions[number], 13), INK)
        y += height + line + GAP
    if footer is not None:
        joined = Image.new("RGB", (max(total[0], footer.shape[1]), total[1] + footer.shape[0]),
                           PAPER)  # fmt: skip
        joined.paste(image, (0, 0))
        joined.paste(Image.fromarray(footer), (0, total[1]))
        image = joined
    return png(np.asarray(image))


def fitted(picture: Rgb, height: int) -> Rgb:
    """A picture scaled to a height; a small one is enlarged without smoothing."""
    image = Image.fromarray(picture)
    size = (max(1, round(image.width * height / image.height)), height)
    is_small = image.height * 2 <= height
    how = Image.Resampling.NEAREST if is_small else Image.Resampling.LANCZOS
    return np.asarray(image.resize(size, how))


def row_jpeg(pictures: Sequence[Rgb], height: int) -> bytes:
    """Pictures beside each other, scaled to a height, as a JPEG: small enough for a page."""
    parts = [fitted(picture, height) for picture in pictures]
    gap = np.full((height, GAP, 3), 255, dtype=np.uint8)
    joined = np.concatenate([part for one in parts for part in (gap, one)][1:], axis=1)
    content = io.BytesIO()
    Image.fromarray(joined).save(content, "JPEG", quality=90, subsampling=0)
    return content.getvalue()


def segmentation_sheet(
    pictures: Sequence[Rgb],
    truths: Sequence[UInt8[np.ndarray, "_ _"]],
    predictions: Sequence[UInt8[np.ndarray, "_ _"]],
    names: Sequence[str],
) -> bytes:
    """Pictures, true label maps and predicted ones, with a legend of the classes that occur."""
    count = len(names)
    rows = [
        [picture, colour_map(truth, count), colour_map(found, count)]
        for picture, truth, found in zip(pictures, truths, predictions, strict=True)
    ]
    seen = sorted({int(v) for m in (*truths, *predictions) for v in np.unique(m)} - {IGNORED})
    strip = legend(names, seen, 700)
    return sheet(rows, ("picture", "truth", "prediction"), height=180, footer=strip)
