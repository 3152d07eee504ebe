"""Which texts a run has: CLIP's encoder, a stored table, or vectors that are learned."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

from tenfold.data import catalog
from tenfold.data.text.clip_tokens import FILE

from .config import Config, Text, TextSource
from .groups import concepts
from .knowledge import KnowledgeBase
from .table import TextTable
from .text import STORED, ClipTexts, Encoder, StoredTexts, space_of, vectors_of

LEARNED = "learned with the network"
UNREAD: dict[TextSource, tuple[str, ...]] = {
    "clip": (), "table": ("clip", "merges"), "learned": ("table", "clip", "merges"),
}  # fmt: skip
"""Source of texts -> the files that it does not read."""
READ_WITH = {
    "table": "--text.source table",
    "clip": "--text.source clip",
    "merges": "--text.source clip and --text.clip",
}
"""File of texts -> the options with which it is read."""


def complete(cfg: Config, kb: KnowledgeBase) -> Config:
    """Choose texts that are there: a stored table without CLIP's weights, else learned ones."""
    text = cfg.text
    if text.source == "clip" and not text.clip:
        warnings.warn(
            "text.source clip has no weights (--text.clip); a stored table of its vectors is taken",
            stacklevel=2,
        )
        text = replace(text, source="table", prompt="a-name", draw=True)
    if text.source == "table" and _table(text) is None:
        warnings.warn(
            f"no stored vectors of texts ({STORED} in $TENFOLD_DATA/clip_text, or --text.table); "
            "a vector a concept is learned, and new concepts cannot be added",
            stacklevel=2,
        )
        text = replace(text, source="learned")
    for name in UNREAD[text.source]:
        if getattr(text, name):
            raise ValueError(
                f"text.{name} is {getattr(text, name)}, but text.source is {text.source}, which "
                f"does not read it. Add {READ_WITH[name]}."
            )
    if text.source == "learned":
        return replace(cfg, text=replace(text, space=LEARNED))
    source = encoder(text)
    _, drawn = vectors_of(concepts(kb), source, text.prompt, text.centred, text.draw)
    space = space_of(source, text.prompt, text.centred)
    text = replace(text, dim=source.dim, space=space, drawn=tuple(drawn))
    return replace(cfg, text=text)


def _found(name: str, given: str) -> Path | None:
    if given:
        return Path(given)
    folder = catalog.find("clip_text", "")
    return folder / name if folder is not None and (folder / name).is_file() else None


def _table(text: Text) -> Path | None:
    return _found(STORED, text.table)


def encoder(text: Text) -> Encoder:
    """The source of vectors; FileNotFoundError or ValueError if its files are not right."""
    table = _table(text)
    stored = None if table is None else StoredTexts.read(table)
    if text.source == "table":
        if stored is None:
            raise FileNotFoundError(f"no stored vectors of texts: {STORED}; give --text.table")
        return stored
    merges = _found(FILE, text.merges)
    if merges is None:
        raise FileNotFoundError(f"CLIP's texts need its {FILE}; give --text.merges")
    return ClipTexts.read(Path(text.clip), merges, stored)


def fill(table: TextTable, kb: KnowledgeBase, text: Text) -> None:
    """Give every concept its vector.

    Raises:
        ValueError: The files are of another text space than the run's.
    """
    if text.source == "learned":
        return
    source = encoder(text)
    space = space_of(source, text.prompt, text.centred)
    if space != table.space:
        raise ValueError(
            f"the run's texts are of the space {table.space!r}, the files that are there of "
            f"{space!r}; take those that the run began with"
        )
    vectors, _ = vectors_of(concepts(kb), source, text.prompt, text.centred, text.draw)
    table.fill(vectors)
