"""A small dual encoder of CLIP's kind whose weights follow from their names, and its files."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tenfold.weights.clip import ClipFile, ClipSettings, shapes
from tenfold.weights.clip_text import ClipTextLayout
from tenfold.weights.clip_vit import ClipLayout

MERGES = (("d", "o"), ("do", "g</w>"), ("r", "e"), ("re", "d</w>"), ("s", "k"), ("sk", "y</w>"))
VOCABULARY = 512 + len(MERGES) + 2
VISION = ClipLayout(32, 2, 8, (3, 3), 16, 48)
TEXT = ClipTextLayout(24, 2, 16, 16, VOCABULARY, 96)
HEADS = (4, 3)


def filled(name: str, shape: tuple[int, ...]) -> Tensor:
    """A tensor by its name alone."""
    drawn = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    if name == "logit_scale":
        return torch.tensor(np.log(20.0)).float()
    if name.endswith("weight") and "ln_" in name:
        return torch.from_numpy(1 + 0.1 * drawn).float()
    fan = shape[-1] if name.endswith("weight") or "proj" in name else 4
    return torch.from_numpy(np.asarray(drawn / fan**0.5)).float()


def clip(
    vision: ClipLayout = VISION, text: ClipTextLayout = TEXT, settings: ClipSettings | None = None
) -> ClipFile:
    """The encoder."""
    state = {name: filled(name, shape) for name, shape in shapes(vision, text).items()}
    return ClipFile(state, vision, text, settings or ClipSettings(HEADS, assumed=False))


def pictures() -> Tensor:
    """Two normalised pictures."""
    return torch.from_numpy(np.random.RandomState(1).standard_normal((2, 3, 24, 24))).float()


def write_merges(folder: Path) -> Path:
    """The table of its tokens, as transformers keeps it."""
    file = folder / "merges.txt"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(["#version: 0.2", *(f"{a} {b}" for a, b in MERGES)]) + "\n")
    return file
