"""CondInst: supervision of each object, what training must not change, places and detections."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from tenfold.nn.condinst import SMALL, CondInst, Queries, Settings, Supervision, Targets
from tenfold.nn.dynamic_masks import DynamicHead
from tenfold.nn.fcos import DetectSettings, TextClassifier
from tenfold.nn.mask_supervision import mask_losses, valid

TINY = replace(
    SMALL, widths=(4, 8, 8, 8), channels=8, groups=4, convs=1, branch_channels=8, branch_convs=1,
    mask=DynamicHead(features=4, channels=4), detection=DetectSettings(threshold=0.001, most=9),
)  # fmt: skip
SIZES = torch.tensor([[90, 120], [100, 80]])
BOXES = torch.tensor([[10.0, 12.0, 60.0, 70.0], [50.0, 30.0, 110.0, 85.0], [5.0, 50.0, 40.0, 88.0]])


def network(settings: Settings = TINY) -> CondInst:
    torch.manual_seed(0)
    made = CondInst(3, settings)
    nn.init.normal_(made.fcos.controller.weight, std=0.1)
    return made


def pictures() -> Tensor:
    draw = torch.Generator().manual_seed(0)
    coarse = torch.rand(2, 3, 4, 4, generator=draw) * 255
    return coarse.repeat_interleave(30, 2).repeat_interleave(30, 3)[:, :, :100]


def targets(kinds: list[int], size: tuple[int, int] = (90, 120)) -> Targets:
    count = len(kinds)
    boxes, masks = BOXES[:count], torch.zeros(count, *size, dtype=torch.bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes.long().tolist(), strict=True):
        mask[y0 + 5 : y1 - 3, x0 + 2 : x1 - 9] = True
    xy = torch.stack([boxes[:, :2] + 10.5, boxes[:, 2:] - 3.5], 1)
    labels = torch.tensor([[1, 0]]).repeat(count, 1)
    return Targets(boxes, torch.arange(count), torch.tensor(kinds).long(), masks, xy, labels)


MIXED = [Supervision.MASK, Supervision.BOX, Supervision.POINTS]


def losses_of(logits: Tensor, rows: Tensor, kinds: list[int], with_points="box+point") -> dict:
    images = pictures()[:1]
    return mask_losses(
        logits, torch.zeros_like(rows), rows, [targets(kinds)], images,
        valid(images, torch.tensor([[90, 120]])), with_points, 0.7, 0.3,
    )  # fmt: skip


def drawn_masks() -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(1)
    return torch.randn(7, 25, 30, generator=draw), torch.tensor([0, 0, 1, 2, 2, 1, 2])


def test_each_loss_touches_its_own_objects() -> None:
    """Official code trains one kind at a time, and its masks no longer at all (APIS)."""
    logits, rows = drawn_masks()
    logits.requires_grad_()
    own = {"mask": {0}, "projection": {1, 2}, "pairwise": {1, 2}, "point": {2}}
    for name, value in losses_of(logits, rows, MIXED).items():
        (slope,) = torch.autograd.grad(value, logits, retain_graph=True)
        assert set(rows[slope.flatten(1).any(1)].tolist()) == own[name]
    for with_points, without in (("point", "projection"), ("box", "point")):
        found = losses_of(logits, rows, [2, 2, 2], with_points)
        assert found[without] == 0 and found["mask"] == 0


def test_a_mixture_is_the_sum_of_its_parts() -> None:
    """With the same normalisers: all masks, edges and points of the mixture."""
    logits, rows = drawn_masks()
    both = losses_of(logits, rows, MIXED)
    parts = {name: torch.zeros(()) for name in both}
    shares = {kind: (rows == kind).float().mean() for kind in MIXED}
    for kind in MIXED:
        mine = rows == kind
        alone = losses_of(logits[mine], rows[mine], MIXED)
        for name in ("mask", "projection", "point"):
            parts[name] += alone[name] * shares[kind]
    boxed = rows != Supervision.MASK
    alone = losses_of(logits[boxed], rows[boxed], MIXED)
    parts["pairwise"] += alone["pairwise"] * boxed.float().mean()
    for name, value in both.items():
        torch.testing.assert_close(value, parts[name])


def test_one_model_learns_of_all_kinds() -> None:
    model = network()
    optimiser = torch.optim.Adam(model.parameters(), 0.01)
    every = [targets(MIXED), replace(targets([1]), points=None, point_labels=None, masks=None)]
    totals = []
    for step in range(9):
        encoded = model.encode(pictures(), SIZES)
        total = torch.stack(list(model.losses(encoded, every, step).values())).sum()
        optimiser.zero_grad()
        total.backward()
        if not step:
            assert all(p.grad is not None for p in model.parameters())
        optimiser.step()
        totals.append(total.item())
    assert totals[-1] < 0.8 * totals[0]


def test_pictures_without_objects_train_the_classes() -> None:
    model = network()
    found = model.losses(model.encode(pictures(), SIZES), [targets([]), targets([])], 0)
    torch.stack(list(found.values())).sum().backward()
    assert found["class"] > 0 and not any(v for k, v in found.items() if k != "class")
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("chosen", [{"proposals": 5}, {"proposals": 0, "per_picture": 4}])
def test_some_places_are_trained(chosen: dict) -> None:
    model = network(replace(TINY, **chosen))
    encoded = model.encode(pictures(), SIZES)
    outputs = model.head(encoded)
    all_places = model.positives(outputs, [BOXES, BOXES[:1]])
    kept = model._chosen(outputs, all_places)
    assert len(all_places.image) > 12
    if "per_picture" not in chosen:
        assert len(kept.image) == 5
        return
    counts = {pair: 0 for pair in ((0, 0), (0, 1), (0, 2), (1, 0))}
    for pair in zip(kept.image.tolist(), kept.rows.tolist(), strict=True):
        counts[pair] += 1
    assert counts == {(0, 0): 1, (0, 1): 1, (0, 2): 1, (1, 0): 4}
    score = outputs.scores.amax(2)
    mine = (all_places.image == 1).nonzero()[:, 0]
    best = score[1, all_places.places[mine]].topk(4).values
    torch.testing.assert_close(score[1, kept.places[kept.image == 1]], best)


def gradient_of(pictures_of: slice) -> dict[str, Tensor]:
    """Gradients of some pictures' losses, of which only the first has masks and points."""
    model = network(replace(TINY, proposals=0))
    every = [targets(MIXED), replace(targets([1]), points=None, point_labels=None)]
    encoded = model.encode(pictures()[pictures_of], SIZES[pictures_of])
    found = model.losses(encoded, every[pictures_of], 2000)
    torch.stack(list(found.values())).sum().backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def test_two_processes_learn_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers that losses are divided by are means over processes, as gradients are.

    Every process asks for the same ones in the same order, whatever objects it has.
    """
    wanted, halves = gradient_of(slice(2)), (slice(1), slice(1, 2))
    asked: list[list[Tensor]] = [[], []]

    def counted(known: list[Tensor] | None, into: list[Tensor]):
        def mean(x: Tensor) -> Tensor:
            into.append(x.detach())
            return x.detach() if known is None else known[len(into) - 1]

        for file in ("fcos", "mask_supervision"):
            monkeypatch.setattr(f"tenfold.nn.{file}.world_mean", mean)

    for half, into in zip(halves, asked, strict=True):
        counted(None, into)
        gradient_of(half)
    means = [(one + other) / 2 for one, other in zip(*asked, strict=True)]
    found = []
    for half in halves:
        counted(means, [])
        found.append(gradient_of(half))
    for name, value in wanted.items():
        mean = (found[0][name] + found[1][name]) / 2
        torch.testing.assert_close(mean, value, rtol=1e-3, atol=1e-6)


def test_texts_are_classes_and_any_pixel_of_an_object_finds_it() -> None:
    """ViRReq's detector: a classifier of texts, and mask sampling."""
    torch.manual_seed(0)
    text = TextClassifier(8, torch.randn(3, 6))
    model = CondInst(3, replace(TINY, sampling="mask"), text)
    every = [targets([0, 0, 0]), targets([0], (100, 80))]
    encoded = model.encode(pictures(), SIZES)
    found = model.losses(encoded, every, 0)
    torch.stack(list(found.values())).sum().backward()
    assert text.project.weight.grad is not None and text.project.weight.grad.any()
    text.text = torch.cat([text.text, torch.randn(1, 6)])
    assert model.head(encoded).logits.shape[2] == 4  # a new class, at once


@pytest.mark.parametrize("kind", MIXED)
def test_one_class_in_half_precision_stays_finite(kind: int) -> None:
    torch.manual_seed(0)
    model = CondInst(1, TINY)
    with torch.autocast("cpu", torch.bfloat16):
        one = replace(targets([kind, kind]), labels=torch.zeros(2, dtype=torch.int64))
        found = model.losses(model.encode(pictures()[:1], SIZES[:1]), [one], 9999)
    torch.stack(list(found.values())).sum().backward()
    assert all(value.dtype == torch.float32 for value in found.values())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def state_of(model: CondInst) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}


def test_choosing_points_changes_no_statistics() -> None:
    """Official code runs the mask branch's batch norms in training mode for it."""
    model = network(replace(TINY, branch_norm="batch"))
    with pytest.raises(AssertionError, match="statistics"):
        model.predictions_of(model.encode(pictures()), [BOXES, BOXES])
    model.eval()
    before = state_of(model)
    together = model.predictions_of(model.encode(pictures(), SIZES), [BOXES, BOXES[:1]])
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert [len(own) for own in together] == [3, 1] and together[0][0].shape[1:] == (32, 32)
    alone = model.predictions_of(model.encode(pictures()[:1], SIZES[:1]), [BOXES])
    for one, other in zip(together[0], alone[0], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_frozen_statistics_stay_in_training() -> None:
    settings = Settings(
        widths=(4,), depths=(1, 1, 1, 1), channels=8, groups=4, convs=1, branch_channels=8,
        branch_convs=1,
    )  # fmt: skip
    model = network(settings).train()
    before = state_of(model)
    found = model.losses(model.encode(pictures(), SIZES), [targets(MIXED), targets([0])], 0)
    torch.stack(list(found.values())).sum().backward()
    changed = {k for k, value in model.state_dict().items() if not torch.equal(value, before[k])}
    assert changed and all(key.startswith("branch.") for key in changed)
    trained = {name.split(".")[1] for name, p in model.backbone.named_parameters("backbone")
               if p.grad is not None}  # fmt: skip
    assert trained == {"layer2", "layer3", "layer4"}


def test_what_lies_outside_of_a_picture_is_not_looked_at() -> None:
    model, images = network().eval(), pictures()
    other = images.clone()
    other[0, :, 90:], other[1, :, :, 80:] = 7.0, 200.0
    wide = torch.nn.functional.pad(images, (0, 8, 0, 28), value=99.0)  # to the same 128 x 128
    first = model.encode(images, SIZES)
    for again in (model.encode(other, SIZES), model.encode(wide, SIZES)):
        torch.testing.assert_close(again.features, first.features)
        found = model.losses(again, [targets(MIXED), targets([1])], 5)
        for name, value in model.losses(first, [targets(MIXED), targets([1])], 5).items():
            torch.testing.assert_close(found[name], value)


def test_masks_of_given_places() -> None:
    model = network().eval()
    encoded = model.encode(pictures(), SIZES)
    outputs = model.head(encoded)
    index = torch.tensor([[1, 0, 3, 4], [0, 2, 1, 0]])
    found = model.at_locations(encoded, index)
    places = torch.tensor([outputs.place(0, 3, 4), outputs.place(2, 1, 0)])
    queries = Queries.of(outputs, index[:, 0], places * 0, places)
    torch.testing.assert_close(found, model.masks(encoded, queries))
    assert queries.centres.tolist() == [[36, 28], [16, 48]]
    assert model.at_locations(encoded, index[:0], outputs).shape == (0, 32, 32)


def test_detections_end_at_their_boxes_and_at_the_picture() -> None:
    model = network().eval()
    nn.init.constant_(model.fcos.bbox_pred.bias, 2.5)
    encoded = model.encode(pictures(), SIZES)
    first, second = model.detect(encoded, [(180, 240), (50, 40)])
    assert len(first) and len(second)
    for one, (height, width) in ((first, (180, 240)), (second, (50, 40))):
        assert one.masks is not None and one.scores is not None
        assert one.masks.shape[1:] == (height, width)
        assert (one.boxes >= 0).all() and (one.boxes[:, 2:] <= [width, height]).all()
        assert (one.scores[:-1] >= one.scores[1:]).all()
        for mask, (x0, y0, x1, y1) in zip(one.masks, one.boxes.astype(int), strict=True):
            mask[y0:y1, x0:x1] = False
            assert not mask.any()
    alone = model.detect(model.encode(pictures()[1:, :, :100, :80]))
    own = model.detect(encoded)[1]
    assert alone[0].boxes.shape == own.boxes.shape


def test_what_cannot_work_is_refused() -> None:
    with pytest.raises(ValueError, match="must be 3 rising numbers for 4 levels"):
        replace(SMALL, bounds=(64, 128))
    with pytest.raises(ValueError, match="one must be 0"):
        replace(SMALL, per_picture=64)
    with pytest.raises(ValueError, match="groups 7 must divide"):
        replace(SMALL, groups=7)
    assert Settings().mask.extents == (64, 128, 256, 512, 1024)
