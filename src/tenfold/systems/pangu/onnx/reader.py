"""The official Pangu-Weather ONNX files under our keys.

Only a few of the file's names mean anything, and the numbers in the others differ from file to
file, so tensors are found by walking the graph: the order of the layers in it is fixed.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tenfold.weights.keymap import Converted
from tenfold.weights.onnx_file import OnnxFile, Stored

from .fields import SURFACE_AXES, UPPER_AXES, Branch, read_branch, read_output
from .sizes import Shapes, Sizes, expected_shapes, find_sizes
from .tables import Triple, check_mask, compact_table, gathered_table
from .walk import OUTPUTS, SURFACE, UPPER, Block, Step, Walk

FLOAT = 1
"""TensorProto.FLOAT."""


class Moments(NamedTuple):
    """Mean and standard deviation of every field, SI units; levels from 1000 to 50 hPa."""

    mean_upper: Float[np.ndarray, "variable level"]
    std_upper: Float[np.ndarray, "variable level"]
    mean_surface: Float[np.ndarray, " field"]
    std_surface: Float[np.ndarray, " field"]


@dataclass
class OfficialWeights:
    """One official file: weights under our keys, sizes, statistics and an account of it all."""

    path: Path
    sizes: Sizes
    statistics: Moments
    account: Converted
    """Initialisers used, unused and ignored (with the reason), and our keys that are missing."""

    @property
    def state(self) -> dict[str, Tensor]:
        """As `Pangu.state_dict()` has it, constant maps included; call
        `account.require_complete()` first."""
        return self.account.state


def read_onnx(
    path: Path, *, patch: Triple | None = None, window: Triple | None = None
) -> OfficialWeights:
    """Weights, statistics and sizes of an official file (or one of `write_onnx`); nothing is run.

    `patch` and `window` (level, latitude, longitude) are only needed where the file's sizes allow
    several. Raises FileNotFoundError, and ValueError that names the file and what was looked for.
    """
    try:
        return _Reader(OnnxFile(path)).read(patch, window)
    except ValueError as error:
        if str(path) in str(error):
            raise
        raise ValueError(f"{path}: {error}") from error


class _Reader:
    """One walk through one file."""

    def __init__(self, file: OnnxFile) -> None:
        self.file, self.account, self.walk = file, Converted(), Walk(file)
        self.used: set[str] = set()

    def read(self, patch: Triple | None, window: Triple | None) -> OfficialWeights:
        file = self.file
        upper, surface = (
            read_branch(file, name, axes, file.marks({conv.input[0]: 1}, back=True))
            for name, axes, conv in zip(
                (UPPER, SURFACE), (UPPER_AXES, SURFACE_AXES), self.walk.embeds, strict=True
            )
        )
        sizes = self._sizes(upper, surface, patch, window)
        statistics = Moments(upper.mean, upper.std, surface.mean, surface.std)
        self._check_statistics(statistics)
        for branch in (upper, surface):
            for name, what in branch.names.items():
                self._ignore(name, f"{what}, returned apart from the weights")
        self.target = expected_shapes(sizes)
        self._constants(upper, surface, sizes)
        self._convert(sizes)
        self._close()
        return OfficialWeights(file.path, sizes, statistics, self.account)

    def _sizes(
        self, upper: Branch, surface: Branch, patch: Triple | None, window: Triple | None
    ) -> Sizes:
        layers = self.walk.layers
        embeds = [self._stored(n.input[1]).dims for n in self.walk.embeds]
        tables = [self.walk.dims(b[0].parts["bias_table"].weight)[-4:] for b in layers]
        shapes = Shapes(
            embeds,
            tables,
            [len(blocks) for blocks in layers],
            self._stored(layers[0][0].parts["fc1"].weight).dims[1],
            self.walk.is_residual(),
        )
        return find_sizes(self.file, (upper, surface), shapes, patch, window)

    def _check_statistics(self, statistics: Moments) -> None:
        """The output's statistics must be the input's: our systems know only one pair."""
        pairs = (statistics[:2], statistics[2:])
        for name, axes, pair in zip(OUTPUTS, (UPPER_AXES, SURFACE_AXES), pairs, strict=True):
            again = read_output(self.file, name, axes, self.walk.data)
            if again is None:
                raise self.file.error(f"looked for the mean and std of {name}, found neither")
            if not all(np.array_equal(a, b) for a, b in zip(pair, again[:2], strict=True)):
                raise self.file.error(f"the mean or std of {name} is not that of its input")
            for origin in again[2]:
                self._ignore(origin, "statistics again, for the output")
        if any((std <= 0).any() for std in (statistics.std_upper, statistics.std_surface)):
            raise self.file.error("a standard deviation is not positive")

    def _constants(self, upper: Branch, surface: Branch, sizes: Sizes) -> None:
        maps, height = surface.constants, upper.constants
        if maps is None:
            maps = np.zeros((0, *surface.padded), np.float32)
        rows, columns = (p - n for p, n in zip(surface.padded, maps.shape[1:], strict=True))
        maps = np.pad(maps, ((0, 0), (0, rows), (0, columns)))  # appended before padding
        if height is None:
            height = np.zeros((0, sizes.levels, sizes.lat, sizes.lon), np.float32)
        for key, values, branch in (
            ("surface_constants", maps, surface),
            ("upper_constants", height, upper),
        ):
            self._put(key, values, ", ".join(branch.maps) or "nothing: the file has none")
            self.used.update(n for name in branch.maps for n in self.file.origins(name))

    def _convert(self, sizes: Sizes) -> None:
        for key, step in self.walk.middle.items():
            self._step_state(key, step)
        for number, blocks in enumerate(self.walk.layers, 1):
            for place, block in enumerate(blocks):
                self._block_state(f"layer{number}.blocks.{place}", block, sizes, number in (2, 3))
        for node, key in zip(self.walk.embeds, ("embed.upper", "embed.surface"), strict=True):
            self._reshaped(f"{key}.weight", node.input[1], transposed=False)
            self._reshaped(f"{key}.bias", node.input[2], transposed=False)
        for node, key in zip(self.walk.recovers, ("upper", "surface"), strict=True):
            self._reshaped(f"recover.{key}_weight", node.input[1], transposed=True)
            self._reshaped(f"recover.{key}_bias", node.input[2], transposed=False)

    def _block_state(self, prefix: str, block: Block, sizes: Sizes, coarse: bool) -> None:
        for part, step in block.parts.items():
            inner = "attention." if part in ("qkv", "project", "bias_table") else ""
            if part != "bias_table":
                self._step_state(f"{prefix}.{inner}{part}", step)
        name, key = block.parts["bias_table"].weight, f"{prefix}.attention.bias_table"
        stored = self.file.constant(name)
        if stored is None:
            table, origin = gathered_table(self.file, name, sizes.window, key)
        else:
            table = compact_table(self.file, self._checked(stored), sizes.window, key)
            origin = stored.name
        self._put(key, table, origin)
        if block.mask is not None and (mask := self.file.fold(block.mask)) is not None:
            check_mask(self.file, mask, sizes.tokens(coarse), sizes.window, prefix)
            for origin in self.file.origins(block.mask):
                self._ignore(origin, "mask of shifted windows, which we compute")

    def _step_state(self, key: str, step: Step) -> None:
        self._reshaped(f"{key}.weight", step.weight, transposed=step.kind == "linear")
        if step.bias is not None:
            self._reshaped(f"{key}.bias", step.bias, transposed=False)

    def _reshaped(self, key: str, name: str, *, transposed: bool) -> None:
        """One tensor under our key; those of convolutions gain the axes of a patch."""
        stored = self._checked(self._stored(name))
        want = self.target.get(key)
        dims = stored.dims[::-1] if transposed else stored.dims
        dims = tuple(n for n in dims if n != 1) if len(dims) > 2 else dims
        flat = want if want is None or len(want) < 3 else (want[0], prod(want[1:]))
        if flat is None or dims != flat:
            self.account.mismatched.append((key, dims, want or ()))
            self.account.origin[key] = stored.name
            return
        values = stored.array().reshape(dims[::-1] if transposed else dims)
        assert want is not None
        self._put(key, (values.T if transposed else values).reshape(want), stored.name)

    def _put(self, key: str, values: np.ndarray, origin: str) -> None:
        if not np.isfinite(values).all():
            raise self.file.error(f"{origin} ({key}) holds values that are not finite")
        self.account.origin[key] = origin
        if values.shape != self.target.get(key):
            self.account.mismatched.append((key, values.shape, self.target.get(key, ())))
        else:
            owned = np.require(values, np.float32, ["C", "W"])
            self.account.state[key] = torch.from_numpy(owned)

    def _stored(self, name: str) -> Stored:
        stored = self.file.constant(name)
        if stored is None:
            raise self.file.error(f"looked for a tensor, but {name} is computed in the graph")
        return stored

    def _checked(self, stored: Stored) -> Stored:
        if stored.kind != FLOAT:
            raise self.file.error(
                f"{stored.name} is of type {stored.kind} (TensorProto.DataType), not float32 (1)"
            )
        return stored

    def _ignore(self, name: str, reason: str) -> None:
        if name not in dict(self.account.ignored):
            self.account.ignored.append((name, reason))

    def _close(self) -> None:
        """Every initialiser of the file is used, ignored for a reason, or unused."""
        self.used.update(n for o in self.account.origin.values() for n in self.file.origins(o))
        for name, stored in self.file.initialisers.items():
            if name in self.used or name in dict(self.account.ignored):
                continue
            if stored.kind != FLOAT:
                self._ignore(name, "shapes, axes and indices of the graph")
            elif prod(stored.dims) == 1:
                self._ignore(name, "a number in the graph")
            else:
                self.account.unused.append(name)
        self.account.missing = [k for k in self.target if k not in self.account.origin]
