"""Objects of another tool's file, with which a labelling page begins."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tenfold.data.images import exchange
from tenfold.data.images.exchange import Format
from tenfold.data.images.instance_sets import open_photos
from tenfold.data.images.instances import ObjectSet, Point, Shape
from tenfold.data.io.problems import some
from tenfold.journal import Event

from .answers import Answer, Label
from .labelled import OBJECT, mask_event, said_event
from .labels import CLASS, CLASSES, Labels, subject

LABELS: dict[int, Label] = {1: 1, 0: 0, -1: None}
"""Labels of points -> of answers."""


def take(labels: Labels, images: Path, file: Path, form: Format, grows: bool) -> int:
    """Take a file's objects up; those that were taken before stay as they are by now.

    A person's mask is kept and not asked about. A model's mask is made anew. Objects are known by
    the file's name and their ids in it; an id that is taken already is given anew.

    Args:
        labels: What they are added to.
        images: Folder of the photos.
        file: The file, or folder of files.
        form: Tool that wrote it.
        grows: Add classes that are not known, instead of refusing them.

    Returns:
        Number of objects that are new.

    Raises:
        ValueError: Something in the file does not fit; nothing was added.
        FileNotFoundError: The file is not there and was never taken, or a picture of it is not.
    """
    if not file.exists() and _was_taken(labels, file):
        warnings.warn(
            f"{file} does not exist any more; its objects are as they were taken over before",
            stacklevel=2,
        )
        return 0
    try:
        objects = exchange.read(file, form, open_photos(images))
    except ValueError as error:
        if form != "coco" or not _seems_other(file):
            raise
        others = ", ".join(known for known in exchange.FORMATS if known != form)
        raise ValueError(
            f"{error}; if it is not of COCO's form, say which tool wrote it: --form {others}"
        ) from error
    if objects.notes:  # shapes of kinds that are not read, and the like
        said = [note.removeprefix(f"{file.name}: ") for note in objects.notes]
        warnings.warn(f"{file}: {some(said)}", stacklevel=2)
    used = {objects.classes[s.label] for p in objects.pictures for s in p.shapes}
    strange = sorted(used - set(labels.classes))
    if strange and not grows:
        raise ValueError(
            f"{file} has classes that the model does not know: {', '.join(strange[:5])}; it knows "
            f"{', '.join(labels.classes)}. Rename them."
        )
    with labels.session.lock:
        try:
            events = [*_classes(strange), *_objects(labels, objects, file)]
            labels.session.record_all(events)  # all are looked at before the first is written
        except ValueError as error:
            raise ValueError(f"{file}: {error}; nothing of it was taken over") from error
    return sum(event["kind"] == OBJECT for event in events)


def _classes(names: Sequence[str]) -> Iterator[Event]:
    """Classes that are new."""
    for name in names:
        yield {
            "id": f"import-{hashlib.sha256(name.encode()).hexdigest()[:20]}", "kind": CLASS,
            "subject": CLASSES, "name": name,
        }  # fmt: skip


def _origin(file: Path) -> str:
    """Beginning of the ids of a file's objects."""
    return f"import-{hashlib.sha256(file.resolve().name.encode()).hexdigest()[:10]}-"


def _was_taken(labels: Labels, file: Path) -> bool:
    origin, session = _origin(file), labels.session
    every = (event for subject in session.subjects() for event in session.standing(subject))
    return any(event["id"].startswith(origin) for event in every)


def _objects(labels: Labels, objects: ObjectSet, file: Path) -> Iterator[Event]:
    """Objects that are new, and the answers that points of all are."""
    origin = _origin(file)
    session, taken = labels.session, set(labels.numbers)
    for picture in objects.pictures:
        for shape in picture.shapes:
            identity = f"{origin}{shape.id}"
            if identity in session:
                number = session.event(identity)["annotation"]
            else:
                number = shape.id if shape.id > 0 and shape.id not in taken else 0
                number = number or max(taken, default=0) + 1
                taken.add(number)
                yield {
                    "id": identity, "kind": OBJECT, "subject": subject(number),
                    "annotation": number, "image": picture.name,
                    "size": [picture.height, picture.width],
                    "class": objects.classes[shape.label], **_drawn(shape),
                }  # fmt: skip
            for place, point in enumerate(shape.points):
                yield _said(f"{identity}-{place}", number, point)


def _seems_other(file: Path) -> bool:
    """True if a file cannot be COCO's: it does not end or begin like one."""
    if file.suffix.lower() != ".json" or not file.is_file():
        return True
    with file.open("rb") as opened:
        return not opened.read(1000).lstrip().startswith(b"{")


def _drawn(shape: Shape) -> dict[str, Any]:
    """Box, and a person's mask."""
    found: dict[str, Any] = {"box": list(shape.box), **said_event(shape.said)}
    if shape.mask is not None and shape.mask.area and shape.mask_said.source == "human":
        found["mask"] = mask_event(shape.mask, shape.mask_said)
    return found | {"crowd": True} if shape.is_crowd else found


def _said(identity: str, number: int, point: Point) -> dict[str, Any]:
    """The answer that a point is."""
    said = point.said
    source = point.chosen or "import"
    made = Answer(
        identity, number, point.x, point.y, LABELS[point.label], source, point.seconds,
        said.who, said.model, said.time,
    )  # fmt: skip
    return made.event() | {"subject": subject(number)}
