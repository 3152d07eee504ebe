"""All heads through all sessions, from one set of features."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, stdev

import torch
from jaxtyping import Int
from torch import Tensor

from tenfold.core.divide import divided
from tenfold.metrics import fewshot

from .baselines import class_means
from .classifier import Classifier
from .data import Encoded
from .heads import Head

FORGOTTEN = (2, 5)
"""Points of base accuracy that may be lost where NCR is measured (Paramonov et al. 2025)."""


@dataclass(frozen=True)
class Course:
    """Sessions of new classes that a head is put through, for several draws of their photos."""

    base: int
    way: int
    draws: tuple[tuple[Encoded, ...], ...]
    """[draw][session] -> features of the photos."""
    test: Encoded


@dataclass(frozen=True)
class Outcome:
    """One draw of one head."""

    predictions: Int[Tensor, "session image"]
    """Over the classes seen, after the base session and after each further one."""
    nbytes: int
    """Bytes that the head keeps after the last session."""
    rivals: fewshot.Rivals | None = None
    """Of the last session; None if it brought no new class."""


@dataclass(frozen=True)
class Details:
    """Material of an evaluation's pictures, of the run's own head."""

    course: Course
    outcomes: tuple[Outcome, ...]
    """One a draw."""


@torch.no_grad()
def take(make: Callable[[], Head], course: Course, draw: int) -> Outcome:
    """Start a head and give it every session of a draw."""
    head = make()
    logits = head.logits(course.test.features)
    predictions = [logits.argmax(1)]
    for photos in course.draws[draw]:
        head.learn(photos.features, photos.labels)
        logits = head.logits(course.test.features)
        predictions.append(logits.argmax(1))
    rivals = fewshot.rivals(logits, course.base) if logits.shape[1] > course.base else None
    return Outcome(torch.stack(predictions), nbytes(head.state()), rivals)


def nbytes(state: Mapping[str, Tensor]) -> int:
    """Bytes of a state."""
    return sum(x.numel() * x.element_size() for x in state.values())


def scores(outcome: Outcome, course: Course) -> dict[str, float]:
    """Compute the numbers of one draw.

    Accuracy a session is over all classes seen by then (CEC's protocol); after the last session,
    harmonic mean (TEEN) and confusion of base and new classes.
    """
    labels, base = course.test.labels, course.base
    sessions = fewshot.session_accuracies(outcome.predictions, labels, base, course.way)
    numbers = {f"accuracy/by session/{i}": float(x) for i, x in enumerate(sessions)}
    last = outcome.predictions[-1]
    base_score = fewshot.base_accuracy(last, labels, base)
    numbers |= {"final/mean/overall": float(sessions[-1]), "final/mean/base": base_score}
    if len(sessions) > 1:
        novel = fewshot.novel_accuracy(last, labels, base)
        numbers |= {
            "final/mean/novel": novel,
            "final/mean/harmonic": fewshot.harmonic_accuracy(base_score, novel),
            "final/mean/average": fewshot.average_accuracy(sessions),
            **_at_forgetting(outcome, course),
            "drop/mean/points": fewshot.performance_drop(sessions),
        }
        if sessions[0]:  # of nothing there is no share
            numbers["drop/mean/relative"] = 100 * fewshot.relative_drop(sessions)
        wrong = asdict(fewshot.confusion(last, labels, base))
        for key in ("base_as_base", "base_as_novel", "novel_as_base", "novel_as_novel"):
            numbers[f"confusion/last session/{key.replace('_', ' ')}"] = wrong[key]
    numbers["memory/last session/kB"] = outcome.nbytes / 1000
    return numbers


def _at_forgetting(outcome: Outcome, course: Course) -> dict[str, float]:
    """NCR at each forgetting rate, of the last session."""
    assert outcome.rivals is not None
    return {
        f"final/mean/NCR@{points}FOR": fewshot.novel_at_forgetting(
            outcome.rivals, course.test.labels, course.base, points
        )
        for points in FORGOTTEN
    }


def summary(each: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean over the draws of every number, and of the final ones the spread."""
    numbers = {key: fmean(one[key] for one in each) for key in each[0]}
    if len(each) > 1:
        for key in [key for key in numbers if key.startswith("final/mean/")]:
            spread = stdev(one[key] for one in each)
            numbers[key.replace("final/mean/", "spread/over draws/")] = spread
    return numbers


def called_unknown(classifier: Classifier, course: Course, judged_test: bool) -> dict[str, float]:
    """Percentages of test pictures that are called unknown at the default limit.

    Args:
        classifier: Its statistics of the base session judge, not the classes it learned later.
        course: Photos and test pictures in the space of its head.
        judged_test: Every other test picture of the base classes set the limit, so that only the
            rest can say how often known pictures pass it.

    Returns:
        Of base classes; before the sessions of new classes ("never learned"); after the last
        session of the same ones, mean over the draws.
    """
    features, labels, base = course.test.features, course.test.labels, course.base
    of_base = features[labels < base]
    means = classifier.network.means.cpu()
    sure = torch.zeros(base, dtype=torch.int64)
    rest = of_base[1::2] if judged_test and len(of_base) > 1 else of_base
    found = {"base": classifier.unknown(rest, means, sure)}
    new = features[labels >= base]
    if course.way and len(new):
        found["never learned"] = classifier.unknown(new, means, sure)
        each = []
        for sessions in course.draws:
            x = torch.cat([one.features for one in sessions])
            y = torch.cat([one.labels for one in sessions]) - base
            every = torch.cat([means, class_means(x, y, 0)])
            each.append(classifier.unknown(new, every, torch.cat([sure, torch.bincount(y)])))
        found["new, learned"] = torch.cat(each)
    return {
        f"unknown/at 95/{name}": 100 * float(some.double().mean()) for name, some in found.items()
    }


def evaluate(heads: Mapping[str, tuple[Callable[[], Head], Course]]) -> dict[str, list[Outcome]]:
    """Put every head through every draw of its course; the processes of a job share the work.

    Args:
        heads: Name -> what makes the head at the end of its base session, and its course.

    Returns:
        Name -> the outcome of each draw, in order.
    """
    jobs = [(name, draw) for name, (_, one) in heads.items() for draw in range(len(one.draws))]

    def work(index: int) -> Outcome:
        name, draw = jobs[index]
        return take(*heads[name], draw)

    measured = zip(jobs, divided(len(jobs), work, "heads"), strict=True)
    outcomes: dict[str, list[Outcome]] = {name: [] for name in heads}
    for (name, _), outcome in measured:
        outcomes[name].append(outcome)
    return outcomes
