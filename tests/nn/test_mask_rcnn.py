"""Mask R-CNN and its RPN: matching, sampling, losses, learning, pasting."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from tenfold.nn.boxes import iou
from tenfold.nn.mask_rcnn import MaskRcnn, Objects, Settings, paste
from tenfold.nn.rpn import ASIDE, BACKGROUND, ProposalSettings, Rpn, match, sample

STRIDES = (4, 8, 16)
SMALL = Settings(
    channels=8, convs=1, fc_width=16, samples=16, score=0.3,
    proposals=ProposalSettings(scale=4.0, samples=32, before=40, after=30),
)  # fmt: skip
NONE = torch.zeros(0, 4)


def objects(*boxes: tuple[float, ...], labels: tuple[int, ...] = ()) -> Objects:
    found = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    masks = torch.zeros(len(boxes), 64, 64, dtype=torch.bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
        mask[int(y0) : int(y1), int(x0) : int(x1)] = True
    return Objects(found, torch.tensor(labels, dtype=torch.int64), NONE, masks)


def maps(batch: int = 1, seed: int = 0) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, 6, 64 // s, 64 // s, generator=draw) for s in STRIDES]


def test_anchors_by_hand() -> None:
    rpn = Rpn(6, STRIDES, ProposalSettings(scale=8.0, ratios=(0.5, 1.0)))
    found = rpn.anchors(0, 2, 3, torch.device("cpu"))
    assert found.shape == (12, 4)
    # cell (row 0, column 1), ratio 1: centred at x 4, y 0, side 32
    assert found[3].tolist() == [-12, -16, 20, 16]
    wide = found[2]  # height over width one half, area 32 * 32
    assert ((wide[2] - wide[0]) / (wide[3] - wide[1])).item() == pytest.approx(2)


def slow_match(references: torch.Tensor, one: Objects, high: float, low: float) -> list[int]:
    overlap = iou(references, one.boxes)
    found = []
    for row in overlap.tolist():
        best = max(range(len(row)), key=lambda i: row[i])
        found.append(best if row[best] >= high else BACKGROUND if row[best] < low else ASIDE)
    for i in range(overlap.shape[1]):
        most = max(overlap[:, i].tolist())
        for r, row in enumerate(overlap.tolist()):
            if most > 0 and row[i] >= most:
                tied = [j for j in range(len(row)) if row[j] >= max(overlap[:, j].tolist())]
                found[r] = tied[0]
    return found


def test_match_against_loops() -> None:
    draw = torch.Generator().manual_seed(1)
    low = torch.rand(40, 2, generator=draw) * 40
    references = torch.cat([low, low + 5 + 15 * torch.rand(40, 2, generator=draw)], 1)
    one = objects((3, 3, 20, 20), (25, 10, 50, 30), (18, 30, 30, 55), labels=(0, 1, 2))
    got = match(references, one, 0.5, 0.2, keep_best=True)
    assert got.tolist() == slow_match(references, one, 0.5, 0.2)


def test_crowds_are_no_background() -> None:
    one = Objects(NONE, torch.zeros(0).long(), torch.tensor([[0.0, 0, 30, 30]]))
    references = torch.tensor([[2.0, 2, 20, 20], [40, 40, 50, 50]])
    assert match(references, one, 0.7, 0.3, keep_best=True).tolist() == [ASIDE, BACKGROUND]


def test_sample_counts() -> None:
    matched = torch.tensor([0] * 10 + [BACKGROUND] * 50 + [ASIDE] * 5)
    good, bad = sample(matched, 16, 0.25, torch.Generator().manual_seed(0))
    assert (len(good), len(bad)) == (4, 12)
    assert set(good.tolist()) <= set(range(10)) and set(bad.tolist()) <= set(range(10, 60))
    good, bad = sample(matched[:10], 16, 0.5, torch.Generator().manual_seed(0))
    assert (len(good), len(bad)) == (8, 0)


@pytest.mark.parametrize("one", [objects((4, 4, 40, 40), labels=(1,)), objects()])
def test_every_parameter_gets_a_gradient(one: Objects) -> None:
    network = MaskRcnn(6, STRIDES, 3, SMALL)
    losses = network.losses(maps(), torch.tensor([[64, 64]]), [one], torch.Generator())
    assert set(losses) == {"rpn/score", "rpn/box", "box/class", "box/box", "mask"}
    torch.stack(list(losses.values())).sum().backward()
    assert not [name for name, p in network.named_parameters() if p.grad is None]


def test_a_picture_that_is_one_crowd() -> None:
    """Nothing is sampled; the losses are 0 or finite, and running statistics stay finite."""
    network = MaskRcnn(6, STRIDES, 3, SMALL)
    empty = torch.zeros(0, 64, 64, dtype=torch.bool)
    crowd = Objects(NONE, torch.zeros(0).long(), torch.tensor([[-99.0, -99, 999, 999]]), empty)
    losses = network.losses(maps(), torch.tensor([[64, 64]]), [crowd], torch.Generator())
    torch.stack(list(losses.values())).sum().backward()
    assert all(p.grad is not None and not p.grad.any() for p in network.parameters())
    assert all(b.isfinite().all() for b in network.buffers())


def test_the_mask_target_is_the_boxes_object() -> None:
    """With boxes of two objects in one picture the loss is that of each box's own mask."""
    network = MaskRcnn(6, STRIDES, 2, SMALL)
    one = objects((0, 0, 28, 28), (28, 28, 56, 56), labels=(0, 1))
    assert network.mask_head is not None and one.masks is not None
    boxes, rows = one.boxes[[1, 0, 1]], torch.tensor([1, 0, 1])
    owner, labels = torch.zeros(3, dtype=torch.int64), one.labels[rows]
    loss = network._mask_loss(maps(), boxes, owner, labels, [one], [(boxes, rows)])
    pooled = network._pooled(maps(), boxes, owner, SMALL.mask_size)
    logits = network.mask_head(pooled, labels)  # each box is wholly its object
    torch.testing.assert_close(loss, nn.functional.softplus(-logits).mean())


def test_small_objects_need_some_overlap() -> None:
    references = torch.tensor([[0.0, 0, 20, 20], [30, 30, 50, 50]])
    one = objects((0, 0, 5, 5), labels=(0,))  # IoU 1/16
    assert match(references, one, 0.7, 0.3, True).tolist() == [0, BACKGROUND]
    assert match(references, one, 0.7, 0.3, True, 0.3).tolist() == [BACKGROUND] * 2


@pytest.mark.parametrize(
    "wrong", [{"samples": 0}, {"negative": 0.8}, {"least": 2.0}, {"scale": 0.0}, {"ratios": ()}]
)
def test_settings_are_checked(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        replace(ProposalSettings(), **wrong)
    with pytest.raises(ValueError, match="convs 0"):
        replace(SMALL, convs=0)


def test_anchors_in_the_padding_do_not_count() -> None:
    network = MaskRcnn(6, STRIDES, 3, SMALL)
    guesses = network.rpn(maps())
    sizes = torch.tensor([[24, 32]])
    for found in network.rpn.proposals(guesses, sizes):
        assert (found[:, 2] <= 32).all() and (found[:, 3] <= 24).all() and len(found)


def test_it_learns_two_pictures() -> None:
    torch.manual_seed(0)
    picture = 0.1 * torch.randn(2, 3, 64, 64)
    truth = [
        objects((8, 8, 32, 40), labels=(0,)),
        objects((30, 20, 60, 44), (2, 40, 26, 62), labels=(1, 0)),
    ]
    for i, one in enumerate(truth):
        for mask, label in zip(one.masks, one.labels, strict=True):
            picture[i, label, mask] += 2

    class Tiny(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convs = nn.ModuleList([nn.Conv2d(3, 12, 4, 4)] + [nn.Conv2d(12, 12, 2, 2)] * 1)
            self.head = MaskRcnn(12, (4, 8), 2, SMALL)

        def maps(self, x: torch.Tensor) -> list[torch.Tensor]:
            fine = self.convs[0](x).relu()
            return [fine, self.convs[1](fine).relu()]

    network, draw = Tiny(), torch.Generator().manual_seed(0)
    optimiser = torch.optim.Adam(network.parameters(), 5e-3)
    sizes = torch.tensor([[64, 64], [64, 64]])
    for _ in range(300):
        optimiser.zero_grad()
        losses = network.head.losses(network.maps(picture), sizes, truth, draw)
        torch.stack(list(losses.values())).sum().backward()
        optimiser.step()
    network.eval()
    found = network.head.detect(network.maps(picture), sizes)
    for seen, one in zip(found, truth, strict=True):
        overlap = iou(one.boxes, seen.boxes)
        best = overlap.argmax(1)
        assert (overlap.amax(1) > 0.8).all(), overlap
        assert torch.equal(seen.labels[best], one.labels)
        masks = paste(seen.masks[best], seen.boxes[best], 64, 64)
        assert one.masks is not None
        shared = (masks & one.masks).sum((1, 2)) / (masks | one.masks).sum((1, 2))
        assert (shared > 0.5).all(), shared


def test_paste_against_pixels() -> None:
    draw = torch.Generator().manual_seed(0)
    masks, boxes = (
        torch.rand(2, 6, 6, generator=draw),
        torch.tensor([[2.0, 3, 14, 9], [0, 0, 6, 6]]),
    )
    got = paste(masks, boxes, 12, 16)
    # the second box has one cell a pixel: the mask itself
    assert torch.equal(got[1, :6, :6], masks[1] >= 0.5)
    assert not got[1, 6:].any() and not got[0, :, 14:].any() and not got[0, :3].any()
    assert paste(masks[:0], boxes[:0], 5, 5).shape == (0, 5, 5)


def slow_paste(mask: torch.Tensor, box: torch.Tensor, row: int, column: int) -> float:
    """Value of the mask at the centre of a pixel; cells outside it are 0."""
    side = len(mask)
    x = (column + 0.5 - box[0].item()) / (box[2] - box[0]).item() * side - 0.5
    y = (row + 0.5 - box[1].item()) / (box[3] - box[1]).item() * side - 0.5
    value = 0.0
    for i in range(side):
        for j in range(side):
            value += max(0.0, 1 - abs(y - i)) * max(0.0, 1 - abs(x - j)) * mask[i, j].item()
    return value


def test_paste_against_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = torch.Generator().manual_seed(3)
    masks = torch.rand(3, 5, 5, generator=draw)
    boxes = torch.tensor([[1.3, 2.2, 12.9, 8.4], [-4, -3, 7.5, 6.1], [8, 5, 25, 30]])
    values = torch.tensor(
        [[[slow_paste(m, b, r, c) for c in range(14)] for r in range(10)]
         for m, b in zip(masks, boxes, strict=True)]
    )  # fmt: skip
    got = paste(masks, boxes, 10, 14, 0.4)
    clear = (values - 0.4).abs() > 1e-4
    assert torch.equal(got[clear], (values >= 0.4)[clear])
    monkeypatch.setattr("tenfold.nn.mask_rcnn.PIXELS", 1)  # one mask at a time
    assert torch.equal(paste(masks, boxes, 10, 14, 0.4), got)


def test_boxes_alone() -> None:
    network = MaskRcnn(6, STRIDES, 3, SMALL, has_masks=False).eval()
    (found,) = network.detect(maps(), torch.tensor([[64, 64]]))
    assert found.masks.shape[0] == len(found.boxes)
