"""Probes of frozen features."""

from __future__ import annotations

import torch

from tenfold.metrics import probes


def clouds(each: int, seed: int, spread: float = 0.5) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    centres = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(3).repeat_interleave(each)
    return centres[labels] + spread * torch.randn(3 * each, 8, generator=draw), labels


def test_separable_classes_are_told_apart() -> None:
    (x, labels), (y, truth) = clouds(50, 1, 0.3), clouds(30, 2, 0.3)
    assert probes.top(probes.linear_probe(x, labels, y, 3), truth) > 95
    assert probes.top(probes.neighbours(x, labels, y, 3), truth) > 95


def test_scale_and_shift_do_not_matter() -> None:
    (x, labels), (y, _) = clouds(40, 1), clouds(20, 2)
    a = probes.linear_probe(x, labels, y, 3)
    b = probes.linear_probe(100 * x - 7, labels, 100 * y - 7, 3)
    assert torch.equal(a.argmax(1), b.argmax(1))


def test_noise_is_chance() -> None:
    draw = torch.Generator().manual_seed(0)
    x, y = torch.randn(200, 8, generator=draw), torch.randn(300, 8, generator=draw)
    labels, truth = (torch.randint(4, (n,), generator=draw) for n in (200, 300))
    assert 15 < probes.top(probes.linear_probe(x, labels, y, 4), truth) < 35


def test_neighbours_by_hand() -> None:
    train = torch.tensor([[1.0, 0], [0.9, 0.1], [0, 1]])
    votes = probes.neighbours(train, torch.tensor([0, 1, 1]), torch.tensor([[1.0, 0]]), 2, k=1)
    assert votes.argmax().item() == 0 and votes[0, 1] == 0


def test_top_k() -> None:
    logits = torch.tensor([[3.0, 2, 1], [1, 2, 3]])
    labels = torch.tensor([1, 0])
    assert [probes.top(logits, labels, k) for k in (1, 2, 3)] == [0, 50, 100]
