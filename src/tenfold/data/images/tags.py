"""A folder of pictures with image-level labels of a user's own, whatever tool wrote them.

Looked for are, in this order: a table (CSV or TSV; `train.csv` and `val.csv`; Roboflow's
`train/_classes.csv`), JSON of LabelMe or X-AnyLabeling beside the pictures, class folders. Masks,
for measuring, lie in `masks/` or another folder that `maps` knows, under the pictures' names.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..io.problems import some
from .class_maps import NUMBERS, UNKNOWN, class_map_of, is_class_map
from .coco_files import WHOLE, split_of, warn_of_unnamed
from .decode import SPLITS, Reading
from .folders import files_below, held_out, pictures_of, split_folders, visible
from .image_labels import Item, MultiLabelSet, plain_table
from .label_tables import Table, read_table
from .maps import MAPS, NAMES, PICTURES, class_names_in
from .picture_names import PictureNames, picture_names
from .segmentation import IGNORED, SUFFIX, read_names
from .tag_files import Labels, is_tag_file, read_class_folders, read_tags

BACKGROUND = frozenset(("background", "_background_", "bg"))
"""Names, in small letters, of what is no class."""
VOID = frozenset(("ignore", "ignored", "__ignore__", "void", "unlabeled", "unlabelled"))
LISTS = tuple(name for name in NAMES if name.endswith((".txt", ".json")))
"""Files that list the classes; a CSV of such a name may be the table itself."""
CLASS_TABLES = frozenset(("class_dict.csv", "classes.csv"))

Parts = dict[str, Labels]
"""Split -> labels by picture."""


class NoSplit(ValueError):
    """The pictures have no such split."""


@dataclass(frozen=True)
class Source:
    """Labels as they were found."""

    parts: Parts
    order: tuple[str, ...]
    """Names in the order of a table's columns; empty if they have none."""
    how: str
    """Where the labels come from, in words."""


def open_folder(
    path: Path, split: str, reading: Reading, test_share: float, seed: int
) -> dict[str, MultiLabelSet]:
    """The splits "train" and `split` of a folder, or of a table and the pictures around it.

    A set without validation pictures keeps `test_share` of those for training, chosen by their
    names and the seed, but leaves each class one for training.

    Raises:
        NoSplit: There is no such split.
        ValueError: Something does not fit, or can be meant in two ways; the error names it.
        FileNotFoundError: There is nothing of that kind, or a picture that is named is missing.
    """
    folder = path.parent if path.is_file() else path
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not there. Give a folder of pictures, or a table.")
    masks = _mask_folders(folder)
    files = [
        file for file in files_below(folder, folder, reading.follow_links)
        if not any(place in file.parents for place in masks)
    ]  # fmt: skip
    root = next((p for p in _children(folder, PICTURES)), folder)
    pictures = [file for file in pictures_of(files) if root == folder or root in file.parents]
    if not pictures:
        raise FileNotFoundError(f"{root} holds no picture, nor do the folders in it.")
    listed = _listed_classes(folder)
    source = _source(path, folder, files, picture_names(root, pictures), listed, reading)
    parts = _divided(source.parts, root, test_share, seed)
    if split not in parts:
        raise NoSplit(f"{path} has no split {split!r}; it has {', '.join(parts)}")
    classes = _classes(path, source, listed)
    truth = _Truth(folder, masks, classes, reading) if masks else None
    number = {_key(name): i for i, name in enumerate(classes)}
    names = _item_names(root, [p for labels in source.parts.values() for p in labels])
    found = {}
    for part in dict.fromkeys(("train", split)):
        items = []
        for picture, tags in parts[part].items():
            labels = {number[_key(tag)] for tag in tags if _key(tag) not in BACKGROUND}
            item = Item(names[picture], picture, tuple(sorted(labels)))
            mask = truth.of(picture, root) if truth else None
            if mask is not None and truth:
                item = replace(item, mask=mask, table=truth.table)
            items.append(replace(item, ignore_exif=reading.ignore_exif))
        found[part] = MultiLabelSet(str(path), "real", classes, tuple(items), source.how)
    return found


def has_labels(folder: Path) -> bool:
    """Return True if a folder holds a table of labels, or JSON of LabelMe."""
    files = files_below(folder, folder)
    json = [file for file in files if file.suffix.lower() == ".json" and file.name not in LISTS]
    try:
        has_table = bool(_tables(folder, files))
    except ValueError:  # several of them
        has_table = True
    return has_table or any(is_tag_file(file) for file in json)


# --- where the labels are ------------------------------------------------------------------------


def _source(
    path: Path, folder: Path, files: Sequence[Path], names: PictureNames,
    listed: tuple[str, ...], reading: Reading,
) -> Source:  # fmt: skip
    tables = {WHOLE: path} if path.is_file() else _tables(folder, files)
    if tables:
        return _of_tables(tables, names, listed, reading)
    json = [file for file in files if file.suffix.lower() == ".json" and file.name not in LISTS]
    tags = read_tags(json, names, reading.skip_broken) if json else {}
    if tags:
        _note_unlisted(names, tags, "have no label file")
        parts = _by_folder(tags, names.root)
        return Source(parts, (), "flags and shapes of LabelMe's files beside the pictures")
    try:
        places = split_folders(names.root, reading.follow_links) or {WHOLE: names.root}
        parts = {s: read_class_folders(p, reading.follow_links) for s, p in places.items()}
    except ValueError as error:
        raise FileNotFoundError(
            f"{folder} has no labels: neither a table (CSV or TSV), nor JSON of LabelMe beside the "
            f"pictures, nor class folders ({error})"
        ) from error
    return Source(parts, (), "class folders")


def _tables(folder: Path, files: Sequence[Path]) -> dict[str, Path]:
    """Split -> table; WHOLE for the one table of all."""
    places = [folder, *split_folders(folder).values()]
    found: dict[str, list[Path]] = {}
    for place in places:
        for file in files:
            is_table = file.suffix.lower() in (".csv", ".tsv") and file.name not in CLASS_TABLES
            if file.parent == place and is_table and not _lists_numbers(file):
                found.setdefault(split_of(folder, file), []).append(file)
    if "train" in found:
        unnamed = found.pop(WHOLE, [])
        warn_of_unnamed(folder, unnamed, sum(map(_lines_of, unnamed)), "lines")
    for split, several in found.items():
        if len(several) > 1:
            shown = some([file.relative_to(folder).as_posix() for file in several])
            raise ValueError(
                f"{folder} holds several tables{'' if split == WHOLE else f' for {split}'}: "
                f"{shown}. Give the path of one, or name them train.csv, val.csv and test.csv."
            )
    if len(found) == 1:
        return {WHOLE: next(iter(found.values()))[0]}
    if WHOLE in found:  # labels.csv beside val.csv
        found = {"train": found.pop(WHOLE), **found}
    return {split: several[0] for split, several in found.items()}


def _lines_of(file: Path) -> int:
    with file.open("rb") as opened:
        return sum(bool(line.strip()) for line in opened)


def _lists_numbers(file: Path) -> bool:
    """Return True for Roboflow's list of the numbers in masks, which is called as its table is."""
    with file.open("rb") as opened:
        head = opened.read(64).removeprefix(b"\xef\xbb\xbf").lower()
    return head.startswith(b"pixel value")


def _of_tables(
    tables: dict[str, Path], names: PictureNames, listed: tuple[str, ...], reading: Reading
) -> Source:
    read: dict[str, Table] = {}
    for split, file in tables.items():
        inside = names
        if file.parent.name.casefold() in [name for all_ in SPLITS.values() for name in all_]:
            near = [p for p in names.every() if file.parent in p.parents]
            inside = picture_names(file.parent, near)
        read[split] = read_table(file, inside, listed, reading.skip_broken)
    every = {picture: split for split, table in read.items() for picture in table.labels}
    for split, table in read.items():
        both = [p.name for p in table.labels if every[p] != split]
        if both:
            raise ValueError(
                f"{table.file}: {len(both)} pictures are in the table of another split as well "
                f"({some(both)}). Put each into one."
            )
    _note_unlisted(names, every, f"are not in {some([f.name for f in tables.values()])}")
    order = dict.fromkeys(name for table in read.values() for name in table.classes)
    how = "; ".join(f"{table.file.name}: {table.form}" for table in read.values())
    if WHOLE not in read:
        return Source({split: table.labels for split, table in read.items()}, tuple(order), how)
    (table,) = read.values()
    parts: Parts = {}
    for picture, labels in table.labels.items():
        if table.splits:
            parts.setdefault(table.splits[picture], {})[picture] = labels
    return Source(parts or _by_folder(table.labels, names.root), tuple(order), how)


def _note_unlisted(names: PictureNames, listed: Mapping[Path, object], what: str) -> None:
    every = names.every()
    left = [file.name for file in every if file not in listed]
    if left:
        warnings.warn(
            f"{names.root}: {len(left)} of {len(every)} pictures {what}, and are left out: "
            f"{some(left)}",
            stacklevel=6,
        )


def _by_folder(labels: Labels, root: Path) -> Parts:
    """The splits that folders around the pictures name, or all in WHOLE."""
    words = {word: split for split, all_ in SPLITS.items() for word in all_}
    parts: Parts = {}
    for picture, tags in labels.items():
        around = [p.casefold() for p in picture.relative_to(root).parts[:-1]]
        split = next((words[part] for part in around if part in words), WHOLE)
        parts.setdefault(split, {})[picture] = tags
    return parts if WHOLE not in parts else {WHOLE: labels}


def _divided(parts: Parts, root: Path, share: float, seed: int) -> Parts:
    """The parts with a train and a val among them."""
    parts = dict(parts)
    whole = parts.pop(WHOLE, None)
    if whole is not None:
        parts["train"] = whole
    if "train" not in parts:
        raise ValueError(
            f"{root} has pictures for {', '.join(parts)}, but none to train on. Name a part train."
        )
    if "val" not in parts:
        train = parts["train"]
        names = {p.relative_to(root).as_posix(): p for p in train}
        kept = held_out(sorted(names), f"{seed}/own", share) if len(names) > 1 else set()
        held = [picture for name, picture in names.items() if name in kept]
        for tag in sorted({tag for picture in held for tag in train[picture]}):
            if not any(tag in tags for p, tags in train.items() if p not in held):
                held.remove(next(p for p in held if tag in train[p]))
        parts["val"] = {p: train[p] for p in held}
        parts["train"] = {p: tags for p, tags in train.items() if p not in parts["val"]}
    return parts


def _item_names(root: Path, pictures: Sequence[Path]) -> dict[Path, str]:
    """Path below the root without ending, or with it where two differ in nothing else."""
    bare = {p: p.relative_to(root).with_suffix("").as_posix() for p in pictures}
    times = Counter(bare.values())
    return {
        p: name if times[name] == 1 else p.relative_to(root).as_posix() for p, name in bare.items()
    }


# --- classes -------------------------------------------------------------------------------------


def _key(name: str) -> str:
    return " ".join(name.casefold().split())


def _listed_classes(folder: Path) -> tuple[str, ...]:
    """Names in a list beside the pictures, without background; none if there is no list."""
    file = next((folder / name for name in LISTS if (folder / name).is_file()), None)
    if file is None:
        return ()
    return tuple(n for n in _numbers(file).values() if _key(n) not in BACKGROUND | VOID)


def _classes(path: Path, source: Source, listed: tuple[str, ...]) -> tuple[str, ...]:
    """The classes in order; ValueError for names that differ in capitals or spaces only."""
    used: dict[str, Path] = {}
    for labels in source.parts.values():
        for picture, tags in labels.items():
            for tag in tags:
                used.setdefault(tag, picture)
    names = [name for name in dict.fromkeys((*listed, *source.order, *used))
             if _key(name) not in BACKGROUND]  # fmt: skip
    same: dict[str, str] = {}
    for name in names:
        if same.setdefault(_key(name), name) != name and name not in listed:
            raise ValueError(
                f"{path} has two names of one class: {same[_key(name)]!r} and {name!r} differ in "
                "capitals or spaces only. Write one."
            )
    alien = [name for name in used if listed and _key(name) not in map(_key, listed)]
    alien = [name for name in alien if _key(name) not in BACKGROUND]
    if alien:
        raise ValueError(
            f"{path}: {used[alien[0]].name} has the label {alien[0][:60]!r}, which the list of "
            f"classes ({some(listed)}) does not have. Add it, or mend the label."
        )
    if not names:
        raise ValueError(f"{path}: no picture has a label. Label some.")
    return tuple(names) if listed or source.order else tuple(sorted(names))


# --- masks ---------------------------------------------------------------------------------------


def _children(folder: Path, names: Sequence[str]) -> list[Path]:
    inside = {item.name.casefold(): item for item in visible(folder, folder, True) if item.is_dir()}
    return [inside[name] for name in names if name in inside]


def _mask_folders(folder: Path) -> list[Path]:
    """Folders of label maps beside pictures, in the folder itself or in its splits."""
    found = []
    for place in (folder, *split_folders(folder).values()):
        has_pictures = bool(_children(place, PICTURES)) or any(
            pictures_of([item]) for item in visible(place, place, True) if item.is_file()
        )
        if has_pictures:
            found += _children(place, MAPS)
    return found


class _Truth:
    """Masks by picture, and what their numbers mean."""

    def __init__(
        self, folder: Path, places: list[Path], classes: tuple[str, ...], reading: Reading
    ) -> None:
        files = [f for p in places for f in pictures_of(files_below(p, p, reading.follow_links))]
        bare = {f: f.with_name(SUFFIX.sub("", f.stem) + f.suffix) for f in files}
        self.masks = {p: picture_names(p, [f for f in files if p in f.parents]) for p in places}
        self.bare = {
            p: picture_names(p, [b for f, b in bare.items() if p in f.parents]) for p in places
        }
        self.original = {b: f for f, b in bare.items()}
        self.table = _mask_table(folder, places, classes)

    def of(self, picture: Path, root: Path) -> Path | None:
        """The mask of a picture, if it has one."""
        name = picture.relative_to(root).as_posix()
        for place, names in self.masks.items():
            if (found := names.find(name)) is not None:
                return found
            if (found := self.bare[place].find(name)) is not None:
                return self.original[found]
        return None


def _mask_table(folder: Path, places: list[Path], classes: tuple[str, ...]) -> tuple[int, ...]:
    """The class of each number that masks store: by a list of names, or in the order of classes."""
    file = next(
        (p / name for p in (*places, folder) for name in LISTS if (p / name).is_file()), None
    )
    if file is None:
        shown = some([f"{i} {name}" for i, name in enumerate(classes, 1)], 8)
        warnings.warn(
            f"{places[0]}: no list says what the numbers of masks mean; taken are 0 background, "
            f"{shown}. If they mean something else, list the names in classes.json.",
            stacklevel=5,
        )
        return plain_table(len(classes))
    place = {_key(name): i for i, name in enumerate(classes, 1)}
    found = [UNKNOWN] * NUMBERS
    found[IGNORED], others = IGNORED, []
    numbers = _numbers(file)
    if 0 not in numbers:
        found[0] = 0
    for number, name in numbers.items():
        if _key(name) in BACKGROUND:
            found[number] = 0
        else:
            found[number] = place.get(_key(name), IGNORED)
            others += [name] * (_key(name) not in place and _key(name) not in VOID)
    if others:
        warnings.warn(
            f"{file}: classes that no picture is labelled with do not count in masks: "
            f"{some(others)}",
            stacklevel=5,
        )
    return tuple(found)


def _numbers(file: Path) -> dict[int, str]:
    """Number in masks -> name. Without a background among the names, they count from 1 on."""
    content = read_names(file, "names the classes") if file.suffix == ".json" else None
    if content is not None and is_class_map(content):
        given = class_map_of(content, file)
        found = {
            number: given.names[place]
            for number, place in enumerate(given.table)
            if place not in (UNKNOWN, IGNORED)
        }
        return found | dict.fromkeys(given.ignored, "ignored")
    if isinstance(content, dict) and content and all(str(k).isdecimal() for k in content):
        found = {int(k): name for k, name in content.items() if isinstance(name, str)}
        if len(found) < len(content) or max(found) >= NUMBERS:
            raise ValueError(f"{file} must name numbers from 0 to {NUMBERS - 1}")
        return found
    names = class_names_in(file)[0]
    if not 1 <= len(names) < IGNORED:
        raise ValueError(f"{file} lists {len(names)} classes, allowed are 1 to {IGNORED - 1}")
    has_background = any(_key(name) in BACKGROUND for name in names)
    return dict(enumerate(names, 0 if has_background else 1))
