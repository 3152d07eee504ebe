"""USAGE's losses: limits of the temperature, gradients, forms of the regularisation, the ramp."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from tenfold.systems.usage import loss


def values(seed: int = 0) -> torch.Tensor:
    return torch.randn(2, 3, 7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


LABELS = torch.tensor([[1.0, 0, 1], [0, 0, 1]], dtype=torch.float64)


def test_a_temperature_of_zero_is_the_mean() -> None:
    x = values()
    found, scores = loss.generation_loss(x, LABELS, 0.0, 0.0)
    torch.testing.assert_close(scores, x.mean(2))
    torch.testing.assert_close(found, F.multilabel_soft_margin_loss(x.mean(2), LABELS))


@pytest.mark.parametrize("over", ["space", "class"])
def test_far_temperatures_find_extremes(over: loss.Over) -> None:
    x = values()
    log_alpha = loss.log_distribution(x, over)
    for tau, end in ((400.0, log_alpha.argmax(2)), (-400.0, log_alpha.argmin(2))):
        _, scores = loss.generation_loss(x, LABELS, tau, tau, over)
        torch.testing.assert_close(scores, x.gather(2, end[..., None])[..., 0], atol=5e-3, rtol=0)


@given(st.floats(-3, 3), st.integers(0, 99))
def test_slopes_of_a_score_sum_to_one(tau: float, seed: int) -> None:
    """ds / dA_i = w_i (1 + tau (A_i - s))."""
    x = values(seed).requires_grad_()
    _, scores = loss.generation_loss(x, LABELS, tau, tau)
    (slope,) = torch.autograd.grad(scores.sum(), x)
    torch.testing.assert_close(slope.sum(2), torch.ones(2, 3, dtype=torch.float64))
    weights = loss.pooling_weights(x, tau)
    torch.testing.assert_close(slope, weights * (1 + tau * (x - scores[..., None])))


def test_each_class_has_the_temperature_of_its_label() -> None:
    x = values()
    _, scores = loss.generation_loss(x, LABELS, 0.3, -0.2)
    _, high = loss.generation_loss(x, LABELS, 0.3, 0.3)
    _, low = loss.generation_loss(x, LABELS, -0.2, -0.2)
    torch.testing.assert_close(scores, torch.where(LABELS > 0, high, low))


def test_detached_weights_are_constants() -> None:
    x = values().requires_grad_()
    _, scores = loss.generation_loss(x, LABELS, 1.0, 1.0, "space", True)
    (slope,) = torch.autograd.grad(scores.sum(), x)
    torch.testing.assert_close(slope, loss.pooling_weights(x, 1.0))


@pytest.mark.parametrize("form", ["kl", "l1", "mse"])
def test_a_distance_is_of_present_classes_and_the_student_alone(form: loss.Form) -> None:
    student, teacher = values(1).requires_grad_(), values(2).requires_grad_()
    found = loss.regularisation_loss(student, teacher, LABELS, form)
    found.backward()
    assert found > 0 and teacher.grad is None
    assert student.grad is not None and not student.grad[LABELS == 0].any()
    assert student.grad[LABELS == 1].any()
    same = loss.regularisation_loss(student, student.detach(), LABELS, form)
    torch.testing.assert_close(same, torch.zeros_like(same))
    assert loss.regularisation_loss(student, teacher, torch.zeros_like(LABELS), form) == 0
    if form == "l1":  # does not see by how much a whole map is larger
        scaled = loss.regularisation_loss(student, 3 * student.detach(), LABELS, form)
        assert scaled < 1e-4


def test_the_ramp() -> None:
    assert [loss.ramp(step, 60) for step in (0, 19, 20, 25, 30, 59)] == [0, 0, 0, 0.5, 1, 1]
    assert loss.ramp(0, 0) == 0


def test_pooling_by_rank() -> None:
    x = values()
    ordered = x.sort(2, descending=True).values
    weights = 0.9 ** torch.arange(7, dtype=torch.float64)
    wanted = (ordered * weights).sum(2) / weights.sum()
    torch.testing.assert_close(loss.ranked_pooling(x, 0.9), wanted)
    torch.testing.assert_close(loss.ranked_pooling(x, 1.0), x.mean(2))


def test_a_distance_over_processes_is_that_of_the_batch(monkeypatch) -> None:
    """Gradients are averaged over processes, so losses have to be, too."""
    whole = loss.regularisation_loss(values(1), values(2), LABELS, "kl")
    monkeypatch.setattr(loss.dist, "is_initialized", lambda: True)
    monkeypatch.setattr(loss.dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(loss.dist, "all_reduce", lambda count: count.copy_(LABELS.sum()))
    parts = [
        loss.regularisation_loss(values(1)[rows], values(2)[rows], LABELS[rows], "kl")
        for rows in (slice(0, 1), slice(1, 2))
    ]
    torch.testing.assert_close(sum(parts) / 2, whole)
