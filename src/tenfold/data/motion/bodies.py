"""Bodies of BVH files: where theirs begins, which joint is which, and the size of another one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from tenfold.printable import printable

from .bvh_motion import Bvh
from .skeleton import Skeleton, derive_parts

CARRIED = 0.6
"""Share of a joint's branch that a child has, at least, which that joint only carries."""
ALONE, AMONG = 1e-3, 2e-2
"""Shares of the length of all bones by which a child's place varies that is carried: of an only
child, and of one beside others (a spine that wobbles beside legs is none)."""
LIKELY_MM = (300.0, 4000.0)
"""Heights between which bodies that are not a mistake of the unit lie."""


# --- where the body begins ---------------------------------------------------------------------


def body_root(bvh: Bvh) -> int:
    """The joint whose place and heading are those of the body: the hips, in most files.

    Tools put joints above them that stand still (Reference, Armature) or carry the body over the
    floor (Unreal's root). From the root down, a joint that holds most of the rest in one child is
    passed where that child moves against it by itself, or lies at the same place. (ours)
    """
    size = [1] * len(bvh.parents)
    for joint in reversed(range(1, len(bvh.parents))):
        size[bvh.parents[joint]] += size[joint]
    root = 0
    while True:
        children = [c for c, parent in enumerate(bvh.parents) if parent == root]
        main = max(children, key=lambda c: size[c], default=None)
        if main is None or size[main] < CARRIED * size[root]:
            return root
        if not _is_carried(bvh, main, all(size[c] == 1 for c in children if c != main)):
            return root
        root = main


def _is_carried(bvh: Bvh, joint: int, alone: bool) -> bool:
    """True for a joint that is no bone's end: it moves against its parent, or lies at its place."""
    below = [c for c, parent in enumerate(bvh.parents) if parent == joint]
    if not any(bvh.channels[c] for c in below):  # of a stick: nothing would be left of it
        return False
    bones = bvh.bones()
    inside = [c for c in range(joint + 1, len(bvh.parents)) if bvh.hangs(c, joint)]
    body = float(np.linalg.norm(bones[inside], axis=1).sum())
    if alone and np.linalg.norm(bones[joint]) <= ALONE * body:
        return True
    if not bvh.moves(joint):
        return False
    column = sum(map(len, bvh.channels[:joint]))
    places = [column + i for i, n in enumerate(bvh.channels[joint]) if n.endswith("position")]
    varies = np.ptp(bvh.motion[:, places], axis=0).max() > (ALONE if alone else AMONG) * body
    return bool(varies) or (alone and not all(bvh.moves(c) for c in below if bvh.channels[c]))


# --- which joint is which ----------------------------------------------------------------------


def keys(joints: Sequence[str]) -> list[str]:
    """Names as they are compared: without name spaces, letter case and what stands between words.

    "mixamorig:Left Arm" and "left_arm" are one; of equal ones the second is told by its number.
    """
    seen: dict[str, int] = {}
    result = []
    for name in joints:
        key = re.sub(r"[\s_.\-]+", "", name.rpartition(":")[2]).casefold() or name
        seen[key] = seen.get(key, 0) + 1
        result.append(key if seen[key] == 1 else f"{key}#{seen[key]}")
    return result


def matched(bvh: Bvh, skeleton: Skeleton, source: Path) -> list[int]:
    """The file's joint for each joint of a skeleton, by name; -1 for those above its body.

    The order of the joints is free, and joints that the skeleton does not have may lie anywhere.

    Raises:
        ValueError: A joint of the body is not there, or hangs on another one; the error names it.
    """
    place = {key: joint for joint, key in enumerate(keys(bvh.joints))}
    body = _body(skeleton)
    found = [
        place.get(key, -1) if joint in body else -1
        for joint, key in enumerate(keys(skeleton.joints))
    ]
    lacking = [skeleton.joints[joint] for joint in sorted(body) if found[joint] < 0]
    if lacking:
        named = ", ".join(lacking[:5]) + (f" and {len(lacking) - 5} more" if lacking[5:] else "")
        raise ValueError(
            printable(
                f"{source} has another skeleton than this body of {len(skeleton.joints)} joints: "
                f"among its {len(bvh.joints)} joints there is no {named}. Rename its joints, or "
                "keep files of one skeleton together"
            )
        )
    known = set(found)
    for joint in sorted(body - {skeleton.root}):
        above = bvh.parents[found[joint]]
        while above >= 0 and above not in known:
            above = bvh.parents[above]
        parent = skeleton.parents[joint]
        if above != found[parent]:
            on = bvh.joints[above] if above >= 0 else "nothing"
            raise ValueError(
                printable(
                    f"{source} has another skeleton: joint {skeleton.joints[joint]!r} hangs on "
                    f"{on!r}, not on {skeleton.joints[parent]!r}. Keep files of one skeleton "
                    "together"
                )
            )
    return found


def _body(skeleton: Skeleton) -> set[int]:
    """The root of a skeleton's body, and all joints that hang on it."""
    body = {skeleton.root}
    for joint, parent in enumerate(skeleton.parents):
        if parent in body:
            body.add(joint)
    return body


# --- size --------------------------------------------------------------------------------------


def fitted(
    bvh: Bvh, skeleton: Skeleton, joints: list[int], unit: float, source: Path
) -> Float[np.ndarray, "frames joints 3"]:
    """Positions of a motion on a skeleton's body: bones get its lengths, and keep their directions.

    Args:
        bvh: The motion, at any size.
        skeleton: The body; one without lengths of bones takes the file's.
        joints: The file's joint for each of the skeleton, as `matched` gives them.
        unit: Millimetres in the file's unit, where the skeleton has no lengths.
        source: File, for errors.

    Returns:
        In mm, float32, the root of the body at 0 without rotation.

    Raises:
        ValueError: A bone that the body has is missing, or of a wholly other share of the body.
    """
    own = bvh.positions(joints[skeleton.root])
    positions = np.where(np.array(joints)[:, None] < 0, 0.0, own[:, joints])
    if not skeleton.bones:
        return (positions * unit).astype(np.float32)
    scale = _scales(positions, skeleton, source)
    result = np.zeros_like(positions)
    for joint, parent in enumerate(skeleton.parents):
        if joint != skeleton.root and joints[joint] >= 0:
            bone = positions[:, joint] - positions[:, parent]
            result[:, joint] = result[:, parent] + bone * scale[joint]
    return result.astype(np.float32)


def _scales(
    positions: Float[np.ndarray, "frames joints 3"], skeleton: Skeleton, source: Path
) -> Float[np.ndarray, " joints"]:
    """Factor of each bone's length."""
    wanted = np.array(skeleton.bones)
    lengths = bone_lengths(positions, skeleton.parents)
    counts = np.array([j in _body(skeleton) and j != skeleton.root for j in range(len(wanted))])
    total = lengths[counts].sum()
    if not total > 0:
        raise ValueError(f"{source} has no bone of any length. Export it again.")
    whole = wanted[counts].sum() / total
    notable = counts & (wanted > 0.01 * wanted[counts].sum())
    share = np.where(lengths > 0, wanted / np.where(lengths > 0, lengths, 1), np.inf) / whole
    wrong = np.flatnonzero(notable & ((share > 5) | (share < 0.2)))
    if len(wrong):
        joint = int(wrong[np.argmax(np.abs(np.log(np.minimum(share[wrong], 1e9))))])
        raise ValueError(
            printable(
                f"{source} has another body: the bone of joint {skeleton.joints[joint]!r} is "
                f"{lengths[joint] / total:.1%} of all bones' length, of the body that was trained "
                f"on {wanted[joint] / wanted[counts].sum():.1%}. Retarget it first"
            )
        )
    # bones too small to have a direction, or none on the trained body, keep the whole's scale
    return np.where((lengths > 1e-4 * total) & (wanted > 0), share * whole, whole)


def bone_lengths(
    positions: Float[np.ndarray, "frames joints 3"], parents: Sequence[int]
) -> Float[np.ndarray, " joints"]:
    """Middle length of each joint's bone over all frames; 0 of a root."""
    lengths = np.zeros(len(parents))
    for joint, parent in enumerate(parents):
        if parent >= 0:
            bones = positions[:, joint] - positions[:, parent]
            lengths[joint] = np.median(np.linalg.norm(bones, axis=-1))
    return lengths


def skeleton_of(bvh: Bvh, unit: float) -> Skeleton:
    """The skeleton of a file, with derived body parts; `unit` is mm in its unit of length."""
    root = body_root(bvh)
    positions = bvh.positions(root) * unit
    parts = derive_parts(bvh.joints, bvh.parents, bvh.bones() * unit, positions, root)
    lengths = bone_lengths(positions, bvh.parents)
    return Skeleton(
        "bvh", bvh.joints, bvh.parents, *parts, fps=bvh.fps, label_fps=bvh.fps, root=root,
        bones=tuple(lengths.round(3).tolist()),
    )  # fmt: skip


def is_likely(height: float) -> bool:
    """True for a height in mm that is not a mistake of the unit."""
    return LIKELY_MM[0] <= height <= LIKELY_MM[1]


def height_mm(bvh: Bvh, unit: float) -> float:
    """Largest extent of the body along an axis, in the middle frame."""
    pose = bvh.positions(body_root(bvh))[len(bvh.motion) // 2] * unit
    return float(np.ptp(pose, axis=0).max())
