"""Text of any script on pictures: in fonts that have its glyphs, else a number that stands for it.

DejaVu Sans, which comes with matplotlib, has Latin, Greek, Cyrillic, Arabic, Hebrew and more; for
others fonts of the system are looked through. What none of them has is never drawn as empty
boxes: pictures show the number of the class, and pages, which have the reader's own fonts, say what
the number stands for (`captions`, `meanings`); plots spell the characters' own numbers (`spelled`).
"""

from __future__ import annotations

import unicodedata
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby

from PIL import ImageDraw, ImageFont, features

FIRST = "DejaVu Sans"
BLANK = ("Last Resort", "LastResort", "Adobe Blank")
"""Fonts that have a box for every character, and no glyphs."""
SHAPED = (
    "ARABIC", "HEBREW", "SYRIAC", "THAANA", "DEVANAGARI", "BENGALI", "GURMUKHI", "GUJARATI",
    "ORIYA", "TAMIL", "TELUGU", "KANNADA", "MALAYALAM", "SINHALA", "TIBETAN", "MYANMAR", "KHMER",
)  # fmt: skip
"""Scripts whose letters change their shape or order, which takes Pillow's library raqm."""
Font = ImageFont.FreeTypeFont
Run = tuple[Font, str]


@dataclass(frozen=True)
class Line:
    """A line of text that can be drawn; sizes are in pixels."""

    runs: tuple[Run, ...]
    width: float
    above: int
    """Height over the line that letters stand on."""
    below: int

    @property
    def height(self) -> int:
        """Pixels from the highest to the lowest letters of the fonts."""
        return self.above + self.below


def line_of(text: str, size: int, widest: int | float = float("inf")) -> Line:
    """Lay out a text in as few fonts as it takes.

    Args:
        text: Any text; characters that no font has become question marks.
        size: Height of the letters in pixels, roughly.
        widest: Width in pixels beyond which the end is left out, with an ellipsis.
    """
    found = _line(text, size)
    while found.width > widest and len(text) > 1:
        short = min(len(text) - 1, int(len(text) * widest / found.width))
        text = text[: max(1, short)].removesuffix("\u2026")
        found = _line(text + "\u2026", size)
    return found


def write(
    draw: ImageDraw.ImageDraw,
    at: tuple[int | float, int | float],
    line: Line,
    fill: tuple[int, ...],
) -> None:
    """Draw a line of text with its upper left corner at a place in pixels."""
    x, y = at
    for font, part in line.runs:
        draw.text((x, y + line.above), part, fill=fill, font=font, anchor="ls")
        x += font.getlength(part)


def has_glyphs(text: str) -> bool:
    """True if the fonts of this machine can draw every character of a text."""
    return all(_drawn(c) for c in text)


def replaced(names: Sequence[str]) -> dict[int, str]:
    """Names that cannot be drawn here: row -> "#row", which is drawn in their place."""
    return {row: f"#{row}" for row, name in enumerate(names) if not has_glyphs(name)}


@lru_cache(maxsize=8)
def captions(names: tuple[str, ...]) -> tuple[str, ...]:
    """Names of classes as pictures show them: as they are, or the number; warns once of numbers."""
    numbers = replaced(names)
    if numbers:
        row, number = next(iter(numbers.items()))
        warnings.warn(
            f"{len(numbers)} names of classes have characters that no font of this machine has: "
            f"pictures show numbers instead ({number} for {names[row]!r}). Install a font of the "
            "script, such as Noto Sans CJK",
            stacklevel=2,
        )
    return tuple(numbers.get(row, name) for row, name in enumerate(names))


def meanings(names: Sequence[str]) -> list[str]:
    """What numbers on pictures stand for, a line each, for a page or the words under a figure."""
    return [f"{number} is {names[row]}" for row, number in replaced(names).items()]


def is_plain(text: str) -> bool:
    """True if the first font alone has a text."""
    return text.isascii() or all(_file(c) == _files()[0] for c in text if not _is_silent(c))


def spelled(text: str) -> str:
    """The text with numbers, as U+732B, for characters that no font has; two of a row at most."""
    if has_glyphs(text):
        return text
    parts: list[str] = []
    for drawn, group in groupby(text, _drawn):
        some = list(group)
        numbers = " ".join(f"U+{ord(c):04X}" for c in some[:2])
        parts.append("".join(some) if drawn else numbers + "\u2026" * (len(some) > 2))
    return "".join(parts)


def families(texts: Sequence[str]) -> list[str]:
    """Families of fonts for matplotlib's `font.family`, which together have these texts."""
    from matplotlib import font_manager

    files = {_file(c) for text in texts for c in text} - {None, _files()[0]}
    names = {font_manager.get_font(file).family_name for file in sorted(map(str, files))}
    return [FIRST, *sorted(names)]


def _line(text: str, size: int) -> Line:
    runs = tuple((_font(file, size), part) for file, part in _parts(text))
    heights = [font.getmetrics() for font, _ in runs] or [_font(_files()[0], size).getmetrics()]
    width = sum((font.getlength(part) for font, part in runs), 0.0)
    return Line(runs, width, max(a for a, _ in heights), max(b for _, b in heights))


def _parts(text: str) -> list[tuple[str, str]]:
    """The text in pieces, each with the file of its font."""
    shown = "".join(c if _drawn(c) else "?" for c in text if not _is_silent(c))
    for file in dict.fromkeys(_file(c) or _files()[0] for c in shown):  # one font for all is best:
        if all(ord(c) in _glyphs(file) for c in shown):  # letters may join across it
            return [(file, shown)] if shown else []
    parts: list[tuple[str, str]] = []
    for c in shown:
        file = _file(c) or _files()[0]
        if parts and (parts[-1][0] == file or ord(c) in _glyphs(parts[-1][0])):
            file, before = parts.pop()
            c = before + c
        parts.append((file, c))
    return parts


def _is_silent(char: str) -> bool:
    """True for marks of layout and control characters, which have no shape."""
    return unicodedata.category(char) in ("Cf", "Cc", "Cs")


@lru_cache(maxsize=4096)
def _drawn(char: str) -> bool:
    if _is_silent(char):
        return unicodedata.category(char) != "Cs"
    is_shaped = unicodedata.name(char, "").startswith(SHAPED)
    return _file(char) is not None and (not is_shaped or bool(features.check("raqm")))


@lru_cache(maxsize=4096)
def _file(char: str) -> str | None:
    """The first font that has a character."""
    return next((file for file in _files() if ord(char) in _glyphs(file)), None)


@lru_cache(maxsize=1)
def _files() -> tuple[str, ...]:
    """Files of fonts: DejaVu Sans, then those of the system, upright and regular ones first."""
    from matplotlib import font_manager

    first = font_manager.findfont(FIRST)
    entries = [e for e in font_manager.fontManager.ttflist if not e.name.startswith(BLANK)]
    regular = ("400", "normal", "regular")
    entries.sort(
        key=lambda e: (
            e.style != "normal", str(e.weight) not in regular, "Sans" not in e.name, e.name, e.fname
        )
    )  # fmt: skip
    return (first, *dict.fromkeys(e.fname for e in entries if e.fname != first))


@lru_cache(maxsize=1024)
def _glyphs(file: str) -> frozenset[int]:
    """Code points that a font has."""
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(FT2Font(file).get_charmap())
    except (OSError, RuntimeError):  # the font was removed, or is damaged
        return frozenset()


@lru_cache(maxsize=64)
def _font(file: str, size: int) -> Font:
    return ImageFont.truetype(file, size)
