"""Losses of Type-I requests: bands, what counts, and labels that stay as they are."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from tenfold.systems.virreq import loss
from tenfold.systems.virreq.loss import Allowed, present_parts, request_loss

DRAW = torch.Generator().manual_seed(4)
LOGITS = torch.randn(2, 5, 8, 6, generator=DRAW) * 3
LABELS = torch.randint(0, 5, (2, 32, 24), generator=DRAW).byte()
LABELS[torch.rand(LABELS.shape, generator=DRAW) < 0.5] = 255


def plain(logits: torch.Tensor, labels: torch.Tensor, others: float) -> torch.Tensor:
    """The official order: enlarge, append others, weigh classes, mean over all pixels."""
    large = F.interpolate(logits, labels.shape[1:], mode="bilinear", align_corners=False)
    large = F.pad(large, (0, 0, 0, 0, 1, 0))
    weights = torch.ones(large.shape[1])
    weights[0] = others
    wanted = torch.where(labels == 255, 0, labels.long() + 1)
    return F.cross_entropy(large, wanted, weights, reduction="sum") / labels.numel()


@pytest.mark.parametrize("band", [1, 24 * 6 * 4 * 3, 2**19])
@pytest.mark.parametrize("size", [(32, 24), (31, 24), (32, 25)])
def test_bands_are_the_whole(
    monkeypatch: pytest.MonkeyPatch, band: int, size: tuple[int, int]
) -> None:
    """Values and gradients, whichever rows are worked on at once."""
    monkeypatch.setattr(loss, "BAND", band)
    labels = LABELS[:, : size[0], : size[1]]
    labels = F.pad(labels, (0, size[1] - labels.shape[2]))
    ours, theirs = (LOGITS.clone().requires_grad_() for _ in range(2))
    found, want = request_loss(ours, labels, 0.3), plain(theirs, labels, 0.3)
    (2 * found).backward()
    (2 * want).backward()
    torch.testing.assert_close(found, want)
    torch.testing.assert_close(ours.grad, theirs.grad)
    with torch.no_grad():
        torch.testing.assert_close(request_loss(LOGITS, labels, 0.3), want.detach())


def test_labels_stay_as_they_are() -> None:
    """The official losses write into the labels of their caller (`losses` of both heads)."""
    labels, instances = LABELS.clone(), (LABELS % 3).clone()
    for dtype in (torch.uint8, torch.int64):
        ours, units = labels.to(dtype), instances.to(dtype)
        allowed = present_parts(ours, units, 5)
        request_loss(LOGITS.clone().requires_grad_(), ours, 0.1, ours != 3, allowed).backward()
        assert torch.equal(ours, labels.to(dtype)) and torch.equal(units, instances.to(dtype))


def test_weights_of_others() -> None:
    """0 ignores unlabelled pixels, 1 takes them for others."""
    changed = LOGITS.clone()
    bad = LABELS.clone()
    bad[LABELS != 255] = 255
    assert request_loss(changed, bad, 0.0) == 0
    one, few = request_loss(LOGITS, LABELS, 1.0), request_loss(LOGITS, LABELS, 0.01)
    none = request_loss(LOGITS, LABELS, 0.0)
    assert none < few < one
    torch.testing.assert_close(few, none + 0.01 * (one - none))


def test_outside_of_a_unit_nothing_counts() -> None:
    inside = torch.zeros(LABELS.shape, dtype=torch.bool)
    inside[:, 4:20, 8:16] = True
    other = torch.where(inside, LABELS, 1)
    found = request_loss(LOGITS, LABELS, 0.2, inside)
    torch.testing.assert_close(found, request_loss(LOGITS, other, 0.2, inside))
    large = F.interpolate(LOGITS, LABELS.shape[1:], mode="bilinear", align_corners=False)
    cut = (slice(None), ..., slice(4, 20), slice(8, 16))
    torch.testing.assert_close(found, request_loss(large[cut], LABELS[:, 4:20, 8:16], 0.2))
    nothing = request_loss(LOGITS.clone().requires_grad_(), LABELS, 0.2, inside & False)
    assert nothing == 0


def test_a_part_that_was_never_labelled_gets_no_gradient() -> None:
    """On its instance; marked as completely labelled, all parts of the class compete."""
    labels = torch.full((1, 8, 8), 255, dtype=torch.uint8)
    instances = torch.full((1, 8, 8), 255, dtype=torch.uint8)
    instances[0, :4], labels[0, :2] = 0, 2  # an instance with part 2 on half of it
    instances[0, 4:6] = 1  # and one without parts
    logits = torch.randn(1, 4, 2, 2).requires_grad_()
    allowed = present_parts(labels, instances, 4)
    assert allowed.table.tolist()[:2] == [[False, False, True, False], [False] * 4]
    request_loss(logits, labels, 0.1, allowed=allowed).backward()
    assert logits.grad is not None
    assert not logits.grad[0, [0, 1, 3]].any() and logits.grad[0, 2].any()
    children = torch.zeros(1, 2, 4, dtype=torch.bool)
    children[0, 0, 1:] = True
    complete = present_parts(labels, instances, 4, children)
    assert complete.table.tolist()[:2] == [[False, True, True, True], [False] * 4]
    logits.grad = None
    request_loss(logits, labels, 0.1, allowed=complete).backward()
    assert not logits.grad[0, 0].any() and all(logits.grad[0, k].any() for k in (1, 2, 3))


def test_no_pixel_with_a_part() -> None:
    """The official divisor is 0 + 1.2e-7 then; ours is 1, and the loss 0."""
    nothing = torch.full((2, 32, 24), 255, dtype=torch.uint8)
    logits = LOGITS.clone().requires_grad_()
    found = request_loss(logits, nothing, 0.1, allowed=present_parts(nothing, nothing, 5))
    found.backward()
    assert found == 0 and logits.grad is not None and not logits.grad.any()


def test_large_logits_are_finite() -> None:
    """At the largest temperature, and where concepts are forbidden."""
    logits = (100 * torch.sign(LOGITS)).requires_grad_()
    allowed = Allowed(torch.zeros(LABELS.shape, dtype=torch.int64),
                      torch.tensor([[True, False, True, False, True]]))  # fmt: skip
    found = request_loss(logits, torch.full_like(LABELS, 2), 0.1, allowed=allowed)
    found.backward()
    assert torch.isfinite(found) and torch.isfinite(logits.grad).all()
