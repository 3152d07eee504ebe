"""Events that are on disk before anyone is told so: lines of JSON, only ever added to."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .files import claim, parse_json

LIMIT = 1_000_000
"""Bytes of a line, unless more are allowed: an event is a few words, and a hostile file is no
reason to swap."""
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}

Event = dict[str, Any]


class Journal:
    """Append-only file of events, one JSON object a line, written by one process at a time.

    What `append` has returned survives a kill and a loss of power. An event may have an `"id"`, a
    text of its maker's: one that is there already is not written again, so that who did not hear
    the answer can ask again. What a kill left of a last line is cut off, and kept in a file
    beside (`.torn`); it is named in a warning and in `torn`.

    Args:
        path: The file; it is made, with its folders, if it is not there. A link is refused.
        limit: Bytes of a line at most.

    Raises:
        ValueError: Another process writes to the file, or a line before the last cannot be read;
            the error names file and line.
    """

    def __init__(self, path: Path, limit: int = LIMIT) -> None:
        self.path, self.limit = path, limit
        self.torn = b""
        """Bytes of a line that was cut off when the file was opened."""
        self._numbers: dict[str, int] = {}
        self._guard = threading.Lock()
        claim(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        is_new = not path.exists()
        self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            self._lock()
            if is_new:
                _sync_folder(path.parent)
            self._length, self._size = self._read()
        except BaseException:
            os.close(self._file)
            raise
        self._is_open = True

    def append(self, event: Event) -> int:
        """Write an event; once this returns, it is on disk.

        Returns:
            The event's number, from 0; the earlier one if an event of its id is there.

        Raises:
            ValueError: The event cannot be written as JSON, or is too long.
            OSError: The disk refuses; nothing of the event is left in the file.
        """
        line = _line(event, self.limit)
        identity = _identity(event)
        with self._guard:
            if not self._is_open:
                raise ValueError(f"{self.path} is closed; open it again to write to it")
            if identity is not None and identity in self._numbers:
                return self._numbers[identity]
            try:
                _write(self._file, line)
                os.fsync(self._file)
            except BaseException:
                self._take_back()
                raise
            number = self._length
            self._length, self._size = number + 1, self._size + len(line)
            if identity is not None:
                self._numbers[identity] = number
            return number

    def check(self, event: Event) -> None:
        """Raise the ValueError with which `append` would refuse an event; nothing is written."""
        _line(event, self.limit)
        _identity(event)

    def __len__(self) -> int:
        return self._length

    def __contains__(self, identity: str) -> bool:
        return identity in self._numbers

    def __iter__(self) -> Iterator[Event]:
        return events(self.path, self._size, self.limit)

    def close(self) -> None:
        """Let another process write."""
        with self._guard:
            if self._is_open:
                self._is_open = False
                os.close(self._file)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _take_back(self) -> None:
        """Cut off what was written of an event; where even that is refused, write no more."""
        try:
            os.ftruncate(self._file, self._size)
            os.fsync(self._file)
        except OSError:
            self._is_open = False
            os.close(self._file)

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(
                f"another process writes to {self.path}; wait until it has ended, then try again"
            ) from error
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            warnings.warn(
                f"the file system of {self.path} knows no locks; let no two commands write to it",
                stacklevel=3,
            )

    def _read(self) -> tuple[int, int]:
        """Number of events and of their bytes; a torn last line is cut off."""
        length, size = 0, 0
        for number, (event, taken) in enumerate(_lines(self.path, self.limit)):
            identity = _identity(event)
            if identity is not None and self._numbers.setdefault(identity, number) != number:
                raise _unreadable(self.path, number, f"the id {identity!r} is there twice")
            length, size = number + 1, size + taken
        whole = os.fstat(self._file).st_size
        if size > whole:  # the last line is whole but for its end
            _write(self._file, b"\n")
            os.fsync(self._file)
        elif size < whole:
            self.torn = os.pread(self._file, self.limit, size)
            beside = self.path.with_name(self.path.name + ".torn")
            _keep(beside, self.torn)
            os.ftruncate(self._file, size)
            os.fsync(self._file)
            warnings.warn(
                f"{self.path}: line {length + 1} was not written whole ({len(self.torn)} bytes), "
                f"as of a process that was killed; it is cut off, and kept in {beside.name}",
                stacklevel=3,
            )
        return length, size


def events(path: Path, size: int | None = None, limit: int = LIMIT) -> Iterator[Event]:
    """Read the events of a file without locking it, of its first `size` bytes or of all.

    A last line that is not written whole is left out.

    Raises:
        ValueError: A line before the last is no JSON object, or too long.
    """
    taken = 0
    for event, length in _lines(path, limit):
        taken += length
        if size is not None and taken > size:
            return
        yield event


def _lines(path: Path, limit: int) -> Iterator[tuple[Event, int]]:
    """Events and the bytes of each; the last may lack its end, which counts as if it were there."""
    with path.open("rb") as file:
        number = 0
        while line := file.readline(limit + 1):
            has_end = line.endswith(b"\n")
            if len(line) > limit and not has_end:
                raise _unreadable(path, number, f"it is longer than {limit} bytes")
            try:
                event = parse_json(line.decode("utf-8"))
                if not isinstance(event, dict):
                    raise ValueError("it is no JSON object")
            except ValueError as error:
                if not has_end:  # torn
                    return
                raise _unreadable(path, number, str(error)) from error
            yield event, len(line) + (not has_end)
            number += 1


def _unreadable(path: Path, number: int, why: str) -> ValueError:
    return ValueError(
        f"{path}, line {number + 1}: {why}; take the line out, or restore the file from a copy"
    )


def _line(event: Event, limit: int) -> bytes:
    """Make the line of an event, and see that it can be read again."""
    try:
        text = json.dumps(event, allow_nan=False, separators=(",", ":"))
        parse_json(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"an event cannot be written as JSON: {error}") from error
    if len(text) >= limit:
        raise ValueError(f"an event has {len(text)} bytes; at most {limit - 1} are written")
    return text.encode() + b"\n"


def _identity(event: Event) -> str | None:
    identity = event.get("id")
    if identity is not None and not isinstance(identity, str):
        raise ValueError(f"the id of an event must be a text, got {identity!r}")
    return identity


def _write(file: int, content: bytes) -> None:
    while content:
        content = content[os.write(file, content) :]


def _keep(path: Path, content: bytes) -> None:
    """Add bytes to the file of torn lines, on disk before they go from the journal."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    try:
        _write(file, content + b"\n")
        os.fsync(file)
    finally:
        os.close(file)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Have a new file's name on disk too; some file systems cannot, and need not."""
    with contextlib.suppress(OSError):
        opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)
