"""Sides of a body: which limbs are left and right, and where up and the front are."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float

from .skeleton import Skeleton

Side = Literal["left", "right", "middle"]
_WORDS = re.compile(r"(left|right)", re.I)
_LETTERS = re.compile(r"(?:^|[\s_.\-:])([LRlr])(?=$|[\s_.\-])|^([LRlr])(?=[A-Z])")
_FEET = re.compile(r"foot|feet|toe|ankle|ball|heel", re.I)


def sides(joints: Sequence[str], parents: Sequence[int]) -> tuple[Side, ...]:
    """Side of each joint by its name ("LeftArm", "LArm", "arm.L", "l_arm"), else its parent's."""
    found: list[Side] = []
    for name, parent in zip(joints, parents, strict=True):
        own = _side(name)
        found.append(own or (found[parent] if parent >= 0 else "middle"))
    return tuple(found)


def _side(name: str) -> Side | None:
    word = _WORDS.search(name)
    if word:
        return "left" if word[1].lower() == "left" else "right"
    letter = _LETTERS.search(name)
    if letter:
        return "left" if (letter[1] or letter[2]) in "Ll" else "right"
    return None


def feet(joints: Sequence[str], parents: Sequence[int]) -> list[int]:
    """Joints of feet and toes, by name, and what hangs on them."""
    found: set[int] = set()
    for joint, (name, parent) in enumerate(zip(joints, parents, strict=True)):
        if parent in found or _FEET.search(name):
            found.add(joint)
    return sorted(found)


def axes(
    positions: Float[np.ndarray, "frames joints 3"], skeleton: Skeleton
) -> Float[np.ndarray, "3 3"]:
    """Left, up and front of a body as rows: directions of coordinate axes, of either sign.

    Up is the axis nearest to the way from its lower to its upper part, left the one nearest to the
    way from right to left limbs; files have y up, z up, and others.
    """
    used = positions[:, list(skeleton.used)].mean(0)
    low, high = used[list(skeleton.lower)], used[list(skeleton.upper)]
    up = _nearest(high.mean(0) - low.mean(0), np.array([0.0, 1.0, 0.0]))
    side = np.array(sides(skeleton.joints, skeleton.parents))[list(skeleton.used)]
    across = np.zeros(3)
    if {"left", "right"} <= set(side):
        across = used[side == "left"].mean(0) - used[side == "right"].mean(0)
    default = np.array([0.0, 1.0, 0.0]) if abs(up[0]) else np.array([1.0, 0.0, 0.0])
    left = _nearest(across * (up == 0), default)
    return np.stack([left, up, np.cross(left, up)])


def _nearest(
    direction: Float[np.ndarray, "3"], default: Float[np.ndarray, "3"]
) -> Float[np.ndarray, "3"]:
    """The coordinate axis, of either sign, nearest to a direction; the default for no direction."""
    axis = int(np.argmax(np.abs(direction)))
    if not abs(direction[axis]) > 0:
        return default
    result = np.zeros(3)
    result[axis] = np.sign(direction[axis])
    return result
