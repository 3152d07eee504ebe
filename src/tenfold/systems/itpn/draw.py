"""Pictures of what the networks see: from arrays to images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float
from PIL import Image

from tenfold.viz.overlays import Rgb, draw_objects, enlarged, sheet
from tenfold.viz.plots import canvas, encoded

GREY = 150
SHOWN = 8
"""Images of a sheet of reconstructions or of pyramids."""
ROW = 140
"""Height in pixels of such a sheet's rows."""


def reconstruction_row(
    image: Rgb, removed: Bool[np.ndarray, " unit"], guess: Rgb, side: int
) -> list[Rgb]:
    """Return an image, what the network saw, that with its guesses, and the guesses alone.

    Args:
        image: Whole units of `side` pixels in rows and columns.
        removed: Whether a unit was hidden from the network.
        guess: What the network makes of all units.
        side: Pixels of a unit's side.
    """
    height, width = image.shape[:2]
    grid = removed.reshape(height // side, width // side)
    hidden = grid.repeat(side, 0).repeat(side, 1)[..., None]
    seen = np.where(hidden, np.uint8(GREY), image)
    return [image, seen, np.where(hidden, guess, image), guess]


def reconstruction_sheet(rows: Sequence[Sequence[Rgb]]) -> bytes:
    """Draw rows of `reconstruction_row` as a PNG."""
    return sheet(rows, ("original", "what is seen", "with guesses", "guess alone"), height=ROW)


def pca_rgb(features: Float[np.ndarray, "height width channel"]) -> Rgb:
    """The three strongest directions of a map's features as red, green and blue.

    Each runs from its 2nd to its 98th percentile; its sign is such that the largest entry of the
    direction is positive.
    """
    flat = features.reshape(-1, features.shape[2]).astype(np.float64)
    flat = flat - flat.mean(0)
    _, _, directions = np.linalg.svd(flat, full_matrices=False)
    top = directions[:3]
    signs = np.sign(top[np.arange(len(top)), np.abs(top).argmax(1)])
    values = flat @ (top * signs[:, None]).T
    values = np.pad(values, ((0, 0), (0, 3 - values.shape[1])))
    low, high = np.percentile(values, [2, 98], axis=0)
    scaled = ((values - low) / np.maximum(high - low, 1e-9)).clip(0, 1)
    return (255 * scaled).round().astype(np.uint8).reshape(*features.shape[:2], 3)


def pyramid_row(image: Rgb, levels: Sequence[Float[np.ndarray, "_ _ _"]]) -> list[Rgb]:
    """Return an image and its pyramid levels, finest first, as colours of its size."""
    size = (image.shape[1], image.shape[0])
    nearest = Image.Resampling.NEAREST
    maps = [Image.fromarray(pca_rgb(level)).resize(size, nearest) for level in levels]
    return [image, *(np.asarray(one) for one in maps)]


def pyramid_sheet(rows: Sequence[Sequence[Rgb]], unit: int) -> bytes:
    """Draw rows of `pyramid_row` as a PNG; `unit` is the stride of the coarsest level."""
    levels = len(rows[0]) - 1
    strides = (unit // 4, unit // 2, unit)[3 - levels :]
    return sheet(rows, ("picture", *(f"stride {s}" for s in strides)), height=ROW)


def labels_sheet(pictures: Sequence[Rgb], ranked: Sequence[Sequence[tuple[str, float]]]) -> bytes:
    """Photos with bars of their most probable classes."""
    count = len(pictures)
    columns = min(4, count)
    lines = -(-count // columns)
    with canvas("light", 3 * columns, 4.2 * lines) as figure:
        axes = figure.subplots(
            2 * lines, columns, squeeze=False, height_ratios=[2.2, 1.2] * lines,
        )  # fmt: skip
        for axis in axes.flat:
            axis.axis("off")
        for number, (picture, classes) in enumerate(zip(pictures, ranked, strict=True)):
            line, column = divmod(number, columns)
            axes[2 * line, column].imshow(picture)
            axis = axes[2 * line + 1, column]
            axis.axis("on")
            axis.grid(False)
            values = [100 * value for _, value in classes]
            axis.barh(range(len(values)), values, color="#56b4e9")
            axis.set_yticks([])
            axis.set_xlim(0, 100)
            axis.invert_yaxis()
            for row, ((name, _), value) in enumerate(zip(classes, values, strict=True)):
                axis.text(2, row, f"{name}  {value:.0f} %", va="center", fontsize=8)
            axis.spines["left"].set_visible(False)
            axis.tick_params(labelsize=7)
        return encoded(figure, "png", 110)


def box_sheet(
    pictures: Sequence[Rgb],
    truths: Float[np.ndarray, "picture 4"],
    found: Float[np.ndarray, "picture 4"],
) -> bytes:
    """True boxes (orange) and predicted ones (blue) on photos, four in a row."""
    shown = []
    for picture, truth, guess in zip(pictures, truths, found, strict=True):
        both = np.stack([truth, guess]).astype(np.float32)
        shown.append(draw_objects(enlarged(picture, 220)[0], both * enlarged(picture, 220)[1],
                                  ("", ""), np.array([1, 0])))  # fmt: skip
    rows = [shown[i : i + 4] for i in range(0, len(shown), 4)]
    return sheet(rows, height=180)


def confusion_picture(counts: np.ndarray, names: Sequence[str]) -> bytes:
    """Share of each true class that was called so, row by row."""
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = max(4.0, 0.32 * len(names) + 2)
    with canvas("light", side, side) as figure:
        axis = figure.subplots()
        axis.grid(False)
        image = axis.imshow(100 * share, cmap="Blues", vmin=0, vmax=100)
        figure.colorbar(image, ax=axis, shrink=0.7, label="% of the true class")
        if len(names) <= 40:
            axis.set_xticks(range(len(names)), names, rotation=90, fontsize=8)
            axis.set_yticks(range(len(names)), names, fontsize=8)
        axis.set_xlabel("predicted")
        axis.set_ylabel("true")
        return encoded(figure, "png", 100)
