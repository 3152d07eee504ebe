"""Export of a system's network, checked against eager before the file is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from .core.system import Export

TOLERANCE = 1e-4
"""Largest relative difference from eager that an export may have."""


def export_checked(what: Export, to: Literal["onnx", "torch"], target: Path) -> float:
    """Write the network with a dynamic batch axis; returns the largest relative difference.

    The file is checked at the example's batch size and at another one, and only renamed into
    place if both agree with eager to 1e-4.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name("unchecked-" + target.name)
    module = what.module.eval()
    batch = torch.export.Dim("batch")
    shapes = tuple({0: batch} for _ in what.inputs)
    other = tuple(torch.cat([x, x[:1]]) for x in what.inputs)
    with torch.no_grad():
        if to == "onnx":
            torch.onnx.export(
                module, what.inputs, temporary, dynamo=True, dynamic_shapes=shapes,
                input_names=list(what.input_names), output_names=list(what.output_names),
                external_data=False, verbose=False,
            )  # fmt: skip
            outputs = [_run_onnx(temporary, what, x) for x in (what.inputs, other)]
        else:
            torch.export.save(
                torch.export.export(module, what.inputs, dynamic_shapes=shapes), temporary
            )
            loaded = torch.export.load(temporary).module()
            outputs = [_listed(loaded(*x)) for x in (what.inputs, other)]
        worst = 0.0
        for inputs, got in zip((what.inputs, other), outputs, strict=True):
            for name, a, b in zip(what.output_names, _listed(module(*inputs)), got, strict=True):
                difference = float((a - b).abs().max() / a.abs().max().clamp_min(1e-12))
                if not difference < TOLERANCE:
                    temporary.unlink()
                    raise ValueError(
                        f"the exported output {name} differs from eager by {difference:.2g} "
                        f"(limit {TOLERANCE:g}) at batch {len(inputs[0])}; nothing was written"
                    )
                worst = max(worst, difference)
    temporary.replace(target)
    return worst


def _listed(outputs: Tensor | tuple[Tensor, ...]) -> list[Tensor]:
    return [outputs] if isinstance(outputs, Tensor) else list(outputs)


def _run_onnx(file: Path, what: Export, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    feed = {n: x.numpy() for n, x in zip(what.input_names, inputs, strict=True)}
    return [torch.from_numpy(y) for y in session.run(list(what.output_names), feed)]
