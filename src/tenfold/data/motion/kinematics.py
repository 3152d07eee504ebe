"""Rotations and joint positions: forward and inverse kinematics, and resampling in time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation


def expmap_to_rotation(expmap: Float[np.ndarray, "*batch 3"]) -> Float[np.ndarray, "*batch 3 3"]:
    """Rotation matrices, acting on row vectors, of exponential maps (axis times angle, radians).

    Source: data/cmu_mocap/README.md, "Forward kinematics" (the 1e-7 is the official code's).
    """
    angle = np.linalg.norm(expmap, axis=-1, keepdims=True)
    x, y, z = np.moveaxis(expmap / (angle + 1e-7), -1, 0)
    zero = np.zeros_like(x)
    skew = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(*x.shape, 3, 3)
    sin, cos = np.sin(angle)[..., None], np.cos(angle)[..., None]
    return np.eye(3) + sin * skew + (1 - cos) * (skew @ skew)


def joint_positions(
    rotations: Float[np.ndarray, "frames joints 3 3"],
    offsets: Float[np.ndarray, "#frames joints 3"],
    parents: Sequence[int],
) -> Float[np.ndarray, "frames joints 3"]:
    """Positions of all joints from local rotations (column vectors), in the units of the offsets.

    ``offsets`` may change from frame to frame; the offset of a root (parent -1) is its position.
    """
    frames = rotations.shape[0]
    offsets = np.broadcast_to(offsets, (frames, len(parents), 3))
    turned = np.empty_like(rotations, dtype=np.float64)
    positions = np.empty((frames, len(parents), 3))
    for joint, parent in enumerate(parents):
        if parent < 0:
            turned[:, joint], positions[:, joint] = rotations[:, joint], offsets[:, joint]
        else:
            turned[:, joint] = turned[:, parent] @ rotations[:, joint]
            arm = turned[:, parent] @ offsets[:, joint, :, None]
            positions[:, joint] = positions[:, parent] + arm[..., 0]
    return positions


def forward_kinematics(
    expmap: Float[np.ndarray, "frames columns"],
    offsets: Float[np.ndarray, "joints 3"],
    parents: Sequence[int],
) -> Float[np.ndarray, "frames joints 3"]:
    """Positions of all joints by the benchmarks' rule (official `fkl_torch`).

    Columns are 3 translations, which are not used, then 3 exponential map values a joint. Children
    of joint 0 are treated as roots, so positions are hip-centred and hip-aligned.
    """
    if expmap.shape[1] != 3 + 3 * len(parents):
        raise ValueError(
            f"{len(parents)} joints need {3 + 3 * len(parents)} columns (3 translations, then 3 a "
            f"joint), got {expmap.shape[1]}. Pass the columns as the file holds them."
        )
    angles = expmap[:, 3:].astype(np.float64).reshape(len(expmap), -1, 3)
    roots = [-1 if parent <= 0 else parent for parent in parents]
    rotations = expmap_to_rotation(angles).swapaxes(-1, -2)  # row vectors -> column vectors
    return joint_positions(rotations, offsets[None], roots)


def slerp(
    rotations: Float[np.ndarray, "frames joints 3 3"],
    at: Float[np.ndarray, " new"],
) -> Float[np.ndarray, "new joints 3 3"]:
    """Spherical interpolation of rotations at the (fractional) frame numbers ``at``."""
    left = np.clip(np.floor(at).astype(np.int64), 0, max(len(rotations) - 2, 0))
    right = np.minimum(left + 1, len(rotations) - 1)
    start = Rotation.from_matrix(rotations[left].reshape(-1, 3, 3))
    stop = Rotation.from_matrix(rotations[right].reshape(-1, 3, 3))
    share = np.repeat(at - left, rotations.shape[1])[:, None]
    between = start * Rotation.from_rotvec(share * (start.inv() * stop).as_rotvec())
    return between.as_matrix().reshape(len(at), -1, 3, 3)


def positions_to_rotations(
    positions: Float[np.ndarray, "frames joints 3"],
    offsets: Float[np.ndarray, "joints 3"],
    parents: Sequence[int],
) -> Float[np.ndarray, "frames joints 3 3"]:
    """Local rotations (column vectors) that turn each bone of a skeleton towards given positions.

    A joint with one child takes the smallest swing, one with several non-parallel children the
    least squares rotation (Kabsch). Twists that positions cannot show stay 0. Positions come back
    exactly where bones have the lengths of ``offsets``.
    """
    frames = len(positions)
    turned = np.empty((frames, len(parents), 3, 3))
    local = np.empty_like(turned)
    for joint, parent in enumerate(parents):
        above = np.broadcast_to(np.eye(3), (frames, 3, 3)) if parent < 0 else turned[:, parent]
        children = [c for c, p in enumerate(parents) if p == joint and np.any(offsets[c])]
        turned[:, joint] = above
        if children:
            bones = offsets[children]
            now = np.einsum("fij,cj->fci", above, bones)
            goal = positions[:, children] - positions[:, [joint]]
            if np.linalg.matrix_rank(bones, tol=1e-6 * np.abs(bones).max()) < 2:
                longest = int(np.argmax(np.linalg.norm(bones, axis=1)))
                turned[:, joint] = _swing(now[:, longest], goal[:, longest]) @ above
            else:
                turned[:, joint] = _kabsch(now, goal) @ above
        local[:, joint] = above.swapaxes(-1, -2) @ turned[:, joint]
    return local


def _swing(
    start: Float[np.ndarray, "frames 3"], goal: Float[np.ndarray, "frames 3"]
) -> Float[np.ndarray, "frames 3 3"]:
    """Smallest rotation from one direction to another; identity where the goal has no length."""
    a = start / np.linalg.norm(start, axis=1, keepdims=True)
    length = np.linalg.norm(goal, axis=1, keepdims=True)
    b = np.where(length > 0, goal / np.where(length > 0, length, 1), a)
    axis = np.cross(a, b)
    sin = np.linalg.norm(axis, axis=1, keepdims=True)
    # a half turn has no single axis: any vector orthogonal to the bone will do
    spare = np.cross(a, np.eye(3)[np.argmin(np.abs(a), axis=1)])
    axis = np.where(sin > 1e-12, axis, spare)
    axis = axis / np.linalg.norm(axis, axis=1, keepdims=True)
    angle = np.arctan2(sin, (a * b).sum(1, keepdims=True))
    return Rotation.from_rotvec(axis * angle).as_matrix()


def _kabsch(
    start: Float[np.ndarray, "frames bones 3"], goal: Float[np.ndarray, "frames bones 3"]
) -> Float[np.ndarray, "frames 3 3"]:
    """Least squares rotation from one set of vectors to another (Kabsch 1976)."""
    u, _, vt = np.linalg.svd(np.einsum("fci,fcj->fij", goal, start))
    u[:, :, 2] *= np.linalg.det(u @ vt)[:, None]
    return u @ vt
