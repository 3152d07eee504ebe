"""Figures of SPGSN: bodies that move, and errors over time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw
from torch import nn

from tenfold.core.checkpoint import write_bytes
from tenfold.data.motion.continuing import ROOT_MOTION
from tenfold.data.motion.directions import Side, axes, sides
from tenfold.data.motion.skeleton import Skeleton
from tenfold.printable import printable
from tenfold.viz import plots
from tenfold.viz.films import write_mp4
from tenfold.viz.motion import Moving, write_motion
from tenfold.viz.page import Badge
from tenfold.viz.predictions import Trained

from .data import Motions
from .evaluation import REPEATED, Curves
from .inference import Prediction, forecast

PANEL, MARGIN, SCALE = 260, 24, 2
Colour = tuple[int, int, int]
Body = tuple[np.ndarray, Colour | None]
"""A pose and its one colour; None colours bones by their side."""
COLOURS: dict[Side, Colour] = {
    "left": (0, 114, 178),
    "right": (213, 94, 0),
    "middle": (110, 110, 110),
}
GHOST: Colour = (205, 205, 205)


def evaluation_figures(
    network: nn.Module, motions: Motions, curves: Curves, out: Path
) -> dict[Path, str]:
    """Error over time, and a window of each of the last two test actions: file -> caption."""
    cfg, past = motions.cfg, motions.cfg.data.past
    path = out / "error-over-time.png"
    write_bytes(path, error_curves(curves.average, cfg.skeleton.fps))
    captions = {path: "Mean error of the average over actions, against true time."}
    windows = motions.test
    for action, indices in list(windows.by_action().items())[-2:]:
        window = windows.gather(indices[[len(indices) // 2]])[0]
        observed, truth = window[:past], window[past:]
        predicted = forecast(network, cfg, motions.basis, observed)[0]
        path = out / f"{action}.gif"
        write_animation(path, cfg.skeleton, observed, truth, predicted)
        error, still = distance(predicted, truth)[-1], distance(observed[-1:], truth)[-1]
        captions[path] = (
            f"{action}, a test window: observed frames, then truth beside prediction (truth in "
            "pale grey behind it; left limbs blue, right ones orange); error at its end "
            f"{error:.0f} mm, of the last pose repeated {still:.0f} mm."
        )
    return captions


def prediction_figure(
    observed: Float[np.ndarray, "past joints 3"],
    truth: Float[np.ndarray, "future joints 3"],
    predicted: Float[np.ndarray, "future joints 3"],
    fps: float,
) -> bytes:
    """Error over time of one prediction and of its last observed pose, as PNG."""
    curves = {"prediction": distance(predicted, truth), REPEATED: distance(observed[-1:], truth)}
    return error_curves(curves, fps, "Error over time")


def error_curves(
    curves: Mapping[str, Float[np.ndarray, " future"]], fps: float, title: str = ""
) -> bytes:
    """Errors in mm of each future frame against true time, as PNG."""
    lines = {
        name: (((np.arange(len(error)) + 1) * 1000 / fps).tolist(), error.tolist())
        for name, error in curves.items()
    }
    return plots.curves(lines, title=title, xlabel="true time (ms)", ylabel="MPJPE (mm)", log=False)


def distance(
    a: Float[np.ndarray, "_ joints 3"], b: Float[np.ndarray, "frames joints 3"]
) -> Float[np.ndarray, " frames"]:
    """Mean distance of the joints in each frame, in the unit of the inputs."""
    return np.linalg.norm(a - b, axis=-1).mean(-1)


def write_animation(
    path: Path,
    skeleton: Skeleton,
    observed: Float[np.ndarray, "past joints 3"],
    truth: Float[np.ndarray, "future joints 3"] | None,
    predicted: Float[np.ndarray, "future joints 3"],
) -> None:
    """Write a GIF or MP4: truth left (if there is one), prediction right with the truth in grey.

    Bodies are seen from the front and a little from the side, left limbs in another colour than
    right ones; time runs at a fifth of its speed.
    """
    left = None if truth is None else np.concatenate([observed, truth])
    right = np.concatenate([observed, predicted])
    seen = right if left is None else np.concatenate([left, right])
    project = _camera(seen, axes(observed, skeleton))
    colours = [COLOURS[side] for side in sides(skeleton.joints, skeleton.parents)]
    frames = []
    for t in range(len(right)):
        panels: list[tuple[str, list[Body]]] = []
        if left is not None:
            panels.append(("truth", [(left[t], None)]))
        ghost: list[Body] = [] if left is None or t < len(observed) else [(left[t], GHOST)]
        panels.append(("prediction", [*ghost, (right[t], None)]))
        ahead = t - len(observed) + 1
        moment = f"{ahead * 1000 / skeleton.fps:+.0f} ms" if ahead > 0 else "observed"
        frames.append(_frame(skeleton, colours, panels, project, moment))
    fps = min(50.0, max(4.0, skeleton.fps / 5))
    if path.suffix == ".mp4":
        write_mp4(path, map(np.asarray, frames), fps)
    else:
        write_bytes(path, plots.animation_gif(frames, fps))


def write_viewer(
    path: Path,
    skeleton: Skeleton,
    prediction: Prediction,
    worlds: Sequence[Float[np.ndarray, "_ joints 3"]],
    trained: Trained,
    name: str,
) -> Path:
    """Write the page on which one looks around truth and prediction.

    Args:
        path: File.
        skeleton: The run's.
        prediction: Of the file `name`.
        worlds: Joints in the world, in mm, of truth (if it is known) and prediction; empty where
            the file does not say where the body was.
        trained: What predicts.
        name: The file.
    """
    seen, truth = prediction.observed, prediction.truth
    bodies = {"prediction": np.concatenate([seen, prediction.predicted])}
    if truth is not None:
        bodies = {"truth": np.concatenate([seen, truth]), **bodies}
    turned = axes(seen, skeleton).T
    moving = [Moving(what, centred @ turned) for what, centred in bodies.items()]
    if worlds:
        begin = worlds[0][: len(seen)]
        turned = axes(begin, skeleton).T
        places = [(one - begin[-1, skeleton.root]) @ turned for one in worlds]
        moving = [replace(one, placed=at) for one, at in zip(moving, places, strict=True)]
    meaning = [
        "Left limbs are blue, right ones orange; behind the prediction stands the truth in green.",
        "Bodies are seen from their hips, as the network sees them"
        + (f"; in the world, {ROOT_MOTION}." if worlds else "."),
    ]
    return write_motion(
        path,
        moving,
        skeleton.parents,
        sides(skeleton.joints, skeleton.parents),
        len(seen),
        skeleton.fps,
        title=f"Prediction for {printable(name)}",
        lead=f"{len(seen)} poses observed, {len(prediction.predicted)} predicted, at "
        f"{skeleton.fps:g} a second",
        badges=[Badge(f"trained on {trained.kind} data", trained.kind)],
        meaning=[*meaning, *trained.notes],
        origin=f"{trained.system}, trained on {trained.data}",
    )


def _camera(
    positions: Float[np.ndarray, "n joints 3"], directions: Float[np.ndarray, "3 3"]
) -> Callable[[np.ndarray], Float[np.ndarray, "joints 2"]]:
    """An orthographic view that holds every position: from the front, turned by 30 degrees.

    `directions` are left, up and front as rows.
    """
    cos, sin = np.cos(np.pi / 6), np.sin(np.pi / 6)

    def flat(p: np.ndarray) -> np.ndarray:
        left, up, front = np.moveaxis(p @ directions.T, -1, 0)
        return np.stack([cos * left + sin * front, -up], -1)

    low, high = flat(positions).min((0, 1)), flat(positions).max((0, 1))
    zoom = (PANEL - 2 * MARGIN) * SCALE / max(float((high - low).max()), 1e-6)
    centre = (low + high) / 2
    return lambda p: (flat(p) - centre) * zoom + PANEL * SCALE / 2


def _frame(
    skeleton: Skeleton,
    colours: Sequence[Colour],
    panels: list[tuple[str, list[Body]]],
    project: Callable[[np.ndarray], np.ndarray],
    moment: str,
) -> Image.Image:
    size = (PANEL * len(panels) * SCALE, (PANEL + 20) * SCALE)
    image = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(image)
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
