"""Check of a folder of BVH files: whether all of them can be trained on together."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path

import numpy as np
from jaxtyping import Float

from ..io.problems import Problems, some
from .bodies import fitted, height_mm, is_likely, matched, skeleton_of
from .bvh import read_bvh
from .bvh_folder import split_files
from .bvh_motion import SAME_RATE, Bvh
from .skeleton import Skeleton

USUAL_UNIT = 10.0
"""Millimetres in a unit of length, where nothing else is said (`data.mm_per_unit`)."""
UNITS = {"metres": 1000.0, "inches": 25.4, "centimetres": 10.0, "millimetres": 1.0}
SUDDEN_MM, SUDDEN_TIMES = 200.0, 10.0
"""A step of a joint between frames that is this long, and so many times the usual one, is named."""
SHORT = 35
"""Frames that a window has by default (`data.past` + `data.future`)."""


def check_bvh(f: Problems) -> None:
    """BVH files of one skeleton, whatever the size of the body; splits train and test, or none."""
    files: dict[Path, bool] = {}
    for split in ("train", "test"):
        try:
            files |= dict(split_files(f.folder, split))
        except ValueError as error:
            f.problem(f.folder, str(error))
    first: Skeleton | None = None
    rates: dict[str, list[str]] = {}
    seen: dict[str, str] = {}
    for file in f.sample(list(files)):
        f.seen()
        bvh = _read(f, file)
        if bvh is None:
            continue
        try:
            if first is None:
                first = skeleton_of(bvh, _unit(f, file, bvh))
                f.note(
                    f"{f.name(file)}: {len(bvh.joints)} joints, of which {len(first.used)} move; "
                    f"the body begins at {bvh.joints[first.root]!r}"
                )
            own = matched(bvh, first, file)
            positions = fitted(bvh, first, own, USUAL_UNIT, file)
        except ValueError as error:
            f.problem(file, str(error))
            continue
        rates.setdefault(f"{bvh.fps:.6g}", []).append(f.name(file))
        _look(f, file, positions, files[file])
        digest = hashlib.blake2b(bvh.motion.tobytes(), digest_size=16).hexdigest()
        if digest in seen:
            f.problem(file, f"holds the same frames as {seen[digest]}")
        seen.setdefault(digest, f.name(file))
    _rates(f, rates)


def _read(f: Problems, file: Path) -> Bvh | None:
    """The file, with what it warns of as notes; or None with a problem."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            bvh = read_bvh(file)
        except (ValueError, OSError) as error:
            f.problem(file, str(error))
            return None
    for one in said:
        f.note(str(one.message).replace(f"{f.folder}/", ""))
    return bvh


def _unit(f: Problems, file: Path, bvh: Bvh) -> float:
    """Millimetres in the file's unit of length, as the height of the body says."""
    if is_likely(height_mm(bvh, USUAL_UNIT)):
        return USUAL_UNIT
    likely = [n for n, mm in UNITS.items() if is_likely(height_mm(bvh, mm))]
    name = likely[0] if likely else ""
    hint = f"; in {name}, --data.mm-per-unit {UNITS[name]:g}" if name else ""
    f.note(
        f"{f.name(file)}: a body of {height_mm(bvh, 1.0):.4g} units, which is no human's height in "
        f"centimetres{hint}"
    )
    return UNITS[name] if name else USUAL_UNIT


def _look(
    f: Problems, file: Path, positions: Float[np.ndarray, "frames joints 3"], is_shared: bool
) -> None:
    """Frames of one file that a person would wonder about; a shared one holds both splits."""
    if len(positions) < SHORT:
        f.note(f"{f.name(file)}: {len(positions)} frames; windows have {SHORT} by default")
    elif is_shared and len(positions) // 5 < SHORT:
        f.note(
            f"{f.name(file)}: the one file, of whose {len(positions)} frames the last fifth is the "
            f"test, {len(positions) // 5}; windows have {SHORT} by default"
        )
    if len(positions) < 2:
        return
    steps = np.linalg.norm(np.diff(positions, axis=0), axis=-1).max(1)
    if not steps.max() > 0:
        f.note(f"{f.name(file)}: nothing moves but the whole body")
    usual = max(float(np.median(steps)), 1e-9)
    sudden = np.flatnonzero((steps > SUDDEN_MM) & (steps > SUDDEN_TIMES * usual)) + 1
    if len(sudden):
        where = some(sudden.tolist())
        f.note(f"{f.name(file)}: the pose jumps at frame {where} (a T-pose, or a cut?)")


def _rates(f: Problems, rates: dict[str, list[str]]) -> None:
    """Rates that differ: training on them asks for one."""
    known = sorted(map(float, rates))
    if len(known) > 1 and known[-1] / known[0] - 1 >= SAME_RATE:
        listed = "; ".join(f"{rate}: {some(files, 3)}" for rate, files in rates.items())
        f.note(f"frame rates differ, training asks for --data.fps ({listed})")
