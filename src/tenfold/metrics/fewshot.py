"""Scores of few-shot class-incremental learning, in percent unless said, counted over pictures.

Classes are numbered in the order in which they are learned: base classes first, then `way` new
ones a session. Predictions are class numbers (the largest logit of the classes seen so far). The
released code averages the accuracies of batches, which weighs a short last batch too much; here
every picture counts once. Accuracy a session is that of Tao et al. (2020) and CEC (Zhang et al.
2021), PD that of CEC and later papers, the harmonic mean that of TEEN (Wang et al. 2023).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Confusion:
    """Answers for base and for novel pictures, in percent of the base or of the novel pictures."""

    base_right: float
    base_as_base: float
    """Base pictures taken for another base class."""
    base_as_novel: float
    novel_right: float
    novel_as_base: float
    novel_as_novel: float
    """Novel pictures taken for another novel class."""


def percent(hits: Tensor) -> float:
    """Share of true entries; NaN where there are none at all."""
    return float(100 * hits.double().mean())


def accuracy(predictions: Int[Tensor, " image"], labels: Int[Tensor, " image"]) -> float:
    """Pictures that are right, of all pictures."""
    return percent(predictions == labels)


def session_accuracies(
    predictions: Int[Tensor, "session image"], labels: Int[Tensor, " image"], base: int, way: int
) -> Float[Tensor, " session"]:
    """Accuracy after each session over the test pictures of the classes seen by then.

    Each session predicts all pictures of the test; those of classes not yet seen do not count.
    """
    scores = []
    for session, predicted in enumerate(predictions):
        seen = base + session * way
        counted = labels < seen
        if not bool(counted.any()):
            raise ValueError(
                f"session {session} has no test picture of its {seen} classes. Give labels from 0 "
                "in the order in which classes are learned."
            )
        if bool((predicted >= seen).any()) or bool((predicted < 0).any()):
            raise ValueError(
                f"session {session} predicts classes {int(predicted.min())} to "
                f"{int(predicted.max())}, but has seen 0 to {seen - 1} only. Cut the logits of "
                "unseen classes before taking the largest."
            )
        scores.append(accuracy(predicted[counted], labels[counted]))
    return torch.tensor(scores, dtype=torch.float64)


def base_accuracy(
    predictions: Int[Tensor, " image"], labels: Int[Tensor, " image"], base: int
) -> float:
    """Accuracy over the pictures of base classes, with all classes to choose from."""
    return accuracy(predictions[labels < base], labels[labels < base])


def novel_accuracy(
    predictions: Int[Tensor, " image"], labels: Int[Tensor, " image"], base: int
) -> float:
    """Accuracy over the pictures of novel classes, all classes to choose from; NaN without any."""
    return accuracy(predictions[labels >= base], labels[labels >= base])


def harmonic_accuracy(base_score: float, novel_score: float) -> float:
    """Harmonic mean of base and novel accuracy, which a method that forgets either cannot have."""
    total = base_score + novel_score
    return 2 * base_score * novel_score / total if total != 0 else 0.0


def average_accuracy(sessions: Float[Tensor, " session"]) -> float:
    """Mean of the accuracies of all sessions, the base session included."""
    return float(sessions.double().mean())


def performance_drop(sessions: Float[Tensor, " session"]) -> float:
    """PD: accuracy of the first session less that of the last, in points; lower is better."""
    return float(sessions[0].double() - sessions[-1].double())


def relative_drop(sessions: Float[Tensor, " session"]) -> float:
    """PD as a share (0 to 1, no percent) of the first session's accuracy; NaN if that is 0."""
    first = float(sessions[0])
    return performance_drop(sessions) / first if first != 0 else float("nan")


@dataclass(frozen=True)
class Rivals:
    """The best base and the best novel class of each picture, and which is ahead."""

    base: Int[Tensor, " image"]
    novel: Int[Tensor, " image"]
    lead: Float[Tensor, " image"]
    """Logit of the novel class less that of the base class; the larger logit answers."""


def rivals(logits: Float[Tensor, "image class"], base: int) -> Rivals:
    """Split logits of all classes into the best of the first `base` ones and of the others."""
    old, new = logits[:, :base].max(1), logits[:, base:].max(1)
    return Rivals(old.indices, new.indices + base, new.values - old.values)


def novel_at_forgetting(
    found: Rivals, labels: Int[Tensor, " image"], base: int, points: int | float
) -> float:
    """NCR@pFOR: accuracy of novel classes where base classes may lose `points` of accuracy at most.

    The novel class rate at a forgetting rate of Paramonov et al. (2025). Base accuracy is compared
    with that of the base classes alone, NaN without novel pictures. Their rule has a threshold of
    distance; here one offset, added to the logits of all novel classes, trades one for the other,
    and the best is taken: the curve is read off the test itself, as an ROC curve is.
    """
    old = labels < base
    base_right, novel_right = found.base == labels, found.novel == labels
    # at an offset, pictures whose lead is above minus it go to their novel class
    order = (-found.lead).sort(stable=True)
    lost = torch.cumsum((base_right & old)[order.indices].double(), 0)
    won = torch.cumsum((novel_right & ~old)[order.indices].double(), 0)
    # pictures of equal lead change sides together
    last = torch.ones(len(labels), dtype=torch.bool)
    last[:-1] = order.values[1:] != order.values[:-1]
    allowed = last & (lost <= points / 100 * int(old.sum()) + 1e-9)
    if not bool((~old).any()):
        return float("nan")
    return 100 * float(won[allowed].max()) / int((~old).sum()) if bool(allowed.any()) else 0.0


def confusion(
    predictions: Int[Tensor, " image"], labels: Int[Tensor, " image"], base: int
) -> Confusion:
    """Shares of right and wrong answers within and across base and novel; NaN without pictures."""
    right, novel, as_novel = predictions == labels, labels >= base, predictions >= base
    return Confusion(
        base_right=percent(right[~novel]),
        base_as_base=percent((~right & ~as_novel)[~novel]),
        base_as_novel=percent(as_novel[~novel]),
        novel_right=percent(right[novel]),
        novel_as_base=percent((~as_novel)[novel]),
        novel_as_novel=percent((~right & as_novel)[novel]),
    )


def class_accuracies(
    predictions: Int[Tensor, " image"], labels: Int[Tensor, " image"], classes: int
) -> Float[Tensor, " class"]:
    """Accuracy of each class 0..classes-1; NaN for a class without pictures."""
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise ValueError(
            f"labels {int(labels.min())} to {int(labels.max())} must lie in 0 to {classes - 1}. "
            "Pass the number of all classes, or only the pictures of the classes seen."
        )
    hits = torch.bincount(labels[predictions == labels], minlength=classes)
    return 100 * hits.double() / torch.bincount(labels, minlength=classes)
