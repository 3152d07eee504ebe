"""A page of pictures with activation maps and the masks that a threshold makes of them.

The threshold is a slider; the page works from disk and loads nothing.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from tenfold.printable import printable

from .colours import palette
from .page import App, Badge, Page, Section, footer, uri, write_page

SIDE = 192
"""Pixels of the longer side of pictures and maps on the page."""

Rgb = UInt8[np.ndarray, "_ _ 3"]


@dataclass(frozen=True)
class Shown:
    """A picture as the page holds it: small."""

    name: str
    picture: bytes
    """JPEG."""
    size: tuple[int, int]
    """Height and width."""
    classes: tuple[int, ...]
    """Labels of the maps, 1 for the first class."""
    maps: bytes
    """PNG of grey maps, one below the other; empty without classes."""
    note: str = ""
    """What is said of it beside the shares of its classes."""


def shown(
    name: str, picture: Rgb, maps: Mapping[int, Float[np.ndarray, "_ _"]], note: str = ""
) -> Shown:
    """A picture with its activation maps (label -> values in [0, 1]) for the page."""
    height, width = picture.shape[:2]
    scale = min(1.0, SIDE / max(height, width))
    size = max(1, round(height * scale)), max(1, round(width * scale))
    image = Image.fromarray(picture).resize(size[::-1], Image.Resampling.LANCZOS)
    content = io.BytesIO()
    image.save(content, "JPEG", quality=88)
    small = [_small(values, size) for values in maps.values()]
    stack = io.BytesIO()
    if small:
        Image.fromarray(np.concatenate(small)).save(stack, "PNG", optimize=True)
    return Shown(name, content.getvalue(), size, tuple(maps), stack.getvalue(), note)


def _small(
    values: Float[np.ndarray, "_ _"], size: tuple[int, int]
) -> UInt8[np.ndarray, "height width"]:
    image = Image.fromarray(np.ascontiguousarray(values, dtype=np.float32))
    resized = np.asarray(image.resize(size[::-1], Image.Resampling.BILINEAR))
    return (255 * resized.clip(0, 1)).round().astype(np.uint8)


def write_slider(
    out: Path,
    pictures: Sequence[Shown],
    names: Sequence[str],
    threshold: float,
    marks: Mapping[str, float],
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
        pictures: What it shows.
        names: Names of labels, background first.
        threshold: Where the slider stands at first.
        marks: Thresholds to go to by a button, with their names.
        title: Of the page.
        lead: A line under it.
        badges: Small labels before it.
        meaning: How to read the page.
        origin: What made it, for the last line.
    """
    content: dict[str, Any] = {
        "names": [printable(name) for name in names],
        "colours": palette(len(names)).tolist(),
        "threshold": threshold,
        "marks": [[printable(name), at] for name, at in marks.items()],
        "pictures": [
            {
                "name": printable(one.name),
                "note": printable(one.note),
                "height": one.size[0],
                "width": one.size[1],
                "classes": list(one.classes),
                "picture": uri(one.picture, "image/jpeg"),
                "maps": uri(one.maps, "image/png") if one.maps else "",
            }
            for one in pictures
        ],
    }
    # "<" could end the element that holds it
    text = json.dumps(content, ensure_ascii=True).replace("<", "\\u003c")
    app = App(_part("slider.html"), _part("slider.css"), _part("slider.js"), text)
    sections = [Section("What this means", bullets=list(meaning))] if meaning else []
    page = Page(
        title, lead, list(badges), sections=sections, footer=footer(origin or "threshold"), app=app
    )
    return write_page(page, out)


def _part(name: str) -> str:
    return files("tenfold.viz").joinpath(name).read_text(encoding="utf-8")
