"""Readers of the few-shot class-incremental data sets: from files to a `Source` of `fscil`."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from .. import catalog
from ..io.problems import Problems, some
from . import cifar
from .decode import ENDINGS, How, Pictures, Reading, read_pictures
from .folders import class_folders, inside_of, split_folders
from .fscil import OWN, Source, View, random_of, view
from .stored import open_stored

FOLDER_TEST = 2
"""Least test pictures of a class of a folder (ours)."""


def _lists(folder: Path, name: str) -> list[list[str]]:
    """Lines of each session's file; session_1 is the base session and is not read."""
    sessions = []
    for number in range(2, OWN[name].sessions + 2):
        file = folder / f"session_{number}.txt"
        problems = Problems(folder)
        lines = problems.lines(file)
        if problems.result.problems or not lines:
            what = problems.result.problems[0].what if problems.result.problems else "is empty"
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
    items = Problems(folder).json(file)
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
    order = Problems(file.parent).lines(file)
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
    problems = Problems(file.parent)
    lines = [line.split() for line in problems.lines(file)]
    if problems.result.problems:
        raise ValueError(f"{file} {problems.result.problems[0].what}. Unpack the archive again.")
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


def _trees(
    folder: Path, reading: Reading
) -> tuple[dict[str, list[Path]], dict[str, list[Path]] | None]:
    """Class folders to train and to test on; without test/ or val/ the second is None."""
    links = reading.follow_links
    parts = split_folders(folder, links)
    test = parts.get("test") or parts.get("val")
    if test is None or "train" not in parts:
        return class_folders(folder, links), None
    trees = class_folders(parts["train"], links), class_folders(test, links)
    if trees[0].keys() != trees[1].keys():
        odd = sorted(trees[0].keys() ^ trees[1].keys())
        raise ValueError(
            f"{folder}: {parts['train'].name} and {test.name} do not hold the same classes; only "
            f"one has {some(odd)}. Add or remove these folders."
        )
    return trees


def folder_classes(folder: Path, reading: Reading) -> tuple[str, ...]:
    """Class names of class folders, in label order, without reading pictures."""
    return tuple(_trees(folder, reading)[0])


def from_folder(
    folder: Path, size: int, test_share: int | float, seed: int, reading: Reading
) -> Source:
    """Class folders, sorted; a share of each class is kept for the test if none is given."""
    train, test = _trees(folder, reading)
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
            parts.append(read_pictures(files, labels, seen.side, "shorter", reading.skip_broken))
    held = {"train": parts[0], "test": parts[-1]}
    rows: dict[str, list[int]] = {"train": [], "test": []}
    for label, name in enumerate(classes):
        own = {part: (held[part].labels == label).nonzero()[:, 0].tolist() for part in held}
        if test is None:
            count = max(FOLDER_TEST, round(test_share * len(own["train"])))
            mixed = random_of(f"{seed}/{name}/test").permutation(own["train"]).tolist()
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
"""Reader of each public benchmark: (folder, size or 0)."""
CLASSES: dict[str, Callable[[Path], tuple[str, ...]]] = {
    "tiny_imagenet_fscil": _tiny_classes,
    "cifar100": cifar.class_names,
    "mini_imagenet": _mini_classes,
    "cub200": _cub_classes,
}
"""Class names of each of them, in label order, without reading pictures."""
