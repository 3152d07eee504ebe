"""Generated pictures of concave objects with masks, boxes and classes, where no data is found.

An object fills less than half of its box, so that the box alone tells little of its mask, and has
two colours, so that colour alone tells little, either. Everything follows from (split, number).
"""

from __future__ import annotations

import zlib
from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, UInt8

from tenfold.data.images.crops import crop_of
from tenfold.data.images.instances import Objects, ObjectSet, Shape

from .scenes import Drawn, background, boxes_of

SIDE = 64
NAMES = ("hook", "fork", "moon")
LEAST = 60
"""Visible pixels of an object that counts."""


def picture(split: str, index: int) -> Drawn:
    """A picture of one or two objects; later ones hide earlier ones."""
    random = np.random.default_rng(zlib.crc32(f"hollows/{split}/{index}".encode()))
    line = (np.arange(SIDE, dtype=np.float32) + 0.5) / SIDE
    y, x = line[:, None], line[None, :]
    shown = 0.5 * background(random, x, y)
    count = int(random.integers(1, 3))
    labels = random.integers(len(NAMES), size=count)
    owner = np.full((SIDE, SIDE), -1)
    for number, label in enumerate(labels):
        radius = random.uniform(0.2, 0.3) if count > 1 else random.uniform(0.28, 0.42)
        centre = random.uniform(radius, 1 - radius, 2)
        turn = int(random.integers(4)) * np.pi / 2
        dx, dy = (x - centre[0]) / radius, (y - centre[1]) / radius
        u, v = dx * np.cos(turn) + dy * np.sin(turn), dy * np.cos(turn) - dx * np.sin(turn)
        covered = is_inside(NAMES[label], u, v)
        first, second = random.uniform(0.45, 1.0, (2, 3))
        shown = np.where(covered[..., None], np.where((u > 0)[..., None], first, second), shown)
        owner[covered] = number
    noisy = shown + 0.03 * random.standard_normal(shown.shape)
    masks = owner[None] == np.arange(count)[:, None, None]
    kept = masks.sum((1, 2)) >= LEAST
    masks, labels = masks[kept], labels[kept]
    pixels = (255 * noisy.clip(0, 1) + 0.5).astype(np.uint8)
    return Drawn(pixels, masks, labels.astype(np.int64), boxes_of(masks))


def is_inside(
    shape: str, u: Float[np.ndarray, "height width"], v: Float[np.ndarray, "height width"]
) -> Bool[np.ndarray, "height width"]:
    """Pixels inside a shape of radius 1: a hook, a fork of three teeth, a thin moon."""
    square = (np.abs(u) < 1) & (np.abs(v) < 1)
    if shape == "hook":
        return square & ((u < -0.5) | (v > 0.5))
    if shape == "fork":
        teeth = (np.abs(u) < 0.2) | (np.abs(u) > 0.65)
        return square & ((v > 0.6) | teeth)
    return (u**2 + v**2 < 1.0) & ((u - 0.45) ** 2 + v**2 > 0.6)


class DrawnSet(ObjectSet):
    """A set whose pictures are drawn when asked for; their names are split and number."""

    def picture(self, index: int) -> UInt8[np.ndarray, "height width 3"]:
        """Draw a picture."""
        split, _, number = self.pictures[index].name.rpartition("/")
        return _pixels(split, int(number))


@lru_cache(maxsize=1000)
def _pixels(split: str, index: int) -> UInt8[np.ndarray, "height width 3"]:
    found = picture(split, index).picture
    found.setflags(write=False)
    return found


@lru_cache(maxsize=8)
def open_set(split: str, count: int) -> DrawnSet:
    """The first `count` pictures of a split; other names of splits are other pictures."""
    pictures = []
    for index in range(count):
        drawn = picture(split, index)
        shapes = [
            Shape(10 * index + row, int(label), tuple(map(float, box)), crop_of(mask),  # type: ignore[arg-type]
                  area=float(mask.sum()))
            for row, (label, box, mask) in enumerate(
                zip(drawn.labels, drawn.boxes, drawn.masks, strict=True), 1
            )
        ]  # fmt: skip
        name = f"{split}/{index}"
        pictures.append(Objects(Path(name), name, index + 1, SIDE, SIDE, tuple(shapes)))
    return DrawnSet(NAMES, tuple(range(1, len(NAMES) + 1)), tuple(pictures))
