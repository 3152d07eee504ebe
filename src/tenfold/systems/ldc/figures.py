"""Pictures for a run's report: how its heads fare, what is confused, and the space of features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from tenfold.core.checkpoint import write_bytes
from tenfold.core.system import Evaluation
from tenfold.metrics import fewshot
from tenfold.viz import plots

from .config import Config
from .data import Encoded
from .evaluation import Course, Details, Outcome, scores
from .feature_plot import Scene, draw_space, listing, short
from .heads import Base

RIVALS = 6
"""Other heads in a plot, at most: more colours there are not."""
OWN = {"ldc": "LDC", "ncm": "NCM", "lda": "LDA", "teen": "TEEN", "fine-tune": "fine-tuning"}
ENDS = 10
"""Classes shown of the least and of the most accurate."""


def report_pictures(evaluation: Evaluation, base: Base, cfg: Config, out: Path) -> dict[Path, str]:
    """Draw accuracy over the sessions, what is confused, and the space of features.

    Args:
        evaluation: What `evaluate` returned.
        base: Statistics of the base session.
        cfg: Configuration of the run.
        out: Folder to write to.

    Returns:
        File -> caption.

    Raises:
        ValueError: The evaluation is another system's.
    """
    details = evaluation.details
    if not isinstance(details, Details):
        raise ValueError(f"not an evaluation of LDC: its details are a {type(details).__name__}")
    course, outcomes = details.course, details.outcomes
    compared = _rivals(evaluation.baselines)
    own = f"{OWN[cfg.head]} (this run)"
    drawn: dict[str, tuple[bytes, str]] = {}
    if course.way:
        drawn["sessions.png"] = _sessions(outcomes, course, own, compared)
        drawn["base-and-new.png"] = _final(outcomes, course, own, compared)
        drawn["confusion.png"] = _groups(outcomes, course)
        drawn["features.png"] = _last_session(course, base, cfg.classes)
    else:
        drawn["classes.png"] = _classes(outcomes, course, cfg.classes)
        drawn["confusion.png"] = _mixed_up(outcomes, course, cfg.classes)
    for name, (content, _) in drawn.items():
        write_bytes(out / name, content)
    return {out / name: caption for name, (_, caption) in drawn.items()}


def _rivals(compared: Mapping[str, Mapping[str, float]]) -> dict[str, Mapping[str, float]]:
    """Of each family of heads, such as "NCM" and "NCM, centred", the one that ends best."""
    best: dict[str, str] = {}
    for name, numbers in compared.items():
        family = name.split(",")[0]
        rival = compared.get(best.get(family, ""), {})
        if numbers["final/mean/overall"] > rival.get("final/mean/overall", -1.0):
            best[family] = name
    return {name: compared[name] for name in list(best.values())[:RIVALS]}


def _among(compared: Mapping[str, Any]) -> str:
    """Word a caption's sentence on the other heads."""
    if compared:
        return "Of each family of other heads, the variant that ends best here."
    return "No other head was measured."


def _sessions(
    outcomes: Sequence[Outcome], course: Course, own: str, compared: Mapping[str, Any]
) -> tuple[bytes, str]:
    count = len(outcomes[0].predictions)
    keys = [f"accuracy/by session/{i}" for i in range(count)]
    known = [course.base + i * course.way for i in range(count)]
    every = {own: [scores(one, course) for one in outcomes]}
    every |= {name: [numbers] for name, numbers in compared.items()}
    lines = {
        name: (known, [[one[k] for k in keys] for one in all_]) for name, all_ in every.items()
    }
    content = plots.lines_with_spread(
        lines,
        title="Accuracy over the sessions",
        xlabel=f"classes known: {course.base} base classes, then {course.way} a session",
        ylabel="test pictures of known classes right (%)",
        size=(6.4, 4.4),
    )
    spread = f"band: one standard deviation over {len(outcomes)} draws of the photos. "
    spread = spread if len(outcomes) > 1 else "one draw of the photos. "
    return content, f"Accuracy over all classes known by then; {spread}{_among(compared)}"


def _final(
    outcomes: Sequence[Outcome], course: Course, own: str, compared: Mapping[str, Any]
) -> tuple[bytes, str]:
    each = [scores(one, course) for one in outcomes]
    parts = {"base": "base classes", "novel": "new classes", "harmonic": "harmonic mean"}
    values = {
        own: {w: float(np.mean([o[f"final/mean/{p}"] for o in each])) for p, w in parts.items()}
    }
    errors = {own: {w: _deviation([o[f"final/mean/{p}"] for o in each]) for p, w in parts.items()}}
    for name, numbers in compared.items():
        values[name] = {word: numbers[f"final/mean/{part}"] for part, word in parts.items()}
        key = "spread/over draws"
        errors[name] = {word: numbers.get(f"{key}/{part}", 0.0) for part, word in parts.items()}
    content = plots.bars(
        values, errors=errors, title="After the last session",
        ylabel="test pictures right (%)", size=(6.4, 4.4),
    )  # fmt: skip
    caption = "Base and new classes after the last session, all classes to choose from"
    caption += "; whiskers: one standard deviation over the draws. " if len(each) > 1 else ". "
    return content, caption + _among(compared)


def _deviation(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def _groups(outcomes: Sequence[Outcome], course: Course) -> tuple[bytes, str]:
    sessions = len(outcomes[0].predictions)
    labels = _group(course.test.labels, course)
    seen = labels < sessions
    table = np.zeros((sessions, sessions))
    for one in outcomes:
        ends = _group(one.predictions[-1], course)
        np.add.at(table, (labels[seen].numpy(), ends[seen].numpy()), 1.0)
    with np.errstate(invalid="ignore"):  # a session without test pictures stays empty
        table = 100 * table / table.sum(1, keepdims=True)
    names = ["base", *(f"session {i}" for i in range(1, sessions))]
    content = plots.heatmap(
        table, rows=names, columns=names, title="Where pictures of each session end up",
        xlabel="predicted", ylabel="true", unit="% of the row", size=(6.4, 4.8),
    )  # fmt: skip
    return content, (
        "After the last session: of the test pictures of base classes and of each session's "
        "classes, the share taken for a class of each (right or wrong), mean over the draws"
    )


def _group(classes: Int[Tensor, " image"], course: Course) -> Int[Tensor, " image"]:
    """0 for base classes, else the session in which a class came."""
    return torch.where(classes < course.base, 0, 1 + (classes - course.base) // course.way)


def _last_session(course: Course, base: Base, classes: Sequence[str]) -> tuple[bytes, str]:
    photos, first = course.draws[0], course.base + (len(course.draws[0]) - 1) * course.way
    earlier = [
        one.features[one.labels == label].double().mean(0)
        for one in photos[:-1]
        for label in one.labels.unique().tolist()
    ]
    before = Scene(
        torch.stack([*base.means, *earlier]),
        photos[-1].features,
        photos[-1].labels - first,
        tuple(classes[:first]),
        tuple(classes[first : first + course.way]),
    )
    new = (course.test.labels >= first) & (course.test.labels < first + course.way)
    test = Encoded(course.test.features[new], course.test.labels[new] - first)
    title = f"Session {len(photos)}: {listing(before.names)}"
    return draw_space(before, base, title, test), (
        "The space of features before and after the last session (first draw), whitened by the "
        "shared covariance; small dots are test pictures of the new classes"
    )


def _classes(
    outcomes: Sequence[Outcome], course: Course, names: Sequence[str]
) -> tuple[bytes, str]:
    predicted = outcomes[0].predictions[-1]
    each = fewshot.class_accuracies(predicted, course.test.labels, len(names))
    share = {c: float(x) for c, x in enumerate(each) if not x.isnan()}
    ranked = sorted(share, key=lambda c: share[c])
    chosen = ranked if len(ranked) <= 2 * ENDS else ranked[:ENDS] + ranked[-ENDS:]
    title = "Accuracy of each class" if chosen is ranked else f"The {ENDS} worst and best classes"
    titles = _distinct([names[c] for c in chosen])
    content = plots.bars(
        {"accuracy": {t: share[c] for t, c in zip(titles, chosen, strict=True)}}, title=title,
        ylabel="test pictures right (%)", size=(max(5.4, 0.42 * len(chosen)), 4.2),
    )  # fmt: skip
    return content, f"{title}, test pictures, all classes to choose from"


def _mixed_up(
    outcomes: Sequence[Outcome], course: Course, names: Sequence[str]
) -> tuple[bytes, str]:
    table = np.zeros((course.base, course.base))
    np.add.at(table, (course.test.labels.numpy(), outcomes[0].predictions[-1].numpy()), 1.0)
    with np.errstate(invalid="ignore"):
        table = 100 * table / table.sum(1, keepdims=True)
    wrong = np.nan_to_num(table - np.diag(np.diag(table)))
    pairs = np.dstack(np.unravel_index(np.argsort(-wrong, axis=None, kind="stable"), wrong.shape))
    chosen = sorted(list(dict.fromkeys(pairs.flatten().tolist()))[:ENDS])
    titles = _distinct([names[c] for c in chosen])
    content = plots.heatmap(
        table[np.ix_(chosen, chosen)], rows=titles, columns=titles, title="Most confused classes",
        xlabel="predicted", ylabel="true", unit="% of the class", size=(7.4, 5.4),
    )  # fmt: skip
    return content, (
        "The classes with the most frequent confusions among them, in percent of a class's test "
        "pictures; what is missing from 100 went to other classes"
    )


def _distinct(names: Sequence[str]) -> list[str]:
    """Shortened names, numbered where two look alike."""
    titles: list[str] = []
    for name in map(short, names):
        titles.append(name if name not in titles else f"{name} ({len(titles)})")
    return titles
