"""Generated scenes: masks, boxes and labels belong together, and nothing else decides them."""

from __future__ import annotations

import numpy as np

from tenfold.generated import scenes


def test_masks_boxes_and_labels_agree() -> None:
    for index in range(30):
        one = scenes.scene("train", index)
        assert len(one.masks) == len(one.labels) == len(one.boxes) >= 1
        assert one.masks.sum(0).max() <= 1  # visible parts do not overlap
        for mask, (x0, y0, x1, y1), label in zip(one.masks, one.boxes, one.labels, strict=True):
            assert mask.sum() >= scenes.LEAST
            rows, columns = np.nonzero(mask)
            assert (columns.min(), rows.min()) == (x0, y0)
            assert (columns.max() + 1, rows.max() + 1) == (x1, y1)
            assert (scenes.label_map(one)[mask] == label + 1).all()
        assert (scenes.label_map(one) == 0).sum() == (~one.masks.any(0)).sum()


def test_the_same_number_is_the_same_scene() -> None:
    a, b = scenes.scene("test", 5), scenes.scene("test", 5)
    assert np.array_equal(a.picture, b.picture) and np.array_equal(a.boxes, b.boxes)
    other = [scenes.scene("train", 5), scenes.scene("test", 6), scenes.scene("test", 5, seed=1)]
    assert all(not np.array_equal(a.picture, o.picture) for o in other)


def test_photos_have_one_object_each_of_all_classes() -> None:
    pictures, labels, boxes = scenes.photos("train", 120, 0)
    assert pictures.shape == (120, 64, 64, 3) and boxes.shape == (120, 4)
    assert set(labels.tolist()) == set(range(len(scenes.NAMES)))
    assert ((boxes[:, 2:] - boxes[:, :2]) > 8).all()


def test_boxes_of_an_empty_mask() -> None:
    assert scenes.boxes_of(np.zeros((2, 5, 5), dtype=bool)).tolist() == [[0] * 4] * 2
