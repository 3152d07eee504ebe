"""Probes of a frozen network's features for classes: a linear probe and nearest neighbours."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)
"""Weight penalties that a probe chooses from, on a fifth of its training features."""
HELD = 5
"""Every so many-th training feature is held out to choose the penalty."""


def linear_probe(
    train: Float[Tensor, "image dim"],
    labels: Int64[Tensor, " image"],
    test: Float[Tensor, "other dim"],
    num_classes: int,
) -> Float[Tensor, "other class"]:
    """Logits of multinomial regression on standardised features, by L-BFGS to convergence.

    The penalty is chosen on held-out training features; the test features are not looked at.
    """
    mean, std = train.mean(0), train.std(0).clamp_min(1e-6)
    train, test = (train - mean) / std, (test - mean) / std
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
    held, kept = order[::HELD], torch.cat([order[i::HELD] for i in range(1, HELD)])
    scores = []
    for penalty in PENALTIES:
        weight, bias = _fitted(train[kept], labels[kept], num_classes, penalty)
        scores.append(top(train[held] @ weight + bias, labels[held]))
    best = PENALTIES[max(range(len(PENALTIES)), key=lambda i: scores[i])]
    weight, bias = _fitted(train, labels, num_classes, best)
    return test @ weight + bias


def _fitted(x: Tensor, labels: Tensor, num_classes: int, penalty: float) -> tuple[Tensor, Tensor]:
    weight = x.new_zeros(x.shape[1], num_classes, requires_grad=True)
    bias = x.new_zeros(num_classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        with torch.enable_grad():
            loss = F.cross_entropy(x @ weight + bias, labels) + penalty * weight.square().sum() / 2
            loss.backward()
        return loss

    optimizer.step(closure)
    return weight.detach(), bias.detach()


def neighbours(
    train: Float[Tensor, "image dim"],
    labels: Int64[Tensor, " image"],
    test: Float[Tensor, "other dim"],
    num_classes: int,
    k: int = 20,
    temperature: float = 0.07,
) -> Float[Tensor, "other class"]:
    """Votes of the k nearest training features by cosine, weighted (Wu et al. 2018, as in DINO)."""
    train, test = F.normalize(train, dim=1), F.normalize(test, dim=1)
    votes = test.new_zeros(len(test), num_classes)
    for start in range(0, len(test), 1000):
        similarity, rows = (test[start : start + 1000] @ train.T).topk(min(k, len(train)), 1)
        weights = (similarity / temperature).exp()
        votes[start : start + 1000].scatter_add_(1, labels[rows], weights)
    return votes


def top(logits: Float[Tensor, "image class"], labels: Int64[Tensor, " image"], k: int = 1) -> float:
    """Share of pictures whose class is among the k highest, in percent."""
    best = logits.topk(min(k, logits.shape[1]), 1).indices
    return 100 * float((best == labels[:, None]).any(1).double().mean())
