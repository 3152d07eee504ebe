"""Records of a set of captions: a caption of a picture, its phrases, and where these are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NoReturn, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64, UInt8

from tenfold.structures import Instances

Box = tuple[float, float, float, float]
"""x0 y0 x1 y1 in pixels of the picture, ends exclusive."""
Picture = UInt8[np.ndarray, "height width 3"]
Kind = Literal["real", "simulated", "generated"]
MOST_TEXT = 10_000
"""Characters of a caption."""
MOST_PHRASES = 1000
"""Phrases of a caption."""
ROUNDING = 1.0
"""Pixels by which a box may leave its picture: it is cut."""


@dataclass(frozen=True)
class Span:
    """A phrase: characters of a caption, and the boxes that it is about."""

    start: int
    end: int
    """Exclusive."""
    boxes: tuple[Box, ...] = ()
    """None where nobody said which, or where the phrase is about no object."""


@dataclass(frozen=True)
class Pair:
    """A picture and one of its captions."""

    image: Path | bytes | None
    """File, or the content of one; None for a picture that is drawn. Ask the set for the pixels."""
    caption: str
    phrases: tuple[Span, ...] = ()
    """Those that the data names; none: they are to be found in the text."""
    key: str = ""
    """Name of the picture in its set."""


@runtime_checkable
class Captions(Protocol):
    """One split of a set of captions that can be asked for any of its pairs.

    The pairs of a picture stand together, and pictures are numbered in the order of their pairs.
    """

    @property
    def name(self) -> str:
        """Name of the set."""

    @property
    def kind(self) -> Kind:
        """Origin of the content."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the classes of `objects`; empty in a set without objects."""

    @property
    def owners(self) -> Int64[np.ndarray, " pair"]:
        """Number of the picture of each pair."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Records that were left out, counted and named; grows as pictures are read."""

    def __len__(self) -> int:
        """Count the pairs."""

    def pair(self, index: int) -> Pair:
        """Return a caption with its phrases."""

    def picture(self, index: int) -> Picture:
        """Return the picture of a pair."""

    def objects(self, index: int) -> Instances:
        """Return the boxes of the objects in the picture of a pair; crowds are marked."""


def checked_spans(
    caption: str, phrases: Sequence[Span], size: tuple[int, int] | None = None
) -> tuple[Span, ...]:
    """The phrases, all of which lie in the caption, and their boxes in the picture.

    Args:
        caption: Text.
        phrases: Spans of it.
        size: Height and width of the picture, if known.

    Raises:
        ValueError: One does not; the error names it.
    """
    if len(phrases) > MOST_PHRASES:
        raise ValueError(f"it has {len(phrases)} phrases, more than {MOST_PHRASES}")
    for span in phrases:
        where = f"phrase {span.start}-{span.end}"
        if not 0 <= span.start < span.end <= len(caption):
            raise ValueError(
                f"{where} is no part of its caption of {len(caption)} characters ({caption[:40]!r})"
            )
        for box in span.boxes:
            check_box(box, size, where)
    return tuple(phrases)


def check_box(box: Box, size: tuple[int, int] | None, where: str) -> None:
    """Raise ValueError for a box that is empty or leaves the picture of a height and width."""
    if _cut(box, size) != box:
        _refuse(box, size, where)


def cut_box(box: Box, size: tuple[int, int] | None, where: str) -> Box:
    """The box, cut at the borders of the picture if it leaves it by a pixel at most.

    Raises:
        ValueError: It is empty, or leaves the picture by more.
    """
    found = _cut(box, size)
    if max(abs(a - b) for a, b in zip(found, box, strict=True)) > ROUNDING:
        _refuse(box, size, where)
    return found


def _cut(box: Box, size: tuple[int, int] | None) -> Box:
    """The part of a box that is in the picture; four times infinity if there is none."""
    height, width = size or (np.inf, np.inf)
    x0, y0, x1, y1 = max(box[0], 0.0), max(box[1], 0.0), min(box[2], width), min(box[3], height)
    if not (x0 < x1 and y0 < y1):
        return (np.inf,) * 4
    return (float(x0), float(y0), float(x1), float(y1))


def _refuse(box: Box, size: tuple[int, int] | None, where: str) -> NoReturn:
    if not (box[0] < box[2] and box[1] < box[3]):
        raise ValueError(f"{where} has the box {_shown(box)}, which is empty")
    inside = f"the picture of {size[1]} x {size[0]}" if size else "the picture: it has negative"
    raise ValueError(f"{where} has the box {_shown(box)}, which leaves {inside} pixels")


def _shown(box: Box) -> str:
    return "x0 y0 x1 y1 = " + " ".join(f"{value:g}" for value in box)


def checked_caption(text: object) -> str:
    """The caption, which is no empty one.

    Raises:
        ValueError: It is no text, is empty, is too long, or holds bytes that are no UTF-8.
    """
    if not isinstance(text, str):
        raise ValueError(f"its caption is {str(text)[:40]!r}, expected a text")
    if not text.strip():
        raise ValueError("its caption is empty")
    if len(text) > MOST_TEXT:
        raise ValueError(f"its caption has {len(text)} characters, more than {MOST_TEXT}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"its caption is no UTF-8 text: {ascii(text[:40])}") from error
    return text


def instances(boxes: Sequence[Box], labels: Sequence[int]) -> Instances:
    """Objects of one picture."""
    array = np.array(boxes, dtype=np.float32).reshape(-1, 4)
    return Instances(array, np.array(labels, dtype=np.int64))


@dataclass
class LeftOut:
    """Records that a reader left out, or replaced by others: counted, the first ones named."""

    most: int = 20
    """Reasons that are kept."""
    count: int = 0
    reasons: list[str] = field(default_factory=list)

    def add(self, reason: str) -> None:
        """Count one more."""
        self.count += 1
        if len(self.reasons) < self.most:
            self.reasons.append(reason)

    def said(self, what: str) -> tuple[str, ...]:
        """A remark on a result that rests on what was read; none if nothing was left out."""
        if not self.count:
            return ()
        shown = self.reasons[:5]
        more = f"; and {self.count - len(shown)} more" if self.count > len(shown) else ""
        return (f"{what}: {self.count} ({'; '.join(shown)}{more})",)
