"""Generated pictures of dolls and carts with parts, where no data of wholes and parts is found.

A doll has a head, a shirt, trousers and shoes; some have a hat. A cart has a box, a window and two
wheels. Parts have a colour range of their own, so that something can be learned in a minute, and
the same range serves parts of different wholes (shoes and wheels are dark), so that the whole
matters. Everything follows from (seed, split, number).
"""

from __future__ import annotations

import zlib
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float, UInt8

from .scenes import background

SIDE = 64
NAMES = ("head", "hat", "shirt", "trousers", "shoe", "box", "window", "wheel")
"""Parts; that of number i has i + 1 in label maps."""
PARTS = {"doll": NAMES[:5], "cart": NAMES[5:]}
HUES = (
    (0.9, 0.75, 0.6), (0.75, 0.2, 0.2), (0.2, 0.65, 0.3), (0.25, 0.3, 0.75), (0.15, 0.12, 0.1),
    (0.85, 0.65, 0.15), (0.65, 0.85, 0.95), (0.12, 0.12, 0.16),
)  # fmt: skip
"""Middle of the colours of each part."""

Pair = tuple[UInt8[np.ndarray, "side side 3"], UInt8[np.ndarray, "side side"]]
Line = Float[np.ndarray, "_ _"]


def pair(split: str, index: int, seed: int = 0) -> Pair:
    """A picture with a doll, a cart or both, and its label map: 0 ground, part + 1."""
    random = np.random.default_rng(zlib.crc32(f"dolls/{seed}/{split}/{index}".encode()))
    line = (np.arange(SIDE, dtype=np.float32) + 0.5) / SIDE
    y, x = line[:, None], line[None, :]
    picture = background(random, x, y)
    labels = np.zeros((SIDE, SIDE), dtype=np.uint8)
    wholes = random.permutation(("doll", "cart"))[: int(random.integers(1, 3))]
    sides = random.permutation((0.28, 0.72))
    for whole, middle in zip(wholes, sides, strict=False):
        size = random.uniform(0.75, 1.0)
        left, top = middle + random.uniform(-0.05, 0.05), random.uniform(0.42, 0.55)
        u, v = (x - left) / size, (y - top) / size
        u, v = np.broadcast_arrays(u, v)
        shapes = _doll(u, v, bool(random.random() < 0.5)) if whole == "doll" else _cart(u, v)
        for name, inside in shapes:
            number = NAMES.index(name)
            colour = np.clip(np.array(HUES[number]) + random.uniform(-0.1, 0.1, 3), 0, 1)
            shade = 1 + 0.15 * np.sin(random.uniform(5, 25) * (u + v))
            picture = np.where(inside[..., None], colour * shade[..., None], picture)
            labels[inside] = number + 1
    noisy = picture + 0.03 * random.standard_normal(picture.shape)
    return (255 * noisy.clip(0, 1) + 0.5).astype(np.uint8), labels


def _doll(u: Line, v: Line, has_hat: bool) -> list[tuple[str, Bool[np.ndarray, "_ _"]]]:
    """Parts in the order in which they are painted."""
    parts = [
        ("trousers", (abs(u) < 0.11) & (v > 0.08) & (v < 0.36) & (abs(u) > 0.02)),
        ("shoe", (abs(abs(u) - 0.08) < 0.07) & (v > 0.33) & (v < 0.42)),
        ("shirt", (abs(u) < 0.15) & (v > -0.18) & (v < 0.12)),
        ("head", u**2 + (v + 0.27) ** 2 < 0.11**2),
    ]
    return [*parts, ("hat", (abs(u) < 0.13) & (v > -0.42) & (v < -0.31))] if has_hat else parts


def _cart(u: Line, v: Line) -> list[tuple[str, Bool[np.ndarray, "_ _"]]]:
    wheels = (abs(u) - 0.14) ** 2 + (v - 0.2) ** 2 < 0.085**2
    box = (abs(u) < 0.24) & (v > -0.15) & (v < 0.18)
    window = (abs(u - 0.08) < 0.1) & (v > -0.1) & (v < 0.03)
    return [("box", box), ("window", window), ("wheel", wheels)]


@lru_cache(maxsize=4)
def pairs(split: str, count: int, seed: int = 0) -> tuple[Pair, ...]:
    """The first pictures of a split; drawn once, so nobody may write into them."""
    made = tuple(pair(split, index, seed) for index in range(count))
    for picture, labels in made:
        picture.setflags(write=False)
        labels.setflags(write=False)
    return made
