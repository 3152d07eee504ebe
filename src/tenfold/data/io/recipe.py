"""Helpers that recipes of preparation share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

Recipe = Callable[[Path, Path], None]


def refuse_existing(out: Path, products: Iterable[str]) -> None:
    """Raise ValueError if any of the products stands in the folder already."""
    existing = [product for product in products if (out / product).exists()]
    if existing:
        raise ValueError(
            f"{out} already holds {', '.join(existing)}. Choose another folder, or allow "
            "overwriting."
        )


def move_into_place(file: Path, target: Path) -> Path:
    """Rename into place; a folder that is overwritten goes into the temporary folder first."""
    if target.is_dir():
        target.rename(file.parent.parent / f"old-{target.name}")
    file.replace(target)
    return target


def need(path: Path, what: str) -> Path:
    """Return the path; FileNotFoundError says `what` was expected there."""
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: expected {what}.")
    return path
