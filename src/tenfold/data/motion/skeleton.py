"""Skeletons of motion data: tree, used joints, body parts; and the three published ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True)
class Skeleton:
    """A tree of joints, which of them a network sees, and how they split into body parts.

    ``lower`` and ``upper`` index into ``used``, not into all joints. A joint that is not used is
    either ``constant`` (its position never changes: the ground truth is kept) or a twin: a pair
    ``(joint, source)`` in ``twins`` says that its position equals that of joint ``source``.
    """

    name: str = ""
    """Name of the skeleton; empty means: take it from the data."""
    joints: tuple[str, ...] = ()
    """Joint names, in file order."""
    parents: tuple[int, ...] = ()
    """Parent of each joint; -1 is the root."""
    used: tuple[int, ...] = ()
    """Joints that the network sees, in its order."""
    lower: tuple[int, ...] = ()
    """Lower body part, as positions in `used`."""
    upper: tuple[int, ...] = ()
    """Upper body part, as positions in `used`."""
    twins: tuple[tuple[int, int], ...] = ()
    """Pairs (joint, source): unused joints filled from another joint at evaluation."""
    fps: float = 0.0
    """True frames per second of the windows (after any sub-sampling)."""
    label_fps: float = 0.0
    """Frames per second the papers assume when they label horizons in ms (CMU: 25, truly 60)."""
    root: int = 0
    """Joint that is put at the origin without rotation: the hips, below what only carries them."""
    bones: tuple[float, ...] = ()
    """Length in mm of each joint's bone from its parent, to which other bodies are scaled; empty
    in a published skeleton, and in runs of before it was kept."""


CMU = Skeleton(
    name="cmu_mocap",
    joints=tuple(
        "Hips LHip LUpLeg LLeg LFoot LToe LToeEnd RHip RUpLeg RLeg RFoot RToe RToeEnd LowerBack "
        "Spine Spine1 Neck Neck1 Head HeadEnd LShoulder LArm LForeArm LHand LFingerBase LIndex "
        "LIndexEnd LThumb LThumbEnd RShoulder RArm RForeArm RHand RFingerBase RIndex RIndexEnd "
        "RThumb RThumbEnd".split()
    ),
    parents=(-1, 0, 1, 2, 3, 4, 5, 0, 7, 8, 9, 10, 11, 0, 13, 14, 15, 16, 17, 18)
    + (15, 20, 21, 22, 23, 24, 25, 23, 27, 15, 29, 30, 31, 32, 33, 34, 32, 36),
    used=(3, 4, 5, 6, 9, 10, 11, 12, 14, 15, 17, 18, 19)
    + (21, 22, 23, 25, 26, 28, 30, 31, 32, 34, 35, 37),
    lower=tuple(range(10)),
    upper=tuple(range(10, 25)),
    twins=((16, 15), (20, 15), (29, 15), (24, 23), (27, 23), (33, 32), (36, 32)),
    fps=60.0,
    label_fps=25.0,
)
"""CMU Mocap benchmark (data/cmu_mocap/README.md); truly 60 fps, labelled 25 by all papers."""

H36M = Skeleton(
    name="h36m",
    joints=tuple(
        "Hips RUpLeg RLeg RFoot RToe RToeEnd LUpLeg LLeg LFoot LToe LToeEnd Spine Spine1 Thorax "
        "Neck HeadEnd LShoulder LArm LForeArm LHand LThumb LThumbEnd LWristEnd LWristSite "
        "RShoulder RArm RForeArm RHand RThumb RThumbEnd RWristEnd RWristSite".split()
    ),
    parents=(-1, 0, 1, 2, 3, 4, 0, 6, 7, 8, 9, 0, 11, 12, 13, 14)
    + (12, 16, 17, 18, 19, 20, 19, 22, 12, 24, 25, 26, 27, 28, 27, 30),
    used=(2, 3, 4, 5, 7, 8, 9, 10, 12, 13, 14, 15, 17, 18, 19, 21, 22, 25, 26, 27, 29, 30),
    lower=tuple(range(10)),
    upper=tuple(range(10, 22)),
    twins=((16, 13), (20, 19), (23, 22), (24, 13), (28, 27), (31, 30)),
    fps=25.0,
    label_fps=25.0,
)
"""Human3.6M in the exponential map form."""

THREEDPW = Skeleton(
    name="3dpw",
    joints=tuple(
        "pelvis left_hip right_hip spine1 left_knee right_knee spine2 left_ankle right_ankle "
        "spine3 left_foot right_foot neck left_collar right_collar head left_shoulder "
        "right_shoulder left_elbow right_elbow left_wrist right_wrist left_hand right_hand".split()
    ),
    parents=(-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21),
    used=tuple(range(1, 24)),
    lower=(0, 1, 2, 3, 4, 6, 7, 9, 10),
    upper=(5, 8, *range(11, 23)),
    fps=30.0,
    label_fps=30.0,
)
"""3DPW: the 24 SMPL joints, root removed."""

_CMU_BONES: dict[int, tuple[float | int, ...]] = {
    2: (1.65674, -1.80282, 0.62477), 3: (2.5972, -7.13576, 0), 4: (2.49236, -6.8477, 0),
    5: (0.19704, -0.54136, 2.14581), 6: (0, 0, 1.11249), 8: (-1.6107, -1.80282, 0.62476),
    9: (-2.59502, -7.12977, 0), 10: (-2.4678, -6.78024, 0), 11: (-0.23024, -0.63258, 2.13368),
    12: (0, 0, 1.11569), 14: (0.01961, 2.0545, -0.14112), 15: (0.01021, 2.06436, -0.05921),
    17: (0.00713, 1.56711, 0.14968), 18: (0.03429, 1.56041, -0.10006),
    19: (0.01305, 1.6256, -0.05265), 21: (3.54205, 0.90436, -0.17364), 22: (4.86513, 0, 0),
    23: (3.35554, 0, 0), 25: (0.66117, 0, 0), 26: (0.53306, 0, 0), 28: (0.5412, 0, 0.5412),
    30: (-3.49802, 0.75994, -0.32616), 31: (-5.02649, 0, 0), 32: (-3.36431, 0, 0),
    34: (-0.73041, 0, 0), 35: (-0.58887, 0, 0), 37: (-0.59786, 0, 0.59786),
}  # fmt: skip
_H36M_BONES: dict[int, tuple[float | int, ...]] = {
    1: (-132.948591, 0, 0), 2: (0, -442.894612, 0), 3: (0, -454.206447, 0), 4: (0, 0, 162.767078),
    5: (0, 0, 74.999437), 6: (132.948826, 0, 0), 7: (0, -442.894413, 0), 8: (0, -454.20659, 0),
    9: (0, 0, 162.767426), 10: (0, 0, 74.999948), 11: (0, 0.1, 0), 12: (0, 233.383263, 0),
    13: (0, 257.077681, 0), 14: (0, 121.134938, 0), 15: (0, 115.002227, 0), 16: (0, 257.077681, 0),
    17: (0, 151.034226, 0), 18: (0, 278.882773, 0), 19: (0, 251.733451, 0), 21: (0, 0, 99.999627),
    22: (0, 100.000188, 0), 24: (0, 257.077681, 0), 25: (0, 151.031437, 0), 26: (0, 278.892924, 0),
    27: (0, 251.72868, 0), 29: (0, 0, 99.999888), 30: (0, 137.499922, 0),
}  # fmt: skip


def _table(
    bones: dict[int, tuple[float | int, ...]], joints: int, unit: float
) -> Float[np.ndarray, "joints 3"]:
    """Offsets as an array: unlisted joints are 0, the rest in multiples of ``unit``."""
    offsets = np.zeros((joints, 3))
    for joint, bone in bones.items():
        offsets[joint] = bone
    offsets *= unit
    offsets.flags.writeable = False
    return offsets


CMU_OFFSETS = _table(_CMU_BONES, 38, unit=70.0)
"""Bones of the CMU benchmark in its "mm" (70 a BVH unit; about 1.24 times real millimetres)."""

H36M_OFFSETS = _table(_H36M_BONES, 32, unit=1.0)
"""Bones of Human3.6M in mm."""

_UPPER_WORDS = "arm hand thumb finger index pinky wrist elbow shoulder collar clavicle neck head"
_LOWER_WORDS = "leg foot toe hip knee ankle spine back pelvis thigh shin calf heel femur tibia"


def derive_parts(
    joints: Sequence[str],
    parents: Sequence[int],
    offsets: Float[np.ndarray, "joints 3"],
    positions: Float[np.ndarray, "frames joints 3"] | None = None,
    root: int = 0,
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[tuple[int, int], ...]]:
    """Used joints, lower part, upper part and twins of any skeleton, as ``Skeleton`` holds them.

    Hip-aligned positions are assumed: the root, what does not hang on it and what hangs rigidly on
    it is constant; so is a joint that never moves in ``positions``. A joint that always equals its
    parent or a sibling is a twin. Parts follow the joint names (leg, foot, spine: lower; arm, head:
    upper); a name that says nothing follows its parent, and if names say nothing at all, the
    branches that end lowest in the rest pose (y is up) are the lower part. (ours)
    """
    every = np.zeros((1, len(parents), 3)) if positions is None else positions
    ranges = np.ptp(every, axis=0).max(axis=-1)
    still = ranges <= 1e-5 * np.abs(every).max()
    # position channels with rounded values move a bone of the root a little
    rigid = ranges <= 2e-3 * np.abs(every).max()
    if positions is None:
        still[:] = False
    body = {root}
    constant: set[int] = set()
    same: dict[int, int] = {}
    for joint, parent in enumerate(parents):
        if parent in body:
            body.add(joint)
        if joint not in body or joint == root or bool(still[joint]):
            constant.add(joint)
        elif parent == root and rigid[joint]:
            constant.add(joint)
        elif not np.any(offsets[joint]):
            if parent in constant:
                constant.add(joint)
            else:
                same[joint] = same.get(parent, parent)
        else:
            for other in range(joint):
                if parents[other] == parent and np.array_equal(offsets[other], offsets[joint]):
                    same[joint] = same.get(other, other)
                    break
    used = tuple(j for j in range(len(parents)) if j not in constant and j not in same)
    if len(used) < 2:
        raise ValueError(
            f"only {len(used)} of {len(parents)} joints move; at least 2 are needed to split a "
            "body into parts. Check that the file holds motion."
        )
    is_lower = _parts_by_name(joints, parents)
    if len({is_lower[j] for j in used}) < 2:
        is_lower = _parts_by_height(parents, offsets)
    if len({is_lower[j] for j in used}) < 2:  # a single chain: its first half
        is_lower = {j: k < len(used) // 2 for k, j in enumerate(used)}
    lower = tuple(k for k, j in enumerate(used) if is_lower[j])
    upper = tuple(k for k, j in enumerate(used) if not is_lower[j])
    return used, lower, upper, tuple(sorted(same.items()))


def _parts_by_name(joints: Sequence[str], parents: Sequence[int]) -> dict[int, bool]:
    """Judge by its name or its ancestors' names whether each joint belongs to the lower part."""
    is_lower: dict[int, bool] = {}
    for joint, (name, parent) in enumerate(zip(joints, parents, strict=True)):
        if any(word in name.lower() for word in _UPPER_WORDS.split()):
            is_lower[joint] = False
        elif any(word in name.lower() for word in _LOWER_WORDS.split()):
            is_lower[joint] = True
        else:
            is_lower[joint] = is_lower.get(parent, False)
    return is_lower


def _parts_by_height(
    parents: Sequence[int], offsets: Float[np.ndarray, "joints 3"]
) -> dict[int, bool]:
    """Judge whether each joint belongs to the lower part: its branch ends in the lower half."""
    height = np.zeros(len(parents))
    end = np.full(len(parents), -np.inf)
    for joint, parent in enumerate(parents):
        height[joint] = offsets[joint, 1] + (height[parent] if parent >= 0 else 0.0)
    leaves = [j for j in range(len(parents)) if j not in parents]
    for joint in reversed(range(len(parents))):
        end[joint] = height[joint] if joint in leaves else end[joint]
        if parents[joint] >= 0:
            end[parents[joint]] = max(end[parents[joint]], end[joint])
    middle = (height[leaves].min() + height[leaves].max()) / 2
    return {j: bool(end[j] < middle) for j in range(len(parents))}
