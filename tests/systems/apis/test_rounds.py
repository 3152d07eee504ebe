"""Answers as events of a log, an annotator that knows the truth, and the files of stages."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tenfold.data.images.crops import crop_of
from tenfold.journal import Journal, events
from tenfold.systems.apis.answers import (
    Answer,
    Undo,
    of_event,
    oracle,
    pixels_asked,
    standing,
)  # fmt: skip
from tenfold.systems.apis.rounds import random_answers, stage_points, stage_text
from tenfold.systems.apis.strategies import propose_all


def content() -> dict:
    """A crowd in front of an object, one at the picture's edge, one of a single pixel."""

    def square(x: int, y: int, w: int, h: int) -> list[list[int]]:
        return [[x, y, x + w, y, x + w, y + h, x, y + h]]

    boxes = [(0, 0, 9, 7), (12, 9, 8, 7), (5, 3, 1, 1)]
    return {
        "info": {},
        "annotations": [
            {"id": number, "image_id": 4, "bbox": list(box), "segmentation": square(*box),
             "iscrowd": int(number == 30), "category_id": 1}
            for number, box in zip((30, 10, 20), boxes, strict=True)
        ],
        "images": [{"id": 4, "width": 20, "height": 16, "file_name": "a.jpg"}],
        "categories": [{"id": 1, "name": "a"}],
    }  # fmt: skip


def answer(number: int, label: object, round: int = 0, **more: object) -> Answer:
    made = {"id": f"{round}/{number}", "annotation": number, "x": 3, "y": 4, "source": "entropy"}
    return Answer(**{**made, "label": label, "round": round, **more})  # type: ignore[arg-type]


def test_answers_are_read_as_they_were_written(tmp_path: Path) -> None:
    said = [
        answer(10, 1, who="anna", seconds=1.5, model="m0", time="2026-11-29T05:00:00Z"),
        answer(20, None), answer(30, "skip"), answer(10, 0, round=1),
    ]  # fmt: skip
    with Journal(tmp_path / "log.jsonl") as log:
        for one in said:
            log.append(one.event())
        log.append(said[1].event())  # the page asked again
        log.append({"kind": "box", "id": "b1"})
        log.append(Undo("u1", "1/10").event())
        log.append(answer(10, 1, round=1, id="again").event())
    found = standing(events(tmp_path / "log.jsonl"))
    assert found == [*said[:3], answer(10, 1, round=1, id="again")]
    assert pixels_asked(found, 10).tolist() == [[3, 4], [3, 4]]
    assert pixels_asked(found, 30).shape == (0, 2)  # left for later


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": 2}, "has label 2, expected 0, 1, null or 'skip'"),
        ({"label": True}, "has label True"),
        ({"x": -1}, "left of or above"),
        ({"x": 1.5}, "x must be a whole number"),
        ({"seconds": float("nan")}, "neither is below 0"),
        ({"round": -1}, "of round -1"),
        ({"who": "a" * 201}, "a text of 201 characters"),
        ({"who": 7}, "who must be a text"),
        ({"id": ""}, "needs an id"),
        ({"source": None}, "source must be a text"),
    ],
)
def test_an_answer_that_is_none(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        of_event(answer(10, 1).event() | change)
    with pytest.raises(ValueError, match="lacks y"):
        of_event({key: v for key, v in answer(10, 1).event().items() if key != "y"})


def test_the_oracle() -> None:
    mask = crop_of(np.ones((5, 5), dtype=bool), 10, 10)
    assert oracle(mask, 12, 12) == 1 and oracle(mask, 9, 12) == 0 and oracle(mask, 500, 3) == 0
    assert oracle(mask, 10, 12, not_sure=0.5) is None and oracle(mask, 9, 12, not_sure=0.5) is None
    assert oracle(mask, 12, 12, not_sure=0.5) == 1 and oracle(mask, 8, 12, not_sure=0.5) == 0
    rng = np.random.default_rng(0)
    wrong = [oracle(mask, 12, 12, noise=0.2, rng=rng) == 0 for _ in range(2000)]
    assert np.mean(wrong) == pytest.approx(0.2, abs=0.03)
    with pytest.raises(ValueError, match="needs a generator"):
        oracle(mask, 12, 12, noise=0.2)
    with pytest.raises(ValueError, match="from 0 to 1"):
        oracle(mask, 12, 12, noise=1.2)


def test_points_belong_to_objects_and_not_to_places() -> None:
    """Behind a crowd the released merge gives a pixel to the object before."""
    text = stage_text(content(), [answer(10, 1, x=13, y=12)], 1)
    items = {item["id"]: item for item in json.loads(text)["annotations"]}
    assert items[10]["point_coords"] == [[13, 12]] and items[10]["point_labels"] == [1]
    assert items[30]["point_coords"] == [] and "segmentation" not in text


def test_pictures_without_objects() -> None:
    coco = content()
    coco["images"].append({"id": 5, "width": 9, "height": 9, "file_name": "empty.jpg"})
    made = json.loads(stage_text(coco, random_answers(coco, 1), 1, even=True))
    assert [image["id"] for image in made["images"]] == [4, 5] and len(made["annotations"]) == 3
    coco["annotations"] = []
    assert (
        random_answers(coco, 2) == [] and json.loads(stage_text(coco, [], 1))["annotations"] == []
    )
    assert propose_all({}, "entropy") == {}


def test_files_of_stages_are_made_again_byte_for_byte(tmp_path: Path) -> None:
    """The random arm: each stage's points are the first of the next one's."""
    coco = content()
    said = random_answers(coco, 4)
    first = [stage_text(coco, said, stage) for stage in range(5)]
    with Journal(tmp_path / "log.jsonl") as log:
        for one in said:
            log.append(one.event())
    again = standing(events(tmp_path / "log.jsonl"))
    assert [stage_text(coco, again, stage) for stage in range(5)] == first
    before: dict = {}
    for stage in range(1, 5):
        points = stage_points(said, stage)
        assert set(points) == {10, 20, 30}
        for number, (places, labels) in points.items():
            assert len(places) == stage
            old = before.get(number, ([], []))
            assert places[:-1] == old[0] and labels[:-1] == old[1]
        before = points
    assert before[20] == ([[5, 3]] * 4, [1] * 4)  # a box of one pixel
    assert list(json.loads(first[1])) == ["info", "images", "categories", "annotations"]
    with pytest.raises(ValueError, match="11 rounds of random points"):
        random_answers(coco, 11)


def test_unsure_answers_are_no_points_and_stages_can_be_evened() -> None:
    said = [answer(10, 1), answer(10, None, 1), answer(20, "skip", 1), answer(30, 0, 1)]
    assert stage_points(said, 1) == {10: ([[3, 4]], [1])}
    assert stage_points(said, 2) == {10: ([[3, 4]], [1]), 30: ([[3, 4]], [0])}
    said.append(answer(10, 0, 1, id="more", x=14))
    items = json.loads(stage_text(content(), said, 2, even=True))["annotations"]
    assert {item["id"]: item["point_labels"] for item in items} == {
        30: [0, -1], 10: [1, 0], 20: [-1, -1]
    }  # fmt: skip
    assert items[2]["point_coords"] == [[5, 3], [5, 3]]
