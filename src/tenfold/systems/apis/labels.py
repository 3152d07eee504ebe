"""Boxes, classes and answers of a folder of photos: what people said, kept as events."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tenfold.data.images.album import Album
from tenfold.journal import Journal
from tenfold.web.session import Session, Stale, identity

from .answers import ANSWER, Label
from .labelled import CHANGE, OBJECT, REMOVE, Known, known

CLASS, MODEL = "class", "model"
"""Kinds of events that are not about objects."""
CLASSES, MODELS = "classes", "models"
"""Their subjects."""
LONGEST_NAME = 60
"""Characters of a class."""
SAME = 0.6
"""Overlap from which a suggested box is an object that is there already."""
LONGEST_ANSWER = 600.0
"""Seconds; who takes longer was elsewhere."""


class Labels:
    """The objects that people drew and answered about.

    Every method that keeps something takes the client's id of it, and does nothing if it was kept
    before. What is returned is on disk.

    Args:
        file: The log.
        album: The photos.
        own_classes: Classes that there are before people add any.
        who: Name under which things are kept.
    """

    def __init__(self, file: Path, album: Album, own_classes: Sequence[str], who: str = "") -> None:
        self._journal = Journal(file)
        self.session = Session(self._journal)
        self._album, self._who = album, who
        self.own_classes = list(own_classes)
        self._objects: dict[int, tuple[int, Known | None]] = {}

    def close(self) -> None:
        """Let another process write."""
        self._journal.close()

    # --- what there is -------------------------------------------------------------------------

    @property
    def classes(self) -> list[str]:
        """The classes, those that people added at the end."""
        return [*self.own_classes, *(e["name"] for e in self.session.standing(CLASSES))]

    @property
    def numbers(self) -> list[int]:
        """Numbers of all objects that there ever were."""
        subjects = (s for s in self.session.subjects() if s.startswith(OBJECT + " "))
        return [number_of(subject) for subject in subjects]

    @property
    def objects(self) -> list[Known]:
        """The objects that were not removed, by number."""
        with self.session.lock:
            every = [self.object(number) for number in sorted(self.numbers)]
        return [one for one in every if one is not None]

    def object(self, number: int) -> Known | None:
        """An object; None if it was removed, or never there."""
        with self.session.lock:
            revision = self.revision(number)
            if self._objects.get(number, (-1, None))[0] != revision:
                found = known(self.session.standing(subject(number)))
                self._objects[number] = (revision, found)
            found = self._objects[number][1]
        return None if found is None or found.is_removed else found

    def there(self, number: int) -> Known:
        """An object; Stale if it is not there any more."""
        found = self.object(number)
        if found is None:
            raise Stale(f"object {number} is not there any more")
        return found

    def revision(self, number: int) -> int:
        """Number of events that an object has had."""
        return self.session.revision(subject(number))

    @property
    def models(self) -> list[dict[str, Any]]:
        """What was trained on the answers: AP, where it was measured, and answers until then."""
        return self.session.standing(MODELS)

    def version(self) -> str:
        """Name of the model that answers now."""
        return f"model {len(self.models)}"

    def counts(self) -> dict[str, Any]:
        """Numbers of what was done, and the median of seconds an answer."""
        every = self.objects
        answers = [answer for one in every for answer in one.answers]
        labels = [answer.label for answer in answers]
        times = [answer.seconds for answer in answers if answer.seconds > 0]
        return {
            "objects": len(every),
            "answers": len(labels),
            "yes": labels.count(1),
            "no": labels.count(0),
            "unsure": labels.count(None),
            "skipped": labels.count("skip"),
            "seconds": round(statistics.median(times), 2) if times else None,
        }

    # --- what is kept --------------------------------------------------------------------------

    def answer(
        self, id: str, tab: str, number: int, pixel: tuple[int, int], label: Label,
        seconds: float, source: str, expects: int | None,
    ) -> None:  # fmt: skip
        """Keep what was said about a pixel.

        Raises:
            Stale: The object is gone, or not at the revision that the question was asked at.
            ValueError: The pixel is not in its box, or it has a mask that a person made.
        """
        if identity(id, "id") in self.session:
            return
        one = self.there(number)
        x0, y0, x1, y1 = one.pixels
        if not (x0 <= pixel[0] < x1 and y0 <= pixel[1] < y1):
            raise ValueError(
                f"pixel {pixel[0]}, {pixel[1]} is not in the box of object {number}, "
                f"{x0}, {y0} to {x1 - 1}, {y1 - 1}"
            )
        if one.mask is not None:
            raise ValueError(f"object {number} has a mask that a person made; it stays as it is")
        if not 0 <= seconds < float("inf"):
            raise ValueError(f"seconds must be 0 or more, got {seconds}")
        said = {
            "annotation": number, "x": pixel[0], "y": pixel[1], "label": label, "source": source,
            "seconds": round(min(float(seconds), LONGEST_ANSWER), 3), "model": self.version(),
            "round": len(self.models),
        }  # fmt: skip
        self._keep(id, tab, ANSWER, number, said, expects)

    def draw(self, id: str, tab: str, image: int, box: Sequence[float], name: str) -> int:
        """Keep a box; returns the object's number.

        Raises:
            ValueError: The box has no pixel in the picture, or there is no such class.
        """
        with self.session.lock:
            if identity(id, "id") in self.session:
                standing = (n for n in self.numbers if self._has(n, id))
                return next(standing, 0)
            height, width = self._album.picture(image).shape[:2]
            number = max(self.numbers, default=0) + 1
            drawn = {
                "annotation": number, "image": self._album.names[image], "size": [height, width],
                "class": self._class(name), "box": cut_box(box, height, width),
            }  # fmt: skip
            self._keep(id, tab, OBJECT, number, drawn)
            return number

    def change(self, id: str, tab: str, number: int, name: str) -> None:
        """Give an object another class."""
        self.there(number)
        self._keep(id, tab, CHANGE, number, {"class": self._class(name)})

    def move(self, id: str, tab: str, number: int, box: Sequence[float]) -> None:
        """Give an object another box.

        Raises:
            Stale: The object is gone.
            ValueError: The box has no pixel in the picture, or the mask that it lies around is a
                person's.
        """
        if identity(id, "id") in self.session:
            return
        one = self.there(number)
        if one.mask is not None:
            raise ValueError(
                f"object {number} has a mask that a person made, and its box is that of the mask"
            )
        self._keep(id, tab, CHANGE, number, {"box": cut_box(box, *one.size)})

    def suggest(
        self, id: str, image: int, tab: str, boxes: Sequence[tuple[Sequence[float], str]]
    ) -> list[int]:
        """Keep boxes that a model found, as its own; returns the numbers of those that are new.

        A box that lies on an object's, or is less than a pixel wide, is left out.
        """
        with self.session.lock:
            name, (height, width) = self._album.names[image], self._album.picture(image).shape[:2]
            there = [one.box for one in self.objects if one.image == name]
            made = []
            for place, (given, label) in enumerate(boxes):
                own = f"{identity(id, 'id')[:60]}-{place}"
                try:
                    box = cut_box(given, height, width)
                except ValueError:  # a box that nobody could have drawn; the others are kept
                    continue
                if own in self.session or any(overlap(box, other) > SAME for other in there):
                    continue
                number = max(self.numbers, default=0) + 1
                drawn = {
                    "annotation": number, "image": name, "size": [height, width],
                    "class": self._class(label), "box": box, "by": "model",
                    "model": self.version(),
                }  # fmt: skip
                self._keep(own, tab, OBJECT, number, drawn)
                there.append((box[0], box[1], box[2], box[3]))
                made.append(number)
            return made

    def remove(self, id: str, tab: str, number: int) -> None:
        """Take an object out; what was said about it stays in the log."""
        if identity(id, "id") not in self.session:
            self.there(number)
        self._keep(id, tab, REMOVE, number, {})

    def add_class(self, id: str, name: str) -> None:
        """Add a class, unless there is one of this name."""
        name = " ".join(name.split())
        if not 0 < len(name) <= LONGEST_NAME or not name.isprintable():
            raise ValueError(f"a class is 1 to {LONGEST_NAME} printable characters")
        with self.session.lock:
            if name not in self.classes:
                event = {"id": identity(id, "id"), "kind": CLASS, "subject": CLASSES, "name": name}
                self.session.record(event)

    def add_model(self, id: str, ap: float | None, before: float | None = None) -> None:
        """Note that a model was trained on the answers so far, its AP, and that of the first."""
        self.session.record({
            "id": id, "kind": MODEL, "subject": MODELS, "ap": ap, "before": before,
            "answers": self.counts()["answers"],
        })  # fmt: skip

    def undo(self, id: str, tab: str) -> tuple[int, str] | None:
        """Take back the last thing that was done in a tab: the object, and words about it."""
        event = self.session.undo(identity(id, "id"), identity(tab, "tab"))
        if event is None:
            return None
        number = number_of(event["subject"])
        what = {ANSWER: "an answer about", OBJECT: "the box of", REMOVE: "the removal of",
                CHANGE: "a change of"}[event["kind"]]  # fmt: skip
        return number, f"{what} object {number}"

    def _keep(
        self, id: str, tab: str, kind: str, number: int, more: dict[str, Any],
        expects: int | None = None,
    ) -> None:  # fmt: skip
        own = {"id": identity(id, "id"), "kind": kind, "subject": subject(number),
               "tab": identity(tab, "tab"), "who": self._who}  # fmt: skip
        self.session.record(own | more, expects)

    def _has(self, number: int, id: str) -> bool:
        return any(event["id"] == id for event in self.session.standing(subject(number)))

    def _class(self, name: str) -> str:
        if name not in self.classes:
            raise ValueError(
                f"there is no class {name[:LONGEST_NAME]!r}; there are {', '.join(self.classes)}"
            )
        return name


def subject(number: int) -> str:
    """The subject of an object's events."""
    return f"{OBJECT} {number}"


def number_of(subject: str) -> int:
    """The object of a subject."""
    return int(subject[len(OBJECT) + 1 :])


def overlap(one: Sequence[float], other: Sequence[float]) -> float:
    """Intersection of two boxes over their union."""
    sides = [min(one[i + 2], other[i + 2]) - max(one[i], other[i]) for i in (0, 1)]
    shared = max(sides[0], 0.0) * max(sides[1], 0.0)
    areas = ((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return shared / (sum(areas) - shared)


def cut_box(box: Sequence[float], height: int, width: int) -> list[float]:
    """A box cut at the picture's borders; ValueError if nothing is left of it."""
    if len(box) != 4 or not all(abs(value) < 1e9 for value in box):
        raise ValueError(f"a box is four numbers x0, y0, x1, y1, got {str(list(box))[:80]}")
    x0, x1 = (min(max(float(value), 0.0), float(width)) for value in box[0::2])
    y0, y1 = (min(max(float(value), 0.0), float(height)) for value in box[1::2])
    if x1 - x0 < 1 or y1 - y0 < 1:
        raise ValueError(
            f"box {[round(float(v), 1) for v in box]} has no pixel in a picture of {width} x "
            f"{height}; draw one from left above to right below"
        )
    return [x0, y0, x1, y1]
