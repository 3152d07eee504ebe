"""Headers of a tar file from any place on, in constant memory, with bounds on what they state."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

BLOCK = tarfile.BLOCKSIZE
MOST_EXTENSION = 2**16
"""Bytes of a header that only extends the next one, such as a long name."""
FILES = (tarfile.REGTYPE, tarfile.AREGTYPE)
LENGTH = re.compile(rb"(\d{1,6}) ([^=]+)=")


@dataclass(frozen=True)
class Member:
    """A file in a tar."""

    name: str
    start: int
    """Byte at which its headers begin: where reading can go on."""
    offset: int
    """Byte at which its content begins."""
    size: int


def members(opened: BinaryIO, file: Path, at: int = 0) -> Iterator[Member]:
    """Yield the regular files whose headers lie from byte `at` on, which is the begin of one.

    Raises:
        ValueError: The tar is cut, damaged or compressed; the error names file and byte. What was
            yielded before is whole.
    """
    end = opened.seek(0, 2)
    start, name, size = at, "", -1
    while True:
        opened.seek(at)
        header = opened.read(BLOCK)
        if not header.strip(b"\0") and len(header) == BLOCK:
            return
        if len(header) < BLOCK:
            raise ValueError(f"{file} is cut: it ends at byte {end} without the mark of its end")
        try:
            info = tarfile.TarInfo.frombuf(header, "utf-8", "backslashreplace")
        except (tarfile.HeaderError, ValueError, ArithmeticError) as error:
            raise ValueError(f"{file} {_damage(header, at)}: {error}") from error
        content = at + BLOCK
        length = info.size if size < 0 or info.type not in FILES else size
        if length < 0 or content + length > end:
            raise ValueError(
                f"{file} is cut: it ends at byte {end}, in the middle of {info.name!r}"
            )
        following = content + -(-length // BLOCK) * BLOCK
        if info.type in (tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE):
            if length > MOST_EXTENSION:
                raise ValueError(f"{file} has a header of {length} bytes at byte {at}")
            stated = opened.read(length)
            if info.type == tarfile.XHDTYPE:
                name, size = _pax(stated, name, size)
            else:
                name = stated.rstrip(b"\0").decode("utf-8", "backslashreplace")
        else:
            if info.type in FILES:
                yield Member(name or info.name, start, content, length)
            start, name, size = following, "", -1
        at = following


def _damage(header: bytes, at: int) -> str:
    if at == 0 and header[:2] in (b"\x1f\x8b", b"BZ", b"\xfd7", b"(\xb5"):
        return "is compressed, so that nothing can be read from the middle of it: unpack it"
    return f"is damaged at byte {at}"


def _pax(content: bytes, name: str, size: int) -> tuple[str, int]:
    """Name and size that an extended header states."""
    at = 0
    while (found := LENGTH.match(content, at)) and int(found[1]) > found.end() - at:
        value = content[found.end() : at + int(found[1]) - 1]
        if found[2] == b"path":
            name = value.decode("utf-8", "backslashreplace")
        elif found[2] == b"size" and value.isdigit() and len(value) < 20:
            size = int(value)
        at += int(found[1])
    return name, size
