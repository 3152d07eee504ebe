"""Predictions for a folder of files: one table, one page, whatever the system."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from tenfold.printable import printable

from .page import Badge, Page, Section, Tile, footer, write_page, write_whole

T = TypeVar("T")

LONGEST = 220
"""Bytes of a name to which something can be added: file systems allow 255."""

LISTED = 60
"""Files that could not be read that the page names, at most; the table names all."""


@dataclass(frozen=True)
class Trained:
    """Description of the predicting system for a page."""

    system: str
    data: str
    kind: str
    """Real, simulated or generated."""
    notes: Sequence[str] = field(default_factory=list)


def output_name(relative: Path) -> str:
    """The name that all results of a file begin with: its path, ending included, below a folder.

    `a.jpg`, `a.png` and `c/a.jpg` are three. What not every system can hold, or would be too long
    with something added, is replaced, and a digest keeps it apart from others.
    """
    name = relative.as_posix()
    parts = printable(name).split("/")
    if printable(name) == name and all(len(os.fsencode(part)) <= LONGEST for part in parts):
        return name
    digest = hashlib.blake2b(os.fsencode(name), digest_size=4).hexdigest()
    return "/".join(part[: LONGEST // 4] for part in parts) + f"~{digest}"


@dataclass(frozen=True)
class Source:
    """A file to predict from."""

    file: Path
    name: str
    """Name in tables and pages."""
    output: str
    """Beginning of the names of its results."""


def sources(inputs: Path, out: Path, below: Callable[..., list[Path]]) -> list[Source]:
    """Find the images to predict from; results of earlier predictions are none of them.

    Args:
        inputs: An image, or a folder.
        out: Folder of the results.
        below: Lists the images of a folder and of those in it, but for the folder `aside`.

    Raises:
        ValueError: There is none, or `out` would mix results with them.
    """
    if not inputs.is_dir():
        return [Source(inputs, printable(inputs.name), printable(inputs.stem))]
    if out.resolve() == inputs.resolve():
        raise ValueError(f"results would lie among the pictures of {inputs}; choose another --out")
    files = below(inputs, aside=out)
    names = [file.relative_to(inputs) for file in files]
    return [
        Source(file, printable(name.as_posix()), output_name(name))
        for file, name in zip(files, names, strict=True)
    ]


NUMBER = re.compile(r"[+-]?\d+(\.\d*)?(e[+-]?\d+)?", re.IGNORECASE | re.ASCII)
"""A cell that stays a number, whatever its sign."""


def safe_cell(text: str) -> str:
    """The text with an apostrophe before what a spreadsheet would run as a formula."""
    is_formula = text.startswith(("=", "+", "-", "@")) and not NUMBER.fullmatch(text)
    return f"'{text}" if is_formula else text


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> Path:
    """Write a CSV file; cells are made safe for spreadsheets."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for row in (header, *rows):  # heads, too: some are names of classes
        writer.writerow([safe_cell(cell) for cell in row])
    return write_whole(path, text.getvalue())


def spread(items: Sequence[T], most: int) -> list[T]:
    """At most so many items, evenly from the first to the last: all folders get their share."""
    if len(items) <= most:
        return list(items)
    step = (len(items) - 1) / (most - 1) if most > 1 else 0.0
    return [items[round(i * step)] for i in range(most)]


def write_predictions(
    out: Path,
    source: Path,
    trained: Trained,
    sections: Sequence[Section],
    *,
    lead: str = "",
    tiles: Sequence[Tile] = (),
    count: int = 0,
    problems: Sequence[str] = (),
    meaning: Sequence[str] = (),
    last: Sequence[Section] = (),
) -> Path:
    """Write `predictions.html` into the folder `out`.

    Args:
        out: Folder of the predictions.
        source: File or folder that was predicted from.
        trained: The system, its data and its notes.
        sections: What there is to look at, first things first.
        lead: A line under the title.
        tiles: Numbers to show first.
        count: Files that were given.
        problems: One line for each file that could not be read, naming it.
        meaning: How to read the answers.
        last: Sections for the end of the page.
    """
    unread = [printable(line) for line in problems[:LISTED]]
    if len(problems) > LISTED:
        unread.append(f"and {len(problems) - LISTED} more, see predictions.csv")
    page = Page(
        title=f"Predictions for {printable(source.resolve().name)}",
        lead=lead,
        badges=[Badge(f"trained on {trained.kind} data", trained.kind)],
        warnings=[f"{len(problems)} of {count} files cannot be read; they are listed below"]
        if problems
        else [],
        tiles=list(tiles),
        sections=[
            *sections,
            *([Section("Not read", bullets=unread)] if problems else []),
            Section("What this means", bullets=[*meaning, *trained.notes]),
            *last,
        ],
        footer=footer(f"{trained.system}, trained on {trained.data}"),
    )
    return write_page(page, out / "predictions.html")
