"""Points that each stage trains on, as the files of the published code, made from the answers.

Stage n has the points of rounds 0 to n - 1, so each stage's points are among those of the next.
Everything follows from the log of answers: the file of a stage is made of it again, byte for byte.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tenfold.data.images.points import (
    COUNT,
    SEED,
    Labelled,
    drawn_points,
    padded,
    text_of,
    true_labels,
    with_points,
)  # fmt: skip

from .answers import Answer


def stage_points(answers: Iterable[Answer], stage: int) -> dict[int, Labelled]:
    """Points of a stage, by annotation id, in the order of the answers.

    "Not sure" and skipped questions are no points. A pixel that was drawn twice counts twice, as
    published.
    """
    found: dict[int, Labelled] = {}
    for one in answers:
        if one.round < stage and one.is_point:
            places, labels = found.setdefault(one.annotation, ([], []))
            places.append([one.x, one.y])
            labels.append(int(one.label))  # type: ignore[arg-type]
    return found


def stage_text(
    content: Mapping[str, Any], answers: Iterable[Answer], stage: int, even: bool = False
) -> str:
    """The file of a stage: the instance file with points in place of masks, as published.

    even: fill up with points of label -1 that count for nothing, so that all objects of a picture
    have as many, which PointSup's loader needs; budgets, skips and free clicks make them uneven.
    """
    points = stage_points(answers, stage)
    if even:
        every = content["annotations"]
        images = {item["id"]: item["image_id"] for item in every}
        points = padded(points, images, {item["id"]: item["bbox"] for item in every})
    return text_of(with_points(content, points))


def random_answers(
    content: Mapping[str, Any], rounds: int, count: int = COUNT, seed: int = SEED
) -> list[Answer]:
    """The published random arm as answers: round i has the i-th of PointSup's points, from 0 on.

    Raises:
        ValueError: More rounds are asked for than points were drawn.
    """
    if not 0 <= rounds <= count:
        raise ValueError(f"{rounds} rounds of random points need as many points, drawn are {count}")
    drawn = drawn_points(content, count, seed)
    labels = true_labels(content, drawn)
    return [
        Answer(f"{i}/{one}", one, x, y, labels[one][i], "random", round=i)  # type: ignore[arg-type]
        for i in range(rounds)
        for one, (x, y) in ((one, places[i].tolist()) for one, places in drawn.items())
    ]
