"""Figures of SPGSN: bodies that move, and errors over time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw
from torch import nn

from tenfold.core.checkpoint import write_bytes
from tenfold.data.motion.skeleton import Skeleton
from tenfold.viz import plots

from .data import Motions
from .evaluation import REPEATED, Curves
from .inference import forecast

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
        write_bytes(path, animation(cfg.skeleton, observed, truth, predicted))
        error, still = distance(predicted, truth)[-1], distance(observed[-1:], truth)[-1]
        captions[path] = (
            f"{action}, a test window: observed frames, then truth beside prediction (truth in "
            f"grey behind it); error at its end {error:.0f} mm, of the last pose repeated "
            f"{still:.0f} mm."
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
