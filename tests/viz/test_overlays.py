"""Overlays: colours at known pixels, nothing cut off, sheets of the right size."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from tenfold.viz import colours, overlays
from tenfold.viz.colours import palette


def opened(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def test_colours_are_fixed_and_distinct() -> None:
    many = palette(150)
    assert np.array_equal(many[:8], palette(8))
    assert len({tuple(c) for c in many.tolist()}) == 150
    assert len(palette(300)) == 300


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIE L*a*b* under D65, another measure than the one that chose the colours."""
    share = rgb.astype(float) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    )
    x, y, z = np.cbrt(linear @ to_xyz.T / (0.9505, 1.0, 1.089)).T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)


def test_neighbouring_classes_differ_in_hue_and_lightness() -> None:
    places = lab(palette(256))
    hue = np.degrees(np.arctan2(places[:, 2], places[:, 1]))
    turn = np.abs((np.diff(hue) + 180) % 360 - 180)
    assert np.abs(np.diff(places[:, 0])).min() > 9 and turn.min() > 25
    assert np.linalg.norm(np.diff(places, axis=0), axis=1).min() > 30
    for count, least in ((8, 25), (20, 18), (80, 8), (150, 5)):
        apart = np.linalg.norm(places[:count, None] - places[None, :count], axis=-1)
        assert (apart + 1000 * np.eye(count)).min() > least, count
    assert colours.oklab(np.array([255, 255, 255])) == pytest.approx([1, 0, 0], abs=1e-3)


@pytest.mark.parametrize("size", [(200, 150), (4000, 3000), (60, 1000)])
def test_captions_and_lines_grow_with_the_picture(size: tuple[int, int]) -> None:
    """Seen at a width of 1000 pixels, letters are 10 to 90 of them high."""
    picture = np.zeros((*size, 3), dtype=np.uint8)
    letters, line = overlays.thickness(overlays.enlarged(picture)[0])
    width = overlays.enlarged(picture)[0].shape[1]
    assert 10 <= letters * 1000 / width <= 90 and 2 <= line * 1000 / width <= 15
    box = np.array([[10, size[0] / 2, size[1] - 10, size[0] - 5]], dtype=np.float32)
    found = overlays.draw_objects(picture, box, ["cat"], np.array([0]))
    rows = np.flatnonzero((found == palette(1)[0]).all(2).any(1))
    assert rows[0] < size[0] / 2 * (width / size[1])  # the caption stands above the box


def test_label_maps_and_what_is_ignored() -> None:
    labels = np.array([[0, 1], [2, 255]], dtype=np.uint8)
    found = overlays.colour_map(labels, 3)
    assert np.array_equal(found[0, 1], palette(3)[1])
    assert len(set(found[1, 1].tolist())) == 1  # grey
    mixed = overlays.blend(np.full((2, 2, 3), 100, np.uint8), labels, 3, 0.5)
    assert np.allclose(mixed[0, 0], 0.5 * 100 + 0.5 * palette(3)[0], atol=1)


def test_small_pictures_grow_before_objects_are_drawn() -> None:
    picture, mask = np.zeros((32, 40, 3), dtype=np.uint8), np.zeros((1, 32, 40), dtype=bool)
    mask[0, 10:20, 10:20] = True
    box = np.array([[10.0, 10, 20, 20]], dtype=np.float32)
    found = overlays.draw_objects(picture, box, ["größe 50 %"], np.array([1]), mask)
    factor = found.shape[1] // 40
    assert found.shape == (32 * factor, 40 * factor, 3) and factor >= 5
    assert np.allclose(found[15 * factor, 15 * factor], palette(2)[1] / 2, atol=1)
    assert np.array_equal(found[10 * factor + 40, 10 * factor], palette(2)[1])
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
    blue = (found == palette(1)[0]).all(2)
    assert blue[:, :200].any()  # moved to the left until it fits


def test_sheets() -> None:
    tile = np.full((20, 30, 3), 200, dtype=np.uint8)
    content = overlays.sheet([[tile, tile], [tile]], ("a", "b"), ("one", "two"), height=60)
    assert opened(content).shape == (24 + 8 + 2 * (60 + 20 + 8), 2 * 90 + 3 * 8, 3)
    truth = np.array([[0, 1], [1, 255]], dtype=np.uint8)
    again = overlays.segmentation_sheet([tile[:2, :2]], [truth], [truth], ["sky", "road"])
    assert again == overlays.segmentation_sheet([tile[:2, :2]], [truth], [truth], ["sky", "road"])
    assert opened(again).shape[1] >= 700
