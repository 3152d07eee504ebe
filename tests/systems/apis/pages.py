"""A labelling page on three photos, opened in tests as often as they like."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from web.discs import DISCS, Discs, box_of, draw

from tenfold.systems.apis.config import PageOptions
from tenfold.systems.apis.labelling import Labelling

TAB, OTHER = "tab-00001", "tab-00002"
_names = itertools.count()


def fresh() -> str:
    return f"event-{next(_names):06}"


@contextmanager
def pages(folder: Path) -> Iterator[Callable[..., Labelling]]:
    """A function that opens the page in a folder; it closes the one before."""
    if not (folder / "photos").exists():
        draw(folder / "photos")
    every: list[Labelling] = []

    def open_page(**more: Any) -> Labelling:
        for page in every:
            page.close()
        segmenter = more.pop("segmenter", None) or Discs()
        train = more.pop("train", None)
        options = PageOptions(**{"ahead": False, **more})
        every.append(Labelling(segmenter, folder / "photos", folder / "out", options, train))
        return every[-1]

    yield open_page
    for page in every:
        page.close()


def boxes(page: Labelling, image: int = 0) -> dict[str, Any]:
    """Draw the boxes of a photo; what the page answered to the last."""
    said: dict[str, Any] = {}
    for disc in DISCS[page.album.names[image]]:
        said = page.draw(fresh(), TAB, image, box_of(disc), **{"class": "disc"})
    return said
