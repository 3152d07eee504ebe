"""Games: axioms, definitions, other people's numbers, and what an estimate promises."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tenfold.systems.loupe import games, scores
from tenfold.systems.loupe.games import Sampling, crossed, exact, sampled, tokens

SHAPIQ = json.loads((Path(__file__).parent / "shapiq.json").read_text())
INDICES = [None, 0.5, 0.3]


def close(a: Tensor, b: Tensor, limit: float = 1e-12) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=limit)


def random_table(players: int, seed: int = 0) -> Tensor:
    values = torch.from_numpy(np.random.RandomState(seed).standard_normal(2**players))
    return values - values[0]


def score_of(table: Tensor) -> exact.Score:
    """A table as a score."""
    powers = 2 ** torch.arange(table.shape[-1].bit_length() - 1)
    return lambda masks: table[(masks.long() * powers).sum(1)]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def regions(*chosen: list[int], players: int) -> Tensor:
    found = torch.zeros(len(chosen), players, dtype=torch.bool)
    for row, members in zip(found, chosen, strict=True):
        row[members] = True
    return found


def vectors(*shape: int, seed: int = 0) -> Tensor:
    drawn = np.random.RandomState(seed).standard_normal(shape)
    return torch.from_numpy(drawn + 0.3)


# --- exact ---------------------------------------------------------------------------------------


def test_numbers_of_shapiq() -> None:
    seed = zlib.crc32(b"oracle.v_table") & 0xFFFFFFFF
    drawn = np.random.RandomState(seed).standard_normal(128).astype(np.float32).astype(float)
    drawn[0] = 0
    table = torch.from_numpy(drawn)
    for name, p in (("SV", None), ("BV", 0.5)):
        close(exact.values(table, p), torch.tensor([*SHAPIQ[name].values()], dtype=torch.double))
    for name, p in (("SII", None), ("BII", 0.5), ("FBII", 0.5)):
        found = exact.pairs(table, p)
        for pair, value in SHAPIQ[name].items():
            i, j = map(int, pair.split(","))
            assert float(found[i, j]) == pytest.approx(value, abs=1e-11)
    for name, p in (("SGV", None), ("BGV", 0.5)):  # of three players as one
        chosen = [[int(i) for i in key.split(",")] for key in SHAPIQ[name]]
        found = exact.group_values(table, regions(*chosen, players=7), p)
        want = torch.tensor([*SHAPIQ[name].values()], dtype=torch.double)
        close(found, want, 1e-11)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 6), st.integers(0, 2**31 - 1))
def test_axioms(players: int, seed: int) -> None:
    table = random_table(players, seed)
    values = exact.values(table)
    close(values.sum(), table[-1])  # efficiency
    everyone = regions(list(range(players)), players=players)
    close(
        exact.interactions(table, everyone)[0], table[-1] - table[2 ** torch.arange(players)].sum()
    )
    close(exact.group_values(table, everyone)[0], table[-1])
    # a player who adds 1 to every coalition, whoever is in it
    dummy = torch.cat([table, table + 1])
    for p in INDICES:
        close(exact.values(dummy, p)[-1], torch.tensor(1.0).double())
        close(exact.values(dummy, p)[:-1], exact.values(table, p))
        close(exact.pairs(dummy, p)[-1], torch.zeros(players + 1).double())
        close(exact.pairs(table, p), exact.pairs(table, p).T)
        one = torch.eye(players, dtype=torch.bool)
        close(exact.interactions(table, one, p), torch.zeros(players).double())
        close(exact.group_values(table, one, p), exact.values(table, p))
        two = regions([0, players - 1], players=players)
        close(exact.interactions(table, two, p)[0], exact.pairs(table, p)[0, -1])


def test_players_who_are_alike_have_equal_values() -> None:
    size = exact.all_coalitions(5).sum(1).double()
    table = size**2 + (exact.all_coalitions(5)[:, 3]).double()
    values, pairs = exact.values(table), exact.pairs(table)
    close(values[[0, 1, 2]], values[[1, 2, 4]])
    assert values[3] > values[0]
    close(pairs[~torch.eye(5, dtype=torch.bool)], torch.full((20,), 2.0).double())


def test_interactions_are_sums_of_dividends() -> None:
    table, region = random_table(6), [0, 2, 5]
    masks, dividends = exact.all_coalitions(6), exact.moebius(table)
    inside = masks[:, region].sum(1)
    share = 1 / (masks.sum(1) - inside + 1).double()
    want = (dividends * share)[inside >= 2].sum()
    close(exact.interactions(table, regions(region, players=6))[0], want)
    close((dividends[:, None] * masks / masks.sum(1, keepdim=True).clamp(min=1)).sum(0),
          exact.values(table))  # fmt: skip


def test_shapley_is_the_mean_of_banzhaf_over_p() -> None:
    table, region = random_table(5), regions([1, 2, 4], players=5)
    nodes, weights = np.polynomial.legendre.leggauss(8)
    for what in (exact.values, exact.pairs, lambda t, p=None: exact.interactions(t, region, p)):
        mean = sum(w / 2 * what(table, (x + 1) / 2) for x, w in zip(nodes, weights, strict=True))
        close(mean, what(table), 1e-11)


def test_games_in_a_batch_and_in_single_precision() -> None:
    tables = torch.stack([random_table(5, 1), random_table(5, 2)])
    some = regions([0, 1, 3], [2, 4], players=5)
    for what in (exact.values, exact.pairs, exact.moebius, lambda t: exact.interactions(t, some)):
        close(what(tables), torch.stack([what(t) for t in tables]))
        torch.testing.assert_close(what(tables.float()).double(), what(tables), rtol=0, atol=1e-4)


def test_sixteen_players_are_solved() -> None:
    x, text = vectors(16, 8), vectors(8, seed=1)
    score = scores.global_cosine(x, text)
    table = exact.table(score, 16)
    close(exact.values(table).sum(), table[-1])
    close(table[-1], score(torch.ones(1, 16, dtype=torch.bool))[0])


def test_what_no_game_is() -> None:
    for players in (0, 17):
        with pytest.raises(ValueError, match=f"1 to 16 players, got {players}"):
            exact.table(lambda masks: masks.sum(1).float(), players)
    with pytest.raises(ValueError, match="floating-point numbers, got torch.int64 of shape"):
        exact.table(lambda masks: masks.sum(1), 3)
    with pytest.raises(ValueError, match="got 6 values"):
        exact.values(torch.zeros(6))
    with pytest.raises(ValueError, match="between 0 and 1, got 1.0"):
        exact.values(torch.zeros(8), 1.0)
    with pytest.raises(ValueError, match="region 1 has no player"):
        exact.interactions(torch.zeros(8), regions([0], [], players=3))
    with pytest.raises(ValueError, match="masks of 4 players, the game has 3"):
        exact.interactions(torch.zeros(8), regions([0], players=4))
    for wrong, message in (
        ({"samples": 3}, "even number of at least 4, got 3"),
        ({"samples": 1, "antithetic": False}, "at least 2, got 1"),
        ({"standard_error": -1.0}, "at least 0, got -1"),
        ({"most": 10}, "at least the 64 samples"),
    ):
        with pytest.raises(ValueError, match=message):
            Sampling(**wrong)


# --- sampled -------------------------------------------------------------------------------------


@pytest.mark.parametrize("p", INDICES)
def test_estimates_lie_within_their_errors(p: float | None) -> None:
    table = random_table(7)
    score, plan = score_of(table), Sampling(samples=512)
    some = regions([0, 1, 4], [2, 3], [0, 1, 2, 3, 4, 5], [6], players=7)
    pairs = [
        (sampled.values(score, 7, plan, p, seeded()), exact.values(table, p)),
        (sampled.pairs(score, 7, plan, p, seeded()), exact.pairs(table, p)),
        (sampled.interactions(score, some, plan, p, seeded()), exact.interactions(table, some, p)),
        (sampled.group_values(score, some, plan, p, seeded()), exact.group_values(table, some, p)),
    ]
    for found, want in pairs:
        off = (found.value - want).abs()
        assert (off <= 4 * found.standard_error + 1e-12).all() and found.samples == 512
        assert found.standard_error.max() < 0.3
    alone = pairs[2][0]
    assert alone.value[3] == alone.standard_error[3] == 0  # K = 1
    close(alone.value[2], exact.interactions(table, some, p)[2])  # one other player: both ends
    close(pairs[1][0].value, pairs[1][0].value.T)


def test_a_region_of_all_players_is_exact() -> None:
    table, everyone = random_table(4), regions([0, 1, 2, 3], players=4)
    found = sampled.interactions(score_of(table), everyone, Sampling(samples=4))
    close(found.value, exact.interactions(table, everyone))
    assert found.standard_error == 0


@pytest.mark.parametrize("plan", [(False, False), (True, False), (False, True), (True, True)])
def test_errors_are_what_estimates_vary_by(plan: tuple[bool, bool]) -> None:
    x, text = vectors(9, 12), vectors(12, seed=1)
    score, region = scores.global_cosine(x, text), regions([0, 1, 3, 4], players=9)
    want = exact.interactions(exact.table(score, 9), region)
    many = region.expand(400, -1)  # as many independent estimates
    found = sampled.interactions(score, many, Sampling(32, *plan), generator=seeded(3))
    spread = float(found.value.std())
    assert abs(float(found.value.mean() - want)) < 4 * spread / 20
    assert 0.85 < float(found.standard_error.square().mean().sqrt()) / spread < 1.6
    plain = sampled.interactions(score, many, Sampling(32, False, False), generator=seeded(4))
    if all(plan):  # same budget
        assert spread < 0.7 * float(plain.value.std())


def test_rounds_follow_until_the_error_is_small() -> None:
    score, region = score_of(random_table(7)), regions([0, 1, 2], players=7)
    one = sampled.interactions(score, region, Sampling(samples=16), generator=seeded())
    limit = float(one.standard_error) / 4
    plan = Sampling(samples=16, standard_error=limit)
    found = sampled.interactions(score, region, plan, generator=seeded())
    assert found.standard_error <= limit and found.samples > 64
    most = Sampling(samples=16, standard_error=1e-9, most=100)
    assert sampled.interactions(score, region, most, generator=seeded()).samples == 96


def test_sizes_are_drawn_evenly() -> None:
    allowed = regions([0, 1, 2, 3, 4], [0, 5, 6, 7], players=8)
    drawn = games.draws.draw(allowed, Sampling(samples=24), generator=seeded())
    assert not (drawn.masks & ~allowed[:, None]).any()
    for masks, sizes in zip(drawn.masks, (range(1, 5), range(1, 4)), strict=True):
        count = masks.sum(1).bincount(minlength=9)
        assert [int(count[s]) for s in sizes] == [24 // len(sizes)] * len(sizes)
        close((masks[:12] ^ masks[12:]).sum(1), torch.full((12,), len(sizes) + 1))
    close(drawn.ends, torch.tensor([[1 / 6, 1 / 6], [1 / 5, 1 / 5]]).double(), 1e-7)
    plain = games.draws.draw(allowed, Sampling(4000, False, False), 0.3, seeded())
    rates = plain.masks.double().mean(1)
    close(rates, 0.3 * allowed.double(), 0.03)


def test_given_coalitions_are_checked() -> None:
    score = score_of(random_table(4))
    wrong = games.given([[0, 1, 2]], [2], 4)
    with pytest.raises(ValueError, match="without members of the region"):
        sampled.interactions(score, regions([0, 3], players=4), draws=wrong)


# --- tokens --------------------------------------------------------------------------------------


def masked_sums(x: Tensor, text: Tensor) -> exact.Score:
    """The cosine without closed forms."""

    def score(masks: Tensor) -> Tensor:
        z = masks.to(x.dtype) @ x
        return z @ (text / text.norm()) / z.norm(dim=1).clamp(min=1e-30)

    return score


@pytest.mark.parametrize("p", [None, 0.4])
def test_the_closed_form_is_the_masked_evaluation(p: float | None) -> None:
    x, text = 50 * vectors(20, 6), vectors(6, seed=1)
    closed, plain = scores.global_cosine(x, text), masked_sums(x, text)
    assert isinstance(closed, sampled.Changes) and not isinstance(plain, sampled.Changes)
    masks = torch.rand(50, 20, generator=seeded()) < 0.3
    masks[0] = False
    close(closed(masks), plain(masks))
    plan = Sampling(samples=16)
    some = regions([0, 1], [3, 5, 7, 19], list(range(20)), players=20)
    for what in ("values", "pairs"):
        found, want = (
            getattr(sampled, what)(score, 20, plan, p, seeded()) for score in (closed, plain)
        )
        close(found.value, want.value, 1e-10)
        close(found.standard_error, want.standard_error, 1e-10)
    for what in (sampled.interactions, sampled.group_values):
        found, want = (what(score, some, plan, p, seeded()) for score in (closed, plain))
        close(found.value, want.value, 1e-10)
    single = scores.global_cosine(x.float().requires_grad_(), text.float())
    assert not sampled.interactions(single, some, plan, p).value.requires_grad
    single = sampled.values(single, 20, plan, p, seeded())
    want = sampled.values(plain, 20, plan, p, seeded())
    torch.testing.assert_close(single.value.double(), want.value, rtol=0, atol=1e-4)


def test_images_in_a_batch_under_several_texts() -> None:
    x, texts = vectors(3, 12, 5), vectors(3, 4, 5, seed=1)
    some = (torch.rand(3, 6, 12, generator=seeded()) < 0.3) | regions([0], players=12)
    drawn = games.draws.draw(~some, Sampling(samples=8), generator=seeded())
    found = tokens.interactions(x, texts, some, draws=drawn)
    for i in range(3):
        one = games.Draws(drawn.masks[i], drawn.ends[i], True, True)
        for j in range(4):
            plain = masked_sums(x[i], texts[i, j])
            want = sampled.interactions(plain, some[i], draws=one)
            close(found.value[i, :, j], want.value, 1e-10)
            close(found.standard_error[i, :, j], want.standard_error, 1e-10)
    half = tokens.interactions(x.bfloat16(), texts.bfloat16(), some, draws=drawn)
    assert half.value.dtype == torch.float32
    torch.testing.assert_close(half.value.double(), found.value, rtol=0, atol=0.1)


def test_a_contrast_in_closed_form(monkeypatch: pytest.MonkeyPatch) -> None:
    x, texts = vectors(3, 12, 5), vectors(3, 4, 5, seed=1)
    some = (torch.rand(3, 6, 12, generator=seeded()) < 0.3) | regions([0], players=12)
    some[0, 0] = True
    drawn = games.draws.draw(~some, Sampling(samples=8), generator=seeded())
    found = tokens.interactions(x, texts, some, draws=drawn, contrast=20.0)
    for i in range(3):
        one = games.Draws(drawn.masks[i], drawn.ends[i], True, True)
        score = scores.contrast(x[i], texts[i], 20.0)
        want = sampled.interactions(score, some[i], draws=one)
        close(found.value[i, :, 0], want.value, 1e-10)
        close(found.standard_error[i, :, 0], want.standard_error, 1e-10)
    monkeypatch.setattr(tokens, "CACHED", 1)  # an image at once
    close(tokens.interactions(x, texts, some, draws=drawn, contrast=20.0).value, found.value)
    plain = tokens.interactions(x, texts, some, draws=drawn).value
    monkeypatch.undo()
    close(plain, tokens.interactions(x, texts, some, draws=drawn).value)


def test_twenty_regions_within_four_errors() -> None:
    x, text = vectors(1, 9, 16), vectors(1, 1, 16, seed=1)
    some = torch.rand(1, 20, 9, generator=seeded()) < 0.4
    some[..., 0] = True
    found = tokens.interactions(x, text, some, Sampling(samples=64), generator=seeded())
    want = exact.interactions(exact.table(scores.global_cosine(x[0], text[0, 0]), 9), some[0])
    off = (found.value[0, :, 0] - want).abs()
    assert (off <= 4 * found.standard_error[0, :, 0] + 1e-12).all()


def test_tokens_without_length_count_nothing() -> None:
    x = torch.cat([vectors(3, 4), torch.zeros(2, 4)])
    score = scores.global_cosine(x, vectors(4, seed=1))
    assert exact.values(exact.table(score, 5))[3:].abs().max() < 1e-12
    found = sampled.pairs(score, 5, Sampling(samples=16))
    assert found.value.isfinite().all() and found.value[3:].abs().max() < 1e-12
    nothing = scores.global_cosine(torch.zeros(3, 4), torch.zeros(4))
    assert exact.table(nothing, 3).abs().max() == 0


# --- scores --------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 7), st.integers(1, 5), st.integers(0, 2**31 - 1))
def test_no_region_gains_where_absent_patches_are_zero(patches: int, words: int, seed: int) -> None:
    """The score is submodular: the bracket of no coalition is above 0."""
    random = np.random.RandomState(seed)
    x, y = vectors(patches, 4, seed=seed), vectors(words, 4, seed=seed + 1)
    table = exact.table(scores.fine_zero(scores.similarities(x, y)), patches)
    some = torch.from_numpy(random.random_sample((6, patches)) < 0.5)
    some[:, 0] = True
    for p in INDICES:
        assert (exact.interactions(table, some, p) <= 1e-12).all()
        assert (exact.pairs(table, p) <= 1e-12).all()


def test_the_share_among_texts() -> None:
    x, texts = vectors(6, 5), vectors(4, 5, seed=1)
    table = exact.table(scores.contrast(x, texts, 10.0), 6)
    z = x[[0, 2]].sum(0)
    cosines = 10 * (texts / texts.norm(dim=1, keepdim=True)) @ (z / z.norm())
    close(table[0b101], cosines.log_softmax(0)[0] + np.log(4))
    assert table[0] == 0


def test_an_encoder_as_a_game() -> None:
    x, text = vectors(5, 3), vectors(3, seed=1)
    absent = vectors(3, seed=2)

    def encode(masks: Tensor) -> Tensor:
        return torch.where(masks[..., None], x, absent).mean(1).tanh()

    table = exact.table(scores.encoder(encode, text), 5)
    both = encode(torch.stack([torch.arange(5) < 2, torch.arange(5) < 0]))
    cosine = torch.cosine_similarity(both, text[None])
    close(table[0b11], cosine[0] - cosine[1])
    with pytest.raises(ValueError, match="without a word"):
        scores.similarities(x, x, torch.zeros(5, dtype=torch.bool))


# --- two sides -----------------------------------------------------------------------------------


def test_all_coalitions_of_two_sides_give_the_index() -> None:
    table = random_table(7)
    first, second = exact.all_coalitions(3), exact.all_coalitions(4)
    both = torch.cat([first[:, None].expand(-1, 16, -1), second.expand(8, -1, -1)], 2)
    values = exact.evaluate(score_of(table), both)
    found = crossed.interactions(values, first, second)
    close(found.value, exact.pairs(table, 0.5)[:3, 3:])
    sides = crossed.values(values, first, second)
    close(torch.cat([side.value for side in sides]), exact.values(table, 0.5))


def test_errors_of_two_sides() -> None:
    table = random_table(8, 5) / 4
    want, values_wanted = exact.pairs(table, 0.3)[:4, 4:], exact.values(table, 0.3)
    found, alone = [], []
    for seed in range(30):
        generator = seeded(seed)
        first, second = crossed.masks(4, 60, 0.3, generator), crossed.masks(4, 40, 0.3, generator)
        both = torch.cat([first[:, None].expand(-1, 40, -1), second.expand(60, -1, -1)], 2)
        values = exact.evaluate(score_of(table), both)
        found.append(crossed.interactions(values, first, second))
        alone.append(crossed.values(values, first, second))
    value = torch.stack([one.value for one in found])
    error = torch.stack([one.standard_error for one in found])
    assert ((value.mean(0) - want).abs() < 4 * value.std(0) / 30**0.5 + 0.01).all()
    assert 0.75 < float(error.mean() / value.std(0).mean()) < 1.5
    value = torch.stack([torch.cat([side.value for side in one]) for one in alone])
    error = torch.stack([torch.cat([side.standard_error for side in one]) for one in alone])
    assert ((value.mean(0) - values_wanted).abs() < 4 * value.std(0) / 30**0.5 + 0.01).all()
    assert 0.75 < float(error.mean() / value.std(0).mean()) < 1.5
    with pytest.raises(ValueError, match="5 coalitions cannot tell 4 players apart"):
        crossed.masks(4, 5)
    with pytest.raises(ValueError, match="as many rows and columns of values"):
        crossed.interactions(values.T, first, second)
