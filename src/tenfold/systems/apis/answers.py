"""Answers about pixels, as events of a log, and an annotator that knows the truth."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import numpy as np

from tenfold.data.images.crops import Crop
from tenfold.files import NUMBER, misfit

ANSWER, UNDO = "answer", "undo"
"""Kinds of events."""
FREE_CLICK = "human"
"""Source of a pixel that the annotator chose."""
FALLBACK = "fallback"
"""Source of a drawn pixel of an object that nothing predicted."""
MOST_TEXT = 200
"""Characters of a name or time in an event."""

Label = Literal[0, 1, "skip"] | None
"""On the object, not on it, object left for later; None: the annotator was not sure."""
SHAPE = {
    "kind": str, "id": str, "annotation": int, "x": int, "y": int, "source": str, "seconds": NUMBER,
    "who": str, "model": str, "time": str, "round": int, "of": str,
}  # fmt: skip


@dataclass(frozen=True)
class Answer:
    """What was said about one pixel of one object."""

    id: str
    """Of the event: one that is written twice counts once."""
    annotation: int
    x: int
    y: int
    label: Label
    source: str
    """Who chose the pixel: a strategy, "human" for a free click, "fallback"."""
    seconds: float = 0.0
    """From the question to the answer."""
    who: str = ""
    model: str = ""
    """Version of the model that chose the pixel."""
    time: str = ""
    """When, in ISO 8601; empty where a computed truth answered."""
    round: int = 0

    def __post_init__(self) -> None:
        where = f"answer {self.id[:40]!r} about annotation {self.annotation}"
        if not self.id:
            raise ValueError(f"{where} needs an id")
        _check_label(self.label, where)
        if min(self.x, self.y) < 0:
            raise ValueError(f"{where} is of pixel {self.x}, {self.y}, left of or above a picture")
        if self.round < 0 or not (math.isfinite(self.seconds) and self.seconds >= 0):
            raise ValueError(
                f"{where} is of round {self.round} and took {self.seconds} s; neither is below 0"
            )
        longest = max((self.id, self.source, self.who, self.model, self.time), key=len)
        if len(longest) > MOST_TEXT:
            raise ValueError(f"{where} holds a text of {len(longest)} characters, not {MOST_TEXT}")

    @property
    def is_point(self) -> bool:
        """True for yes and no."""
        return self.label in (0, 1)

    def event(self) -> dict[str, Any]:
        """The event of a log."""
        return {"kind": ANSWER, **asdict(self)}


@dataclass(frozen=True)
class Undo:
    """An answer is taken back."""

    id: str
    of: str
    """Id of the answer."""
    who: str = ""
    time: str = ""

    def event(self) -> dict[str, Any]:
        """The event of a log."""
        return {"kind": UNDO, **asdict(self)}


def of_event(event: Mapping[str, Any]) -> Answer | Undo | None:
    """The answer, or what takes one back, that an event is; None for other kinds.

    Raises:
        ValueError: A field is missing or of another type than it should be.
    """
    kind = {ANSWER: Answer, UNDO: Undo}.get(event.get("kind", ""))
    if kind is None:
        return None
    known = {field.name: event[field.name] for field in fields(kind) if field.name in event}
    problem = misfit(dict(event), SHAPE, "")
    required = ("id", "annotation", "x", "y", "label", "source") if kind is Answer else ("id", "of")
    absent = [name for name in required if name not in known]
    if problem or absent:
        said = problem or f"it lacks {', '.join(absent)}"
        raise ValueError(f"event {str(event.get('id'))[:40]!r} of the log: {said}")
    if "seconds" in known:
        known["seconds"] = float(known["seconds"])
    if kind is Answer:
        _check_label(known["label"], f"answer {str(known['id'])[:40]!r}")
    return kind(**known)


def _check_label(label: object, where: str) -> None:
    if label not in (0, 1, None, "skip") or isinstance(label, bool | float):
        raise ValueError(f"{where} has label {str(label)[:40]}, expected 0, 1, null or 'skip'")


def standing(events: Iterable[Mapping[str, Any]]) -> list[Answer]:
    """The answers of a log in their order, without those taken back and those written twice.

    Raises:
        ValueError: An event is no answer that can be read; the error names it.
    """
    found: dict[str, Answer] = {}
    seen: set[str] = set()
    for event in events:
        one = of_event(event)
        if one is None or one.id in seen:
            continue
        seen.add(one.id)
        if isinstance(one, Undo):
            found.pop(one.of, None)
        else:
            found[one.id] = one
    return list(found.values())


def pixels_asked(answers: Iterable[Answer], annotation: int) -> np.ndarray:
    """x y of an object's pixels that are not to be chosen again: all but those of skips."""
    pixels = [(a.x, a.y) for a in answers if a.annotation == annotation and a.label != "skip"]
    return np.array(pixels, dtype=np.int64).reshape(-1, 2)


def oracle(
    mask: Crop,
    x: int,
    y: int,
    noise: float = 0.0,
    not_sure: float = 0.0,
    rng: np.random.Generator | random.Random | None = None,
) -> Label:
    """Answer by the true mask, as an annotator who errs and is unsure near borders would.

    Args:
        mask: The object's true mask.
        x: Column of the pixel in the picture.
        y: Row of the pixel.
        noise: Share of answers that are wrong.
        not_sure: Pixels on either side of the mask's border about which the answer is None.
        rng: Needed if there is noise.

    Raises:
        ValueError: Noise is no share, the band is below zero, or a generator is missing.
    """
    if not 0 <= noise <= 1 or not 0 <= not_sure < math.inf:
        raise ValueError(
            f"noise must be from 0 to 1 and not_sure 0 or more, got {noise}, {not_sure}"
        )
    if noise and rng is None:
        raise ValueError("an oracle with noise draws, so it needs a generator (rng)")
    is_on = mask.at(x, y)
    # drawn first, so that the band does not shift what later questions draw
    is_wrong = rng is not None and bool(noise) and rng.random() < noise
    if not_sure and mask.distance_to_border(x, y) <= not_sure:
        return None
    return int(is_on != is_wrong)  # type: ignore[return-value]
