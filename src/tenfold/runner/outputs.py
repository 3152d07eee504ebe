"""Folders of predictions: one prediction in each, with a journal of what made it and its files."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from tenfold.core import lock
from tenfold.core.config import to_json
from tenfold.core.dist import World
from tenfold.core.run_folder import JOURNAL, read_journal
from tenfold.files import append_line, asking, sha256, sum_of, write_text

from .weights import official_of, versions_of, weights_of

PAGES = ("predictions.csv", "predictions.html", "forecast.html", "explanation.html")
"""Files that end a prediction: if they are there and others wrote them, it does not begin."""


def made_by(path: Path, inputs: Path, options: Any) -> dict[str, Any]:
    """Say what makes a prediction: weights, input and options, as JSON has them."""
    weights: Any
    if official_of(path):  # large: not read for this
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        weights = [[written(f.resolve()), f.stat().st_size, f.stat().st_mtime_ns] for f in files]
    else:
        file = weights_of(path)
        known = sum_of(file)  # checked when the weights were opened
        weights = known.read_text().split()[0] if known.is_file() else sha256(file)
        version = versions_of(file.parent).header()
        if version is not None:  # classes that were learned after the training answer, too
            weights = [weights, version.content]
    asked = None if options is None else to_json(options)
    made = {"weights": weights, "input": written(inputs.resolve()), "options": asked}
    plain: dict[str, Any] = json.loads(json.dumps(made, default=str))
    return plain


def written(path: Path) -> str:
    """A path as a journal can hold it: bytes that are no UTF-8 are written out."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def own_folder(home: Path, inputs: Path, made: dict[str, Any]) -> Path:
    """The folder of a prediction in `home`: named after its input, numbered where others are."""
    base = home / "predictions"
    if base.is_symlink():
        raise ValueError(
            f"{base} is a link to {os.readlink(base)}, which is not followed; give --out"
        )
    name = inputs.resolve().name
    for number in count(1):
        folder = base / (name if number == 1 else f"{name}-{number}")
        if _is_free(folder, made):
            break
    return folder


def _is_free(folder: Path, made: dict[str, Any]) -> bool:
    """True for a folder that holds nothing, or this very prediction."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        return False
    if (folder / JOURNAL).is_file():
        return _of(folder) == made
    return not folder.exists() or not {p.name for p in folder.iterdir()} - {lock.NAME}


def _of(folder: Path) -> dict[str, Any]:
    made, _ = read_journal(folder / JOURNAL)
    return {key: made.get(key) for key in ("weights", "input", "options")}


@contextmanager
def writing(out: Path, made: dict[str, Any], world: World) -> Iterator[Path]:
    """Lock a folder for one prediction; within, it alone writes there, and over nothing of others.

    Yields:
        The journal. It is kept if anything was written.

    Raises:
        ValueError: The folder holds another prediction, another process is predicting into it, or
            a file that would be written is there already; the error says which.
    """
    if not world.is_first:
        world.barrier()  # the first has begun the journal
        with asking(_Journal(out).claim):
            yield out / JOURNAL
        return
    with lock.locked(out, "predicting"):
        _begin(out, made)
        world.barrier()
        journal = _Journal(out)
        try:
            with asking(journal.claim):
                yield journal.file
            _put_in_order(journal.file)
        finally:
            if not read_journal(journal.file)[1]:
                journal.file.unlink()


def _begin(out: Path, made: dict[str, Any]) -> None:
    from tenfold import __version__

    journal = out / JOURNAL
    if journal.is_symlink():
        raise ValueError(f"{journal} is a link, which is not followed; give another --out")
    if journal.exists():
        other = _of(out)
        if other == made:
            return
        differs = [key for key in made if made[key] != other[key]]
        raise ValueError(
            f"{out} holds another prediction (of other {' and '.join(differs)}: its input is "
            f"{other['input']}); give another --out"
        )
    for name in PAGES:
        if (out / name).exists():
            raise ValueError(f"{out / name} is of another prediction, or yours; give another --out")
    append_line(journal, json.dumps({"tenfold": __version__, **made}))


def _put_in_order(journal: Path) -> None:
    """Sort the files of a finished prediction: the journal is that of any number of processes."""
    first = journal.read_text(encoding="utf-8").splitlines()[0]
    files = [json.dumps(path) for path in sorted(set(read_journal(journal)[1]))]
    write_text(journal, "\n".join([first, *files]) + "\n")


class _Journal:
    """The files of one prediction, each noted before it is written."""

    def __init__(self, out: Path) -> None:
        self.out, self.file = out, out / JOURNAL
        self.known = set(read_journal(self.file)[1])

    def claim(self, path: Path) -> None:
        """Note a file that will be written; one of others in its place is a ValueError."""
        try:
            relative = path.relative_to(self.out)
        except ValueError:
            return
        for part in (path, *(self.out / parent for parent in list(relative.parents)[:-1])):
            if part.is_symlink():
                raise ValueError(
                    f"{part} is a link to {os.readlink(part)}, which is not followed; give "
                    "another --out"
                )
        name = relative.as_posix()
        if name in self.known:
            return
        if os.path.lexists(path):
            raise ValueError(
                f"{path} is there already, and this prediction did not write it; give another --out"
            )
        append_line(self.file, json.dumps(name))
        self.known.add(name)
