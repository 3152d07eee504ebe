"""Pseudo labels, their weights, and the distance of features, against hand-made numbers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tenfold.systems.dts import groups, loss


def test_quality_counts_sure_pixels_of_the_batch_the_image_or_alone() -> None:
    sure = torch.tensor([[[0.99, 0.5]], [[0.99, 0.99]]])
    assert loss.quality(sure, 0.968).flatten().tolist() == [0.75] * 4
    of_image = loss.quality(sure, 0.968, "image")
    assert of_image[:, 0, 0].tolist() == [0.5, 1.0] and of_image.shape == sure.shape
    assert loss.quality(sure, 0.968, "pixel").flatten().tolist() == [1, 0, 1, 1]


def test_border_leaves_out_margins_even_where_they_meet() -> None:
    inside = loss.border(6, 5, (1, 2, 0, 1))
    assert inside.sum() == 3 * 4 and not inside[0].any() and not inside[:, -1].any()
    assert not loss.border(4, 4, (3, 3, 0, 0)).any()


def test_distance_is_zero_without_a_thing() -> None:
    features = torch.randn(1, 3, 2, 2, requires_grad=True)
    empty = torch.zeros(1, 1, 2, 2, dtype=torch.bool)
    distance = loss.feature_distance(features, torch.zeros(1, 3, 2, 2), empty)
    distance.backward()
    assert distance == 0 and not features.grad.any()


def test_distance_is_the_mean_over_masked_cells() -> None:
    features, mask = torch.zeros(1, 2, 1, 2), torch.tensor([[[[True, False]]]])
    features[0, :, 0, 0] = torch.tensor([3.0, 4.0])
    features[0, :, 0, 1] = 100
    assert loss.feature_distance(features, torch.zeros_like(features), mask) == 5


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.3, 0.75, 1.0]))
def test_coarse_labels_equal_a_count(seed: int, least: float) -> None:
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 4, (2, 8, 8), generator=draw).byte()
    labels[labels == 3] = 255
    labels[0, :4, :4] = 1
    found = loss.coarse_labels(labels, 4, 3, least)
    for image in range(2):
        for row in range(2):
            for column in range(2):
                cell = labels[image, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
                counts = torch.stack([(cell == k).sum() for k in (0, 1, 2, 255)])
                best = int(counts.argmax())
                is_sure = counts[best] >= least * 16 and best < 3
                assert found[image, 0, row, column] == (best if is_sure else 255)


@pytest.mark.parametrize("provider", groups.TEACHERS)
def test_providers_name_teachers_of_both_groups(provider: loss.Provider) -> None:
    probabilities = {1: torch.full((1, 2, 1, 1), 0.2), 2: torch.full((1, 2, 1, 1), 0.6)}
    means = {
        group: float(groups.averaged([probabilities[t] for t in teachers])[0, 0])
        for group, teachers in groups.TEACHERS[provider].items()
    }
    expected = {
        "own": (0.2, 0.6), "cross": (0.6, 0.2), "mean": (0.4, 0.4), "1to2": (0.2, 0.2),
        "2to1": (0.6, 0.6),
    }  # fmt: skip
    assert (means[1], means[2]) == pytest.approx(expected[provider])


def test_pasting_takes_weights_along() -> None:
    above = groups.Pass(torch.ones(1, 3, 1, 3), torch.tensor([[[1, 2, 255]]]).byte(),
                        torch.tensor([[[0.5, 0.25, 0.0]]]))  # fmt: skip
    below = groups.Pass(torch.zeros(1, 3, 1, 3), torch.tensor([[[7, 7, 7]]]).byte(),
                        torch.full((1, 1, 3), 0.125))  # fmt: skip
    chosen = torch.zeros(1, 256, dtype=torch.bool)
    chosen[0, 2] = True
    found = groups.pasted(above, below, chosen)
    assert found.labels.tolist() == [[[7, 2, 7]]]
    assert found.weights.tolist() == [[[0.125, 0.25, 0.125]]]
    assert found.images[0, 0].tolist() == [[0, 1, 0]]
