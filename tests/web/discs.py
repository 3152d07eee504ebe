"""Photos with discs drawn on them, and a segmenter that finds discs, badly until it is answered."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

GROUND = 90
COLOURS = ((220, 120, 60), (90, 200, 220), (230, 220, 90))
DISCS = {
    "a.png": [(40, 40, 20), (110, 50, 24), (70, 110, 18)],
    "b.png": [(50, 60, 26), (120, 100, 22)],
    "c.png": [(80, 70, 30)],
}
"""Photo -> x, y and radius of its discs."""
SIZE = (144, 160)


def box_of(disc: tuple[int, int, int], margin: int = 3) -> list[float]:
    x, y, r = disc
    return [float(v) for v in (x - r - margin, y - r - margin, x + r + margin, y + r + margin)]


def draw(folder: Path) -> Path:
    """Three photos of bright discs on dark ground."""
    folder.mkdir(parents=True)
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    for number, (name, discs) in enumerate(DISCS.items()):
        picture = np.full((*SIZE, 3), GROUND)
        for colour, (x, y, r) in zip(COLOURS, discs, strict=False):
            picture[(columns - x) ** 2 + (rows - y) ** 2 <= r * r] = colour
        picture += np.random.default_rng(number).integers(-12, 12, picture.shape)
        Image.fromarray(picture.astype(np.uint8)).save(folder / name)
    return folder


class Discs:
    """A segmenter whose committee is of discs in the box, those that the answers allow."""

    def __init__(
        self, classes: tuple[str, ...] = ("disc", "ball"), grows: bool = True, finds: bool = False
    ) -> None:
        self.classes = list(classes)
        self.grows, self.finds = grows, finds
        self.opened = 0

    def open(self, image: np.ndarray) -> OpenedDiscs:
        self.opened += 1
        return OpenedDiscs(image.shape[:2])


class OpenedDiscs:
    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size

    def committee(
        self, box: tuple[float, ...], label: int, points: list[tuple[int, int, int]]
    ) -> np.ndarray:
        height, width = self.size
        x0, y0 = max(int(box[0]), 0), max(int(box[1]), 0)
        x1, y1 = max(min(int(box[2]), width), x0 + 1), max(min(int(box[3]), height), y0 + 1)
        rows, columns = np.mgrid[y0:y1, x0:x1]
        x, y, half = (x0 + x1) / 2, (y0 + y1) / 2, min(x1 - x0, y1 - y0) / 2
        found = []
        for share in (0.6, 0.75, 0.9, 1.0):
            distance = np.hypot(columns + 0.5 - x, rows + 0.5 - y)
            found.append(1 / (1 + np.exp((distance - share * half) / 1.5)))
        members = np.stack(found)
        errors = np.array(
            [
                sum(abs(member[py - y0, px - x0] - answer) for px, py, answer in points)
                for member in members
            ]
        )
        best = members[errors <= errors.min() + 0.5]
        return best.astype(np.float32)

    def propose_boxes(self) -> list:
        height, width = self.size
        return [((width * 0.25, height * 0.25, width * 0.75, height * 0.75), 0, 0.8)]
