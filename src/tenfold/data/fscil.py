"""Few-shot class-incremental protocols: base classes, then sessions of a few photos of new ones.

`read` makes one from any of the public benchmarks or from a folder of class folders.
"""

from __future__ import annotations

import csv
import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from . import catalog, cifar
from .findings import Findings, some
from .pictures import (
    ENDINGS,
    How,
    Pictures,
    class_folders,
    inside_of,
    open_stored,
    read_pictures,
)

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CIFAR = ((0.507, 0.487, 0.441), (0.267, 0.256, 0.276))  # spec section 1
TINY = ((0.4824, 0.4454, 0.3919), (0.2616, 0.2530, 0.2666))  # README of the set, at 32x32
Colours = tuple[float, float, float]


@dataclass(frozen=True)
class View:
    """How a held picture becomes the network's input."""

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
        """What augmentation starts from, in [0, 1]: pooled if `size` divides `side`, else whole."""
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
"""The public protocols (spec section 1), and that of `generated.shapes`."""
NAMES = ("tiny_imagenet_fscil", "cifar100", "mini_imagenet", "cub200", "folder")
"""What `read` takes."""
FOLDER_SHOT, FOLDER_SIZE, FOLDER_TEST = 5, 32, 2
"""Of a folder: photos of a new class, side of the input, least test pictures of a class (ours)."""

Load = Callable[[str, Sequence[int]], Pictures]


@dataclass(frozen=True)
class Source:
    """What a data set has, before protocols choose from it. Labels are the set's own."""

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
    """Whether the further photos of a class are drawn in the order of rows, not at random."""


def read(
    name: str,
    path: str | Path = "",
    *,
    size: int = 0,
    base: int = 0,
    way: int = 0,
    shot: int = 0,
    draws: int = 1,
    test_share: int | float = 0.2,
    seed: int = 0,
    skip_broken: bool = False,
) -> Protocol:
    """The protocol of a data set found at `path`, or if that is empty under $TENFOLD_DATA.

    0 stands for the set's own number. With a smaller `base` or `way`, the first classes of the base
    session or of each session are taken. Draw 0 is the public one; further draws are other training
    pictures, in the order of a permutation seeded by `seed` and the class, disjoint as long as a
    class has enough. test_share and skip_broken concern `folder` only.
    """
    folder = _folder(name, path)
    if draws < 1:
        raise ValueError(f"data.draws must be at least 1, got {draws}")
    if name == "folder":
        source = _from_folder(folder, size or FOLDER_SIZE, test_share, seed, skip_broken)
    else:
        source = SOURCES[name](folder, size)
    return assemble(name, source, base=base, way=way, shot=shot, draws=draws, seed=seed)


def describe(name: str, path: str | Path = "", *, base: int = 0, way: int = 0) -> tuple[str, ...]:
    """The classes of `read`'s protocol, in label order, without reading a picture."""
    folder = _folder(name, path)
    classes = CLASSES[name](folder)
    _check_total(name, len(classes))
    _, kept = choose(name, len(classes), base, way)
    return tuple(classes[label] for label in kept)


def _folder(name: str, path: str | Path) -> Path:
    if name == "folder":
        if str(path) in ("", "."):
            raise ValueError("data.path is empty: give the folder that holds the class folders.")
        return Path(path).expanduser()
    if name not in NAMES:
        raise ValueError(f"no pictures are read for {name!r}: choose one of {', '.join(NAMES)}.")
    return catalog.find_or_explain(name, path)


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
        rest = [rest[i] for i in _random(f"{seed}/{name}").permutation(len(rest))]
    return first + rest


def _draw(order: list[int], shot: int, draw: int, key: str) -> list[int]:
    """Photos of one draw: the next ones, or any where too few are left for all draws to differ."""
    if (draw + 1) * shot <= len(order):
        return order[draw * shot : (draw + 1) * shot]
    return [order[i] for i in _random(key).choice(len(order), shot, replace=False)]


def _random(key: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(key.encode()))


def _flat(lists: Sequence[Sequence[int]]) -> list[int]:
    return [item for part in lists for item in part]


# The data sets -------------------------------------------------------------------------------


def _lists(folder: Path, name: str) -> list[list[str]]:
    """Lines of each session's file; session_1 is the base session and is not read."""
    sessions = []
    for number in range(2, OWN[name].sessions + 2):
        file = folder / f"session_{number}.txt"
        findings = Findings(folder)
        lines = findings.lines(file)
        if findings.result.problems or not lines:
            what = findings.result.problems[0].what if findings.result.problems else "is empty"
            raise ValueError(f"{file} {what}. Copy the session lists again.")
        sessions.append(lines)
    return sessions


def _public_lists(name: str) -> Path:
    try:
        folder = catalog.find_or_explain("fscil_index_lists")
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{name}: which photos new classes have is fixed by public session lists. {error}"
        ) from error
    return folder / name


def _listed(
    folder: Path, name: str, row_of: Callable[[str], int | None], labels: Sequence[int]
) -> list[int]:
    """Training rows that the session lists name, all sessions after one another; checked."""
    own, rows = OWN[name], []
    for session, lines in enumerate(_lists(folder, name)):
        file = folder / f"session_{session + 2}.txt"
        low = own.base + own.way * session
        for line in lines:
            row = row_of(line)
            if row is None:
                raise ValueError(
                    f"{file} names {line!r}, which is no training picture of {name} here. Use the "
                    "set and the lists as they are published."
                )
            if not low <= labels[row] < low + own.way:
                raise ValueError(
                    f"{file} names {line!r}, a picture of class {labels[row]}, but this session "
                    f"has classes {low}-{low + own.way - 1}: lists and pictures do not belong "
                    "together. Use both as they are published."
                )
            rows.append(row)
    if len(set(rows)) != len(rows):
        raise ValueError(f"the lists in {folder} name a picture twice. Copy them again.")
    return rows


def _row_number(count: int) -> Callable[[str], int | None]:
    """Lines that are row numbers below `count`."""
    return lambda line: (
        int(line) if re.fullmatch(r"[0-9]{1,9}", line) and int(line) < count else None
    )


HELD: dict[str, tuple[int, int, tuple[Colours, Colours]]] = {
    # side of held pictures, of the input, colours; pictures of another input scale with it
    "tiny_imagenet_fscil": (64, 32, TINY),
    "cifar100": (cifar.SIDE, 32, CIFAR),
    "mini_imagenet": (92, 84, IMAGENET),
    "cub200": (256, 224, IMAGENET),
    "folder": (8, 7, IMAGENET),
    "shapes": (32, 32, ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))),
}
FIXED = ("tiny_imagenet_fscil", "cifar100", "shapes")
"""Sets whose pictures are held as they are."""


def view(name: str, size: int = 0) -> View:
    """How the pictures of a set become inputs of `size` pixels; 0 is the set's own."""
    side, own, colours = HELD[name]
    if name not in FIXED:
        size = size or (FOLDER_SIZE if name == "folder" else own)
        return View(round(size * side / own), size, *colours)
    if size and side % size:
        raise ValueError(
            f"data.size is {size}, but {name} has pictures of {side}: set a divisor of that, or 0."
        )
    return View(side, size or own, *colours)


def _tiny_imagenet_fscil(folder: Path, size: int) -> Source:
    seen = view("tiny_imagenet_fscil", size)
    classes = _tiny_classes(folder)
    base, novel, test = (
        open_stored(folder / f"{part}.npz", 64, len(classes))
        for part in ("train_base", "train_novel", "test")
    )
    labels = [*base.labels, *novel.labels]
    rows = _listed(
        folder / "index_list", "tiny_imagenet_fscil", _row_number(len(novel.labels)), novel.labels
    )

    def load(split: str, wanted: Sequence[int]) -> Pictures:
        if split == "test":
            return test.read(wanted)
        first = len(base.labels)
        if all(row < first for row in wanted):
            return base.read(wanted)
        return novel.read([row - first for row in wanted])

    return Source(
        classes=classes,
        train=labels,
        test=test.labels,
        load=load,
        view=seen,
        listed=[len(base.labels) + row for row in rows],
        is_ordered=True,
    )


def _tiny_classes(folder: Path) -> tuple[str, ...]:
    file = folder / "classes.json"
    items = Findings(folder).json(file)
    names = [item.get("name") for item in items or [] if isinstance(item, dict)]
    if not names or not all(isinstance(name, str) for name in names):
        raise ValueError(
            f"{file} is missing or names no classes. Prepare the set again (`tenfold data info "
            "tiny_imagenet_fscil`)."
        )
    return tuple(str(name) for name in names)


def _cifar100(folder: Path, size: int) -> Source:
    seen = view("cifar100", size)
    lists = _public_lists("cifar100")  # before the pictures, which take longer
    parts = {split: cifar.read(folder, split) for split in ("train", "test")}
    labels = {split: part.labels.tolist() for split, part in parts.items()}
    row = _row_number(len(labels["train"]))
    return Source(
        classes=cifar.class_names(folder),
        train=labels["train"],
        test=labels["test"],
        load=lambda split, rows: parts[split].at(torch.tensor(rows, dtype=torch.int64)),
        view=seen,
        listed=_listed(lists, "cifar100", row, labels["train"]),
    )


def _from_files(
    files: dict[str, list[tuple[Path, int]]], classes: tuple[str, ...], how: How, view: View,
    listed: Sequence[int],
) -> Source:  # fmt: skip
    """A source whose pictures are files, each with its label."""

    def load(split: str, rows: Sequence[int]) -> Pictures:
        chosen = [files[split][row] for row in rows]
        return read_pictures(
            [file for file, _ in chosen], [label for _, label in chosen], view.side, how
        )

    labels = {split: [label for _, label in items] for split, items in files.items()}
    return Source(classes, labels["train"], labels["test"], load, view, listed)


def _mini_classes(folder: Path) -> tuple[str, ...]:
    file = _public_lists("mini_imagenet") / "class_order.txt"
    order = Findings(file.parent).lines(file)
    if len(set(order)) != len(order) or not all(re.fullmatch(r"n[0-9]{8}", wnid) for wnid in order):
        raise ValueError(f"{file} is not a list of different WordNet ids. Copy it again.")
    if not order:
        raise ValueError(f"{file} is missing or empty. Copy the session lists again.")
    return tuple(order)


def _mini_imagenet(folder: Path, size: int) -> Source:
    order = _mini_classes(folder)
    label = {wnid: number for number, wnid in enumerate(order)}
    files = {split: _mini_files(folder, split, label) for split in ("train", "test")}
    row = {file.name: number for number, (file, _) in enumerate(files["train"])}
    listed = _listed(
        _public_lists("mini_imagenet"),
        "mini_imagenet",
        lambda line: row.get(line.rpartition("/")[2]),
        [number for _, number in files["train"]],
    )
    return _from_files(files, order, "stretch", view("mini_imagenet", size), listed)


def _mini_files(folder: Path, split: str, label: dict[str, int]) -> list[tuple[Path, int]]:
    """Pictures of a split, in the order of its csv file, or by folder and name."""
    for root in (folder, folder / "MINI-ImageNet", folder / "miniimagenet"):
        for table in (root / "split" / f"{split}.csv", root / f"{split}.csv"):
            if table.is_file() and (root / "images").is_dir():
                return _mini_table(root / "images", table, label)
        if (root / split).is_dir():
            return [
                (inside_of(root, file), label[wnid.name])
                for wnid in sorted((root / split).iterdir())
                if wnid.name in label and wnid.is_dir()
                for file in sorted(wnid.iterdir())
                if file.suffix.lower() in ENDINGS and not file.name.startswith(".")
            ]
    raise FileNotFoundError(
        f"{folder} holds neither images/ with split/{split}.csv nor {split}/<wnid>/. Put "
        "miniImageNet there as `tenfold data info mini_imagenet` says."
    )


def _mini_table(images: Path, table: Path, label: dict[str, int]) -> list[tuple[Path, int]]:
    try:
        rows = list(csv.reader(table.read_text(encoding="utf-8").splitlines()))[1:]
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{table} cannot be read as csv: {error}.") from error
    for number, row in enumerate(rows, 2):
        if len(row) != 2 or row[1] not in label:
            raise ValueError(
                f"{table} line {number} is {','.join(row)[:80]!r}, expected <file>,<wnid of "
                "class_order.txt>."
            )
    if len({wnid for _, wnid in rows}) != len(label):
        raise ValueError(
            f"{table} has {len({wnid for _, wnid in rows})} of the {len(label)} classes: it is not "
            "the split of class-incremental learning (500 and 100 pictures of every class). See "
            "`tenfold data info mini_imagenet`."
        )
    return [(inside_of(images, images / file), label[wnid]) for file, wnid in rows]


def _cub_root(folder: Path) -> Path:
    for root in (folder, folder / "CUB_200_2011"):
        if (root / "images.txt").is_file():
            return root
    raise FileNotFoundError(
        f"{folder} holds no CUB_200_2011/images.txt. Unpack the archive of CUB-200-2011 there "
        "(`tenfold data info cub200`)."
    )


def _cub_table(file: Path) -> dict[int, str]:
    """Number -> the rest of the line."""
    findings = Findings(file.parent)
    lines = [line.split() for line in findings.lines(file)]
    if findings.result.problems:
        raise ValueError(f"{file} {findings.result.problems[0].what}. Unpack the archive again.")
    wrong = [i for i, parts in enumerate(lines, 1) if len(parts) != 2 or not parts[0].isdecimal()]
    table = {int(parts[0]): parts[1] for parts in lines} if not wrong else {}
    if not table or len(table) != len(lines):
        where = f"line {wrong[0]} is not <number> <value>" if wrong else "has numbers twice or none"
        raise ValueError(f"{file}: {where}. Unpack the archive again.")
    return table


def _cub_classes(folder: Path) -> tuple[str, ...]:
    """Species by number, without the number and underscores that folders have."""
    file = _cub_root(folder) / "classes.txt"
    table = _cub_table(file)
    if sorted(table) != list(range(1, len(table) + 1)):
        raise ValueError(f"{file} does not number its classes 1-{len(table)}.")
    return tuple(table[i].partition(".")[2].replace("_", " ") for i in sorted(table))


def _cub200(folder: Path, size: int) -> Source:
    root, classes = _cub_root(folder), _cub_classes(folder)
    images, split, label = (
        _cub_table(root / f"{stem}.txt")
        for stem in ("images", "train_test_split", "image_class_labels")
    )
    if not images.keys() == split.keys() == label.keys():
        raise ValueError(
            f"{root}: images.txt, train_test_split.txt and image_class_labels.txt do not list the "
            "same pictures. Unpack the archive again."
        )
    names = {str(number + 1): number for number in range(len(classes))}
    files: dict[str, list[tuple[Path, int]]] = {"train": [], "test": []}
    row: dict[str, int] = {}
    for number, name in images.items():
        if label[number] not in names or split[number] not in ("0", "1"):
            raise ValueError(
                f"{root}: picture {number} has class {label[number]!r} and split "
                f"{split[number]!r}, allowed are 1-{len(classes)} and 0 or 1."
            )
        part = files["train" if split[number] == "1" else "test"]
        if part is files["train"]:
            row[name] = len(part)
        part.append((inside_of(root / "images", root / "images" / name), names[label[number]]))
    listed = _listed(
        _public_lists("cub200"),
        "cub200",
        lambda line: row.get(line.removeprefix("CUB_200_2011/images/")),
        [number for _, number in files["train"]],
    )
    return _from_files(files, classes, "shorter", view("cub200", size), listed)


def _trees(folder: Path) -> tuple[dict[str, list[Path]], dict[str, list[Path]] | None]:
    """Class folders to train and to test on; without test/ or val/ the second is None."""
    test = next((folder / n for n in ("test", "val") if (folder / n).is_dir()), None)
    if test is None or not (folder / "train").is_dir():
        return class_folders(folder), None
    inside_of(folder, folder / "train"), inside_of(folder, test)
    trees = class_folders(folder / "train"), class_folders(test)
    if trees[0].keys() != trees[1].keys():
        odd = sorted(trees[0].keys() ^ trees[1].keys())
        raise ValueError(
            f"{folder}: train and {test.name} do not hold the same classes; only one has "
            f"{some(odd)}. Add or remove these folders."
        )
    return trees


def _from_folder(
    folder: Path, size: int, test_share: int | float, seed: int, skip_broken: bool
) -> Source:
    """Class folders, sorted; a share of each class is kept for the test if none is given."""
    train, test = _trees(folder)
    if test is None and test_share <= 0:
        raise ValueError(
            f"{folder} has no test/ or val/ beside train/, and data.test_share is {test_share}. "
            "Set it to 0.2, for example."
        )
    classes = tuple(train)
    seen = view("folder", size)
    parts = []
    for tree in (train, test or {}):
        files = [file for of_class in tree.values() for file in of_class]
        labels = [classes.index(name) for name, of_class in tree.items() for _ in of_class]
        if files:
            parts.append(read_pictures(files, labels, seen.side, "shorter", skip_broken))
    held = {"train": parts[0], "test": parts[-1]}
    rows: dict[str, list[int]] = {"train": [], "test": []}
    for label, name in enumerate(classes):
        own = {part: (held[part].labels == label).nonzero()[:, 0].tolist() for part in held}
        if test is None:
            count = max(FOLDER_TEST, round(test_share * len(own["train"])))
            mixed = _random(f"{seed}/{name}/test").permutation(own["train"]).tolist()
            own = {"train": sorted(mixed[count:]), "test": sorted(mixed[:count])}
        if len(own["test"]) < FOLDER_TEST:
            raise ValueError(
                f"{folder}: class {name!r} has {len(own['test'])} pictures to test on, at least "
                f"{FOLDER_TEST} are needed. Add pictures, or remove the class."
            )
        rows["train"] += own["train"]
        rows["test"] += own["test"]
    return Source(
        classes=classes,
        train=held["train"].labels[rows["train"]].tolist(),
        test=held["test"].labels[rows["test"]].tolist(),
        load=lambda split, wanted: held[split].at(
            torch.tensor([rows[split][row] for row in wanted], dtype=torch.int64)
        ),
        view=seen,
    )


SOURCES: dict[str, Callable[[Path, int], Source]] = {
    "tiny_imagenet_fscil": _tiny_imagenet_fscil,
    "cifar100": _cifar100,
    "mini_imagenet": _mini_imagenet,
    "cub200": _cub200,
}
"""What reads each public benchmark: (folder, size or 0)."""
CLASSES: dict[str, Callable[[Path], tuple[str, ...]]] = {
    "tiny_imagenet_fscil": _tiny_classes,
    "cifar100": cifar.class_names,
    "mini_imagenet": _mini_classes,
    "cub200": _cub_classes,
    "folder": lambda folder: tuple(_trees(folder)[0]),
}
"""Class names of each, in label order, without reading pictures."""
