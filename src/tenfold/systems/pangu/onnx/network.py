"""The official trained networks: their ONNX files as our configuration and weights, or as they are.

The files are the user's own (CC BY-NC-SA 4.0); nothing of them comes with this library.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass, replace
from math import gcd
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tenfold.data.weather.grid import Grid
from tenfold.data.weather.statistics import Statistics
from tenfold.extras import install
from tenfold.printable import Lines

from ..config import Model
from .reader import OfficialWeights, read_onnx
from .sizes import Sizes
from .walk import OUTPUTS, SURFACE, UPPER

NAMES = Grid(
    upper=("z", "q", "t", "u", "v"),
    levels=(1000, 925, 850, 700, 600, 500, 400, 300, 250, 200, 150, 100, 50),
    surface=("msl", "u10", "v10", "t2m"),
    constants=("land", "soil", "topography"),
)
"""Fields of the official files (official README); the files themselves hold no names."""
INPUTS = (UPPER, SURFACE)
"""Names in the files, as `OUTPUTS`."""
LEAD = re.compile(r"^(?:.*[^0-9])?(\d{1,4})h?\.onnx$")
"""Hours at the end of a file's name."""
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Official:
    """Official files of one or more lead times, ready to build a system of."""

    model: Model
    grid: Grid
    weights: dict[int, OfficialWeights]
    """Lead time in hours, rising -> state, account and sizes."""

    @property
    def leads(self) -> tuple[int, ...]:
        """Lead times in hours."""
        return tuple(self.weights)

    def statistics(self, lead: int) -> Statistics:
        """Mean and standard deviation of every field that one file holds, SI units."""
        names = (self.grid.upper, self.grid.levels, self.grid.surface)
        return Statistics(*names, *self.weights[lead].statistics, count=0)


def convert_folder(source: Path, names: Grid = NAMES) -> Official:
    """Read `pangu_weather_24.onnx`, or all `pangu_weather_<hours>.onnx` of a folder.

    `names` says which fields the file's channels are; its latitudes and longitudes are used too if
    it has any, else the rows run from 90 to -90 and the columns from 0. Raises FileNotFoundError,
    and ValueError for files without hours in their names, of different sizes, that do not hold
    `names`, or of which a tensor is left over.
    """
    weights = {}
    for lead, path in files_of(source).items():
        weights[lead] = read_onnx(path)
        _require_complete(weights[lead])
    first = next(iter(weights.values()))
    for other in weights.values():
        if other.sizes != first.sizes:
            raise ValueError(
                f"{other.path} has {_differences(other.sizes, first.sizes)} (those of {first.path} "
                "in brackets): networks of one system share a grid and sizes; convert them apart"
            )
    sizes = first.sizes
    if sizes.constants != len(names.constants):
        raise _misnamed(
            first.path, [f"{sizes.constants} constant maps, not {len(names.constants)}"]
        )
    shape = (sizes.variables, sizes.levels, sizes.lat, sizes.lon, sizes.fields)
    return Official(model_of(sizes), grid_of(shape, names, tuple(weights), first.path), weights)


def model_of(sizes: Sizes) -> Model:
    """The configuration of a network with these sizes."""
    return Model(
        dim=sizes.dim,
        depths=sizes.depths,
        heads=sizes.heads,
        patch=sizes.patch,
        window=sizes.window,
        mlp_ratio=sizes.mlp_ratio,
        residual=sizes.residual,
        recovery_bias="pixel",
        height_channel=sizes.height_channel,
    )


def files_of(source: Path) -> dict[int, Path]:
    """Lead in hours, rising -> file; raises as `convert_folder`, but opens nothing."""
    if not source.exists():
        raise FileNotFoundError(
            f"no file or folder {source}; the official files are called pangu_weather_24.onnx "
            "and must be downloaded from their authors' page"
        )
    paths = sorted(source.glob("*.onnx")) if source.is_dir() else [source]
    if not paths:
        raise FileNotFoundError(f"{source} holds no file pangu_weather_<hours>.onnx")
    files: dict[int, Path] = {}
    for path in paths:
        match = LEAD.match(path.name)
        hours = int(match[1]) if match else 0
        if not hours:
            raise ValueError(
                f"the name of {path} does not say its lead time in hours; rename it to, for "
                "example, pangu_weather_24.onnx"
            )
        if hours in files:
            raise ValueError(f"{files[hours]} and {path} both say {hours} hours; remove one")
        files[hours] = path
    return dict(sorted(files.items()))


def _require_complete(weights: OfficialWeights) -> None:
    try:
        weights.account.require_complete()
    except ValueError as error:
        raise ValueError(Lines(f"{weights.path}: {error}")) from error


def _differences(a: Sizes, b: Sizes) -> str:
    pairs = ((k, v, getattr(b, k)) for k, v in vars(a).items())
    return ", ".join(f"{key} {one} ({other})" for key, one, other in pairs if one != other)


def grid_of(shape: Shape, names: Grid, leads: tuple[int, ...], path: Path) -> Grid:
    """The grid of a file with (variables, levels, lat, lon, surface variables).

    Raises ValueError that names `path` if `names` has other numbers of them.
    """
    variables, levels, lat, lon, fields = shape
    pairs = {
        "variables on levels": (variables, names.upper),
        "levels": (levels, names.levels),
        "variables at the surface": (fields, names.surface),
    }
    latitudes, longitudes = names.latitudes, names.longitudes
    if latitudes or longitudes:
        pairs |= {"latitudes": (lat, latitudes), "longitudes": (lon, longitudes)}
    else:
        latitudes = tuple(np.linspace(90, -90, lat).tolist())
        longitudes = tuple((np.arange(lon) * 360 / lon).tolist())
    wrong = [f"{n} {what}, not {len(x)}" for what, (n, x) in pairs.items() if n != len(x)]
    if wrong:
        raise _misnamed(path, wrong)
    return replace(
        names, latitudes=latitudes, longitudes=longitudes, periodic=True, step=gcd(*leads)
    )


def _misnamed(path: Path, wrong: list[str]) -> ValueError:
    return ValueError(
        f"{path} has {'; '.join(wrong)}: give the names of its fields, "
        "convert_folder(source, names=Grid(...))"
    )


class OnnxNetwork:
    """One official file run as it is by onnxruntime; physical units in and out.

    Opened at the first call, closed by `close` or at the end of a `with` block. Raises
    ModuleNotFoundError without onnxruntime.
    """

    def __init__(self, path: Path, device: str = "cpu", threads: int = 0) -> None:
        """Run `path` on "cpu" or "cuda", with so many threads (0: onnxruntime's choice)."""
        if device not in ("cpu", "cuda"):
            raise ValueError(f"official ONNX files run on cpu or cuda, not on {device!r}")
        if not path.is_file():
            raise FileNotFoundError(f"no file {path}")
        self.path, self.device, self.threads = path, device, threads
        self._session: Any = None
        self._shapes: tuple[Shape, Shape] = ((), ())

    def __enter__(self) -> OnnxNetwork:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free the session's memory; the next call opens it again."""
        self._session = None

    @property
    def shapes(self) -> tuple[Shape, Shape]:
        """Shapes of one state: (variable, level, lat, lon), (variable, lat, lon)."""
        self._open()
        return self._shapes

    @torch.no_grad()
    def __call__(
        self,
        upper: Float[Tensor, "batch variable level lat lon"],
        surface: Float[Tensor, "batch field lat lon"],
    ) -> tuple[Float[Tensor, "batch variable level lat lon"], Float[Tensor, "batch field lat lon"]]:
        """States one lead time later, SI units, one after the other: the files have no batch axis.

        Raises ValueError for other shapes or types and for values that are not finite.
        """
        self._open()
        for name, values, shape in zip(INPUTS, (upper, surface), self._shapes, strict=True):
            _check(self.path, name, values, shape)
        made = (torch.empty_like(upper), torch.empty_like(surface))
        for sample in range(len(upper)):
            given = (upper[sample], surface[sample])
            feed = {
                name: np.ascontiguousarray(values.cpu().numpy())
                for name, values in zip(INPUTS, given, strict=True)
            }
            outputs = self._session.run(list(OUTPUTS), feed)
            for out, values in zip(made, outputs, strict=True):
                out[sample] = torch.from_numpy(values)
        return made

    def _open(self) -> None:
        if self._session is not None:
            return
        onnxruntime = _need_onnxruntime()
        options = onnxruntime.SessionOptions()
        # The official settings: a call needs gigabytes, which no arena or plan should keep.
        options.enable_cpu_mem_arena = False
        options.enable_mem_pattern = False
        options.enable_mem_reuse = False
        options.intra_op_num_threads = self.threads
        self._session = self._checked(
            _session(onnxruntime, self.path, options, self.device), onnxruntime
        )

    def _checked(self, session: Any, onnxruntime: Any) -> Any:
        inputs = {i.name: tuple(i.shape) for i in session.get_inputs()}
        outputs = {o.name for o in session.get_outputs()}
        shapes = tuple(inputs.get(name, ()) for name in INPUTS)
        fixed = all(isinstance(n, int) for shape in shapes for n in shape)
        if not fixed or [len(s) for s in shapes] != [4, 3] or not outputs >= set(OUTPUTS):
            raise ValueError(
                f"{self.path} is not a Pangu-Weather model: looked for input (variable, level, "
                f"lat, lon), input_surface (variable, lat, lon), output and output_surface, found "
                f"inputs {inputs}, outputs {sorted(outputs)}"
            )
        self._shapes = (shapes[0], shapes[1])
        if self.device == "cuda" and "CUDAExecutionProvider" not in session.get_providers():
            warnings.warn(
                f"{self.path} RUNS ON THE CPU although cuda was asked for: onnxruntime "
                f"{onnxruntime.__version__} offers {onnxruntime.get_available_providers()}. "
                "Install onnxruntime-gpu and a CUDA that it supports; a step now takes minutes",
                RuntimeWarning,
                stacklevel=4,
            )
        return session


def _session(onnxruntime: Any, path: Path, options: Any, device: str) -> Any:
    providers: list[Any] = ["CPUExecutionProvider"]
    if device == "cuda" and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        frugal = {"arena_extend_strategy": "kSameAsRequested"}
        providers.insert(0, ("CUDAExecutionProvider", frugal))
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # onnxruntime raises a kind of its own for each cause
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"onnxruntime cannot open {path}: {reason}") from error


def _need_onnxruntime() -> Any:
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"running official ONNX files needs onnxruntime: {install('export')}"
        ) from error
    return onnxruntime


def _check(path: Path, name: str, values: Tensor, shape: Shape) -> None:
    if tuple(values.shape[1:]) != shape:
        raise ValueError(
            f"{path} takes {name} of shape (batch, {', '.join(map(str, shape))}), "
            f"got {tuple(values.shape)}"
        )
    if values.dtype != torch.float32:
        raise ValueError(f"{path} takes {name} in float32, got {values.dtype}; use .float()")
    if not (finite := torch.isfinite(values)).all():
        place = tuple(int(i) for i in (~finite).nonzero()[0])
        raise ValueError(
            f"{name} has {int((~finite).sum())} values that are not finite, the first at {place}; "
            "fill the gaps before a forecast"
        )
