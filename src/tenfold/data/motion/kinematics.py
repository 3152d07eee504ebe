"""Rotations and joint positions: forward and inverse kinematics, and resampling in time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from .euler import euler_angles, from_euler

DAMPING = 0.01
"""Weight of the last observed rotation where several bones decide a joint's turn (ours)."""


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
    start: Float[np.ndarray, "joints 3 3"] | None = None,
    known: Sequence[bool] | None = None,
    orders: Sequence[str] | None = None,
) -> Float[np.ndarray, "frames joints 3 3"]:
    """Local rotations (column vectors) that turn each bone of a skeleton towards given positions.

    A joint with one child takes the smallest swing from where it starts, one with several
    non-parallel children the least squares rotation (Kabsch). Twists that positions cannot show
    stay as they start. Positions come back exactly where bones have the lengths of ``offsets``.

    Args:
        positions: Goals; where a joint's is its parent's, that bone turns nothing.
        offsets: Bones from the parents.
        parents: Parent of each joint, before it; -1 is the root.
        start: Local rotations to start from, such as those of the last observed frame; None
            starts from rest.
        known: Joints that have goals; the others keep their start. None: all have.
        orders: Axes about which each joint can turn ("ZXY", "X", ""); None: all can turn freely.
    """
    frames = len(positions)
    rest = np.broadcast_to(np.eye(3), (len(parents), 3, 3)) if start is None else start
    has_goal = np.ones(len(parents), dtype=bool) if known is None else np.asarray(known)
    turned = np.empty((frames, len(parents), 3, 3))
    local = np.empty_like(turned)
    for joint, parent in enumerate(parents):
        above = np.broadcast_to(np.eye(3), (frames, 3, 3)) if parent < 0 else turned[:, parent]
        local[:, joint] = rest[joint]
        if has_goal[joint] and (orders is None or orders[joint]):
            bones, ends = _arms(joint, offsets, parents, rest, has_goal)
            goals = positions[:, ends] - positions[:, [joint]]
            first = above @ rest[joint]
            turn = _turn(first, bones, goals, is_free=start is None)
            local[:, joint] = above.swapaxes(-1, -2) @ turn @ first
            if orders is not None:
                local[:, joint] = nearest_turn(local[:, joint], orders[joint])
        turned[:, joint] = above @ local[:, joint]
    return local


def _arms(
    joint: int,
    offsets: Float[np.ndarray, "joints 3"],
    parents: Sequence[int],
    rest: Float[np.ndarray, "joints 3 3"],
    has_goal: np.ndarray,
) -> tuple[Float[np.ndarray, "arms 3"], list[int]]:
    """From a joint to the nearest joints below it that have goals, in its own frame."""
    arms, ends = [], []
    least = 1e-4 * np.linalg.norm(offsets, axis=1)[1:].max(initial=0)
    below = [(c, offsets[c], rest[c]) for c, p in enumerate(parents) if p == joint]
    while below:
        child, arm, frame = below.pop(0)
        if not has_goal[child]:  # what lies between keeps its start
            further = [c for c, p in enumerate(parents) if p == child]
            below += [(c, arm + frame @ offsets[c], frame @ rest[c]) for c in further]
        elif np.linalg.norm(arm) > least:
            arms.append(arm)
            ends.append(child)
    return np.reshape(arms, (-1, 3)), ends


def _turn(
    first: Float[np.ndarray, "frames 3 3"],
    bones: Float[np.ndarray, "arms 3"],
    goals: Float[np.ndarray, "frames arms 3"],
    is_free: bool,
) -> Float[np.ndarray, "frames 3 3"]:
    """Rotation of a joint, turned as in `first`, that brings its bones towards their goals."""
    if not len(bones):
        return np.broadcast_to(np.eye(3), first.shape)
    now = np.einsum("fij,cj->fci", first, bones)
    if np.linalg.matrix_rank(bones, tol=1e-6 * np.abs(bones).max()) < 2:
        longest = int(np.argmax(np.linalg.norm(bones, axis=1)))
        return _swing(now[:, longest], goals[:, longest])
    if is_free:
        return _kabsch(now, goals)
    # a second pass from the first takes back what DAMPING held where bones do decide
    turn = _kabsch(now, goals, DAMPING)
    return _kabsch(np.einsum("fij,fcj->fci", turn, now), goals, DAMPING) @ turn


def nearest_turn(
    rotations: Float[np.ndarray, "frames 3 3"], order: str
) -> Float[np.ndarray, "frames 3 3"]:
    """What a joint that turns about these axes alone can show of rotations."""
    return rotations if len(order) == 3 else from_euler(order, euler_angles(rotations, order))


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
    start: Float[np.ndarray, "frames bones 3"],
    goal: Float[np.ndarray, "frames bones 3"],
    damping: float = 0.0,
) -> Float[np.ndarray, "frames 3 3"]:
    """Least squares rotation from one set of vectors to another (Kabsch 1976).

    `damping` is the weight of staying, as a share of the bones' own: it keeps a turn that nearly
    parallel bones hardly decide.
    """
    covariance = np.einsum("fci,fcj->fij", goal, start)
    lengths = np.linalg.norm(goal, axis=-1) * np.linalg.norm(start, axis=-1)
    covariance += damping * lengths.sum(-1)[:, None, None] * np.eye(3)
    u, _, vt = np.linalg.svd(covariance)
    u[:, :, 2] *= np.linalg.det(u @ vt)[:, None]
    return u @ vt
