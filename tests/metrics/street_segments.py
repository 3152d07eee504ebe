"""Pictures of segments drawn from a seed, with void and a crowd; and what was found of them."""

from __future__ import annotations

import numpy as np

from tenfold.structures import Segments

CLASSES = ("sky", "road", "car", "person")
SIZE = (36, 52)


def picture(seed: int, found: bool = False) -> Segments:
    """Bands and boxes; in what was found they are moved, lost or of another class."""
    shape, shake = np.random.RandomState(seed), np.random.RandomState(seed + 1000)
    ids = np.zeros(SIZE, dtype=np.int32)
    names: dict[int, str] = {}

    def paint(name: str, y0: int, y1: int, x0: int, x1: int) -> None:
        if found:
            move = shake.randint(-1, 2, 2)
            y0, x0 = max(0, y0 + move[0]), max(0, x0 + move[1])
            if shake.rand() < 0.1:
                return
            name = CLASSES[shake.randint(4)] if shake.rand() < 0.1 else name
        number = 700 * len(names) + 300_001
        ids[y0:y1, x0:x1] = number
        names[number] = name

    paint("sky", 1, 12, 0, 50)
    paint("road", 20, 36, 3, 52)
    for k in range(6):
        y, x = shape.randint(8, 26), 8 * k + shape.randint(0, 3)
        paint(
            CLASSES[2 + shape.randint(2)], y, y + shape.randint(4, 10), x, x + shape.randint(4, 9)
        )
    names = {n: name for n, name in names.items() if (ids == n).any()}
    crowd = frozenset() if found else frozenset([max(names)])
    return Segments(ids, names, crowd, title=f"picture {seed}")
