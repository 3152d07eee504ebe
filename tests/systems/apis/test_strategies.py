"""The choice of pixels: always in the box, never twice, the same whoever else is asked about."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tenfold.systems.apis import strategies
from tenfold.systems.apis.strategies import (
    MEASURES,
    STRATEGIES,
    Options,
    Request,
    pixel_box,
    propose,
    propose_all,
    uncertainty,
)  # fmt: skip

NONE = np.zeros((0, 2), dtype=np.int64)
BOX = (3, 2, 10, 7)


def maps(seed: int = 0, count: int = 3, box: tuple[int, int, int, int] = BOX) -> np.ndarray:
    shape = (count, box[3] - box[1], box[2] - box[0])
    return np.random.default_rng(seed).random(shape).astype(np.float32)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 5), st.integers(0, 4), st.integers(1, 4), st.integers(1, 3), st.integers(0, 3),
    st.sampled_from(STRATEGIES), st.integers(0, 99),
)  # fmt: skip
def test_every_pixel_of_the_box_once(
    x: int, y: int, width: int, height: int, count: int, strategy: str, seed: int
) -> None:
    """Also where nothing predicts the object, and in boxes of one pixel."""
    box = (x, y, x + width, y + height)
    p = maps(seed, count, box)
    rng = np.random.default_rng(seed)
    known = np.array([[x - 1, y], [x + width, y + 1]])  # beside the box: clicks of a person
    for _ in range(width * height):
        found = propose(p, box, known, strategy, rng)
        again = propose(p, box, known, strategy, np.random.default_rng(1))
        assert found is not None and again is not None
        assert x <= found.xy[0] < x + width and y <= found.xy[1] < y + height
        assert list(found.xy) not in known.tolist()
        assert found.is_fallback == (count == 0 and strategy not in ("random", "centre"))
        place = found.xy[1] - y, found.xy[0] - x
        assert found.score == found.map[place]
        if strategy not in strategies.DRAWN and count:
            assert again.xy == found.xy
        known = np.concatenate([known, [found.xy]])
    assert propose(p, box, known, strategy, rng) is None


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_batch_is_a_loop(strategy: str) -> None:
    requests = {
        7: Request(maps(1), BOX, np.array([[4, 4]])),
        2: Request(maps(2, 0), BOX, NONE),
        9: Request(maps(3, 1, (0, 0, 1, 1)), (0, 0, 1, 1), np.array([[0, 0]])),
        5: Request(maps(4, 2), BOX, NONE),
    }
    found = propose_all(requests, strategy, (3, 1))
    assert list(found) == [7, 2, 5]  # 9 has no free pixel
    for number, one in found.items():
        request = requests[number]
        rng = np.random.default_rng([3, 1, number])
        alone = propose(request.probabilities, request.box, request.labelled, strategy, rng)
        assert alone is not None and alone.xy == one.xy
        other = propose_all({number: request}, strategy, (3, 1))[number]
        assert (other.xy, other.score) == (one.xy, one.score)


def test_the_highest_pixel_and_the_first_of_equal_ones() -> None:
    p = np.full((2, 5, 7), 0.9)
    p[:, 3, 2] = p[:, 3, 5] = 0.5
    for measure in ("entropy", "margin", "least_confidence"):
        first = propose(p, BOX, NONE, measure)
        assert first is not None and first.xy == (5, 5)
        second = propose(p, BOX, np.array([first.xy]), measure)
        assert second is not None and second.xy == (8, 5)
    drawn = Options(ties="drawn")
    seen = {
        propose(p, BOX, NONE, "entropy", np.random.default_rng(i), drawn).xy  # type: ignore[union-attr]
        for i in range(20)
    }
    assert seen == {(5, 5), (8, 5)}


def test_agreement_and_contradiction() -> None:
    """Two sure opposite predictions and two unsure ones have one mean; BALD tells them apart."""
    p = np.array([[[1.0, 0.5, 0.1]], [[0.0, 0.5, 0.1]]])
    assert uncertainty(p, "entropy")[0, 0] == pytest.approx(uncertainty(p, "entropy")[0, 1])
    bald = uncertainty(p, "bald")
    assert bald[0, 0] == pytest.approx(np.log(2)) and bald[0, 1] == pytest.approx(0, abs=1e-9)
    assert uncertainty(p, "variance").tolist() == [[0.25, 0.0, 0.0]]
    assert uncertainty(p, "vote_entropy")[0].argmax() == 0
    kl = (p * np.log((p + 1e-12) / (p.mean(0) + 1e-12))).sum(0) / 2
    q = 1 - p
    kl += (q * np.log((q + 1e-12) / (q.mean(0) + 1e-12))).sum(0) / 2
    np.testing.assert_allclose(bald, kl, atol=1e-9)  # mean divergence from the consensus


def test_centre_then_the_widest_gap() -> None:
    first = propose(maps(), BOX, NONE, "centre")
    assert first is not None and first.xy == (6, 4)
    points = [first.xy]
    for _ in range(4):
        found = propose(maps(), BOX, np.array(points), "centre")
        assert found is not None
        free = [(x, y) for x in range(3, 10) for y in range(2, 7)]
        borders = [
            (x, y) for x in range(2, 11) for y in range(1, 8) if not (2 < x < 10 and 1 < y < 7)
        ]
        gap = {a: min(np.hypot(a[0] - b[0], a[1] - b[1]) for b in points + borders) for a in free}
        assert gap[found.xy] == pytest.approx(max(gap.values()))
        points.append(found.xy)


def test_boundary_is_near_the_border_and_diverse_away_from_points() -> None:
    box = (0, 0, 20, 1)
    p = np.linspace(0.0, 0.9, 20)[None, None]
    p[0, 0, 0] = 0.5  # the most uncertain pixel, but far from where the mask begins
    found = propose(p, box, NONE, "boundary")
    assert found is not None and found.xy[0] in (10, 11)
    flat = np.full((1, 1, 20), 0.5)
    apart = propose(flat, box, np.array([[3, 0]]), "diverse")
    assert apart is not None and apart.xy == (19, 0)
    assert propose(flat, box, NONE, "diverse").xy == (0, 0)  # type: ignore[union-attr]


def test_among_the_top() -> None:
    """Uniform among the wished share, of equal ones at its end the first by rows."""
    p = 0.5 + np.arange(20).reshape(1, 1, 20) / 40
    box, options = (0, 0, 20, 1), Options(share=0.25)
    known = np.array([[1, 0]])
    seen = [
        propose(p, box, known, "topk_random", np.random.default_rng(i), options).xy[0]  # type: ignore[union-attr]
        for i in range(200)
    ]
    assert set(seen) == {0, 2, 3, 4, 5} and min(map(seen.count, set(seen))) > 20
    flat = np.full((1, 1, 20), 0.5)
    seen = [
        propose(flat, box, known, "topk_random", np.random.default_rng(i), options).xy[0]  # type: ignore[union-attr]
        for i in range(60)
    ]
    assert set(seen) == {0, 2, 3, 4, 5}


def test_only_the_box_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """By construction: what a strategy is given and gives back has the size of the box."""
    sizes = []
    plain = strategies.uncertainty

    def watched(p: np.ndarray, measure: str) -> np.ndarray:
        sizes.append(p.shape)
        return plain(p, measure)

    monkeypatch.setattr(strategies, "uncertainty", watched)
    for strategy in (*MEASURES, "boundary", "diverse", "topk_random"):
        found = propose(maps(), BOX, NONE, strategy, random.Random(0))
        assert found is not None and found.map.shape == (5, 7)
    assert set(sizes) == {(3, 5, 7)}
    with pytest.raises(ValueError, match="are 30 x 20 pixels, expected 7 x 5"):
        propose(np.zeros((2, 20, 30)), BOX, NONE, "entropy")


@pytest.mark.parametrize(
    ("box", "pixels"),
    [
        ((1.9, 2.2, 7.9, 5.0), (1, 2, 7, 5)),
        ((4.0, 4.0, 4.0, 9.0), (4, 4, 5, 6)),  # of no width: the released code takes any pixel
        ((9.99, 5.99, 10.0, 6.0), (9, 5, 10, 6)),  # at the picture's corner
        ((-5.0, -5.0, 99.0, 99.0), (0, 0, 10, 6)),
        ((50.0, 50.0, 60.0, 60.0), (9, 5, 10, 6)),
        ((-9.0, -9.0, -5.0, -5.0), (0, 0, 1, 1)),
        ((7, 3, 2, 1), (7, 3, 8, 4)),
    ],
)
def test_a_box_has_a_pixel_of_the_picture(box: tuple, pixels: tuple) -> None:
    assert pixel_box(box, 6, 10) == pixels


@pytest.mark.parametrize("box", [(0.0, 1.0, float("nan"), 3.0), (0.0, float("inf"), 1.0, 2.0)])
def test_a_box_of_no_numbers(box: tuple) -> None:
    with pytest.raises(ValueError, match="not four numbers"):
        pixel_box(box, 6, 10)
    with pytest.raises(ValueError, match="10 x 0 pixels"):
        pixel_box((0.0, 0.0, 1.0, 1.0), 0, 10)


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(ValueError, match="there are random, centre, entropy"):
        propose.__wrapped__(maps(), BOX, NONE, "entropie")  # type: ignore[attr-defined]
    for bad in (np.nan, -0.1, 1.1):
        with pytest.raises(ValueError, match="not all from 0 to 1"):
            propose(np.full((1, 5, 7), bad), BOX, NONE, "entropy")
    for strategy in strategies.DRAWN:
        with pytest.raises(ValueError, match=r"needs a generator \(rng\)"):
            propose(maps(), BOX, NONE, strategy)
    with pytest.raises(ValueError, match="needs a generator"):
        propose(maps(count=0), BOX, NONE, "entropy")
    with pytest.raises(ValueError, match="share must be above 0"):
        Options(share=0.0)
    with pytest.raises(ValueError, match="near must be above 0"):
        Options(near=-1.0)
