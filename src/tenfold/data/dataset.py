"""Types of the catalogue: a data set and its downloads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Download:
    """One file that can be fetched by its address."""

    urls: tuple[str, ...]
    """Addresses of the same file, tried in order."""
    file: str
    """Place of the file, relative to the output folder."""
    checksum: str
    """``sha256:...``, ``md5:...`` or ``git:...`` (the id of the file as a git blob)."""
    limit: int
    """Largest size accepted, in bytes."""
    unpacks_to: str = ""
    """For an archive: the folder that it holds; empty keeps the file as it is."""


@dataclass(frozen=True)
class DataSet:
    """Catalogue entry of a data set: its content, its origin and its terms."""

    name: str
    """Name of the set, and of its folder under $TENFOLD_DATA."""
    systems: tuple[str, ...]
    """Systems of tenfold that read it."""
    what: str
    """One line: what is in it."""
    kind: Literal["real", "simulated"]
    """Kind of the content: recorded, or made by a program."""
    licence: str
    """Terms, as far as the origin states them."""
    origin: str
    """Repository and commit, or site."""
    size: str
    """Size on disk."""
    layout: str
    """Files of the folder."""
    obtain: str
    """Instructions to get it, for a person."""
    preparation: Literal["recipe", "as is", "none"] = "none"
    """Recipe: `prepare` makes it from the originals; as is: the original files are read directly;
    none: the folder was made once and the originals need other steps than we have a recipe for."""
    downloads: tuple[Download, ...] = ()
    """Files that `tenfold data get` fetches."""
    bring_your_own: bool = False
    """True if only the user can supply it: no copy belongs to this project."""


MIB = 2**20


ONCE = "made once for this project; put the folder at $TENFOLD_DATA/{name}. There is no recipe"
