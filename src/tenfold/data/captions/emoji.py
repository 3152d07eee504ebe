"""The scenes of `emoji_scenes`, drawn from their recipe bit for bit as the set's README defines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image

from tenfold.files import misfit, parse_json, require_bounded
from tenfold.structures import Instances

from ..io.problems import BROKEN
from .records import Kind, Pair, Picture, Span, checked_caption, checked_spans, instances

SPLITS = {"train": "train", "validation": "val", "test": "test", "test_xstyle": "test_xstyle"}
"""Split -> name of its file."""
MOST_BYTES = 64 * 2**20
"""Largest file of the set that is read; the published ones have 2.7 MB."""
MOST_SIDE = 1024
"""Of the canvas, in pixels."""
META = {
    "canvas": int, "sizes": [int], "colours": {"*": [int]}, "vendors": [str],
    "twitter_held_out": [int], "sprite": int, "columns": int,
}  # fmt: skip
SCENE = {"bg": str, "items": [[int]], "caption": str, "phrases": [[int]]}
SHEETS = ("sprites_google.webp", "sprites_twitter.webp")


@dataclass(frozen=True)
class Recipe:
    """How scenes are drawn: the canvas, the colours, and the drawings of both artists."""

    canvas: int
    """Side of a scene in pixels."""
    sprite: int
    """Side of a drawing on its sheet."""
    columns: int
    sizes: tuple[int, ...]
    """Sides that a drawing may have in a scene."""
    colours: Mapping[str, tuple[int, ...]]
    held_out: frozenset[int]
    """Concepts whose drawing by the second artist is in the split test_xstyle alone."""
    names: tuple[str, ...]
    """Concepts."""
    sheets: tuple[UInt8[np.ndarray, "height width 4"], ...]


@dataclass(frozen=True)
class Scene:
    """One scene of a split."""

    background: str
    items: tuple[tuple[int, ...], ...]
    """Concept, artist, x, y and size of each, later ones over earlier ones."""
    caption: str
    phrases: tuple[tuple[int, ...], ...]
    """Start, end and item of each; -1 is the background."""


def read_recipe(folder: Path) -> Recipe:
    """Read a set's drawings and settings.

    Raises:
        ValueError: A file is damaged or does not fit; the error names it.
        FileNotFoundError: A file is not there.
    """
    meta = _read(folder / "meta.json", META, list(META))
    file = folder / "concepts.json"
    concepts = _read(file, [{"id": int, "name": str}], ["id", "name"])
    if [item["id"] for item in concepts] != list(range(len(concepts))) or not concepts:
        raise ValueError(f"{file}: ids must be 0, 1, 2, ... in order")
    sprite, columns, canvas = meta["sprite"], meta["columns"], meta["canvas"]
    if not (1 <= sprite <= MOST_SIDE and 1 <= columns <= 1000 and 1 <= canvas <= MOST_SIDE):
        raise ValueError(
            f"{folder / 'meta.json'}: canvas {canvas} and sprite {sprite} must be 1 to "
            f"{MOST_SIDE}, columns {columns} 1 to 1000"
        )
    for name, colour in meta["colours"].items():
        if len(colour) != 3 or not all(0 <= value <= 255 for value in colour):
            raise ValueError(f"{folder / 'meta.json'}: colour {name!r} is {colour}")
    rows = -(-len(concepts) // columns)
    sheets = tuple(_sheet(folder / name, rows * sprite, columns * sprite) for name in SHEETS)
    colours = {name: tuple(colour) for name, colour in meta["colours"].items()}
    return Recipe(
        canvas, sprite, columns, tuple(meta["sizes"]), colours, frozenset(meta["twitter_held_out"]),
        tuple(item["name"] for item in concepts), sheets,
    )  # fmt: skip


def _read(file: Path, shape: Any, required: Sequence[str]) -> Any:
    require_bounded(file, MOST_BYTES)
    try:
        found = parse_json(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is no JSON: {error}. Copy the set again.") from error
    items = found if isinstance(found, list) else [found]
    problem = misfit(found, shape, "") or next(
        (f"it lacks {key}" for item in items for key in required if key not in item), ""
    )
    if problem:
        raise ValueError(f"{file}: {problem}. Copy the set again.")
    return found


def _sheet(file: Path, height: int, width: int) -> UInt8[np.ndarray, "height width 4"]:
    require_bounded(file, MOST_BYTES)
    try:
        with Image.open(file, formats=("WEBP", "PNG")) as image:
            if image.size != (width, height) or image.mode != "RGBA":
                raise ValueError(
                    f"it has {image.width} x {image.height} pixels of {image.mode}, expected "
                    f"{width} x {height} of RGBA"
                )
            return np.asarray(image)
    except BROKEN as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{file} cannot be read: {reason}. Copy the set again.") from error


def read_scene(line: str, recipe: Recipe, is_xstyle: bool) -> Scene:
    """The scene that a line of a split's file holds.

    Raises:
        ValueError: It holds none that can be drawn; the error says why.
    """
    content = parse_json(line)
    problem = misfit(content, SCENE, "") or next(
        (f"it lacks {key}" for key in SCENE if key not in content), ""
    )
    if problem:
        raise ValueError(f"is not a scene: {problem}")
    items = tuple(tuple(item) for item in content["items"])
    for item in items:
        if len(item) != 5:
            raise ValueError(f"item {list(item)} is not concept, artist, x, y, size")
        concept, artist, x, y, size = item
        if not (
            0 <= concept < len(recipe.names) and artist in (0, 1) and size in recipe.sizes
            and size > 0
        ):  # fmt: skip
            raise ValueError(f"no such drawing or size: {[concept, artist, size]}")
        if min(x, y) < 0 or max(x, y) + size > recipe.canvas:
            raise ValueError(f"box {[x, y, size]} leaves the canvas of {recipe.canvas}")
        if (artist == 1 and concept in recipe.held_out) != is_xstyle:
            raise ValueError(f"concept {concept} by artist {artist}: wrong split")
    if content["bg"] not in recipe.colours:
        raise ValueError(f"background {content['bg']!r} is not a colour of meta.json")
    caption = checked_caption(content["caption"])
    phrases = tuple(tuple(phrase) for phrase in content["phrases"])
    for phrase in phrases:
        if len(phrase) != 3 or not -1 <= phrase[2] < len(items):
            raise ValueError(f"phrase {list(phrase)} is not start, end and an item of the scene")
    checked_spans(caption, [Span(start, end) for start, end, _ in phrases])
    return Scene(content["bg"], items, caption, phrases)


def draw(scene: Scene, recipe: Recipe) -> Picture:
    """The picture of a scene: nearest pixels of each drawing, blended in order, rounded once."""
    picture = np.empty((recipe.canvas, recipe.canvas, 3))
    picture[:] = recipe.colours[scene.background]
    for concept, artist, x, y, size in scene.items:
        row, column = (recipe.sprite * place for place in divmod(concept, recipe.columns))
        cell = recipe.sheets[artist][row : row + recipe.sprite, column : column + recipe.sprite]
        pick = _nearest(size, recipe.sprite)
        drawing = cell[pick[:, None], pick].astype(np.float64)
        alpha = drawing[..., 3:] / 255
        under = picture[y : y + size, x : x + size]
        picture[y : y + size, x : x + size] = under * (1 - alpha) + drawing[..., :3] * alpha
    return np.floor(picture + 0.5).astype(np.uint8)


@lru_cache(maxsize=64)
def _nearest(size: int, cell: int) -> Int64[np.ndarray, " size"]:
    return np.floor((np.arange(size) + 0.5) * cell / size).astype(np.int64)


@dataclass(frozen=True)
class EmojiScenes:
    """One split; pictures are drawn when asked for."""

    split: str
    recipe: Recipe
    scenes: tuple[Scene, ...]
    name: str = "emoji_scenes"
    kind: Kind = "real"
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.scenes)

    @property
    def names(self) -> tuple[str, ...]:
        """Concepts."""
        return self.recipe.names

    @property
    def owners(self) -> Int64[np.ndarray, " pair"]:
        """Each picture has one caption."""
        return np.arange(len(self), dtype=np.int64)

    def pair(self, index: int) -> Pair:
        """Caption, and phrases with the squares that the drawings fill."""
        scene = self.scenes[index]
        boxes = [_box(item) for item in scene.items]
        phrases = tuple(
            Span(start, end, (boxes[item],) if item >= 0 else ())
            for start, end, item in scene.phrases
        )
        return Pair(None, scene.caption, phrases, f"{self.split}/{index}")

    def picture(self, index: int) -> Picture:
        """The scene, drawn."""
        return draw(self.scenes[index], self.recipe)

    def objects(self, index: int) -> Instances:
        """The square of each drawing, and its concept."""
        items = self.scenes[index].items
        return instances([_box(item) for item in items], [item[0] for item in items])


def _box(item: tuple[int, ...]) -> tuple[float, float, float, float]:
    _, _, x, y, size = item
    return (float(x), float(y), float(x + size), float(y + size))


def open_emoji_scenes(folder: Path, split: str) -> EmojiScenes:
    """Open a split: train, validation, test, or test_xstyle (drawings of an artist never seen).

    Raises:
        ValueError: There is no such split, or a line does not fit; the error names it.
        FileNotFoundError: A file of the set is not there.
    """
    if split not in SPLITS:
        raise ValueError(f"emoji_scenes has no split {split!r}; it has {', '.join(SPLITS)}")
    recipe = read_recipe(folder)
    file = folder / f"{SPLITS[split]}.jsonl"
    require_bounded(file, MOST_BYTES)
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is no UTF-8 text: {error}. Copy the set again.") from error
    scenes = []
    for number, line in enumerate(lines, 1):
        if not line and number == len(lines):
            break
        try:
            scenes.append(read_scene(line, recipe, split == "test_xstyle"))
        except ValueError as error:
            raise ValueError(f"{file}, line {number}: {error}. Copy the set again.") from error
    if not scenes:
        raise ValueError(f"{file} holds no scene. Copy the set again.")
    return EmojiScenes(split, recipe, tuple(scenes))
