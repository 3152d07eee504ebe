"""Exit codes: what each error means to whoever started the program."""

from __future__ import annotations

import contextlib
import difflib
import errno
import json
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from tenfold.extras import extra_of, install
from tenfold.printable import printable, shown

BUG = 70
HUNG = 75
"""A process gave up waiting for another."""
LOST = 76
"""Another process is gone."""

MISTAKES = (ValueError, OSError, ImportError)
"""Errors that a user can mend: one line, exit code 2."""

ADVICE = {
    errno.ENOSPC: "free some space and give the same command again",
    errno.EDQUOT: "free some space and give the same command again",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f)",
    errno.EROFS: "give a folder that can be written",
    errno.ENAMETOOLONG: "give a shorter name: file systems take 255 bytes",
    errno.EACCES: "change its permissions, or give another",
    errno.EPERM: "change its permissions, or give another",
    errno.ELOOP: "its links lead in a circle",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
}
"""Number of an operating system's error -> the way out."""


FULL = "the disk is full, or a limit on the size of files is reached"
WRITERS = ("PytorchStreamWriter", "inline_container", "file write failed", "unexpected pos")
"""Words by which torch says that a file could not be written; it drops the reason."""


def exit_code(error: BaseException) -> int:
    """The error's own `exit_code` if it has one, 2 for a user's mistake, 70 for a bug of ours."""
    own = getattr(error, "exit_code", None)
    if isinstance(own, int):
        return own
    if isinstance(error, MISTAKES) or _of_system(error) is not None:
        return 2
    if isinstance(error, KeyboardInterrupt):
        return 130
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    return BUG


def message(error: BaseException) -> str:
    """Return what is wrong and the way out, for whoever started the program."""
    error = _of_system(error) or error
    if isinstance(error, OSError) and error.errno is not None:
        named = isinstance(error.filename, (str, bytes, os.PathLike))  # or opened by its number
        name = printable(os.fsdecode(error.filename) if named else _place_of(error))
        said = error.strerror or errno.errorcode.get(error.errno, "error")
        what = f"{name}: {said}" if name else said
        return f"{what}; {ADVICE[error.errno]}" if error.errno in ADVICE else what
    if isinstance(error, ImportError) and "pip install" not in str(error):
        extra = extra_of(error.name or "")
        if extra:
            return f"this needs the package {error.name}: {install(extra)}"
    return shown(error) or type(error).__name__


def _place_of(error: OSError) -> str:
    """The file that an error does not name: the innermost path in the calls that led to it."""
    found = ""
    at = error.__traceback__ if error.errno not in ADVICE else None
    while at is not None:
        paths = [value for value in at.tb_frame.f_locals.values() if isinstance(value, Path)]
        found = str(paths[0]) if paths else found
        at = at.tb_next
    return found


def _of_system(error: BaseException) -> OSError | None:
    """The error of the operating system that a library reports in words of its own, or None."""
    if isinstance(error, ValueError) or (isinstance(error, OSError) and error.strerror):
        return None
    text = str(error)
    number = re.search(r"\(os error (\d+)\)|\berrno = (\d+)", text)  # safetensors; HDF5
    if number:
        value = int(number[1] or number[2])
        name = re.search(r"(?:filename|name) = '([^']+)'", text)
        return OSError(value, os.strerror(value), *([name[1]] if name else []))
    if isinstance(error, RuntimeError) and any(word in text for word in WRITERS):
        return OSError(errno.ENOSPC, FULL)
    return None


def require_file_or_folder(path: Path, option: str = "") -> None:
    """Refuse what is neither file nor folder: who reads a pipe waits, who reads a device, for ever.

    Raises:
        FileNotFoundError: There is nothing of that name.
        ValueError: It is a pipe, a socket or a device.
    """
    shown = f"{option} {path}".strip()
    if not path.exists():
        raise FileNotFoundError(f"{shown} does not exist")
    if not path.is_file() and not path.is_dir():
        raise ValueError(f"{shown} is a pipe, a socket or a device; give a file or a folder")


def require_place(folder: Path) -> None:
    """Refuse a folder that cannot be made, before work is lost: something else is there already.

    Raises:
        ValueError: It, or what it should lie in, is a file or a link to nothing.
    """
    for path in (folder, *folder.parents):
        if path.exists():
            if not path.is_dir():
                raise ValueError(f"{path} is a file; give a folder, or the name of a new one")
            return
        if path.is_symlink():
            raise ValueError(
                f"{path} is a link to {os.readlink(path)}, which is not there; make that folder, "
                "or give another"
            )


def report_to_torchrun(text: str) -> None:
    """Leave the line where torchrun looks for it: it then ends torchrun's own report.

    The file also holds the exit code as soon as torchrun has copied it to the
    `TORCHELASTIC_ERROR_FILE` of its own environment. Nothing happens without torchrun.
    """
    file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if not file or "TORCHELASTIC_RUN_ID" not in os.environ:
        return
    said = {"message": printable(text, "\n"), "extraInfo": {"timestamp": str(int(time.time()))}}
    with contextlib.suppress(OSError):
        Path(file).write_text(json.dumps({"message": said}), encoding="utf-8")


class UsageError(ValueError):
    """The command line asks for something that is not there."""


def nearest(word: str, known: Sequence[str], what: str) -> NoReturn:
    """Raise the one-line error for an unknown word, with the nearest known one."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.4)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
    raise UsageError(f"unknown {what} {word!r}; {hint}")
