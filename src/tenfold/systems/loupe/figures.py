"""Figures of a run's report: test pictures with regions and phrases, and how games rank objects."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tenfold.core.checkpoint import write_bytes
from tenfold.viz import overlays, plots
from tenfold.viz.predictions import spread

from . import data
from .answer import Asked
from .config import Config
from .evaluation import splits
from .model import Networks
from .write import with_phrase, with_regions

ROWS = 5
"""Test pictures of the sheet."""
PHRASES = 3
"""Phrases of a picture that the sheet shows, at most."""
REGIONS = 3


def draw_figures(
    networks: Networks, cfg: Config, metrics: Mapping[str, float], out: Path
) -> dict[Path, str]:
    """Write a sheet, if a caption has a known word, and a plot into the folder `out`.

    Returns:
        File -> caption.
    """
    captions: dict[Path, str] = {}
    # a set may have no part of that name: RefCOCO's are testA and testB
    found, asked = data.open_captions(cfg.data, splits(cfg, "test")[0]), Asked(networks, cfg)
    rows, texts = [], []
    for row in spread(range(len(found)), ROWS):
        text = found.pair(row).caption
        if not asked.knows(text):  # of what it cannot read a run says nothing
            continue
        picture = found.picture(row)
        answer = asked.answer(picture, text, REGIONS)
        drawn = [with_phrase(picture, one) for one in answer.phrases[:PHRASES]]
        rows.append([picture, with_regions(picture, answer.regions), *drawn])
        texts.append(text)
    titles = ("picture", "regions", *(f"phrase {i + 1}" for i in range(PHRASES)))
    if rows:
        file = out / "phrases.png"
        write_bytes(file, overlays.sheet(rows, titles[: max(map(len, rows))], texts, height=200))
        captions[file] = (
            "Test pictures: the most confident regions with confidence s and interaction J (in "
            "thousandths) under the caption, and for each phrase the similarity of patches and its "
            "box"
        )
    ranks = {
        key.split("/")[1]: value
        for key, value in metrics.items()
        if key.startswith("ranking/") and key.endswith("/AUC")
    }
    if ranks:
        file = out / "ranking.png"
        content = plots.bars({"AUC": ranks}, ylabel="% of pairs", size=(7.0, 3.3))
        write_bytes(file, content)
        captions[file] = (
            "How often the interaction of an object's patches is above that of another window of "
            "its picture, by score (50 is chance), and the controls"
        )
    return captions
