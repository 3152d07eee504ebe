"""Predictions that a person can open: BVH, npz, an animation, error over time."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw

from tenfold.core.checkpoint import write_bytes
from tenfold.data.motion.bvh import Bvh, read_bvh, write_bvh
from tenfold.data.motion.clips import check_table, read_table
from tenfold.data.motion.kinematics import forward_kinematics, positions_to_rotations
from tenfold.data.motion.skeleton import CMU_OFFSETS, H36M_OFFSETS, Skeleton
from tenfold.viz import plots

if TYPE_CHECKING:
    from .system import Spgsn

OFFSETS = {"cmu_mocap": CMU_OFFSETS, "walker": CMU_OFFSETS, "h36m": H36M_OFFSETS}
SAMPLES = 8
"""Edge masks drawn for the spread that the npz holds."""
MAX_NPZ_BYTES = 2**29
PANEL, MARGIN, SCALE = 260, 24, 2
Colour = tuple[int, int, int]
Body = tuple[np.ndarray, Colour | None]
"""A pose and its one colour; None colours bones by body part."""
COLOURS: dict[str, Colour] = {
    "lower": (0, 114, 178),
    "upper": (213, 94, 0),
    "other": (120, 120, 120),
}
GHOST: Colour = (205, 205, 205)


@dataclass(frozen=True)
class Take:
    """A motion to predict from, in the units and at the frame rate of the run."""

    positions: Float[np.ndarray, "frames joints 3"]
    bvh: Bvh | None
    """The file it is from, or a skeleton in which to write; None if bones are unknown."""
    unit: float
    """Units of the run in one unit of length of the BVH."""


def read_take(system: Spgsn, file: Path) -> Take:
    """Read a clip for prediction: .bvh, .npz (positions or expmap), .txt of a benchmark.

    Raises ValueError if its skeleton is not the run's, or a frame is not finite.
    """
    readers: dict[str, Callable[[Spgsn, Path], Take]] = {
        ".bvh": _read_bvh,
        ".npz": _read_npz,
        ".txt": _read_text,
    }
    if file.suffix.lower() not in readers:
        raise ValueError(
            f"{file} is of no kind that can be predicted from; give {', '.join(readers)}"
        )
    take = readers[file.suffix.lower()](system, file)
    past = system.cfg.data.past
    if len(take.positions) < past:
        raise ValueError(
            f"{file} has {len(take.positions)} frames at the run's "
            f"{system.cfg.skeleton.fps:g} frames a second, but {past} are observed; "
            "give a longer clip"
        )
    return take


def _read_bvh(system: Spgsn, file: Path) -> Take:
    skeleton = system.cfg.skeleton
    bvh = read_bvh(file)
    if bvh.parents != skeleton.parents:
        raise ValueError(
            f"{file} has a skeleton of {len(bvh.joints)} joints, the run was trained on "
            f"{skeleton.name!r} with {len(skeleton.joints)} in another tree; train on motions like "
            f"yours: tenfold train spgsn small --data.name bvh --data.path {file.parent}"
        )
    bvh = bvh.resample(skeleton.fps)
    unit = system.cfg.data.mm_per_unit
    if skeleton.name in OFFSETS:  # bodies differ in size: bring bones to the training body's
        unit = _bones(OFFSETS[skeleton.name]) / _bones(bvh.offsets)
    positions = bvh.positions(drop_root=True) * unit
    return Take(positions.astype(np.float32), bvh, unit)


def _bones(offsets: Float[np.ndarray, "joints 3"]) -> float:
    """Total length of all bones; the root's offset is no bone."""
    return float(np.linalg.norm(offsets[1:], axis=1).sum())


def _read_npz(system: Spgsn, file: Path) -> Take:
    if file.stat().st_size > MAX_NPZ_BYTES:
        raise ValueError(f"{file} is larger than {MAX_NPZ_BYTES} bytes; cut the clip")
    try:
        with np.load(file, allow_pickle=False) as arrays:
            held = {k: arrays[k] for k in arrays.files if k in ("positions", "expmap")}
            names = arrays.files
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(f"{file} cannot be read as an npz of arrays: {error}") from error
    joints = len(system.cfg.skeleton.joints)
    if "expmap" in held:
        return _from_expmap(system, held["expmap"], str(file))
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
    return Take(positions.astype(np.float32), _template(system.cfg.skeleton), 1.0)


def _read_text(system: Spgsn, file: Path) -> Take:
    columns = 3 + 3 * len(system.cfg.skeleton.joints)
    return _from_expmap(system, read_table(file, columns)[::2], str(file))


def _from_expmap(system: Spgsn, expmap: np.ndarray, source: str) -> Take:
    skeleton = system.cfg.skeleton
    if skeleton.name not in OFFSETS:
        raise ValueError(
            f"{source} holds exponential maps, but the bones of {skeleton.name!r} are unknown"
        )
    check_table(expmap, 3 + 3 * len(skeleton.joints), source)
    positions = forward_kinematics(expmap, OFFSETS[skeleton.name], skeleton.parents)
    return Take(positions.astype(np.float32), _template(skeleton), 1.0)


def _template(skeleton: Skeleton) -> Bvh | None:
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


def predict_file(system: Spgsn, file: Path, out: Path) -> list[Path]:
    """Predict the last window that has a truth, and beyond the clip's end.

    Writes `<stem>.predicted.npz`, `.predicted.bvh` (observed then predicted frames), and
    `.continued.bvh` (the whole clip and the frames after it); with enough frames for a truth also
    `.animation.gif` and `.error.png`. The root keeps its last observed place and heading, since
    the network sees hip-aligned bodies.
    """
    take = read_take(system, file)
    past, future = system.cfg.data.past, system.cfg.data.future
    has_truth = len(take.positions) >= past + future
    start = len(take.positions) - (past + future if has_truth else past)
    observed = take.positions[start : start + past]
    predicted = system.forecast(observed)[0]
    arrays = {
        "observed": observed,
        "predicted": predicted,
        "fps": np.float64(system.cfg.skeleton.fps),
        "joints": np.array(system.cfg.skeleton.joints),
        "continued": system.forecast(take.positions[-past:])[0],
    }
    if system.cfg.model.kind == "spgsn":
        spread = system.forecast(observed, samples=SAMPLES)
        arrays["spread"] = np.linalg.norm(spread.std(0), axis=-1)
    files: dict[str, bytes] = {}
    if has_truth:
        truth = take.positions[start + past :]
        arrays["truth"] = truth
        files["animation.gif"] = animation(system.cfg.skeleton, observed, truth, predicted)
        files["error.png"] = _error_plot(system, observed, truth, predicted)
    else:
        files["animation.gif"] = animation(system.cfg.skeleton, observed, None, predicted)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    files["predicted.npz"] = buffer.getvalue()
    written = []
    for name, content in files.items():
        written.append(out / f"{file.stem}.{name}")
        write_bytes(written[-1], content)
    if take.bvh is not None:
        last = slice(start, start + past)
        for name, where, frames in (
            ("predicted.bvh", last, predicted),
            ("continued.bvh", slice(0, len(take.positions)), arrays["continued"]),
        ):
            written.append(out / f"{file.stem}.{name}")
            write_bvh(written[-1], _with_future(take, where, frames))
    return sorted(written)


def _with_future(take: Take, observed: slice, future: Float[np.ndarray, "frames joints 3"]) -> Bvh:
    """The clip's own frames, then predicted ones with the last root transform."""
    bvh = take.bvh
    assert bvh is not None
    turned = positions_to_rotations(future / take.unit, bvh.offsets, bvh.parents)
    moved = np.broadcast_to(bvh.offsets, (len(future), *bvh.offsets.shape)).copy()
    if len(bvh.motion) < len(take.positions):  # a template: the clip itself came without a BVH
        seen = take.positions[observed] / take.unit
        before = positions_to_rotations(seen, bvh.offsets, bvh.parents)
        places = np.broadcast_to(bvh.offsets, seen.shape).copy()
    else:
        before, places = bvh.rotations()[observed], bvh.translations()[observed]
    turned[:, 0], moved[:, 0] = before[-1, 0], places[-1, 0]
    return bvh.with_pose(np.concatenate([before, turned]), np.concatenate([places, moved]))


def _error_plot(
    system: Spgsn,
    observed: Float[np.ndarray, "past joints 3"],
    truth: Float[np.ndarray, "future joints 3"],
    predicted: Float[np.ndarray, "future joints 3"],
) -> bytes:
    times = ((np.arange(len(truth)) + 1) * 1000 / system.cfg.skeleton.fps).tolist()
    lines = {
        "prediction": (times, _distance(predicted, truth).tolist()),
        "repeat last pose": (times, _distance(observed[-1:], truth).tolist()),
    }
    return plots.curves(
        lines, title="Error over time", xlabel="true time (ms)", ylabel="MPJPE (mm)", log=False
    )


def _distance(a: np.ndarray, b: np.ndarray) -> Float[np.ndarray, "frames"]:
    return np.linalg.norm(a - b, axis=-1).mean(-1)


def report_pictures(system: Spgsn, out: Path) -> dict[Path, str]:
    """For the report: error over time, and a window from the middle of the first test actions."""
    captions: dict[Path, str] = {}
    if system.curves:
        path = out / "error-over-time.png"
        write_bytes(path, _curve(system.curves, system.cfg.skeleton.fps))
        captions[path] = "Mean error of the average over actions, against true time."
    past = system.cfg.data.past
    windows = system.motions.test
    for action, indices in list(windows.by_action().items())[-2:]:
        window = windows.gather(indices[[len(indices) // 2]])[0]
        observed, truth = window[:past], window[past:]
        predicted = system.forecast(observed)[0]
        path = out / f"{action}.gif"
        write_bytes(path, animation(system.cfg.skeleton, observed, truth, predicted))
        error, still = _distance(predicted, truth)[-1], _distance(observed[-1:], truth)[-1]
        captions[path] = (
            f"{action}, a test window: observed frames, then truth beside prediction (truth in "
            f"grey behind it); error at its end {error:.0f} mm, of the last pose repeated "
            f"{still:.0f} mm."
        )
    return captions


def _curve(curves: Mapping[str, np.ndarray], fps: float) -> bytes:
    lines = {
        k: (((np.arange(len(v)) + 1) * 1000 / fps).tolist(), v.tolist()) for k, v in curves.items()
    }
    return plots.curves(lines, xlabel="true time (ms)", ylabel="MPJPE (mm)", log=False)


def animation(
    skeleton: Skeleton,
    observed: Float[np.ndarray, "past joints 3"],
    truth: Float[np.ndarray, "future joints 3"] | None,
    predicted: Float[np.ndarray, "future joints 3"],
) -> bytes:
    """A GIF: truth on the left (if there is one), prediction on the right with truth in grey.

    Bodies are seen from the front and a little from the side; time runs at a fifth of its speed.
    """
    left = None if truth is None else np.concatenate([observed, truth])
    right = np.concatenate([observed, predicted])
    seen = right if left is None else np.concatenate([left, right])
    project = _camera(seen)
    frames = []
    for t in range(len(right)):
        panels: list[tuple[str, list[Body]]] = []
        if left is not None:
            panels.append(("truth", [(left[t], None)]))
        ghost: list[Body] = [] if left is None or t < len(observed) else [(left[t], GHOST)]
        panels.append(("prediction", [*ghost, (right[t], None)]))
        ahead = t - len(observed) + 1
        moment = f"{ahead * 1000 / skeleton.fps:+.0f} ms" if ahead > 0 else "observed"
        frames.append(_frame(skeleton, panels, project, moment))
    return plots.animation_gif(frames, min(50.0, max(4.0, skeleton.fps / 5)))


def _camera(
    positions: Float[np.ndarray, "n joints 3"],
) -> Callable[[np.ndarray], Float[np.ndarray, "joints 2"]]:
    """An orthographic view (y up, turned by 30 degrees) that holds every position."""
    cos, sin = np.cos(np.pi / 6), np.sin(np.pi / 6)

    def flat(p: np.ndarray) -> np.ndarray:
        return np.stack([cos * p[..., 0] + sin * p[..., 2], -p[..., 1]], -1)

    low, high = flat(positions).min((0, 1)), flat(positions).max((0, 1))
    zoom = (PANEL - 2 * MARGIN) * SCALE / max(float((high - low).max()), 1e-6)
    centre = (low + high) / 2
    return lambda p: (flat(p) - centre) * zoom + PANEL * SCALE / 2


def _frame(
    skeleton: Skeleton,
    panels: list[tuple[str, list[Body]]],
    project: Callable[[np.ndarray], np.ndarray],
    moment: str,
) -> Image.Image:
    size = (PANEL * len(panels) * SCALE, (PANEL + 20) * SCALE)
    image = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(image)
    colours = _part_colours(skeleton)
    for place, (title, bodies) in enumerate(panels):
        for pose, colour in bodies:
            points = project(pose) + [place * PANEL * SCALE, 20 * SCALE]
            for joint, parent in enumerate(skeleton.parents):
                if parent >= 0:
                    ends = [tuple(points[parent]), tuple(points[joint])]
                    draw.line(ends, fill=colour or colours[joint], width=3 * SCALE)
        draw.text(
            (place * PANEL * SCALE + 16, 10),
            f"{title}: {moment}",
            fill="black",
            font_size=13 * SCALE,
        )
    return image.resize((size[0] // SCALE, size[1] // SCALE), Image.Resampling.LANCZOS)


def _part_colours(skeleton: Skeleton) -> list[Colour]:
    """A colour a joint by its body part; a joint that is not used takes its parent's."""
    part = {skeleton.used[i]: "lower" for i in skeleton.lower}
    part |= {skeleton.used[i]: "upper" for i in skeleton.upper}
    names: list[str] = []
    for joint, parent in enumerate(skeleton.parents):
        names.append(part.get(joint, names[parent] if parent >= 0 else "other"))
    return [COLOURS[name] for name in names]
