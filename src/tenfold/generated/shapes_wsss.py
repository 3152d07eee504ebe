"""Generated pictures with labels of the whole picture and true masks, where no data is found.

A thing is a dark body with a bright core. The core has the colour and texture of its class, the
body but a tint of the colour and the class's outline: a classifier learns the core first and its
activation maps leave the body out, as those of photographs do. Ground and clutter tell nothing.
Everything follows from (seed, split, number).
"""

from __future__ import annotations

import zlib
from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from tenfold.data.images.image_labels import Item, MultiLabelSet

from .scenes import background, is_inside

SIDE = 64
NAMES = ("disc", "square", "triangle", "cross", "star")
COLOURS = (
    (0.9, 0.3, 0.25), (0.3, 0.75, 0.3), (0.3, 0.45, 0.95), (0.9, 0.75, 0.2), (0.75, 0.35, 0.85),
)  # fmt: skip
"""Of the cores, one a class."""
TEXTURES = ((11.0, 0.0), (0.0, 11.0), (8.0, 8.0), (5.0, 0.0), (0.0, 0.0))
"""Waves of the cores along the two axes of a thing, one a class."""
CORE = 0.5
"""Radius of the core in that of the body."""
LEAST = 16
"""Visible pixels of a class that counts."""

Pair = tuple[UInt8[np.ndarray, "side side 3"], UInt8[np.ndarray, "side side"]]


def pair(split: str, index: int, seed: int = 0) -> Pair:
    """A picture of one to three things, and its mask: 0 ground, class + 1."""
    random = np.random.default_rng(zlib.crc32(f"wsss/{seed}/{split}/{index}".encode()))
    line = (np.arange(SIDE, dtype=np.float32) + 0.5) / SIDE
    y, x = line[:, None], line[None, :]
    picture = background(random, x, y)
    mask = np.zeros((SIDE, SIDE), dtype=np.uint8)
    for _ in range(3):  # clutter: small grey blots, under everything
        centre, radius = random.uniform(0, 1, 2), random.uniform(0.02, 0.06)
        blot = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 < radius**2
        picture = np.where(blot[..., None], random.uniform(0.2, 0.8), picture)
    for label in random.choice(len(NAMES), size=int(random.integers(1, 4)), replace=False):
        radius = random.uniform(0.16, 0.26)
        centre = random.uniform(0.2, 0.8, 2)
        turn = random.uniform(-0.5, 0.5)
        dx, dy = (x - centre[0]) / radius, (y - centre[1]) / radius
        u, v = dx * np.cos(turn) + dy * np.sin(turn), dy * np.cos(turn) - dx * np.sin(turn)
        body = is_inside(NAMES[label], u, v)
        picture = np.where(body[..., None], _painted(random, int(label), u, v), picture)
        mask[body] = label + 1
    for number in np.unique(mask):  # what is all but hidden is no label
        if number and (mask == number).sum() < LEAST:
            mask[mask == number] = 255
    noisy = picture + 0.03 * random.standard_normal(picture.shape)
    return (255 * noisy.clip(0, 1) + 0.5).astype(np.uint8), mask


def _painted(
    random: np.random.Generator, label: int, u: np.ndarray, v: np.ndarray
) -> Float[np.ndarray, "side side 3"]:
    """Colours of a thing: a grey body with a tint of its class, and the core."""
    colour = np.array(COLOURS[label])
    grey = random.uniform(0.15, 0.3)
    along, across = TEXTURES[label]
    waves = 1 + 0.3 * np.sin(along * u + across * v + random.uniform(0, 6))
    body = np.broadcast_to(grey + 0.12 * colour, (*u.shape, 3))
    core = (u**2 + v**2 < CORE**2)[..., None]
    return np.where(core, colour * waves[..., None], body)


@lru_cache(maxsize=8)
def open_set(split: str, count: int, seed: int = 0) -> MultiLabelSet:
    """The first `count` pictures of a split, in memory; drawn once.

    split: any name; other names are other pictures.
    """
    items = []
    for index in range(count):
        picture, mask = pair(split, index, seed)
        present = np.unique(mask)
        labels = tuple(int(n) - 1 for n in present if 0 < n <= len(NAMES))
        name = f"{split}_{index:04d}"
        items.append(Item(name, Path(f"{name}.png"), labels, held=(picture, mask)))
    how = "drawn with the pictures: a class is a label if it can be seen"
    return MultiLabelSet("shapes_wsss", "generated", NAMES, tuple(items), how)
