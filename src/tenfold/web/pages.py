"""The contract between a page's server and what the page is about."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from tenfold.files import Shape


@dataclass(frozen=True)
class Call:
    """Something that a page asks for, or has done: a function of named JSON values."""

    run: Callable[..., dict[str, Any]]
    needs: Mapping[str, Shape] = field(default_factory=dict)
    """Fields that are required, with their shapes (see `files`)."""
    takes: Mapping[str, Shape] = field(default_factory=dict)
    """Fields that may be there."""


@dataclass(frozen=True)
class Media:
    """Bytes for a browser."""

    content: bytes
    kind: str
    """MIME type."""
    name: str = ""
    """File name of a download."""
    notes: tuple[str, ...] = ()
    """Words about a download: what its form cannot hold."""


class Labelling(Protocol):
    """Content of a page; every method may be called by several threads at once.

    What is wrong with what a page sent is a ValueError, what is not there a LookupError or
    FileNotFoundError, and what was answered meanwhile a `session.Stale`.
    """

    page: str
    """Name of the page among the static files, without its ending."""
    queries: Mapping[str, Call]
    """Name -> what GET /api/<name> answers; its fields are whole numbers."""
    commands: Mapping[str, Call]
    """Name -> what POST /api/<name> does; once it has answered, it is on disk."""

    def image(self, index: int) -> Media:
        """Return a picture as a browser can show it."""

    def export(self, form: str) -> Media:
        """Return the labels in another tool's form."""

    def close(self) -> None:
        """End what runs beside, and let another process write."""


@runtime_checkable
class Predicts(Protocol):
    """Content of a page that answers Label Studio, too."""

    def predict(
        self, tasks: list[Any], context: Mapping[str, Any], config: str
    ) -> list[dict[str, Any]]:
        """Return a prediction for each task of Label Studio, whose interface is `config`."""

    def version(self) -> str:
        """Name the model that answers now."""


KINDS = {".json": "application/json", ".xml": "application/xml"}
"""Ending of a file -> its MIME type."""


def download(folder: Path, files: Iterable[Path], name: str, notes: tuple[str, ...] = ()) -> Media:
    """Files of a folder for a browser: one as it is, several as an archive.

    Args:
        folder: Names in the archive are below it.
        files: The files.
        name: Of the download, without its ending.
        notes: What its form cannot hold.
    """
    every = sorted(files)
    if len(every) == 1:
        kind = KINDS.get(every[0].suffix, "application/octet-stream")
        return Media(every[0].read_bytes(), kind, f"{name}{every[0].suffix}", notes)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in every:
            archive.write(file, file.relative_to(folder).as_posix())
    return Media(packed.getvalue(), "application/zip", f"{name}.zip", notes)
