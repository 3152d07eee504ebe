"""Things that stand and move in a generated street, each drawn at a place on the ground (m)."""

from __future__ import annotations

import numpy as np

from .street_canvas import (
    BICYCLIST,
    CAR,
    PEDESTRIAN,
    POLE,
    ROAD,
    SIGN,
    TREE,
    Canvas,
    Colour,
    Point,
    rectangle,
)

CLOTHES: tuple[Colour, ...] = (
    (40, 45, 70), (150, 50, 50), (60, 60, 62), (200, 195, 185), (70, 110, 140), (190, 150, 60),
)  # fmt: skip
PAINTS: tuple[Colour, ...] = (
    (190, 192, 195), (40, 42, 48), (120, 25, 30), (30, 55, 110), (225, 225, 225), (95, 100, 105),
    (60, 90, 70),
)  # fmt: skip
SKIN: Colour = (200, 160, 135)
RUBBER: Colour = (28, 28, 30)
GLASS: Colour = (70, 82, 95)


def tree(
    canvas: Canvas, layout: np.random.Generator, looks: np.random.Generator, x: float, z: float,
    height: float, leaves: Colour, has_trunk: bool,
) -> None:  # fmt: skip
    """A trunk and a crown of discs, lighter and darker; a bush is the crown alone."""
    crown, middle = 0.3 * height, 0.68 * height
    if has_trunk:
        canvas.board(x, z, rectangle(-0.12, 0, 0.12, middle), (85, 68, 52), TREE)
    else:
        crown, middle = 0.5 * height, 0.45 * height
    count = int(layout.integers(14, 30))
    places = layout.normal(0, 0.55, (count, 2)) * crown
    radii = layout.uniform(0.3, 0.6, count) * crown
    shine = looks.uniform(0.65, 1.25, count)
    for (dx, dy), radius, light in zip(places.tolist(), radii.tolist(), shine, strict=True):
        colour = tuple(float(light) * channel for channel in leaves)
        canvas.ball(x + dx, max(middle + dy, radius), z, radius, colour, TREE)


def pole(
    canvas: Canvas, x: float, z: float, height: float, arm: float, colour: Colour
) -> None:  # fmt: skip
    """A pole, perhaps with an arm to one side and a lamp at its end."""
    canvas.board(x, z, rectangle(-0.065, 0, 0.065, height), colour, POLE)
    if arm:
        canvas.board(x, z, rectangle(min(0, arm), height - 0.1, max(0, arm), height), colour, POLE)
        end = arm if arm > 0 else arm - 0.5
        canvas.board(x, z, rectangle(end, height - 0.15, end + 0.5, height), colour, POLE)


def sign(canvas: Canvas, x: float, z: float, height: float, kind: int) -> None:
    """A round, triangular or rectangular sign, or a traffic light; its post is a pole."""
    canvas.board(x, z, rectangle(-0.04, 0, 0.04, height), (110, 112, 115), POLE)
    if kind == 0:
        canvas.ball(x, height, z, 0.4, (190, 30, 35), SIGN)
        canvas.ball(x, height, z, 0.28, (230, 230, 230), SIGN)
    elif kind == 1:
        outline = [(-0.45, height - 0.3), (0.45, height - 0.3), (0.0, height + 0.45)]
        canvas.board(x, z, outline, (200, 40, 40), SIGN)
        inner = [(-0.25, height - 0.18), (0.25, height - 0.18), (0.0, height + 0.2)]
        canvas.board(x, z, inner, (235, 232, 225), SIGN)
    elif kind == 2:
        canvas.board(x, z, rectangle(-0.4, height - 0.3, 0.4, height + 0.4), (30, 70, 160), SIGN)
        canvas.board(x, z, rectangle(-0.2, height - 0.1, 0.2, height + 0.2), (225, 228, 232), SIGN)
    else:
        canvas.board(x, z, rectangle(-0.2, height - 0.5, 0.2, height + 0.5), (35, 36, 38), SIGN)
        lamps = ((0.32, (210, 40, 40)), (0.0, (70, 60, 20)), (-0.32, (30, 60, 40)))
        for up, colour in lamps:
            canvas.ball(x, height + up, z, 0.12, colour, SIGN)


def person(canvas: Canvas, looks: np.random.Generator, x: float, z: float, height: float) -> None:
    """Two legs, a trunk with arms, a head."""
    above, below = (CLOTHES[i] for i in looks.integers(len(CLOTHES), size=2))
    for left in (-0.17, 0.03):
        outline = rectangle(left, 0, left + 0.14, 0.5 * height)
        canvas.board(x, z, outline, below, PEDESTRIAN)
    canvas.board(x, z, rectangle(-0.2, 0.47 * height, 0.2, 0.85 * height), above, PEDESTRIAN)
    for left in (-0.3, 0.2):
        outline = rectangle(left, 0.45 * height, left + 0.1, 0.82 * height)
        canvas.board(x, z, outline, above, PEDESTRIAN, 0.85)
    canvas.ball(x, 0.93 * height, z, 0.12, SKIN, PEDESTRIAN)


def cyclist(canvas: Canvas, looks: np.random.Generator, x: float, z: float) -> None:
    """A bicycle seen obliquely and its rider; all of it is of one class."""
    above, below = (CLOTHES[i] for i in looks.integers(len(CLOTHES), size=2))
    for dx in (-0.32, 0.32):
        canvas.ball(x + dx, 0.34, z, 0.34, RUBBER, BICYCLIST, 0.6)
        canvas.ball(x + dx, 0.34, z, 0.26, (95, 95, 95), BICYCLIST, 0.6)
    frame: list[Point] = [(-0.32, 0.3), (0.3, 0.3), (0.25, 0.8), (-0.15, 0.85)]
    canvas.board(x, z, frame, (140, 40, 40), BICYCLIST)
    canvas.board(x, z, [(-0.18, 0.35), (0.1, 0.35), (0.12, 1.0), (-0.2, 1.0)], below, BICYCLIST)
    canvas.board(x, z, [(-0.25, 0.95), (0.15, 0.95), (0.3, 1.5), (-0.05, 1.55)], above, BICYCLIST)
    canvas.ball(x + 0.15, 1.68, z, 0.14, SKIN, BICYCLIST)


def car(canvas: Canvas, looks: np.random.Generator, x: float, z: float, is_van: bool) -> None:
    """A car from behind or from the front, with the side that the camera sees; a van is taller.

    Its rear is at `z`; its shadow is part of the road.
    """
    paint = PAINTS[looks.integers(len(PAINTS))]
    rear = looks.random() < 0.5
    half, length, top = (1.0, 6.0, 2.6) if is_van else (0.88, 4.2, 1.5)
    waist, end = 0.55 * top, z + length
    shadow = [(x - half - 0.2, 0, z - 0.1), (x + half + 0.2, 0, z - 0.1),
              (x + half + 0.2, 0, end), (x - half - 0.2, 0, end)]  # fmt: skip
    canvas.quad(shadow, (45, 45, 48), ROAD)
    inset, slope = 0.0 if is_van else 0.7, 0.12 * half
    # the side that is turned to the camera: where the near edge is farther out than the far one
    camera = canvas.camera
    for across in (x - half, x + half):
        outward = 1 if across > x else -1
        if outward * (camera.point(across, 0, end)[0] - camera.point(across, 0, z)[0]) <= 0:
            continue
        canvas.quad([(across, 0.2, z), (across, 0.2, end), (across, waist, end),
                     (across, waist, z)], paint, CAR, 0.8)  # fmt: skip
        roof = across - outward * slope
        canvas.quad([(across, waist, z), (across, waist, end - inset), (roof, top, end - 2 * inset),
                     (roof, top, z)], paint, CAR, 0.75)  # fmt: skip
        pane = across - outward * 0.8 * slope
        canvas.quad([(across, waist, z + 0.35), (across, waist, end - 1.2 * inset - 0.2),
                     (pane, top - 0.12, end - 2 * inset - 0.2), (pane, top - 0.12, z + 0.35)],
                    GLASS, CAR, 0.9)  # fmt: skip
        for at in (z + 0.8, end - 0.8):
            canvas.ball(across, 0.32, at, 0.32, RUBBER, CAR, 0.5)
    canvas.board(x, z, rectangle(-half, 0.2, half, waist), paint, CAR)
    canvas.board(x, z, [(-half, waist), (half, waist), (half - slope, top), (slope - half, top)],
                 paint, CAR, 0.92)  # fmt: skip
    screen = [(0.15 - half, waist), (half - 0.15, waist), (half - slope - 0.1, top - 0.12),
              (slope + 0.1 - half, top - 0.12)]  # fmt: skip
    canvas.board(x, z, screen, GLASS, CAR)
    lamp = (170, 30, 30) if rear else (235, 232, 215)
    for left in (-half, half - 0.3):
        canvas.board(x, z, rectangle(left, waist - 0.3, left + 0.3, waist - 0.12), lamp, CAR)
        wheel = rectangle(left + 0.02, 0, left + 0.24, 0.3)
        canvas.board(x, z, wheel, RUBBER, CAR)
    canvas.board(x, z, rectangle(-0.26, 0.42, 0.26, 0.54), (220, 215, 190), CAR)
