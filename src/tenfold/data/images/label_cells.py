"""Labels in the cells of a table: one, or a list of them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

LISTS = (";", "|", ",")
"""Characters that part the labels of one cell."""
ONE = "a label a row"
SEVERAL = "a list of labels for each picture"

Parted = tuple[str, list[tuple[str, ...]]]
"""Form of the cells, in words, and the labels of each."""


def labels_of_cells(
    file: Path, cells: list[str], lines: Sequence[int], is_many: bool, has_name: bool,
    known: Sequence[str],
) -> Parted:  # fmt: skip
    """The labels of cells that hold one, or a list of them.

    Args:
        file: The table, for errors.
        cells: One a row.
        lines: Line of each.
        is_many: The heading speaks of several labels.
        has_name: The heading speaks of labels at all.
        known: Names of classes, if they are listed elsewhere.
    """
    if any(cells) and all(re.fullmatch(r"\[.*\]", cell) for cell in cells if cell):
        cells = [cell.strip("[]").replace("'", "").replace('"', "") for cell in cells]
        return _parted(cells, ",")
    whole = {name.casefold() for name in known}
    open_ = [cell for cell in cells if cell.casefold() not in whole]
    signs = [sign for sign in LISTS if any(sign in cell for cell in open_)]
    if len(signs) > 1:
        line = next(lines[i] for i, cell in enumerate(cells) if signs[0] in cell)
        raise ValueError(
            f"{file} line {line}: labels are parted by {' and by '.join(signs)}. Use one."
        )
    if signs:
        return _parted(cells, signs[0])
    if any(" " in cell for cell in open_) and _is_list(file, open_, is_many, has_name, whole):
        return _parted(cells, " ")
    return ONE, [(cell,) if cell else () for cell in cells]


def _parted(cells: list[str], sign: str) -> Parted:
    parts = [[word.strip() for word in cell.split(sign)] for cell in cells]
    return SEVERAL, [tuple(dict.fromkeys(word for word in words if word)) for words in parts]


def _is_list(file: Path, cells: list[str], is_many: bool, has_name: bool, whole: set[str]) -> bool:
    """Return True if spaces part labels, False if they belong to names; ValueError if unsure."""
    distinct = {cell for cell in cells if cell}
    several = [cell for cell in distinct if " " in cell]
    if whole:
        return all(word.casefold() in whole for cell in several for word in cell.split())
    times = Counter(word for cell in distinct for word in set(cell.split()))
    shared = [times[word] > 1 for cell in several for word in cell.split()]
    if all(shared) or (is_many and any(shared)):
        return True
    if not any(shared) and has_name and not is_many:
        return False
    raise ValueError(
        f"{file}: is {sorted(several)[0][:60]!r} one label or several? Part labels by ; or |, or "
        'list the names in classes.txt, or call the column "label" if it is one.'
    )


def labels_of_rows(
    file: Path, lines: Sequence[int], columns: Sequence[Sequence[str]]
) -> list[tuple[str, ...]]:
    """Labels of rows without a heading that hold as many as their picture has."""
    found = []
    for row, line in enumerate(lines):
        cells = [column[row] for column in columns if column[row]]
        numbers = [cell for cell in cells if re.fullmatch(r"[-+\d.eE]+", cell)]
        if numbers:
            raise ValueError(
                f"{file} line {line} holds the number {numbers[0]!r}, and no heading says what it "
                "is. Add one."
            )
        found.append(tuple(dict.fromkeys(cells)))
    return found
