"""How good an explanation is, on games whose answer is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tenfold.systems.loupe import faithfulness
from tenfold.systems.loupe.faithfulness import by_pairs, by_value, curves, explained_share, pointing
from tenfold.systems.loupe.games import crossed, exact

FIRST, SECOND = 5, 3
VALUES = torch.tensor([3.0, -1.0, 0.5, 2.0, 0.0, 1.0, -2.0, 0.25]).double()


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pairs_of(*strengths: tuple[int, int, float]) -> Tensor:
    table = torch.zeros(8, 8).double()
    for i, j, value in strengths:
        table[i, j] = table[j, i] = value
    return table


BETWEEN = pairs_of((0, 5, 2.0), (1, 7, -3.0), (4, 6, 1.0))
WITHIN = BETWEEN + pairs_of((0, 3, 2.0), (5, 7, -1.5))


def game(pairs: Tensor, cubic: float = 0.0) -> exact.Score:
    def score(masks: Tensor) -> Tensor:
        x = masks.double()
        triple = x[:, 0] * x[:, 1] * x[:, 5]
        return 0.7 + x @ VALUES + (x @ pairs * x).sum(1) / 2 + cubic * triple

    return score


def crossed_values(score: exact.Score, first: crossed.Side, second: crossed.Side) -> Tensor:
    a, b = first.masks, second.masks
    both = torch.cat([a[:, None].expand(-1, len(b), -1), b.expand(len(a), -1, -1)], 2)
    return exact.evaluate(score, both)


def sides(p: float, rows: int, seed: int) -> tuple[crossed.Side, crossed.Side]:
    generator = seeded(seed)
    first = crossed.Side(crossed.masks(FIRST, rows, p, generator))
    return first, crossed.side(SECOND, 64, p, generator)


@pytest.mark.parametrize("p", [0.5, 0.3])
def test_a_polynomial_of_second_order_is_found_whole(p: float) -> None:
    first, second = sides(p, 60, 0)
    assert second.chances is not None and crossed.enough(first)
    found = crossed_values(game(WITHIN), first, second)
    made = crossed.polynomial(found, first, second)
    torch.testing.assert_close(made.pairs, WITHIN, rtol=0, atol=1e-9)
    fresh = sides(p, 40, 1)
    want = crossed_values(game(WITHIN), *fresh)
    share = explained_share(want, made.crossed(fresh[0].masks, fresh[1].masks), *fresh)
    assert share.value == pytest.approx(1, abs=1e-12) and share.standard_error < 1e-9
    every = exact.all_coalitions(8)
    torch.testing.assert_close(made(every), game(WITHIN)(every), rtol=0, atol=1e-9)
    alone = crossed.polynomial(found, first, second, order=1)
    heat = explained_share(want, alone.crossed(fresh[0].masks, fresh[1].masks), *fresh)
    assert 0 < heat.standard_error < 0.2 and heat.value < 1 - 2 * heat.standard_error
    with pytest.raises(ValueError, match="order 1 or 2, got 3"):
        crossed.polynomial(found, first, second, order=3)


def test_a_heat_map_says_all_of_a_sum() -> None:
    first, second = sides(0.5, 60, 0)
    found = crossed_values(game(torch.zeros(8, 8).double()), first, second)
    alone = crossed.polynomial(found, first, second, order=1)
    torch.testing.assert_close(alone.players, VALUES, rtol=0, atol=1e-9)
    share = explained_share(found, alone.crossed(first.masks, second.masks), first, second)
    assert share.value == pytest.approx(1, abs=1e-12)


def test_the_share_of_a_cubic_game_and_its_error() -> None:
    """By all coalitions, the share is that of the variance that its dividends of order 1 and 2
    have; estimates from some vary about it by their error."""
    score = game(BETWEEN, cubic=4.0)
    whole = crossed.side(FIRST, 32), crossed.side(SECOND, 32)
    found = crossed_values(score, *whole)
    made = crossed.polynomial(found, *whole)
    said = made.crossed(whole[0].masks, whole[1].masks)
    exactly = explained_share(found, said, *whole)
    left = 4.0**2 / 64  # of x1 x2 x3, whose part of third order is a product of +-1/2
    assert exactly.standard_error == 0
    assert exactly.value == pytest.approx(1 - left / float(found.var(correction=0)))
    drawn = []
    for seed in range(40):
        fresh = sides(0.5, 40, seed)
        want = crossed_values(score, *fresh)
        drawn.append(explained_share(want, made.crossed(fresh[0].masks, fresh[1].masks), *fresh))
    spread = torch.tensor([one.value for one in drawn]).std()
    mean = faithfulness.mean_of([one.value for one in drawn])
    assert abs(mean.value - exactly.value) < 4 * mean.standard_error + 0.01
    error = sum(one.standard_error for one in drawn) / len(drawn)
    assert 0.6 < error / float(spread) < 1.6
    flat = torch.ones_like(found)
    assert explained_share(flat, flat, *whole).value == 0
    worse = explained_share(found, -said, *whole)
    assert worse.value < 0


def test_a_side_of_all_coalitions_is_exact() -> None:
    """Interactions and values with p, without error from that side."""
    score = game(WITHIN, cubic=4.0)
    table = exact.table(score, 8)
    for p in (0.5, 0.3):
        first, second = crossed.side(FIRST, 32, p), crossed.side(SECOND, 8, p)
        found = crossed_values(score, first, second)
        between = crossed.interactions(found, first, second)
        values = crossed.values(found, first, second)
        want = exact.pairs(table, p)
        close = {"rtol": 0, "atol": 1e-9}
        torch.testing.assert_close(between.value, want[:FIRST, FIRST:], **close)
        torch.testing.assert_close(
            torch.cat([one.value for one in values]), exact.values(table, p), **close
        )
        mean = found @ second.chances.double()
        torch.testing.assert_close(crossed.pairs(mean, first).value, want[:FIRST, :FIRST], **close)
        assert between.standard_error.max() == values[0].standard_error.max() == 0
    drawn, second = crossed.Side(crossed.masks(FIRST, 200, 0.5, seeded())), crossed.side(SECOND, 8)
    found = crossed_values(score, drawn, second)
    between = crossed.interactions(found, drawn, second)
    off = (between.value - exact.pairs(table, 0.5)[:FIRST, FIRST:]).abs()
    assert (off < 4 * between.standard_error + 1e-9).all() and between.standard_error.max() < 0.5
    scores = torch.stack([found @ second.chances.double(), found[:, -1]], 1)
    ours = crossed.values_of_side(scores, drawn)
    assert (ours.value[:, 0] - exact.values(table, 0.5)[:FIRST]).abs().max() < 0.5
    with pytest.raises(ValueError, match="200 coalitions need as many values, got 199"):
        crossed.values_of_side(scores[1:], drawn)


# --- insertion and deletion ----------------------------------------------------------------------


def test_curves_of_a_sum() -> None:
    score = game(torch.zeros(8, 8).double())
    order = by_value(VALUES)
    assert order == [0, 3, 5, 2, 7, 4, 1, 6]
    made = curves(score, order, order)
    best = VALUES.sort(descending=True).values.cumsum(0)
    torch.testing.assert_close(made.insertion[1:], 0.7 + best)
    torch.testing.assert_close(made.deletion[1:], 0.7 + VALUES.sum() - best)
    assert made.insertion[0] == made.deletion[-1] == 0.7
    # of a sum, area over order k of n: sum of values * (n - k + 1/2) / n
    places = torch.arange(8).double()
    want = (
        float((VALUES[order] * (7.5 - places)).sum() - (VALUES[order] * (places + 0.5)).sum()) / 8
    )
    assert made.gain == pytest.approx(want)
    worst = curves(score, order[::-1], order[::-1])
    assert worst.gain == pytest.approx(-made.gain)
    random = [curves(score, o, o).gain for o in faithfulness.random_orders(8, 200, seeded())]
    mean = faithfulness.mean_of(random)
    assert abs(mean.value) < 4 * mean.standard_error and made.gain > max(random) - 1e-9
    with pytest.raises(ValueError, match="names each of its 3 players once"):
        curves(score, [0, 0, 2], [0, 1, 2])


def test_pairs_order_what_a_heat_map_cannot() -> None:
    """Two that count only together: worth little alone, together more than all others."""
    values = torch.tensor([0.0, 0.0, 1.0, 1.1, 1.6]).double()
    pairs = torch.zeros(5, 5).double()
    pairs[0, 1] = pairs[1, 0] = 3.0

    def score(masks: Tensor) -> Tensor:
        x = masks.double()
        return x @ values + (x @ pairs * x).sum(1) / 2

    centre = torch.full((5,), 0.5).double()
    game = crossed.Polynomial(0.0, values + pairs @ centre, pairs, centre)
    alone = by_value(game.players)  # 1.5 each of the pair, as in Banzhaf's value
    assert alone == [4, 0, 1, 3, 2]
    come, go = by_pairs(game, insert=True), by_pairs(game, insert=False)
    assert sorted(come[:2]) == [0, 1] and come[2:] == [4, 3, 2]
    assert go == [0, 4, 3, 2, 1], "who is left of the pair is worth nothing"
    assert curves(score, come, go).gain > curves(score, alone, alone).gain


def test_an_order_where_nothing_counts_alone() -> None:
    """The product of two sides: only from all players on can an order be told."""
    values, pairs = torch.zeros(6).double(), torch.zeros(6, 6).double()
    strength = torch.tensor([1.0, 3.0, 2.0, -1.0]).double()
    pairs[:4, 5] = pairs[5, :4] = strength
    game = crossed.Polynomial(0.0, values, pairs, torch.zeros(6).double())
    come, go = by_pairs(game, insert=True), by_pairs(game, insert=False)
    assert sorted(come[:2]) == [1, 5] and [p for p in come if p < 4] == [1, 2, 0, 3]
    assert go[0] == 5 and come[-1] == 3


# --- pointing ------------------------------------------------------------------------------------


def test_pointing() -> None:
    object_ = torch.tensor([True, True, False, False, False])
    found = pointing(torch.tensor([0.2, 0.6, 0.1, -5.0, 0.1]), object_)
    assert (found.hit, found.chance) == (1, pytest.approx(0.4))
    assert found.inside == pytest.approx(0.8)
    assert pointing(torch.tensor([0.0, 1.0, 1.0, 0.0, 0.0]), object_).hit == 0.5
    nothing = pointing(torch.full((5,), -1.0), object_)
    assert (nothing.inside, nothing.hit) == (0, pytest.approx(nothing.chance))
    with pytest.raises(ValueError, match="one or more of the map's 5 places, got 0 of 5"):
        pointing(torch.zeros(5), torch.zeros(5, dtype=torch.bool))
    assert faithfulness.mean_of([1.0, 3.0]) == faithfulness.Measured(2.0, 1.0)
    assert math.isinf(faithfulness.mean_of([1.0]).standard_error)
    with pytest.raises(ValueError, match="a mean needs a value"):
        faithfulness.mean_of([])
