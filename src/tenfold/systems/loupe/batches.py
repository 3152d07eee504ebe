"""Pairs to batches of numbers: pictures of one size, words, and which words each phrase has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from tenfold.core.seed import seed_of

from . import data
from .config import Config
from .data import Captions, Span
from .phrases import MOST
from .words import Encoded, Vocabulary


@dataclass(frozen=True)
class Example:
    """A pair as numbers."""

    image: UInt8[Tensor, "3 size size"]
    text: Encoded
    spans: tuple[tuple[int, ...], ...]
    """Tokens of each phrase; none of a phrase that was cut off with the end of its text."""
    caption: int
    """A number that equal captions share."""


class Examples:
    """Pairs of a split as numbers, kept in memory once they are made, as far as there is room."""

    def __init__(self, cfg: Config, found: Captions, hold: int = 0) -> None:
        """``hold``: megabytes of pictures that are kept."""
        self.found, self.size = found, cfg.image.size
        self.vocabulary = vocabulary_of(cfg)
        self.room = hold * 2**20 // (3 * self.size**2)
        self.kept: dict[int, Example] = {}

    def __len__(self) -> int:
        return len(self.found)

    def __getitem__(self, row: int) -> Example:
        example = self.kept.get(row)
        if example is None:
            pair = self.found.pair(row)
            text = self.vocabulary.encode(pair.caption)
            spans = tuple(places_of(span, text) for span in data.phrases_of(pair, MOST))
            image = as_tensor(self.found.picture(row), self.size)
            example = Example(image, text, spans, seed_of(pair.caption))
            if len(self.kept) < self.room:
                self.kept[row] = example
        return example

    def batch(self, rows: Sequence[int]) -> dict[str, Tensor]:
        """Pairs side by side: images, words, spans of phrases, and numbers of captions."""
        some = [self[row] for row in rows]
        texts = self.vocabulary.batch([one.text for one in some])
        spans = torch.zeros(len(some), MOST, texts["words"].shape[1], dtype=torch.bool)
        for row, one in enumerate(some):
            for number, places in enumerate(one.spans):
                spans[row, number, list(places)] = True
        return {
            "images": torch.stack([one.image for one in some]),
            **texts,
            "spans": spans,
            "captions": torch.tensor([one.caption for one in some]),
        }


class Batches:
    """Training batches of this process, a function of their index."""

    def __init__(self, cfg: Config, found: Captions) -> None:
        self.order = data.Batches(found, cfg.data.batch_size, cfg.seed, "align")
        self.examples = Examples(cfg, found, cfg.data.hold)
        self.accumulate = cfg.loop.accumulate

    def __call__(self, index: int) -> dict[str, Tensor | int]:
        """What `Training` takes."""
        return {
            **self.examples.batch(self.order.rows(index)),
            "step": index // self.accumulate,
        }


def vocabulary_of(cfg: Config) -> Vocabulary:
    """The tokens of a completed configuration."""
    return Vocabulary(cfg.text.tokens, cfg.text.vocabulary, cfg.text.most)


def places_of(span: Span, text: Encoded) -> tuple[int, ...]:
    """Tokens that a phrase has at least a character of."""
    return tuple(
        place for place, (start, end) in enumerate(text.places)
        if start < span.end and end > span.start
    )  # fmt: skip


def as_tensor(
    picture: UInt8[np.ndarray, "height width 3"], size: int
) -> UInt8[Tensor, "3 size size"]:
    """A picture as the tower takes it: a square, to which it is stretched."""
    if picture.shape[:2] != (size, size):
        image = Image.fromarray(picture).resize((size, size), Image.Resampling.BICUBIC)
        picture = np.asarray(image)
    return torch.from_numpy(np.array(picture.transpose(2, 0, 1)))
