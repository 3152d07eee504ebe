"""Generated streets with labels: a synthetic source domain with the 11 classes of CamVid.

A scene follows from (seed, split, number) alone, its labels from these and the `Traffic`; a `Style`
changes colours, light and air, and no label. Two styles are two domains whose truth is known.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import UInt8

from tenfold.data.images.segmentation import CAMVID

from .street_canvas import (
    BUILDING,
    FENCE,
    PAVEMENT,
    ROAD,
    TREE,
    Air,
    Camera,
    Canvas,
    Colour,
    finished,
    noise,
)
from .street_things import car, cyclist, person, pole, sign, tree

NAMES = CAMVID
SIZE = (240, 320)
FAR = 130.0
"""Metres to the end of what is drawn."""
NEAR = 0.7
"""Metres to where the ground begins, below the picture's edge."""

Range = tuple[int | float, int | float]
Picture = UInt8[np.ndarray, "height width 3"]
Labels = UInt8[np.ndarray, "height width"]


@dataclass(frozen=True)
class Style:
    """Palette, light and air of a domain; colours are 0-255, ranges are drawn from uniformly."""

    sky: tuple[Colour, ...] = (
        (95, 145, 215), (130, 170, 220), (170, 185, 200), (200, 205, 210), (110, 130, 165),
    )  # fmt: skip
    horizon: Colour = (205, 212, 218)
    walls: tuple[Colour, ...] = (
        (150, 90, 70), (190, 170, 140), (205, 200, 190), (125, 115, 110), (165, 130, 100),
        (110, 75, 60), (175, 180, 185),
    )  # fmt: skip
    leaves: Colour = (75, 105, 50)
    asphalt: Colour = (105, 105, 108)
    paving: Colour = (150, 145, 138)
    light: Range = (0.45, 1.0)
    sun: Range = (0.75, 1.1)
    """Light of facades in the shade and in the sun."""
    fog: Range = (0.0, 0.012)
    gains: tuple[Range, Range, Range] = ((0.92, 1.08),) * 3
    """Of the camera's channels."""
    grain: Range = (1.0, 4.0)


DAY = Style()
DUSK = Style(
    sky=((90, 85, 120), (140, 105, 110), (60, 65, 95)),
    horizon=(215, 160, 120),
    walls=((95, 85, 90), (130, 115, 105), (120, 75, 65), (85, 90, 100)),
    leaves=(80, 85, 55),
    asphalt=(80, 78, 88),
    paving=(115, 105, 105),
    light=(0.35, 0.6),
    sun=(0.6, 1.25),
    fog=(0.004, 0.02),
    gains=((1.0, 1.2), (0.9, 1.05), (0.75, 0.95)),
    grain=(3.0, 8.0),
)


@dataclass(frozen=True)
class Traffic:
    """How often things stand in a street, times what is usual; 0 leaves them out."""

    buildings: int | float = 1
    trees: int | float = 1
    fences: int | float = 1
    poles: int | float = 1
    signs: int | float = 1
    people: int | float = 1
    cars: int | float = 1
    cyclists: int | float = 1


USUAL = Traffic()


def scene(
    split: str,
    index: int,
    seed: int = 0,
    style: Style = DAY,
    traffic: Traffic = USUAL,
    size: tuple[int, int] = SIZE,
) -> tuple[Picture, Labels]:
    """Render a street: a picture, and labels 0-10 in the order of `NAMES` (no pixel is void).

    size: height and width of the picture, in pixels.
    """
    layout, looks = (
        np.random.default_rng(zlib.crc32(f"{seed}/{split}/{index}/{what}".encode()))
        for what in ("layout", "looks")
    )
    height, width = 2 * size[0], 2 * size[1]
    camera = Camera(
        focal=layout.uniform(0.75, 1.15) * width,
        centre=(layout.uniform(0.44, 0.56) * width, layout.uniform(0.42, 0.57) * height),
        height=layout.uniform(1.1, 1.7),
        yaw=layout.normal(0, 0.05),
        curve=layout.normal(0, 0.0025),
    )
    air = Air(looks.uniform(*style.light), looks.uniform(*style.fog), style.horizon)
    canvas = Canvas(_sky(looks, style, camera, air, height, width), camera, air)
    street = _Street(canvas, layout, looks, style, traffic)
    street.draw_ground()
    street.draw_things()
    gains = [looks.uniform(*one) for one in style.gains]
    return finished(canvas, looks, gains, style.grain)


def _sky(
    looks: np.random.Generator, style: Style, camera: Camera, air: Air, height: int, width: int
) -> Picture:
    """A gradient down to the horizon, often with clouds."""
    top = np.array(style.sky[looks.integers(len(style.sky))], dtype=np.float32)
    down = np.linspace(0, height / max(1.0, camera.centre[1]), height, dtype=np.float32)
    down = down.clip(0, 1)[:, None, None]
    light = 0.5 + 0.5 * air.ambient
    pixels = ((1 - down) * top + down * np.array(style.horizon, dtype=np.float32)) * light
    pixels = np.broadcast_to(pixels, (height, width, 3))
    if looks.random() < 0.6:
        clouds = noise(looks, height, width, (30, 70, 150)).clip(0, 1.5)[..., None]
        pixels = pixels + 0.3 * clouds * (235 * light - pixels)
    return pixels.clip(0, 255).astype(np.uint8)


class _Street:
    """What stands where; drawn far to near."""

    def __init__(
        self, canvas: Canvas, layout: np.random.Generator, looks: np.random.Generator,
        style: Style, traffic: Traffic,
    ) -> None:  # fmt: skip
        self.canvas, self.layout, self.looks = canvas, layout, looks
        self.style, self.traffic = style, traffic
        self.is_urban = layout.random() < 0.55
        self.edges = tuple(layout.uniform(2.2, 6.5, 2))
        """Width of the road to the left and to the right of the camera."""
        self.walks = tuple(layout.uniform(1.2, 3.5, 2))
        self.sunny_side = int(looks.integers(2))
        self.things: list[tuple[float, Callable[[], None]]] = []

    def jittered(self, colour: Colour, spread: float = 8.0) -> Colour:
        """A colour that differs a little."""
        red, green, blue = np.array(colour) + self.looks.normal(0, spread)
        return red, green, blue

    def count(self, low: int, high: int, factor: float) -> int:
        """A number of things from a range, times a factor."""
        return int(self.layout.uniform(low, high + 1) * factor)

    # --- ground ----------------------------------------------------------------------------------

    def draw_ground(self) -> None:
        """Earth or grass, the pavements with their kerbs, the road and its markings."""
        is_green = self.layout.random() < 0.35
        earth = self.style.leaves if is_green else self.style.paving
        self.strip(-400, 400, self.jittered(earth), TREE if is_green else PAVEMENT)
        paving = self.jittered(self.style.paving)
        for sign_, edge, walk in zip((-1, 1), self.edges, self.walks, strict=True):
            self.strip(sign_ * edge, sign_ * (edge + walk), paving, PAVEMENT)
            kerb = self.jittered((170, 168, 162))
            self.strip(sign_ * edge, sign_ * (edge + 0.15), kerb, PAVEMENT)
        left, right = self.edges
        self.strip(-left, right, self.jittered(self.style.asphalt), ROAD)
        white = self.jittered((215, 215, 210))
        middle = (right - left) / 2 + self.layout.normal(0, 0.3)
        if self.layout.random() < 0.75:
            for z in np.arange(1.5, 60, 6.0):
                self.strip(middle - 0.07, middle + 0.07, white, ROAD, z, z + 3)
        if self.layout.random() < 0.5:
            for x in (-left + 0.3, right - 0.4):
                self.strip(x, x + 0.1, white, ROAD, NEAR, 60)
        if self.layout.random() < 0.3:
            z = self.layout.uniform(6, 25)
            for x in np.arange(-left + 0.3, right - 0.5, 1.0):
                self.strip(x, x + 0.5, white, ROAD, z, z + 3)

    def strip(
        self, left: float, right: float, colour: Colour, label: int, begin: float = NEAR,
        end: float = FAR,
    ) -> None:  # fmt: skip
        """A strip along the road, in pieces that follow the bend and fade into the fog."""
        pieces = max(1, round(5 * float(np.log(end / begin))))
        places = np.geomspace(begin, end, pieces + 1).tolist()
        for near, far in zip(places, places[1:], strict=False):
            corners = [(left, 0, near), (right, 0, near), (right, 0, far), (left, 0, far)]
            self.canvas.quad(corners, colour, label)

    # --- things ----------------------------------------------------------------------------------

    def add(self, z: float, draw: Callable[[], None]) -> None:
        """A thing at a distance, to be drawn after all that is farther."""
        self.things.append((z, draw))

    def draw_things(self) -> None:
        """Both sides of the street, then what stands and drives on it."""
        for side in (0, 1):
            self.line_side(side)
            self.furnish(side)
            self.park(side)
        self.drive()
        for _, draw in sorted(self.things, key=lambda thing: -thing[0]):
            draw()

    def line_side(self, side: int) -> None:
        """Buildings, or trees and bushes, slot by slot; fences before them."""
        layout, sign_ = self.layout, (-1, 1)[side]
        front = self.edges[side] + self.walks[side] + layout.uniform(0, 2)
        z = layout.uniform(1.5, 8)
        while z < FAR:
            end = z + layout.uniform(6, 22)
            built = (0.85 if self.is_urban else 0.35) * self.traffic.buildings
            if layout.random() < built:
                height, roof = layout.uniform(5, 15), layout.random() < 0.6
                wall = self.style.walls[self.looks.integers(len(self.style.walls))]
                light = self.style.sun[int(side == self.sunny_side)]
                wall = self.jittered(wall, 12)
                draw = partial(
                    self.building, sign_ * front, z, end, height, bool(roof), wall, light
                )
                self.add(end, draw)
            else:
                for _ in range(self.count(1, 4, self.traffic.trees)):
                    at, x = layout.uniform(z, end), front + layout.uniform(-0.5, 7)
                    self.plant(sign_ * x, at, layout.uniform(4, 10), True)
                for _ in range(self.count(0, 3, self.traffic.trees)):
                    at, x = layout.uniform(z, end), front + layout.uniform(0.3, 4)
                    self.plant(sign_ * x, at, layout.uniform(0.8, 2), False)
            fenced = (0.3 if self.is_urban else 0.6) * self.traffic.fences
            if layout.random() < fenced:
                is_solid, tall = layout.random() < 0.5, layout.uniform(0.7, 1.5)
                draw = partial(self.fence, sign_ * (front - 0.3), z, end, tall, bool(is_solid))
                self.add(z + 0.3 * (end - z), draw)
            z = end

    def plant(self, x: float, z: float, height: float, has_trunk: bool) -> None:
        """A tree or a bush."""
        leaves = self.jittered(self.style.leaves, 14)
        self.add(z, partial(tree, self.canvas, self.layout, self.looks, x, z, height, leaves,
                            has_trunk))  # fmt: skip

    def building(
        self, x: float, near: float, far: float, height: float, has_roof: bool, wall: Colour,
        light: float,
    ) -> None:  # fmt: skip
        """Facade along the road, end wall towards the camera, windows, perhaps a pitched roof."""
        canvas, deep = self.canvas, x + (9 if x > 0 else -9)
        if has_roof:
            ridge, tile = (x + deep) / 2, (95, 60, 52)
            canvas.quad([(x, height, near), (x, height, far), (ridge, height + 3, far),
                         (ridge, height + 3, near)], tile, BUILDING, light)  # fmt: skip
            canvas.quad([(x, height, near), (deep, height, near), (ridge, height + 3, near)], wall,
                        BUILDING, 0.9)  # fmt: skip
        canvas.quad([(x, 0, near), (deep, 0, near), (deep, height, near), (x, height, near)], wall,
                    BUILDING, 0.9)  # fmt: skip
        canvas.quad([(x, 0, near), (x, 0, far), (x, height, far), (x, height, near)], wall,
                    BUILDING, light)  # fmt: skip
        if canvas.camera.scale(near) * 1.2 < 4:
            return
        glass = self.jittered((60, 68, 80), 10)
        for z in np.arange(near + 1, far - 1.5, 2.6).tolist():
            if canvas.camera.scale(z) * abs(x) / z < 2:  # too narrow to be seen
                break
            for y in np.arange(1.0, height - 1.5, 3.0).tolist():
                canvas.quad([(x, y, z), (x, y, z + 1.2), (x, y + 1.5, z + 1.2), (x, y + 1.5, z)],
                            glass, BUILDING, light)  # fmt: skip

    def fence(self, x: float, near: float, far: float, height: float, is_solid: bool) -> None:
        """Boards, or bars; the label is that of the whole in either case."""
        colour = self.jittered((130, 110, 90), 15)
        whole = [(x, 0, near), (x, 0, far), (x, height, far), (x, height, near)]
        self.canvas.quad(whole, colour if is_solid else self.style.leaves, FENCE, 0.9)
        if not is_solid:
            step = max(0.4, near / 25)
            for z in np.arange(near, far, step).tolist():
                wide = step * 0.4
                self.canvas.quad([(x, 0, z), (x, 0, z + wide), (x, height, z + wide),
                                  (x, height, z)], colour, FENCE)  # fmt: skip

    def furnish(self, side: int) -> None:
        """Poles, signs and people on the pavement."""
        layout, sign_ = self.layout, (-1, 1)[side]
        edge, walk = self.edges[side], self.walks[side]
        for _ in range(self.count(1, 5, self.traffic.poles)):
            z = float(np.exp(layout.uniform(np.log(7), np.log(80))))
            x, tall = sign_ * (edge + 0.3), layout.uniform(3, 8)
            arm = -sign_ * 1.5 if layout.random() < 0.5 else 0.0
            self.add(z, partial(pole, self.canvas, x, z, tall, arm, self.jittered((95, 95, 95))))
        for _ in range(self.count(0, 3, self.traffic.signs)):
            z = float(np.exp(layout.uniform(np.log(8), np.log(50))))
            x, kind = sign_ * (edge + 0.45), int(layout.integers(4))
            self.add(z, partial(sign, self.canvas, x, z, layout.uniform(2.0, 3.0), kind))
        for _ in range(self.count(0, 5, self.traffic.people)):
            z = float(np.exp(layout.uniform(np.log(7), np.log(50))))
            x, tall = sign_ * (edge + layout.uniform(0.3, walk)), layout.uniform(1.5, 1.9)
            self.add(z, partial(person, self.canvas, self.looks, x, z, tall))

    def park(self, side: int) -> None:
        """A row of parked cars on most sides."""
        layout, sign_ = self.layout, (-1, 1)[side]
        if layout.random() >= 0.6 * self.traffic.cars or self.edges[side] < 2.6:
            return
        z, end = layout.uniform(3, 15), layout.uniform(25, 80)
        while z < end:
            x = sign_ * (self.edges[side] - 1.0)
            self.add(z + 2, partial(car, self.canvas, self.looks, x, z, False))
            z += layout.uniform(5.2, 8)

    def drive(self) -> None:
        """Cars and cyclists on the road."""
        layout, (left, right) = self.layout, self.edges
        for _ in range(self.count(0, 3, self.traffic.cars)):
            z = float(np.exp(layout.uniform(np.log(7), np.log(70))))
            x, is_van = layout.uniform(-left + 1.2, right - 1.2), layout.random() < 0.12
            self.add(z + 2, partial(car, self.canvas, self.looks, x, z, bool(is_van)))
        for _ in range(self.count(0, 3, self.traffic.cyclists)):
            z = float(np.exp(layout.uniform(np.log(4), np.log(35))))
            x = layout.uniform(-left + 0.5, right - 0.5)
            self.add(z, partial(cyclist, self.canvas, self.looks, x, z))
