"""Random views of scenes for dense tasks: picture and labels, or picture and objects, together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64, UInt8
from PIL import Image
from torch import Tensor

from tenfold.structures import Instances

Picture = UInt8[np.ndarray, "_ _ 3"]

IGNORED = 255
TRIES = 10
MEAN = (124, 116, 104)
"""Filled in where a picture ends: ImageNet's mean colour."""
LEAST = 2.0
"""Pixels of a side below which an object that a crop has cut is left out."""


@dataclass(frozen=True)
class View:
    """A view with its objects."""

    picture: UInt8[Tensor, "3 height width"]
    boxes: Float[Tensor, "object 4"]
    labels: Int64[Tensor, " object"]
    masks: Bool[Tensor, "object height width"] | None
    ignored: Float[Tensor, "region 4"]


def channels_first(picture: Picture) -> UInt8[Tensor, "3 height width"]:
    """In torch's order."""
    return torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))


def resized(picture: Picture, height: int, width: int) -> Picture:
    """Bilinear with antialiasing."""
    image = Image.fromarray(picture)
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))


def segmentation_view(
    picture: Picture,
    labels: UInt8[np.ndarray, "height width *channel"],
    size: int,
    generator: torch.Generator,
    scales: tuple[float, float] = (0.5, 2.0),
    most: float = 0.75,
    resize: tuple[int, int] = (0, 0),
) -> tuple[UInt8[Tensor, "3 size size"], UInt8[Tensor, "size size *channel"]]:
    """mmsegmentation's training view: random scale, crop, mirror, colours.

    most: a crop in which one class has more of the counted pixels is drawn again, TRIES times. What
    lies outside of the picture is filled with the mean colour and does not count. resize: shorter
    side and largest longer side to which the picture is brought first; (0, 0) keeps its own.
    """
    draw = torch.rand(3, generator=generator).tolist()
    scale = scales[0] + (scales[1] - scales[0]) * draw[0]
    sides = labels.shape[:2]
    if any(resize):
        sides = size_for(labels.shape[0], labels.shape[1], resize[0], resize[1])
    height, width = (max(1, round(side * scale)) for side in sides)
    picture = resized(picture, height, width)
    labels = np.asarray(Image.fromarray(labels).resize((width, height), Image.Resampling.NEAREST))
    for _ in range(TRIES):
        place = torch.rand(2, generator=generator).tolist()
        top = int(place[0] * (max(0, height - size) + 1))
        left = int(place[1] * (max(0, width - size) + 1))
        part = labels[top : top + size, left : left + size]
        counts = np.bincount(part[part != IGNORED].ravel(), minlength=1)
        if counts.sum() and counts.max() <= most * counts.sum():
            break
    shown = np.empty((size, size, 3), dtype=np.uint8)
    shown[:] = MEAN
    known = np.full((size, size, *labels.shape[2:]), IGNORED, dtype=np.uint8)
    tall, wide = part.shape[:2]
    shown[:tall, :wide] = picture[top : top + size, left : left + size]
    known[:tall, :wide] = part
    if draw[1] < 0.5:
        shown, known = shown[:, ::-1], known[:, ::-1]
    changed = distorted(channels_first(shown), generator)
    return changed, torch.from_numpy(known.copy())


def distorted(
    picture: UInt8[Tensor, "3 height width"], generator: torch.Generator
) -> UInt8[Tensor, "3 height width"]:
    """SSD's colour changes: brightness, contrast, saturation, hue, each half of the time."""
    chance = (torch.rand(5, generator=generator) < 0.5).tolist()
    amount = (2 * torch.rand(4, generator=generator) - 1).tolist()
    x = picture.float()
    if chance[0]:
        x = x + 32 * amount[0]
    factor = 1 + 0.5 * amount[1]
    contrast_first = chance[4]
    if chance[1] and contrast_first:
        x = x * factor
    x = x.clamp(0, 255)
    if chance[2] or chance[3]:
        pixels = x.round().byte().permute(1, 2, 0).contiguous().numpy()
        hsv = np.asarray(Image.fromarray(pixels).convert("HSV")).astype(np.float32)
        if chance[2]:
            hsv[..., 1] = (hsv[..., 1] * (1 + 0.5 * amount[2])).clip(0, 255)
        if chance[3]:
            hsv[..., 0] = (hsv[..., 0] + 18 / 360 * 256 * amount[3]) % 256
        image = Image.fromarray(hsv.astype(np.uint8), "HSV").convert("RGB")
        x = channels_first(np.asarray(image)).float()
    if chance[1] and not contrast_first:
        x = x * factor
    return x.clamp(0, 255).round().byte()


def size_for(height: int, width: int, short: int, longest: int) -> tuple[int, int]:
    """Height and width with the shorter side `short`, or the longer one at its limit."""
    scale = min(short / min(height, width), longest / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def test_view(
    picture: Picture, short: int, longest: int
) -> tuple[UInt8[Tensor, "3 height width"], tuple[float, float]]:
    """The resized picture, and the factors by which x and y grew: whole pixels differ a little."""
    height, width = size_for(picture.shape[0], picture.shape[1], short, longest)
    factors = width / picture.shape[1], height / picture.shape[0]
    return channels_first(resized(picture, height, width)), factors


def detection_view(
    picture: Picture,
    objects: Instances,
    generator: torch.Generator,
    short_sides: Sequence[int],
    longest: int,
    crop: bool = True,
) -> View:
    """A picture of random size with its objects, mirrored half of the time.

    crop: half of the time a random part of a middle-sized picture is cut out first (DETR). Boxes of
    objects with masks are made anew around what is left of them; a mask without a pixel is none.
    """
    draw = torch.rand(6, generator=generator).tolist()
    height, width = picture.shape[:2]
    true, crowds = objects.at(~objects.is_crowd), objects.at(objects.is_crowd)
    part = (0, 0, width, height)
    if crop and draw[1] < 0.5:
        wide = max(1, round(width * (0.6 + 0.4 * draw[2])))
        tall = max(1, round(height * (0.6 + 0.4 * draw[3])))
        left, top = int(draw[4] * (width - wide + 1)), int(draw[5] * (height - tall + 1))
        part = (left, top, left + wide, top + tall)
    left, top, right, bottom = part
    short = short_sides[min(int(draw[0] * len(short_sides)), len(short_sides) - 1)]
    new_height, new_width = size_for(bottom - top, right - left, short, longest)
    shown = resized(picture[top:bottom, left:right], new_height, new_width)
    factor = np.array(
        [new_width / (right - left), new_height / (bottom - top)] * 2, dtype=np.float32
    )
    limit = np.array([new_width, new_height] * 2, dtype=np.float32)
    origin = np.array([left, top] * 2, dtype=np.float32)
    moved, crowd = (((b - origin) * factor).clip(0, limit) for b in (true.boxes, crowds.boxes))
    shapes = has_mask = None
    if true.masks is not None:
        has_mask = torch.from_numpy(true.masks.any((1, 2)))
        x = torch.from_numpy(true.masks[:, top:bottom, left:right].astype(np.float32))
        shapes = _shrunk(x, new_height, new_width)
    is_flipped = bool(torch.rand((), generator=generator) < 0.5)
    if is_flipped:
        shown = shown[:, ::-1]
        for some in (moved, crowd):
            some[:, [0, 2]] = new_width - some[:, [2, 0]]
        shapes = None if shapes is None else shapes.flip(2)
    found = torch.from_numpy(np.ascontiguousarray(moved))
    if shapes is not None:
        assert has_mask is not None
        found = torch.where(has_mask[:, None], around(shapes), found)
    kept = ((found[:, 2:] - found[:, :2]) >= LEAST).all(1)
    return View(
        channels_first(shown),
        found[kept],
        torch.from_numpy(true.labels)[kept],
        None if shapes is None else shapes[kept],
        torch.from_numpy(np.ascontiguousarray(crowd)),
    )


def _shrunk(
    masks: Float[Tensor, "object height width"], height: int, width: int
) -> Bool[Tensor, "object new_height new_width"]:
    """Masks of another size: pixels of which a half or more is covered."""
    if not len(masks):
        return torch.zeros(0, height, width, dtype=torch.bool)
    x = F.interpolate(masks[:, None], (height, width), mode="bilinear", antialias=True)
    return x[:, 0] >= 0.5


def around(masks: Bool[Tensor, "object height width"]) -> Float[Tensor, "object 4"]:
    """The boxes around masks; zeros for an empty one."""
    sides = []
    for axis in (1, 2):  # pixels along x, then along y
        line = masks.any(axis)
        count = line.shape[1]
        first = line.float().argmax(1) if count else line.new_zeros(len(line)).long()
        last = count - line.flip(1).float().argmax(1)
        sides.append((first, last))
    (x0, x1), (y0, y1) = sides
    boxes = torch.stack([x0, y0, x1, y1], 1).float()
    return boxes * masks.flatten(1).any(1)[:, None]


def collate(
    views: Sequence[View], multiple: int
) -> tuple[UInt8[Tensor, "batch 3 height width"], Int64[Tensor, "batch 2"]]:
    """Pictures filled up with the mean colour to one size, and their true heights and widths."""
    sizes = torch.tensor([list(view.picture.shape[1:]) for view in views])
    height, width = (-(-int(side) // multiple) * multiple for side in sizes.amax(0))
    filled = torch.tensor(MEAN, dtype=torch.uint8).view(1, 3, 1, 1)
    batch = filled.expand(len(views), 3, height, width).clone()
    for row, view in enumerate(views):
        batch[row, :, : view.picture.shape[1], : view.picture.shape[2]] = view.picture
    return batch, sizes
