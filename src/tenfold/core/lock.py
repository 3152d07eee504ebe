"""A lock on a folder that one command writes to, and who holds it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from .errors import require_place

NAME = ".tenfold.lock"
"""File in the locked folder; gone when nobody holds it (one left by the killed does no harm)."""
UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}
READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}
_warned: set[str] = set()


@contextmanager
def locked(folder: Path, doing: str, patience: float = 0.0, writes: bool = True) -> Iterator[None]:
    """Keep other commands from writing to a folder; under `torchrun` the first process does it.

    The folder is made if it is not there, and goes again if nothing was written.

    Args:
        folder: What to lock.
        doing: What the holder is doing ("training"), for the error of the others.
        patience: Seconds to wait for another holder.
        writes: False if nothing will be written: a folder that is read-only is then not locked.

    Raises:
        ValueError: Another process holds the lock; the error says which, and since when.
    """
    try:
        made = _made(folder)
        held = _acquired(folder, doing, patience)
    except OSError as error:
        if writes or error.errno not in READ_ONLY:
            raise
        yield
        return
    try:
        yield
    finally:
        if held is not None:
            # while it is held: who opened it meanwhile sees that its file is gone, and tries again
            (folder / NAME).unlink(missing_ok=True)
            os.close(held)
        for empty in made:
            with contextlib.suppress(OSError):  # something was written
                empty.rmdir()


def sweep(folder: Path) -> None:
    """Delete the file that a killed holder left, unless someone holds the lock now."""
    if (folder / NAME).exists():
        with contextlib.suppress(ValueError, OSError), locked(folder, "sweeping", writes=False):
            pass


def is_held(file: Path) -> bool:
    """Return True if someone holds the lock of this file now, or nobody can know."""
    try:
        opened = os.open(file, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return True
    try:
        # shared among those who ask; a holder has it alone
        fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in UNSUPPORTED
    finally:
        os.close(opened)
    return False


def _made(folder: Path) -> list[Path]:
    """Make a folder; the folders that were not there, the innermost first."""
    require_place(folder)
    absent = [p for p in (folder, *folder.parents) if not p.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return absent


def _acquired(folder: Path, doing: str, patience: float) -> int | None:
    """The open file whose lock this process has; None where the file system knows no locks."""
    file, deadline = folder / NAME, time.monotonic() + patience
    if file.is_symlink():
        raise ValueError(f"{file} is a link, which is not followed; delete it")
    while True:
        opened = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(file, opened):
                with contextlib.suppress(OSError):  # a full disk: locked all the same
                    os.ftruncate(opened, 0)
                    os.write(opened, json.dumps(_holder(doing)).encode())
                return opened
        except BlockingIOError as error:
            holder = os.pread(opened, 10_000, 0)
            if time.monotonic() > deadline:
                os.close(opened)
                raise ValueError(_held_by(folder, holder)) from error
            time.sleep(0.02)
        except OSError as error:
            os.close(opened)
            if error.errno not in UNSUPPORTED:
                raise
            file.unlink(missing_ok=True)
            if str(folder) not in _warned:
                _warned.add(str(folder))
                print(
                    f"tenfold: the file system of {folder} knows no locks; "
                    "let no two commands write there at once",
                    file=sys.stderr,
                )
            return None
        os.close(opened)


def _is_at(file: Path, opened: int) -> bool:
    """True if the open file still has its name: a holder that ends takes the name away."""
    try:
        return os.path.samestat(os.fstat(opened), file.lstat())
    except FileNotFoundError:
        return False


def _holder(doing: str) -> dict[str, object]:
    return {
        "doing": doing,
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["tenfold", *sys.argv[1:]])[:200],
    }


def _held_by(folder: Path, text: bytes) -> str:
    doing, who = "writing", ""
    with contextlib.suppress(ValueError, KeyError, TypeError):  # it is just being written
        found = json.loads(text)
        doing = str(found["doing"])
        who = (
            f" since {found['since']} (process {found['pid']} on {found['host']}: "
            f"`{found['command']}`)"
        )
    line = f"another process has been {doing} in {folder}{who}"
    return "".join(c if c.isprintable() else "?" for c in line) + (
        "; wait until it has ended, then try again"
    )
