"""Losses, regions, semantics, predictor, phrases and zero-shot heads of LOUPE."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor

if __name__ != "__main__":
    import forked

from tenfold.systems.loupe import loss, phrases, regions, semantics, unsil, zero_shot
from tenfold.systems.loupe.games import Estimate, exact


def close(a: Tensor, b: Tensor, limit: float = 1e-12) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=limit)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.RandomState(seed).standard_normal(shape))


def unit(x: Tensor) -> Tensor:
    return x / x.norm(dim=-1, keepdim=True)


# --- losses --------------------------------------------------------------------------------------


def contrast_of(part: slice) -> list[Tensor]:
    """Losses of a part of a batch, and the gradients of all its rows."""
    images, texts = unit(drawn(6, 4)).requires_grad_(), unit(drawn(6, 4, seed=1)).requires_grad_()
    captions = torch.tensor([5, 7, 5, 8, 9, 7])
    words = drawn(6, 3, 4, seed=2).requires_grad_()
    is_word = torch.tensor([[1, 1, 1], [1, 0, 0], [1, 1, 0]] * 2).bool()
    plain = loss.contrastive_loss(images[part], texts[part], 9.0, captions[part])
    patches = images[:, None] + torch.zeros(6, 2, 1)
    fine = loss.fine_loss(patches[part], words[part], is_word[part], 9.0, captions[part])
    (plain + fine).backward()
    grads = [x.grad for x in (images, texts, words)]
    return [plain.detach(), fine.detach(), *grads]


def test_equal_captions_are_no_negatives() -> None:
    images, texts = unit(drawn(3, 4)), unit(drawn(3, 4, seed=1))
    found = loss.contrastive_loss(images, texts, 2.0, torch.tensor([4, 6, 4]))
    logits = 2 * images @ texts.T
    logits[0, 2] = logits[2, 0] = -torch.inf
    rows, columns = logits.log_softmax(1).diagonal(), logits.log_softmax(0).diagonal()
    close(found, -(rows + columns).mean() / 2)
    high = loss.contrastive_loss(images, texts, torch.tensor(1e9).double())
    close(high, loss.contrastive_loss(images, texts, 100.0))


def test_two_processes_have_the_loss_of_one(tmp_path: Path) -> None:
    done = forked.torchrun(2, __file__, tmp_path)
    assert done.returncode == 0, done.stderr
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    for one, other, whole in zip(first, second, contrast_of(slice(0, 6)), strict=True):
        close((one + other) / 2, whole)


def test_the_gradient_of_the_token_loss() -> None:
    logits = drawn(2, 4).requires_grad_()
    interaction = drawn(2, 4, seed=1).requires_grad_()
    target = loss.token_targets(interaction)
    assert (target.amin(1) == 0).all() and not target.requires_grad
    loss.token_loss(logits.sigmoid(), target).backward()
    close(logits.grad, (logits.sigmoid() - target).detach() / 8)
    sure = torch.tensor([[0.0, 1.0]], requires_grad=True)
    assert loss.token_loss(sure, 1 - sure.detach()).isfinite()


def test_regions_that_do_not_count() -> None:
    interaction = torch.tensor([[9.0, 1.0, 2.0, 1.5], [0.0, 0.0, 0.0, 0.0]])
    counted = torch.tensor([[False, True, True, True], [True, True, False, False]])
    target = loss.token_targets(interaction, counted)
    close(target, torch.tensor([[1.0, 0.0, 1.0, 0.5], [0.0, 0.0, 0.0, 0.0]]), 1e-6)
    confidence = torch.tensor([[0.5, 0.2, 0.9, 0.5], [0.3, 0.3, 0.9, 0.9]])
    some = loss.token_loss(confidence[:1], target[:1], counted[:1])
    close(some, loss.token_loss(confidence[:1, 1:], target[:1, 1:]))
    error = torch.full((2, 4), 0.4)
    assert loss.is_clear(interaction, error, counted).tolist() == [True, False]
    assert loss.is_clear(interaction, 2 * error, counted).tolist() == [False, False]
    assert (
        loss.is_clear(interaction, error, torch.tensor([[True, False, False, False]] * 2)).sum()
        == 0
    )


def test_targets_have_no_gradient_and_rows_may_be_empty() -> None:
    alignment = drawn(2, 3, 4).requires_grad_()
    shares = semantics.shares(alignment)
    interaction = semantics.interactions(shares.detach())
    interaction[0, 1] = -1
    target = semantics.targets(interaction)
    assert target[0, 1].sum() == 0
    close(target.sum(2).flatten(), (target.sum(2) > 0).double().flatten())
    found = loss.semantic_loss(shares, target.requires_grad_())
    found.backward()
    want = (target.sum(2, keepdim=True) * shares - target) / 0.1 / (target.sum(2) > 0).sum()
    close(alignment.grad, want.detach())
    assert target.grad is None
    assert loss.semantic_loss(shares, torch.zeros_like(shares)) == 0


def test_only_sampled_interactions_teach_the_predictor() -> None:
    mean, log_variance = drawn(5).requires_grad_(), drawn(5, seed=1).requires_grad_()
    sampled = torch.tensor([1, 0, 0, 1, 0]).bool()
    found = loss.predictor_loss(mean, log_variance, drawn(5, seed=2), sampled)
    found.backward()
    assert (mean.grad != 0).tolist() == sampled.tolist()
    nothing = loss.predictor_loss(mean, log_variance, drawn(5), torch.zeros(5).bool())
    assert nothing == 0
    close(loss.predictor_loss(mean, log_variance + 90, mean), torch.tensor(2.0).double())


# --- semantics -----------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [None, 0.5, 0.3])
def test_interactions_by_sorting_are_those_of_the_table(p: float | None) -> None:
    """Of images with different numbers of regions and phrases, with equal shares among them."""
    counts = [(4, 3), (1, 3), (3, 1), (1, 1), (2, 4), (0, 2), (4, 0)]
    is_region = torch.tensor([[i < m for i in range(4)] for m, _ in counts])
    is_phrase = torch.tensor([[j < n for j in range(4)] for _, n in counts])
    found = (semantics.shares(drawn(7, 4, 4), is_phrase, 0.5) * 20).round() / 20
    got = semantics.interactions(found, is_region, is_phrase, p)
    for one, interaction, (m, n) in zip(found, got, counts, strict=True):
        assert interaction[m:].abs().sum() == interaction[:, n:].abs().sum() == 0
        if m and n:
            table = exact.table(semantics.score(one[:m, :n]), m + n)
            close(interaction[:m, :n], exact.pairs(table, p)[:m, m:])
    torch.testing.assert_close(
        semantics.interactions(found.float(), is_region, is_phrase, p).double(), got,
        rtol=0, atol=1e-5,
    )  # fmt: skip


def test_shares_of_an_image_without_a_phrase_are_nothing() -> None:
    found = semantics.shares(drawn(1, 2, 3), torch.zeros(1, 3).bool())
    assert found.abs().sum() == 0


# --- regions -------------------------------------------------------------------------------------


def test_boxes_of_a_head_that_has_not_learned() -> None:
    head = regions.RegionHead(8, 4)
    scores, boxes = head(torch.randn(2, 16, 8))
    assert (scores - 0.5).abs().max() < 0.1
    assert (boxes[..., 2:] - boxes[..., :2] - 0.35).abs().max() < 0.05
    centre = (boxes[..., :2] + boxes[..., 2:]) / 2
    at = regions.centres(4, centre)
    assert ((centre - at).abs() <= 0.125).all()
    assert at[1].tolist() == [0.375, 0.125]  # row by row


def test_any_box_has_a_patch() -> None:
    boxes = torch.tensor([[0.1, 0.1, 0.6, 0.3], [0.3, 0.9, 0.3, 0.9], [-2.0, 1.5, -1.9, 3.0]])
    found = regions.hard_members(boxes, 4)
    assert [row.nonzero()[:, 0].tolist() for row in found] == [[0, 1], [13], [12]]


def test_the_gradient_of_soft_regions_reaches_the_boxes() -> None:
    tokens = drawn(9, 5)

    def pooled(o: Tensor) -> Tensor:
        o = o.sigmoid()
        centre = (torch.arange(3)[:, None] + o[:, :2]) / 3
        boxes = torch.cat([centre - o[:, 2:] / 2, centre + o[:, 2:] / 2], 1)
        return regions.pooled(tokens, regions.soft_members(boxes, 3))

    assert torch.autograd.gradcheck(pooled, drawn(3, 4, seed=1).requires_grad_())


def test_fewer_boxes_than_asked() -> None:
    boxes = torch.tensor([[[0, 0, 1, 1], [0, 0, 1, 0.9], [0, 0, 0.1, 0.1]]]).expand(2, -1, -1)
    scores = torch.tensor([[0.4, 0.4, 0.1], [0.1, 0.2, 0.9]])
    index, there = regions.select(scores, boxes, 3)
    assert there.tolist() == [[True, True, False]] * 2
    assert index[:, :2].tolist() == [[0, 2], [2, 1]]


def test_drawn_sizes_and_their_probability() -> None:
    boxes = torch.tensor([[[0.2, 0.3, 0.6, 0.5]]], dtype=torch.double).requires_grad_()
    same, chance = regions.jittered(boxes.expand(500, -1, -1), 0.2)
    assert not same.requires_grad
    size = (same[..., 2:] - same[..., :2]).log().flatten(0, 1)
    close(size.mean(0), torch.tensor([0.4, 0.2]).double().log(), 0.04)
    close(size.std(0), torch.full((2,), 0.2).double(), 0.03)
    want = -((size - size.new_tensor([0.4, 0.2]).log()) / 0.2).square().sum(1) / 2
    close(chance.detach().flatten(), want)
    reward = (same[..., 2] - same[..., 0]).view(1, 500)
    loss.box_loss(chance.view(1, 500), reward, torch.ones(1, 500).bool()).backward()
    wider = boxes.grad[0, 0, 2] - boxes.grad[0, 0, 0]
    assert wider < 0  # where wide boxes are rewarded, descent makes the box wider


# --- predictor -----------------------------------------------------------------------------------


def test_when_a_game_is_sampled() -> None:
    deviation = torch.tensor([0.1, 0.6, 0.4, 2.0]).repeat(1000)
    none = unsil.to_sample(deviation, share=0.0)
    assert none[:4].tolist() == [False, True, False, True]
    assert unsil.to_sample(deviation, always=True).all()
    some = unsil.to_sample(deviation, generator=torch.Generator().manual_seed(0))
    assert 0.03 < float(some.view(-1, 4)[:, [0, 2]].double().mean()) < 0.07


def test_running_units() -> None:
    standard = unsil.Standard(momentum=0.1)
    values = 3 + 0.01 * torch.randn(2000, generator=torch.Generator().manual_seed(0))
    for part in values.split(500):
        standard.update(part)
    assert float(standard.mean) == pytest.approx(float(values.mean()), abs=1e-4)
    assert float(standard.deviation) == pytest.approx(0.01, rel=0.2)
    close(standard.restored(standard.standardised(values)), values, 1e-5)
    before = {k: v.clone() for k, v in standard.state_dict().items()}
    standard.update(values[:0])
    assert all(torch.equal(v, before[k]) for k, v in standard.state_dict().items())
    assert int(standard.seen) == 4


def test_only_unsure_predictions_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network, standard = unsil.Unsil(4), unsil.Standard()
    standard.update(torch.tensor([0.1, 0.3]))
    tokens, text = torch.randn(3, 5, 4, requires_grad=True), torch.randn(3, 4)
    regions_of = torch.rand(3, 4, 5) < 0.4
    regions_of[..., 0] = True
    wanted = torch.tensor([[0, 1, 0, 1], [0, 0, 0, 0], [1, 0, 0, 0]]).bool()
    monkeypatch.setattr(unsil, "to_sample", lambda *_: wanted)
    asked = []

    def game(images: Tensor, some: Tensor) -> Estimate:
        asked.append((images.tolist(), some))
        size = some.sum(2) + 10.0 * images[:, None]
        return Estimate(size, torch.full_like(size, 0.5), 64)

    found = unsil.hybrid(network, standard, tokens, text, regions_of, game)
    ((images, some),) = asked
    assert images == [0, 2] and some.shape == (2, 2, 5)
    size = regions_of.sum(2) + 10.0 * torch.arange(3)[:, None]
    assert torch.equal(found.interaction[wanted], size[wanted])
    guessed = standard.restored(found.predicted)[~wanted]
    close(found.interaction[~wanted], guessed.detach())
    assert (found.standard_error[wanted] == 0.5).all() and torch.equal(found.sampled, wanted)
    loss.predictor_loss(
        found.predicted, found.log_variance, standard.standardised(found.interaction), wanted
    ).backward()
    assert tokens.grad is None and network.out.weight.grad.abs().sum() > 0
    wanted = torch.zeros(3, 4).bool()
    unsil.hybrid(network, standard, tokens, text, regions_of, game)
    assert len(asked) == 1


def test_a_predictor_of_a_game_of_one() -> None:
    network = unsil.Unsil(4)
    found = network(torch.randn(2, 1, 4), torch.randn(2, 4), torch.ones(2, 3, 1).bool())
    assert all(one.isfinite().all() and one.shape == (2, 3) for one in found)


# --- phrases and zero-shot -----------------------------------------------------------------------


def test_phrases_of_a_caption() -> None:
    text = "2 red kites fly over the old town, and a boy's dog barks"
    spans = phrases.spans(text)
    want = ["2 red kites fly", "the old town", "a boy's dog barks"]
    assert [text[a:b] for a, b in spans] == want
    assert len(phrases.spans("a b, " * 20)) == phrases.MOST
    for nothing in ("", "...", "the of a", "\u00e9"):
        assert phrases.spans(nothing) == []


def test_detections_of_a_class_do_not_overlap() -> None:
    boxes = torch.tensor([[0, 0, 1, 1], [0, 0, 1, 0.9], [0, 0, 1, 0.8]])
    shares = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]])
    found = zero_shot.detect(boxes, torch.tensor([0.5, 0.9, 0.4]), shares)
    assert found.labels.tolist() == [0, 1]
    close(found.scores, torch.tensor([0.54, 0.32]), 1e-6)
    few = zero_shot.detect(boxes, torch.tensor([0.5, 0.9, 0.4]), shares, least=0.5)
    assert few.labels.tolist() == [0]
    assert len(zero_shot.detect(boxes, torch.zeros(3), shares).boxes) == 0


def test_the_box_of_a_map() -> None:
    values = np.zeros((4, 8))
    values[0, 0] = 1.0
    values[1:3, 4:7] = 0.5
    assert zero_shot.box_of_map(values) == (0.5, 0.25, 0.875, 0.75)
    assert zero_shot.box_of_map(-values) == (0, 0, 1, 1)


if __name__ == "__main__":
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    torch.save(contrast_of(slice(3 * rank, 3 * rank + 3)), Path(sys.argv[1]) / f"{rank}.pt")
    dist.destroy_process_group()
