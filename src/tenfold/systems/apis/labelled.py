"""Objects that people drew and answered about: read from the events of a labelling page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from tenfold.data.images.crops import Crop
from tenfold.data.images.instances import Point, Said, Shape
from tenfold.journal import Event

from .answers import Answer, of_event
from .strategies import Pixels, pixel_box

OBJECT, CHANGE, REMOVE = "object", "change", "remove"
"""Kinds of events about objects, beside answers."""
MARKS: dict[Any, Literal[0, 1, -1]] = {1: 1, 0: 0, None: -1}
"""Labels of answers that are points -> labels of points; -1 is not sure."""


@dataclass(frozen=True)
class Known:
    """An object as its events have it."""

    id: int
    image: str
    """Name of its picture."""
    size: tuple[int, int]
    """Height and width of the picture that it was drawn on."""
    name: str
    """Class."""
    box: tuple[float, float, float, float]
    said: Said
    """Of class and box."""
    mask: Crop | None = None
    """A person's own, which no model changes."""
    mask_said: Said = Said()
    answers: tuple[Answer, ...] = ()
    is_crowd: bool = False
    """Not asked about."""
    is_removed: bool = False

    @property
    def pixels(self) -> Pixels:
        """The whole pixels of its box."""
        return pixel_box(self.box, *self.size)

    @property
    def inside(self) -> list[Answer]:
        """The answers in its box; those that the box has left behind come back with it."""
        x0, y0, x1, y1 = self.pixels
        return [a for a in self.answers if x0 <= a.x < x1 and y0 <= a.y < y1]

    @property
    def points(self) -> list[tuple[int, int, int]]:
        """x, y, label of the answers yes (1) and no (0) that lie in the box."""
        return [(a.x, a.y, int(a.label)) for a in self.inside if a.is_point]  # type: ignore[arg-type]

    def shape(self, classes: Sequence[str]) -> Shape:
        """The object as files have it; its answers of yes, no and not sure are points."""
        points = tuple(
            Point(a.x, a.y, MARKS[a.label], Said("human", a.who, "", a.time), a.seconds, a.source)
            for a in self.inside
            if a.label != "skip"
        )
        area = (self.box[2] - self.box[0]) * (self.box[3] - self.box[1])
        return Shape(
            self.id, classes.index(self.name), self.box, self.mask, points,
            is_crowd=self.is_crowd,
            area=float(self.mask.area if self.mask is not None else area),
            said=self.said, mask_said=self.mask_said,
        )  # fmt: skip


def known(events: Sequence[Event]) -> Known | None:
    """The object of its standing events; None if it was never made, or its making taken back.

    Raises:
        ValueError: An event is not what the page writes.
    """
    found: Known | None = None
    for event in events:
        try:
            found = _after(found, event)
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"event {str(event.get('id'))[:64]!r} of the log lacks {error}, or it is of "
                "another type; restore the log from a copy"
            ) from error
    return found


def _after(found: Known | None, event: Event) -> Known | None:
    kind = event["kind"]
    if kind == OBJECT:
        height, width = event["size"]
        x0, y0, x1, y1 = (float(value) for value in event["box"])
        own = event.get("mask")
        return Known(
            event["annotation"], event["image"], (height, width), event["class"], (x0, y0, x1, y1),
            _said(event), None if own is None else mask_of(own), _said(own or {}),
            is_crowd=event.get("crowd", False),
        )  # fmt: skip
    if found is None:  # its making was taken back
        return None
    if kind == CHANGE:
        box = found.box
        if "box" in event:
            x0, y0, x1, y1 = (float(value) for value in event["box"])
            box = (x0, y0, x1, y1)
        return replace(found, name=event.get("class", found.name), box=box, said=_said(event))
    if kind == REMOVE:
        return replace(found, is_removed=True)
    answer = of_event(event)
    return replace(found, answers=(*found.answers, answer)) if isinstance(answer, Answer) else found


def _said(event: Mapping[str, Any]) -> Said:
    """Who said it; a person, if the event does not tell."""
    source: Literal["human", "model"] = "model" if event.get("by") == "model" else "human"
    return Said(source, event.get("who", ""), event.get("model", ""), event.get("time", ""))


def said_event(said: Said) -> dict[str, str]:
    """Who said something, as an event has it."""
    return {"by": said.source, "who": said.who, "model": said.model, "time": said.time}


def mask_event(mask: Crop, said: Said) -> dict[str, Any]:
    """A mask as an event has it."""
    place = {"x": mask.x, "y": mask.y, "height": mask.height, "width": mask.width}
    return {**place, "counts": mask.counts.decode("ascii"), **said_event(said)}


def mask_of(event: Mapping[str, Any]) -> Crop:
    """The mask of an event."""
    x, y, height, width = (int(event[name]) for name in ("x", "y", "height", "width"))
    return Crop(x, y, height, width, event["counts"].encode("ascii"))
