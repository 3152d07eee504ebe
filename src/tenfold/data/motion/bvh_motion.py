"""A body in motion as BVH files have it: a tree of joints, and their channels' values."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from .euler import axis_rotation, euler_angles
from .kinematics import joint_positions, positions_to_rotations, slerp

MAX_FRAMES = 2_000_000
"""Frames after resampling: five hours at 100 a second."""
MAX_VALUES = 2**26
"""Channel values, and coordinates of joints, of a take: half a gigabyte each."""
CHUNK = 4096
"""Frames whose rotations are in memory at a time."""
SAME_RATE = 5e-4
"""Share by which two frame rates that count as one may differ; 29.97 is not 30."""
POSITIONS = ("Xposition", "Yposition", "Zposition")


@dataclass(frozen=True)
class Bvh:
    """One BVH file: a tree of joints (end sites too), and one row of channel values a frame."""

    joints: tuple[str, ...]
    """Joint names in file order; an end site is named after its parent: "Head end"."""
    parents: tuple[int, ...]
    """Parent of each joint; -1 is the root."""
    offsets: Float[np.ndarray, "joints 3"]
    """Offset of each joint from its parent, in the file's unit."""
    channels: tuple[tuple[str, ...], ...]
    """Channels of each joint in file order, such as ("Zrotation", ...); none for end sites."""
    frame_time: float
    """Seconds between two frames."""
    motion: Float[np.ndarray, "frames channels"]
    """Channel values: degrees, and the file's unit of length."""
    encoding: str = "utf-8"
    """Encoding of the names: UTF-8, or Latin-1, which keeps the bytes of any other."""

    @property
    def fps(self) -> float:
        """Frames per second."""
        return 1 / self.frame_time

    @property
    def width(self) -> int:
        """Numbers that a frame takes, as channel values or as positions of joints."""
        return max(self.motion.shape[1], 3 * len(self.joints))

    def order(self, joint: int) -> str:
        """Axes of a joint's rotation channels, the first outermost: "ZXY"."""
        return "".join(name[0] for name in self.channels[joint] if name.endswith("rotation"))

    def moves(self, joint: int) -> bool:
        """True if a joint has all three position channels."""
        return set(POSITIONS) <= set(self.channels[joint])

    def rotations(self, frames: slice = slice(None)) -> Float[np.ndarray, "frames joints 3 3"]:
        """Local rotations (column vectors); channels multiply in file order, first outermost."""
        motion = self.motion[frames]
        result = np.broadcast_to(np.eye(3), (len(motion), len(self.joints), 3, 3)).copy()
        for joint, column, channel in self._columns():
            if channel.endswith("rotation"):
                turn = axis_rotation(channel[0], np.radians(motion[:, column]))
                result[:, joint] = result[:, joint] @ turn
        return result

    def translations(self, frames: slice = slice(None)) -> Float[np.ndarray, "frames joints 3"]:
        """Local positions: offsets, replaced by position channels where a joint has them."""
        motion = self.motion[frames]
        result = np.broadcast_to(self.offsets, (len(motion), *self.offsets.shape)).copy()
        for joint, column, channel in self._columns():
            if channel.endswith("position"):
                result[:, joint, "XYZ".index(channel[0])] = motion[:, column]
        return result

    def bones(self) -> Float[np.ndarray, "joints 3"]:
        """Bone of each joint from its parent: the middle of its local positions over all frames."""
        if not any(name in POSITIONS for own in self.channels for name in own):
            return self.offsets
        every = max(1, len(self.motion) // CHUNK)
        return np.median(self.translations(slice(None, None, every)), axis=0)

    def positions(self, root: int | None = None) -> Float[np.ndarray, "frames joints 3"]:
        """Positions of all joints, in the file's unit.

        Args:
            root: Joint to be put at 0 without rotation, with those that do not hang on it; None
                gives positions in the world.
        """
        if not len(self.motion):
            return np.zeros((0, len(self.joints), 3))
        still = [j for j in range(len(self.joints)) if root is not None and not self.hangs(j, root)]
        parts = []
        for frames in self._chunks(len(self.motion)):
            rotations, translations = self.rotations(frames), self.translations(frames)
            if root is not None:
                rotations[:, [*still, root]], translations[:, [*still, root]] = np.eye(3), 0
            parts.append(joint_positions(rotations, translations, self.parents))
        return np.concatenate(parts)

    def hangs(self, joint: int, root: int) -> bool:
        """True for a joint that is `root` or below it."""
        while joint > root:  # parents come before their children
            joint = self.parents[joint]
        return joint == root

    def with_pose(
        self,
        rotations: Float[np.ndarray, "frames joints 3 3"],
        translations: Float[np.ndarray, "frames joints 3"],
        before: Float[np.ndarray, " channels"] | None = None,
    ) -> Bvh:
        """The same skeleton in other poses; angles are continuous.

        A joint with fewer than three rotation channels turns as far as they can show.

        Args:
            rotations: Local rotations.
            translations: Local positions, which only position channels can show.
            before: Channel values of the frame before the first one, which angles continue.
        """
        motion = np.zeros((len(rotations), self.motion.shape[1]))
        columns = list(self._columns())
        for joint in range(len(self.joints)):
            own = {name: column for j, column, name in columns if j == joint}
            turning = [own[f"{axis}rotation"] for axis in self.order(joint)]
            if turning:
                last = None if before is None else before[turning]
                angles = euler_angles(rotations[:, joint], self.order(joint), last)
                motion[:, turning] = angles
            for axis, value in zip("XYZ", translations[:, joint].T, strict=True):
                if f"{axis}position" in own:
                    motion[:, own[f"{axis}position"]] = value
        return replace(self, motion=motion)

    def with_positions(self, positions: Float[np.ndarray, "frames joints 3"]) -> Bvh:
        """The same skeleton turned towards joint positions, in the file's unit (bones keep length).

        Joints without rotation channels other than end sites cannot follow and stay as they are.
        """
        parts: list[np.ndarray] = []
        for frames in self._chunks(len(positions)):
            here = positions[frames]
            translations = np.broadcast_to(self.offsets, here.shape).copy()
            translations[:, 0] = here[:, 0]
            rotations = positions_to_rotations(here, self.offsets, self.parents)
            before = parts[-1][-1] if parts else None
            parts.append(self.with_pose(rotations, translations, before).motion)
        return replace(self, motion=np.concatenate([self.motion[:0], *parts]))

    def resample(self, fps: float) -> Bvh:
        """The same motion at another frame rate: slerp of rotations, linear translations.

        A rate that differs by rounding alone keeps every frame as it is.
        """
        if not 0 < fps < np.inf:
            raise ValueError(f"fps must be positive and finite, got {fps}. Give frames per second.")
        if abs(fps * self.frame_time - 1) < SAME_RATE:
            return self
        last = len(self.motion) - 1
        made = last * self.frame_time * fps
        if made > MAX_FRAMES or made * self.width > MAX_VALUES:
            raise ValueError(
                f"{len(self.motion)} frames of {self.frame_time:g} s make {made:.3g} at {fps:g} "
                f"frames a second, more than {MAX_FRAMES} frames or {MAX_VALUES} values; cut the "
                "take, or check its frame time"
            )
        at = np.arange(int(made + 1e-6) + 1) / (self.frame_time * fps)
        at = np.minimum(at, last)
        parts: list[np.ndarray] = []
        for frames in self._chunks(len(at)):
            first = int(at[frames][0])
            window = slice(first, min(int(at[frames][-1]) + 2, last + 1))
            here = at[frames] - first
            left = np.clip(here.astype(int), 0, max(window.stop - first - 2, 0))
            share = (here - left)[:, None, None]
            near = self.translations(window)
            moved = near[left] * (1 - share)
            moved += near[np.minimum(left + 1, len(near) - 1)] * share
            before = parts[-1][-1] if parts else self.motion[0]
            turned = slerp(self.rotations(window), here)
            parts.append(self.with_pose(turned, moved, before).motion)
        return replace(self, frame_time=1 / fps, motion=np.concatenate(parts))

    def _columns(self) -> list[tuple[int, int, str]]:
        """(joint, column, channel) of every motion column."""
        pairs = [(joint, name) for joint, own in enumerate(self.channels) for name in own]
        return [(joint, column, name) for column, (joint, name) in enumerate(pairs)]

    @staticmethod
    def _chunks(frames: int) -> list[slice]:
        """Slices of as many frames as are worked on at a time."""
        return [slice(i, min(i + CHUNK, frames)) for i in range(0, frames, CHUNK)]
