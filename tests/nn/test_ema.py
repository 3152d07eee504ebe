"""Teachers as running averages of students."""

from __future__ import annotations

import torch
from torch import nn

from tenfold.nn.ema import alpha_at, set_teacher_mode, teacher_of, update_teacher
from tenfold.nn.hivit_blocks import DropPath


def student() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), DropPath(0.5))


def moved(module: nn.Module) -> nn.Module:
    """The student after a step of training."""
    with torch.no_grad():
        for p in module.parameters():
            p.add_(torch.randn_like(p))
        module(torch.randn(8, 3))
    return module


def test_alpha_rises() -> None:
    assert [alpha_at(step, 0.7) for step in range(5)] == [0, 0.5, 1 - 1 / 3, 0.7, 0.7]


def test_the_first_update_copies_and_later_ones_average() -> None:
    own = student()
    teacher = teacher_of(own)
    moved(own)
    update_teacher(teacher, own, alpha_at(0, 0.9))
    for p, q in zip(teacher.parameters(), own.parameters(), strict=True):
        assert torch.equal(p, q) and not p.requires_grad and p is not q
    before = [p.clone() for p in teacher.parameters()]
    moved(own)
    update_teacher(teacher, own, 0.8)
    for old, p, q in zip(before, teacher.parameters(), own.parameters(), strict=True):
        torch.testing.assert_close(p, 0.8 * old + 0.2 * q)


def test_buffers_are_left_or_averaged() -> None:
    own = student()
    teacher = teacher_of(own)
    moved(own)
    update_teacher(teacher, own, 0.5)
    assert not teacher[1].running_mean.any() and teacher[1].num_batches_tracked == 0
    update_teacher(teacher, own, 0.5, buffers=True)
    torch.testing.assert_close(teacher[1].running_mean, own[1].running_mean / 2)
    assert teacher[1].num_batches_tracked == 1


def test_a_teacher_has_statistics_of_its_batch_and_no_noise() -> None:
    teacher = teacher_of(student())
    x = torch.randn(8, 3)
    with torch.inference_mode():
        found = teacher(x)
        torch.testing.assert_close(found, teacher(x))
        torch.testing.assert_close(found.mean(0), torch.zeros(4), atol=1e-6, rtol=0)
    teacher.train()
    assert not torch.equal(teacher(x), teacher(x))
    set_teacher_mode(teacher)
    assert torch.equal(teacher(x), teacher(x))
