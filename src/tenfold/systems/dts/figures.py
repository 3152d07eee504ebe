"""Figures of a run's report: test images, confusion, and the classes of source and target."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from tenfold.core.checkpoint import write_bytes
from tenfold.viz import fonts, overlays, plots
from tenfold.viz.predictions import spread

from .config import Config
from .evaluation import Details, test_images, test_size
from .inference import answer, label_map
from .model import Networks

ROWS = 6
"""Test images of the sheet."""


def draw_figures(networks: Networks, cfg: Config, details: Details, out: Path) -> dict[Path, str]:
    """Write sheet, confusion and class shares into the folder `out`.

    Args:
        networks: Students and teachers.
        cfg: Their configuration, with the test data.
        details: What the evaluation counted.
        out: Folder of the figures.

    Returns:
        File -> caption.
    """
    captions: dict[Path, str] = {}

    def add(name: str, content: bytes, caption: str) -> None:
        write_bytes(out / name, content)
        captions[out / name] = caption

    networks.eval()
    _sheet(networks, cfg, add)
    counts = details.confusion[networks.deployed].numpy()
    rows = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    content = plots.heatmap(
        100 * rows, rows=cfg.classes, columns=cfg.classes, ylabel="true", xlabel="predicted",
        unit="%",
    )  # fmt: skip
    add("confusion.png", content, "What pixels of each true class were called, in percent")
    true, found = counts.sum(1), counts.sum(0)
    values = {
        "source": _percent(details.source, cfg), "target, true": _percent(true, cfg),
        "target, predicted": _percent(found, cfg),
    }  # fmt: skip
    content = plots.bars(values, ylabel="% of pixels", size=(7.0, 3.3))
    add("shares.png", content, "Share of each class in the source, and in the test images")
    return captions


def _percent(pixels: np.ndarray, cfg: Config) -> dict[str, float]:
    total = max(1, int(pixels.sum()))
    return {name: 100 * int(n) / total for name, n in zip(cfg.classes, pixels, strict=True)}


def _sheet(networks: Networks, cfg: Config, add: Callable[[str, bytes, str], None]) -> None:
    found, count = test_images(cfg), len(cfg.classes)
    rows, used = [], set()
    names = ["student1", networks.deployed] if networks.deployed != "student1" else ["student1"]
    for index in spread(range(len(found)), ROWS):
        picture, truth = found.scene(index)
        row = [picture, overlays.colour_map(truth, count)]
        for name in names:
            seen = answer(networks.members(name), picture, test_size(cfg))
            labels = label_map(seen, *truth.shape)
            row.append(overlays.colour_map(labels, count))
            used |= set(np.unique(labels).tolist())
        used |= set(np.unique(truth).tolist()) - {overlays.IGNORED}
        rows.append(row)
    legend = overlays.legend(cfg.classes, sorted(used), 700)
    titles = ("picture", "truth", *names)
    caption = "; ".join(["Test images, true classes and predicted ones",
                         *fonts.meanings(cfg.classes)])  # fmt: skip
    add("segmentation.png", overlays.sheet(rows, titles, footer=legend), caption)
