"""BVH motion files: read, write, resample, and folders of them as motion clips.

Our own parser, because the one maintained package (pybvh 0.9, a single author, interface still
being renamed) is about 700 kB of code for a grammar of seven words, and our errors name file and
line and hold hostile files to stated limits.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from tenfold.files import write_text

from .clips import Clip, check_frames, check_names, check_table
from .kinematics import joint_positions, positions_to_rotations, slerp
from .skeleton import Skeleton, derive_parts

MAX_BYTES = 2**29
MAX_JOINTS = 500
MAX_FRAME_TIME = 1.0
"""Seconds; who writes more means milliseconds, or nothing."""
MAX_FRAMES = 2_000_000
"""Frames after resampling: five hours at 100 a second."""
CHANNELS = tuple(f"{axis}{kind}" for kind in ("position", "rotation") for axis in "XYZ")


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

    @property
    def fps(self) -> float:
        """Frames per second."""
        return 1 / self.frame_time

    def rotations(self) -> Float[np.ndarray, "frames joints 3 3"]:
        """Local rotations (column vectors); channels multiply in file order, first outermost."""
        result = np.broadcast_to(np.eye(3), (len(self.motion), len(self.joints), 3, 3)).copy()
        for joint, column, channel in self._columns():
            if channel.endswith("rotation"):
                turn = _axis_rotation(channel[0], np.radians(self.motion[:, column]))
                result[:, joint] = result[:, joint] @ turn
        return result

    def translations(self) -> Float[np.ndarray, "frames joints 3"]:
        """Local positions: offsets, replaced by position channels where a joint has them."""
        result = np.broadcast_to(self.offsets, (len(self.motion), *self.offsets.shape)).copy()
        for joint, column, channel in self._columns():
            if channel.endswith("position"):
                result[:, joint, "XYZ".index(channel[0])] = self.motion[:, column]
        return result

    def positions(self, drop_root: bool = False) -> Float[np.ndarray, "frames joints 3"]:
        """Positions of all joints; ``drop_root`` puts the root at 0 without rotation."""
        rotations, translations = self.rotations(), self.translations()
        if drop_root:
            rotations[:, 0], translations[:, 0] = np.eye(3), 0
        return joint_positions(rotations, translations, self.parents)

    def with_pose(
        self,
        rotations: Float[np.ndarray, "frames joints 3 3"],
        translations: Float[np.ndarray, "frames joints 3"],
    ) -> Bvh:
        """The same skeleton in other poses; a joint that turns needs three rotation channels."""
        motion = np.zeros((len(rotations), self.motion.shape[1]))
        columns = list(self._columns())
        for joint, channels in enumerate(self.channels):
            order = "".join(name[0] for name in channels if name.endswith("rotation"))
            own = {name: column for j, column, name in columns if j == joint}
            if order:
                if sorted(order) != ["X", "Y", "Z"]:
                    raise ValueError(
                        f"joint {self.joints[joint]!r} has rotation channels {order}; poses can "
                        "only be written to X, Y and Z in some order. Use another skeleton file."
                    )
                euler = Rotation.from_matrix(rotations[:, joint]).as_euler(order, degrees=True)
                for axis, angle in zip(order, euler.T, strict=True):
                    motion[:, own[f"{axis}rotation"]] = angle
            for axis, value in zip("XYZ", translations[:, joint].T, strict=True):
                if f"{axis}position" in own:
                    motion[:, own[f"{axis}position"]] = value
        return replace(self, motion=motion)

    def with_positions(self, positions: Float[np.ndarray, "frames joints 3"]) -> Bvh:
        """The same skeleton turned towards joint positions, in the file's unit (bones keep length).

        Joints without rotation channels other than end sites cannot follow and stay as they are.
        """
        translations = np.broadcast_to(self.offsets, positions.shape).copy()
        translations[:, 0] = positions[:, 0]
        rotations = positions_to_rotations(positions, self.offsets, self.parents)
        return self.with_pose(rotations, translations)

    def resample(self, fps: float) -> Bvh:
        """The same motion at another frame rate: slerp of rotations, linear translations."""
        if not 0 < fps < np.inf:
            raise ValueError(f"fps must be positive and finite, got {fps}. Give frames per second.")
        last = len(self.motion) - 1
        made = last * self.frame_time * fps
        if made > MAX_FRAMES:
            raise ValueError(
                f"{len(self.motion)} frames of {self.frame_time:g} s make {made:.3g} at {fps:g} "
                f"frames a second, more than {MAX_FRAMES}; cut the take, or check its frame time"
            )
        at = np.arange(int(last * self.frame_time * fps + 1e-6) + 1) / (self.frame_time * fps)
        at = np.minimum(at, last)
        left = np.clip(np.floor(at).astype(int), 0, max(last - 1, 0))
        share = (at - left)[:, None, None]
        near = self.translations()
        moved = near[left] * (1 - share) + near[np.minimum(left + 1, last)] * share
        return replace(self.with_pose(slerp(self.rotations(), at), moved), frame_time=1 / fps)

    def _columns(self) -> list[tuple[int, int, str]]:
        """(joint, column, channel) of every motion column."""
        pairs = [(joint, name) for joint, own in enumerate(self.channels) for name in own]
        return [(joint, column, name) for column, (joint, name) in enumerate(pairs)]


def read_bvh(path: Path) -> Bvh:
    """Read a BVH file; any rotation order and any channels a joint; errors name file and line."""
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(
            f"{path} has {path.stat().st_size} bytes, more than the {MAX_BYTES} that a BVH file "
            "may have. Cut it into shorter takes."
        )
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    tree, used = _read_tree(path, lines)
    return _read_motion(path, tree, lines, used)


def _read_tree(path: Path, lines: list[str]) -> tuple[Bvh, int]:
    """The skeleton of a file, without motion, and how many lines it took."""
    joints: list[str] = []
    parents: list[int] = []
    offsets: list[list[float]] = []
    channels: list[tuple[str, ...]] = []
    inside: list[int] = []
    for number, line in enumerate(lines, 1):
        match line.split():
            case [] | ["HIERARCHY"] | ["{"]:
                pass
            case [("ROOT" | "JOINT" | "End") as kind, *name]:
                if (kind == "ROOT") != (not joints) or (joints and not inside):
                    raise _bad(path, number, f"{kind} outside the tree; one ROOT holds all joints")
                parent = inside[-1] if inside else -1
                joints.append(f"{joints[parent]} end" if kind == "End" else " ".join(name))
                parents.append(parent)
                offsets.append([0.0, 0.0, 0.0])
                channels.append(())
                inside.append(len(joints) - 1)
                if len(joints) > MAX_JOINTS:
                    raise _bad(path, number, f"more than {MAX_JOINTS} joints")
            case ["OFFSET", *three] if inside:
                if len(three) != 3:
                    raise _bad(path, number, f"OFFSET has {len(three)} values, expected 3")
                offsets[inside[-1]] = _numbers(path, number, three)
            case ["CHANNELS", count, *names] if inside:
                unknown = set(names) - set(CHANNELS)
                if count != str(len(names)) or unknown or len(set(names)) < len(names):
                    wrong = f"CHANNELS {count} {' '.join(names)}"
                    raise _bad(path, number, f"{wrong} does not count and name {CHANNELS} once")
                channels[inside[-1]] = tuple(names)
            case ["}"] if inside:
                inside.pop()
            case ["MOTION"] if joints and not inside:
                tree = tuple(joints), tuple(parents), np.array(offsets), tuple(channels)
                return Bvh(*tree, 1.0, np.zeros((0, sum(map(len, channels))))), number
            case _:
                raise _bad(path, number, f"unexpected {line.strip()[:60]!r}")
    raise _bad(path, len(lines), "the file ends before MOTION; it seems cut off")


def _read_motion(path: Path, tree: Bvh, lines: list[str], used: int) -> Bvh:
    """The skeleton with the frames that follow the first ``used`` lines of a file."""
    rest = [
        (number, line) for number, line in enumerate(lines, 1) if number > used and line.strip()
    ]
    if len(rest) < 3:
        raise _bad(path, len(lines), "the file ends within MOTION; it seems cut off")
    settings = []
    for name, (number, line) in zip(("Frames", "Frame Time"), rest, strict=False):
        key, _, value = line.partition(":")
        if key.strip() != name:
            raise _bad(path, number, f"expected {name!r}, got {line.strip()[:60]!r}")
        settings.append(_numbers(path, number, [value])[0])
    if not 0 < settings[1] <= MAX_FRAME_TIME:
        wrong = f"frame time must be positive and at most {MAX_FRAME_TIME:g} second, got "
        raise _bad(path, rest[1][0], f"{wrong}{settings[1]:g}")
    rows: list[list[float]] = []
    for number, line in rest[2:]:
        row = _numbers(path, number, line.split())
        if len(row) != tree.motion.shape[1]:
            wrong = f"frame {len(rows)} has {len(row)} values, expected {tree.motion.shape[1]}"
            raise _bad(path, number, wrong)
        rows.append(row)
    if len(rows) != settings[0]:
        wrong = f"{len(rows)} frames, but the header says {settings[0]:.0f}; it seems cut off"
        raise _bad(path, len(lines), wrong)
    return replace(tree, frame_time=settings[1], motion=np.array(rows))


def _numbers(path: Path, number: int, words: Sequence[str]) -> list[float]:
    """Finite numbers of a line."""
    try:
        values = [float(word) for word in words]
    except ValueError as error:
        raise _bad(path, number, str(error)) from None
    if not all(map(math.isfinite, values)):
        raise _bad(path, number, f"{len(values)} values, not all finite")
    return values


def _bad(path: Path, number: int, message: str) -> ValueError:
    return ValueError(f"{path} line {number}: {message}. Repair or export it again.")


def write_bvh(path: Path, bvh: Bvh) -> None:
    """Write a BVH file: first under a temporary name, then renamed, so no half file is seen."""
    check_table(bvh.motion, sum(map(len, bvh.channels)), f"motion for {path}")
    lines = ["HIERARCHY"]

    def joint_lines(joint: int, indent: str) -> None:
        children = [c for c, parent in enumerate(bvh.parents) if parent == joint]
        is_end = not children and not bvh.channels[joint]
        kind = "ROOT" if bvh.parents[joint] < 0 else "JOINT"
        lines.append(indent + ("End Site" if is_end else f"{kind} {bvh.joints[joint]}"))
        lines.append(indent + "{")
        lines.append(f"{indent}\tOFFSET {' '.join(map(repr, bvh.offsets[joint].tolist()))}")
        if not is_end:
            own = bvh.channels[joint]
            lines.append(f"{indent}\tCHANNELS {' '.join([str(len(own)), *own])}")
        for child in children:
            joint_lines(child, indent + "\t")
        lines.append(indent + "}")

    joint_lines(0, "")
    lines += ["MOTION", f"Frames: {len(bvh.motion)}", f"Frame Time: {bvh.frame_time!r}"]
    lines += [" ".join(f"{value:.9g}" for value in row) for row in bvh.motion]
    write_text(path, "\n".join(lines) + "\n")


def read(
    path: Path, split: str, length: int = 0, fps: float = 0.0, mm_per_unit: float = 10.0
) -> list[Clip]:
    """Clips of a split ("train" or "test") of a folder of BVH files of one skeleton, root dropped.

    Splits are the subfolders train and test, else the last fifth of the files is the test, or of
    the frames of a single file. The action is the subfolder's name, or the file name without its
    number. ``fps`` resamples (0 keeps the rate); ``mm_per_unit`` scales the file's unit of length
    (10: centimetres, the common case; the CMU conversion: 56.4). (ours)
    """
    check_names([split], ("train", "test"), "split", "bvh")
    clips = []
    first = _first(path)
    base = read_bvh(first)
    for file, share in _files(path, split):
        bvh = base if file == first else read_bvh(file)
        _check_same(bvh, file, base, first)
        bvh = bvh.resample(fps) if fps else bvh
        positions = bvh.positions(drop_root=True) * mm_per_unit
        if share:
            cut = len(positions) - len(positions) // 5
            positions = positions[:cut] if split == "train" else positions[cut:]
        check_frames(len(positions), length, str(file))
        is_named = file.parent not in (path, path / split, path.parent)
        stem = re.sub(r"[\W_]*\d+$", "", file.stem) or file.stem
        action = file.parent.name if is_named else stem
        name = f"{split}/{action}/{file.stem}"
        clips.append(Clip(name, action, positions.astype(np.float32), bvh.fps))
    rates = {round(clip.fps, 2) for clip in clips}
    if len(rates) > 1:
        raise ValueError(
            f"the files under {path} have different frame rates: {sorted(rates)}. Name one rate to "
            "resample all of them to."
        )
    return clips


def read_skeleton(path: Path, mm_per_unit: float = 10.0) -> Skeleton:
    """The skeleton of a BVH file, or of the first file of a folder, with derived body parts."""
    bvh = read_bvh(_first(path))
    offsets = bvh.offsets * mm_per_unit
    parts = derive_parts(
        bvh.joints, bvh.parents, offsets, bvh.positions(drop_root=True) * mm_per_unit
    )
    return Skeleton("bvh", bvh.joints, bvh.parents, *parts, fps=bvh.fps, label_fps=bvh.fps)


def _first(path: Path) -> Path:
    """The file whose skeleton counts: the first of the training files."""
    return _files(path, "train")[0][0]


def _files(path: Path, split: str) -> list[tuple[Path, bool]]:
    """Files of a split, and whether the one file is shared between both splits."""
    if path.is_file():
        return [(path, True)]
    has_splits = (path / "train").is_dir() or (path / "test").is_dir()
    files = sorted((path / split if has_splits else path).rglob("*.bvh"))
    if not files:
        raise ValueError(
            f"{path} holds no .bvh file for the split {split!r}. Set data.path to a BVH file or a "
            "folder of them."
        )
    if has_splits or len(files) == 1:
        return [(file, not has_splits) for file in files]
    cut = len(files) - max(len(files) // 5, 1)
    return [(file, False) for file in (files[:cut] if split == "train" else files[cut:])]


def _check_same(bvh: Bvh, file: Path, base: Bvh, first: Path) -> None:
    """Refuse a file whose tree or bones differ from the first one's."""
    ours = list(zip(bvh.joints, bvh.parents, strict=True))
    theirs = list(zip(base.joints, base.parents, strict=True))
    if ours != theirs:
        same = [a == b for a, b in zip(ours, theirs, strict=False)]
        where = same.index(False) if False in same else len(same)
        joint = ours[where][0] if where < len(ours) else theirs[where][0]
        raise ValueError(
            f"{file} has another skeleton than {first}: {len(ours)} joints against {len(theirs)}, "
            f"first difference at joint {joint!r}. Keep files of one skeleton in a folder."
        )
    if not np.allclose(bvh.offsets, base.offsets, atol=1e-3 * np.abs(base.offsets).max()):
        joint = bvh.joints[int(np.abs(bvh.offsets - base.offsets).max(axis=1).argmax())]
        raise ValueError(
            f"{file} has other bone lengths than {first}, most at joint {joint!r}. Keep files of "
            "one skeleton in a folder, or retarget them first."
        )


def _axis_rotation(
    axis: str, angle: Float[np.ndarray, " frames"]
) -> Float[np.ndarray, "frames 3 3"]:
    """Rotation about X, Y or Z by angles in radians (column vectors)."""
    i, j = {"X": (1, 2), "Y": (2, 0), "Z": (0, 1)}[axis]
    result = np.broadcast_to(np.eye(3), (len(angle), 3, 3)).copy()
    result[:, i, i] = result[:, j, j] = np.cos(angle)
    result[:, j, i] = np.sin(angle)
    result[:, i, j] = -result[:, j, i]
    return result
