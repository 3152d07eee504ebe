"""Generated pictures of shapes: the few-shot class-incremental benchmark where none is found.

A class is a shape, a colour and a texture together; place, size, rotation, background, a distractor
and noise say nothing about it. New classes are new combinations of what base classes have.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8

from tenfold.data.images import fscil
from tenfold.data.images.decode import Pictures

SIDE = 32
TRAIN, TEST = 40, 10
"""Pictures of a class."""
SHAPES = ("disc", "square", "triangle", "cross", "ring", "moon")
COLOURS = {
    "red": (0.85, 0.2, 0.2),
    "yellow": (0.85, 0.75, 0.2),
    "green": (0.25, 0.7, 0.3),
    "blue": (0.25, 0.35, 0.85),
}
TEXTURES = ("plain", "striped", "dotted", "checked")

_EVERY = [
    (shape, colour, texture) for shape in SHAPES for colour in COLOURS for texture in TEXTURES
]
_CLASSES = [_EVERY[i] for i in np.random.RandomState(2210).permutation(len(_EVERY))[:24]]
NAMES = tuple(f"{texture} {colour} {shape}" for shape, colour, texture in _CLASSES)
"""All classes in label order: 12 base classes, then 4 sessions of 3."""

_PARAMETERS = 32


def protocol(
    *, base: int = 0, way: int = 0, shot: int = 0, draws: int = 3, seed: int = 0
) -> fscil.Protocol:
    """The benchmark: 12 base classes, 4 sessions of 3 with 5 photos; 0 stands for these numbers.

    Picture i of a class depends only on seed, class, split and i.
    """
    photos = max(TRAIN, draws * (shot or fscil.OWN["shapes"].shot))
    numbers = [number for number in range(len(NAMES)) for _ in range(photos)]
    source = fscil.Source(
        classes=NAMES,
        train=numbers,
        test=[number for number in range(len(NAMES)) for _ in range(TEST)],
        load=lambda split, rows: _load(split, rows, photos if split == "train" else TEST, seed),
        view=fscil.view("shapes"),
        is_ordered=True,
    )
    return fscil.assemble("shapes", source, base=base, way=way, shot=shot, draws=draws, seed=seed)


def describe(*, base: int = 0, way: int = 0) -> tuple[str, ...]:
    """The classes of `protocol`, in label order."""
    return tuple(NAMES[i] for i in fscil.choose("shapes", len(NAMES), base, way)[1])


def _load(split: str, rows: Sequence[int], each: int, seed: int) -> Pictures:
    """Pictures by row: `each` of the first class, then of the next."""
    images = np.empty((len(rows), 3, SIDE, SIDE), dtype=np.uint8)
    labels = np.array([row // each for row in rows], dtype=np.int64)
    names = [f"{split}/{NAMES[row // each]}/{row % each}" for row in rows]
    for label in np.unique(labels):
        at = np.flatnonzero(labels == label)
        images[at] = draw(int(label), [f"{seed}/{names[i]}" for i in at])
    return Pictures(torch.from_numpy(images), torch.from_numpy(labels), tuple(names))


def draw(label: int, keys: Sequence[str]) -> UInt8[np.ndarray, "picture 3 side side"]:
    """One picture of the class for each key; the key's checksum seeds all that is random."""
    shape, colour, texture = _CLASSES[label]
    randoms = [np.random.default_rng(zlib.crc32(key.encode())) for key in keys]
    # one column a random number, each to be broadcast over rows and columns of pixels
    p = np.stack([r.random(_PARAMETERS, dtype=np.float32) for r in randoms]).T[..., None, None]
    noise = np.stack([r.standard_normal((3, SIDE, SIDE), dtype=np.float32) for r in randoms])
    size, angle = 0.5 + 0.25 * p[0], 2 * np.pi * p[1]
    x, y = _grid(2 * SIDE)  # two points to a pixel and side, which smooths the edges
    x, y = x - 0.6 * (p[2] - 0.5), y - 0.6 * (p[3] - 0.5)
    u = (x * np.cos(angle) + y * np.sin(angle)) / size
    v = (y * np.cos(angle) - x * np.sin(angle)) / size
    inside = _inside(shape, u, v)
    lit = inside * np.where(_pattern(texture, u, v, p[7]), 0.45 + 0.2 * p[8], np.float32(1))
    share, lit = (
        values.reshape(-1, 1, SIDE, 2, SIDE, 2).mean((3, 5), dtype=np.float32)
        for values in (inside, lit)
    )
    x, y = _grid(SIDE)
    spot = (x - 2 * p[27] + 1) ** 2 + (y - 2 * p[28] + 1) ** 2 < 0.04
    background = np.where(spot[:, None], p[29:32].swapaxes(0, 1), _background(p[9:27], x, y))
    tint = np.array(COLOURS[colour], dtype=np.float32)[:, None, None]
    tint = tint + 0.25 * (p[4:7].swapaxes(0, 1) - 0.5)
    pixels = lit * tint + (1 - share) * background + 0.05 * noise
    return (255 * pixels.clip(0, 1) + 0.5).astype(np.uint8)


def _grid(
    side: int,
) -> tuple[Float[np.ndarray, "1 1 side"], Float[np.ndarray, "1 side 1"]]:
    """Coordinates x and y of the points of a square from -1 to 1."""
    line = (2 * np.arange(side, dtype=np.float32) + 1) / side - 1
    return line[None, None, :], line[None, :, None]


def _inside(
    shape: str, u: Float[np.ndarray, "picture y x"], v: Float[np.ndarray, "picture y x"]
) -> Bool[np.ndarray, "picture y x"]:
    """Return the mask of points inside a shape of radius about 1."""
    square = u**2 + v**2
    if shape == "disc":
        return square < 0.9
    if shape == "square":
        return np.maximum(np.abs(u), np.abs(v)) < 0.8
    if shape == "triangle":
        return (v > -0.55) & (np.sqrt(3) * np.abs(u) + v < 1.1)
    if shape == "cross":
        return (np.minimum(np.abs(u), np.abs(v)) < 0.35) & (np.maximum(np.abs(u), np.abs(v)) < 1.0)
    if shape == "ring":
        return (square < 1.1) & (square > 0.3)
    return (square < 1.1) & ((u - 0.5) ** 2 + v**2 > 0.5)


def _pattern(
    texture: str,
    u: Float[np.ndarray, "picture y x"],
    v: Float[np.ndarray, "picture y x"],
    phase: Float[np.ndarray, "picture 1 1"],
) -> Bool[np.ndarray, "picture y x"]:
    """Return the mask of a texture's dark points."""
    a, b = np.sin(8 * u + 6 * phase), np.sin(8 * v + 6 * phase)
    if texture == "striped":
        return np.broadcast_to(a > 0, u.shape)
    if texture == "dotted":
        return a + b > 0.9
    if texture == "checked":
        return a * b > 0
    return np.zeros(u.shape, dtype=bool)


def _background(
    p: Float[np.ndarray, "18 picture 1 1"],
    x: Float[np.ndarray, "1 1 width"],
    y: Float[np.ndarray, "1 height 1"],
) -> Float[np.ndarray, "picture 3 height width"]:
    """A random colour and, in each channel, two random waves."""
    channels = [
        0.2 + 0.6 * q[0]
        + 0.12 * np.sin(5 * (q[1] - 0.5) * x + 5 * (q[2] - 0.5) * y + 6 * q[3])
        + 0.08 * np.sin(20 * (q[4] - 0.5) * x + 20 * (q[5] - 0.5) * y)
        for q in (p[0:6], p[6:12], p[12:18])
    ]  # fmt: skip
    return np.stack(channels, 1)
