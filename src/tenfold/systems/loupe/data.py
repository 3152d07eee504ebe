"""Files to batches: pictures with captions, their phrases and what is known of their objects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
from jaxtyping import Int64

from tenfold.core import dist
from tenfold.core.epochs import Epochs
from tenfold.core.system import DataUsed
from tenfold.data import catalog
from tenfold.data.captions.emoji import open_emoji_scenes
from tenfold.data.captions.records import Captions, Kind, Pair, Picture, Span, instances
from tenfold.generated import captioned
from tenfold.structures import Instances

from . import phrases

__all__ = [
    "Batches", "Captions", "Generated", "Pair", "Picture", "Settings", "Span", "chosen",
    "open_captions", "phrases_of", "splits", "used", "vocabulary",
]  # fmt: skip

GENERATED = "shapes"
"""Name of the set that is drawn where no data is found."""


class Settings(Protocol):
    """The part of a configuration that says which data is read."""

    @property
    def name(self) -> str:
        """Set: emoji_scenes, or shapes for our own generator."""

    @property
    def path(self) -> str:
        """Folder; empty looks for $TENFOLD_DATA/<name>, then falls back to shapes."""

    @property
    def generated(self) -> tuple[int, int]:
        """Pictures that are drawn for training and for each other split, where no set is found."""


# --- opening -------------------------------------------------------------------------------------


def chosen(data: Settings) -> str:
    """Name of the set that is read: the generated one if the wanted one is not there.

    Raises:
        ValueError: The name is unknown.
        FileNotFoundError: A path is given, and is not there.
    """
    if data.name == GENERATED or catalog.find(data.name, data.path) is None:
        return GENERATED
    return data.name


def splits(data: Settings) -> tuple[str, ...]:
    """Splits of the set, training first."""
    if chosen(data) == "emoji_scenes":
        return ("train", "validation", "test", "test_xstyle")
    return ("train", "validation", "test")


def open_captions(data: Settings, split: str) -> Captions:
    """Open a split of the set that a configuration names, or of our generator without it.

    Args:
        data: Which set, and where it lies.
        split: train, validation, test; test_xstyle of emoji_scenes.

    Raises:
        ValueError: There is no such split, or a file does not fit; the error names it.
        FileNotFoundError: A file is not there.
    """
    if split not in splits(data):
        raise ValueError(f"{data.name} has no split {split!r}; it has {', '.join(splits(data))}")
    if chosen(data) == GENERATED:
        return Generated(split, data.generated[split != "train"])
    folder = catalog.find(data.name, data.path)
    assert folder is not None
    return _opened(data.name, folder, split)


@lru_cache(maxsize=8)
def _opened(name: str, folder: Path, split: str) -> Captions:
    return open_emoji_scenes(folder, split)


def used(data: Settings) -> DataUsed:
    """The data that results rest on."""
    if chosen(data) == GENERATED:
        return DataUsed(GENERATED, "generated", "pictures and sentences of our generator", "MIT")
    entry = catalog.entry(data.name)
    return DataUsed(data.name, entry.kind, entry.what, entry.licence)


@dataclass(frozen=True)
class Generated:
    """A split of our own pictures of coloured shapes."""

    split: str
    count: int
    name: str = GENERATED
    kind: Kind = "generated"
    names: tuple[str, ...] = captioned.NAMES
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return self.count

    @property
    def owners(self) -> Int64[np.ndarray, " pair"]:
        """Each picture has one caption."""
        return np.arange(self.count, dtype=np.int64)

    def pair(self, index: int) -> Pair:
        """Caption and phrases, with boxes but for the ground."""
        one = captioned.captioned(self.split, index)
        found = []
        for start, end, row in one.phrases:
            x0, y0, x1, y1 = one.boxes[row].tolist()
            boxes = () if row == captioned.BACKGROUND else ((x0, y0, x1, y1),)
            found.append(Span(start, end, boxes))
        return Pair(None, one.caption, tuple(found), f"{self.split}/{index}")

    def picture(self, index: int) -> Picture:
        """The picture; read-only."""
        return captioned.captioned(self.split, index).picture

    def objects(self, index: int) -> Instances:
        """The square of each shape, and its class."""
        one = captioned.captioned(self.split, index)
        boxes = [(a, b, c, d) for a, b, c, d in one.boxes.tolist()]
        return instances(boxes, one.labels.tolist())


# --- text ----------------------------------------------------------------------------------------


def phrases_of(pair: Pair, most: int = phrases.MOST) -> tuple[Span, ...]:
    """The phrases that the data names, else those that are found in the text; at most so many."""
    if pair.phrases:
        return pair.phrases[:most]
    return tuple(Span(start, end) for start, end in phrases.spans(pair.caption, most))


def vocabulary(texts: Iterable[str], most: int = 0, least: int = 1) -> tuple[str, ...]:
    """Words of texts in small letters, the most frequent first and equal ones by the alphabet.

    Args:
        texts: Captions, and names of classes.
        most: Words at most; 0 takes all.
        least: Times that a word must occur.
    """
    counts = Counter(word.lower() for text in texts for word in phrases.TOKEN.findall(text))
    words = sorted(
        (word for word in counts if counts[word] >= least), key=lambda w: (-counts[w], w)
    )
    return tuple(words[:most] if most else words)


# --- batches -------------------------------------------------------------------------------------


class Batches:
    """Pairs of a batch, a function of (seed, index) and the process's share.

    Args:
        found: Split to draw from.
        batch_size: Pairs over all processes.
        seed: Of the run.
        stage: Name that the order follows from.
    """

    def __init__(self, found: Captions, batch_size: int, seed: int, stage: str) -> None:
        self.found, self.batch_size = found, batch_size
        self.order = Epochs(len(found), batch_size, seed, stage, repeats=True)

    def rows(self, index: int) -> list[int]:
        """Pairs of this process."""
        share = dist.current().share(self.batch_size)
        return [int(row) for row in self.order.rows(index)[share]]

    def __call__(self, index: int) -> list[tuple[Pair, Picture]]:
        """Pairs of this process and their pictures."""
        return [(self.found.pair(row), self.found.picture(row)) for row in self.rows(index)]


def captions_of(found: Captions, rows: Sequence[int] | None = None) -> list[str]:
    """Texts of some pairs, or of all."""
    return [found.pair(row).caption for row in (range(len(found)) if rows is None else rows)]
