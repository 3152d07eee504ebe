"""Pictures of a folder by the names that tables and tools call them by."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..io.problems import some
from .decode import ENDINGS

FOREIGN = frozenset((".heic", ".heif", ".jxl", ".jp2", ".svg", ".raw", ".avif"))
"""Endings of pictures that are not read, but that names in tables have."""


@dataclass(frozen=True)
class PictureNames:
    """Files that a name can mean, whatever its letter case, ending and outer folders."""

    root: Path
    by_stem: dict[str, list[Path]]
    """Last part of the name in small letters, without ending -> files."""
    beside: tuple[str, ...] = ()
    """Folders below `root` of the table that says the names: its own pictures come first."""

    def find(self, name: str) -> Path | None:
        """The file of a name; None if there is none, and ValueError if it can mean several.

        A name without folders means a file in any; of a name with folders, one of the two paths
        must be the end of the other. What lies there as seen from the table comes first, then the
        nearest in letters and ending.
        """
        wanted = PurePosixPath(unicodedata.normalize("NFC", name.replace("\\", "/").strip()))
        parts = _folders(wanted)
        found = [
            file for file in self.by_stem.get(_stem(wanted), [])
            if _is_end(parts, self._folders(file))
        ]  # fmt: skip
        if not found:
            return None
        found = [f for f in found if self._folders(f) == (*self.beside, *parts)] or found
        best = min(_distance(wanted, file) for file in found)
        nearest = [file for file in found if _distance(wanted, file) == best]
        if len(nearest) > 1:
            exact = [file for file in nearest if self._folders(file) == parts]
            if len(exact) == 1:
                return exact[0]
            shown = some([file.relative_to(self.root).as_posix() for file in nearest])
            raise ValueError(f"{name[:100]!r} can mean {shown}")
        return nearest[0]

    def every(self) -> list[Path]:
        """All files."""
        return [file for files in self.by_stem.values() for file in files]

    def _folders(self, file: Path) -> tuple[str, ...]:
        return _folders(PurePosixPath(file.relative_to(self.root).as_posix()))


def picture_names(root: Path, files: Sequence[Path], table: Path | None = None) -> PictureNames:
    """The names of files below `root`, which is left out of them; `table` says the names."""
    by_stem: dict[str, list[Path]] = {}
    for file in files:
        by_stem.setdefault(_stem(PurePosixPath(file.name)), []).append(file)
    place = "" if table is None else table.relative_to(root).as_posix()
    return PictureNames(root, by_stem, _folders(PurePosixPath(place)))


def is_picture_name(name: str) -> bool:
    """Return True for a name with the ending of a picture."""
    return PurePosixPath(name.strip()).suffix.lower() in ENDINGS | FOREIGN


def _stem(path: PurePosixPath) -> str:
    name = path.stem if path.suffix.lower() in ENDINGS | FOREIGN else path.name
    return unicodedata.normalize("NFC", name).casefold()


def _folders(path: PurePosixPath) -> tuple[str, ...]:
    parts = (unicodedata.normalize("NFC", part).casefold() for part in path.parts[:-1])
    return tuple(part for part in parts if part not in ("/", ".", ""))


def _is_end(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    count = min(len(one), len(other))
    return one[len(one) - count :] == other[len(other) - count :]


def _distance(wanted: PurePosixPath, file: Path) -> int:
    """0 for the same letters and ending, 1 for the same ending, 2 for another one."""
    name = unicodedata.normalize("NFC", file.name)
    if name == wanted.name:
        return 0
    return 1 if name.casefold() == wanted.name.casefold() else 2
