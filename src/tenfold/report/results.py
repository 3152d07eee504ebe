"""Read a run folder: the only way the report learns anything about a run."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

from tenfold.viz.page import PICTURES, Picture


@dataclass(frozen=True)
class Run:
    """Content of a run folder; an absent file is an empty value and a name in `missing`."""

    folder: Path
    config: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    result: dict[str, Any] = field(default_factory=dict)
    metrics: list[dict[str, Any]] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
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


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty if there is no such file."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{path} is not valid JSON ({error}). Restore it, or delete it and run again."
        ) from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds a {type(value).__name__}, expected a JSON object.")
    return value


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl`, one entry a (stage, split, step), stages as they appeared.

    A resumed run writes some steps twice: the later line wins. Only the last line may be
    half-written (the run was killed, or is writing now); it is left out.
    """
    if not path.is_file():
        return []
    lines = path.read_bytes().decode("utf-8", errors="replace").split("\n")
    filled = [(number, text) for number, text in enumerate(lines, 1) if text.strip()]
    merged: dict[tuple[str, str, float], dict[str, Any]] = {}
    stages: dict[str, int] = {}
    for number, text in filled:
        try:
            line = json.loads(text)
        except ValueError as error:
            if number == filled[-1][0]:
                break
            raise ValueError(
                f"{path} line {number} is not valid JSON ({error}). Delete that line."
            ) from error
        if not isinstance(line, dict):
            raise ValueError(f"{path} line {number} is not a JSON object: {text[:60]}")
        line.setdefault("stage", "train")
        line.setdefault("split", "train")
        line.setdefault("step", number)
        stages.setdefault(str(line["stage"]), len(stages))
        merged.setdefault((str(line["stage"]), str(line["split"]), line["step"]), {}).update(line)
    return sorted(merged.values(), key=lambda line: (stages[str(line["stage"])], line["step"]))


def read_pictures(folder: Path) -> list[Picture]:
    """The pictures of a run in natural order, each with its caption or its file name."""
    if not folder.is_dir():
        return []
    captions = read_json(folder / "captions.json")
    files = [p for p in folder.iterdir() if p.suffix.lower() in PICTURES and p.is_file()]
    files.sort(key=lambda p: natural(p.name))
    return [
        Picture(p, str(captions.get(p.name) or p.stem.replace("_", " ").replace("-", " ")))
        for p in files
    ]


def read_run(folder: Path) -> Run:
    """Everything a run folder holds."""
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a run folder: there is no such directory.")
    names = ("config.json", "environment.json", "metrics.jsonl", "result.json")
    return Run(
        folder=folder,
        config=read_json(folder / "config.json"),
        environment=read_json(folder / "environment.json"),
        result=read_json(folder / "result.json"),
        metrics=read_metrics(folder / "metrics.jsonl"),
        pictures=read_pictures(folder / "pictures"),
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
        if value:
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
