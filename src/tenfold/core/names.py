"""Names that a user gives: the nearest known one, where a name is unknown."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import NoReturn


class UsageError(ValueError):
    """The command line asks for something that is not there."""


def nearest(word: str, known: Sequence[str], what: str) -> NoReturn:
    """Raise the one-line error for an unknown word, with the nearest known one."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.4)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
    raise UsageError(f"unknown {what} {word!r}; {hint}")
