"""Find data sets, list them, and say how to get the ones that are missing.

Nothing here opens a data file, and nothing heavy is imported: `tenfold list` starts fast.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from tenfold.printable import Lines

from .dataset import DataSet, Download
from .sets import SETS

__all__ = [
    "SETS",
    "DataSet",
    "Download",
    "Row",
    "entry",
    "find",
    "find_or_explain",
    "info",
    "root",
    "table",
]

VARIABLE = "TENFOLD_DATA"
"""Environment variable that names the folder of all data sets."""


@dataclass(frozen=True)
class Row:
    """One line of `tenfold data`."""

    name: str
    what: str
    kind: str
    """ "real" or "simulated"."""
    licence: str
    origin: str
    size: str
    systems: tuple[str, ...]
    bring_your_own: bool
    present: str
    """Folder where it lies, or "not found"."""


def entry(name: str) -> DataSet:
    """Return the catalogue entry of `name`.

    Raises:
        ValueError: There is none; the error says the nearest name.
    """
    if name in SETS:
        return SETS[name]
    near = get_close_matches(name, SETS, n=1, cutoff=0.5)
    hint = f"Did you mean {near[0]!r}?" if near else f"The known sets are: {', '.join(SETS)}."
    raise ValueError(f"no data set is called {name!r}. {hint} `tenfold data` lists them.")


def root() -> Path | None:
    """Return the folder that $TENFOLD_DATA names, or None if it is unset.

    Raises:
        FileNotFoundError: The variable names something that is not a folder: falling back to
            generated data would hide a mistyped path.
    """
    value = os.environ.get(VARIABLE, "")
    if not value:
        return None
    folder = Path(value).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(
            f"${VARIABLE} is {value!r}, which is not a folder. Point it at the folder that holds "
            f"the data sets, or unset it to use generated data."
        )
    return folder


def find(name: str, path: str | Path = "") -> Path | None:
    """Find the folder of a data set.

    Args:
        name: Name in the catalogue.
        path: Place of the set, if known. An empty `Path` reads as "." and counts as not given:
            name the current folder in full.

    Returns:
        `path` if given, else the folder $TENFOLD_DATA/<name>, or None if that is not there.

    Raises:
        ValueError: The name is unknown.
        FileNotFoundError: `path` is given and does not exist, or $TENFOLD_DATA is no folder.
    """
    entry(name)
    if str(path) not in ("", "."):
        given = Path(path).expanduser()
        if not given.exists():
            raise FileNotFoundError(
                f"{name}: {given} does not exist. Give the folder that holds the set, or leave "
                f"the path empty to look under ${VARIABLE}."
            )
        return given
    folder = root()
    if folder is None or not (folder / name).is_dir():
        return None
    return folder / name


def find_or_explain(name: str, path: str | Path = "") -> Path:
    """Find the folder of a data set as `find` does, but never return None.

    Raises:
        ValueError: The name is unknown.
        FileNotFoundError: The set is not there; the error says how to obtain it.
    """
    found = find(name, path)
    if found is not None:
        return found
    folder = root()
    looked = f"${VARIABLE} is not set" if folder is None else f"{folder / name} does not exist"
    said = Lines(
        f"data set {name!r} was not found: {looked}.\n"
        f"To get it: {_obtain(SETS[name])}.\n"
        f"Expected there: {SETS[name].layout}.\n"
        f"Then set ${VARIABLE} to the folder above it, or give its path."
    )
    raise FileNotFoundError(said)


def table() -> list[Row]:
    """Return one row per data set, with where it lies on this machine.

    Raises:
        FileNotFoundError: $TENFOLD_DATA names something that is not a folder.
    """
    return [
        Row(
            name=item.name,
            what=item.what,
            kind=item.kind,
            licence=item.licence,
            origin=item.origin,
            size=item.size,
            systems=item.systems,
            bring_your_own=item.bring_your_own,
            present=str(find(item.name) or "not found"),
        )
        for item in SETS.values()
    ]


def info(name: str) -> str:
    """Return everything known about one data set, as text for a terminal.

    Raises:
        ValueError: The name is unknown.
        FileNotFoundError: $TENFOLD_DATA names something that is not a folder.
    """
    item = entry(name)
    commands = [f"tenfold data check {name}"]
    if item.preparation == "recipe":
        commands.append(f"tenfold data prepare {name} SOURCE OUT")
    if item.downloads:
        commands.append(f"tenfold data get {name} OUT")
    lines = [
        f"{name}: {item.what}",
        f"  used by   {', '.join(item.systems)}",
        f"  kind      {item.kind}{', bring your own' if item.bring_your_own else ''}",
        f"  licence   {item.licence}",
        f"  origin    {item.origin}",
        f"  size      {item.size}",
        f"  layout    {item.layout}",
        f"  to get    {_obtain(item)}",
        f"  present   {find(name) or 'not found'}",
        f"  commands  {'; '.join(commands)}",
    ]
    return "\n".join(lines)


def _obtain(item: DataSet) -> str:
    return item.obtain.replace("{name}", item.name)
