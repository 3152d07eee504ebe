"""The labelling page of APIS: which pixel is asked about next, and the mask that answers make."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from secrets import token_hex
from typing import Any

from tenfold.data.images.album import Album
from tenfold.data.images.crops import Crop
from tenfold.data.images.instances import ObjectSet
from tenfold.files import NUMBER
from tenfold.web.jobs import Job, Report
from tenfold.web.pages import Call, Media
from tenfold.web.session import identity

from .answers import FREE_CLICK, Label
from .config import PageOptions
from .exports import TITLES, exported, object_set
from .imports import take
from .labelled import Known
from .labels import Labels, subject
from .looking import Looking, Seen, Segmenter
from .shown import chip, curve, shown
from .studio import Studio

LABELS: dict[str, Label] = {"yes": 1, "no": 0, "unsure": None, "skip": "skip"}
"""Words of the page -> labels of answers."""
STRIP = 12
"""Objects that are shown as next."""


@dataclass(frozen=True)
class Trained:
    """Result of training on the answers."""

    segmenter: Segmenter
    ap: float | None = None
    """Mask AP of a validation set, 0 to 100, where there is one."""
    before: float | None = None
    """That of the network before its first training."""


Trainer = Callable[["Labelling", Report], Trained]
"""Trains on the objects of a page."""


class Labelling:
    """Questions about the objects of a folder of photos.

    Args:
        segmenter: Makes the masks.
        images: Folder of the photos.
        folder: Where the log of answers is kept, and what training writes.
        options: Choices.
        train: Trains on the answers; None where that cannot be.

    Raises:
        FileNotFoundError: The folder of photos is not there.
        ValueError: The photos or the log cannot be used.
    """

    page = "apis"

    def __init__(
        self, segmenter: Segmenter, images: Path, folder: Path, options: PageOptions,
        train: Trainer | None = None,
    ) -> None:  # fmt: skip
        self.album = Album(images, aside=folder)
        self.folder, self.options = folder, options
        self.labels = Labels(folder / "answers.jsonl", self.album, segmenter.classes, options.who)
        try:
            if options.boxes:
                take(self.labels, images, Path(options.boxes), options.form, _grows(segmenter))
        except BaseException:
            self.labels.close()
            raise
        self.job = Job()
        self._looking = Looking(segmenter, self.album, options.strategy, options.opened)
        self._train = train
        self._asked = time.monotonic()
        self._closed = threading.Event()
        self._ahead = threading.Thread(target=self._look_ahead, daemon=True)
        mine: dict[str, Any] = {"id": str, "tab": str}
        here: dict[str, Any] = {"image": int}
        said: dict[str, Any] = {"label": str, "seconds": NUMBER}
        self.queries: Mapping[str, Call] = {
            "state": Call(self.state),
            "objects": Call(self.objects_of, {"image": int}),
            "job": Call(lambda: {"job": self.job.progress}),
        }
        self.commands: Mapping[str, Call] = {
            "next": Call(self.next, {"tab": str}, {"id": str, "object": int, **here}),
            "answer": Call(self.answer, {**mine, "question": str, **said}, here),
            "click": Call(self.click, {**mine, "object": int, "x": int, "y": int, **said}, here),
            "object": Call(self.draw, {**mine, **here, "box": [NUMBER], "class": str}),
            "suggest": Call(self.suggest, {**mine, **here}),
            "change": Call(
                self.change, {**mine, "object": int}, {"class": str, "box": [NUMBER], **here}
            ),
            "remove": Call(self.remove, {**mine, "object": int}, here),
            "class": Call(self.add_class, {**mine, "name": str}),
            "undo": Call(self.undo, mine, here),
            "train": Call(self.train, {}, mine),
            "stop": Call(self.stop, {}, mine),
        }
        if options.ahead:
            self._ahead.start()

    def close(self) -> None:
        """End what runs beside, and let another process write."""
        self._closed.set()
        if self._ahead.is_alive():
            self._ahead.join()  # a process that ends in the midst of its products aborts
        self.job.stop()
        self.job.join(5)
        self.labels.close()

    # --- what there is -------------------------------------------------------------------------

    @property
    def segmenter(self) -> Segmenter:
        """The network that makes the masks now."""
        return self._looking.segmenter

    def version(self) -> str:
        """Name of the model that answers now."""
        return self.labels.version()

    def state(self) -> dict[str, Any]:
        """What a page needs once."""
        first = next((self.album.number(one.image) for one in self.labels.objects), 0)
        return {
            "folder": self.album.folder.name,
            "images": list(self.album.names),
            "first": first or 0,
            "classes": self.labels.classes,
            "can_add": self._can_add,
            "can_train": self._train is not None,
            "can_suggest": bool(getattr(self.segmenter, "finds", False)),
            "forms": [{"name": form, "title": title} for form, title in TITLES.items()],
        }

    @property
    def _can_add(self) -> bool:
        return _grows(self.segmenter)

    def objects_of(self, image: int) -> dict[str, Any]:
        """The objects of a picture, with the masks that are known."""
        name = self._name(image)
        return {"objects": [self._shown(one) for one in self.labels.objects if one.image == name]}

    def image(self, index: int) -> Media:
        """Return a picture for a browser."""
        content, kind = self.album.encoded(index)
        return Media(content, kind)

    def objects(self) -> ObjectSet:
        """All objects, with the masks of people, and for the others those of the network."""
        return object_set(self._masked(), self.labels.classes, self.album, self.version())

    def export(self, form: str) -> Media:
        """Return all objects in another tool's form."""
        aside = sum(len(one.answers) - len(one.inside) for one in self.labels.objects)
        media = exported(self.objects(), form)
        note = f"{aside} answers lie outside of boxes that were changed: left out"
        return replace(media, notes=(*media.notes, note)) if aside else media

    def predict(
        self, tasks: list[Any], context: Mapping[str, Any], config: str
    ) -> list[dict[str, Any]]:
        """Return a prediction for each task of Label Studio."""
        studio = Studio(
            self.album, self._looking, self.labels.classes, self._masked, self.version()
        )
        return studio.predictions(tasks, context, config)

    def _masked(self, image: str = "") -> list[tuple[Known, Crop | None]]:
        every = (one for one in self.labels.objects if image in ("", one.image))
        return [
            (one, None if one.mask is not None or one.is_crowd else self._look(one).mask)
            for one in every
        ]

    def progress(self) -> dict[str, Any]:
        """What was done so far, and the curve of AP where it was measured."""
        return {
            **self.labels.counts(),
            "model": self.version(),
            "curve": curve(self.labels.models),
            "job": self.job.progress,
        }

    def _name(self, image: int) -> str:
        if not 0 <= image < len(self.album):
            raise LookupError(f"there is no picture {image}; there are {len(self.album)}")
        return self.album.names[image]

    # --- questions and answers -----------------------------------------------------------------

    def next(
        self, tab: str, image: int | None = None, object: int = 0, id: str = ""
    ) -> dict[str, Any]:
        """The next question for a tab: about an object if one is named, else the one in turn."""
        identity(tab, "tab")
        if object:
            self.labels.there(object)
        return self._question(tab, image, object)

    def answer(
        self, id: str, tab: str, question: str, label: str, seconds: float,
        image: int | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """Keep the answer to a question, and ask the next one."""
        number, revision, x, y = _parsed(question)
        seen = self._looking.known(number)
        is_same = seen is not None and (seen.revision, seen.point) == (revision, (x, y))
        source = seen.source if seen is not None and is_same else self.options.strategy
        self.labels.answer(id, tab, number, (x, y), _label(label), float(seconds), source, revision)
        return self._after(tab, number)

    def click(
        self, id: str, tab: str, object: int, x: int, y: int, label: str, seconds: float,
        image: int | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """Keep a pixel that a person chose."""
        said = _label(label)
        self.labels.answer(id, tab, object, (x, y), said, float(seconds), FREE_CLICK, None)
        return self._after(tab, object, again=True)

    def draw(self, id: str, tab: str, image: int, box: list[float], **more: str) -> dict[str, Any]:
        """Keep a box."""
        self._name(image)
        number = self.labels.draw(id, tab, image, box, more["class"])
        return self._after(tab, number, again=True)

    def change(
        self, id: str, tab: str, object: int, image: int | None = None,
        box: list[float] | None = None, **more: str,
    ) -> dict[str, Any]:  # fmt: skip
        """Give an object another class, or another box."""
        if (box is None) == ("class" not in more):
            raise ValueError("a change is of the class or of the box: give one of them")
        if box is None:
            self.labels.change(id, tab, object, more["class"])
        else:
            self.labels.move(id, tab, object, box)
        return self._after(tab, object, again=True)

    def suggest(self, id: str, tab: str, image: int) -> dict[str, Any]:
        """Keep the boxes that the network finds in a picture, those of objects there left out."""
        every, classes = self._looking.proposed(self._name(image)), self.segmenter.classes
        found = [(box, classes[label]) for box, label, _ in every]
        made = self.labels.suggest(id, image, tab, found)
        return {**self.objects_of(image), "made": len(made)} | self._question(tab, image)

    def remove(self, id: str, tab: str, object: int, image: int | None = None) -> dict[str, Any]:
        """Take an object out."""
        self.labels.remove(id, tab, object)
        return self._after(tab, object)

    def undo(self, id: str, tab: str, image: int | None = None) -> dict[str, Any]:
        """Take back the last thing that was done in this tab, and ask about its object again."""
        found = self.labels.undo(id, tab)
        if found is None:
            return {"object": None, "undone": ""} | self._question(tab, image)
        number, words = found
        after = self._after(tab, number, image, again=True)
        return after | {"undone": words}

    def add_class(self, id: str, tab: str, name: str) -> dict[str, Any]:
        """Add a class, where the network takes any."""
        if not self._can_add:
            known = ", ".join(self.labels.own_classes)
            raise ValueError(f"this model knows its own classes only: {known}")
        self.labels.add_class(id, name)
        return {"classes": self.labels.classes}

    def _after(
        self, tab: str, number: int, image: int | None = None, again: bool = False
    ) -> dict[str, Any]:
        """An object as it is now, and the next question, about it `again` if it can be asked."""
        one = self.labels.object(number)
        if one is None:
            events = self.labels.session.standing(subject(number))
            # where its box was taken back, answers of others may be all that is left
            place = next((self.album.number(e["image"]) for e in events if "image" in e), image)
            shown: dict[str, Any] = {"id": number, "removed": True, "image": place}
            return {"object": shown} | self._question(tab, place)
        shown = self._shown(one, self._look(one))
        return {"object": shown} | self._question(tab, shown["image"], number if again else 0)

    # --- turns ---------------------------------------------------------------------------------

    def _question(self, tab: str, image: int | None, wanted: int = 0) -> dict[str, Any]:
        session = self.labels.session
        session.hear(tab)
        order = self._in_turn(image)

        def is_held(one: Known) -> bool:  # by another tab; asked about if there is nothing else
            return one.id != wanted and not session.is_free(subject(one.id), tab)

        question, why = None, "Draw a box around an object; then there is something to ask."
        for one in sorted(order, key=lambda one: (one.id != wanted, is_held(one))):
            seen = self._look(one)
            if seen.point is None:
                why = seen.problem or "Every pixel of every box has been asked about."
                continue
            session.hand(subject(one.id), tab)
            question = {
                "id": f"{one.id}.{seen.revision}.{seen.point[0]}.{seen.point[1]}",
                "object": self._shown(one, seen),
                "point": list(seen.point),
                "score": round(seen.score, 4),
                "strategy": seen.source,
            }
            break
        self._asked = time.monotonic()
        strip = [chip(one, self._looking.known(one.id)) for one in order[:STRIP]]
        return {"question": question, "why": why, "strip": strip, "progress": self.progress()}

    def _in_turn(self, image: int | None) -> list[Known]:
        """The objects that can be asked about, the next one first.

        Those with the fewest visits of late; of these those of this picture; the one that a visit
        has begun with; the most uncertain. So questions are spread over objects, an answer is seen
        in the mask before another object is asked about, and pictures are changed seldom.
        """
        here = "" if image is None else self._name(image)

        def turn(one: Known) -> tuple[Any, ...]:
            visits, begun = divmod(self._asked_about(one), self.options.visit)
            seen = self._looking.known(one.id)
            return visits, one.image != here, not begun, -(1.0 if seen is None else seen.unsure)

        every = self.labels.objects
        asked = (one for one in every if one.mask is None and not one.is_crowd)
        return sorted((o for o in asked if self.album.number(o.image) is not None), key=turn)

    def _asked_about(self, one: Known) -> int:
        """Questions about an object since the model was trained; a skip ends a visit."""
        done, visit, now = 0, self.options.visit, len(self.labels.models)
        for answer in one.answers:
            if answer.round == now:
                done += visit - done % visit if answer.label == "skip" else 1
        return done

    def _look(self, one: Known) -> Seen:
        label = self.labels.classes.index(one.name)
        return self._looking.look(one, self.labels.revision(one.id), label)

    def _look_ahead(self) -> None:
        """Look at objects in turn while nobody asks."""
        self._looking.warm_up()
        while not self._closed.wait(0.2):
            if time.monotonic() - self._asked > 0.5:
                fresh = (one for one in self._in_turn(None) if not self._is_seen(one))
                for one in islice(fresh, 1):
                    self._look(one)

    def _is_seen(self, one: Known) -> bool:
        seen = self._looking.known(one.id)
        return seen is not None and seen.revision == self.labels.revision(one.id)

    # --- training ------------------------------------------------------------------------------

    def train(self, id: str = "", tab: str = "") -> dict[str, Any]:
        """Begin to train on the answers."""
        train = self._train
        if train is None:
            raise ValueError("this model is not trained here")

        def work(report: Report) -> str:
            trained = train(self, report)
            self._looking.change(trained.segmenter)
            self.labels.add_model(token_hex(16), trained.ap, trained.before)
            return f"{self.version()} answers now"

        self.job.start(work)
        return {"job": self.job.progress}

    def stop(self, id: str = "", tab: str = "") -> dict[str, Any]:
        """Ask the training to end; the model stays as it was."""
        self.job.stop()
        return {"job": self.job.progress}

    def _shown(self, one: Known, seen: Seen | None = None) -> dict[str, Any]:
        return shown(one, seen or self._looking.known(one.id), self.album.number(one.image))


def _grows(segmenter: Segmenter) -> bool:
    return bool(getattr(segmenter, "grows", False))


def _label(word: str) -> Label:
    if word not in LABELS:
        raise ValueError(f"label must be one of {', '.join(LABELS)}, got {word[:40]!r}")
    return LABELS[word]


def _parsed(question: str) -> tuple[int, int, int, int]:
    """Object, revision, x and y of a question's id."""
    parts = question.split(".")
    if len(parts) != 4 or not all(p.isascii() and p.isdecimal() and len(p) < 10 for p in parts):
        raise ValueError(f"{question[:60]!r} is no question of this page")
    number, revision, x, y = (int(part) for part in parts)
    return number, revision, x, y
