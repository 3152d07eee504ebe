"""Generated pictures with captions: coloured shapes, and sentences about them.

Phrases and boxes are exact. Everything follows from (seed, split, number).
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float, Int64, UInt8

from .scenes import NAMES as SHAPES
from .scenes import is_inside

SIDE = 112
SIZES = (28, 36, 44, 56)
"""Sides of the square around a shape, in pixels."""
COLOURS = {
    "red": (200, 60, 60), "green": (70, 160, 80), "blue": (70, 110, 200), "yellow": (230, 210, 90),
    "purple": (140, 80, 170), "white": (245, 245, 245),
}  # fmt: skip
GROUNDS = {"black": (25, 25, 25), "grey": (120, 120, 120), "brown": (110, 75, 45)}
NAMES = tuple(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES)
"""Classes of objects."""
MOST = 3
"""Objects of a picture."""
BACKGROUND = -1
TRIES = 20
"""Places that are tried for an object; it is left away if it hides others in all of them."""
HIDDEN = 0.1
"""Share of the smaller of two squares that the other may hide."""


@dataclass(frozen=True)
class Captioned:
    """One picture with its sentence."""

    picture: UInt8[np.ndarray, "side side 3"]
    caption: str
    phrases: tuple[tuple[int, int, int], ...]
    """Characters [start, end) of each, and the object that it names; BACKGROUND for the ground."""
    labels: Int64[np.ndarray, " object"]
    boxes: Float[np.ndarray, "object 4"]
    """x0 y0 x1 y1 in pixels, exclusive ends."""


@lru_cache(maxsize=4096)
def captioned(split: str, index: int, seed: int = 0) -> Captioned:
    """One picture of a split; drawn once, so nobody may write into it."""
    random = np.random.default_rng(zlib.crc32(f"captioned/{seed}/{split}/{index}".encode()))
    ground = str(random.choice(list(GROUNDS)))
    squares: list[tuple[int, int, int]] = []
    for _ in range(int(random.integers(1, MOST + 1))):
        for _ in range(TRIES):
            size = int(random.choice(SIZES))
            x, y = (int(value) for value in random.integers(0, SIDE - size + 1, 2))
            if all(_shared((x, y, size), other) <= HIDDEN for other in squares):
                squares.append((x, y, size))
                break
    labels = random.integers(len(NAMES), size=len(squares))
    picture = np.empty((SIDE, SIDE, 3))
    picture[:] = GROUNDS[ground]
    for label, (x, y, size) in zip(labels, squares, strict=True):
        colour, shape = NAMES[label].split()
        line = ((np.arange(size) + 0.5) / size * 2 - 1) * 1.05
        inside = is_inside(shape, line[None, :], line[:, None])
        picture[y : y + size, x : x + size][inside] = COLOURS[colour]
    picture += random.normal(0, 4, picture.shape)
    pixels = (picture + 0.5).clip(0, 255).astype(np.uint8)
    pixels.setflags(write=False)
    caption, phrases = _sentence(labels, squares, ground, random)
    boxes = np.array([[x, y, x + size, y + size] for x, y, size in squares], dtype=np.float32)
    return Captioned(pixels, caption, phrases, labels.astype(np.int64), boxes)


def _shared(one: tuple[int, int, int], other: tuple[int, int, int]) -> float:
    """Common part of two squares x y size, as a share of the smaller one."""
    sides = [
        max(0, min(one[k] + one[2], other[k] + other[2]) - max(one[k], other[k])) for k in (0, 1)
    ]
    return sides[0] * sides[1] / min(one[2], other[2]) ** 2


def _sentence(
    labels: Int64[np.ndarray, " object"],
    squares: list[tuple[int, int, int]],
    ground: str,
    random: np.random.Generator,
) -> tuple[str, tuple[tuple[int, int, int], ...]]:
    """A sentence that names all objects, some the ground too, and its phrases."""
    order = [int(row) for row in random.permutation(len(labels))]
    joints = [""] + [", "] * (len(order) - 2) + [" and "] * (len(order) > 1)
    if len(order) == 2 and random.random() < 0.5:
        first, second = (squares[row][0] + squares[row][2] / 2 for row in order)
        joints[1] = f" to the {'left' if first < second else 'right'} of "
    parts = [
        (joint, f"a {NAMES[labels[row]]}", row) for joint, row in zip(joints, order, strict=True)
    ]
    if random.random() < 0.3:
        parts.append((" on ", f"a {ground} background", BACKGROUND))
    text, phrases = "", []
    for joint, phrase, row in parts:
        start = len(text) + len(joint)
        text += joint + phrase
        phrases.append((start, len(text), row))
    return text, tuple(phrases)
