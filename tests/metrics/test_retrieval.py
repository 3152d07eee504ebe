"""Ranks of retrieval: by sorting, with equal similarities, in parts; what is no retrieval."""

from __future__ import annotations

import numpy as np
import pytest

from tenfold.metrics import retrieval


def by_sorting(row: np.ndarray, own: np.ndarray) -> int:
    order = np.argsort(-row, kind="stable")
    return int(np.flatnonzero(np.isin(order, own))[0])


@pytest.mark.parametrize("cells", [2**24, 7])
def test_ranks_are_places_in_a_stable_order(monkeypatch: pytest.MonkeyPatch, cells: int) -> None:
    monkeypatch.setattr(retrieval, "CELLS", cells)
    random = np.random.default_rng(0)
    similarity = random.integers(0, 4, (9, 25)) / 4  # many are equal
    owners = np.concatenate([np.arange(9), random.integers(0, 9, 16)])  # of unequal numbers
    found = retrieval.image_to_text_ranks(similarity, owners)
    want = [by_sorting(row, np.flatnonzero(owners == i)) for i, row in enumerate(similarity)]
    assert found.tolist() == want
    found = retrieval.text_to_image_ranks(similarity, owners)
    assert found.tolist() == [by_sorting(c, owners[[i]]) for i, c in enumerate(similarity.T)]


def test_numbers_of_a_perfect_and_of_a_flat_similarity() -> None:
    owners = np.repeat(np.arange(20), 5)
    perfect = (owners == np.arange(20)[:, None]).astype(np.float32)
    found = retrieval.retrieval(perfect, owners)
    assert found["rsum"] == 600 and found["i2t/median"] == found["t2i/median"] == 1
    flat = retrieval.retrieval(np.zeros((20, 100)), owners)
    assert flat["t2i/R@1"] == 5 and flat["t2i/R@10"] == 50 and flat["i2t/R@10"] == 10


def test_what_cannot_be_ranked() -> None:
    with pytest.raises(ValueError, match="image 1 has no caption"):
        retrieval.image_to_text_ranks(np.zeros((2, 2)), np.array([0, 0]))
    with pytest.raises(ValueError, match="images 0 to 1, got 0 to 2"):
        retrieval.text_to_image_ranks(np.zeros((2, 2)), np.array([0, 2]))
    with pytest.raises(ValueError, match="2 captions with 3 owners"):
        retrieval.text_to_image_ranks(np.zeros((2, 2)), np.array([0, 1, 1]))
    with pytest.raises(ValueError, match="image 1 with caption 0 is not finite"):
        retrieval.retrieval(np.array([[0.0, 1.0], [np.nan, 2.0]]), np.array([0, 1]))
