"""Predictions for motions of users: read a file, forecast, write what a person can open."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor, nn

from tenfold.core import dist
from tenfold.core.checkpoint import write_bytes
from tenfold.core.divide import divided
from tenfold.data.motion.bvh import Bvh, write_bvh
from tenfold.data.motion.kinematics import positions_to_rotations
from tenfold.data.motion.skeleton import Skeleton
from tenfold.printable import printable
from tenfold.viz.page import Cell, Figure, Picture, Section, Table, Tile, picture_figure
from tenfold.viz.predictions import Trained, spread, write_predictions, write_table

from .config import Config
from .figures import animation, distance, prediction_figure
from .inference import forecast
from .model import ScatteringNetwork
from .takes import Take, check_inside, motion_files, read_take

SAMPLES = 8
"""Edge masks drawn for the spread that the npz holds."""
SHOWN, MOVING = 60, 12
"""Motions of the page's table, and those of them that are animated there, at most."""


@dataclass(frozen=True)
class Prediction:
    """Poses in mm that were observed, and those predicted for after them."""

    start: int
    """First observed frame of the motion."""
    observed: Float[np.ndarray, "past joints 3"]
    predicted: Float[np.ndarray, "future joints 3"]
    truth: Float[np.ndarray, "future joints 3"] | None
    """True poses after them; None where the motion ends with the observed frames."""
    continued: Float[np.ndarray, "future joints 3"]
    """Frames after the motion's end."""
    spread: Float[np.ndarray, "future joints"] | None
    """Standard deviation over edge masks; None for a network without."""


@dataclass(frozen=True)
class Record:
    """Contents of the table and the page on one file."""

    file: str
    """Its path in the folder that was given."""
    frames: int = 0
    """At the run's frame rate."""
    error: float | None = None
    """MPJPE in mm over the predicted frames; None without a truth."""
    repeated: float | None = None
    """The same of repeating the last observed pose."""
    written: tuple[Path, ...] = ()
    problem: str = ""
    """Reason why it could not be read."""


def predict_motions(
    network: nn.Module,
    cfg: Config,
    basis: Float[Tensor, "coeff frame"],
    inputs: Path,
    out: Path,
    trained: Trained,
) -> list[Path]:
    """Predict from one motion, or from all of a folder; processes share them.

    For each the last window that has a truth is predicted, and what comes after the clip's end:
    `<stem>.predicted.npz`, `.predicted.bvh` (observed then predicted frames), `.continued.bvh`
    (the whole clip and the frames after it), `.animation.gif`, and with enough frames for a truth
    `.error.png`. In a folder, `a/walk.bvh` gives `a/walk.bvh.predicted.npz` and so on, and there
    are a table and a page of all. The root keeps its last observed place and heading, since the
    network sees hip-aligned bodies.

    Raises:
        ValueError: A lone file, or all of a folder, cannot be read.
    """
    alone = not inputs.is_dir()
    files = [inputs] if alone else motion_files(inputs, out)
    root = inputs.parent if alone else inputs

    def predicted(index: int) -> Record:
        file = files[index]
        name = file.relative_to(root)
        try:
            if not alone:
                check_inside(file, root)
            take = read_take(file, cfg)
        except (ValueError, OSError) as error:
            if alone:
                raise
            return Record(name.as_posix(), problem=str(error))
        prediction = predict_take(network, cfg, basis, take.positions)
        stem = out / (name.with_name(name.stem) if alone else name)
        written = write_prediction(prediction, take, cfg.skeleton, stem)
        return _record(name.as_posix(), prediction, take, written)

    records = divided(len(files), predicted, "" if alone else "motions")
    written = [path for record in records for path in record.written]
    if alone:
        return written
    if not written:
        raise ValueError(
            f"{inputs}: none of {len(files)} files can be read; the first: {records[0].problem}"
        )
    if not dist.current().is_first:
        return []
    return [*written, *_summary(records, cfg, inputs, out, trained)]


# --- predict ---------------------------------------------------------------------------------


def predict_take(
    network: nn.Module,
    cfg: Config,
    basis: Float[Tensor, "coeff frame"],
    positions: Float[np.ndarray, "frames joints 3"],
) -> Prediction:
    """Forecasts of the last window that has a truth, and of the time after the motion."""
    past, future = cfg.data.past, cfg.data.future
    has_truth = len(positions) >= past + future
    start = len(positions) - (past + future if has_truth else past)
    observed = positions[start : start + past]
    samples = None
    if isinstance(network, ScatteringNetwork):
        samples = forecast(network, cfg, basis, observed, SAMPLES)
    return Prediction(
        start,
        observed,
        predicted=forecast(network, cfg, basis, observed)[0],
        truth=positions[start + past :] if has_truth else None,
        continued=forecast(network, cfg, basis, positions[-past:])[0],
        spread=None if samples is None else np.linalg.norm(samples.std(0), axis=-1),
    )


# --- write -----------------------------------------------------------------------------------


def write_prediction(
    prediction: Prediction, take: Take, skeleton: Skeleton, stem: Path
) -> list[Path]:
    """Write the files of one prediction, `<stem>.predicted.npz` and so on."""
    seen, truth, predicted = prediction.observed, prediction.truth, prediction.predicted
    files = {"predicted.npz": _arrays(prediction, skeleton)}
    if truth is not None:
        files["error.png"] = prediction_figure(seen, truth, predicted, skeleton.fps)
    files["animation.gif"] = animation(skeleton, seen, truth, predicted)
    written = []
    if take.bvh is not None:
        last = slice(prediction.start, prediction.start + len(seen))
        for name, where, frames in (
            ("predicted.bvh", last, predicted),
            ("continued.bvh", slice(0, len(take.positions)), prediction.continued),
        ):
            written.append(_file(stem, name))
            write_bvh(written[-1], _with_future(take, where, frames))
    for name, content in files.items():
        written.append(_file(stem, name))
        write_bytes(written[-1], content)
    return written


def _file(stem: Path, name: str) -> Path:
    return stem.with_name(f"{stem.name}.{name}")


def _arrays(prediction: Prediction, skeleton: Skeleton) -> bytes:
    """The prediction as an npz file."""
    arrays: dict[str, Any] = {
        "observed": prediction.observed,
        "predicted": prediction.predicted,
        "fps": np.float64(skeleton.fps),
        "joints": np.array(skeleton.joints),
        "continued": prediction.continued,
    }
    if prediction.spread is not None:
        arrays["spread"] = prediction.spread
    if prediction.truth is not None:
        arrays["truth"] = prediction.truth
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


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


# --- the table and the page of a folder ------------------------------------------------------


def _record(name: str, prediction: Prediction, take: Take, written: list[Path]) -> Record:
    error = repeated = None
    if prediction.truth is not None:
        error = float(distance(prediction.predicted, prediction.truth).mean())
        repeated = float(distance(prediction.observed[-1:], prediction.truth).mean())
    return Record(name, len(take.positions), error, repeated, tuple(written))


def _summary(
    records: Sequence[Record], cfg: Config, inputs: Path, out: Path, trained: Trained
) -> list[Path]:
    """Write `predictions.csv`, a row a file, and `predictions.html`."""
    good = [record for record in records if not record.problem]
    bad = [record for record in records if record.problem]
    table = write_table(
        out / "predictions.csv",
        ["file", "frames", "error mm", "error of the last pose mm", "problem"],
        [
            [
                printable(one.file),
                "" if one.problem else str(one.frames),
                _number(one.error, 3),
                _number(one.repeated, 3),
                printable(one.problem),
            ]
            for one in records
        ],
    )
    moving = [_figure(one, out) for one in spread(good, MOVING)]
    note = (
        f"{SHOWN} of {len(good):,} motions; predictions.csv has all." if len(good) > SHOWN else ""
    )
    rows = [
        [
            Cell(printable(one.file)),
            Cell(str(one.frames)),
            Cell(_number(one.error, 1) or "–"),
            Cell(_number(one.repeated, 1) or "–"),
        ]
        for one in spread(good, SHOWN)
    ]
    heads = ["file", "frames", "error (mm)", "last pose repeated (mm)"]
    page = write_predictions(
        out,
        inputs,
        trained,
        [
            Section("Motions", figures=moving),
            Section("Errors", tables=[Table("", heads, rows, note)]),
        ],
        lead=f"{cfg.data.past} poses observed, {cfg.data.future} predicted, at "
        f"{cfg.skeleton.fps:g} a second",
        tiles=_tiles(good),
        count=len(records),
        problems=[one.problem for one in bad],
        meaning=[
            "Error: mean distance of predicted and true joints in mm over all predicted frames, of "
            "the last window of a file; shorter files have no truth to compare with.",
            "Animations show the observed frames, then truth beside prediction; beside each file's "
            "animation lie BVH and npz files.",
        ],
    )
    return [table, page]


def _figure(record: Record, out: Path) -> Figure:
    (path,) = [path for path in record.written if path.name.endswith("animation.gif")]
    caption = printable(record.file)
    if record.error is not None:
        caption += f": error {record.error:.0f} mm, last pose repeated {record.repeated:.0f} mm"
    return picture_figure(Picture(path, caption), out)


def _tiles(good: Sequence[Record]) -> list[Tile]:
    judged = [one for one in good if one.error is not None]
    tiles = [Tile("motions", f"{len(good):,}")]
    if judged:
        error, repeated = (
            np.mean([getattr(one, key) for one in judged]) for key in ("error", "repeated")
        )
        tone = "good" if error < repeated else "bad"
        of = (f"last pose repeated: {repeated:.1f} mm; {len(judged):,} with a truth", tone)
        tiles.append(Tile("mean error", f"{error:.1f} mm", [of]))
    return tiles


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
