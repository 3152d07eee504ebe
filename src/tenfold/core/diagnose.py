"""Diagnosis of a loss or a gradient that is not finite: the culprit."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from .dist import local
from .stage import Batch, Stage


class NonFinite(RuntimeError):
    """A loss or gradient is NaN or infinite; the message names the culprit and the knob."""

    exit_code = 3


def _bad_inputs(batch: Batch, where: str = "batch") -> str:
    """The first tensor of a batch that holds a non-finite value, or an empty string."""
    if isinstance(batch, torch.Tensor):
        if batch.is_floating_point() and not bool(torch.isfinite(batch).all()):
            row = (
                int((~torch.isfinite(batch)).flatten(1).any(1).nonzero()[0])
                if batch.ndim > 1
                else 0
            )
            return f"{where} (row {row})"
        return ""
    items: list[tuple[Any, Any]] = []
    if isinstance(batch, dict):
        items = list(batch.items())
    elif isinstance(batch, (list, tuple)):
        items = list(enumerate(batch))
    for key, value in items:
        found = _bad_inputs(value, f"{where}[{key!r}]")
        if found:
            return found
    return ""


HUGE = 1e3
"""Size of a weight from which on the loss is looked at once more after the last step."""


def harm_of_last_step(stage: Stage, batch: Batch) -> str:
    """Say what the last step of a stage made NaN or infinite, which no later step would meet.

    Where a weight is finite but huge the loss is computed once more, without a trace; of a model
    that is divided among processes only the weights are looked at.
    """
    for name, tensor in stage.model.state_dict().items():
        if tensor.is_floating_point() and not bool(torch.isfinite(local(tensor)).all()):
            return f"the weight {name} is not finite"
    own = [local(p.detach()) for p in stage.model.parameters()]
    sizes = [float(p.abs().max()) for p in own if p.numel()]
    largest = max(sizes, default=0.0)
    if stage.parallel or largest < HUGE:
        return ""
    buffers = [(buffer, buffer.clone()) for buffer in stage.model.buffers()]
    with torch.no_grad(), torch.random.fork_rng():
        losses = stage.training_step(stage.model, batch, lambda loss: None)
        for buffer, before in buffers:
            buffer.copy_(before)
    bad = [name for name, value in losses.items() if not bool(torch.isfinite(value.detach()).all())]
    return f"the loss term {', '.join(bad)} is not finite" if bad else ""


def require_finite_metrics(
    metrics: Mapping[str, float], baselines: Mapping[str, Mapping[str, float]]
) -> None:
    """Raise NonFinite if a metric is NaN or infinite, unless the data leave it undefined.

    What the data leave undefined (a class without pixels) is undefined for a baseline, too.

    Raises:
        NonFinite: It names the metrics.
    """
    bad = [
        name
        for name, value in metrics.items()
        if not math.isfinite(value)
        and all(math.isfinite(other[name]) for other in baselines.values() if name in other)
    ]
    if bad:
        more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
        raise NonFinite(
            f"{', '.join(bad[:3])}{more} of {len(metrics)} metrics are not finite: the training "
            "diverged; lower optim.lr or set optim.clip"
        )


def culprit(stage: Stage, batch: Batch, losses: dict[str, float], norm: float) -> str:
    """Say what is not finite: the input, a weight, a module's output, a loss term, a gradient."""
    bad = _bad_inputs(batch)
    if bad:
        return f"the input {bad} is not finite; check the data"
    for name, parameter in stage.model.named_parameters():
        if not bool(torch.isfinite(local(parameter)).all()):
            return f"the weight {name} is not finite; lower optim.lr or set optim.clip"
    first: list[str] = []

    def watch(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if not first and _bad_inputs(output, "output"):
                first.append(f"{name} ({type(module).__name__})")

        return hook

    if not stage.parallel:
        hooks = [m.register_forward_hook(watch(n)) for n, m in stage.model.named_modules() if n]
        with torch.no_grad(), contextlib.suppress(Exception):
            stage.model(batch)
        for hook in hooks:
            hook.remove()
    terms = [k for k, v in losses.items() if not abs(v) < float("inf")]
    if first:
        return f"the output of {first[0]} is the first that is not finite; lower optim.lr"
    if terms:
        return f"the loss term {', '.join(terms)} is not finite; lower optim.lr"
    grads = [
        n for n, p in stage.model.named_parameters()
        if p.grad is not None and not bool(torch.isfinite(local(p.grad)).all())
    ]  # fmt: skip
    if grads:
        return f"the gradient of {grads[0]} ({len(grads)} in all) is not finite; set optim.clip"
    return f"the gradient norm is {norm}; lower optim.lr"


def blamed(seen: list[Any]) -> str:
    """Name culprits from each (culprit, losses, norm): bad losses before mere bad gradients."""
    found = [
        (
            all(abs(v) < float("inf") for v in losses.values()),
            f"process {rank}: {where} (losses {losses}, gradient norm {norm:.3g})",
        )
        for rank, (where, losses, norm) in enumerate(seen)
        if where
    ]
    only_echo = min(echo for echo, _ in found)
    named = [text for echo, text in found if echo == only_echo]
    more = f"; and {len(named) - 4} more processes" if len(named) > 4 else ""
    return "; ".join(named[:4]) + more
