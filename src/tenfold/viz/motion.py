"""A page on which one looks at moving bodies from all sides: orbit, scrub, truth beside prediction.

The page works from disk and loads nothing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from tenfold.printable import printable

from .page import App, Badge, Page, Section, write_page


@dataclass(frozen=True)
class Moving:
    """A body that moves: y is up, and it looks along z at first; lengths in mm."""

    name: str
    centred: Float[np.ndarray, "frames joints 3"]
    """Joints seen from the body itself."""
    placed: Float[np.ndarray, "frames joints 3"] | None = None
    """Joints in the world, where it is known."""


def write_motion(
    out: Path,
    bodies: Sequence[Moving],
    parents: Sequence[int],
    sides: Sequence[str],
    observed: int,
    fps: float,
    *,
    title: str,
    lead: str = "",
    badges: Sequence[Badge] = (),
    meaning: Sequence[str] = (),
    origin: str = "",
) -> Path:
    """Write the page.

    Args:
        out: File.
        bodies: One or two of the same joints: the truth, if it is known, and the prediction last.
        parents: Parent of each joint; -1 is a root.
        sides: "left", "right" or "middle" of each joint, which have colours of their own.
        observed: Frames before the first predicted one.
        fps: Frames a second.
        title: Of the page.
        lead: A line under it.
        badges: Small labels before it.
        meaning: How to read the page.
        origin: What made it, for the last line.
    """
    content: dict[str, Any] = {
        "parents": list(parents),
        "sides": list(sides),
        "observed": observed,
        "fps": fps,
        "bodies": [
            {
                "name": printable(one.name),
                "centred": _whole(one.centred),
                "placed": None if one.placed is None else _whole(one.placed),
            }
            for one in bodies
        ],
    }
    # "<" could end the element that holds it
    text = json.dumps(content, ensure_ascii=True, separators=(",", ":")).replace("<", "\\u003c")
    app = App(_part("motion.html"), _part("motion.css"), _part("motion.js"), text)
    sections = [Section("What this means", bullets=list(meaning))] if meaning else []
    return write_page(
        Page(title, lead, list(badges), sections=sections, footer=origin, app=app), out
    )


def _whole(positions: Float[np.ndarray, "frames joints 3"]) -> list[list[int]]:
    """Coordinates of each frame in whole mm, joint after joint."""
    rows: list[list[int]] = positions.round().astype(int).reshape(len(positions), -1).tolist()
    return rows


def _part(name: str) -> str:
    return files("tenfold.viz").joinpath(name).read_text(encoding="utf-8")
