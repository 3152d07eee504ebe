"""Affinity networks: losses against loops, confident labels, and that training separates."""

from __future__ import annotations

import math

import pytest
import torch

from tenfold.systems.usage import affinity, random_walk


def loop(pair_affinity, labels: torch.Tensor, radius: int) -> list[float]:
    """Mean costs of background, class and unlike pairs, pair by pair."""
    costs: list[list[float]] = [[], [], []]
    rows, columns = labels.shape
    places = [(y, x) for y in range(rows) for x in range(columns)]
    for i, (y, x) in enumerate(places):
        for v, u in places[i + 1 :]:
            one, other = int(labels[y, x]), int(labels[v, u])
            if (v - y) ** 2 + (u - x) ** 2 >= radius**2 or 255 in (one, other):
                continue
            found = pair_affinity(y, x, v, u)
            if one == other:
                costs[int(one > 0)].append(-math.log(found + 1e-5))
            else:
                costs[2].append(-math.log(1 + 1e-5 - found))
    return [sum(kind) / (len(kind) + 1e-5) for kind in costs]


LABELS = torch.tensor(
    [[0, 0, 1, 1, 255], [0, 0, 1, 2, 2], [255, 0, 1, 2, 2], [0, 0, 0, 0, 2]], dtype=torch.uint8
)


def test_losses_are_the_loops() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(1, 3, 4, 5, generator=generator)

    def by_features(y: int, x: int, v: int, u: int) -> float:
        return math.exp(-float((features[0, :, y, x] - features[0, :, v, u]).abs().mean()))

    background, foreground, unlike = loop(by_features, LABELS, 3)
    found = affinity.psa_loss(features, LABELS[None], 3)
    assert float(found) == pytest.approx(background / 4 + foreground / 4 + unlike / 2, rel=1e-5)

    logits = torch.randn(1, 4, 5, generator=generator)
    boundary = logits[0].sigmoid()

    def by_path(y: int, x: int, v: int, u: int) -> float:
        between = [boundary[y + b, x + a] for b, a in random_walk.path((v - y, u - x))]
        return 1 - float(max(between))

    background, foreground, unlike = loop(by_path, LABELS, 4)
    found = affinity.irn_loss(logits, LABELS[None], 4)
    assert float(found) == pytest.approx((background / 2 + foreground / 2 + unlike) / 2, rel=1e-5)


def test_without_sure_pairs_there_is_no_loss() -> None:
    nothing = torch.full((1, 4, 5), 255, dtype=torch.uint8)
    assert float(affinity.psa_loss(torch.randn(1, 3, 4, 5), nothing)) == 0
    assert float(affinity.irn_loss(torch.randn(1, 4, 5), nothing)) == 0


@pytest.mark.parametrize("kind", ["psa", "irn"])
def test_training_separates_what_the_labels_separate(kind: str) -> None:
    torch.manual_seed(0)
    labels = torch.zeros(1, 8, 10, dtype=torch.uint8)
    labels[:, :, 5:] = 1
    side = (labels.float() - 0.5)[:, None]
    edge = torch.zeros(1, 1, 8, 10)
    edge[..., 4:6] = 1
    levels = [torch.cat([side, edge, torch.randn(1, 2, 8, 10)], 1), torch.randn(1, 3, 4, 5)]
    network, loss = {
        "psa": (affinity.AffinityNetwork([4, 3], [8, 4]), affinity.psa_loss),
        "irn": (affinity.BoundaryNetwork([4, 3], [8, 4]), affinity.irn_loss),
    }[kind]
    optimizer = torch.optim.Adam(network.parameters(), 0.05)
    first = float(loss(network(levels), labels, 4).detach())
    for _ in range(25):
        optimizer.zero_grad()
        value = loss(network(levels), labels, 4)
        value.backward()
        optimizer.step()
    assert float(value.detach()) < 0.5 * first
    assert all(p.grad is not None for p in network.parameters())
    maps = torch.zeros(1, 8, 10)
    maps[0, 3, 7] = 1
    with torch.no_grad():
        found = network(levels)[0]
        if kind == "psa":
            walked = random_walk.psa(found, maps, stride=1)[1]
        else:
            walked = random_walk.irn(found.sigmoid(), maps)[0]
    assert float(walked[:, 6:].mean()) > 5 * float(walked[:, :4].mean())


@pytest.mark.parametrize("form", ["psa", "irn"])
def test_confident_labels_of_a_disc(form: str) -> None:
    y, x = torch.meshgrid(torch.arange(30.0), torch.arange(34.0), indexing="ij")
    far = ((y - 15).square() + (x - 17).square()).sqrt()
    image = (60 + 120 * (far < 8)[..., None].expand(30, 34, 3)).to(torch.uint8)
    maps = torch.stack([torch.zeros(30, 34), (1 - far / 13).clamp(0, 1)])
    options = affinity.Confident(form, low_alpha=1.0)  # type: ignore[arg-type]
    labels = affinity.labels_from(image, maps, options, stride=4)
    assert labels.shape == (8, 9) and set(labels.unique().tolist()) <= {0, 2, 255}
    assert int(labels[3, 4]) == 2 and int(labels[0, 0]) == 0
    none = affinity.labels_from(image, maps * 0, options, stride=4)
    assert none.shape == (8, 9) and set(none.unique().tolist()) == {0}


def test_bad_options_are_named() -> None:
    with pytest.raises(ValueError, match="low_alpha must be above 0 and at most high_alpha"):
        affinity.Confident(low_alpha=40.0)
    with pytest.raises(ValueError, match="background must be from 0 to foreground"):
        affinity.Confident(background=0.5)
    with pytest.raises(ValueError, match="2 levels, but 3 widths"):
        affinity.AffinityNetwork([8, 8])
    with pytest.raises(ValueError, match="multiples of 4"):
        affinity.BoundaryNetwork([8], [6])
