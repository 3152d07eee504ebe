"""Few-shot class-incremental protocols: base classes, then sessions of a few photos of new ones.

`fscil_open.read` makes one from any of the public benchmarks or from a folder of class folders,
which `fscil_sets` reads.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from .decode import Pictures

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CIFAR = ((0.507, 0.487, 0.441), (0.267, 0.256, 0.276))  # CEC's loader of CIFAR-100
TINY = ((0.4824, 0.4454, 0.3919), (0.2616, 0.2530, 0.2666))  # README of the set, at 32x32
Colours = tuple[float, float, float]


@dataclass(frozen=True)
class View:
    """The way from a held picture to the network's input."""

    side: int
    """Pixels of a held picture's side."""
    size: int
    """Pixels of the input's side: the means of whole blocks if it divides `side`, else a crop."""
    mean: Colours
    std: Colours

    def test(
        self, images: UInt8[Tensor, "image 3 side side"]
    ) -> Float[Tensor, "image 3 size size"]:
        """The input that is never random: pooled or centre-cropped, and normalised."""
        x = self.train_source(images)
        edge = round((x.shape[2] - self.size) / 2)
        return self.normalise(x[:, :, edge : edge + self.size, edge : edge + self.size])

    def train_source(
        self, images: UInt8[Tensor, "image 3 side side"]
    ) -> Float[Tensor, "image 3 source source"]:
        """Images for augmentation, in [0, 1]: pooled if `size` divides `side`, else whole."""
        if images.shape[2] != self.side:
            raise ValueError(f"pictures of {images.shape[2]} pixels, expected {self.side} a side")
        x, blocks = images.float(), self.side // self.size
        if self.side % self.size == 0 and blocks > 1:
            # sums of blocks are exact in float32, so only the division rounds
            x = x.unflatten(3, (self.size, blocks)).sum(4)
            x = x.unflatten(2, (self.size, blocks)).sum(3) / blocks**2
        return x / 255

    def normalise(
        self, x: Float[Tensor, "image 3 height width"]
    ) -> Float[Tensor, "image 3 height width"]:
        """Subtract the mean and divide by the deviation of each channel."""
        mean, std = (x.new_tensor(values)[:, None, None] for values in (self.mean, self.std))
        return (x - mean) / std


@dataclass(frozen=True)
class Protocol:
    """Pictures and draws of one few-shot class-incremental benchmark."""

    name: str
    classes: tuple[str, ...]
    """In label order: the base classes, then those of each session."""
    base: int
    way: int
    """New classes of a session."""
    shot: int
    """Photos of a new class."""
    sessions: int
    """Sessions after the base session."""
    train: Pictures
    """All training pictures of the base classes, in class order."""
    novel: Pictures
    """The photos of new classes that any draw uses, in class order."""
    test: Pictures
    """All test pictures of all classes, in class order."""
    support: tuple[tuple[Int64[Tensor, " row"], ...], ...]
    """[draw][session]: rows of `novel`, class after class."""
    view: View

    def seen(self, session: int) -> int:
        """Classes known after a session; session 0 is the base session."""
        return self.base + self.way * session


@dataclass(frozen=True)
class Numbers:
    """The sizes of a protocol."""

    base: int
    way: int
    shot: int
    sessions: int


OWN = {
    "tiny_imagenet_fscil": Numbers(60, 5, 5, 8),
    "cifar100": Numbers(60, 5, 5, 8),
    "mini_imagenet": Numbers(60, 5, 5, 8),
    "cub200": Numbers(100, 10, 5, 10),
    "shapes": Numbers(12, 3, 5, 4),
}
"""The public protocols (Tao et al. 2020, and CEC's index lists), and that of `generated.shapes`."""
NAMES = ("tiny_imagenet_fscil", "cifar100", "mini_imagenet", "cub200", "folder")
"""Names that `fscil_open.read` takes."""
FOLDER_SHOT, FOLDER_SIZE = 5, 32
"""Of a folder: photos of a new class, side of the input (ours)."""

Load = Callable[[str, Sequence[int]], Pictures]


@dataclass(frozen=True)
class Source:
    """A data set, before protocols choose from it. Labels are the set's own."""

    classes: tuple[str, ...]
    train: Sequence[int]
    """Label of each training picture."""
    test: Sequence[int]
    load: Load
    """load("train" or "test", rows) reads pictures; it may be slow."""
    view: View
    listed: Sequence[int] = ()
    """Training rows of the public draw; the first photos of their classes."""
    is_ordered: bool = False
    """True if the further photos of a class are drawn in the order of rows, not at random."""


def choose(name: str, total: int, base: int, way: int) -> tuple[Numbers, list[int]]:
    """Sizes of the protocol, and which of the set's labels it takes, in its own label order.

    total: classes of a folder; the public sets have their own.
    """
    if name not in OWN:
        return _choose_freely(total, base, way)
    own = OWN[name]
    for what, value, limit in (("base", base, own.base), ("way", way, own.way)):
        if value > limit:
            raise ValueError(
                f"data.{what} is {value}, but the protocol of {name} has {limit}. Set at most "
                f"{limit}, or 0 for all."
            )
    if base == 1:
        raise ValueError("data.base is 1: the encoder needs at least 2 classes to learn from.")
    numbers = Numbers(base or own.base, way or own.way, own.shot, own.sessions)
    starts = range(own.base, own.base + own.way * own.sessions, own.way)
    kept = [label for start in starts for label in range(start, start + numbers.way)]
    return numbers, [*range(numbers.base), *kept]


def _check_total(name: str, total: int) -> None:
    own = OWN.get(name)
    if own and total != own.base + own.way * own.sessions:
        raise ValueError(
            f"{name} has {total} classes here, expected {own.base} + {own.sessions} x {own.way}. "
            "Take the whole set, or data.name folder for classes of your own."
        )


def _choose_freely(total: int, base: int, way: int) -> tuple[Numbers, list[int]]:
    """Base classes first, and sessions of `way` (0: one session) of all the others."""
    base = base or total
    if not 2 <= base <= total:
        raise ValueError(
            f"data.base is {base}, but there are {total} classes. Set 2 to {total}, or 0 for all."
        )
    new = total - base
    way = (way or new) if new else 0
    if new and new % way:
        fit = [str(number) for number in range(1, new + 1) if new % number == 0]
        raise ValueError(
            f"{new} new classes ({total} less data.base={base}) cannot be divided into sessions of "
            f"data.way={way}. Set data.way to one of {', '.join(fit)}, or another data.base."
        )
    return Numbers(base, way, FOLDER_SHOT, new // way if new else 0), list(range(total))


def assemble(
    name: str, source: Source, *, base: int, way: int, shot: int, draws: int, seed: int
) -> Protocol:
    """Choose classes and draws, then read the pictures that they need."""
    _check_total(name, len(source.classes))
    numbers, kept = choose(name, len(source.classes), base, way)
    classes = tuple(source.classes[label] for label in kept)
    shot = shot or numbers.shot
    train, test = (_by_class(labels, kept) for labels in (source.train, source.test))
    for label, least in enumerate([2] * numbers.base + [shot] * (len(kept) - numbers.base)):
        if len(train[label]) < least or not test[label]:
            raise ValueError(
                f"class {classes[label]!r} of {name} has {len(train[label])} pictures to train and "
                f"{len(test[label])} to test on, at least {least} and 1 are needed. Add pictures, "
                f"or {'remove the class' if label < numbers.base else 'lower data.shot'}."
            )
    order = [_order(source, train[label], classes[label], seed) for label in range(len(kept))]
    drawn = [
        [
            _draw(order[label], shot, draw, f"{seed}/{classes[label]}/{draw}")
            for label in range(numbers.base, len(kept))
        ]
        for draw in range(draws)
    ]
    novel = [sorted({row for draw in drawn for row in draw[i]}) for i in range(len(drawn[0]))]
    at = {row: index for index, row in enumerate(_flat(novel))}
    support = tuple(
        tuple(
            torch.tensor([at[row] for row in _flat(draw[first : first + numbers.way])])
            for first in range(0, len(novel), numbers.way or 1)
        )
        for draw in drawn
    )

    def load(split: str, rows: list[list[int]], first: int = 0) -> Pictures:
        held = source.load(split, _flat(rows))
        labels = [first + label for label, of_class in enumerate(rows) for _ in of_class]
        return Pictures(held.images, torch.tensor(labels, dtype=torch.int64), held.names)

    return Protocol(
        name=name,
        classes=classes,
        base=numbers.base,
        way=numbers.way,
        shot=shot,
        sessions=numbers.sessions,
        train=load("train", train[: numbers.base]),
        novel=load("train", novel, numbers.base),
        test=load("test", test),
        support=support,
        view=source.view,
    )


def _by_class(labels: Sequence[int], kept: list[int]) -> list[list[int]]:
    rows: dict[int, list[int]] = {label: [] for label in kept}
    for row, label in enumerate(labels):
        if label in rows:
            rows[label].append(row)
    return list(rows.values())


def _order(source: Source, rows: list[int], name: str, seed: int) -> list[int]:
    """Rows of a class in the order in which draws take them: the public photos first."""
    own = set(rows)
    first = [row for row in source.listed if row in own]
    rest = sorted(own.difference(first))
    if not source.is_ordered:
        rest = [rest[i] for i in random_of(f"{seed}/{name}").permutation(len(rest))]
    return first + rest


def _draw(order: list[int], shot: int, draw: int, key: str) -> list[int]:
    """Photos of one draw: the next ones, or any where too few are left for all draws to differ."""
    if (draw + 1) * shot <= len(order):
        return order[draw * shot : (draw + 1) * shot]
    return [order[i] for i in random_of(key).choice(len(order), shot, replace=False)]


def random_of(key: str) -> np.random.Generator:
    """A generator of its own for each key, the same on every machine."""
    return np.random.default_rng(zlib.crc32(key.encode()))


def _flat(lists: Sequence[Sequence[int]]) -> list[int]:
    return [item for part in lists for item in part]


HELD: dict[str, tuple[int, int, tuple[Colours, Colours]]] = {
    # side of held pictures, of the input, colours; pictures of another input scale with it
    "tiny_imagenet_fscil": (64, 32, TINY),
    "cifar100": (32, 32, CIFAR),
    "mini_imagenet": (92, 84, IMAGENET),
    "cub200": (256, 224, IMAGENET),
    "folder": (8, 7, IMAGENET),
    "shapes": (32, 32, ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))),
}
FIXED = ("tiny_imagenet_fscil", "cifar100", "shapes")
"""Sets whose pictures are held as they are."""


def view(name: str, size: int = 0) -> View:
    """The view that makes inputs of `size` pixels of a set's pictures; 0 is the set's own."""
    side, own, colours = HELD[name]
    if name not in FIXED:
        size = size or (FOLDER_SIZE if name == "folder" else own)
        return View(round(size * side / own), size, *colours)
    if size and side % size:
        raise ValueError(
            f"data.size is {size}, but {name} has pictures of {side}: set a divisor of that, or 0."
        )
    return View(side, size or own, *colours)
