"""Open a few-shot class-incremental set by its name."""

from __future__ import annotations

from pathlib import Path

from .. import catalog
from . import fscil_sets
from .decode import USUAL, Reading
from .fscil import FOLDER_SIZE, NAMES, Protocol, _check_total, assemble, choose


def read(
    name: str,
    path: str | Path = "",
    *,
    size: int = 0,
    base: int = 0,
    way: int = 0,
    shot: int = 0,
    draws: int = 1,
    test_share: int | float = 0.2,
    seed: int = 0,
    reading: Reading = USUAL,
) -> Protocol:
    """The protocol of a data set found at `path`, or if that is empty under $TENFOLD_DATA.

    0 stands for the set's own number. With a smaller `base` or `way`, the first classes of the base
    session or of each session are taken. Draw 0 is the public one; further draws are other training
    pictures, in the order of a permutation seeded by `seed` and the class, disjoint as long as a
    class has enough. test_share and reading concern `folder` only.
    """
    folder = _folder(name, path)
    if draws < 1:
        raise ValueError(f"data.draws must be at least 1, got {draws}")
    if name == "folder":
        source = fscil_sets.from_folder(folder, size or FOLDER_SIZE, test_share, seed, reading)
    else:
        source = fscil_sets.SOURCES[name](folder, size)
    return assemble(name, source, base=base, way=way, shot=shot, draws=draws, seed=seed)


def describe(
    name: str, path: str | Path = "", *, base: int = 0, way: int = 0, reading: Reading = USUAL
) -> tuple[str, ...]:
    """The classes of `read`'s protocol, in label order, without reading a picture."""
    folder = _folder(name, path)
    if name == "folder":
        classes = fscil_sets.folder_classes(folder, reading)
    else:
        classes = fscil_sets.CLASSES[name](folder)
    _check_total(name, len(classes))
    _, kept = choose(name, len(classes), base, way)
    return tuple(classes[label] for label in kept)


def _folder(name: str, path: str | Path) -> Path:
    if name == "folder":
        if str(path) in ("", "."):
            raise ValueError("data.path is empty: give the folder that holds the class folders.")
        return Path(path).expanduser()
    if name not in NAMES:
        raise ValueError(f"no pictures are read for {name!r}: choose one of {', '.join(NAMES)}.")
    return catalog.find_or_explain(name, path)
