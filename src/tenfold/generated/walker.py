"""Generated motion: bodies on the CMU skeleton whose joint angles are known functions of time.

Not recorded from people. Angles are sums of sines, so a motion has no end: any frame of its
continuation can be computed exactly. Used where no data set is found.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from tenfold.data.motion.clips import Clip
from tenfold.data.motion.kinematics import joint_positions
from tenfold.data.motion.skeleton import CMU, CMU_OFFSETS

# joint, axis (0 x: forward swing, 1 y: turn, 2 z: side): mean, amplitude, phase, harmonic.
# Radians and turns of the gait cycle; left and right legs are half a cycle apart.
Wave = tuple[float, float, float, int]
Gait = Mapping[tuple[str, int], Wave]


def _steps(hip: float, knee: float, arm: float, elbow: float, lean: float) -> Gait:
    """A symmetric gait of legs and counter-swinging arms."""
    waves: dict[tuple[str, int], Wave] = {("LowerBack", 0): (lean, 0.03, 0.0, 2)}
    waves["Spine", 1] = (0.0, 0.08, 0.0, 1)
    for side, phase, sign in (("L", 0.0, 1), ("R", 0.5, -1)):
        waves[f"{side}UpLeg", 0] = (-0.15, hip, phase, 1)
        waves[f"{side}Leg", 0] = (knee, 0.9 * knee, phase + 0.3, 1)
        waves[f"{side}Foot", 0] = (-0.1, 0.25, phase + 0.1, 1)
        waves[f"{side}Arm", 2] = (-1.3 * sign, 0.05, phase, 1)
        waves[f"{side}Arm", 0] = (0.0, arm, phase + 0.5, 1)
        waves[f"{side}ForeArm", 1] = (-elbow * sign, 0.3 * elbow, phase + 0.55, 1)
    return waves


ACTIONS: dict[str, tuple[float, Gait]] = {
    "walking": (0.9, _steps(hip=0.45, knee=0.5, arm=0.4, elbow=0.3, lean=0.05)),
    "running": (1.4, _steps(hip=0.8, knee=0.9, arm=0.8, elbow=1.4, lean=0.2)),
    "waving": (
        1.1,
        {
            **_steps(hip=0.05, knee=0.05, arm=0.05, elbow=0.1, lean=0.0),
            ("RArm", 2): (-1.0, 0.15, 0.0, 1),
            ("RForeArm", 2): (-0.8, 0.6, 0.0, 2),
            ("RHand", 2): (0.0, 0.3, 0.2, 2),
        },
    ),
    "squatting": (
        0.5,
        {
            **_steps(hip=0.0, knee=0.0, arm=0.0, elbow=0.3, lean=0.0),
            **{(f"{side}UpLeg", 0): (-0.8, 0.7, 0.5, 1) for side in "LR"},
            **{(f"{side}Leg", 0): (1.0, 0.9, 0.0, 1) for side in "LR"},
            ("LowerBack", 0): (0.35, 0.3, 0.0, 1),
            ("LArm", 1): (-0.6, 0.5, 0.0, 1),
            ("RArm", 1): (0.6, 0.5, 0.5, 1),
        },
    ),
    "turning": (
        0.4,
        {
            **_steps(hip=0.1, knee=0.15, arm=0.1, elbow=0.2, lean=0.0),
            ("LowerBack", 1): (0.0, 0.5, 0.0, 1),
            ("Spine", 1): (0.0, 0.4, 0.03, 1),
            ("Neck", 1): (0.0, 0.5, -0.05, 1),
        },
    ),
}
"""Cycles a second and joint waves of each action, before a clip's own variation."""


def clips(
    split: str = "train",
    seed: int = 0,
    num_per_action: int = 4,
    frames: int = 200,
    fps: float = 60.0,
) -> list[Clip]:
    """Generated clips of five actions, 38 CMU joints, in the benchmark's mm, hip-aligned.

    Every clip has its own frequency, phase, amplitudes and slow sway, drawn from seed, split,
    action and number: longer clips begin with exactly the frames of shorter ones. (ours)
    """
    return [
        Clip(f"{split}/{action}/{action}_{number}", action, positions, fps)
        for action in ACTIONS
        for number in range(1, num_per_action + 1)
        for positions in [_positions(f"{seed}/{split}/{action}/{number}", action, frames, fps)]
    ]


def _positions(
    key: str, action: str, frames: int, fps: float
) -> Float[np.ndarray, "frames joints 3"]:
    """Positions of one body, seeded by the checksum of a key."""
    random = np.random.default_rng(zlib.crc32(key.encode()))
    cycles, gait = ACTIONS[action]
    time = np.arange(frames) / fps * cycles * random.uniform(0.85, 1.15) + random.uniform()
    angles = np.zeros((frames, len(CMU.joints), 3))
    for (name, axis), (mean, amplitude, phase, harmonic) in gait.items():
        size, shift = amplitude * random.uniform(0.8, 1.2), phase + random.uniform(-0.02, 0.02)
        wave = np.sin(2 * np.pi * (harmonic * time + shift))
        wave += 0.15 * np.sin(2 * np.pi * (2 * harmonic * time + shift))
        angles[:, CMU.joints.index(name), axis] = mean * random.uniform(0.9, 1.1) + size * wave
    for name in ("LowerBack", "Spine", "Neck", "Head"):  # sway that is not in step with the gait
        pace, start = random.uniform(0.15, 0.4), random.uniform(size=(1, 3))
        sway = 0.04 * np.sin(2 * np.pi * (pace * time[:, None] + start))
        angles[:, CMU.joints.index(name)] += sway
    turns = Rotation.from_euler("ZXY", angles.reshape(-1, 3)[:, [2, 0, 1]]).as_matrix()
    rotations = turns.reshape(frames, -1, 3, 3)
    return joint_positions(rotations, CMU_OFFSETS[None], CMU.parents).astype(np.float32)
