"""Generated scenes: objects of eight shapes with masks, boxes and classes, where no data is found.

A class is a shape; colour, texture, size, turn, place and background say nothing of it. Later
objects hide earlier ones. Everything follows from (seed, split, number).
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float, Int64, UInt8

SIDE = 64
NAMES = ("disc", "square", "triangle", "cross", "ring", "moon", "star", "bar")
LEAST = 12
"""Visible pixels of an object that counts."""


@dataclass(frozen=True)
class Drawn:
    """One scene."""

    picture: UInt8[np.ndarray, "side side 3"]
    masks: Bool[np.ndarray, "object side side"]
    """Visible parts."""
    labels: Int64[np.ndarray, " object"]
    boxes: Float[np.ndarray, "object 4"]
    """x0 y0 x1 y1 of the visible parts, exclusive ends."""


def scene(split: str, index: int, seed: int = 0, objects: tuple[int, int] = (1, 4)) -> Drawn:
    """A scene with some objects, as many as drawn from `objects` unless they hide each other."""
    random = np.random.default_rng(zlib.crc32(f"{seed}/{split}/{index}".encode()))
    count = int(random.integers(objects[0], objects[1] + 1))
    low, high = (0.3, 0.5) if count == 1 else (0.16, 0.4)
    line = (np.arange(SIDE, dtype=np.float32) + 0.5) / SIDE
    y, x = line[:, None], line[None, :]
    picture = background(random, x, y)
    owner = np.full((SIDE, SIDE), -1)
    labels = random.integers(len(NAMES), size=count)
    for number, label in enumerate(labels):
        radius = random.uniform(low, high) / 2 * 1.4
        centre = random.uniform(0.15, 0.85, 2) if count > 1 else random.uniform(0.3, 0.7, 2)
        turn = random.uniform(0, 2 * np.pi)
        dx, dy = (x - centre[0]) / radius, (y - centre[1]) / radius
        u, v = dx * np.cos(turn) + dy * np.sin(turn), dy * np.cos(turn) - dx * np.sin(turn)
        covered = is_inside(NAMES[label], u, v)
        colour = random.uniform(0.1, 0.95, 3)
        waves = 1 + 0.25 * np.sin(random.uniform(2, 9) * u + random.uniform(0, 6))
        picture = np.where(covered[..., None], colour * waves[..., None], picture)
        owner[covered] = number
    noisy = picture + 0.04 * random.standard_normal(picture.shape)
    masks = owner[None] == np.arange(count)[:, None, None]
    kept = masks.sum((1, 2)) >= LEAST
    masks, labels = masks[kept], labels[kept]
    pixels = (255 * noisy.clip(0, 1) + 0.5).astype(np.uint8)
    return Drawn(pixels, masks, labels.astype(np.int64), boxes_of(masks))


def boxes_of(masks: Bool[np.ndarray, "object height width"]) -> Float[np.ndarray, "object 4"]:
    """The boxes around masks; zeros for an empty one."""
    found = np.zeros((len(masks), 4), dtype=np.float32)
    for row, mask in enumerate(masks):
        y, x = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if len(y):
            found[row] = x[0], y[0], x[-1] + 1, y[-1] + 1
    return found


@lru_cache(maxsize=4)
def scenes(split: str, count: int, seed: int = 0) -> tuple[Drawn, ...]:
    """The first scenes of a split; drawn once, so nobody may write into them."""
    return tuple(scene(split, index, seed) for index in range(count))


@lru_cache(maxsize=4)
def photos(
    split: str, count: int, seed: int
) -> tuple[
    UInt8[np.ndarray, "picture side side 3"],
    Int64[np.ndarray, " picture"],
    Float[np.ndarray, "picture 4"],
]:
    """Pictures of one object each, with class and box; drawn once, and read-only."""
    made = [scene(f"{split}-photos", i, seed, (1, 1)) for i in range(count)]
    pictures = np.stack([one.picture for one in made])
    labels = np.concatenate([one.labels for one in made])
    boxes = np.concatenate([one.boxes for one in made])
    for array in (pictures, labels, boxes):
        array.setflags(write=False)
    return pictures, labels, boxes


def label_map(drawn: Drawn) -> UInt8[np.ndarray, "side side"]:
    """0 for background, class + 1 for objects."""
    found = np.zeros((SIDE, SIDE), dtype=np.uint8)
    for mask, label in zip(drawn.masks, drawn.labels, strict=True):
        found[mask] = label + 1
    return found


def background(random: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A random colour and, in each channel, two random waves."""
    channels = []
    for _ in range(3):
        a = random.uniform(-1, 1, 7)
        slow = 0.15 * np.sin(6 * a[0] * x + 6 * a[1] * y + 3 * a[2])
        fast = 0.07 * np.sin(30 * a[3] * x + 30 * a[4] * y + 3 * a[5])
        channels.append(0.5 + 0.3 * a[6] + slow + fast)
    return np.stack(channels, -1)


def is_inside(shape: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Return the mask of points inside a shape of radius about 1."""
    square, largest = u**2 + v**2, np.maximum(np.abs(u), np.abs(v))
    if shape == "disc":
        return square < 0.8
    if shape == "square":
        return largest < 0.75
    if shape == "triangle":
        return (v > -0.55) & (np.sqrt(3) * np.abs(u) + v < 1.1)
    if shape == "cross":
        return (np.minimum(np.abs(u), np.abs(v)) < 0.3) & (largest < 1.0)
    if shape == "ring":
        return (square < 1.0) & (square > 0.35)
    if shape == "moon":
        return (square < 1.0) & ((u - 0.5) ** 2 + v**2 > 0.5)
    if shape == "star":
        return square < (0.65 + 0.35 * np.cos(5 * np.arctan2(v, u))) ** 2
    return (np.abs(u) < 1.0) & (np.abs(v) < 0.3)
