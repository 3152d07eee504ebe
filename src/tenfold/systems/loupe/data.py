"""Files to batches: pictures with captions, their phrases and what is known of their objects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Int64

from tenfold.core import dist
from tenfold.core.epochs import Epochs
from tenfold.core.seed import generator
from tenfold.core.system import DataUsed
from tenfold.data import catalog
from tenfold.data.captions import own
from tenfold.data.captions.records import Captions, Kind, LeftOut, Pair, Picture, Span, instances
from tenfold.data.captions.shards import BLOCK, Shards
from tenfold.data.images.decode import Reading
from tenfold.generated import captioned
from tenfold.structures import Instances

from . import phrases

__all__ = [
    "Batches", "Captions", "Generated", "Pair", "Picture", "Settings", "Span", "Windows",
    "captions_of", "chosen", "notes_of", "open_captions", "phrases_of", "splits", "used",
    "vocabulary",
]  # fmt: skip

GENERATED = "shapes"
"""Name of the set that is drawn where no data is found."""
MOST_TEXTS = 100_000
"""Captions of a split that are looked at for their words and phrases."""


class Settings(Protocol):
    """The part of a configuration that says which data is read."""

    @property
    def name(self) -> str:
        """Set of the catalogue; folder for one's own; shapes for our generator."""

    @property
    def path(self) -> str:
        """Folder or file; empty looks for $TENFOLD_DATA/<name>, then falls back to shapes."""

    @property
    def generated(self) -> tuple[int, int]:
        """Pictures that are drawn for training and for each other split, where no set is found."""

    @property
    def test_share(self) -> float:
        """Share of a set of one's own that is not divided, for the test."""

    @property
    def skip_broken(self) -> bool:
        """Leave out what cannot be read or does not fit, counted and named, instead of stopping."""

    @property
    def follow_links(self) -> bool:
        """Follow symbolic links that lead out of the folder."""

    @property
    def ignore_exif(self) -> bool:
        """Take pictures as they are stored, without the turn that an EXIF note asks for."""


# --- opening -------------------------------------------------------------------------------------


def chosen(data: Settings) -> str:
    """Name of the set to train on: the generated one if the wanted one is not there.

    Raises:
        ValueError: The name is unknown.
        FileNotFoundError: A path is given, and is not there; or "folder" is without one.
    """
    return data.name if _found(data) else GENERATED


def _path(data: Settings) -> Path | None:
    """Folder or file of the set; None for the generated one. A set that is gone is an error."""
    if data.name == GENERATED:
        return None
    return _found(data) or catalog.find_or_explain(data.name)


def _found(data: Settings) -> Path | None:
    """Folder or file of the set; None for the generated one, or where it is not there."""
    if data.name == GENERATED:
        return None
    if data.name == own.OWN:
        path = Path(data.path).expanduser()
        if not data.path or not path.exists():
            raise FileNotFoundError(
                f"data.path {data.path!r} is not there; give the folder, the table or the shard of "
                "your pictures and captions"
            )
        return path
    return catalog.find(data.name, data.path)


def splits(data: Settings) -> tuple[str, ...]:
    """Splits of the set, training first if it has one."""
    path = _path(data)
    return own.splits_of(data.name, path, _reading(data)) if path else own.THREE


def _reading(data: Settings) -> Reading:
    return Reading(data.skip_broken, data.follow_links, data.ignore_exif)


def open_captions(data: Settings, split: str) -> Captions:
    """Open a split of the set that a configuration names, or of our generator without it.

    Args:
        data: Which set, where it lies, and what is done with records that do not fit.
        split: One of `splits`: train, validation, test; test_xstyle of emoji_scenes; testA, testB
            of RefCOCO.

    Raises:
        ValueError: There is no such split, or a file does not fit; the error names it.
        FileNotFoundError: A file is not there.
    """
    path = _path(data)
    if path is None:
        if split not in own.THREE:
            raise ValueError(f"{GENERATED} has no split {split!r}; it has {', '.join(own.THREE)}")
        return Generated(split, data.generated[split != "train"])
    return _opened(data.name, path, split, _reading(data), data.test_share)


@lru_cache(maxsize=8)
def _opened(name: str, path: Path, split: str, reading: Reading, test_share: float) -> Captions:
    return own.open_set(name, path, split, reading, test_share)


def notes_of(found: Captions) -> tuple[str, ...]:
    """Remarks on results of a split, for which each process must ask.

    Named are what any of them left out, and captions without a phrase, which is not asked of
    shards.
    """
    bare = LeftOut()
    for row in range(0 if isinstance(found, Shards) else min(len(found), MOST_TEXTS)):
        pair = found.pair(row)
        if not phrases_of(pair):
            bare.add(f"{pair.key}: {pair.caption[:40]!r}")
    own_notes = (*found.notes, *bare.said("captions without a phrase"))
    shares = dist.current().gather_objects(own_notes)
    return tuple(dict.fromkeys(note for share in shares for note in share))


def used(data: Settings) -> DataUsed:
    """The data that results rest on."""
    name = data.name
    if name == GENERATED:
        return DataUsed(GENERATED, "generated", "pictures and sentences of our generator", "MIT")
    if name == own.OWN:
        return DataUsed(Path(data.path).resolve().name, "real", "pictures and captions of your own")
    entry = catalog.entry(name)
    return DataUsed(name, entry.kind, entry.what, entry.licence)


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


class Windows:
    """Order of the rows of shards: whole blocks in a new order each epoch, rows shuffled in a few.

    A pure function of seed and index, as `core.epochs.Epochs` is, with the rows of few blocks at
    once: those of a window of WINDOW blocks that follow one another in the epoch's order.
    """

    WINDOW = 8

    def __init__(self, count: int, batch_size: int, *name: int | str, block: int = BLOCK) -> None:
        if count < batch_size:
            raise ValueError(
                f"{count} records of shards do not fill one batch of {batch_size}; lower "
                "data.batch_size"
            )
        self.count, self.batch_size, self.block = count, batch_size, block
        self.seed, *self.name = name
        self._blocks = lru_cache(maxsize=2)(self._drawn_blocks)
        self._window = lru_cache(maxsize=2)(self._drawn_window)

    @property
    def steps(self) -> int:
        """Batches in one pass over the data; a short last one is dropped."""
        return self.count // self.batch_size

    def rows(self, index: int) -> Int64[np.ndarray, " row"]:
        """Rows of batch `index`, counted over epochs, of all processes."""
        epoch, place = divmod(index, self.steps)
        first = place * self.batch_size
        last = first + self.batch_size
        _, starts = self._blocks(epoch)
        found = []
        for window in range(int(np.searchsorted(starts, first, "right")) - 1, len(starts)):
            start = int(starts[window])
            if start >= last:
                break
            found.append(self._window(epoch, window)[max(0, first - start) : last - start])
        return np.concatenate(found)

    def _drawn_blocks(
        self, epoch: int
    ) -> tuple[Int64[np.ndarray, " block"], Int64[np.ndarray, " window"]]:
        """Order of the blocks in an epoch, and the number of rows before each window."""
        blocks = -(-self.count // self.block)
        order = torch.randperm(blocks, generator=generator(self.seed, "blocks", *self.name, epoch))
        sizes = np.full(blocks, self.block)
        sizes[-1] = self.count - self.block * (blocks - 1)
        before = np.cumsum(sizes[order.numpy()]) - sizes[order.numpy()]
        return order.numpy(), before[:: self.WINDOW]

    def _drawn_window(self, epoch: int, window: int) -> Int64[np.ndarray, " row"]:
        chosen = self._blocks(epoch)[0][window * self.WINDOW :][: self.WINDOW]
        ends = np.minimum((chosen + 1) * self.block, self.count)
        rows = np.concatenate(
            [np.arange(b * self.block, end) for b, end in zip(chosen, ends, strict=True)]
        )
        draw = generator(self.seed, "window", *self.name, epoch, window)
        shuffled: Int64[np.ndarray, " row"] = rows[
            torch.randperm(len(rows), generator=draw).numpy()
        ]
        return shuffled


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
        self.order: Epochs | Windows
        if isinstance(found, Shards):
            self.order = Windows(len(found), batch_size, seed, stage)
        else:
            self.order = Epochs(len(found), batch_size, seed, stage, repeats=True)

    def rows(self, index: int) -> list[int]:
        """Pairs of this process."""
        share = dist.current().share(self.batch_size)
        return [int(row) for row in self.order.rows(index)[share]]

    def __call__(self, index: int) -> list[tuple[Pair, Picture]]:
        """Pairs of this process and their pictures."""
        return [(self.found.pair(row), self.found.picture(row)) for row in self.rows(index)]


def captions_of(found: Captions, most: int = MOST_TEXTS) -> list[str]:
    """Texts of the first pairs, at most so many."""
    return [found.pair(row).caption for row in range(min(len(found), most))]
