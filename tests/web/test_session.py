"""Events of people: kept once, undone by tab, handed to one tab at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tenfold.journal import Journal, events
from tenfold.web.jobs import Job, Report
from tenfold.web.session import LEASE, Session, Stale, identity

ONE, OTHER = "tab-one-1", "tab-other"


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Journal]:
    with Journal(tmp_path / "log") as journal:
        yield journal


def event(name: str, subject: str = "s", tab: str = ONE) -> dict[str, Any]:
    return {"id": f"event-{name}", "kind": "answer", "subject": subject, "tab": tab, "name": name}


def names(session: Session, subject: str = "s") -> list[str]:
    return [e["name"] for e in session.standing(subject)]


def test_an_event_is_kept_once_and_again_after_opening(log: Journal) -> None:
    session = Session(log)
    assert session.record(event("a")) and not session.record(event("a"))
    assert session.record(event("b", "t"))
    again = Session(log)
    assert names(again) == ["a"] and list(again.subjects()) == ["s", "t"]
    assert again.revision("s") == 1 and "event-a" in again
    assert all(e["time"].startswith("20") for e in events(log.path))


def test_of_many_events_all_are_kept_or_none(log: Journal) -> None:
    session = Session(log)
    session.record(event("a"))
    with pytest.raises(ValueError, match="at most"):
        session.record_all([event("b"), event("c") | {"mask": "0" * log.limit}])
    assert names(session) == ["a"] and len(log) == 1
    session.record_all([event("a"), event("b")])
    assert names(session) == ["a", "b"] and len(log) == 2


def test_an_answer_to_an_older_question_is_reported_and_not_kept(log: Journal) -> None:
    session = Session(log)
    session.record(event("a"), expects=0)
    with pytest.raises(Stale, match="s was changed meanwhile"):
        session.record(event("b", tab=OTHER), expects=0)
    assert not session.record(event("a"), expects=0)  # the same again is no conflict
    assert names(session) == ["a"] and len(log) == 1


def test_undo_is_of_the_own_tab_until_others_are_closed(log: Journal) -> None:
    now = [0.0]
    session = Session(log, clock=lambda: now[0])
    for name, tab in (("a", ONE), ("b", OTHER), ("c", ONE)):
        session.hear(tab)
        session.record(event(name, tab=tab))
    assert session.undo("undo-0001", ONE) == session.undo("undo-0001", ONE)
    assert names(session) == ["a", "b"] and session.revision("s") == 4
    session.undo("undo-0002", ONE)
    assert names(session) == ["b"] and session.undo("undo-0003", ONE) is None
    assert names(Session(log)) == ["b"]
    now[0] = LEASE + 1
    session.hear(ONE)
    undone = session.undo("undo-0004", ONE)
    assert undone is not None and undone["name"] == "b" and names(session) == []


def test_a_subject_is_handed_to_one_tab(log: Journal) -> None:
    now = [0.0]
    session = Session(log, clock=lambda: now[0])
    session.hand("s", ONE)
    assert session.is_free("s", ONE) and not session.is_free("s", OTHER)
    assert session.is_free("t", OTHER)
    session.hand("t", ONE)  # gives s back
    assert session.is_free("s", OTHER) and not session.is_free("t", OTHER)
    now[0] = LEASE + 1
    assert session.is_free("t", OTHER)


@pytest.mark.parametrize("text", ["short", "a" * 65, "spaces here", "../../etc", "", "\n" * 9])
def test_names_of_clients_are_bounded(text: str) -> None:
    with pytest.raises(ValueError, match="8 to 64 letters"):
        identity(text, "id")


def test_a_log_of_others_is_refused_by_line(log: Journal) -> None:
    log.append({"id": "a", "kind": "x", "subject": "s"})
    log.append({"note": "hello"})
    with pytest.raises(ValueError, match=r"log, line 2: an event lacks 'id'"):
        Session(log)


def test_a_job_reports_and_ends_when_it_is_told_to() -> None:
    job = Job()
    assert job.progress == {"state": "idle", "share": 0.0, "text": ""}
    job.start(lambda report: "three")
    job.join(5)
    assert job.progress == {"state": "done", "share": 1.0, "text": "three"}

    def endless(report: Report) -> str:
        while True:
            report(0.5, "half")

    job.start(endless)
    with pytest.raises(ValueError, match="under way already"):
        job.start(endless)
    job.stop()
    job.join(5)
    assert job.progress["state"] == "stopped"


def test_a_job_that_fails_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    def broken(report: Report) -> str:
        raise ValueError("no data")

    job = Job()
    job.start(broken)
    job.join(5)
    assert job.progress["text"] == "training failed: no data"
    assert "ValueError: no data" in capsys.readouterr().err
