"""Motions of users: files to predict from, read into the units and the frame rate of a run."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float

from tenfold.core import dist
from tenfold.data.io.npz import read_npz
from tenfold.data.motion.bodies import bone_lengths, fitted, height_mm, is_likely, matched
from tenfold.data.motion.bvh import read_bvh
from tenfold.data.motion.bvh_folder import files_below
from tenfold.data.motion.bvh_motion import Bvh
from tenfold.data.motion.clips import check_table, read_table
from tenfold.data.motion.kinematics import forward_kinematics, joint_positions
from tenfold.data.motion.skeleton import CMU_OFFSETS, H36M_OFFSETS, Skeleton

from .config import Config

OFFSETS = {"cmu_mocap": CMU_OFFSETS, "walker": CMU_OFFSETS, "h36m": H36M_OFFSETS}
MAX_NPZ_BYTES = 2**29
"""Of an npz file, and of what it unpacks to."""
SIZES = (0.4, 2.5)
"""Sizes of a body in an npz, as shares of the trained body, which are no mistake of the unit."""
AT_ROOT = 0.05
"""Distance of the root from the origin that an npz may have, as a share of all bones' length."""


@dataclass(frozen=True)
class Take:
    """A motion to predict from, in the units and at the frame rate of the run."""

    positions: Float[np.ndarray, "frames joints 3"]
    """Of the run's joints, in mm, the root of the body at 0 without rotation."""
    bvh: Bvh | None
    """The file it is from, or a skeleton in the same poses; None if bones are unknown."""
    joints: list[int] = field(default_factory=list)
    """The BVH's joint for each of the run's; -1 for one above the body."""
    is_placed: bool = False
    """The BVH says where the body was in the world."""


def motion_files(folder: Path, out: Path) -> list[Path]:
    """Files of the folder and of those in it, by path; hidden ones, and those in `out`, not.

    Folders in it that may not be looked into, and links to folders elsewhere, stand in their files'
    place. Raises ValueError if there are none.
    """
    if out.resolve() == folder.resolve():
        raise ValueError(
            f"predictions cannot be written to {out}, where the motions are: they would be taken "
            "for motions the next time. Give another folder with --out."
        )
    away = out.absolute()
    unread: list[Path] = []
    found = sorted([*files_below(folder, READERS, unread), *unread])
    files = [file for file in found if not file.absolute().is_relative_to(away)]
    if not files:
        raise ValueError(
            f"{folder} holds no motion ({' '.join(READERS)}), nor do the folders in it."
        )
    return dist.current().gather_objects(files)[0]  # all divide the same list


def check_inside(file: Path, folder: Path) -> None:
    """Raise ValueError for a link that leads out of the folder."""
    try:
        place = file.resolve()
    except RuntimeError:  # a link to itself leads nowhere, which its reader says
        return
    if not place.is_relative_to(folder.resolve()):
        raise ValueError(f"{file} leads out of {folder}; copy it there instead of linking to it")


def read_take(file: Path, cfg: Config) -> Take:
    """Read a clip for prediction: .bvh, .npz (positions or expmap), .txt of a benchmark.

    Raises ValueError if its skeleton is not the run's, or a frame is not finite.
    """
    reader = READERS.get(file.suffix.lower())
    if reader is None:
        raise ValueError(
            f"{file} is of no kind that can be predicted from; give {', '.join(READERS)}"
        )
    take = reader(file, cfg)
    if len(take.positions) < cfg.data.past:
        raise ValueError(
            f"{file} has {len(take.positions)} frames at the run's {cfg.skeleton.fps:g} frames a "
            f"second, but {cfg.data.past} are observed; give a longer clip"
        )
    return take


def _read_bvh(file: Path, cfg: Config) -> Take:
    skeleton = cfg.skeleton
    bvh = read_bvh(file)
    if skeleton.name in OFFSETS and bvh.parents == skeleton.parents:
        joints = list(range(len(bvh.parents)))  # conversions of the benchmark name them otherwise
    else:
        try:
            joints = matched(bvh, skeleton, file)
        except ValueError as error:
            raise ValueError(
                f"{error}; this run knows {skeleton.name!r}. Train on motions like yours: tenfold "
                f"train spgsn small --data.name bvh --data.path {file.parent}"
            ) from None
    bvh = bvh.resample(skeleton.fps)
    body = skeleton
    tall = height_mm(bvh, cfg.data.mm_per_unit)
    if skeleton.name not in OFFSETS and not skeleton.bones and not is_likely(tall):
        warnings.warn(
            f"{file} holds a body of {tall:.4g} mm at data.mm_per_unit of this run, which does "
            "not know its body's size, as those trained before it was kept; train again to have "
            "bodies scaled",
            stacklevel=2,
        )
    if skeleton.name in OFFSETS:
        lengths = bone_lengths(_rest(skeleton)[None], skeleton.parents)
        body = replace(skeleton, bones=tuple(lengths.tolist()))
    return Take(fitted(bvh, body, joints, cfg.data.mm_per_unit, file), bvh, joints, True)


def _rest(skeleton: Skeleton) -> Float[np.ndarray, "joints 3"]:
    """Positions of a published skeleton at rest, in mm."""
    still = np.broadcast_to(np.eye(3), (1, len(skeleton.parents), 3, 3))
    return joint_positions(still, OFFSETS[skeleton.name][None], skeleton.parents)[0]


def _read_npz(file: Path, cfg: Config) -> Take:
    if file.stat().st_size > MAX_NPZ_BYTES:
        raise ValueError(f"{file} is larger than {MAX_NPZ_BYTES} bytes; cut the clip")
    held, names = read_npz(file, ("positions", "expmap"), MAX_NPZ_BYTES)
    joints = len(cfg.skeleton.joints)
    if "expmap" in held:
        return _from_expmap(held["expmap"], cfg.skeleton, str(file))
    if "positions" not in held:
        raise ValueError(
            f"{file} holds {names}; expected positions (frames, {joints}, 3) in mm at the run's "
            f"frame rate, or expmap (frames, {3 + 3 * joints})"
        )
    positions = held["positions"]
    if positions.ndim != 3 or positions.shape[1:] != (joints, 3):
        raise ValueError(
            f"{file}: positions have shape {positions.shape}, expected (frames, {joints}, 3)"
        )
    check_table(positions.reshape(len(positions), 3 * joints), 3 * joints, str(file))
    _check_body(positions.astype(np.float64), cfg.skeleton, file)
    return _posed(positions.astype(np.float32), cfg.skeleton)


def _check_body(
    positions: Float[np.ndarray, "frames joints 3"], skeleton: Skeleton, file: Path
) -> None:
    """Refuse positions in another unit than mm, or not seen from the hips."""
    wanted = np.array(skeleton.bones)
    if skeleton.name in OFFSETS:
        wanted = bone_lengths(_rest(skeleton)[None], skeleton.parents)
    if not len(wanted) or not len(positions):
        return
    total = float(wanted.sum())
    far = np.abs(positions).max((1, 2))
    size = float(bone_lengths(positions, skeleton.parents).sum()) / total
    if not SIZES[0] <= size <= SIZES[1]:
        raise ValueError(
            f"{file}: all bones together are {size * total:.4g} mm long, {size:.3g} times those of "
            f"the trained body; at least {SIZES[0]} and at most {SIZES[1]} times are expected. "
            "Give positions in mm (times 1000 from metres, 10 from centimetres)"
        )
    off = np.linalg.norm(positions[:, skeleton.root], axis=1)
    if off.max(initial=0) > AT_ROOT * total:
        frame = int(off.argmax())
        raise ValueError(
            f"{file}: in frame {frame} the root {skeleton.joints[skeleton.root]!r} is "
            f"{off[frame]:.4g} mm from the origin, at most {AT_ROOT * total:.4g} are expected. "
            "Give positions seen from the hips, which have no place and no rotation; or a BVH"
        )
    if far.max() > total:
        raise ValueError(
            f"{file}: in frame {int(far.argmax())} a joint is {far.max():.4g} mm from the hips, "
            f"but all bones together have {total:.4g}. Repair or remove the frame"
        )


def _read_text(file: Path, cfg: Config) -> Take:
    columns = 3 + 3 * len(cfg.skeleton.joints)
    # every second frame, as the benchmark's readers take them
    return _from_expmap(read_table(file, columns)[::2], cfg.skeleton, str(file))


def _from_expmap(expmap: np.ndarray, skeleton: Skeleton, source: str) -> Take:
    if skeleton.name not in OFFSETS:
        raise ValueError(
            f"{source} holds exponential maps, but the bones of {skeleton.name!r} are unknown"
        )
    check_table(expmap, 3 + 3 * len(skeleton.joints), source)
    positions = forward_kinematics(expmap, OFFSETS[skeleton.name], skeleton.parents)
    return _posed(positions.astype(np.float32), skeleton)


def _posed(positions: Float[np.ndarray, "frames joints 3"], skeleton: Skeleton) -> Take:
    """A take from positions alone: its BVH is the published skeleton, turned like them."""
    blank = blank_bvh(skeleton)
    joints = list(range(len(skeleton.joints)))
    return Take(positions, blank and blank.with_positions(positions.astype(float)), joints)


def blank_bvh(skeleton: Skeleton) -> Bvh | None:
    """A BVH of a published skeleton in its own units, to write predictions in."""
    if skeleton.name not in OFFSETS:
        return None
    inner = {p for p in skeleton.parents if p >= 0}
    turning = ("Zrotation", "Xrotation", "Yrotation")
    moving = ("Xposition", "Yposition", "Zposition")
    channels = tuple(
        (*moving, *turning) if p < 0 else turning if j in inner else ()
        for j, p in enumerate(skeleton.parents)
    )
    count = sum(len(c) for c in channels)
    offsets = np.array(OFFSETS[skeleton.name])
    still = np.zeros((1, count))
    return Bvh(skeleton.joints, skeleton.parents, offsets, channels, 1 / skeleton.fps, still)


READERS: dict[str, Callable[[Path, Config], Take]] = {
    ".bvh": _read_bvh,
    ".npz": _read_npz,
    ".txt": _read_text,
}
"""Ending of a file -> how it is read."""
