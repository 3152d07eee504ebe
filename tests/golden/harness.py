"""Reads golden cases (`<case>.json` + `<case>.npz`) and fills tensors by their stated rules."""

from __future__ import annotations

import json
import os
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Case:
    """One golden case: everything needed is read from its two files."""

    json_path: Path

    @property
    def name(self) -> str:
        return self.json_path.stem

    @cached_property
    def spec(self) -> dict:
        return json.loads(self.json_path.read_text())

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        with np.load(self.json_path.with_suffix(".npz"), allow_pickle=False) as f:
            return {k: f[k] for k in f.files}

    def rule(self, key: str, shape, scale: float = 1.0) -> np.ndarray:
        """The fill rule of the case: standard normals seeded by the CRC of the key."""
        seed = zlib.crc32((self.spec.get("key_prefix", "") + key).encode()) & 0xFFFFFFFF
        return np.random.RandomState(seed).standard_normal(shape).astype(np.float32) * np.float32(
            scale
        )

    def input(self, key: str) -> np.ndarray:
        """An input of the case by its key, filled by the rule."""
        entry = next(i for i in self.spec["inputs"] if i["key"] == key)
        return self.rule(key, entry["shape"], entry.get("scale", 1.0))

    def data_file(self, relative: str) -> Path:
        """A real data file named by the case (`data/<set>/<file>`)."""
        rest = Path(relative).relative_to("data")
        roots = [Path(os.environ["TENFOLD_DATA"])] if os.environ.get("TENFOLD_DATA") else []
        roots.append(self.json_path.parents[2] / "data")
        roots.append(HERE.parents[2] / "shared" / "data")
        for root in roots:
            if (root / rest).exists():
                return root / rest
        raise FileNotFoundError(
            f"case {self.name} needs {rest}; looked under {[str(r) for r in roots]}"
        )


def cases(system: str, root: Path | None) -> list[Case]:
    """All cases of a system under `root` (default: the committed ones)."""
    root = (root or HERE).resolve()
    folder = root / system if (root / system).is_dir() else root
    found = [Case(p) for p in sorted(folder.glob("*.json"))]
    return [
        c for c in found if c.json_path.with_suffix(".npz").exists() or not c.spec.get("outputs")
    ]


def close(got, want: np.ndarray, rtol: float = 1e-5, atol: float = 1e-5, what: str = "") -> None:
    """Assert equality within tolerance, naming the worst entry."""
    got = np.asarray(got.detach().cpu() if hasattr(got, "detach") else got)
    assert got.shape == want.shape, f"{what}: shape {got.shape}, expected {want.shape}"
    if want.dtype.kind in "iub":
        np.testing.assert_array_equal(got, want, err_msg=what)
    else:
        np.testing.assert_allclose(got, want, rtol=rtol, atol=atol, err_msg=what)
