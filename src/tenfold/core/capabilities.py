"""What some systems can do and others not: a protocol each, which the verbs ask for."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class Export:
    """How a system's network is exported: a module, example inputs, and their batch axes."""

    module: nn.Module
    inputs: tuple[Tensor, ...]
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
