"""Other cases made of the committed ones: under other names, smaller, with other outputs."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path

import numpy as np

from golden.harness import HERE, Case


def stored(system: str, name: str) -> tuple[dict, dict[str, np.ndarray]]:
    """A committed case, to be changed."""
    case = Case(HERE / system / f"{name}.json")
    return deepcopy(case.spec), dict(case.arrays)


def write(folder: Path, name: str, spec: dict, arrays: dict[str, np.ndarray] | None = None) -> Case:
    """A case with these outputs, which it lists in the notation that it had."""
    folder.mkdir(parents=True, exist_ok=True)
    listed = spec.get("outputs")
    if isinstance(listed, dict):
        spec["outputs"] = {key: list(array.shape) for key, array in (arrays or {}).items()}
    elif isinstance(listed, list):
        spec["outputs"] = [[k, list(a.shape), str(a.dtype)] for k, a in (arrays or {}).items()]
    spec.pop("case", None)
    (folder / f"{name}.json").write_text(json.dumps(spec))
    if arrays is not None:
        np.savez(folder / f"{name}.npz", **arrays)
    return Case(folder / f"{name}.json")


def some(arrays: dict[str, np.ndarray], *names: str) -> dict[str, np.ndarray]:
    """Some of the outputs."""
    return {name: arrays[name] for name in names}


def normals(key: str, shape, scale: float = 1.0) -> np.ndarray:
    """The fill rule of most cases, written once more: standard normals by the CRC of the key."""
    import zlib

    drawn = np.random.RandomState(zlib.crc32(key.encode()) & 0xFFFFFFFF).standard_normal(shape)
    return drawn.astype(np.float32) * np.float32(scale)
