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
    from .runner.weights import load as open_weights
    from .runner.weights import system_of
    from .systems import system_class

    return open_weights(system_class(system_of(Path(path))), Path(path))
