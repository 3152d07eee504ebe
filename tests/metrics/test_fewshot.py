"""Few-shot metrics by hand, against a plain loop, and their edges."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tenfold.metrics import fewshot

LABELS = torch.tensor([0, 0, 0, 1, 1, 2, 2, 3])
LAST = torch.tensor([0, 1, 2, 1, 3, 2, 0, 2])
"""Base 0 and 1: right, base as base, base as novel, right, base as novel; novel: right, as base,
as another novel class."""


def test_groups_by_hand():
    assert fewshot.accuracy(LAST, LABELS) == pytest.approx(37.5)
    base = fewshot.base_accuracy(LAST, LABELS, 2)
    novel = fewshot.novel_accuracy(LAST, LABELS, 2)
    assert (base, novel) == pytest.approx((40, 100 / 3))
    assert fewshot.harmonic_accuracy(base, novel) == pytest.approx(400 / 11)
    found = fewshot.confusion(LAST, LABELS, 2)
    assert (found.base_right, found.base_as_base, found.base_as_novel) == pytest.approx(
        (40, 20, 40)
    )
    assert (found.novel_right, found.novel_as_base, found.novel_as_novel) == pytest.approx(
        (100 / 3, 100 / 3, 100 / 3)
    )


def test_sessions_count_only_the_classes_seen():
    predictions = torch.stack(
        [torch.tensor([0, 0, 0, 0, 1, 0, 0, 0]), torch.tensor([0, 0, 2, 1, 1, 2, 2, 0]), LAST]
    )
    scores = fewshot.session_accuracies(predictions, LABELS, 2, 1)
    assert scores.tolist() == pytest.approx([80, 600 / 7, 37.5])
    assert fewshot.average_accuracy(scores) == pytest.approx((80 + 600 / 7 + 37.5) / 3)
    assert fewshot.performance_drop(scores) == pytest.approx(42.5)
    assert fewshot.relative_drop(scores) == pytest.approx(42.5 / 80)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=30),
    st.integers(1, 5),
)
def test_everything_equals_a_loop(pairs, base):
    predictions, labels = (torch.tensor(x) for x in zip(*pairs, strict=True))
    found = fewshot.confusion(predictions, labels, base)
    of_base = [p for p, y in pairs if y < base]
    if of_base:
        right = sum(p == y for p, y in pairs if y < base)
        assert found.base_right == pytest.approx(100 * right / len(of_base))
        assert found.base_right == fewshot.base_accuracy(predictions, labels, base)
        assert found.base_right + found.base_as_base + found.base_as_novel == pytest.approx(100)
    if len(of_base) < len(pairs):
        total = found.novel_right + found.novel_as_base + found.novel_as_novel
        assert total == pytest.approx(100)
        assert found.novel_right == fewshot.novel_accuracy(predictions, labels, base)
    for c, got in enumerate(fewshot.class_accuracies(predictions, labels, 6).tolist()):
        of_class = [p == c for p, y in pairs if y == c]
        assert got == pytest.approx(100 * np.mean(of_class) if of_class else math.nan, nan_ok=True)


def test_nothing_to_count():
    base_only = torch.zeros(3, dtype=torch.int64)
    assert math.isnan(fewshot.novel_accuracy(base_only, base_only, 1))
    assert math.isnan(fewshot.confusion(base_only, base_only, 1).novel_as_base)
    assert math.isnan(fewshot.harmonic_accuracy(50.0, math.nan))
    assert fewshot.harmonic_accuracy(0.0, 0.0) == 0
    assert math.isnan(fewshot.relative_drop(torch.zeros(2)))


def test_wrong_numbers_of_classes():
    with pytest.raises(ValueError, match="session 0 predicts classes 0 to 3, but has seen 0 to 1"):
        fewshot.session_accuracies(LAST[None], LABELS, 2, 1)
    with pytest.raises(ValueError, match="session 0 has no test picture of its 1 classes"):
        fewshot.session_accuracies(LAST[None], LABELS + 1, 1, 1)
    with pytest.raises(ValueError, match="labels 0 to 3 must lie in 0 to 2"):
        fewshot.class_accuracies(LAST, LABELS, 3)


def test_novel_rate_at_a_forgetting_rate() -> None:
    """NCR by a loop over all offsets, ties included."""
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(300, 7, generator=random).mul(4).round()
    labels = torch.randint(7, (300,), generator=random)
    logits[torch.arange(300), labels] += 3
    found = fewshot.rivals(logits, 5)
    old = labels < 5
    alone = float((logits[:, :5].argmax(1) == labels)[old].double().sum())
    for points in (0, 2, 5, 100):
        best = 0.0
        for offset in [x / 2 + 0.25 for x in range(-100, 100)]:
            moved = logits.clone()
            moved[:, 5:] += offset
            right = moved.argmax(1) == labels
            if alone - float(right[old].double().sum()) <= points / 100 * int(old.sum()):
                best = max(best, 100 * float(right[~old].double().mean()))
        assert fewshot.novel_at_forgetting(found, labels, 5, points) == pytest.approx(best)
    assert math.isnan(fewshot.novel_at_forgetting(found, labels.clamp(max=4), 5, 2))
