"""Numbers of pictures and categories in a COCO file, for results that are to refer to it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ..io.problems import some
from .coco import listed

MOST_BYTES = 2 * 2**30
"""Largest file that is read (COCO's training file has 450 MB)."""


@dataclass(frozen=True)
class Numbers:
    """Numbers of a COCO file."""

    file: Path
    images: dict[str, int]
    """Of pictures, by file_name, and by its last part where that is one picture's alone."""
    categories: dict[str, int]

    def of_images(self, names: Sequence[str]) -> list[int]:
        """Return the number of each picture, by its path or the last part of it."""
        found = [self.images.get(n, self.images.get(PurePosixPath(n).name)) for n in names]
        lost = [name for name, number in zip(names, found, strict=True) if number is None]
        if lost:
            raise ValueError(f"{self.file} lists no picture called {some(lost)}; leave --coco away")
        return [number for number in found if number is not None]

    def of_classes(self, names: Sequence[str]) -> list[int]:
        """Return the number of each class, by its name."""
        lost = [name for name in names if name not in self.categories]
        if lost:
            raise ValueError(
                f"{self.file} has no category {some(lost)}, which the run knows; it has "
                f"{some(list(self.categories))}"
            )
        return [self.categories[name] for name in names]


def read_numbers(file: Path) -> Numbers:
    """Read the numbers of a COCO file; whatever does not fit is a ValueError that names it."""
    if not file.is_file():
        raise FileNotFoundError(f"{file} is not there; --coco is a COCO file of the pictures")
    if file.stat().st_size > MOST_BYTES:
        raise ValueError(f"{file} has more than {MOST_BYTES} bytes. Split it.")
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is no JSON: {error}") from error
    images, categories = (
        _numbers(content, kind, key, file)
        for kind, key in (("images", "file_name"), ("categories", "name"))
    )
    last = Counter(PurePosixPath(name).name for name in images)
    short = {p.name: n for name, n in images.items() if last[(p := PurePosixPath(name)).name] == 1}
    return Numbers(file, short | images, categories)


def _numbers(content: Any, kind: str, key: str, file: Path) -> dict[str, int]:
    if not isinstance(content, dict):
        raise ValueError(f"{file} has no list of {kind}; it is not of COCO's form")
    found: dict[str, int] = {}
    for row in listed(content, kind, file):
        name, number = row.get(key), row.get("id")
        if not isinstance(name, str) or not isinstance(number, int):
            raise ValueError(f"{file}: {kind} {str(row)[:80]} needs {key} and a whole id")
        name = name.replace("\\", "/") if kind == "images" else name  # as Windows writes it
        if kind == "images" and name in found:
            raise ValueError(
                f"{file}: images {found[name]} and {number} are both of {name[:80]!r}. List each "
                "picture once."
            )
        found[name] = number
    return found
