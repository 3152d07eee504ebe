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
from tenfold.data.motion.bvh import write_bvh
from tenfold.data.motion.bvh_motion import Bvh
from tenfold.data.motion.continuing import JOINTS, ROOT_MOTION, continued
from tenfold.data.motion.directions import axes, feet
from tenfold.data.motion.skeleton import Skeleton
from tenfold.extras import install
from tenfold.files import require_no_folder
from tenfold.printable import printable
from tenfold.viz.films import can_write_mp4
from tenfold.viz.page import Cell, Figure, Picture, Section, Table, Tile, picture_figure, relative
from tenfold.viz.predictions import Trained, spread, write_predictions, write_table

from .config import Config, PredictOptions
from .figures import distance, prediction_figure, write_animation, write_viewer
from .inference import SAMPLES, Prediction, drawn, predict_take
from .takes import Take, check_inside, motion_files, read_take

SHOWN, MOVING = 60, 12
"""Motions of the page's table, and those of them that are animated there, at most."""


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
    options: PredictOptions,
) -> list[Path]:
    """Predict from one motion, or from all of a folder; processes share them.

    For each the last window that has a truth is predicted, and what comes after the clip's end:
    `<stem>.predicted.npz`, `.predicted.bvh` (observed then predicted frames), `.continued.bvh`
    (the whole clip and the frames after it), `.animation.gif` or `.mp4`, `.viewer.html`, and with
    enough frames for a truth `.error.png`. In a folder, `a/walk.bvh` gives
    `a/walk.bvh.predicted.npz` and so on, and there are a table and a page of all. The network sees
    hip-aligned bodies: their way through the world is extrapolated (`ROOT_MOTION`, `JOINTS`).

    Raises:
        ValueError: A lone file, or all of a folder, cannot be read; or films cannot be written.
    """
    if options.format == "mp4" and not can_write_mp4():
        raise ValueError(f"to write films as MP4: {install('video')}; or leave --format gif")
    alone = not inputs.is_dir()
    files = [inputs] if alone else motion_files(inputs, out)
    root = inputs.parent if alone else inputs

    def predicted(index: int) -> Record:
        file = files[index]
        name = file.relative_to(root)
        try:
            if not alone:
                check_inside(file, root)
                require_no_folder(file)
            take = read_take(file, cfg)
        except (ValueError, OSError) as error:
            if alone:
                raise
            return Record(name.as_posix(), problem=str(error))
        prediction = predict_take(network, cfg, basis, take.positions)
        stem = out / (name.with_name(name.stem) if alone else name)
        written = write_prediction(prediction, take, cfg, stem, name.name, trained, options)
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


# --- write -----------------------------------------------------------------------------------


def write_prediction(
    prediction: Prediction,
    take: Take,
    cfg: Config,
    stem: Path,
    name: str,
    trained: Trained,
    options: PredictOptions,
) -> list[Path]:
    """Write the files of one prediction of the file `name`, `<stem>.predicted.npz` and so on."""
    seen, truth, predicted = prediction.observed, prediction.truth, prediction.predicted
    skeleton = cfg.skeleton
    written: list[Path] = []
    ways: Bvh | None = None
    if take.bvh is not None:
        last = slice(prediction.start, prediction.start + len(seen))
        whole = slice(0, len(take.positions))
        up = axes(_world(take, skeleton), skeleton)[1]
        for kind, where, frames in (
            ("predicted.bvh", last, predicted),
            ("continued.bvh", whole, prediction.continued),
        ):
            moved = _with_future(take, skeleton, where, frames, up)
            written.append(_file(stem, kind))
            write_bvh(written[-1], moved)
            ways = ways or moved
    files = {"predicted.npz": _arrays(prediction, take, cfg)}
    if truth is not None:
        files["error.png"] = prediction_figure(seen, truth, predicted, skeleton.fps)
    for kind, content in files.items():
        written.append(_file(stem, kind))
        write_bytes(written[-1], content)
    written.append(_file(stem, f"animation.{options.format}"))
    write_animation(written[-1], skeleton, seen, truth, predicted)
    worlds = _worlds(prediction, take, ways, skeleton)
    viewer = _file(stem, "viewer.html")
    written.append(write_viewer(viewer, skeleton, prediction, worlds, trained, name))
    return written


def _file(stem: Path, name: str) -> Path:
    return stem.with_name(f"{stem.name}.{name}")


def _arrays(prediction: Prediction, take: Take, cfg: Config) -> bytes:
    """The prediction as an npz file."""
    skeleton = cfg.skeleton
    arrays: dict[str, Any] = {
        "observed": prediction.observed,
        "predicted": prediction.predicted,
        "fps": np.float64(skeleton.fps),
        "joints": np.array(skeleton.joints),
        "continued": prediction.continued,
    }
    if prediction.spread is not None:
        arrays["spread"] = prediction.spread
        arrays["spread_of"] = np.array(f"{SAMPLES} predictions with {drawn(cfg)} as in training")
    if prediction.truth is not None:
        arrays["truth"] = prediction.truth
    if take.is_placed:
        arrays["bvh"] = np.array(f"{JOINTS}; {ROOT_MOTION}")
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def _world(take: Take, skeleton: Skeleton) -> Float[np.ndarray, "frames joints 3"]:
    """Positions of the run's joints in the world, in the unit of the BVH."""
    assert take.bvh is not None
    return _shown(take.bvh, take, skeleton)


def _shown(bvh: Bvh, take: Take, skeleton: Skeleton) -> Float[np.ndarray, "frames joints 3"]:
    """Positions of the run's joints; those above the body at its root."""
    root = take.joints[skeleton.root]
    return bvh.positions()[:, [root if joint < 0 else joint for joint in take.joints]]


def _with_future(
    take: Take,
    skeleton: Skeleton,
    observed: slice,
    future: Float[np.ndarray, "frames joints 3"],
    up: Float[np.ndarray, "3"],
) -> Bvh:
    """The clip's own frames, then predicted ones on the body and the joints of its file."""
    bvh = take.bvh
    assert bvh is not None
    goals = np.zeros((len(future), len(bvh.joints), 3))
    known = [False] * len(bvh.joints)
    for joint, own in enumerate(take.joints):
        if own >= 0:
            goals[:, own], known[own] = future[:, joint], True
    # positions alone do not say whether a body walks on the spot
    standing = feet(bvh.joints, bvh.parents) if take.is_placed else []
    soles = [joint for joint in standing if known[joint]]
    root = take.joints[skeleton.root]
    return continued(bvh, observed, goals, known, root, soles, up)


def _worlds(
    prediction: Prediction, take: Take, moved: Bvh | None, skeleton: Skeleton
) -> list[Float[np.ndarray, "_ joints 3"]]:
    """Joints in the world of truth (if it is known) and prediction, at the run's size."""
    if moved is None or not take.is_placed:
        return []
    ahead = _shown(moved, take, skeleton)
    body = list(skeleton.used)
    first = np.ptp(ahead[0, body], axis=0).max()
    scale = np.ptp(prediction.observed[0, body], axis=0).max() / max(float(first), 1e-9)
    truth = [] if prediction.truth is None else [_world(take, skeleton)[prediction.start :]]
    return [one * scale for one in (*truth, ahead)]


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
            Cell(printable(one.file), href=_viewer_link(one, out)),
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
            "Animations show the observed frames, then truth beside prediction, left limbs blue "
            "and right ones orange; beside each file's animation lie BVH and npz files, and a page "
            "to look around in, which its name in the table opens.",
            f"In BVH files {JOINTS}; {ROOT_MOTION}.",
        ],
    )
    return [table, page]


def _figure(record: Record, out: Path) -> Figure:
    (path,) = [path for path in record.written if ".animation." in path.name]
    caption = printable(record.file)
    if record.error is not None:
        caption += f": error {record.error:.0f} mm, last pose repeated {record.repeated:.0f} mm"
    return picture_figure(Picture(path, caption), out)


def _viewer_link(record: Record, out: Path) -> str:
    (path,) = [path for path in record.written if path.name.endswith("viewer.html")]
    return relative(path, out / "predictions.html")


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
