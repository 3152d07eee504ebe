"""Tables of image-level labels (CSV) in the forms that people and tools write.

A row a picture with a column of 0 and 1 for each class; a row a picture with a list of labels; a
row for each picture and label. With a heading or without; split by comma, semicolon or tab.
"""

from __future__ import annotations

import csv
import io
import re
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..io.problems import some
from ..io.spreadsheets import without_sep
from .decode import SPLITS
from .label_cells import ONE, labels_of_cells, labels_of_rows
from .picture_names import PictureNames, is_picture_name

MOST_BYTES = 256 * 2**20
DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab"}
YES = frozenset(("1", "1.0", "true", "yes", "x"))
NO = frozenset(("0", "0.0", "false", "no", ""))
IMAGE = frozenset(
    "image images imageid imagename imagepath imagefile img imgid imgname imgpath file files "
    "filename filepath fname name path id picture photo uuid sample".split()
)
"""Headings of the column of pictures, in small letters without signs."""
LABEL = frozenset(
    "label labels labelname labelnames class classes classname classnames tag tags category "
    "categories target targets".split()
)
MANY = frozenset("labels labelnames classes classnames tags categories targets".split())
"""Those of them that speak of several labels."""
SPLIT = frozenset("split set subset partition isvalid".split())
COUNTER = frozenset(("", "unnamed0", "index"))
"""Headings of a column that but counts the rows."""

Row = tuple[int, list[str]]
"""Line of the file, and its cells."""
Problems = tuple[list[str], dict[Path, str], int]
"""Pictures that are missing, those whose rows contradict, and rows that say a thing again."""


@dataclass
class Table:
    """Labels by picture."""

    file: Path
    labels: dict[Path, tuple[str, ...]] = field(default_factory=dict)
    """In the order of the table."""
    splits: dict[Path, str] = field(default_factory=dict)
    """Split of each picture, where the table has a column of it."""
    classes: tuple[str, ...] = ()
    """Names in the order of their columns, where each has one."""
    form: str = ""
    """Form of the table, in words."""


def read_table(
    file: Path, names: PictureNames, known: Sequence[str] = (), skip_broken: bool = False,
    has_option: bool = True,
) -> Table:  # fmt: skip
    """Read a table.

    Args:
        file: CSV in UTF-8 (or UTF-16 with its mark), of at most MOST_BYTES.
        names: Pictures that it may name.
        known: Class names, where these are listed elsewhere.
        skip_broken: Leave out rows of missing pictures and pictures whose rows contradict, with a
            warning, instead of stopping.
        has_option: Whether who asks can set `data.skip_broken`, which errors then name.

    Raises:
        ValueError: The form is none of those above or can be two of them, a name can mean two
            pictures, or rows contradict; the error names file and line.
        FileNotFoundError: A row names a picture that is not there.
    """
    rows, column = _rows(file, names)
    head = _heading(rows, column)
    body = rows[1:] if head else rows
    if not body:
        raise ValueError(f"{file} has a heading, but no rows")
    width = len(head) or max(len(cells) for _, cells in body)
    for line, cells in body:
        if len(cells) != width and head:
            raise ValueError(
                f"{file} line {line} has {len(cells)} cells, the heading {width}: "
                f"{_shown(cells)}. Mend that line."
            )
    others = [i for i in range(width) if i != column]
    part = next((i for i in others if head and _plain(head[i]) in SPLIT), None)
    others = [i for i in others if i != part and not (head and _plain(head[i]) in COUNTER)]
    table = Table(file)
    found = _labels(table, body, head, others, column, list(known))
    problems = _join(table, names, body, column, found)
    _tell(table, names, problems, skip_broken, has_option)
    if part is not None:
        _take_splits(table, names, body, column, part, _plain(head[part]) == "isvalid")
    return table


# --- rows and columns ----------------------------------------------------------------------------


def _text(file: Path) -> str:
    size = file.stat().st_size
    if size > MOST_BYTES:
        raise ValueError(f"{file} has {size} bytes, more than {MOST_BYTES}. Cut it.")
    content = file.read_bytes()
    wide = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        text = content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is no UTF-8 text: {error.reason}. Save it as UTF-8.") from error
    if "\0" in text:
        raise ValueError(f"{file} holds zero bytes; it is no table. Save it as CSV in UTF-8.")
    return without_sep(text)


def _rows(file: Path, names: PictureNames) -> tuple[list[Row], int]:
    """The rows by the delimiter under which most of them name a picture, and that column."""
    text = _text(file)
    best: list[tuple[int, str, int, list[Row]]] = []
    for delimiter in DELIMITERS:
        if delimiter not in text:
            continue
        rows = _parsed(file, text, delimiter)
        count, column = _picture_column(rows, names)
        if count:
            best.append((count, delimiter, column, rows))
    if not best:
        first = text.strip().splitlines()[:1]
        raise ValueError(
            f"{file}: no column names pictures of {names.root} (it begins {_shown(first)}). Give a "
            "column of file names and one of labels, split by comma, semicolon or tab."
        )
    most = max(count for count, *_ in best)
    likely = [one for one in best if one[0] == most]
    if len(likely) > 1:
        signs = " and ".join(DELIMITERS[delimiter] for _, delimiter, *_ in likely)
        raise ValueError(f"{file} can be split by {signs}. Quote the cells that hold the other.")
    return likely[0][3], likely[0][2]


def _parsed(file: Path, text: str, delimiter: str) -> list[Row]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    try:
        rows = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except csv.Error as error:
        raise ValueError(f"{file} line {reader.line_num} cannot be read as CSV: {error}") from error
    rows = [(line, cells) for line, cells in rows if any(cells)]
    # a delimiter at the end of each line, as some tools write
    if rows and all(cells[-1] == "" and len(cells) > 2 for _, cells in rows):
        rows = [(line, cells[:-1]) for line, cells in rows]
    return rows


def _picture_column(rows: Sequence[Row], names: PictureNames) -> tuple[int, int]:
    """Number of rows that have a label beside a picture, and the column of pictures."""
    counts: Counter[int] = Counter()
    for _, cells in rows:
        if len(cells) > 1:
            counts.update(i for i, cell in enumerate(cells) if _names_one(cell, names))
    if not counts:
        return 0, 0
    most = max(counts.values())
    columns = [column for column, count in counts.items() if count >= most - 1]
    headed = [i for i in columns if i < len(rows[0][1]) and _plain(rows[0][1][i]) in IMAGE]
    column = min(headed or [c for c in columns if counts[c] == most])
    return counts[column], column


def _names_one(cell: str, names: PictureNames) -> bool:
    if not cell or len(cell) > 1000:
        return False
    try:
        return names.find(cell) is not None or is_picture_name(cell)
    except ValueError:  # several: said when the row is read
        return True


def _heading(rows: Sequence[Row], column: int) -> list[str]:
    """The cells of the first row if it is a heading, else none."""
    first = rows[0][1]
    if column >= len(first) or is_picture_name(first[column]):
        return []
    words = [_plain(cell) for i, cell in enumerate(first) if i != column]
    is_named = _plain(first[column]) in IMAGE or any(w in LABEL | SPLIT for w in words)
    rest = [cell.lower() for _, cells in rows[1:] for i, cell in enumerate(cells) if i != column]
    has_flags = bool(rest) and all(cell in YES | NO for cell in rest)
    is_above = has_flags and not any(cell.lower() in YES | NO for cell in first)
    return first if is_named or is_above else []


def _plain(cell: str) -> str:
    return re.sub(r"[\W_]", "", cell).lower()


def _shown(cells: Sequence[str]) -> str:
    return repr(", ".join(cells)[:80])


# --- labels --------------------------------------------------------------------------------------


def _labels(
    table: Table, body: Sequence[Row], head: list[str], others: list[int], column: int,
    known: list[str],
) -> list[tuple[str, ...]]:  # fmt: skip
    """The labels of each row; sets classes and form of the table."""
    file = table.file
    if not others:
        raise ValueError(f"{file} has no column of labels beside that of pictures")
    values = {i: [cells[i] if i < len(cells) else "" for _, cells in body] for i in others}
    flags = [i for i in others if all(v.lower() in YES | NO for v in values[i]) and any(values[i])]
    named = [i for i in others if head and _plain(head[i]) in LABEL]
    if len(named) == 1 or (len(others) == 1 and not (flags and head)):
        chosen = named[0] if named else others[0]
        _note_others(file, head, [i for i in others if i != chosen])
        is_many = bool(head) and _plain(head[chosen]) in MANY
        has_name = bool(head) and _plain(head[chosen]) in LABEL
        lines = [line for line, _ in body]
        table.form, found = labels_of_cells(file, values[chosen], lines, is_many, has_name, known)
        return found
    if len(flags) == len(others) and not head:
        if len(known) != len(flags):
            raise ValueError(
                f"{file} has {len(flags)} columns of 0 and 1 without names: add a heading, or list "
                f"{len(flags)} names in classes.txt"
            )
        table.classes = tuple(known)
    elif flags and head and not named:
        _refuse_nearly(file, head, body, {i: values[i] for i in others if i not in flags})
        _note_others(file, head, [i for i in others if i not in flags])
        table.classes = tuple(head[i] for i in flags)
    elif head:
        raise ValueError(
            f"{file} has the columns {some([head[i] for i in others], 8)}: which one has the "
            'labels? Call it "label", or give each class a column of 0 and 1.'
        )
    else:
        table.form = "a row of labels for each picture"
        return labels_of_rows(file, [line for line, _ in body], list(values.values()))
    table.form = "a column of 0 and 1 for each class"
    return [
        tuple(
            name
            for i, name in zip(flags, table.classes, strict=True)
            if values[i][row].lower() in YES
        )
        for row in range(len(body))
    ]


def _refuse_nearly(
    file: Path, head: list[str], body: Sequence[Row], values: dict[int, list[str]]
) -> None:
    """ValueError for a column of 0 and 1 that has something else as well."""
    for i, cells in values.items():
        strange = [row for row, cell in enumerate(cells) if cell.lower() not in YES | NO]
        if 2 * len(strange) < len(cells):
            line, cell = body[strange[0]][0], cells[strange[0]]
            raise ValueError(
                f"{file} line {line}: column {head[i][:40]!r} holds {cell[:40]!r}, the others of "
                "its cells 0 or 1 (-1 and shares have no one meaning). Write 0 or 1."
            )


def _note_others(file: Path, head: list[str], left: Sequence[int]) -> None:
    if left and head:
        warnings.warn(
            f"{file}: columns that hold no labels are left out: {some([head[i] for i in left], 8)}",
            stacklevel=5,
        )


# --- pictures ------------------------------------------------------------------------------------


def _join(
    table: Table, names: PictureNames, body: Sequence[Row], column: int,
    found: Sequence[tuple[str, ...]],
) -> Problems:  # fmt: skip
    """Fill the table's labels by picture; rows of one picture must agree, or have a label each."""
    file, is_long = table.file, table.form == ONE
    missing: list[str] = []
    seen: dict[Path, tuple[int, str]] = {}
    against: dict[Path, str] = {}
    again = 0
    for (line, cells), labels in zip(body, found, strict=True):
        name = cells[column] if column < len(cells) else ""
        if not name:
            raise ValueError(f"{file} line {line} has labels, but no picture: {_shown(cells)}")
        try:
            picture = names.find(name)
        except ValueError as error:
            raise ValueError(f"{file} line {line}: {error}. Write its path.") from error
        if picture is None:
            missing.append(f"line {line}: {name[:100]}")
            continue
        before = table.labels.get(picture)
        if before is None:
            seen[picture] = (line, name)
            table.labels[picture] = labels
            continue
        first, called = seen[picture]
        if called.replace("\\", "/").casefold() != name.replace("\\", "/").casefold():
            against[picture] = f"lines {first} and {line} mean one picture: {called} and {name}"
        elif is_long:
            again += labels != () and labels[0] in before
            table.labels[picture] = tuple(dict.fromkeys((*before, *labels)))
        elif set(before) != set(labels):
            against[picture] = (
                f"{name} is {some(before) or 'without label'} in line {first}, "
                f"{some(labels) or 'without label'} in line {line}"
            )
        else:
            again += 1
    return missing, against, again


def _tell(
    table: Table, names: PictureNames, problems: Problems, skip_broken: bool, has_option: bool
) -> None:
    """Raise, or warn, for what the rows of a table have against each other."""
    missing, against, again = problems
    if missing and not skip_broken:
        ways = "Add them, remove their rows, or set data.skip_broken"
        raise FileNotFoundError(
            f"{table.file} names {len(missing)} pictures that are not below {names.root} "
            f"({some(missing)}). {ways if has_option else 'Add them, or remove their rows'}."
        )
    if against and not skip_broken:
        raise ValueError(
            f"{table.file}: rows contradict each other for {len(against)} pictures "
            f"({some(list(against.values()))}). Keep one row of each."
        )
    for picture in against:
        del table.labels[picture]
    for count, what in (
        (len(missing), f"rows name pictures that are not there, and are left out: {some(missing)}"),
        (len(against), f"pictures whose rows contradict are left out: {some(against.values())}"),
        (again, "rows are there twice"),
    ):
        if count:
            warnings.warn(f"{table.file}: {count} {what}", stacklevel=5)


def _take_splits(
    table: Table, names: PictureNames, body: Sequence[Row], column: int, part: int, is_flag: bool
) -> None:
    """Fill the table's splits."""
    words = {word: split for split, all_ in SPLITS.items() for word in all_}
    if is_flag:
        words = dict.fromkeys(YES, "val") | dict.fromkeys(NO, "train")
    for line, cells in body:
        picture, word = names.find(cells[column]), cells[part].lower()
        if word not in words:
            raise ValueError(
                f"{table.file} line {line}: {cells[part][:40]!r} is no split; write train, val or "
                "test"
            )
        if picture is None or picture not in table.labels:
            continue
        if table.splits.setdefault(picture, words[word]) != words[word]:
            raise ValueError(
                f"{table.file} line {line}: {cells[column]} is in {words[word]} and in "
                f"{table.splits[picture]}. Put it into one."
            )
