"""Questions and answers of the labelling page, without a browser."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from systems.apis.pages import OTHER, TAB, boxes, fresh, pages
from web.discs import DISCS, Discs, OpenedDiscs, box_of

from tenfold.journal import events
from tenfold.systems.apis.answers import standing
from tenfold.systems.apis.config import PageOptions
from tenfold.systems.apis.labelling import LABELS, Labelling, Trained
from tenfold.systems.apis.labels import Labels
from tenfold.web.session import Stale


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[..., Labelling]]:
    with pages(tmp_path) as open_page:
        yield open_page


def truth(page: Labelling, question: dict[str, Any]) -> str:
    x, y = question["point"]
    discs = DISCS[page.album.names[question["object"]["image"]]]
    return "yes" if any((x - a) ** 2 + (y - b) ** 2 <= r * r for a, b, r in discs) else "no"


def log_of(page: Labelling) -> list[dict[str, Any]]:
    return list(events(page.folder / "answers.jsonl"))


def test_questions_follow_boxes_and_the_mask_follows_answers(opened: Any) -> None:
    page = opened()
    empty = page.next(TAB)
    assert empty["question"] is None and empty["why"].startswith("Draw a box")
    said = boxes(page)
    asked = set()
    sizes = {n: {page._look(page.labels.there(n)).mask.area} for n in (1, 2, 3)}
    for _ in range(20):
        question = said["question"]
        x0, y0, x1, y1 = question["object"]["box"]
        x, y = question["point"]
        assert x0 <= x < x1 and y0 <= y < y1
        asked.add((question["object"]["id"], x, y))
        said = page.answer(fresh(), TAB, question["id"], truth(page, question), 1.5)
        mask = said["object"]["mask"]
        assert sum(mask["counts"]) == mask["w"] * mask["h"]
        sizes[said["object"]["id"]].add(sum(mask["counts"][1::2]))
    assert len(asked) == 20  # no pixel twice
    assert all(len(found) > 1 for found in sizes.values())  # answers move the masks
    by_object = [a.annotation for a in standing(log_of(page))]
    assert sorted(by_object.count(n) for n in (1, 2, 3)) == [6, 6, 8]  # spread over the objects
    counted = said["progress"]
    assert (counted["answers"], counted["objects"], counted["seconds"]) == (20, 3, 1.5)
    assert counted["yes"] + counted["no"] == 20


def test_features_of_a_picture_are_computed_once(opened: Any) -> None:
    segmenter = Discs()
    page = opened(segmenter=segmenter)
    said = boxes(page)
    for _ in range(6):
        said = page.answer(fresh(), TAB, said["question"]["id"], "yes", 1.0)
    assert segmenter.opened == 1


def test_all_is_as_it_was_after_a_restart(opened: Any) -> None:
    page = opened()
    said = boxes(page)
    for label in ("yes", "no", "unsure", "skip"):
        said = page.answer(fresh(), TAB, said["question"]["id"], label, 1.0)
    before = page.objects_of(0), page.progress()
    again = opened()
    for _ in range(3):
        found = again.next(TAB, 0)
    for one in again.labels.objects:
        again._look(one)
    assert (again.objects_of(0), again.progress()) == before
    assert found["question"]["id"] == said["question"]["id"]  # an open page can go on


def test_an_answer_sent_twice_counts_once(opened: Any) -> None:
    page = opened()
    question = boxes(page)["question"]
    identity = fresh()
    for _ in range(3):
        said = page.answer(identity, TAB, question["id"], "yes", 1.0)
        assert said["progress"]["answers"] == 1
    again = opened()
    assert again.answer(identity, TAB, question["id"], "yes", 1.0)["progress"]["answers"] == 1
    drawn = fresh()
    numbers = {
        again.draw(drawn, TAB, 1, [9.0, 9.0, 60.0, 60.0], **{"class": "disc"})["object"]["id"]
        for _ in range(2)
    }
    assert numbers == {4} and len(again.labels.objects) == 4


def test_two_tabs_get_different_objects_and_conflicts_are_reported(opened: Any) -> None:
    page = opened()
    boxes(page)
    mine, theirs = page.next(TAB, 0)["question"], page.next(OTHER, 0)["question"]
    assert mine["object"]["id"] != theirs["object"]["id"]
    same = page.next(OTHER, 0, mine["object"]["id"])["question"]  # chosen on purpose
    page.answer(fresh(), TAB, mine["id"], "yes", 1.0)
    with pytest.raises(Stale, match="was changed meanwhile"):
        page.answer(fresh(), OTHER, same["id"], "no", 1.0)
    assert page.progress()["answers"] == 1
    page.answer(fresh(), OTHER, theirs["id"], "no", 1.0)
    page.undo(fresh(), TAB)  # of this tab, though the other answered last
    (left,) = standing(log_of(page))
    assert left.annotation == theirs["object"]["id"]


def test_a_box_is_taken_back_about_which_another_tab_has_answered(opened: Any) -> None:
    page = opened()
    said = page.draw(fresh(), TAB, 0, box_of(DISCS["a.png"][0]), **{"class": "disc"})
    page.answer(fresh(), OTHER, said["question"]["id"], "yes", 1.0)
    after = page.undo(fresh(), TAB, 0)
    assert after["undone"] == "the box of object 1"
    assert after["object"] == {"id": 1, "removed": True, "image": 0}
    assert not page.labels.objects and after["progress"]["answers"] == 0


def test_undo_goes_back_step_by_step_to_the_first_box(opened: Any) -> None:
    page = opened()
    said = page.draw(fresh(), TAB, 0, box_of(DISCS["a.png"][0]), **{"class": "disc"})
    question = said["question"]
    first = said["object"]["mask"]
    page.answer(fresh(), TAB, question["id"], "no", 1.0)
    page.change(fresh(), TAB, 1, **{"class": "ball"})
    page.remove(fresh(), TAB, 1)
    assert page.objects_of(0)["objects"] == []
    back = page.undo(fresh(), TAB)
    assert back["undone"] == "the removal of object 1" and back["object"]["class"] == "ball"
    assert page.undo(fresh(), TAB)["object"]["class"] == "disc"
    back = page.undo(fresh(), TAB)
    assert back["object"]["mask"] == first and back["question"]["point"] == question["point"]
    assert page.undo(fresh(), TAB)["object"]["removed"] and not page.labels.objects
    assert page.undo(fresh(), TAB)["undone"] == ""
    kinds = [event["kind"] for event in log_of(page)]
    assert kinds == ["object", "answer", "change", "remove", *["undo"] * 4]  # nothing is erased


def test_not_sure_and_skip_are_no_points_and_skip_leaves_the_object(opened: Any) -> None:
    page = opened()
    question = boxes(page)["question"]
    number = question["object"]["id"]
    said = page.answer(fresh(), TAB, question["id"], "unsure", 1.0)
    assert said["question"]["object"]["id"] == number  # the visit goes on
    assert said["question"]["point"] != question["point"]
    said = page.answer(fresh(), TAB, said["question"]["id"], "skip", 1.0)
    assert said["question"]["object"]["id"] != number
    assert page.labels.object(number).points == []
    shape = page.labels.object(number).shape(page.labels.classes)
    assert [point.label for point in shape.points] == [-1]


def test_free_clicks_are_points_of_a_person(opened: Any) -> None:
    page = opened()
    boxes(page)
    said = page.click(fresh(), TAB, 2, 110, 50, "yes", 2.0)
    assert said["object"]["points"] == [[110, 50, 1]] and said["question"]["object"]["id"] == 2
    assert said["question"]["point"] != [110, 50]
    assert standing(log_of(page))[0].source == "human"
    with pytest.raises(ValueError, match="pixel 3, 3 is not in the box of object 2, 83, 23"):
        page.click(fresh(), TAB, 2, 3, 3, "yes", 2.0)


@pytest.mark.parametrize(
    ("box", "says"),
    [
        ([5.0, 5.0, 5.0, 9.0], "has no pixel in a picture of 160 x 144"),
        ([9.0, 9.0, 5.0, 5.0], "has no pixel"),
        ([200.0, 5.0, 300.0, 9.0], "has no pixel"),
        ([0.0, 0.0, 1.0], "four numbers"),
        ([0.0, 0.0, float("inf"), 9.0], "four numbers"),
        ([0.0, 0.0, float("nan"), 9.0], "four numbers"),
    ],
)
def test_boxes_that_are_none(opened: Any, box: list[float], says: str) -> None:
    page = opened()
    with pytest.raises(ValueError, match=says):
        page.draw(fresh(), TAB, 0, box, **{"class": "disc"})
    assert log_of(page) == []


def test_boxes_that_leave_the_picture_are_cut(opened: Any) -> None:
    page = opened()
    said = page.draw(fresh(), TAB, 0, [-20.0, -5.5, 900.0, 40.25], **{"class": "disc"})
    assert said["object"]["box"] == [0.0, 0.0, 160.0, 40.25]


def test_what_cannot_be_asked_is_refused_and_not_kept(opened: Any) -> None:
    page = opened()
    question = boxes(page)["question"]
    kept = len(log_of(page))
    number, revision, x, y = question["id"].split(".")
    for wrong in ("", "1.2.3", "a.b.c.d", f"{number}.{revision}.{x}.-1", "1" * 70):
        with pytest.raises(ValueError, match="is no question of this page"):
            page.answer(fresh(), TAB, wrong, "yes", 1.0)
    with pytest.raises(ValueError, match="not in the box"):
        page.answer(fresh(), TAB, f"{number}.{revision}.0.143", "yes", 1.0)
    with pytest.raises(ValueError, match="label must be one of yes, no, unsure, skip"):
        page.answer(fresh(), TAB, question["id"], "maybe", 1.0)
    for seconds in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="seconds must be 0 or more"):
            page.answer(fresh(), TAB, question["id"], "yes", seconds)
    with pytest.raises(Stale, match="object 99 is not there"):
        page.answer(fresh(), TAB, "99.1.5.5", "yes", 1.0)
    with pytest.raises(ValueError, match="there is no class 'cat'; there are disc, ball"):
        page.draw(fresh(), TAB, 0, [1.0, 1.0, 9.0, 9.0], **{"class": "cat"})
    with pytest.raises(LookupError, match="no picture 3; there are 3"):
        page.draw(fresh(), TAB, 3, [1.0, 1.0, 9.0, 9.0], **{"class": "disc"})
    assert len(log_of(page)) == kept


def test_every_pixel_of_a_small_box_is_asked_about_once(opened: Any) -> None:
    page = opened()
    said = page.draw(fresh(), TAB, 0, [10.0, 10.0, 12.0, 13.0], **{"class": "disc"})
    seen = []
    while said["question"]:
        seen.append(tuple(said["question"]["point"]))
        said = page.answer(fresh(), TAB, said["question"]["id"], "no", 0.5)
    assert sorted(seen) == [(x, y) for x in (10, 11) for y in (10, 11, 12)]
    assert said["why"].startswith("Every pixel")


def test_classes_are_added_where_the_network_takes_them(opened: Any) -> None:
    page = opened()
    for _ in range(2):
        assert page.add_class(fresh(), TAB, " <b>red  shoe</b> ")["classes"][2:] == [
            "<b>red shoe</b>"
        ]
    for wrong in ("", "  ", "x" * 61, "a\x1b[2J"):
        with pytest.raises(ValueError, match="1 to 60 printable"):
            page.add_class(fresh(), TAB, wrong)
    assert opened().labels.classes == ["disc", "ball", "<b>red shoe</b>"]
    closed = opened(segmenter=Discs(grows=False))
    with pytest.raises(ValueError, match="knows its own classes only: disc, ball"):
        closed.add_class(fresh(), TAB, "cat")


def test_a_picture_that_vanished_or_changed_is_named_and_nothing_is_lost(opened: Any) -> None:
    page = opened()
    boxes(page, 0)
    said = boxes(page, 1)
    photos = page.album.folder
    (photos / "a.png").unlink()
    Image.fromarray(np.zeros((50, 50, 3), np.uint8)).save(photos / "b.png")
    with pytest.raises(FileNotFoundError, match="a.png"):
        opened().image(0) if (photos / "a.png").exists() else page.album.picture(0)
    again = opened()
    assert len(again.labels.objects) == 5
    said = again.next(TAB)
    assert said["question"] is None
    assert "b.png: it has 50 x 50 pixels, but object" in said["why"]
    again.draw(fresh(), TAB, 1, box_of(DISCS["c.png"][0]), **{"class": "disc"})  # c.png is 1 now
    assert again.next(TAB)["question"]["object"]["id"] == 6


def test_boxes_of_a_picture_before_it_changed_are_not_looked_at_in_the_new_one(opened: Any) -> None:
    """Though a box that was drawn since has had it opened."""
    page = opened()
    boxes(page, 1)
    old = page.labels.objects
    Image.fromarray(np.zeros((50, 50, 3), np.uint8)).save(page.album.folder / "b.png")
    again = opened()
    new = again.draw(fresh(), TAB, 1, [5.0, 5, 40, 40], **{"class": "disc"})["object"]
    assert new["mask"] is not None and not new["problem"]
    for one in old:
        assert "b.png: it has 50 x 50 pixels, but object" in again._look(one).problem


def test_links_out_of_the_folder_are_refused(opened: Any, tmp_path: Path) -> None:
    page = opened()
    secret = tmp_path / "secret.png"
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(secret)
    (page.album.folder / "c.png").unlink()
    (page.album.folder / "c.png").symlink_to(secret)
    with pytest.raises(ValueError, match="leads out of"):
        page.image(2)  # swapped since the folder was opened
    with pytest.raises(ValueError, match="leads out of"):
        opened()


def test_training_reports_changes_the_model_and_begins_a_new_round(opened: Any) -> None:
    def train(page: Labelling, report: Any) -> Trained:
        report(0.5, "half")
        return Trained(Discs(), 41.5)

    page = opened(train=train)
    said = boxes(page)
    said = page.answer(fresh(), TAB, said["question"]["id"], "yes", 1.0)
    assert page.train()["job"]["state"] in ("running", "done")
    page.job.join(5)
    assert page.progress()["job"] == {"state": "done", "share": 1.0, "text": "model 1 answers now"}
    assert page.progress()["curve"] == [{"answers": 1, "ap": 41.5}]
    said = page.next(TAB, 0)
    page.answer(fresh(), TAB, said["question"]["id"], "no", 1.0)
    last = standing(log_of(page))[-1]
    assert (last.round, last.model) == (1, "model 1")
    with pytest.raises(ValueError, match="is not trained here"):
        opened().train()


def test_objects_are_looked_at_while_nobody_asks(opened: Any, tmp_path: Path) -> None:
    page = opened()
    boxes(page)
    page.close()
    ahead = Labelling(Discs(), tmp_path / "photos", tmp_path / "out", PageOptions())
    ahead._asked -= 10
    deadline = time.monotonic() + 5
    while not all(map(ahead._is_seen, ahead.labels.objects)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert all(one["unsure"] is not None for one in ahead.next(TAB)["strip"])
    ahead.close()


def test_killed_anywhere_and_tried_again_no_answer_is_lost_or_doubled(
    opened: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log cut at 150 places of its tail; the client sends again what it heard nothing of."""
    page = opened()
    question = boxes(page)["question"]
    sent = []
    for label in ("yes", "no", "unsure", "yes"):
        number, revision, x, y = map(int, question["id"].split("."))
        said = (number, (x, y), LABELS[label], 1.0, "diverse", revision)
        sent.append((fresh(), TAB, *said))
        question = page.answer(*sent[-1][:2], question["id"], label, 1.0)["question"]
    page.close()
    log, album = tmp_path / "out" / "answers.jsonl", page.album
    whole = log.read_bytes()
    wanted = [(a.annotation, a.x, a.y, a.label) for a in standing(events(log))]
    monkeypatch.setattr(os, "fsync", lambda file: None)  # what is cut is cut here
    tail = sum(map(len, whole.splitlines(keepends=True)[3:]))
    for cut in np.linspace(len(whole) - tail, len(whole) - 1, 150).astype(int).tolist():
        log.write_bytes(whole[:cut])
        heard = whole[:cut].count(b"\n") - 3  # after three boxes
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            labels = Labels(log, album, ["disc"])
        for one in sent[heard:]:
            labels.answer(*one)
        labels.close()
        assert [(a.annotation, a.x, a.y, a.label) for a in standing(events(log))] == wanted


def test_a_box_is_moved_and_what_it_leaves_behind_comes_back_with_it(opened: Any) -> None:
    page = opened()
    boxes(page)
    said = page.click(fresh(), TAB, 2, 110, 50, "yes", 2.0)
    before = said["object"]["box"]
    aside = [2.0, 2.0, 40.5, 40.0]
    moving = fresh()
    for _ in range(2):  # sent twice, done once
        said = page.change(moving, TAB, 2, box=aside)
    assert said["object"]["box"] == aside and said["question"]["object"]["id"] == 2
    x, y = said["question"]["point"]
    assert 2 <= x < 41 and 2 <= y < 40
    shape = page.labels.object(2).shape(page.labels.classes)
    assert shape.box == tuple(aside) and shape.points == ()
    assert page.export("coco").notes[-1].startswith("1 answers lie outside of boxes")
    assert opened().labels.object(2).box == tuple(aside)
    page = opened()
    back = page.undo(fresh(), TAB)
    assert back["undone"] == "a change of object 2" and back["object"]["box"] == before
    assert len(page.labels.object(2).shape(page.labels.classes).points) == 1
    for wrong, says in (([9.0, 9.0, 5.0, 5.0], "has no pixel"), ([1.0], "four numbers")):
        with pytest.raises(ValueError, match=says):
            page.change(fresh(), TAB, 2, box=wrong)
    with pytest.raises(ValueError, match="give one of them"):
        page.change(fresh(), TAB, 2)
    with pytest.raises(Stale, match="object 9 is not there"):
        page.change(fresh(), TAB, 9, box=aside)


def test_boxes_that_the_model_finds_are_its_own_and_not_found_twice(opened: Any) -> None:
    page = opened(segmenter=Discs(finds=True))
    assert page.state()["can_suggest"] and not opened().state()["can_suggest"]
    page = opened(segmenter=Discs(finds=True))
    said = page.suggest(fresh(), TAB, 1)
    assert said["made"] == 1 and said["question"]["object"]["id"] == 1
    (one,) = page.labels.objects
    assert one.said.source == "model" and one.box == (40.0, 36.0, 120.0, 108.0)
    assert page.suggest(fresh(), TAB, 1)["made"] == 0  # it is there already
    page.change(fresh(), TAB, 1, box=[40.0, 36.0, 118.0, 108.0])
    assert page.labels.object(1).said.source == "human"  # it is a person's now
    assert page.suggest(fresh(), TAB, 1)["made"] == 0
    page.undo(fresh(), TAB)
    assert page.undo(fresh(), TAB)["undone"] == "the box of object 1"
    with pytest.raises(LookupError, match="no picture 7"):
        page.suggest(fresh(), TAB, 7)


def test_a_box_of_less_than_a_pixel_takes_no_other_with_it(
    opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [((5.0, 5.0, 5.4, 60.0), 0, 0.9), ((40.0, 36.0, 120.0, 108.0), 0, 0.8)]
    monkeypatch.setattr(OpenedDiscs, "propose_boxes", lambda self: found)
    page = opened(segmenter=Discs(finds=True))
    assert page.suggest(fresh(), TAB, 1)["made"] == 1
    assert [one.box for one in page.labels.objects] == [found[1][0]]
