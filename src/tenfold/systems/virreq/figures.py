"""Figures of a run's report: test pictures level by level, and the IoU of every concept."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tenfold.core.checkpoint import write_bytes
from tenfold.viz import overlays, plots
from tenfold.viz.predictions import spread

from . import data
from .config import Config
from .levels import level_map, names_of
from .model import Networks
from .recogniser import TrainedRecogniser
from .requests import Recognition

ROWS = 6
"""Test pictures of the sheets."""
MOST = 40
"""Concepts of a plot."""


def draw_figures(
    networks: Networks, cfg: Config, metrics: Mapping[str, float], out: Path
) -> dict[Path, str]:
    """Write sheets and plots into the folder `out`.

    Returns:
        File -> caption.
    """
    captions: dict[Path, str] = {}
    kb = data.knowledge_of(cfg)
    recogniser = TrainedRecogniser(networks, kb)
    split = data.open_split(cfg, "test")
    pictures, truths, found = [], [], []
    for row in spread(range(len(split)), ROWS):
        item, picture, _ = split.read(row)
        pictures.append(picture)
        truths.append(item.truth(kb))
        found.append(Recognition(recogniser.open(picture), kb).run(kb.depth))
    for level in range(1, kb.depth + 1):
        names = names_of(kb, level)
        content = overlays.segmentation_sheet(
            pictures,
            [level_map(tree, names, level) for tree in truths],
            [level_map(tree, names, level) for tree in found],
            names,
        )
        file = out / f"level{level}.png"
        write_bytes(file, content)
        captions[file] = f"Test pictures: level {level}, as labelled and as found"
    concepts = {
        name.split("/")[-1]: value for name, value in metrics.items() if name.startswith("concept/")
    }
    best = dict(sorted(concepts.items(), key=lambda one: -one[1])[:MOST])
    if best:
        file = out / "concepts.png"
        write_bytes(file, plots.bars({"IoU": best}, ylabel="%", size=(7.0, 3.3)))
        captions[file] = "IoU of each concept, inside the whole as the truth has it"
    return captions
