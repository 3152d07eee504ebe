"""Records that several rooms share."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from tenfold.structures import Instances


def objects(**other: np.ndarray) -> Instances:
    boxes = np.arange(12, dtype=np.float32).reshape(3, 4)
    return Instances(boxes, np.array([2, 0, 1]), **other)


def test_rows_of_every_array_belong_together() -> None:
    whole = objects(
        scores=np.array([0.1, 0.9, 0.5]), masks=np.arange(18).reshape(3, 2, 3) > 8,
        areas=np.array([3.0, 4, 5]), crowd=np.array([True, False, False]),
    )  # fmt: skip
    for rows in (np.array([2, 0]), whole.crowd, np.zeros(0, dtype=np.int64)):
        some = whole.at(rows)
        for field in fields(Instances):
            assert np.array_equal(getattr(some, field.name), getattr(whole, field.name)[rows])
        assert len(some) == len(some.is_crowd) == len(whole.labels[rows])
    plain = objects().at(np.array([1]))
    assert plain.scores is None and plain.masks is None and plain.is_crowd.tolist() == [False]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("scores", np.ones(2)),
        ("scores", np.ones(3, dtype=np.int64)),
        ("masks", np.ones((3, 2), dtype=bool)),
        ("masks", np.ones((3, 2, 2))),
        ("areas", np.ones((3, 1))),
        ("crowd", np.zeros(3, dtype=np.int64)),
    ],
)
def test_what_does_not_fit_is_named(name: str, value: np.ndarray) -> None:
    with pytest.raises(ValueError, match=f"{name} of 3 objects are {value.dtype} "):
        objects(**{name: value})
