"""Views of pictures and scenes: crops, boxes, label maps and masks stay together."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tenfold.data.images import augment, scene_views, views
from tenfold.data.images.rand_augment import CHANGES, rand_augment
from tenfold.structures import Instances

RATIO = (3 / 4, 4 / 3)
NONE = np.zeros((0, 4), np.float32)


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ramp(height: int, width: int) -> np.ndarray:
    """Red grows to the right, green downwards."""
    y, x = np.indices((height, width))
    return np.stack([x * 4, y * 4, 0 * x], -1).astype(np.uint8)


@given(st.integers(0, 5000), st.integers(8, 90), st.integers(8, 90))
@settings(max_examples=60, deadline=None)
def test_crops_lie_inside_and_have_their_share(seed: int, height: int, width: int) -> None:
    x0, y0, x1, y1 = views.crop_box(height, width, (0.2, 1.0), RATIO, draw(seed))
    assert 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height
    fits = RATIO[0] <= width / height <= RATIO[1]
    if fits:
        assert (x1 - x0) * (y1 - y0) >= 0.12 * height * width


def test_the_whole_picture_is_untouched() -> None:
    picture = ramp(32, 32)
    same = views.view(picture, (0, 0, 32, 32), False, 32)
    assert np.array_equal(same.permute(1, 2, 0).numpy(), picture)
    turned = views.view(picture, (0, 0, 32, 32), True, 32)
    assert torch.equal(turned, same.flip(2))
    assert torch.equal(views.centre(picture, 32, 1.0), same)


def test_boxes_follow_the_view() -> None:
    box = np.array([10.0, 4, 20, 12], dtype=np.float32)
    found = views.view_box(box, (5.0, 2.0, 25.0, 22.0), False, 40)
    assert found.tolist() == [10, 4, 30, 20]
    assert views.view_box(box, (5.0, 2.0, 25.0, 22.0), True, 40).tolist() == [10, 4, 30, 20]
    assert views.view_box(box, (12.0, 0.0, 22.0, 10.0), False, 10).tolist() == [0, 4, 8, 10]


def test_labels_follow_the_picture() -> None:
    picture = ramp(48, 60)
    labels = (picture[..., 0] // 4 // 10).astype(np.uint8)
    for seed in range(12):
        x, known = scene_views.segmentation_view(picture, labels, 40, draw(seed), (0.9, 1.3), 1.0)
        assert x.shape == (3, 40, 40) and known.shape == (40, 40)
        rows = known != 255
        assert rows.any() and int(known[rows].max()) < 6
    a = scene_views.segmentation_view(picture, labels, 40, draw(3))
    b = scene_views.segmentation_view(picture, labels, 40, draw(3))
    assert torch.equal(a[0], b[0]) and torch.equal(a[1], b[1])


def test_a_small_or_ignored_scene_is_padded() -> None:
    picture, labels = ramp(10, 12), np.full((10, 12), 255, dtype=np.uint8)
    x, known = scene_views.segmentation_view(picture, labels, 32, draw(), (1.0, 1.0))
    assert (known == 255).all() and x.shape == (3, 32, 32)


@pytest.mark.parametrize("crop", [False, True])
def test_masks_and_boxes_follow_the_picture(crop: bool) -> None:
    picture = np.zeros((40, 60, 3), dtype=np.uint8)
    mask = np.zeros((1, 40, 60), dtype=bool)
    mask[0, 10:30, 20:50] = True
    picture[mask[0]] = 255
    boxes = np.array([[20.0, 10, 50, 30], [0, 0, 60, 40]], np.float32)
    masks, crowd = np.concatenate([mask, ~mask]), np.array([False, True])
    objects = Instances(boxes, np.array([3, 3]), masks=masks, crowd=crowd)
    for seed in range(10):
        found = scene_views.detection_view(picture, objects, draw(seed), (80, 60), 200, crop)
        assert found.ignored.shape == (1, 4)
        assert found.labels.tolist() == [3] and found.masks is not None
        bright = found.picture.float().mean(0) > 127
        assert (found.masks[0] != bright).float().mean() < 0.02
        assert torch.equal(scene_views.around(found.masks), found.boxes)


def test_no_objects_and_what_vanishes() -> None:
    none = Instances(NONE, np.zeros(0, np.int64), masks=np.zeros((0, 30, 40), bool))
    found = scene_views.detection_view(ramp(30, 40), none, draw(), (30,), 99)
    assert found.boxes.shape == (0, 4)
    speck = np.zeros((1, 30, 40), dtype=bool)
    speck[0, 3, 3] = True
    box = Instances(np.array([[3.0, 3, 4, 4]], np.float32), np.array([0]), masks=speck)
    found = scene_views.detection_view(ramp(30, 40), box, draw(), (16,), 99, False)
    assert len(found.boxes) == 0


def test_collate_pads_to_a_multiple() -> None:
    none = Instances(NONE, np.zeros(0, np.int64))
    made = [
        scene_views.detection_view(ramp(*size), none, draw(), (20,), 99, False)
        for size in ((20, 30), (25, 20))
    ]
    batch, sizes = scene_views.collate(made, 16)
    assert batch.shape == (2, 3, 32, 32) and sizes.tolist() == [[20, 30], [25, 20]]
    assert torch.equal(batch[0, :, :20, :30], made[0].picture)


def test_test_view_and_back() -> None:
    x, factors = scene_views.test_view(ramp(30, 60), 60, 90)
    assert x.shape == (3, 45, 90) and factors == pytest.approx((1.5, 1.5))


def test_each_side_of_a_narrow_picture_has_its_own_factor() -> None:
    """Of 1000 x 60 pixels: 11.52 rows are 12, which is no factor of columns."""
    x, (of_x, of_y) = scene_views.test_view(ramp(60, 1000), 176, 192)
    assert x.shape == (3, 12, 192)
    assert of_x * 1000 == pytest.approx(192) and of_y * 60 == pytest.approx(12)
    assert abs(192 / of_y - 1000) > 24  # by the factor of rows, boxes would drift so far


def test_segmentation_brings_pictures_to_a_size_first() -> None:
    labels = np.zeros((60, 90), dtype=np.uint8)
    labels[:, 45:] = 1
    x, known = scene_views.segmentation_view(
        ramp(60, 90), labels, 30, draw(), (1.0, 1.0), resize=(20, 90)
    )
    assert x.shape == (3, 30, 30)
    assert (known[20:] == 255).all() and (known[:20] != 255).all()  # 20 x 30 of 60 x 90


@pytest.mark.parametrize("name", list(CHANGES))
def test_each_change_of_rand_augment(name: str) -> None:
    from PIL import Image

    image = Image.fromarray(ramp(24, 30))
    for sign in (-1.0, 1.0):
        assert CHANGES[name](image, 0.9, sign).size == image.size
    zero = np.asarray(CHANGES[name](image, 0.0, 1.0))
    grows = name not in ("auto contrast", "equalize", "invert", "posterize", "solarize")
    if grows:  # without strength they change next to nothing
        assert np.abs(zero.astype(int) - ramp(24, 30)).max() <= 3


def test_rand_augment_is_a_function_of_the_generator() -> None:
    a, b = (rand_augment(ramp(24, 30), draw(5)) for _ in range(2))
    assert np.array_equal(a, b)
    seen = {rand_augment(ramp(24, 30), draw(i)).tobytes() for i in range(12)}
    assert len(seen) > 5


def test_mixing_keeps_probabilities() -> None:
    x, labels = torch.arange(6.0).view(6, 1, 1, 1).expand(6, 3, 8, 8), torch.arange(6) % 3
    for seed in range(8):
        mixed, targets = augment.mix(x, labels, 3, 0.8, 1.0, 0.1, draw(seed))
        torch.testing.assert_close(targets.sum(1), torch.ones(6))
        # the mean of pictures shows how much of each partner is in them
        share = (mixed.mean((1, 2, 3)) - x.flip(0).mean((1, 2, 3))) / (x - x.flip(0)).mean(
            (1, 2, 3)
        )
        want = augment.soft(labels, 3, 0.1)
        torch.testing.assert_close(
            targets,
            share[:, None] * want + (1 - share[:, None]) * want.flip(0),
            rtol=1e-4,
            atol=1e-4,
        )
    same, targets = augment.mix(x, labels, 3, 0.0, 0.0, 0.0, draw())
    assert torch.equal(same, x) and torch.equal(targets, torch.eye(3)[labels])


def test_erasing() -> None:
    x = torch.zeros(400, 3, 20, 20)
    found = augment.erase(x, 0.25, draw())
    touched = (found != 0).any(1)
    assert 0.15 < float(touched.any((1, 2)).float().mean()) < 0.35
    shares = touched.float().mean((1, 2))[touched.any((1, 2))]
    assert 0.01 < float(shares.min()) and float(shares.max()) < 0.4
    assert torch.equal(augment.erase(x, 0.0, draw()), x)
