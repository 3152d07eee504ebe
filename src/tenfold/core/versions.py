"""Versions of what a trained system learned afterwards: whole or absent, numbered, undoable.

Beside the weights of a run lie `learned/0001.safetensors`, ... (a state each, never changed once
written) and `learned/current.json` (which of them counts; version 0 is the weights alone).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from tenfold.files import parse_json, sha256

from . import checkpoint, lock, run_folder
from .config import from_json

PATIENCE = 30.0
"""Seconds that a process waits for another one that changes versions of the same run."""
LONGEST_NAME = 100
"""Characters of a class name."""
ENTRY = "tenfold-learned"
"""The entry of the safetensors header; one alone, so that equal states make equal files."""


@dataclass(frozen=True)
class Learned:
    """Outcome of `System.learn`; nothing of it is on disk yet."""

    names: tuple[str, ...]
    """Classes that were learned now."""
    photos: tuple[int, ...]
    """Photos of each of them."""
    notes: tuple[str, ...]
    """Remarks that the user should know."""
    memory_before: int
    """Bytes of what the system kept of all classes before."""
    memory_after: int
    """Bytes of what it keeps now."""
    classes: tuple[str, ...]
    """All classes that are known now, in the order of the answers."""
    pictures: dict[str, bytes] = field(default_factory=dict)
    """File name -> content (pictures, a page); written beside the version."""
    lines: tuple[str, ...] = ()
    """Findings, a sentence each."""
    facts: dict[str, Any] = field(default_factory=dict)
    """The findings as plain values: JSON beside the version."""
    loss: float = 0.0
    """Points of accuracy that the classes known before lose by an estimate."""


@dataclass(frozen=True)
class Version:
    """Header of a version's file."""

    number: int
    parent: int
    """Version that it was learned upon."""
    when: str
    """UTC, ISO 8601."""
    names: tuple[str, ...]
    """Classes that were learned in this step."""
    photos: tuple[int, ...]
    """Photos of each of them."""
    classes: tuple[str, ...]
    """All classes after this step, in the order of the answers."""
    weights: str
    """SHA-256 of the weights file that the state belongs to."""
    content: str
    """SHA-256 of the state's tensors and `classes`."""

    def check(self) -> None:
        """Raise ValueError for what cannot be."""
        if not 0 <= self.parent < self.number:
            raise ValueError(f"version {self.number} cannot follow version {self.parent}")
        if not self.names or len(self.names) != len(self.photos) or min(self.photos) < 1:
            raise ValueError(f"{len(self.names)} classes with photos {list(self.photos)}")
        for name in (*self.names, *self.classes):
            check_name(name)
        if len(set(self.classes)) < len(self.classes) or not set(self.names) <= set(self.classes):
            raise ValueError("the list of classes names one twice, or lacks one that was learned")
        datetime.fromisoformat(self.when)


@dataclass(frozen=True)
class Row:
    """A line of the history."""

    number: int
    current: bool
    version: Version | None
    """None for version 0 and for a damaged file."""
    problem: str = ""
    """Reason why the file cannot be used; empty if it can."""


def check_name(name: str) -> None:
    """Raise ValueError for a class name that a table or a file could not show."""
    if not name.strip() or len(name) > LONGEST_NAME or not name.isprintable():
        raise ValueError(
            f"{name[:LONGEST_NAME]!r} cannot name a class: give 1 to {LONGEST_NAME} printable "
            "characters"
        )


class Versions:
    """The versions of one run folder; one object serves one thread.

    `command` is what a user types before the number of a version to go to it; errors say it.
    """

    def __init__(self, run: Path, command: str = "") -> None:
        self.run, self.command = run, command
        self.folder = run / "learned"
        self._pointer = self.folder / "current.json"
        self._holds_lock = False

    @cached_property
    def weights(self) -> str:
        """SHA-256 of the weights, read once: what is learned later belongs to these."""
        return sha256(self.run / "weights.safetensors")

    def file(self, number: int) -> Path:
        """The file of a version above 0."""
        return self.folder / f"{number:04d}.safetensors"

    def current(self) -> int:
        """The number of the version that counts; 0 if nothing was learned or all was undone."""
        if not self._pointer.exists():
            return 0
        try:
            found = checkpoint.read_json(self._pointer)
            number = found["version"]
            if type(number) is not int or number < 0:
                raise ValueError(f"version {number!r}")
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{self._pointer} does not name a version ({error!r}); {self._to('N')} "
                f"writes it anew, with N of {self._known()}"
            ) from error
        return number

    def read(self, number: int | None = None) -> tuple[dict[str, Tensor], Version | None]:
        """Tensors and header of a version, by default the current one; of version 0 ({}, None)."""
        number = self.current() if number is None else number
        if number == 0:
            return {}, None
        try:
            version = self._header(number)
            tensors = checkpoint.read_tensors(self.file(number))
            if _digest(tensors, version.classes) != version.content:
                raise ValueError(f"{self.file(number)} is damaged: it is not what was written")
        except ValueError as error:
            raise ValueError(f"{error}; {self._way_out(number)}") from error
        return tensors, version

    def header(self) -> Version | None:
        """Header of the current version, without its tensors; of version 0 None."""
        number = self.current()
        return self._header(number) if number else None

    def add(self, tensors: dict[str, Tensor], learned: Learned) -> int:
        """Write a state as the child of the current version, make it current; its number.

        The last rename is what commits: whoever is killed before it leaves the old version (and at
        most a whole file more, which `redo` finds).
        """
        with self.locked():
            for stray in self.folder.glob("*.tmp"):
                if stray.is_file():
                    stray.unlink()
            parent = self.current()
            version = Version(
                max([parent, *self._numbers()]) + 1,  # never one that was used: files stay as is
                parent,
                datetime.now(UTC).isoformat(timespec="seconds"),
                learned.names,
                learned.photos,
                learned.classes,
                self.weights,
                _digest(tensors, learned.classes),
            )
            version.check()
            header = {ENTRY: json.dumps(asdict(version))}
            # the digest of its tensors lies in its header
            checkpoint.write_tensors(self.file(version.number), tensors, header, sealed=False)
            self._sync()  # a power cut must not keep the second rename without the first
            self._point_to(version.number)
            return version.number

    def go(self, number: int) -> int:
        """Make another version current, if it can be read."""
        with self.locked():
            if number not in (0, *self._numbers()):
                raise ValueError(f"{self.run} has no version {number}; there are {self._known()}")
            self.read(number)
            self._point_to(number)
            return number

    def undo(self) -> int:
        """Go to the version that the current one was learned upon."""
        with self.locked():
            _, version = self.read()
            if version is None:
                raise ValueError(f"nothing to undo: {self.run} is at version 0, as it was trained")
            return self.go(version.parent)

    def redo(self) -> int:
        """Go to the newest version that was learned upon the current one."""
        with self.locked():
            current = self.current()
            children = [
                r.number for r in self.history() if r.version and r.version.parent == current
            ]
            if not children:
                raise ValueError(
                    f"nothing to redo: no version of {self.run} was learned upon version {current}"
                )
            return self.go(children[-1])

    def history(self) -> list[Row]:
        """All versions from 0, oldest first; of damaged or foreign files, what is wrong."""
        current = self.current()
        return [
            Row(0, current == 0, None),
            *(self._row(number, current == number) for number in self._numbers()),
        ]

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from changing versions; waits `PATIENCE` seconds for them."""
        if self._holds_lock:
            yield
            return
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(f"{self.folder} must be a folder; move what lies there")
        with lock.locked(self.run, "learning", PATIENCE):
            run_folder.refuse_links(self.run)
            self._holds_lock = True
            try:
                yield
            finally:
                self._holds_lock = False

    def _point_to(self, number: int) -> None:
        checkpoint.write_json(self._pointer, {"version": number})
        self._sync()

    def _sync(self) -> None:
        """Bring renames in the folder to disk."""
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _numbers(self) -> list[int]:
        """Numbers of the versions that have a file."""
        if not self.folder.is_dir():
            return []
        found = [re.fullmatch(r"(\d{4,9})\.safetensors", p.name) for p in self.folder.iterdir()]
        numbers = {int(match[1]) for match in found if match}
        return sorted(n for n in numbers if n > 0 and self.file(n).is_file())

    def _row(self, number: int, current: bool) -> Row:
        try:
            return Row(number, current, self._header(number))
        except ValueError as error:
            return Row(number, current, None, str(error))

    def _header(self, number: int) -> Version:
        """The checked header of a version; what is wrong is a ValueError without a way out."""
        file = self.file(number)
        if not file.is_file():
            raise ValueError(f"{file}, the file of version {number}, is gone")
        try:
            with safe_open(file, "pt") as opened:
                text = (opened.metadata() or {}).get(ENTRY)
            if text is None:
                raise ValueError(f"its header has no {ENTRY}")
            version = from_json(Version, parse_json(text), "header")
            version.check()
        except Exception as error:  # safetensors raises its own type; the text may be anything
            raise ValueError(f"{file} is not a readable version ({_line(error)})") from error
        if version.number != number:
            raise ValueError(f"{file} holds version {version.number}: it was renamed")
        if version.weights != self.weights:
            raise ValueError(
                f"{file} was learned upon other weights than {self.run} has now: the run was "
                "trained again, or the file is of another run"
            )
        return version

    def _way_out(self, number: int) -> str:
        """Say how to leave a version that cannot be used: the newest sound one before it."""
        before = [n for n in reversed(self._numbers()) if n < number]
        sound = next((n for n in before if not self._row(n, False).problem), 0)
        return f"{self._to(sound)} goes back to version {sound}; then delete the file"

    def _to(self, number: int | str) -> str:
        return f"`{self.command} {number}`" if self.command else f"go({number})"

    def _known(self) -> str:
        return ", ".join(str(n) for n in (0, *self._numbers()))


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0] or type(error).__name__


def _digest(tensors: dict[str, Tensor], classes: tuple[str, ...]) -> str:
    """SHA-256 of a state: one bit, one shape or the order of classes changed is another state."""
    digest = hashlib.sha256(json.dumps(classes).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
