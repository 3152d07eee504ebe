"""The journal: what it returned is on disk, once, wherever a process was killed."""

from __future__ import annotations

import os
import threading
import warnings
from pathlib import Path

import pytest

from tenfold import journal
from tenfold.journal import Journal, events


def names(path: Path) -> list[str]:
    return [event["name"] for event in events(path)]


def test_events_come_back_in_order_with_their_numbers(tmp_path: Path) -> None:
    path = tmp_path / "new" / "log.jsonl"
    with Journal(path) as log:
        assert [log.append({"name": name}) for name in ("a", "b\n", "ö")] == [0, 1, 2]
        assert [event["name"] for event in log] == ["a", "b\n", "ö"] and len(log) == 3
    with Journal(path) as log:
        assert log.append({"name": "c"}) == 3
    assert names(path) == ["a", "b\n", "ö", "c"]


def test_an_id_is_written_once_also_after_opening_again(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with Journal(path) as log:
        assert [log.append({"id": i, "name": i}) for i in ("x", "y", "x")] == [0, 1, 0]
    with Journal(path) as log:
        assert log.append({"id": "y", "name": "other"}) == 1 and "y" in log and "z" not in log
    assert names(path) == ["x", "y"]


def test_cut_at_every_byte_and_tried_again_nothing_is_lost_or_doubled(tmp_path: Path) -> None:
    path = tmp_path / "log"
    sent = [{"id": f"{i}", "name": f"answer {i} ö"} for i in range(3)]
    with Journal(path) as log:
        for event in sent:
            log.append(event)
    whole = path.read_bytes()
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Journal(path) as log:
                acknowledged = whole[:cut].count(b"\n")
                assert len(log) >= acknowledged
                for event in sent[acknowledged:]:  # the client heard nothing of these
                    log.append(event)
        assert path.read_bytes() == whole


def test_a_torn_line_is_named_and_kept_beside(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b'{"name":"a"}\n{"na')
    assert names(path) == ["a"]  # reading alone changes nothing
    with pytest.warns(UserWarning, match=r"log: line 2 was not written whole \(4 bytes\)"):
        log = Journal(path)
    assert log.torn == b'{"na' and path.read_bytes() == b'{"name":"a"}\n'
    assert (tmp_path / "log.torn").read_bytes() == b'{"na\n'
    log.close()


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"{", "line 2: Expecting"),
        (b"[1]", "line 2: it is no JSON object"),
        (b"\xff", "line 2: 'utf-8'"),
        (b'{"id": 3}', "id of an event must be a text, got 3"),
        (b'{"id": "a"}', "line 2: the id 'a' is there twice"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a": "' + b"x" * journal.LIMIT + b'"}', "line 2: it is longer than 1000000 bytes"),
    ],
)
def test_other_damage_is_an_error_and_the_file_stays(
    tmp_path: Path, line: bytes, says: str
) -> None:
    path = tmp_path / "log"
    path.write_bytes(content := b'{"id": "a"}\n' + line + b'\n{"id": "c"}\n')
    with pytest.raises(ValueError, match=says):
        Journal(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "event",
    [{"x": float("nan")}, {"x": b""}, {"x": "\ud800"}, {"id": 1}, {"x": "y" * journal.LIMIT}],
)
def test_an_event_that_could_not_be_read_again_is_refused(tmp_path: Path, event: dict) -> None:
    with Journal(tmp_path / "log") as log:
        with pytest.raises(ValueError, match="event"):
            log.append(event)
        assert log.append({"name": "a"}) == 0


def test_one_process_writes_and_a_link_is_not_followed(tmp_path: Path) -> None:
    with Journal(tmp_path / "log") as log:
        with pytest.raises(ValueError, match="another process writes to .*log"):
            Journal(tmp_path / "log")
    with pytest.raises(ValueError, match="closed"):
        log.append({})
    (tmp_path / "link").symlink_to(tmp_path / "log")
    with pytest.raises(OSError):
        Journal(tmp_path / "link")


def test_a_full_disk_leaves_nothing_of_an_event(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write
    with Journal(tmp_path / "log") as log:
        log.append({"name": "a"})

        def full(file: int, content: bytes) -> int:
            if len(content) < 5:
                raise OSError(28, "No space left on device")
            return real(file, content[:5])

        monkeypatch.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space"):
            log.append({"name": "b"})
        monkeypatch.undo()
        assert log.append({"name": "c"}) == 1
    assert names(tmp_path / "log") == ["a", "c"]


def test_threads_share_a_journal(tmp_path: Path) -> None:
    with Journal(tmp_path / "log") as log:
        threads = [
            threading.Thread(target=lambda: [log.append({"id": f"{i}"}) for i in range(20)])
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(log) == 20 and sorted(int(e["id"]) for e in log) == list(range(20))
