"""Files that are whole or absent, sums beside them, JSON of a known shape: the leaf for all rooms.

This file imports nothing of tenfold.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NUMBER = (int, float)
"""Shape of a number; true and false are none."""
Shape = Any
"""Shape of a JSON value: a type (or several), [shape] of the items of a list, {"*": shape} of all
values of an object, {field: shape} of those fields that are there. None is null; object is all."""
NAMES = {
    str: "a text", int: "a whole number", float: "a number", bool: "true or false",
    dict: "an object", list: "a list", type(None): "null",
}  # fmt: skip

HALF = re.compile(r"\\u[dD][89a-fA-F]")
"""Escape of a half of a character beyond 16 bits; two make one."""

_asked: list[Callable[[Path], None]] = []


@contextmanager
def asking(whom: Callable[[Path], None]) -> Iterator[None]:
    """Within it, `whom` is called with the path of each file before it is written; may refuse."""
    _asked.append(whom)
    try:
        yield
    finally:
        _asked.remove(whom)


def claim(path: Path) -> None:
    """Say that a file (or a folder that is a file of its own) will be written now."""
    for whom in tuple(_asked):
        whom(path)


# --- writing -------------------------------------------------------------------------------------


@contextmanager
def replacing(path: Path, sealed: bool = False) -> Iterator[Path]:
    """A temporary name beside `path` to write to; it takes the place of `path` at the end.

    Who is killed leaves the old file, and an error no temporary one. A link is replaced, never
    written through. `sealed` writes the SHA-256 beside the file (see `verify`).
    """
    claim(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.unlink(missing_ok=True)  # of one that was killed, or a link to anywhere
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        digest = sha256(temporary) if sealed else ""
        if sealed:  # a new file without a sum is read, with that of the old one it is not
            sum_of(path).unlink(missing_ok=True)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if sealed:
        write_text(sum_of(path), f"{digest}  {path.name}\n")


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file that is never seen half-written."""
    with replacing(path) as temporary, temporary.open("xb") as file:
        file.write(content)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, readable by a person."""
    write_text(path, json.dumps(value, indent=1, sort_keys=False, allow_nan=True) + "\n")


def append_line(path: Path, text: str) -> None:
    """Append a line to a file, which is made if it is not there; a link is an OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
    with open(os.open(path, flags, 0o666), "a", encoding="utf-8") as file:
        file.write(text + "\n")


def require_empty(folder: Path, choose: str, but: Collection[str] = ()) -> None:
    """Raise ValueError unless a folder is absent, or empty but for files of the names in `but`.

    `choose` names what the user gives to have another one: "--out".
    """
    if folder.exists() and (not folder.is_dir() or {p.name for p in folder.iterdir()} - set(but)):
        raise ValueError(f"{folder} exists and is not empty; choose another {choose}")


def require_no_folder(path: Path) -> None:
    """Refuse one of a list of inputs that is a folder: such a list has those of which it could not
    find out what they hold.

    Raises:
        PermissionError: It is a folder.
    """
    if path.is_dir():
        raise PermissionError(f"{path} is a folder that may not be looked into. Allow it.")


def require_own(table: Path, field: str, *more: Path) -> None:
    """Raise ValueError if JSON that will be written, or a file beside it, is there and is not ours.

    `table` is ours if it is an object with this field, and then so is `more`.
    """
    ours = table.is_file() and field in read_object(table, {})
    for file in (table, *more):
        if file.exists() and not ours:
            raise ValueError(f"{file} was not written by tenfold; give another --out")


# --- sums ----------------------------------------------------------------------------------------


def sha256(path: Path) -> str:
    """SHA-256 of a file, read in parts."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sum_of(path: Path) -> Path:
    """The file that holds a file's sum, as `sha256sum --check` reads it."""
    return path.with_name(path.name + ".sha256")


def verify(path: Path, way_out: str) -> None:
    """Raise ValueError, which ends with `way_out`, if a file is not what its sum says.

    A file without a sum was written before there were sums, or by others, and passes.
    """
    file = sum_of(path)
    if not file.is_file():
        return
    words = file.read_text(encoding="utf-8", errors="replace").split()
    if not words or words[0] != sha256(path):
        raise ValueError(
            f"{path} is damaged and cannot be read: its SHA-256 is not the one in {file.name} "
            f"(delete that file if the change is yours); {way_out}"
        )


# --- JSON ----------------------------------------------------------------------------------------


def parse_json(text: str) -> Any:
    """The value of a JSON text; whatever is wrong with it is a ValueError."""
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if HALF.search(text):  # which nothing can write or draw
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise ValueError("a text in it holds half of a character") from error
    return value


def require_bounded(file: Path, most: int) -> None:
    """Raise unless this is a file of at most so many bytes, before it is read.

    Raises:
        FileNotFoundError: It is not there, or is no file.
        ValueError: It is larger.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file} is not there, or is not a file")
    if file.stat().st_size > most:
        raise ValueError(f"{file} has more than {most} bytes")


def read_json(path: Path) -> Any:
    """Read JSON, naming the file if it is damaged."""
    try:
        return parse_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{path} is not readable JSON ({error}); restore it from a copy, or delete it"
        ) from error


def read_object(
    path: Path, shape: Mapping[str, Shape], required: Collection[str] = ()
) -> dict[str, Any]:
    """Read a JSON object whose fields have these shapes, so far as they are there.

    Raises:
        ValueError: The file is damaged, a field has another shape, or one that is `required` is
            absent; the error names file and field.
    """
    value = read_json(path)
    problem = misfit(value, dict(shape), "")
    absent = [] if problem else [field for field in required if field not in value]
    if absent:
        problem = f"it lacks {', '.join(absent)}"
    if problem:
        raise ValueError(f"{path}: {problem}; restore it from a copy, or delete it")
    found: dict[str, Any] = value
    return found


def misfit(value: Any, shape: Shape, where: str) -> str:
    """What is wrong with a value, its field named from `where` on; empty if nothing."""
    outer = type(shape) if isinstance(shape, (dict, list)) else shape
    kinds = tuple(
        type(None) if kind is None else kind
        for kind in (outer if isinstance(outer, tuple) else (outer,))
    )
    right = isinstance(value, kinds) and not (isinstance(value, bool) and int in kinds)
    if not right:
        names = "a number" if kinds == NUMBER else " or ".join(NAMES[kind] for kind in kinds)
        shown = repr(value) if len(repr(value)) < 40 else NAMES[type(value)]
        return f"{where or 'it'} must be {names}, got {shown}"
    items: list[tuple[str, Any, Shape]] = []
    if isinstance(shape, list):
        items = [(f"{where}[{i}]", item, shape[0]) for i, item in enumerate(value)]
    elif isinstance(shape, dict):
        items = [
            (f"{where}.{key}".lstrip("."), item, shape.get(key, shape.get("*", object)))
            for key, item in value.items()
        ]
    return next((text for place, item, s in items if (text := misfit(item, s, place))), "")
