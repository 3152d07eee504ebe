"""Answers of people to a machine's questions: kept as events, undone, told apart by tab.

Nothing here knows HTTP, nor what is asked about. Every event is of one subject (an object, a
picture); its standing events say how it is, and their number, with those undone, is its revision:
a question that carries the revision it was asked at is known to be answered meanwhile.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime

from tenfold.journal import Event, Journal

UNDO = "undo"
"""Kind of the events that take another one back."""
LEASE = 60.0
"""Seconds for which a subject that was handed to one tab is not handed to another."""
IDENTITY = re.compile(r"[A-Za-z0-9_-]{8,64}")
"""What clients call their events and their tabs: long enough to be drawn at random."""


class Stale(Exception):
    """A question is no longer the one to answer: it was answered, or its subject changed."""


class Session:
    """Events of a journal by subject, safe for the threads of a server.

    An event is an object with an `id`, made by the client and written once; a `kind`; a
    `subject`; and `tab`, if a person did it and may undo it.

    Args:
        journal: Where events are kept; those in it are taken up.
        clock: Seconds, for leases.

    Raises:
        ValueError: An event of the journal has no kind or subject; the error names file and line.
    """

    def __init__(self, journal: Journal, clock: Callable[[], float] = time.monotonic) -> None:
        self.journal = journal
        self.lock = threading.RLock()
        """Held while something is recorded; hold it to read several things as of one moment."""
        self._clock = clock
        self._by_id: dict[str, Event] = {}
        self._standing: dict[str, list[Event]] = {}
        self._revisions: dict[str, int] = {}
        self._undoable: list[str] = []
        self._leases: dict[str, tuple[str, float]] = {}
        self._heard: dict[str, float] = {}
        for number, event in enumerate(journal):
            try:
                self._take(event)
            except (KeyError, TypeError) as error:
                raise ValueError(
                    f"{journal.path}, line {number + 1}: an event lacks {error}, or it is of "
                    "another type; give another --out, or restore the file from a copy"
                ) from error

    # --- events ------------------------------------------------------------------------------

    def record(self, event: Event, expects: int | None = None) -> bool:
        """Keep an event: it is on disk when this returns.

        Args:
            event: With `id`, `kind`, `subject`; the time is added if it has none.
            expects: Revision of the subject that the event answers to.

        Returns:
            False if an event of this id is there already: nothing was done.

        Raises:
            Stale: The subject is at another revision.
            ValueError: The event cannot be kept.
        """
        with self.lock:
            if event["id"] in self._by_id:
                return False
            now = self._revisions.get(event["subject"], 0)
            if expects is not None and expects != now:
                raise Stale(f"{event['subject']} was changed meanwhile; nothing was kept twice")
            dated = _dated(event)
            self.journal.append(dated)
            self._take(dated)
            return True

    def record_all(self, events: Sequence[Event]) -> None:
        """Keep events that no question was asked for; those that are there already are left out.

        Raises:
            ValueError: One of them cannot be kept; none was.
        """
        with self.lock:
            for event in events:
                self.journal.check(_dated(event))
            for event in events:
                self.record(event)

    def undo(self, identity: str, tab: str) -> Event | None:
        """Take back the last event of a tab, or if it has none, of tabs that are closed.

        Returns:
            The event taken back, the same when asked again; None if there is none.
        """
        with self.lock:
            known = self._by_id.get(identity)
            if known is not None:
                return self._by_id.get(str(known.get("of")))
            mine = [i for i in self._undoable if self._by_id[i]["tab"] == tab]
            left = [i for i in self._undoable if not self._is_open(self._by_id[i]["tab"])]
            if not mine and not left:
                return None
            last = self._by_id[(mine or left)[-1]]
            self.record(
                {"id": identity, "kind": UNDO, "subject": last["subject"], "of": last["id"]}
            )
            return last

    def event(self, identity: str) -> Event:
        """Return the event of an id that is there."""
        return self._by_id[identity]

    def __contains__(self, identity: str) -> bool:
        return identity in self._by_id

    def standing(self, subject: str) -> list[Event]:
        """The events of a subject that were not taken back, in their order."""
        return list(self._standing.get(subject, ()))

    def subjects(self) -> Iterator[str]:
        """All subjects, in the order of their first events."""
        return iter(list(self._revisions))

    def revision(self, subject: str) -> int:
        """Number of events that a subject has had, those taken back and their undoing too."""
        return self._revisions.get(subject, 0)

    def _take(self, event: Event) -> None:
        identity, kind, subject = event["id"], event["kind"], event["subject"]
        if not isinstance(subject, str) or not isinstance(kind, str):
            raise TypeError(f"subject or kind as text: {subject!r}, {kind!r}")
        if kind == UNDO:
            of = event["of"]
            self._standing[subject] = [e for e in self._standing[subject] if e["id"] != of]
            if of in self._undoable:
                self._undoable.remove(of)
        else:
            self._standing.setdefault(subject, []).append(event)
            if "tab" in event:
                self._undoable.append(identity)
        self._by_id[identity] = event
        self._revisions[subject] = self._revisions.get(subject, 0) + 1

    # --- tabs --------------------------------------------------------------------------------

    def hear(self, tab: str) -> None:
        """Note that a tab is open."""
        self._heard[tab] = self._clock()

    def hand(self, subject: str, tab: str) -> None:
        """Lease a subject to a tab, which gives up its others."""
        with self.lock:
            self.hear(tab)
            self._leases = {s: lease for s, lease in self._leases.items() if lease[0] != tab}
            self._leases[subject] = (tab, self._clock())

    def is_free(self, subject: str, tab: str) -> bool:
        """True unless another tab, which is open, was handed the subject of late."""
        holder, since = self._leases.get(subject, (tab, 0.0))
        return holder == tab or self._clock() - since > LEASE or not self._is_open(holder)

    def _is_open(self, tab: str) -> bool:
        return self._clock() - self._heard.get(tab, -LEASE) < LEASE


def _dated(event: Event) -> Event:
    """An event with the time, if it has none."""
    return {"time": datetime.now(UTC).isoformat(timespec="milliseconds")} | event


def identity(text: str, what: str) -> str:
    """Return a client's name of an event or a tab; ValueError if it is none."""
    if not IDENTITY.fullmatch(text):
        raise ValueError(f"{what} must be 8 to 64 letters, digits, - or _, got {text[:80]!r}")
    return text
