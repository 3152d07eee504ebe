"""The space of features before and after new classes are learned, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from tenfold.viz import plots
from tenfold.viz.fonts import spelled

from .data import Encoded
from .heads import Base
from .model import whitened

MARKERS = "osD^vP"
SHAPE = 1.25
"""Width of a panel by its height."""
LATER = 0.5
"""Weight of classes learned from a few photos in the choice of the plane; base classes have 1."""
NAMED = 6
"""Known classes that are named in the space, at most."""
SIDES = [
    (x * far, y * far) for far in (8, 18, 32, 50, 72) for x in (1, -1, 0) for y in (0, 1, -1)
    if (x, y) != (0, 0)
]  # fmt: skip
"""Places where a name may stand, in points from what it names."""


@dataclass(frozen=True)
class Scene:
    """Features and names of newly learned classes, and of those known before."""

    class_means: Float[Tensor, "known dim"]
    """Means of the classes known before (float64)."""
    features: Float[Tensor, "photo dim"]
    labels: Int[Tensor, " photo"]
    """Of the photos; 0 is the first new class."""
    known: tuple[str, ...]
    names: tuple[str, ...]
    """Of the new classes."""


def listing(names: Sequence[str], room: int = 76) -> str:
    """Join as many names as fit in `room` characters, and say how many more there are."""
    shown: list[str] = []
    for name in map(short, names):
        if shown and sum(map(len, shown)) + 3 * len(shown) + len(name) > room:
            return f"{' · '.join(shown)} and {len(names) - len(shown)} more"
        shown.append(name)
    return " · ".join(shown)


def short(name: str, most: int = 24) -> str:
    """A name that a picture has room for, in characters that it can draw."""
    name = spelled(name)
    return name if len(name) <= most else name[: most - 1].rstrip() + "…"


@dataclass(frozen=True)
class _Plane:
    """Positions of everything, in units of the shared covariance's standard deviation."""

    known: Float[np.ndarray, "known 2"]
    means: Float[np.ndarray, "new 2"]
    photos: Float[np.ndarray, "photo 2"]
    test: Float[np.ndarray, "test 2"]
    covariance: Float[np.ndarray, "2 2"]
    near: list[int]
    """Known classes that are closest to the new ones in all dimensions, closest first."""


def _plane(before: Scene, base: Base, test: Tensor) -> _Plane:
    """Whiten by the shared covariance, then the two main directions of the class means."""
    covariance = base.covariance

    def white(x: Tensor) -> Tensor:
        return whitened(x, covariance)

    count = len(before.names)
    means = torch.stack(
        [before.features[before.labels == i].double().mean(0) for i in range(count)]
    )
    known, new = white(before.class_means), white(means)
    every = torch.cat([known, new])
    centre = every.mean(0)
    # few photos make a noisy mean, whose noise would look like separation if it chose the plane
    weight = torch.full((len(every), 1), LATER, dtype=torch.float64)
    weight[: len(base.means)] = 1
    axes = torch.linalg.svd(weight * (every - centre), full_matrices=True).Vh[:2]
    axes = axes * axes.gather(1, axes.abs().argmax(1, keepdim=True)).sign()  # SVD leaves it open

    def flat(x: Tensor) -> np.ndarray:
        return ((x - centre) @ axes.T).numpy()

    half = white(covariance)
    around = axes @ white(half.T) @ axes.T
    apart = torch.cdist(new, known)
    each = max(1, NAMED // count)
    ranked = apart.argsort(1)[:, :each].T.flatten().tolist()  # first choices of all, then second
    return _Plane(
        flat(known), flat(new), flat(white(before.features)), flat(white(test)), around.numpy(),
        list(dict.fromkeys(ranked))[:NAMED],
    )  # fmt: skip


def draw_space(before: Scene, base: Base, title: str = "", test: Encoded | None = None) -> bytes:
    """Draw where the photos fell and what was made of them: two panels of one projection, as PNG.

    Args:
        before: Classes known before, and the photos of new ones.
        base: Statistics of the base session, whose covariance is the measure of distance.
        title: Above the panels; empty names the new classes.
        test: Test pictures of the new classes, with labels as those of the photos.
    """
    none = before.features[:0]
    plane = _plane(before, base, none if test is None else test.features)
    ink, grid, _ = plots.INK["light"]
    tints = [plots.colour(i) for i in range(len(before.names))]
    marks = [MARKERS[i // len(plots.COLOURS["light"]) % len(MARKERS)] for i in range(len(tints))]
    with plots.canvas("light", 10, 5.1, [*before.names, *before.known]) as figure:
        left, right = figure.subplots(1, 2, sharex=True, sharey=True)
        for axes in (left, right):
            axes.scatter(*plane.known.T, s=20, color="#8b949e", linewidths=0, label="known class")
        near = plane.known[plane.near]
        left.scatter(*near.T, s=34, color=ink, label="nearest known class", zorder=3)
        left.scatter(
            *plane.photos.T, s=26, facecolors="none", edgecolors=ink, alpha=_pale(plane.photos),
            label="new photo", zorder=4,
        )  # fmt: skip
        for i, (tint, mark) in enumerate(zip(tints, marks, strict=True)):
            if test is not None:
                dots = plane.test[(test.labels == i).numpy()]
                right.scatter(*dots.T, s=6, color=tint, alpha=0.35, linewidths=0)
            dots = plane.photos[(before.labels == i).numpy()]
            right.scatter(*dots.T, s=26, color=tint, marker=mark, alpha=_pale(plane.photos))
            right.scatter(
                *plane.means[i], s=110, color=tint, marker=mark, edgecolors="white", zorder=5
            )
            right.add_patch(_ellipse(plane.means[i], plane.covariance, tint))
        left.set_title("Before: where the photos fell")
        right.set_title("After: what was learned of them")
        _limits(left, plane)
        for axes in (left, right):
            axes.set_xlabel("main direction of the class means (σ)")
        left.set_ylabel("second direction (σ)")
        title = spelled(title) or f"Learned: {listing(before.names)}"
        figure.suptitle(title, x=0.01, ha="left", weight="bold", fontsize=12)
        handles, words = left.get_legend_handles_labels()
        if test is not None:
            handles.append(right.scatter([], [], s=6, color=tints[0]))
            words.append("test picture")
        handles.append(right.scatter([], [], s=26, color=tints[0]))
        words.append("learned (large: mean; circle: one σ of the shared covariance)")
        figure.legend(handles, words, loc="outside lower center", ncols=5, columnspacing=1.2)
        figure.draw_without_rendering()  # settles the layout that names are placed in
        dots = np.concatenate([plane.known, plane.photos])
        name_spots(left, near, [before.known[i] for i in plane.near], [ink] * len(near), dots)
        name_spots(right, plane.means, before.names, tints, np.concatenate([dots, plane.means]))
        return plots.encoded(figure, "png")


def _pale(photos: Float[np.ndarray, "photo 2"]) -> float:
    """Opacity: many photos hide one another."""
    return 0.9 if len(photos) <= 100 else 0.4


def _ellipse(
    centre: Float[np.ndarray, "2"], covariance: Float[np.ndarray, "2 2"], tint: str
) -> Any:
    """One standard deviation around a mean."""
    from matplotlib.patches import Ellipse

    values, vectors = np.linalg.eigh(covariance)
    width, height = 2 * np.sqrt(values.clip(0))
    angle = float(np.degrees(np.arctan2(vectors[1, 0], vectors[0, 0])))
    return Ellipse(
        (float(centre[0]), float(centre[1])), width, height, angle=angle, facecolor=tint,
        edgecolor=tint, alpha=0.25, linewidth=1.5, zorder=2,
    )  # fmt: skip


def _limits(axes: Any, plane: _Plane) -> None:
    """Equal scales, nothing cut off, the panel filled."""
    circles = np.concatenate([plane.means - 1.2, plane.means + 1.2])
    every = np.concatenate([plane.known, plane.photos, plane.test, circles])
    low, high = every.min(0), every.max(0)
    middle, half = (low + high) / 2, (high - low) / 2 * 1.06
    half[0] = max(half[0], SHAPE * half[1])
    half[1] = half[0] / SHAPE
    axes.set_xlim(middle[0] - half[0], middle[0] + half[0])
    axes.set_ylim(middle[1] - half[1], middle[1] + half[1])
    for one in axes.figure.axes:
        one.set_aspect("equal")


def name_spots(
    axes: Any,
    spots: Float[np.ndarray, "spot 2"],
    names: Sequence[str],
    tints: Sequence[str],
    dots: Float[np.ndarray, "dot 2"],
) -> None:
    """Write each name where it hides the fewest dots and no other name, with a line to its spot."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.patheffects import withStroke
    from matplotlib.text import Text

    renderer = FigureCanvasAgg(axes.figure).get_renderer()
    frame, taken = axes.get_window_extent(renderer), list[Any]()
    pixels, large = axes.transData.transform(dots), axes.transData.transform(spots)

    def put(note: Any, x: int | float, y: int | float) -> Any:
        """Move a name; its box, without the line."""
        note.set_position((x, y))
        note.set(ha=_towards(x, "left", "right"), va=_towards(y, "bottom", "top"))
        note.update_positions(renderer)
        return Text.get_window_extent(note, renderer)

    for spot, name, tint in zip(spots, names, tints, strict=True):
        note = axes.annotate(
            short(name), spot, (0, 0), textcoords="offset points", fontsize=8.5, color=tint,
            weight="bold", zorder=6, path_effects=[withStroke(linewidth=2.5, foreground="white")],
            arrowprops={"arrowstyle": "-", "color": tint, "linewidth": 0.7, "shrinkB": 3},
        )  # fmt: skip
        note.set_in_layout(False)
        costs = []
        for x, y in SIDES:
            box = put(note, x, y)
            hidden = sum(box.contains(*pixel) for pixel in pixels)
            hidden += 9 * sum(box.contains(*pixel) for pixel in large)
            clash = sum(box.overlaps(other) for other in taken)
            out = box.x0 < frame.x0 or box.x1 > frame.x1 or box.y0 < frame.y0 or box.y1 > frame.y1
            costs.append((100 * clash + 200 * out + hidden + 0.12 * np.hypot(x, y), (x, y)))
        taken.append(put(note, *min(costs)[1]))


def _towards(offset: int | float, positive: str, negative: str) -> str:
    return positive if offset > 0 else negative if offset < 0 else "center"
