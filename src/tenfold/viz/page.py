"""Parts of a page, and the one way it is written; the template is `page.html.jinja`."""

from __future__ import annotations

import base64
import os
import re
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from tenfold.files import write_text
from tenfold.printable import printable

from .plots import LINE_ART

if TYPE_CHECKING:
    from jinja2 import Template

OWN = re.compile(rb'<meta name="generator" content="tenfold |<footer>tenfold \d')
"""Mark of a page that tenfold wrote: the first, or the footer of those before there was one."""
INLINE_LIMIT = 8 * 1024 * 1024
"""Larger pictures are linked, not inlined: a page should open on a phone."""


@dataclass(frozen=True)
class Badge:
    """A small label; `tone` is real, generated, simulated or unknown."""

    text: str
    tone: str


@dataclass(frozen=True)
class Figure:
    """A picture as a data URI (`dark`: its version for a dark page), or a link if too large."""

    light: str = ""
    dark: str = ""
    caption: str = ""
    alt: str = ""
    video: bool = False
    link: str = ""

    @property
    def is_line_art(self) -> bool:
        """True if a dark page may invert the light picture: the comment of its PNG says so."""
        head = self.light.removeprefix("data:image/png;base64,")[:1024]
        return head != self.light[:1024] and LINE_ART.encode() in base64.b64decode(head)


@dataclass(frozen=True)
class Section:
    """A titled part of a page; what is empty is not shown."""

    title: str
    text: list[str] = field(default_factory=list)
    bullets: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    kind: str = "shown"
    closed: bool = False
    href: str = ""
    href_text: str = ""


@dataclass(frozen=True)
class App:
    """A part of a page that answers to its reader: our own markup, style and script, as they are,
    and data as JSON without "<"."""

    markup: str
    style: str
    script: str
    data: str


@dataclass(frozen=True)
class Page:
    """Values that the template needs."""

    title: str
    lead: str = ""
    badges: list[Badge] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    tiles: list[Tile] = field(default_factory=list)
    sections: list[Section] = field(default_factory=list)
    footer: str = ""
    app: App | None = None
    """Shown below the head of the page; without one a page runs no script."""


def picture_figure(picture: Picture, base: Path) -> Figure:
    """A picture inlined, or linked from a page in `base` if it is too large."""
    path, mime = picture.path, PICTURES[picture.path.suffix.lower()]
    if path.stat().st_size > INLINE_LIMIT:
        megabytes = path.stat().st_size / 2**20
        caption = f"{picture.caption} ({megabytes:.0f} MB: open the file)"
        return Figure(caption=caption, link=relative(path, base / "x"))
    content = uri(path.read_bytes(), mime)
    return Figure(content, caption=picture.caption, alt=picture.caption, video=mime == "video/mp4")


def uri(content: bytes, mime: str) -> str:
    """Bytes as the address of an image that needs no file."""
    return f"data:{mime};base64,{base64.b64encode(content).decode()}"


def relative(target: Path, page: Path) -> str:
    """A link from a page to a file beside or below it, safe in an href."""
    path = os.path.relpath(target.resolve(), page.parent.resolve())
    return quote(path.replace(os.sep, "/"))


def footer(what: str) -> str:
    """The last line of a page."""
    from tenfold import __version__

    return f"tenfold {__version__}, {what}, written {datetime.now():%Y-%m-%d %H:%M}"


def require_own_page(path: Path) -> None:
    """Raise ValueError if a page is there that tenfold did not write."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder; move it away: a page is written there")
    if path.is_file() and not OWN.search(path.read_bytes()):
        raise ValueError(
            f"{path} was not written by tenfold and is not overwritten; move it away, or give "
            "another folder"
        )


def write_page(page: Page, out: Path) -> Path:
    """Render and put in place at once: a reader never sees half a page.

    A page of the same name that others wrote is a ValueError.
    """
    require_own_page(out)
    return write_whole(out, rendered(page))


def rendered(page: Page) -> str:
    """The page as HTML."""
    from tenfold import __version__

    return _template().render(page=page, version=__version__)


@cache
def _template() -> Template:
    from jinja2 import Environment, StrictUndefined

    text = files("tenfold.viz").joinpath("page.html.jinja").read_text(encoding="utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        finalize=lambda value: printable(value, "\n\t") if type(value) is str else value,
    )  # fmt: skip
    return environment.from_string(text)


def write_whole(out: Path, content: str) -> Path:
    """Write a text file under a temporary name, then rename it."""
    write_text(out, content)
    return out


PICTURES = {
    ".png": "image/png",
    ".gif": "image/gif",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".svg": "image/svg+xml",
    ".mp4": "video/mp4",
}
"""Endings of files that `pictures/` may hold, and their media types on a page."""


@dataclass(frozen=True)
class Picture:
    """A file of `pictures/` and the sentence under it."""

    path: Path
    caption: str


@dataclass(frozen=True)
class Cell:
    """One cell: text, what stands small under it, and how it is marked."""

    text: str
    under: str = ""
    tone: str = ""  # good, bad or empty
    best: bool = False
    href: str = ""
    code: bool = False


@dataclass(frozen=True)
class Table:
    """A table as a page shows it; a row whose first cell is empty belongs to the row above."""

    caption: str
    head: list[str]
    rows: list[list[Cell]]
    note: str = ""
    text: bool = False  # True: columns of words, not of numbers


@dataclass(frozen=True)
class Tile:
    """A headline number, and under it what it is to be compared with."""

    label: str
    value: str
    lines: list[tuple[str, str]] = field(default_factory=list)  # text, tone
