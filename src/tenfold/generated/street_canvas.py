"""A canvas for streets: a camera, and shapes that are drawn into a picture and its labels alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFilter

SKY, BUILDING, POLE, ROAD, PAVEMENT, TREE, SIGN, FENCE, CAR, PEDESTRIAN, BICYCLIST = range(11)
TEXTURE = (0.006, 0.05, 0.03, 0.05, 0.06, 0.16, 0.03, 0.06, 0.035, 0.05, 0.05)
"""Strength of the noise on each class."""

Point = tuple[float, float]
Number = int | float
Colour = tuple[Number, Number, Number]


@dataclass(frozen=True)
class Camera:
    """A camera above a bent road; x to the right, y up, z ahead, in metres; places in pixels."""

    focal: float
    centre: Point
    height: float
    yaw: float
    """Shift to the right per metre ahead."""
    curve: float
    """Shift to the right per square metre ahead."""

    def scale(self, z: float) -> float:
        """Pixels per metre at a distance."""
        return self.focal / z

    def point(self, x: float, y: float, z: float) -> Point:
        """Place on the canvas."""
        across = x + self.curve * z * z + self.yaw * z
        scale = self.focal / z
        return self.centre[0] + scale * across, self.centre[1] - scale * (y - self.height)


@dataclass(frozen=True)
class Air:
    """Light and fog."""

    ambient: float
    fog: float
    """Share of the colour that is lost per metre, at the beginning."""
    horizon: Colour

    def seen(self, colour: Sequence[float], z: float, light: float = 1.0) -> tuple[int, int, int]:
        """A colour from a distance."""
        kept = float(np.exp(-self.fog * z))
        red, green, blue = (
            int(min(255.0, max(0.0, kept * self.ambient * light * c + (1 - kept) * far)))
            for c, far in zip(colour, self.horizon, strict=True)
        )
        return red, green, blue


class Canvas:
    """A picture and its label map, both at twice the size, on which shapes are drawn."""

    def __init__(self, backdrop: UInt8[np.ndarray, "height width 3"], camera: Camera, air: Air):
        self.camera, self.air = camera, air
        self.picture = Image.fromarray(backdrop)
        self.labels = Image.new("L", self.picture.size, SKY)
        self._on_picture, self._on_labels = (
            ImageDraw.Draw(self.picture), ImageDraw.Draw(self.labels)
        )  # fmt: skip

    def shape(self, points: Sequence[Point], colour: tuple[int, int, int], label: int) -> None:
        """A filled polygon of places on the canvas."""
        self._on_picture.polygon(points, fill=colour)
        self._on_labels.polygon(points, fill=label)

    def disc(
        self, centre: Point, radius: float, colour: tuple[int, int, int], label: int,
        wide: float = 1.0,
    ) -> None:  # fmt: skip
        """A disc, or an ellipse that is `wide` times as wide as high."""
        (u, v), across = centre, radius * wide
        box = (u - across, v - radius, u + across, v + radius)
        self._on_picture.ellipse(box, fill=colour)
        self._on_labels.ellipse(box, fill=label)

    def quad(
        self, corners: Sequence[tuple[float, float, float]], colour: Sequence[float], label: int,
        light: float = 1.0,
    ) -> None:  # fmt: skip
        """A flat polygon in the world, with the colour that it has at its nearest corner."""
        near = min(z for _, _, z in corners)
        seen = self.air.seen(colour, near, light)
        self.shape([self.camera.point(*corner) for corner in corners], seen, label)

    def board(
        self, x: float, z: float, outline: Sequence[Point], colour: Sequence[float], label: int,
        light: float = 1.0,
    ) -> None:  # fmt: skip
        """A polygon that faces the camera, its outline in metres from a foot on the ground."""
        u, v = self.camera.point(x, 0, z)
        scale = self.camera.scale(z)
        seen = self.air.seen(colour, z, light)
        self.shape([(u + scale * dx, v - scale * dy) for dx, dy in outline], seen, label)

    def ball(
        self, x: float, y: float, z: float, radius: float, colour: Sequence[float], label: int,
        wide: float = 1.0,
    ) -> None:  # fmt: skip
        """A disc that faces the camera, around a point of the world."""
        seen = self.air.seen(colour, z)
        self.disc(self.camera.point(x, y, z), radius * self.camera.scale(z), seen, label, wide)


def rectangle(left: float, bottom: float, right: float, top: float) -> list[Point]:
    """Outline of an upright rectangle."""
    return [(left, bottom), (right, bottom), (right, top), (left, top)]


def noise(
    random: np.random.Generator, height: int, width: int, octaves: Sequence[int]
) -> Float[np.ndarray, "height width"]:
    """Smooth noise of deviation about 1: random grids of these cell sizes (pixels), enlarged."""
    total = np.zeros((height, width), dtype=np.float32)
    for cell in octaves:
        shape = (-(-height // cell) + 1, -(-width // cell) + 1)
        grid = Image.fromarray(random.standard_normal(shape, dtype=np.float32))
        total += np.asarray(grid.resize((width, height), Image.Resampling.BILINEAR))
    return total / np.float32(np.sqrt(len(octaves)))


def finished(
    canvas: Canvas,
    random: np.random.Generator,
    gains: Sequence[float],
    grain: tuple[float, float],
) -> tuple[UInt8[np.ndarray, "height width 3"], UInt8[np.ndarray, "height width"]]:
    """Add texture, halve the size, and add what a camera adds: gains, blur, gamma, grain."""
    width, height = canvas.picture.size
    labels = np.asarray(canvas.labels)
    strength = np.array(TEXTURE, dtype=np.float32)[labels]
    factor = 1 + strength * noise(random, height, width, (2, 4, 12, 40))
    pixels = np.asarray(canvas.picture) * factor[..., None]
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).reduce(2)
    if random.random() < 0.5:
        image = image.filter(ImageFilter.GaussianBlur(random.uniform(0.2, 0.7)))
    power = random.uniform(0.85, 1.2)
    steps = np.arange(256, dtype=np.float32) / 255
    tables = [(255 * (steps * gain).clip(0, 1) ** power).tolist() for gain in gains]
    image = image.point([round(value) for table in tables for value in table])
    small = np.asarray(image, dtype=np.float32)
    small = small + random.standard_normal(small.shape, dtype=np.float32) * random.uniform(*grain)
    found = (small + 0.5).clip(0, 255).astype(np.uint8)
    return found, np.ascontiguousarray(labels[::2, ::2])
