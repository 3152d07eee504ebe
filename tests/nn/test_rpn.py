"""The proposal network: anchors, what is sampled, losses by hand, proposals of padded pictures."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from tenfold.nn.boxes import encode, iou
from tenfold.nn.rpn import ASIDE, BACKGROUND, Guesses, Objects, ProposalSettings, Rpn, match, sample

STRIDES = (4, 8)
EVERY = ProposalSettings(scale=4.0, samples=100_000)
NONE = torch.zeros(0, 4)


def objects(*boxes: tuple[float, ...], ignored: torch.Tensor = NONE) -> Objects:
    found = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return Objects(found, torch.zeros(len(boxes), dtype=torch.int64), ignored)


def guessed(batch: int = 1, settings: ProposalSettings = EVERY) -> tuple[Rpn, Guesses]:
    torch.manual_seed(0)
    rpn = Rpn(6, STRIDES, settings)
    return rpn, rpn([torch.randn(batch, 6, 64 // s, 64 // s) for s in STRIDES])


def test_anchors_against_loops() -> None:
    rpn = Rpn(6, STRIDES, ProposalSettings(scale=8.0))
    slow = []
    for row in range(3):
        for column in range(2):
            for ratio in (0.5, 1.0, 2.0):
                width, height = 64 / math.sqrt(ratio), 64 * math.sqrt(ratio)
                x, y = 8 * column, 8 * row
                slow.append([x - width / 2, y - height / 2, x + width / 2, y + height / 2])
    torch.testing.assert_close(rpn.anchors(1, 3, 2, torch.device("cpu")), torch.tensor(slow))


def test_a_guess_belongs_to_its_anchor() -> None:
    """Scores and offsets are in the order of the anchors: row, column, ratio."""
    rpn = Rpn(2, (4,), ProposalSettings())
    with torch.no_grad():
        for layer in (rpn.conv, rpn.score, rpn.box):
            layer.weight.zero_()
        rpn.conv.weight[0, 0, 1, 1] = 1
        rpn.score.weight[1, 0] = 1  # the second ratio says what the cell holds
        rpn.box.weight[4 * 2 + 3, 0] = 1  # the third ratio's fourth offset does
    x = torch.zeros(1, 2, 3, 5)
    x[0, 0, 1, 4] = 7
    found = rpn([x])
    cell = 3 * (1 * 5 + 4)
    assert found.logits[0].nonzero().tolist() == [[0, cell + 1]]
    assert found.offsets[0].nonzero().tolist() == [[0, cell + 2, 3]]
    centre = (found.anchors[0][cell, :2] + found.anchors[0][cell, 2:]) / 2
    assert centre.tolist() == [16, 4]


def test_losses_by_loops() -> None:
    rpn, guesses = guessed(2)
    truth = [objects((10, 12, 30, 28), (40, 40, 60, 56)), objects()]
    sizes = torch.tensor([[64, 64], [40, 24]])
    score, box = rpn.losses(guesses, sizes, truth, torch.Generator())

    anchors, logits = torch.cat(guesses.anchors), torch.cat(guesses.logits, 1)
    offsets = torch.cat(guesses.offsets, 1)
    of_score, of_box, count = 0.0, 0.0, 0
    for i, one in enumerate(truth):
        overlap = iou(anchors, one.boxes)
        for a, anchor in enumerate(anchors.tolist()):
            x, y = (anchor[0] + anchor[2]) / 2, (anchor[1] + anchor[3]) / 2
            if x >= sizes[i, 1] or y >= sizes[i, 0]:
                continue
            best = max(overlap[a].tolist(), default=0.0)
            is_best = any(overlap[a, j] == overlap[:, j].max() for j in range(len(one.boxes)))
            if not is_best and 0.3 <= best < 0.7:
                continue
            is_object = is_best or best >= 0.7
            wanted = torch.tensor(float(is_object))
            of_score += F.binary_cross_entropy_with_logits(logits[i, a], wanted).item()
            count += 1
            if is_object:
                target = encode(one.boxes[overlap[a].argmax()], anchors[a])
                of_box += (offsets[i, a] - target).abs().sum().item()
    assert score.item() == pytest.approx(of_score / count, rel=1e-4)
    assert box.item() == pytest.approx(of_box / count, rel=1e-4) and of_box > 0


def gradient_of_scores(size: tuple[int, int], one: Objects) -> tuple[torch.Tensor, torch.Tensor]:
    """(centres of all anchors, whether each was sampled)."""
    rpn, guesses = guessed()
    for x in guesses.logits:
        x.retain_grad()
    score, _ = rpn.losses(guesses, torch.tensor([size]), [one], torch.Generator())
    score.backward()
    grads = [x.grad for x in guesses.logits if x.grad is not None]
    anchors = torch.cat(guesses.anchors)
    return (anchors[:, :2] + anchors[:, 2:]) / 2, torch.cat(grads, 1)[0] != 0


def test_anchors_in_the_padding_are_not_sampled() -> None:
    centre, sampled = gradient_of_scores((40, 24), objects())
    inside = (centre[:, 0] < 24) & (centre[:, 1] < 40)
    assert torch.equal(sampled, inside) and not inside.all()


def test_anchors_in_a_crowd_are_not_sampled() -> None:
    crowd = torch.tensor([[0.0, 0, 32, 64]])
    centre, sampled = gradient_of_scores((64, 64), objects(ignored=crowd))
    assert not sampled[(centre[:, 0] > 8) & (centre[:, 0] < 24)].all()
    assert sampled[centre[:, 0] > 32].all()
    whole = torch.tensor([[-99.0, -99, 999, 999]])
    assert not gradient_of_scores((64, 64), objects(ignored=whole))[1].any()


def test_an_object_in_a_crowd_stays_an_example() -> None:
    one = objects((0, 0, 20, 20), ignored=torch.tensor([[0.0, 0, 40, 40]]))
    references = torch.tensor([[0.0, 0, 20, 20], [20, 20, 40, 40], [50, 50, 60, 60]])
    assert match(references, one, 0.7, 0.3, keep_best=True).tolist() == [0, ASIDE, BACKGROUND]


def test_sampling_follows_the_generator() -> None:
    matched = torch.tensor([0] * 300 + [BACKGROUND] * 300)

    def drawn(seed: int) -> list[int]:
        return torch.cat(sample(matched, 64, 0.5, torch.Generator().manual_seed(seed))).tolist()

    assert drawn(1) == drawn(1) != drawn(2)
    assert len(set(drawn(1))) == 64
    good, bad = sample(matched[:0], 64, 0.5, torch.Generator())
    assert (len(good), len(bad)) == (0, 0)


@pytest.mark.parametrize("training", [True, False])
def test_proposals_keep_their_promises(training: bool) -> None:
    settings = ProposalSettings(scale=4.0, before=30, after=25)
    rpn, guesses = guessed(2, settings)
    rpn.train(training)
    sizes = torch.tensor([[64, 64], [21, 33]])
    found = rpn.proposals(guesses, sizes)
    assert len(found) == 2
    for boxes, (height, width) in zip(found, sizes.tolist(), strict=True):
        assert 0 < len(boxes) <= 25 and not boxes.requires_grad
        assert (boxes >= 0).all() and (boxes[:, 2] <= width).all() and (boxes[:, 3] <= height).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()


def test_no_proposals_in_nonsense() -> None:
    rpn, guesses = guessed()
    nonsense = [torch.full_like(x, math.nan) for x in guesses.offsets]
    found = rpn.proposals(
        Guesses(guesses.logits, nonsense, guesses.anchors), torch.tensor([[9, 9]])
    )
    assert found[0].shape == (0, 4)


def test_float32_under_autocast() -> None:
    torch.manual_seed(0)
    rpn = Rpn(6, STRIDES, EVERY)
    with torch.autocast("cpu", torch.bfloat16):
        guesses = rpn([torch.randn(1, 6, 64 // s, 64 // s) for s in STRIDES])
        one = objects((10, 12, 30, 28))
        losses = rpn.losses(guesses, torch.tensor([[64, 64]]), [one], torch.Generator())
        (found,) = rpn.proposals(guesses, torch.tensor([[64, 64]]))
    assert all(
        x.dtype == torch.float32 for x in (*guesses.logits, *guesses.offsets, *losses, found)
    )
