"""A small network of Type-I requests, for tests."""

from __future__ import annotations

import torch

from tenfold.nn.mit import MitSize
from tenfold.systems.virreq.segmentation import Network, TextClassifier, mix_transformer
from tenfold.systems.virreq.table import TextTable

SIZES = MitSize((8, 16, 40, 64), (1, 2, 5, 8), (1, 1, 1, 1), (8, 4, 2, 1))
NAMES = ("road", "sky", "car", "wheel", "window", "person", "head", "arm", "leg")
SPACE = "drawn"


def table(names: tuple[str, ...] = NAMES, dim: int = 24, space: str = SPACE) -> TextTable:
    made = TextTable(names, dim, space)
    made.fill(torch.randn(len(names), dim, generator=torch.Generator().manual_seed(5)))
    return made


def network(texts: TextTable | None = None, **options: float | bool) -> Network:
    torch.manual_seed(3)
    texts = table() if texts is None else texts
    return Network(
        mix_transformer(SIZES), 16, TextClassifier(16, texts.dim, **options), texts
    ).eval()
