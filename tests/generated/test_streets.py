"""Generated streets: the same from the same seed, with the classes that are wanted."""

from __future__ import annotations

import numpy as np
import pytest

from tenfold.generated import streets
from tenfold.generated.streets import Traffic

SMALL = (120, 160)
SHARES = {
    "sky": 0.183, "building": 0.221, "pole": 0.010, "road": 0.357, "pavement": 0.032,
    "tree": 0.097, "sign": 0.003, "fence": 0.013, "car": 0.068, "pedestrian": 0.005,
    "bicyclist": 0.012,
}  # fmt: skip
"""Of 500 scenes of the prototype from which the set `streetsim` was made."""


def shares(count: int, traffic: Traffic = streets.USUAL) -> dict[str, float]:
    total = np.zeros(len(streets.NAMES))
    for index in range(count):
        _, labels = streets.scene("train", index, traffic=traffic, size=SMALL)
        total += np.bincount(labels.ravel(), minlength=len(streets.NAMES))
    return dict(zip(streets.NAMES, total / total.sum(), strict=True))


def test_a_scene_follows_from_its_seed() -> None:
    picture, labels = streets.scene("train", 3)
    assert picture.shape == (240, 320, 3) and labels.shape == (240, 320)
    assert picture.dtype == labels.dtype == np.uint8 and labels.max() < len(streets.NAMES)
    again = streets.scene("train", 3)
    assert np.array_equal(picture, again[0]) and np.array_equal(labels, again[1])
    for split, index, seed in (("train", 4, 0), ("test", 3, 0), ("train", 3, 1)):
        assert not np.array_equal(labels, streets.scene(split, index, seed)[1])


@pytest.fixture(scope="module")
def usual() -> dict[str, float]:
    return shares(60)


def test_shares_are_near_those_of_the_published_set(usual: dict[str, float]) -> None:
    for name, share in usual.items():
        assert SHARES[name] / 2.2 < share < SHARES[name] * 2.2, name
        if SHARES[name] > 0.15:
            assert abs(share - SHARES[name]) < 0.06, name


def test_traffic_changes_how_often_a_class_is_there(usual: dict[str, float]) -> None:
    crowded = shares(20, Traffic(people=4, cyclists=0, trees=0))
    assert crowded["pedestrian"] > 2 * usual["pedestrian"] and crowded["bicyclist"] == 0


def test_a_style_changes_pictures_and_no_label() -> None:
    day, dusk = (
        streets.scene("train", 7, style=style, size=SMALL) for style in (streets.DAY, streets.DUSK)
    )
    assert np.array_equal(day[1], dusk[1])
    assert np.abs(day[0].astype(float) - dusk[0]).mean() > 15
