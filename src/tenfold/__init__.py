"""Ten published systems under one roof; start with ``tenfold list`` or :func:`tenfold.load`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .core.system import System

__version__ = "0.1.0"


def load(path: str | Path) -> System[Any]:
    """A system ready for `predict`: a run folder, a weights file of tenfold, or an official file.

    Raises FileNotFoundError or ValueError if there are no such weights.
    """
    from . import run, systems

    return run.load(systems.system_class(run.system_of(Path(path))), Path(path))
