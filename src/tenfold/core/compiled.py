"""What a step runs, as torch.compile has it (`loop.compile`)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

BACKEND = "inductor"
"""Compiler that torch.compile gives its graphs to."""


def compiled(module: nn.Module) -> nn.Module:
    """The module as torch.compile runs it; its weights and their names are the module's."""
    options: dict[str, str | int | bool | Any] | None = None
    if BACKEND == "inductor":
        options = {"fallback_random": True}  # dropout draws the numbers that it draws without it
    made = torch.compile(module, backend=BACKEND, options=options)
    assert isinstance(made, nn.Module)
    return made


@contextlib.contextmanager
def failures_named(stage: str) -> Iterator[None]:
    """What torch cannot compile as a ValueError with a way out."""
    from torch._dynamo.exc import TorchDynamoException  # seconds, which most runs do not need

    try:
        yield
    except TorchDynamoException as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise ValueError(
            f"stage {stage!r} cannot be compiled ({type(error).__name__}: {' '.join(lines[:2])}); "
            "train it without --loop.compile"
        ) from error
