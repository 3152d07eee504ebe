"""Overlays: colours at known pixels, nothing cut off, sheets of the right size."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from tenfold.viz import overlays


def opened(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def test_colours_are_fixed_and_distinct() -> None:
    many = overlays.palette(150)
    assert np.array_equal(many[:8], overlays.palette(8))
    assert len({tuple(c) for c in many.tolist()}) == 150


def test_label_maps_and_what_is_ignored() -> None:
    labels = np.array([[0, 1], [2, 255]], dtype=np.uint8)
    found = overlays.colour_map(labels, 3)
    assert np.array_equal(found[0, 1], overlays.palette(3)[1])
    assert len(set(found[1, 1].tolist())) == 1  # grey
    mixed = overlays.blend(np.full((2, 2, 3), 100, np.uint8), labels, 3, 0.5)
    assert np.allclose(mixed[0, 0], 0.5 * 100 + 0.5 * overlays.palette(3)[0], atol=1)


def test_small_pictures_grow_before_objects_are_drawn() -> None:
    picture, mask = np.zeros((32, 40, 3), dtype=np.uint8), np.zeros((1, 32, 40), dtype=bool)
    mask[0, 10:20, 10:20] = True
    box = np.array([[10.0, 10, 20, 20]], dtype=np.float32)
    found = overlays.draw_objects(picture, box, ["größe 50 %"], np.array([1]), mask)
    factor = found.shape[1] // 40
    assert found.shape == (32 * factor, 40 * factor, 3) and factor >= 5
    assert np.allclose(found[15 * factor, 15 * factor], overlays.palette(2)[1] / 2, atol=1)
    assert np.array_equal(found[10 * factor + 40, 10 * factor], overlays.palette(2)[1])
    assert not found[-1, -1].any()


def test_nothing_to_draw() -> None:
    none = np.zeros((0, 4), dtype=np.float32)
    picture = np.full((300, 300, 3), 7, dtype=np.uint8)
    found = overlays.draw_objects(picture, none, [], np.zeros(0, dtype=np.int64))
    assert np.array_equal(found, picture)


def test_captions_stay_inside() -> None:
    picture = np.zeros((240, 240, 3), dtype=np.uint8)
    box = np.array([[238.0, 0, 240, 3]], dtype=np.float32)
    found = overlays.draw_objects(picture, box, ["a very long name of a class"], np.array([0]))
    blue = (found == overlays.palette(1)[0]).all(2)
    assert blue[:, :200].any()  # moved to the left until it fits


def test_sheets() -> None:
    tile = np.full((20, 30, 3), 200, dtype=np.uint8)
    content = overlays.sheet([[tile, tile], [tile]], ("a", "b"), ("one", "two"), height=60)
    assert opened(content).shape == (24 + 8 + 2 * (60 + 20 + 8), 2 * 90 + 3 * 8, 3)
    truth = np.array([[0, 1], [1, 255]], dtype=np.uint8)
    again = overlays.segmentation_sheet([tile[:2, :2]], [truth], [truth], ["sky", "road"])
    assert again == overlays.segmentation_sheet([tile[:2, :2]], [truth], [truth], ["sky", "road"])
    assert opened(again).shape[1] >= 700
