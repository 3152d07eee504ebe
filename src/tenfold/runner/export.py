"""Export of a system's network, checked against eager before the file is kept."""

from __future__ import annotations

import contextlib
import logging
import warnings
import zipfile
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from tenfold import __version__
from tenfold.core import checkpoint
from tenfold.core.capabilities import Export
from tenfold.extras import EXTRAS, install
from tenfold.files import replacing

Tensors = tuple[Tensor, ...]
TOLERANCE = 1e-4
"""Largest relative difference from eager that an export may have."""
PRODUCER = "tenfold"
"""What says that an export is ours: the producer of ONNX, an extra file in .pt2."""


def export_checked(what: Export, to: Literal["onnx", "torch"], target: Path) -> float:
    """Write the network with a dynamic batch axis, checked against eager.

    The file is checked at the example's batch size and at another one (where the batch is not free,
    with another input), and only renamed into place if both agree with eager to `TOLERANCE`.

    Args:
        what: Module to export (put into eval mode), example inputs, names and batch axes.
        to: Format: "onnx", or "torch" for an archive of `torch.export`.
        target: File to write; its folder is made if it is not there. An export of ours is replaced.

    Returns:
        The largest relative difference from eager, over all outputs and both batch sizes.

    Raises:
        ValueError: The network cannot be exported with a free batch, the outputs differ, or others
            wrote `target`.
        ModuleNotFoundError: A package that the export to ONNX needs is not installed.
    """
    if to == "onnx":
        _need_onnx()
    require_own_export(target)
    module = what.module.eval()
    more = tuple(torch.cat([x, x[:1]]) if what.is_free else x.flip(-1) for x in what.inputs)
    worst = 0.0
    with replacing(target) as unchecked, torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of torch about its own code
        warnings.filterwarnings("ignore", "# The axis name")  # all inputs have the same batch
        run = _written(what, module, to, unchecked)
        for inputs in (what.inputs, more):
            worst = max(worst, _difference(what, module, inputs, run(inputs)))
    return worst


def require_own_export(path: Path) -> None:
    """Raise ValueError if a file is there that is no export of tenfold."""
    if not path.exists() or (path.is_file() and _is_own(path)):
        return
    raise ValueError(
        f"{path} is there already, and nothing in it says that tenfold exported it: it is not "
        "overwritten; move it away, or give another --out"
    )


def _is_own(file: Path) -> bool:
    with file.open("rb") as opened:
        start = opened.read(64)  # ONNX: the producer is the second field
        if start.startswith(b"PK"):
            with contextlib.suppress(zipfile.BadZipFile), zipfile.ZipFile(opened) as archive:
                return any(name.endswith(f"/extra/{PRODUCER}") for name in archive.namelist())
    return b"\x12" + bytes([len(PRODUCER)]) + PRODUCER.encode() in start


def _need_onnx() -> None:
    missing = [m for m in EXTRAS["export"] if find_spec(m) is None]
    if missing:
        raise ModuleNotFoundError(
            f"export to onnx needs {', '.join(missing)}: {install('export')}; or use --to torch"
        )


def _written(
    what: Export, module: nn.Module, to: Literal["onnx", "torch"], file: Path
) -> Callable[[Tensors], list[Tensor]]:
    """Write the file; returns what runs it as its users will."""
    batch = torch.export.Dim("batch")
    shapes = tuple({0: batch} for _ in what.inputs) if what.is_free else None
    try:
        program = torch.export.export(module, what.inputs, dynamic_shapes=shapes)
    except Exception as error:  # torch raises many kinds, some of them long
        reason = str(error).strip().splitlines()[0]
        kind = "with a free batch" if what.is_free else "at this size"
        raise ValueError(f"the network cannot be exported {kind}: {reason}") from error
    if to == "torch":
        with checkpoint.for_torch(file) as written:
            torch.export.save(program, written, extra_files={PRODUCER: __version__})
        with file.open("rb") as opened:  # of a path torch wants that it ends in .pt2
            loaded = torch.export.load(opened).module()
        return lambda inputs: _listed(loaded(*inputs))
    # they warn of torchvision's operators, which tenfold does not need, and of what is not folded
    for name in ("torch.onnx._internal.exporter._registration", "onnxscript.optimizer"):
        logging.getLogger(name).setLevel(logging.ERROR)
    made = torch.onnx.export(
        program, what.inputs, dynamo=True, dynamic_shapes=shapes,
        input_names=list(what.input_names), output_names=list(what.output_names),
        verbose=False, custom_translation_table=what.operators(),
    )  # fmt: skip
    assert made is not None
    made.model.producer_name, made.model.producer_version = PRODUCER, __version__
    made.save(file, external_data=False)
    return partial(_run_onnx, file, what)


def _difference(what: Export, module: nn.Module, inputs: Tensors, got: list[Tensor]) -> float:
    """Largest relative difference of the outputs from eager; ValueError if it is too large."""
    worst = 0.0
    for name, a, b in zip(what.output_names, _listed(module(*inputs)), got, strict=True):
        difference = float((a - b).abs().max() / a.abs().max().clamp_min(1e-12))
        if not difference < TOLERANCE:
            raise ValueError(
                f"the exported output {name} differs from eager by {difference:.2g} "
                f"(limit {TOLERANCE:g}) at batch {len(inputs[0])}; nothing was written"
            )
        worst = max(worst, difference)
    return worst


def _listed(outputs: Tensor | Tensors) -> list[Tensor]:
    return [outputs] if isinstance(outputs, Tensor) else list(outputs)


def _run_onnx(file: Path, what: Export, inputs: Tensors) -> list[Tensor]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    feed = {n: x.numpy() for n, x in zip(what.input_names, inputs, strict=True)}
    return [torch.from_numpy(y) for y in session.run(list(what.output_names), feed)]
