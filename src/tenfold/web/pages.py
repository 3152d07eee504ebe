"""The contract between a page's server and what the page is about."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

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

    def predict(
        self, tasks: list[Any], context: Mapping[str, Any], config: str
    ) -> list[dict[str, Any]]:
        """Return a prediction for each task of Label Studio, whose interface is `config`."""

    def version(self) -> str:
        """Name the model that answers now."""

    def close(self) -> None:
        """End what runs beside, and let another process write."""
