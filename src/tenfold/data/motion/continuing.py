"""A BVH motion continued by predicted poses: rotations, and the body's way through the world."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from .bvh_motion import Bvh
from .kinematics import joint_positions, positions_to_rotations

RECENT = 1.0
"""Observed seconds that are looked at."""
SECONDS = 0.15
"""Observed time at whose end velocity and heading are measured."""
FADE = 0.1
"""Seconds in which what is no heading and no way over the floor (tilt, rise) falls to half."""
TRUST, SWAY = 0.4, 0.05
"""Change of the velocity that a foot on the floor may cause: share of it, and body heights in a
second, so that the body sways where it rests."""
EASE = 0.02
"""Seconds in which half of such a change comes and goes."""
NEAR_FLOOR = 0.05
"""Share of the body's height within which a foot counts as on the floor."""
SEAM = 0.04
"""Seconds in which half of the difference fades between how joints were turning and where the
network first sees them."""
SUDDEN, FAST, QUICK = 5.0, 8.0, 1000.0
"""A step between frames that is so many times the usual one, and faster than this in body heights
or degrees a second, is a cut or a glitch of the capture: what follows does not go on with it."""

ROOT_MOTION = (
    "the body goes on with the velocity and the turn of its last "
    f"{SECONDS:g} s, held back or forth by a foot on the floor; rise and tilt fade"
)
"""How the root of the body continues, as results say it."""
JOINTS = (
    "joints turn from their last observed rotations; what the first predicted pose differs from "
    f"where they were going fades, half of it in {SEAM:g} s"
)
"""How the other joints continue in a BVH."""


@dataclass(frozen=True)
class Way:
    """Where a body is, and how it stands, in the world."""

    rotations: Float[np.ndarray, "frames 3 3"]
    places: Float[np.ndarray, "frames 3"]


def continued(
    bvh: Bvh,
    observed: slice,
    goals: Float[np.ndarray, "future joints 3"],
    known: list[bool],
    root: int,
    feet: list[int],
    up: Float[np.ndarray, "3"],
) -> Bvh:
    """The observed frames of a motion as they are, then predicted ones.

    Joints start from their last observed rotations and turn towards the goals, and no pose jumps
    (`JOINTS`); what has no goal keeps its last local pose, lengths of bones included.

    Args:
        bvh: The motion.
        observed: Frames of it that come before the predicted ones.
        goals: Predicted positions of all joints, aligned with `root`; directions of bones count.
        known: Joints that have goals.
        root: Joint that is the root of the body.
        feet: Joints that may stand on the floor.
        up: Direction against gravity in the world.
    """
    seen = replace(bvh, motion=bvh.motion[observed])
    recent = replace(seen, motion=seen.motion[-max(2, round(RECENT * seen.fps)) :])
    turned, moved = recent.rotations(), recent.translations()
    start, bones = turned[-1].copy(), moved[-1].copy()
    chain = _chain(seen, root)
    aligned, still = bones.copy(), start.copy()
    aligned[chain], still[chain] = 0, np.eye(3)
    below = [j for j in range(len(known)) if j != root and seen.hangs(j, root)]
    orders = [seen.order(j) if j in below else "" for j in range(len(known))]
    local = positions_to_rotations(goals, aligned, bvh.parents, still, known, orders)
    local[:, below] = _without_seam(turned[:, below], local[:, below], seen.fps)
    poses = joint_positions(local, aligned[None], bvh.parents)
    way = _along(turned, moved, chain)
    places = recent.positions()
    floor = float((places[:, feet] @ up).min(initial=np.inf))
    height = float(np.ptp(places[-1] @ up))
    first = np.einsum("ji,fj->fi", way.rotations[-1], places[-1, feet] - way.places[-1])
    soles = np.concatenate([first[None], poses[:, feet]])
    ahead, spins = _ahead(way, soles, up, seen.fps, floor, height)
    local[:, chain], lengths = start[chain], np.repeat(bones[None], len(goals), 0)
    _carry(seen, chain, (turned, moved), (local, lengths), ahead, spins, up)
    future = seen.with_pose(local, lengths, seen.motion[-1])
    return replace(seen, motion=np.concatenate([seen.motion, future.motion]))


def _without_seam(
    seen: Float[np.ndarray, "past joints 3 3"],
    ahead: Float[np.ndarray, "future joints 3 3"],
    fps: float,
) -> Float[np.ndarray, "future joints 3 3"]:
    """Predicted rotations that begin as the observed ones go on; the difference fades.

    A transition by inertia as games have it. Source: Bollo, "Inertialization" (GDC 2018), with an
    exponential instead of a polynomial.
    """
    step = np.eye(3)
    if len(seen) > 1:
        turns = _rotvecs(seen[:-1].swapaxes(-1, -2) @ seen[1:])
        is_cut = _sudden(turns, np.radians(QUICK) / fps)[-1]
        step = Rotation.from_rotvec(np.where(is_cut[:, None], 0, turns[-1])).as_matrix()
    gap = Rotation.from_matrix(ahead[0].swapaxes(-1, -2) @ (seen[-1] @ step)).as_rotvec()
    shares = 0.5 ** (np.arange(len(ahead)) / (SEAM * fps))
    turns = Rotation.from_rotvec((shares[:, None, None] * gap).reshape(-1, 3)).as_matrix()
    return ahead @ turns.reshape(ahead.shape)


def _rotvecs(rotations: Float[np.ndarray, "*many 3 3"]) -> Float[np.ndarray, "*many 3"]:
    """Axes times angles in radians."""
    vectors = Rotation.from_matrix(rotations.reshape(-1, 3, 3)).as_rotvec()
    return vectors.reshape(rotations.shape[:-1])


def _sudden(steps: Float[np.ndarray, "frames *many 3"], fast: float) -> np.ndarray:
    """Steps that are a cut (`SUDDEN`): longer than `fast` in a frame, and than the usual one."""
    lengths = np.linalg.norm(steps, axis=-1)
    return (lengths > fast) & (lengths > SUDDEN * np.median(lengths, axis=0))


def _without_cuts(steps: Float[np.ndarray, "frames 3"], fast: float) -> Float[np.ndarray, "3"]:
    """Mean of the steps that are no cut."""
    return steps[~_sudden(steps, fast)].mean(0)


def _chain(bvh: Bvh, root: int) -> list[int]:
    """Joints from the file's root to the body's."""
    chain = [root]
    while bvh.parents[chain[0]] >= 0:
        chain.insert(0, bvh.parents[chain[0]])
    return chain


def _along(
    rotations: Float[np.ndarray, "frames joints 3 3"],
    places: Float[np.ndarray, "frames joints 3"],
    chain: list[int],
) -> Way:
    """The way of the last joint of a chain, from local poses; of none, the world itself."""
    turned = np.broadcast_to(np.eye(3), (len(rotations), 3, 3))
    at = np.zeros((len(rotations), 3))
    for joint in chain:
        at = at + np.einsum("fij,fj->fi", turned, places[:, joint])
        turned = turned @ rotations[:, joint]
    return Way(turned, at)


def _ahead(
    way: Way,
    soles: Float[np.ndarray, "future_and_last feet 3"],
    up: Float[np.ndarray, "3"],
    fps: float,
    floor: float,
    height: float,
) -> tuple[Way, Float[np.ndarray, "future 3 3"]]:
    """The way that follows an observed one, and the turns of its heading.

    Args:
        way: As observed.
        soles: Feet seen from the body, in the last observed frame and in those that follow.
        up: Direction against gravity.
        fps: Frames a second.
        floor: Height of the lowest foot that was observed.
        height: Of the body.
    """
    back = min(len(way.places) - 1, max(1, round(SECONDS * fps)))
    velocity, turn = np.zeros(3), np.zeros(3)
    if back:
        last = slice(-1 - back, None)
        velocity = _without_cuts(np.diff(way.places[last], axis=0), FAST * height / fps)
        turned = way.rotations[last]
        turns = _rotvecs(turned[1:] @ turned[:-1].swapaxes(-1, -2))
        turn = _without_cuts(turns, np.radians(QUICK) / fps)
    rise, yaw = float(velocity @ up), float(turn @ up)
    flat, tilt = velocity - rise * up, turn - yaw * up
    keeps = 0.5 ** (1 / (FADE * fps))
    tilted, held, share = np.zeros(3), np.zeros(3), 1.0
    eases = 1 - 0.5 ** (1 / (EASE * fps))
    rotations, places, spins = [way.rotations[-1]], [way.places[-1]], []
    for frame in range(1, len(soles)):
        share *= keeps
        tilted = tilted + share * tilt
        spins.append(Rotation.from_rotvec(frame * yaw * up).as_matrix())
        leaned = Rotation.from_rotvec(tilted).as_matrix()
        rotations.append(spins[-1] @ leaned @ way.rotations[-1])
        step = spins[-1] @ flat + share * rise * up
        before, after = soles[frame - 1] @ rotations[-2].T, soles[frame] @ rotations[-1].T
        near = (places[-1] + before) @ up <= floor + NEAR_FLOOR * height
        wanted = np.zeros(3)
        if near.any():  # of the steps that hold a foot on the floor, that which changes least
            changes = (before - after)[near] - step
            rises = changes @ up
            off = np.linalg.norm(changes - rises[:, None] * up, axis=1)
            best = int(np.argmin(off))
            most = TRUST * float(np.linalg.norm(flat)) + SWAY * height / fps
            if off[best] <= most:
                wanted = changes[best] + (np.clip(rises[best], -most, most) - rises[best]) * up
        held = held + eases * (wanted - held)
        step = step + held
        places.append(places[-1] + step)
    return Way(np.stack(rotations[1:]), np.stack(places[1:])), np.stack(spins)


def _carry(
    seen: Bvh,
    chain: list[int],
    observed: tuple[np.ndarray, np.ndarray],
    future: tuple[np.ndarray, np.ndarray],
    ahead: Way,
    spins: Float[np.ndarray, "future 3 3"],
    up: Float[np.ndarray, "3"],
) -> None:
    """Write the way of the body into the local poses of the joints that carry it, in place.

    `observed` and `future` are local rotations and places. Where the body's root has position
    channels, it goes by itself; a joint above it that was moving goes on over the floor beneath.
    Where it has none, the last joint above it that has carries both as one.
    """
    root = chain[-1]
    rotations, places = (part[-1:] for part in observed)
    movers = [joint for joint in chain if seen.moves(joint)]
    bearer = root if seen.moves(root) or not movers else movers[-1]
    bearers = {bearer: ahead}
    last = _along(rotations, places, chain)
    if bearer != root:
        mine = _along(rotations, places, chain[: chain.index(bearer) + 1])
        relative = mine.rotations[0].T @ last.rotations[0]
        arm = mine.rotations[0].T @ (last.places[0] - mine.places[0])
        turned = ahead.rotations @ relative.T
        if len(seen.order(bearer)) < 3:
            turned = np.broadcast_to(mine.rotations[0], turned.shape)
        bearers = {bearer: Way(turned, ahead.places - turned @ arm), root: ahead}
    for joint in chain[: chain.index(bearer)]:
        upto = chain[: chain.index(joint) + 1]
        if joint in movers and len(seen.order(joint)) == 3 and _travels(_along(*observed, upto)):
            mine = _along(rotations, places, upto)
            gone = ahead.places - last.places[0]
            gone = gone - (gone @ up)[:, None] * up
            from_body = mine.places[0] - last.places[0]
            goes = Way(spins @ mine.rotations[0], last.places[0] + gone + spins @ from_body)
            bearers = {joint: goes, **bearers}
            break
    for joint, way in bearers.items():
        above = _along(*future, chain[: chain.index(joint)])
        inverse = above.rotations.swapaxes(-1, -2)
        future[0][:, joint] = inverse @ way.rotations
        if seen.moves(joint):
            future[1][:, joint] = np.einsum("fij,fj->fi", inverse, way.places - above.places)


def _travels(way: Way) -> bool:
    """True unless a joint stood still, but for the rounding of its channels."""
    moved = np.ptp(way.places, axis=0).max() > 1e-3 * max(float(np.abs(way.places).max()), 1e-9)
    return bool(moved or np.ptp(way.rotations, axis=0).max() > 1e-2)
