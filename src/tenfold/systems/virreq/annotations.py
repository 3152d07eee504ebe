"""What people say about the pictures of a folder, and what networks answered: kept as events."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from tenfold.data.images.album import Album
from tenfold.data.images.decode import MAX_PIXELS
from tenfold.journal import Event, Journal
from tenfold.web.session import Session, Stale, identity

from .annotated import ABSENT, FINISH, FOUND, WRONG, Annotated, Answer, annotated, event_of
from .knowledge import KnowledgeBase
from .levels import level_of

CONCEPT, SYNONYM = "concept", "synonym"
"""Kinds of events that change the knowledge base."""
KNOWLEDGE, PICTURE = "knowledge", "picture"
"""Subjects; that of a picture has its name behind."""
LINE = 64 * 2**20
"""Bytes of an event: the masks of a division of a large picture into many concepts."""
FILE = "knowledge.json"
"""The knowledge base with what was added on the page, written anew with each change."""


class Annotations:
    """Trees of pictures, and the knowledge base that grows while they are made.

    Every method that keeps something takes the client's id of it, and does nothing if it was kept
    before. What is returned is on disk.

    Args:
        folder: Where the log and the grown knowledge base are.
        album: The photos.
        base: Knowledge base to begin with; its file is never written to.
        who: Name under which things are kept.

    Raises:
        ValueError: The log is another process's or cannot be read, or the folder has a knowledge
            base and no log, so that it is not of this page.
    """

    def __init__(self, folder: Path, album: Album, base: KnowledgeBase, who: str = "") -> None:
        self.file = folder / FILE
        log = folder / "requests.jsonl"
        if self.file.exists() and not log.exists():
            raise ValueError(
                f"{self.file} is not of this page, and would be written over; give another --out, "
                f"and --knowledge {self.file} to begin with it"
            )
        self._journal = Journal(log, LINE)
        try:
            self.session = Session(self._journal)
            for name in self._names():
                _require_inside(name, log)
            self.base, self._album, self._who = base, album, who
            self._grown: tuple[int, KnowledgeBase] = (-1, base)
            self._pictures: dict[str, tuple[tuple[int, int], Annotated]] = {}
            self.kb.write(self.file)
        except BaseException:
            self._journal.close()
            raise

    def close(self) -> None:
        """Let another process write."""
        self._journal.close()

    # --- what there is -------------------------------------------------------------------------

    @property
    def kb(self) -> KnowledgeBase:
        """The knowledge base with what was added."""
        with self.session.lock:
            revision = self.session.revision(KNOWLEDGE)
            if self._grown[0] != revision:
                kb = self.base
                for event in self.session.standing(KNOWLEDGE):
                    try:
                        kb = grown(kb, event)
                    except ValueError:  # what it hangs on was taken back
                        continue
                    except (KeyError, TypeError, AttributeError) as error:
                        raise ValueError(
                            f"event {str(event.get('id'))[:64]!r} of the log lacks {error}, or it "
                            "is of another type; restore the log from a copy"
                        ) from error
                self._grown = (revision, kb)
            return self._grown[1]

    def revision(self, name: str) -> int:
        """Number of events that a picture has had."""
        return self.session.revision(subject(name))

    def picture(self, name: str) -> Annotated:
        """A picture as it is now.

        Raises:
            FileNotFoundError: Nothing was kept of it, and it is not in the folder.
            ValueError: It cannot be decoded, or is not of the size that it had.
        """
        with self.session.lock:
            key = (self.revision(name), self.session.revision(KNOWLEDGE))
            if self._pictures.get(name, ((-1, -1), None))[0] != key:
                events = self.session.standing(subject(name))
                size = _size(events[0]) if events else self._size_of(name)
                found = annotated(events, self.kb, name, size, FILE)
                self._pictures[name] = (key, found)
            return self._pictures[name][1]

    def with_answers(self, name: str, answers: Sequence[Answer]) -> Annotated:
        """A picture as it would be with these answers; nothing is kept."""
        with self.session.lock:
            events = self.session.standing(subject(name))
            size = self.picture(name).tree.size
            more = {"kind": FOUND, **event_of(answers)}
            return annotated([*events, more], self.kb, name, size, FILE)

    def begun(self) -> list[str]:
        """Names of the pictures of which something is kept, in the album's order."""
        names = [name for name in self._names() if self.session.standing(subject(name))]
        gone = len(self._album)
        order = {name: self._album.number(name) for name in names}

        def place(name: str) -> tuple[int, str]:
            number = order[name]
            return gone if number is None else number, name

        return sorted(names, key=place)

    def _names(self) -> list[str]:
        """Names of all pictures of which anything was ever kept."""
        return [name_of(s) for s in self.session.subjects() if s.startswith(f"{PICTURE} ")]

    def _size_of(self, name: str) -> tuple[int, int]:
        number = self._album.number(name)
        if number is None:
            raise FileNotFoundError(f"{name} is not in the folder")
        height, width = self._album.picture(number).shape[:2]
        return height, width

    # --- what is kept --------------------------------------------------------------------------

    def found(
        self, id: str, tab: str, name: str, answers: Sequence[Answer], expects: int | None
    ) -> None:
        """Keep what a network answered."""
        self._keep(id, tab, FOUND, name, event_of(answers), expects)

    def wrong(self, id: str, tab: str, name: str, unit: int, expects: int | None) -> None:
        """Take a unit out, with all that it was divided into."""
        self._keep(id, tab, WRONG, name, {"unit": unit}, expects)

    def absent(
        self, id: str, tab: str, name: str, unit: int, concept: str, expects: int | None
    ) -> None:
        """Keep that a concept is not there in a unit."""
        self._keep(id, tab, ABSENT, name, {"unit": unit, "name": concept}, expects)

    def finish(self, id: str, tab: str, name: str, unit: int, expects: int | None) -> None:
        """Keep that a person stops at a unit: what is not there of its concepts is not there.

        Of units of which nothing was asked or said, itself or below it, that says nothing: they
        stay not annotated, and the level that was reached is kept.
        """
        now = self.picture(name)
        is_begun, is_region = now.is_begun(unit), now.is_region(unit)
        names = [node.name for node in now.concepts(unit, self.kb)]
        said = {
            "unit": unit,
            "names": names if is_begun and not is_region else [],
            "told": is_begun and is_region,
            "level": max(level_of(now.tree, one) for one in now.below(unit)),
        }
        self._keep(id, tab, FINISH, name, said, expects)

    def add(self, id: str, tab: str, said: Event) -> None:
        """Keep a change of the knowledge base, and write it.

        Raises:
            ValueError: It cannot be changed so.
        """
        if identity(id, "id") in self.session:
            return
        with self.session.lock:
            grown(self.kb, said)
            own = {"id": id, "subject": KNOWLEDGE, "tab": identity(tab, "tab"), "who": self._who}
            self.session.record(own | said)
            self.kb.write(self.file)

    def undo(self, id: str, tab: str) -> Event | None:
        """Take back the last thing that was done in a tab; returns its event."""
        event = self.session.undo(identity(id, "id"), identity(tab, "tab"))
        if event is not None and event["subject"] == KNOWLEDGE:
            self.kb.write(self.file)
        return event

    def _keep(
        self, id: str, tab: str, kind: str, name: str, more: dict[str, Any], expects: int | None
    ) -> None:
        if identity(id, "id") in self.session:
            return
        height, width = self.picture(name).tree.size
        own = {"id": id, "kind": kind, "subject": subject(name), "tab": identity(tab, "tab"),
               "who": self._who, "size": [height, width]}  # fmt: skip
        self.session.record(own | more, expects)

    def require(self, name: str, expects: int) -> None:
        """Raise Stale unless a picture is at a revision."""
        if self.revision(name) != expects:
            raise Stale(f"{name} was changed meanwhile; nothing was kept twice")


def grown(kb: KnowledgeBase, event: Event) -> KnowledgeBase:
    """A knowledge base with a concept or a synonym more; `path` names what it is below, or of.

    Raises:
        ValueError: The path leads nowhere, or the name is taken there.
    """
    node = kb.at(event["path"])
    if event["kind"] == CONCEPT:
        return kb.add(event["name"], node.id, event["synonyms"], event["thing"])
    if node.id == kb.root.id:
        raise ValueError(f"{node.name!r} is the whole picture, which is asked for by no word")
    if event["name"].casefold() in map(str.casefold, node.texts):
        raise ValueError(f"{node.name!r} has the word {event['name']!r} already")
    return kb.rename(node.id, synonyms=(*node.synonyms, event["name"]))


def subject(name: str) -> str:
    """The subject of a picture's events."""
    return f"{PICTURE} {name}"


def name_of(subject: str) -> str:
    """The picture of a subject."""
    return subject[len(PICTURE) + 1 :]


def _size(event: Event) -> tuple[int, int]:
    size: Any = event.get("size")
    is_size = isinstance(size, list) and [type(side) for side in size] == [int, int]
    if not is_size or min(size) < 1 or size[0] * size[1] > MAX_PIXELS:
        raise ValueError(
            f"event {str(event.get('id'))[:64]!r} of the log has the size {str(size)[:40]}, no "
            f"picture's of 1 to {MAX_PIXELS} pixels; restore the log from a copy"
        )
    return size[0], size[1]


def _require_inside(name: str, log: Path) -> None:
    """Refuse names that lead out of a folder: exports are written by them."""
    path = PurePosixPath(name)
    if not path.name or path.is_absolute() or ".." in path.parts or "\0" in name:
        raise ValueError(
            f"{log}: {name[:80]!r} is no picture below a folder; restore the log from a copy"
        )
