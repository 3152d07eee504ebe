"""Read a run folder: the only way the report learns anything about a run."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

from tenfold.files import NUMBER, misfit, parse_json, read_object
from tenfold.viz.page import PICTURES, Picture

VALUES = {"*": (*NUMBER, None)}
TEXTS = {"*": str}
RESULT = {
    "system": str, "recipe": str, "data": TEXTS, "seed": int, "seconds": NUMBER,
    "parameters": int, "metrics": VALUES, "baselines": {"*": VALUES}, "better": TEXTS,
    "units": TEXTS, "labels": TEXTS, "main": [str], "notes": [str],
    "stages": [{"name": str, "steps": int, "seconds": NUMBER, "best": (dict, None)}],
}  # fmt: skip
"""Shape of `result.json`."""
NEEDED = ("system", "recipe", "data", "seconds", "metrics", "baselines", "main", "notes", "stages")
"""Fields of `result.json` that every run has written."""
CONFIG = {"system": str, "recipe": str, "config": dict, "recipe_config": (dict, None)}
"""Shape of `config.json`."""
LINE = {"stage": str, "split": str, "step": NUMBER}
"""Shape of a line of `metrics.jsonl`; the rest is what was logged."""


@dataclass(frozen=True)
class Run:
    """Content of a run folder; an absent file is an empty value and a name in `missing`."""

    folder: Path
    config: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    result: dict[str, Any] = field(default_factory=dict)
    metrics: list[dict[str, Any]] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    """Pictures that are links, which a page does not follow."""
    missing: list[str] = field(default_factory=list)

    @property
    def system(self) -> str:
        """Name of the system, from whichever file knows it."""
        return str(self.result.get("system") or self.config.get("system") or "unknown system")

    @property
    def recipe(self) -> str:
        """Name of the recipe, from whichever file knows it."""
        return str(self.result.get("recipe") or self.config.get("recipe") or "unknown recipe")

    @property
    def data(self) -> dict[str, Any]:
        """Name, kind and note of the data; empty while the run is unfinished."""
        return dict(self.result.get("data") or {})


def read_result(path: Path) -> dict[str, Any]:
    """A finished run's `result.json`; one that is damaged or lacks a field is a ValueError."""
    found = read_object(path, RESULT, NEEDED)
    if absent := [key for key in ("name", "kind", "note") if key not in found["data"]]:
        raise ValueError(f"{path} lacks data.{absent[0]}; restore it from a copy, or delete it")
    return found


def _object(path: Path, shape: Mapping[str, Any]) -> dict[str, Any]:
    """The object in a file of a run; empty if there is none. A link is a ValueError.

    It might lead anywhere, and all that is read here is shown on a page.
    """
    if path.is_symlink():
        raise ValueError(f"{path} is a link, which a page does not follow; put the file there")
    return read_object(path, shape) if path.is_file() else {}


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl`, one entry a (stage, split, step), stages as they appeared.

    A resumed run writes some steps twice: the later line wins. Only the last line may be
    half-written (the run was killed, or is writing now); it is left out.
    """
    if path.is_symlink():
        raise ValueError(f"{path} is a link, which a page does not follow; put the file there")
    if not path.is_file():
        return []
    lines = path.read_bytes().decode("utf-8", errors="replace").split("\n")
    filled = [(number, text) for number, text in enumerate(lines, 1) if text.strip()]
    merged: dict[tuple[str, str, float], dict[str, Any]] = {}
    stages: dict[str, int] = {}
    for number, text in filled:
        try:
            line = parse_json(text)
        except ValueError as error:
            if number == filled[-1][0]:
                break
            raise ValueError(
                f"{path} line {number} is not valid JSON ({error}). Delete that line."
            ) from error
        if not isinstance(line, dict):
            raise ValueError(f"{path} line {number} is not a JSON object: {text[:60]}")
        if problem := misfit(line, LINE, ""):
            raise ValueError(f"{path} line {number}: {problem}. Delete that line.")
        line.setdefault("stage", "train")
        line.setdefault("split", "train")
        line.setdefault("step", number)
        stages.setdefault(str(line["stage"]), len(stages))
        merged.setdefault((str(line["stage"]), str(line["split"]), line["step"]), {}).update(line)
    return sorted(merged.values(), key=lambda line: (stages[str(line["stage"])], line["step"]))


def read_pictures(folder: Path) -> tuple[list[Picture], list[str]]:
    """The pictures of a run in natural order, each with its caption, and those left out: links."""
    if folder.is_symlink():
        return [], [folder.name]
    if not folder.is_dir():
        return [], []
    captions = _object(folder / "captions.json", TEXTS)
    files = [p for p in folder.iterdir() if p.suffix.lower() in PICTURES and p.is_file()]
    files.sort(key=lambda p: natural(p.name))
    pictures = [
        Picture(p, str(captions.get(p.name) or p.stem.replace("_", " ").replace("-", " ")))
        for p in files
        if not p.is_symlink()
    ]
    return pictures, [f"{folder.name}/{p.name}" for p in files if p.is_symlink()]


def read_run(folder: Path) -> Run:
    """Everything a run folder holds."""
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a run folder: there is no such directory.")
    names = ("config.json", "environment.json", "metrics.jsonl", "result.json")
    pictures, links = read_pictures(folder / "pictures")
    return Run(
        folder=folder,
        config=_object(folder / "config.json", CONFIG),
        environment=_object(folder / "environment.json", {}),
        result=_object(folder / "result.json", RESULT),
        metrics=read_metrics(folder / "metrics.jsonl"),
        pictures=pictures,
        links=links,
        missing=[name for name in names if not (folder / name).is_file()],
    )


def natural(text: str) -> list[tuple[int, float, str]]:
    """A sort key in which 80ms comes before 1000ms."""
    parts = re.split(r"(\d+(?:\.\d+)?)", text)
    return [(0, float(p), "") if i % 2 else (1, 0.0, p.lower()) for i, p in enumerate(parts) if p]


def in_order(names: list[str]) -> list[str]:
    """Names with a number in natural order, then the others (mean, all) as they came."""
    return sorted(
        dict.fromkeys(names),
        key=lambda n: (0, natural(n)) if re.search(r"\d", n) else (1, []),
    )


def is_number(value: object) -> TypeGuard[int | float]:
    """True for an int or a float, finite or not; a bool is not a number here."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def numbers(metrics: Mapping[str, Any] | None) -> dict[str, float]:
    """The numeric entries of a flat metric dictionary."""
    return {str(k): float(v) for k, v in (metrics or {}).items() if is_number(v)}


def lookup(key: str, table: Mapping[str, Any] | None) -> str:
    """The entry for a metric key or for the longest of its prefixes: mpjpe/walking/80ms, mpjpe."""
    parts = key.split("/")
    for end in range(len(parts), 0, -1):
        value = (table or {}).get("/".join(parts[:end]))
        if value is not None:  # "" says that it has none, though its group has
            return str(value)
    return ""


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested configuration as dotted names, in its own order."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def show(value: object) -> str:
    """A configuration value as a person would type it."""
    if isinstance(value, str):
        return value if value else '""'
    return json.dumps(value, ensure_ascii=False, default=str)


def decimals(values: list[int | float] | list[float]) -> int:
    """Count the decimals that give the largest of these numbers four significant digits."""
    top = max((abs(v) for v in values if math.isfinite(v)), default=0.0)
    if top == 0 or all(v == int(v) for v in values if math.isfinite(v)):
        return 0
    return max(0, min(6, 3 - math.floor(math.log10(top))))


def number(value: int | float | None, places: int | None = None) -> str:
    """A number for a table; an absent one is a dash, a broken one says so."""
    if value is None:
        return "–"
    if not math.isfinite(value):
        return "nan" if math.isnan(value) else ("inf" if value > 0 else "−inf")
    places = decimals([value]) if places is None else places
    if value and abs(value) < 0.5 * 10.0**-places:
        return f"{value:.2e}".replace("-", "−")
    return f"{value:,.{places}f}".replace("-", "−")


def duration(seconds: int | float) -> str:
    """Seconds in the unit a person would say."""
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def best(values: list[float | None], better: str) -> list[bool]:
    """Mark the best values; none if the direction is unknown or nothing competes."""
    finite = [v for v in values if v is not None and math.isfinite(v)]
    if better not in ("lower", "higher") or len(finite) < 2 or min(finite) == max(finite):
        return [False] * len(values)
    top = min(finite) if better == "lower" else max(finite)
    return [v == top for v in values]
