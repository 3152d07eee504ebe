"""Colours of classes: fixed by number, far from each other, neighbours in hue and in lightness."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from jaxtyping import Float, UInt8

FIRST = (
    (0, 114, 178), (204, 121, 167), (240, 228, 66), (150, 75, 160), (230, 159, 0), (0, 158, 115),
    (86, 180, 233), (213, 94, 0),
)  # fmt: skip
"""Okabe and Ito's colours and a purple, told apart by people with any colour vision."""
MOST = 256
"""Colours that there are; classes beyond begin anew."""
LEVELS = 14
"""Values of red, green and blue among which the others are looked for."""
LIGHTNESS, HUE = 0.15, 65.0
"""Least differences of a colour from the one before it: lightness is 0 to 1, hue in degrees."""


def palette(count: int) -> UInt8[np.ndarray, "count 3"]:
    """Red, green and blue of classes 0 to `count` - 1; a class's colour is that of its number."""
    return _table()[np.arange(count) % MOST]


@lru_cache(maxsize=1)
def _table() -> UInt8[np.ndarray, "256 3"]:
    """FIRST, then always the colour that is farthest from all before, and differs from the last."""
    side = np.linspace(0, 255, LEVELS).round()
    every = np.stack(np.meshgrid(side, side, side, indexing="ij"), -1).reshape(-1, 3)
    places = oklab(every)
    strength = np.hypot(places[:, 1], places[:, 2])
    # grey is what is ignored; white is paper, and black ink
    able = (strength > 0.06) & (places[:, 0] > 0.4) & (places[:, 0] < 0.93)
    every, places = every[able], places[able]
    hue = np.degrees(np.arctan2(places[:, 2], places[:, 1]))
    chosen = [np.array(colour, dtype=float) for colour in FIRST]
    nearest = np.min([_distance(places, oklab(colour)) for colour in chosen], axis=0)
    while len(chosen) < MOST:
        last = oklab(chosen[-1])
        turn = np.abs((hue - np.degrees(np.arctan2(last[2], last[1])) + 180) % 360 - 180)
        differs = (np.abs(places[:, 0] - last[0]) >= LIGHTNESS) & (turn >= HUE)
        best = int(np.where(differs, nearest, -1).argmax())
        chosen.append(every[best])
        nearest = np.minimum(nearest, _distance(places, places[best]))
    return np.array(chosen).astype(np.uint8)


def _distance(places: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.asarray(np.linalg.norm(places - other, axis=-1))


def oklab(rgb: np.ndarray) -> Float[np.ndarray, "*colour 3"]:
    """Lightness, green to red and blue to yellow, as eyes judge distances (Ottosson 2020)."""
    share = np.asarray(rgb, dtype=float) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    cones = np.array([
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ])  # fmt: skip
    mixed = np.array([
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ])  # fmt: skip
    return np.asarray(np.cbrt(linear @ cones.T) @ mixed.T)
