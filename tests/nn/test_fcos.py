"""FCOS: which place finds which object, losses without objects, detection, texts as classes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tenfold.nn import fcos
from tenfold.nn.fpn import FPN

BOUNDS = (64, 128)
STRIDES = (8, 16, 32)


def outputs(images: int = 1, classes: int = 3, seed: int = 0) -> fcos.HeadOutputs:
    torch.manual_seed(seed)
    head = fcos.FCOSHead(8, classes, STRIDES, convs=1, outputs=5, groups=4)
    nn.init.normal_(head.bbox_pred.bias, 3.0)
    nn.init.normal_(head.cls_logits.bias, 0.0)
    levels = [torch.randn(images, 8, 128 // s, 160 // s) for s in STRIDES]
    return head(levels)


def test_places_are_in_the_order_of_level_row_and_column() -> None:
    found = outputs()
    assert found.sizes == ((16, 20), (8, 10), (4, 5)) and len(found.levels) == 420
    at = found.place(1, 2, 3)
    assert found.locations[at].tolist() == [3 * 16 + 8, 2 * 16 + 8] and found.levels[at] == 1


def test_numbers_of_masks_are_made_where_they_are_asked_for() -> None:
    found = outputs(2)
    image, places = torch.tensor([1, 0, 1, 0, 1]), torch.tensor([419, 0, 19, 325, 319])
    every = found.parameters
    assert every.shape == (2, 420, 5)
    torch.testing.assert_close(found.parameters_at(image, places), every[image, places])
    nothing = found.parameters_at(image[:0], places[:0])
    nothing.sum().backward()  # connected all the same
    assert nothing.shape == (0, 5) and found.controller.weight.grad is not None


def test_the_smallest_box_wins_and_levels_share_by_size() -> None:
    boxes = torch.tensor([[0.0, 0.0, 150.0, 120.0], [40.0, 40.0, 60.0, 60.0]])
    found = outputs()
    rows = fcos.assign(found, BOUNDS, boxes).rows
    every = zip(rows.tolist(), found.locations.tolist(), found.levels.tolist(), strict=True)
    for row, xy, level in every:
        wanted = -1
        for own, (x0, y0, x1, y1) in enumerate(boxes.tolist()):
            reach = 1.5 * STRIDES[level]
            far = max(xy[0] - x0, xy[1] - y0, x1 - xy[0], y1 - xy[1])
            low, high = (-1, *BOUNDS)[level], (*BOUNDS, 1e8)[level]
            near = abs(xy[0] - (x0 + x1) / 2) < reach and abs(xy[1] - (y0 + y1) / 2) < reach
            inside = x0 < xy[0] < x1 and y0 < xy[1] < y1
            if near and inside and low <= far <= high:
                wanted = own
        assert row == wanted
    assert set(rows.tolist()) == {-1, 0, 1}


def test_places_of_a_mask_are_on_it() -> None:
    masks = torch.zeros(1, 128, 150, dtype=torch.bool)
    masks[0, 40:50] = True
    found = outputs()
    rows = fcos.assign(found, BOUNDS, torch.tensor([[0.0, 0.0, 160.0, 128.0]]), masks=masks).rows
    y = found.locations[rows == 0][:, 1].tolist()
    assert y and all(40 <= own < 50 for own in y)


def test_pictures_without_objects() -> None:
    found = outputs(2)
    none = [torch.zeros(0, 4)] * 2
    assigned = [fcos.assign(found, BOUNDS, own) for own in none]
    assert all((one.rows == -1).all() for one in assigned)
    losses = fcos.detection_losses(found, assigned, [torch.zeros(0, dtype=torch.int64)] * 2)
    assert losses["class"] > 0 and losses["box"] == 0 and losses["centreness"] == 0
    sum(losses.values()).backward()  # connected to every output


def test_classes_of_one_picture_do_not_reach_another() -> None:
    found = outputs(2)
    boxes = [torch.tensor([[20.0, 20.0, 70.0, 90.0]]), torch.tensor([[60.0, 10.0, 150.0, 100.0]])]
    labels = [torch.tensor([2]), torch.tensor([0])]
    assigned = [fcos.assign(found, BOUNDS, own) for own in boxes]
    both = fcos.detection_losses(found, assigned, labels)
    swapped = fcos.HeadOutputs(
        *(getattr(found, n).flip(0) for n in ("logits", "distances", "centreness")),
        found.locations, found.levels, found.sizes, found.strides,
    )  # fmt: skip
    again = fcos.detection_losses(swapped, assigned[::-1], labels[::-1])
    for name, value in both.items():
        torch.testing.assert_close(again[name], value)


def test_detections_are_the_best_of_a_class() -> None:
    found = outputs(2)
    limits = fcos.DetectSettings(threshold=0.1, per_level=50, most=7)
    for i, one in enumerate(fcos.detect(found, limits)):
        assert 0 < len(one.scores) <= 7 and (one.scores.diff() <= 0).all()
        best = found.scores[i].max().sqrt()
        torch.testing.assert_close(one.scores[0], best)
        torch.testing.assert_close(found.boxes[i, one.places], one.boxes)
        chosen = found.scores[i, one.places, one.labels].sqrt()
        torch.testing.assert_close(chosen, one.scores)
    nothing = fcos.detect(found, fcos.DetectSettings(threshold=0.999))
    assert [len(one.boxes) for one in nothing] == [0, 0]
    with pytest.raises(ValueError, match=r"nms 1\.5 must be in \[0, 1\]"):
        fcos.DetectSettings(nms=1.5)


def test_a_new_text_leaves_other_logits_as_they_are() -> None:
    torch.manual_seed(0)
    text, x = torch.randn(4, 6), torch.randn(1, 8, 3, 3)
    head = fcos.TextClassifier(8, text)
    nn.init.normal_(head.text_bias)
    before = head(x)
    head.text = torch.cat([text.flip(0), torch.randn(1, 6)])
    after = head(x)
    assert after.shape == (1, 5, 3, 3)
    torch.testing.assert_close(after[:, :4].flip(1), before)
    assert "text" in head.state_dict()


def test_a_pyramid_of_maps() -> None:
    torch.manual_seed(0)
    pyramid = FPN([4, 6], 5, extra=2)
    maps = [torch.randn(1, 4, 8, 8), torch.randn(1, 6, 4, 4)]
    found = pyramid(maps)
    assert [tuple(x.shape[1:]) for x in found] == [(5, 8, 8), (5, 4, 4), (5, 2, 2), (5, 1, 1)]
    top = pyramid.lateral[1](maps[1])
    below = pyramid.lateral[0](maps[0]) + top.repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(found[0], pyramid.output[0](below))
    torch.testing.assert_close(found[3], pyramid.coarser[1](found[2].relu()))
