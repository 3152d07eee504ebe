"""Files that can be made again, kept outside the data: each whole or absent, whoever writes."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable
from pathlib import Path


def folder(name: str) -> Path:
    """Where a kind of files lies: $TENFOLD_CACHE/<name>, by default ~/.cache/tenfold/<name>."""
    root = os.environ.get("TENFOLD_CACHE", "")
    return (Path(root) if root else Path.home() / ".cache" / "tenfold") / name


def keep(file: Path, write: Callable[[Path], object], what: str, other_way: str = "") -> bool:
    """Let `write` fill a file that gets its name when it is whole; True if it was kept.

    A full or read-only disk must not cost the run: `what` are not kept then, which is a warning
    that ends with `other_way` out.
    """
    temporary = file.with_name(f"{file.name}.{os.getpid()}.tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        os.replace(temporary, file)
    except Exception as error:  # libraries raise types of their own
        with contextlib.suppress(OSError):
            temporary.unlink()
        warnings.warn(
            f"{what} are not kept in {file.parent} ({error}); set TENFOLD_CACHE to a folder with "
            f"room{other_way}",
            stacklevel=3,
        )
        return False
    return True
