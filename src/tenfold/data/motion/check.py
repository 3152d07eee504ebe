"""Checks of motion capture sets: CMU (npz or text tree), Human3.6M, 3DPW."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..io.pickles import load_arrays
from ..io.problems import BROKEN, Problems, some
from . import cmu_files

Frames = np.ndarray

ZERO_COLUMNS = tuple(
    column
    for first, last in (
        (6, 8), (14, 14), (20, 26), (32, 32), (38, 41), (60, 65), (69, 69), (73, 74), (78, 79),
        (81, 83), (87, 92), (96, 96), (100, 101), (105, 106), (108, 110), (114, 116),
    )
    for column in range(first, last + 1)
)  # fmt: skip
"""Columns of a CMU frame that are below 1e-5 in every published file (measured on 96 files)."""

WALKING_EXTRA = {
    "train": range(13, 53),
    "test": range(6, 24),
}
"""Numbers of the files in the `walking_extra` folders (in the repository, used by no paper)."""


def check_cmu_mocap(f: Problems) -> None:
    """benchmark.npz and walking_extra.npz, or the text tree, or both."""
    expected = {key: frames for key, (_, frames) in cmu_files.FILES.items()}
    is_npz = (f.folder / "benchmark.npz").exists()
    is_tree = any((f.folder / split).is_dir() for split in ("train", "test"))
    if not is_npz and not is_tree:
        f.problem(f.folder, "holds neither benchmark.npz nor the folders train and test")
    if is_npz:
        arrays = f.npz(f.folder / "benchmark.npz")
        if arrays is not None:
            _cmu_arrays(f, f.folder / "benchmark.npz", arrays, expected)
    if (f.folder / "walking_extra.npz").exists():
        arrays = f.npz(f.folder / "walking_extra.npz")
        if arrays is not None:
            extra = {
                f"{split}/walking_extra/walking_{i}": 0
                for split, numbers in WALKING_EXTRA.items()
                for i in numbers
            }
            _cmu_arrays(f, f.folder / "walking_extra.npz", arrays, extra)
    if is_tree:
        _cmu_tree(f, expected)


def _cmu_arrays(f: Problems, file: Path, arrays: dict[str, Frames], known: dict[str, int]) -> None:
    for key in f.sample(sorted(arrays)):
        f.seen()
        if key not in known:
            f.note(f"{file.name}: {key} is not one of the published files")
        _cmu_frames(f, f"{file.name}: {key}", arrays[key], known.get(key, 0))
        if arrays[key].dtype != np.float32:
            f.problem(f"{file.name}: {key}", f"is {arrays[key].dtype}, expected float32")
    _missing(f, file.name, sorted(set(known) - set(arrays)), known)


def _cmu_tree(f: Problems, known: dict[str, int]) -> None:
    found = {
        str(file.relative_to(f.folder).with_suffix("").as_posix()): file
        for split in ("train", "test")
        for file in sorted((f.folder / split).glob("[!.]*/[!.]*.txt"))
    }
    for key in f.sample(sorted(found)):
        frames = _text_frames(f, found[key])
        if frames is not None:
            _cmu_frames(f, found[key], frames, known.get(key, 0))
        if key not in known and "/walking_extra/" not in key:
            f.note(f"{key}.txt is not one of the published files")
    _missing(f, "text tree", sorted(set(known) - set(found)), known)


def _missing(f: Problems, where: str, missing: list[str], known: dict[str, int]) -> None:
    """Files of the benchmark that are not there: a note, for the copy at hand lacks ten."""
    if missing:
        f.note(
            f"{where}: {len(missing)} of {len(known)} published files are absent: "
            f"{some(missing, 10)}. `tenfold data get cmu_mocap OUT` fetches the benchmark."
        )


def _text_frames(f: Problems, file: Path) -> Frames | None:
    f.seen()
    try:
        return np.loadtxt(file, delimiter=",", dtype=np.float32, ndmin=2)
    except BROKEN as error:
        f.problem(file, f"cannot be read as comma-separated numbers: {error}")
        return None


def _finite(f: Problems, file: Path | str, frames: Frames, columns: int) -> bool:
    if frames.ndim != 2 or frames.shape[1] != columns or len(frames) == 0:
        f.problem(file, f"has shape {frames.shape}, expected (frames, {columns})")
        return False
    bad = np.flatnonzero(~np.isfinite(frames).all(1))
    if len(bad):
        f.problem(file, f"holds NaN or infinite values in frame {some(bad.tolist())}")
    return len(bad) == 0


def _cmu_frames(f: Problems, file: Path | str, frames: Frames, expected: int) -> None:
    if not _finite(f, file, frames, cmu_files.COLUMNS):
        return
    if expected:
        f.expect(file, "number of frames", len(frames), expected)
    largest = np.abs(frames).max(0)
    wrong = [column for column in ZERO_COLUMNS if largest[column] >= 1e-5]
    if wrong:
        f.problem(
            file, f"columns {some(wrong)} should be about 0 (< 1e-5): are the columns shifted?"
        )
    if largest[3:].max() > 2 * np.pi:
        f.problem(
            file,
            f"holds a rotation value of {largest[3:].max():.4g}, expected radians within 2 pi",
        )


H36M_SUBJECTS = (1, 5, 6, 7, 8, 9, 11)
H36M_ACTIONS = (
    "walking eating smoking discussion directions greeting phoning posing purchases sitting "
    "sittingdown takingphoto waiting walkingdog walkingtogether"
).split()


def check_h36m(f: Problems) -> None:
    """S<subject>/<action>_<1|2>.txt with 99 numbers a line."""
    absent = []
    wanted = [
        f.folder / f"S{subject}" / f"{action}_{take}.txt"
        for subject in H36M_SUBJECTS
        for action in H36M_ACTIONS
        for take in (1, 2)
    ]
    for file in f.sample(wanted):
        if not file.exists():
            absent.append(f.name(file))
            continue
        frames = _text_frames(f, file)
        if frames is not None:
            _finite(f, file, frames, 99)
    if absent:
        f.problem(f.folder, f"{len(absent)} of {len(wanted)} files are missing: {some(absent)}")


def check_3dpw(f: Problems) -> None:
    """sequenceFiles/<split>/*.pkl, read by the reader that executes nothing of a pickle."""
    nested = f.folder / "sequenceFiles"
    for split, expected in (("train", 24), ("validation", 12), ("test", 24)):
        folder = (nested if nested.is_dir() else f.folder) / split
        for file in f.sample(f.listing(folder, {".pkl"}, expected)):
            f.seen()
            try:
                content = load_arrays(file)
            except ValueError as error:
                f.problem(file, str(error))
                continue
            people = content.get("jointPositions") if isinstance(content, dict) else None
            if not isinstance(people, (list, tuple)) or not people:
                f.problem(file, "has no list jointPositions")
                continue
            for person, frames in enumerate(people):
                _finite(f, f"{f.name(file)}: person {person}", np.asarray(frames), 72)
