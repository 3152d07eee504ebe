"""Motions of users: files to predict from, read into the units and the frame rate of a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from tenfold.core import dist
from tenfold.data.io.npz import read_npz
from tenfold.data.motion.bvh import Bvh, read_bvh
from tenfold.data.motion.clips import check_table, read_table
from tenfold.data.motion.kinematics import forward_kinematics
from tenfold.data.motion.skeleton import CMU_OFFSETS, H36M_OFFSETS, Skeleton

from .config import Config

OFFSETS = {"cmu_mocap": CMU_OFFSETS, "walker": CMU_OFFSETS, "h36m": H36M_OFFSETS}
MAX_NPZ_BYTES = 2**29
"""Of an npz file, and of what it unpacks to."""


@dataclass(frozen=True)
class Take:
    """A motion to predict from, in the units and at the frame rate of the run."""

    positions: Float[np.ndarray, "frames joints 3"]
    bvh: Bvh | None
    """The file it is from, or a skeleton in which to write; None if bones are unknown."""
    unit: float
    """Units of the run in one unit of length of the BVH."""


def motion_files(folder: Path, out: Path) -> list[Path]:
    """Files of the folder and of those in it, by path; hidden ones, and those in `out`, not.

    Raises ValueError if there are none.
    """
    if out.resolve() == folder.resolve():
        raise ValueError(
            f"predictions cannot be written to {out}, where the motions are: they would be taken "
            "for motions the next time. Give another folder with --out."
        )
    files = [
        file
        for file in sorted(folder.rglob("*"))
        if file.suffix.lower() in READERS
        and not any(part.startswith(".") for part in file.relative_to(folder).parts)
        and not file.absolute().is_relative_to(out.absolute())
        and file.is_file()
    ]
    if not files:
        raise ValueError(
            f"{folder} holds no motion ({' '.join(READERS)}), nor do the folders in it."
        )
    return dist.current().gather_objects(files)[0]  # all divide the same list


def check_inside(file: Path, folder: Path) -> None:
    """Raise ValueError for a link that leads out of the folder."""
    if not file.resolve().is_relative_to(folder.resolve()):
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
    if bvh.parents != skeleton.parents:
        raise ValueError(
            f"{file} has a skeleton of {len(bvh.joints)} joints, the run was trained on "
            f"{skeleton.name!r} with {len(skeleton.joints)} in another tree; train on motions like "
            f"yours: tenfold train spgsn small --data.name bvh --data.path {file.parent}"
        )
    bvh = bvh.resample(skeleton.fps)
    unit = cfg.data.mm_per_unit
    if skeleton.name in OFFSETS:  # bodies differ in size: bring bones to the training body's
        unit = _bones(OFFSETS[skeleton.name]) / _bones(bvh.offsets)
    positions = bvh.positions(drop_root=True) * unit
    return Take(positions.astype(np.float32), bvh, unit)


def _bones(offsets: Float[np.ndarray, "joints 3"]) -> float:
    """Total length of all bones; the root's offset is no bone."""
    return float(np.linalg.norm(offsets[1:], axis=1).sum())


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
    return Take(positions.astype(np.float32), blank_bvh(cfg.skeleton), 1.0)


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
    return Take(positions.astype(np.float32), blank_bvh(skeleton), 1.0)


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
