"""Euler angles of rotations in any order of axes, chosen to be continuous in time."""

from __future__ import annotations

import warnings

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

_EVEN = ("XYZ", "YZX", "ZXY")
_LOCKED = 1e-6
"""Cosine of the middle angle below which the outer two turn about one axis."""


def axis_rotation(
    axis: str, angle: Float[np.ndarray, "*frames"]
) -> Float[np.ndarray, "*frames 3 3"]:
    """Rotation about X, Y or Z by angles in radians (column vectors)."""
    i, j = {"X": (1, 2), "Y": (2, 0), "Z": (0, 1)}[axis]
    result = np.broadcast_to(np.eye(3), (*np.shape(angle), 3, 3)).copy()
    result[..., i, i] = result[..., j, j] = np.cos(angle)
    result[..., j, i] = np.sin(angle)
    result[..., i, j] = -result[..., j, i]
    return result


def from_euler(
    order: str, degrees: Float[np.ndarray, "frames axes"]
) -> Float[np.ndarray, "frames 3 3"]:
    """Rotations of angles about the axes of `order`, the first of which is outermost."""
    result = np.broadcast_to(np.eye(3), (len(degrees), 3, 3))
    for axis, angle in zip(order, np.radians(degrees).T, strict=True):
        result = result @ axis_rotation(axis, angle)
    return result


def euler_angles(
    rotations: Float[np.ndarray, "frames 3 3"],
    order: str,
    before: Float[np.ndarray, " axes"] | None = None,
) -> Float[np.ndarray, "frames axes"]:
    """Angles in degrees about the axes of `order`, each nearest to those of the frame before.

    Args:
        rotations: Local rotations (column vectors).
        order: One to three different axes such as "ZXY", the first outermost. Of a rotation that
            fewer than three cannot show, the nearest that they can (one), or its first two angles.
        before: Angles of the frame before the first one; None begins with the principal angles.
    """
    if len(order) == 1:
        i, j = {"X": (1, 2), "Y": (2, 0), "Z": (0, 1)}[order]
        sine = rotations[:, j, i] - rotations[:, i, j]
        angles = np.degrees(np.arctan2(sine, rotations[:, i, i] + rotations[:, j, j]))[:, None]
        return _unwrapped(angles, before)
    whole = order + "".join(axis for axis in "XYZ" if axis not in order)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of gimbal lock, which is mended below
        angles = Rotation.from_matrix(rotations).as_euler(whole, degrees=True)
    if len(order) == 2:
        return _unwrapped(angles[:, :2], before)
    if before is not None:
        angles = np.concatenate([before[None], angles])
    angles = _chosen(_unlocked(angles, whole, from_frame=int(before is not None)))
    return _unwrapped(angles, None)[int(before is not None) :]


def _unlocked(
    angles: Float[np.ndarray, "frames 3"], order: str, from_frame: int
) -> Float[np.ndarray, "frames 3"]:
    """In gimbal lock the last angle stays as it was, and the first takes all of the turn."""
    locked = np.abs(np.cos(np.radians(angles[:, 1]))) < _LOCKED
    locked[:from_frame] = False
    if not locked.any():
        return angles
    free = np.where(locked, -1, np.arange(len(angles)))
    last = np.maximum.accumulate(free)
    held = np.where(last >= 0, angles[last, 2], angles[:, 2])
    # of an even order, first + last angle decide where the middle is +90 degrees
    sign = np.sign(angles[:, 1]) * (1 if order in _EVEN else -1)
    result = angles.copy()
    result[locked, 0] += (sign * (angles[:, 2] - held))[locked]
    result[locked, 2] = held[locked]
    return result


def _chosen(angles: Float[np.ndarray, "frames 3"]) -> Float[np.ndarray, "frames 3"]:
    """Of the two triples (a, b, c) and (a + 180, 180 - b, c + 180) that which is nearer in time.

    Whether to change from one to the other does not depend on which of them the frame before has,
    since the map between them keeps distances modulo 360.
    """
    other = np.stack([angles[:, 0] + 180, 180 - angles[:, 1], angles[:, 2] + 180], -1)
    stays = _distance(angles[1:], angles[:-1])
    changes = _distance(other[1:], angles[:-1])
    is_other = np.cumsum(np.concatenate([[False], changes < stays - 1e-9])) % 2 == 1
    return np.where(is_other[:, None], other, angles)


def _distance(
    a: Float[np.ndarray, "frames 3"], b: Float[np.ndarray, "frames 3"]
) -> Float[np.ndarray, " frames"]:
    return np.abs((a - b + 180) % 360 - 180).sum(-1)


def _unwrapped(
    angles: Float[np.ndarray, "frames axes"], before: Float[np.ndarray, " axes"] | None
) -> Float[np.ndarray, "frames axes"]:
    """The same angles without turns of 360 degrees between frames."""
    if before is None:
        return np.unwrap(angles, axis=0, period=360)
    return np.unwrap(np.concatenate([before[None], angles]), axis=0, period=360)[1:]
