"""Exit codes: what each error means to whoever started the program."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import NoReturn

BUG = 70
HUNG = 75
"""A process gave up waiting for another."""
LOST = 76
"""Another process is gone."""

MISTAKES = (
    ValueError,
    FileNotFoundError,
    NotADirectoryError,
    IsADirectoryError,
    PermissionError,
    ModuleNotFoundError,
)
"""Errors that a user can mend: one line, exit code 2."""


def exit_code(error: BaseException) -> int:
    """The error's own `exit_code` if it has one, 2 for a user's mistake, 70 for a bug of ours."""
    own = getattr(error, "exit_code", None)
    if isinstance(own, int):
        return own
    if isinstance(error, MISTAKES):
        return 2
    if isinstance(error, KeyboardInterrupt):
        return 130
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    return BUG


class UsageError(ValueError):
    """The command line asks for something that is not there."""


def nearest(word: str, known: Sequence[str], what: str) -> NoReturn:
    """Raise the one-line error for an unknown word, with the nearest known one."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.4)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
    raise UsageError(f"unknown {what} {word!r}; {hint}")
