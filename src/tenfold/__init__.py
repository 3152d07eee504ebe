"""Ten published systems under one roof; start with ``tenfold list`` or :func:`tenfold.load`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .core.system import System

__version__ = "1.0.0"


def load(path: str | Path) -> System[Any]:
    """Open a trained system, ready for `predict`, on the CPU.

    Args:
        path: A run folder, a weights file of tenfold, or an official file (or folder of such
            files) of a system that runs them.

    Returns:
        The system with its weights in eval mode, classes learned after the training included.

    Raises:
        FileNotFoundError: `path` does not exist, or the run in it is unfinished.
        ValueError: The weights are damaged, not of tenfold, or do not fit their configuration.
    """
    from .runner.weights import load as open_weights
    from .runner.weights import system_of
    from .systems import system_class

    return open_weights(system_class(system_of(Path(path))), Path(path))
