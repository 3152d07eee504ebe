"""Teachers whose weights are a running average of a student's (Tarvainen & Valpola 2017)."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn

from .hivit_blocks import DropPath

NOISE = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, DropPath)
"""Layers that draw numbers in training."""


def teacher_of(student: nn.Module) -> nn.Module:
    """A copy that is not trained, in the mode of `set_teacher_mode`."""
    teacher = deepcopy(student).requires_grad_(False)
    set_teacher_mode(teacher)
    return teacher


def set_teacher_mode(teacher: nn.Module) -> None:
    """Training mode without noise: norms use the statistics of the batch, nothing is dropped.

    As DACS and DAFormer have it (mmseg/models/uda/dacs.py): buffers are not averaged, so the
    running statistics of a teacher would be those of its own batches.
    """
    teacher.train()
    for module in teacher.modules():
        if isinstance(module, NOISE):
            module.eval()


def alpha_at(step: int, alpha: float) -> float:
    """Share of the teacher that stays at 0-based `step`: 0 at first, rising to `alpha`."""
    return min(1 - 1 / (step + 1), alpha)


@torch.no_grad()
def update_teacher(
    teacher: nn.Module, student: nn.Module, alpha: float, buffers: bool = False
) -> None:
    """teacher <- alpha * teacher + (1 - alpha) * student, of all parameters at once.

    An alpha of 0 copies exactly. With `buffers`, those of floating-point numbers (running
    statistics) are averaged too, and the others (counters) copied.
    """
    old: list[Tensor] = list(teacher.parameters())
    new: list[Tensor] = list(student.parameters())
    if buffers:
        for mine, given in zip(teacher.buffers(), student.buffers(), strict=True):
            if mine.is_floating_point():
                old.append(mine)
                new.append(given)
            else:
                mine.copy_(given)
    torch._foreach_lerp_(old, new, 1 - alpha)
