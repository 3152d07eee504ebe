"""`--dry-run`: everything is built, one step is made, nothing is written."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch

from tenfold.core import dist
from tenfold.core.prefetch import to_device

from .start import start_from
from .weights import AnySystem, construct


@dataclass(frozen=True)
class DryRun:
    """Findings of `--dry-run`."""

    parameters: int
    batch: list[str]
    losses: dict[str, float]
    stages: list[str]


def dry_run(name: str, cls: type[AnySystem], cfg: Any) -> DryRun:
    """Build everything and run one step of the first stage, writing nothing.

    `cfg` is complete, as `completed` gives it.
    """
    with dist.started(cfg.loop.device) as world:
        system = construct(cls, cfg)
        start_from(system, name)
        stage = next(iter(system.stages()), None)
        if stage is None:
            raise ValueError("nothing is trained under this configuration, so there is no step")
        batch = stage.batches(0)
        stage.model.to(world.device).train()
        moved = to_device(batch, world.device)
        step = [moved] if stage.parallel else moved
        losses = stage.training_step(stage.model, step, lambda loss: loss.backward())
    return DryRun(
        sum(p.numel() for p in stage.model.parameters()),
        list(_shapes(batch)),
        {k: float(v.detach()) for k, v in losses.items()},
        [f"{stage.name}: {stage.steps} steps"],
    )


def _shapes(value: Any, where: str = "batch") -> Iterable[str]:
    if isinstance(value, torch.Tensor):
        yield f"{where}: {str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _shapes(item, f"{where}.{key}")
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _shapes(item, f"{where}[{index}]")
    else:
        yield f"{where}: {value!r}"
