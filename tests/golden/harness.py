"""Reads golden cases (`<case>.json` + `<case>.npz`) and holds results against them.

Everything is read from the case. Its name says nothing: a check is chosen by the case's kind, and
inputs and weights are found by what stands after the case's prefix. Every stored array has to be
looked at, so that a check cannot leave one out silently.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from golden.kinds import KINDS, kind_of, system_of

HERE = Path(__file__).parent

Tolerance = Mapping[str, float]


@dataclass(frozen=True)
class Input:
    """An entry of a case's `inputs`, in whichever of the three notations."""

    name: str
    shape: list[int]
    scale: float
    kind: str
    note: str
    high: int = 0
    """Integers are below it."""
    block: int = 1
    """Side of the squares of one integer (blocky_int)."""
    void: float = 0.0
    """Share of pixels that are 255 (blocky_int)."""

    @classmethod
    def of(cls, entry: dict | list) -> Input:
        """An object, or `[name, shape, scale(, note)]`."""
        if isinstance(entry, dict):
            name = entry["key"] if "key" in entry else entry["name"]
            rest = entry.get("scale", 1.0), entry.get("kind", "normal"), entry.get("note", "")
            whole = entry.get("high", 0), entry.get("b", 1), entry.get("void_p", 0.0)
            return cls(name, entry["shape"], *rest, *whole)
        name, shape, scale, *note = entry
        return cls(name, shape, scale, "normal", note[0] if note else "")


@dataclass(frozen=True)
class Case:
    """One golden case: everything needed is read from its two files."""

    json_path: Path
    looked_at: set[str] = field(default_factory=set, compare=False, repr=False)
    """Names of the stored arrays that have been compared or taken as inputs."""

    @property
    def name(self) -> str:
        return self.json_path.stem

    @cached_property
    def spec(self) -> dict:
        return json.loads(self.json_path.read_text())

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        """The stored arrays; where the case lists its outputs, they are these, of these shapes."""
        path = self.json_path.with_suffix(".npz")
        if not path.exists():
            assert not self.spec.get("outputs"), f"{self.json_path} has outputs, but no {path.name}"
            return {}
        with np.load(path, allow_pickle=False) as f:
            found = {k: f[k] for k in f.files}
        listed = self.spec.get("outputs")
        if isinstance(listed, list):
            listed = {name: shape for name, shape, *_ in listed}
        if isinstance(listed, dict) and listed:  # an empty one lists nothing
            of = listed.items()  # a shape, or [shape, type]
            listed = {k: v[0] if v and isinstance(v[0], list) else v for k, v in of}
            have = {name: list(array.shape) for name, array in found.items()}
            assert have == listed, f"{path} holds {have}, but {self.json_path.name} lists {listed}"
        return found

    @cached_property
    def inputs(self) -> list[Input]:
        return [Input.of(entry) for entry in self.spec.get("inputs", [])]

    # --- names ----------------------------------------------------------------------------------

    @cached_property
    def _prefixes(self) -> list[str]:
        """What may stand before names of this case: as stated, the case's name, what all share."""
        stated = [self.spec.get("input_prefix"), self.spec.get("key_prefix")]
        names = [self.spec.get("case"), self.name]
        found = [*stated, *(f"{name}." for name in names if name)]
        weights = (self.spec.get(part) or [] for part in ("params", "tensors", "state"))
        every = [key for part in weights for key, *_ in part] + [i.name for i in self.inputs]
        split = [name.split(".")[:-1] for name in every]
        common = os.path.commonprefix(split) if split else []
        return [prefix for prefix in (*found, "".join(f"{part}." for part in common)) if prefix]

    def role(self, name: str) -> str:
        """What stands after the case's prefix in the name of an input or a weight."""
        start = next((prefix for prefix in self._prefixes if name.startswith(prefix)), "")
        return name.removeprefix(start)

    def find(self, role: str) -> Input:
        """The input of this role: its name after the prefix, or that name's last part.

        An input that is alone needs no name.
        """
        found = [i for i in self.inputs if self.role(i.name) == role]
        found = found or [i for i in self.inputs if i.name.split(".")[-1] == role]
        found = found or (self.inputs if len(self.inputs) == 1 else [])
        assert len(found) == 1, (
            f"{self.json_path}: {len(found)} inputs are {role!r} after the prefix; it has "
            f"{[i.name for i in self.inputs]}"
        )
        return found[0]

    # --- values ---------------------------------------------------------------------------------

    def seed(self, key: str) -> int:
        """The CRC of a key, with `key_prefix` before it unless it has that already."""
        prefix = self.spec.get("key_prefix") or ""
        whole = key if prefix and key.startswith(prefix) else prefix + key
        return zlib.crc32(whole.encode()) & 0xFFFFFFFF

    def rule(self, key: str, shape, scale: float = 1.0) -> np.ndarray:
        """The fill rule of the case: standard normals seeded by the CRC of the key."""
        drawn = np.random.RandomState(self.seed(key)).standard_normal(shape)
        return drawn.astype(np.float32) * np.float32(scale)

    def value(self, entry: Input) -> np.ndarray:
        """What the rule of an input's kind gives; notes are the check's part."""
        if entry.kind == "uniform":
            drawn = np.random.RandomState(self.seed(entry.name)).random_sample(entry.shape)
            return drawn.astype(np.float32)
        if entry.kind == "int":
            return np.random.RandomState(self.seed(entry.name)).randint(
                0, entry.high, size=entry.shape
            )
        if entry.kind == "blocky_int":
            return self._blocky(entry)
        assert entry.kind == "normal", f"{self.json_path}: unknown kind of input {entry.kind!r}"
        return self.rule(entry.name, entry.shape, entry.scale)

    def _blocky(self, entry: Input) -> np.ndarray:
        """Labels: squares of one class, and single pixels of none (255)."""
        count, height, width = entry.shape
        coarse = (count, -(-height // entry.block), -(-width // entry.block))
        found = np.random.RandomState(self.seed(entry.name)).randint(0, entry.high, size=coarse)
        found = found.repeat(entry.block, 1).repeat(entry.block, 2)[:, :height, :width]
        drawn = np.random.RandomState(self.seed(f"{entry.name}.void")).random_sample(entry.shape)
        return np.where(drawn < entry.void, 255, found)

    def input(self, role: str) -> np.ndarray:
        """An input of the case by its role, filled by its rule."""
        return self.value(self.find(role))

    def take(self, name: str) -> np.ndarray:
        """A stored array that is an input of the check, or not to be compared as it is."""
        self.looked_at.add(name)
        return self.arrays[name]

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

    # --- results --------------------------------------------------------------------------------

    def compare(
        self, name: str, got, rtol: float = 1e-5, atol: float = 1e-5, what: str = "", at=None
    ) -> None:
        """A result against the stored array of that name, `at` some entries only if given.

        A `tolerance` of the case, one number or {"rtol", "atol"}, stands above the check's own.
        """
        own = self.spec.get("tolerance")
        if own is not None:
            limits = own if isinstance(own, dict) else {"rtol": own, "atol": own}
            rtol, atol = limits.get("rtol", 0.0), limits.get("atol", 0.0)
        want = self.take(name)
        if at is not None:
            got, want = _plain(got)[at], want[at]
        close(got, want, rtol, atol, f"case {self.name}: {name} {what}")

    def compare_all(
        self,
        got: Mapping,
        tolerance: Tolerance | Callable[[str], Tolerance] | None = None,
        what: str = "",
        names: Iterable[str] | None = None,
    ) -> None:
        """Stored arrays against the results of their names: all that were not looked at yet."""
        if names is None:
            names = [name for name in self.arrays if name not in self.looked_at]
        for name in names:
            assert name in got, (
                f"{self.json_path}: no check for the output {name!r}; this kind of case may have "
                f"{sorted(got)}"
            )
            limits = tolerance(name) if callable(tolerance) else tolerance or {}
            self.compare(name, got[name], **limits, what=what)


def cases(system: str, root: Path | None) -> list[Case]:
    """All cases of a system under `root` (default: the committed ones).

    `root` has a folder a system, or it is the folder of one, or it holds cases of any.
    """
    root = (root or HERE).resolve()
    if (root / system).is_dir():
        return [Case(path) for path in sorted((root / system).glob("*.json"))]
    found = [Case(path) for path in sorted(root.glob("*.json"))]
    if root.name in KINDS:
        return found if root.name == system else []
    return [case for case in found if system_of(case.spec) == system]


def unread(root: Path) -> list[Path]:
    """Cases below `root` that `cases` gives to no system."""
    root = root.resolve()
    read = {case.json_path for system in KINDS for case in cases(system, root)}
    return [path for path in sorted(root.rglob("*.json")) if path not in read]


def require_cases(root: Path) -> None:
    """A folder without cases must not look like one whose cases all pass: ValueError."""
    if any(cases(system, root) for system in KINDS):
        return
    left = [str(path) for path in unread(root)[:5]]
    raise ValueError(
        f"--golden {root} holds no golden case of {', '.join(KINDS)}: expected <system>/*.json or "
        f"*.json in it, found {', '.join(left) if left else 'none'}"
    )


def check(case: Case, system: str, checks: Mapping[str, Callable[[Case], None]]) -> None:
    """Run the check of a case's kind; it fails too if it leaves a stored array out."""
    kind = kind_of(case.spec, system, str(case.json_path))
    checks[kind](case)
    left = sorted(set(case.arrays) - case.looked_at)
    assert not left, f"{case.json_path}: the check of {kind!r} never looked at {left}"


def _plain(x) -> np.ndarray:
    return np.asarray(x.detach().cpu() if hasattr(x, "detach") else x)


def close(got, want: np.ndarray, rtol: float = 1e-5, atol: float = 1e-5, what: str = "") -> None:
    """Assert equality within tolerance, naming the worst entry."""
    got = _plain(got)
    assert got.shape == want.shape, f"{what}: shape {got.shape}, expected {want.shape}"
    if want.dtype.kind in "iub":
        np.testing.assert_array_equal(got, want, err_msg=what)
    else:
        np.testing.assert_allclose(got, want, rtol=rtol, atol=atol, err_msg=what)
