"""Problems that a check found, and readers that turn a damaged file into one named problem."""

from __future__ import annotations

import json
import lzma
import struct
import zipfile
import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError

from . import npz

T = TypeVar("T")

MAX_BYTES = 2**31
"""Of an array of an npz file, unpacked."""
BROKEN = (
    OSError,
    EOFError,
    ValueError,
    SyntaxError,  # Pillow raises it for a broken PNG chunk
    KeyError,
    AttributeError,
    TypeError,
    RuntimeError,  # zipfile: an encrypted member, a method that it does not know
    ArithmeticError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    UnidentifiedImageError,
    Image.DecompressionBombError,
)
"""Errors that the readers below raise on a damaged file."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, and in which file."""

    file: str
    """Path relative to the folder of the set."""
    what: str
    """Value found, value expected."""


@dataclass
class CheckResult:
    """Outcome of a check: clean if there are no problems."""

    files: int = 0
    """Files examined, images inside an npz file included."""
    problems: list[Problem] = field(default_factory=list)
    """Faults that must be mended before training."""
    notes: list[str] = field(default_factory=list)
    """Remarks: what is known, unusual, or could not be examined."""


class Problems:
    """Collect the problems of one check of set `key`; paths are relative to `folder`."""

    def __init__(self, folder: Path, limit: int = 0, key: str = "") -> None:
        self.folder = folder
        self.limit = limit
        self.key = key
        self.result = CheckResult()

    def problem(self, file: Path | str, what: str) -> None:
        """Record one problem of one file, which is not said again where the text begins with it."""
        name = self.name(file)
        what = what.replace(f"{self.folder}/", "")
        for said in (str(file), name):
            what = what.removeprefix(f"{said}: ").removeprefix(f"{said} ")
        self.result.problems.append(Problem(name, what))

    def note(self, text: str) -> None:
        """Record something that is not a fault."""
        self.result.notes.append(text)

    def seen(self, count: int = 1) -> None:
        """Count examined files."""
        self.result.files += count

    def name(self, file: Path | str) -> str:
        """Return the file as it is shown: relative to the folder where possible."""
        path = Path(file)
        if path == self.folder or not path.is_relative_to(self.folder):
            return str(file)
        return path.relative_to(self.folder).as_posix()

    def sample(self, items: Sequence[T]) -> list[T]:
        """Return all items, or `limit` of them, evenly spaced."""
        if not self.limit or len(items) <= self.limit:
            return list(items)
        return [items[i * len(items) // self.limit] for i in range(self.limit)]

    def expect(self, file: Path | str, what: str, found: object, expected: object) -> bool:
        """Record a problem if `found` is not `expected`; return whether they agree."""
        if found != expected:
            self.problem(file, f"{what}: found {found}, expected {expected}")
        return found == expected

    def published(self, file: Path | str, what: str, found: int, expected: int) -> None:
        """Note that a copy holds a part of the published set; none or more is a problem."""
        if 0 < found < expected:
            self.note(f"{self.name(file)}: {found} {what}; the published set has {expected}")
        else:
            self.expect(file, f"number of {what}", found, expected)

    def exists(self, file: Path) -> bool:
        """Record a problem if the file or folder is missing."""
        if not file.exists():
            self.problem(file, "is missing")
        return file.exists()

    def listing(self, folder: Path, suffixes: Collection[str], expected: int) -> list[Path]:
        """Return the files with these suffixes, sorted; fewer than published are a note."""
        if not self.exists(folder):
            return []
        files = sorted(
            file
            for file in folder.iterdir()
            if file.suffix.lower() in suffixes and not file.name.startswith(".")
        )
        self.published(folder, f"{'/'.join(sorted(suffixes))} files", len(files), expected)
        return files

    def json(self, file: Path) -> Any:
        """Return the parsed file, or None with a problem recorded."""
        if not self.exists(file):
            return None
        self.seen()
        try:
            return json.loads(file.read_text(encoding="utf-8-sig"))
        except ValueError as error:
            self.problem(file, f"is not valid JSON: {error}")
            return None

    def npz(self, file: Path, keys: Collection[str] = ()) -> dict[str, np.ndarray] | None:
        """Return all arrays of the file, or None with a problem; `keys` must be present."""
        if not self.exists(file):
            return None
        self.seen()
        try:
            found, names = npz.read_npz(file, None, MAX_BYTES)
        except ValueError as error:
            self.problem(file, str(error))
            return None
        missing = sorted(set(keys) - set(names))
        if missing:
            self.problem(file, f"lacks the arrays {', '.join(missing)}")
            return None
        return found

    def image(self, file: Path) -> np.ndarray | None:
        """Return the decoded pixels, or None with a problem recorded.

        Pillow's `verify` compares the check sums of PNG chunks; JPEG and WebP have none, so
        damage inside their pixel data shows only if it stops the decoder.
        """
        self.seen()
        try:
            with Image.open(file) as image:
                image.verify()
            with Image.open(file) as image:
                return np.asarray(image)
        except BROKEN as error:
            self.problem(file, f"does not decode: {error}")
            return None

    def lines(self, file: Path) -> list[str]:
        """Return the lines of a text file, or none with a problem recorded."""
        if not self.exists(file):
            return []
        self.seen()
        try:
            return file.read_text(encoding="utf-8-sig").splitlines()
        except ValueError as error:
            self.problem(file, f"is not UTF-8 text: {error}")
            return []


def some(items: Collection[object], most: int = 5) -> str:
    """Return the first few items as text, and how many more there are."""
    shown = ", ".join(str(item) for item in list(items)[:most])
    return shown if len(items) <= most else f"{shown} and {len(items) - most} more"
