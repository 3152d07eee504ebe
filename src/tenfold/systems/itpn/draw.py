"""Pictures of what the networks see: from arrays to images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image

from tenfold.viz.overlays import Rgb, draw_objects, enlarged, sheet

GREY = 150
SHOWN = 8
"""Pictures of a sheet."""


def reconstruction_sheet(
    pictures: UInt8[np.ndarray, "picture height width 3"],
    removed: Bool[np.ndarray, "picture unit"],
    predicted: UInt8[np.ndarray, "picture height width 3"],
    side: int,
) -> bytes:
    """Original, what the network saw, and that with its guess for what was removed."""
    rows = []
    for picture, gone, guess in zip(pictures, removed, predicted, strict=True):
        height, width = picture.shape[:2]
        grid = gone.reshape(height // side, width // side)
        hidden = grid.repeat(side, 0).repeat(side, 1)[..., None]
        seen = np.where(hidden, np.uint8(GREY), picture)
        rows.append([picture, seen, np.where(hidden, guess, picture), guess])
    titles = ("original", "what is seen", "with guesses", "guess alone")
    return sheet(rows, titles, height=140)


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


def pyramid_sheet(
    pictures: Sequence[Rgb],
    levels: Sequence[Sequence[Float[np.ndarray, "_ _ _"]]],
    strides: Sequence[int],
) -> bytes:
    """Each picture beside its pyramid levels as colours, finest first."""
    rows = []
    for picture, maps in zip(pictures, levels, strict=True):
        height, width = picture.shape[:2]
        shown = [
            np.asarray(
                Image.fromarray(pca_rgb(x)).resize((width, height), Image.Resampling.NEAREST)
            )
            for x in maps
        ]
        rows.append([picture, *shown])
    return sheet(rows, ("picture", *(f"stride {s}" for s in strides)), height=140)


def labels_sheet(pictures: Sequence[Rgb], ranked: Sequence[Sequence[tuple[str, float]]]) -> bytes:
    """Photos with bars of their most probable classes."""
    import io

    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    count = len(pictures)
    columns = min(4, count)
    lines = -(-count // columns)
    figure, axes = plt.subplots(
        2 * lines, columns, figsize=(3 * columns, 4.2 * lines), squeeze=False,
        height_ratios=[2.2, 1.2] * lines,
    )  # fmt: skip
    for axis in axes.flat:
        axis.axis("off")
    for number, (picture, classes) in enumerate(zip(pictures, ranked, strict=True)):
        line, column = divmod(number, columns)
        axes[2 * line, column].imshow(picture)
        axis = axes[2 * line + 1, column]
        axis.axis("on")
        names = [name for name, _ in classes]
        values = [100 * value for _, value in classes]
        axis.barh(range(len(names)), values, color="#56b4e9")
        axis.set_yticks([])
        axis.set_xlim(0, 100)
        axis.invert_yaxis()
        for row, (name, value) in enumerate(zip(names, values, strict=True)):
            axis.text(2, row, f"{name}  {value:.0f} %", va="center", fontsize=8)
        for side in ("top", "right", "left"):
            axis.spines[side].set_visible(False)
        axis.tick_params(labelsize=7)
    figure.tight_layout()
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110)
    plt.close(figure)
    return content.getvalue()


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
    import io

    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = max(4.0, 0.32 * len(names) + 2)
    figure, axis = plt.subplots(figsize=(side, side))
    image = axis.imshow(100 * share, cmap="Blues", vmin=0, vmax=100)
    figure.colorbar(image, ax=axis, shrink=0.7, label="% of the true class")
    if len(names) <= 40:
        axis.set_xticks(range(len(names)), names, rotation=90, fontsize=8)
        axis.set_yticks(range(len(names)), names, fontsize=8)
    axis.set_xlabel("predicted")
    axis.set_ylabel("true")
    figure.tight_layout()
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=100)
    plt.close(figure)
    return content.getvalue()
