"""LDC's peers: each on numbers worked out another way, and the promises that all heads make."""

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.stats import multivariate_normal
from torch.nn import functional

from tenfold.systems.ldc import baselines
from tenfold.systems.ldc.heads import Base, statistics

BASE, DIM, BETA = 4, 6, 0.5


def pictures(classes: range, shot: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Features around a centre of each class, none below zero, as after a ReLU."""
    random = torch.Generator().manual_seed(seed)
    centres = torch.rand(20, DIM, generator=torch.Generator().manual_seed(99)) * 2
    labels = torch.tensor(classes).repeat_interleave(shot)
    noise = torch.randn(len(labels), DIM, generator=random) * 0.15
    return (centres[labels] + noise).clamp(min=0), labels


def base_of(beta: float = 1.0) -> Base:
    features, labels = pictures(range(BASE), 12)
    return statistics(features.pow(beta), labels)


def free_lunch(seed: int = 0, samples: int = 40, k: int = 2) -> baselines.FreeLunch:
    return baselines.FreeLunch(base_of(BETA), seed, BETA, k, samples=samples, base_samples=samples)


HEADS: dict[str, Callable[[], baselines.Baseline]] = {
    "ncm": lambda: baselines.Ncm(base_of()),
    "ncm centred": lambda: baselines.Ncm(base_of(), centred=True),
    "lda": lambda: baselines.Lda(base_of()),
    "teen": lambda: baselines.Teen(base_of()),
    "fine-tune": lambda: baselines.FineTune(base_of(), steps=20),
    "free lunch": free_lunch,
}
SESSIONS = [pictures(range(4, 7), 5, 1), pictures(range(7, 8), 1, 2), pictures(range(8, 10), 3, 3)]
TEST = pictures(range(10), 8, 4)


@pytest.fixture(params=HEADS)
def make(request) -> Callable[[], baselines.Baseline]:
    return HEADS[request.param]


def test_every_head_learns_sessions(make):
    head, known = make(), BASE
    for features, labels in SESSIONS:
        head.learn(features, labels)
        known += len(labels.unique())
        logits = head.logits(TEST[0])
        assert logits.shape == (len(TEST[0]), known) and bool(logits.isfinite().all())
    right = (logits.argmax(1) == TEST[1]).float()
    assert right[TEST[1] >= BASE].mean() > 0.5  # chance: 0.1


def test_a_restored_head_goes_on_as_the_first(make):
    first = make()
    first.learn(*SESSIONS[0])
    state = first.state()
    kept = copy.deepcopy(state)
    first.learn(*SESSIONS[1])
    assert all(torch.equal(state[name], kept[name]) for name in kept)  # a copy, not a window
    second = make()
    second.restore(state)
    second.learn(*SESSIONS[1])
    assert all(torch.equal(state[name], kept[name]) for name in kept)
    assert torch.equal(first.logits(TEST[0]), second.logits(TEST[0]))
    first.restore(kept)  # back to fewer classes
    assert first.logits(TEST[0]).shape[1] == 7


def test_learning_repeats_and_works_where_gradients_are_off(make):
    one, two = make(), make()
    features, labels = SESSIONS[2]
    for head in (one, two):
        head.learn(*SESSIONS[0])
        head.learn(*SESSIONS[1])
    with torch.inference_mode():
        one.learn(features.clone(), labels.clone())
    two.learn(features, labels)
    assert torch.equal(one.logits(TEST[0]), two.logits(TEST[0]))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([5, 5, 6], r"must be the next classes, 4, 5, .*got \[5, 6\]"),
        ([4, 6, 6], r"got \[4, 6\]"),
        ([3, 4, 4], r"got \[3, 4\]"),
        ([], r"got \[\]"),
    ],
)
def test_labels_must_be_the_next_classes(make, labels, message):
    head = make()
    with pytest.raises(ValueError, match=message):
        head.learn(torch.rand(len(labels), DIM), torch.tensor(labels, dtype=torch.int64))
    assert head.logits(TEST[0]).shape[1] == BASE


def test_bad_features(make):
    head = make()
    with pytest.raises(ValueError, match="have 5 numbers, but those of the base classes 6"):
        head.learn(torch.rand(2, 5), torch.tensor([4, 5]))
    features = torch.rand(2, DIM)
    features[1, 2] = torch.nan
    with pytest.raises(ValueError, match="the first of class 5"):
        head.learn(features, torch.tensor([4, 5]))


def test_states_that_do_not_fit(make):
    head = make()
    state = head.state()
    with pytest.raises(ValueError, match="the saved head holds"):
        head.restore({**state, "more": torch.zeros(1)})
    for wrong in (state["vectors"][:, 1:], state["vectors"].double(), state["vectors"][1:]):
        with pytest.raises(ValueError, match="vectors of the saved head is"):
            head.restore({**state, "vectors": wrong})


def test_ncm_is_the_cosine_to_class_means():
    features, labels = SESSIONS[0]
    for centred in (False, True):
        head = baselines.Ncm(base_of(), centred=centred)
        head.learn(features, labels)
        means = base_of().means.numpy()
        centre = means.mean(0) if centred else np.zeros(DIM)
        new = [features[labels == c].double().mean(0).numpy() for c in range(4, 7)]
        vectors = np.concatenate([means, new]) - centre
        x = TEST[0].numpy() - centre
        lengths = np.linalg.norm(x, axis=1)[:, None] * np.linalg.norm(vectors, axis=1)
        np.testing.assert_allclose(head.logits(TEST[0]), 16 * x @ vectors.T / lengths, atol=1e-4)


def test_lda_is_the_likelihood_of_gaussians_with_one_covariance():
    base = base_of()
    head = baselines.Lda(base, 0.5)
    head.learn(*SESSIONS[0])
    sigma = base.covariance.numpy() + 0.5 * np.trace(base.covariance) / DIM * np.eye(DIM)
    vectors = head.state()["vectors"].numpy()
    logs = np.stack([multivariate_normal(m, sigma).logpdf(TEST[0].numpy()) for m in vectors], 1)
    got = head.logits(TEST[0]).softmax(1)
    np.testing.assert_allclose(got, functional.softmax(torch.from_numpy(logs), 1), atol=1e-4)


def test_lda_with_a_singular_covariance():
    base = statistics(torch.ones(8, DIM), torch.arange(4).repeat(2))
    with pytest.raises(ValueError, match="singular with shrinkage 1.0"):
        baselines.Lda(base).logits(TEST[0])


def test_teen_moves_new_prototypes_towards_similar_base_ones():
    features, labels = pictures(range(4, 5), 5)
    base = base_of().means
    unit = base / base.norm(dim=1, keepdim=True)
    mean = features.double().mean(0)
    mean = mean / mean.norm()
    weights = torch.exp(16 * unit @ mean)
    pull = (weights[:, None] * unit).sum(0)
    for alpha in (0.0, 0.5):
        head = baselines.Teen(base_of(), alpha)
        head.learn(features, labels)
        want = (1 - alpha) * mean + alpha * pull / pull.norm()
        torch.testing.assert_close(head.state()["vectors"][4], want.float())
    old = head.state()["vectors"].clone()
    head.learn(*pictures(range(5, 6), 1))
    assert torch.equal(head.state()["vectors"][:5], old)
    other = baselines.Teen(base_of())  # an earlier session's class has no pull
    other.learn(*pictures(range(4, 5), 1, 5))
    other.learn(*pictures(range(5, 6), 1))
    assert torch.equal(head.state()["vectors"][5], other.state()["vectors"][5])


@pytest.mark.parametrize("dampening", [0.0, 0.9])
def test_fine_tuning_is_sgd_with_momentum_on_the_new_photos(dampening):
    features, labels = SESSIONS[0]
    head = baselines.FineTune(base_of(), 0.1, 0.9, dampening, steps=7)
    head.learn(features, labels)
    new = torch.stack([features[labels == c].mean(0) for c in range(4, 7)])
    vectors, speed = torch.cat([base_of().means.float(), new]), torch.zeros(7, DIM)
    for step in range(7):
        vectors.requires_grad_()
        unit = vectors / vectors.norm(dim=1, keepdim=True)
        logits = 16 * features / features.norm(dim=1, keepdim=True) @ unit.T
        (gradient,) = torch.autograd.grad(functional.cross_entropy(logits, labels), vectors)
        speed = 0.9 * speed + (1 - dampening if step else 1.0) * gradient  # torch: not the first
        vectors = (vectors - 0.1 * speed).detach()
    torch.testing.assert_close(head.state()["vectors"], vectors, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(vectors[:BASE], base_of().means.float(), atol=1e-3)  # base moves too


def test_gaussian_samples_have_the_calibrated_moments():
    base = base_of(BETA)
    random = torch.Generator().manual_seed(0)
    leans = torch.tensor([1, 3])
    want = (base.covariances[1] + base.covariances[3]) / 2 + 0.21
    covariance = baselines.calibrated_covariance(base.covariances[leans], 0.21)
    torch.testing.assert_close(covariance, want)
    drawn = baselines.gaussian(base.means[0], covariance, 40_000, random)
    torch.testing.assert_close(drawn.mean(0), base.means[0].float(), rtol=0, atol=0.015)
    torch.testing.assert_close(drawn.T.cov(), want.float(), rtol=0, atol=0.01)
    flat = baselines.gaussian(base.means[0], torch.zeros(DIM, DIM).double(), 3, random)
    torch.testing.assert_close(flat, base.means[0].float().expand(3, -1), rtol=0, atol=1e-4)


def test_logistic_regression_finds_the_minimum(monkeypatch):
    features, labels = pictures(range(5), 30)
    features = torch.cat([features, torch.full((len(features), 1), 0.7)], 1)  # a constant feature
    monkeypatch.setattr(baselines, "ROWS", 64)  # the last part is short
    x = torch.cat([features, torch.ones(len(features), 1)], 1).double()

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = torch.tensor(flat, requires_grad=True)
        square = weights.view(5, -1)[:, :-1].square().sum()
        loss = functional.cross_entropy(x @ weights.view(5, -1).T, labels)
        (loss + square / (2 * len(x))).backward()
        return float((loss + square / (2 * len(x))).detach()), weights.grad.numpy()

    start = (torch.zeros(5, DIM + 1), torch.zeros(5))
    weights, bias = baselines.logistic_regression(features, labels, start, 1000)
    found = torch.cat([weights, bias[:, None]], 1).double().flatten().numpy()
    loss, slope = objective(found)
    best = minimize(objective, np.zeros_like(found), method="L-BFGS-B", jac=True)
    assert best.fun < loss < best.fun + 1e-4
    assert np.abs(slope).max() < 1e-3
    again, _ = baselines.logistic_regression(features, labels, (weights, bias), 1000)
    torch.testing.assert_close(again, weights, rtol=0, atol=1e-2)


def test_free_lunch_samples_and_what_it_keeps(monkeypatch):
    seen = []
    fit = baselines.logistic_regression

    def spied(samples, labels, start, iterations):
        seen.append((samples, labels))
        return fit(samples, labels, start, iterations)

    monkeypatch.setattr(baselines, "logistic_regression", spied)
    head = free_lunch(samples=40)
    head.learn(*SESSIONS[0])  # three classes, five photos each
    head.learn(*SESSIONS[1])  # one class, one photo
    assert torch.bincount(seen[0][1]).tolist() == [40] * 4
    assert torch.bincount(seen[1][1]).tolist() == [40] * 4 + [40 + 5] * 3
    assert torch.bincount(seen[2][1]).tolist() == [40] * 7 + [40 + 1]
    torch.testing.assert_close(seen[1][0][:15], SESSIONS[0][0].double().sqrt().float())
    assert not torch.equal(seen[0][0][:40], seen[1][0][15:55])  # drawn anew in each session
    photo = SESSIONS[0][0][0].double().sqrt()
    base = base_of(BETA).means
    near = (base - photo).norm(dim=1).argsort()[:2]
    state = head.state()
    assert sorted(state["photo_leans"][0].tolist()) == sorted(near.tolist())
    torch.testing.assert_close(state["photo_means"][0], (base[near].sum(0) + photo) / 3)
    other = free_lunch(seed=1, samples=40)
    assert not torch.equal(other.state()["vectors"], free_lunch(0, 40).state()["vectors"])


def test_free_lunch_refuses():
    with pytest.raises(ValueError, match=r"must be 1 to 4 \(the base classes\), got 5"):
        free_lunch(k=5)
    with pytest.raises(ValueError, match="of at least 1 and alpha of at least 0, got 0, 0, 1000"):
        free_lunch(samples=0)
    with pytest.raises(ValueError, match="features from -1 on"):
        free_lunch().logits(torch.full((1, DIM), -1.0))
    with pytest.raises(ValueError, match="got beta 0"):
        baselines.tukey(TEST[0], 0)
    with pytest.raises(ValueError, match="alpha of TEEN must be between 0 and 1, got 2"):
        baselines.Teen(base_of(), 2)
    with pytest.raises(ValueError, match="shrinkage of LDA must not be negative, got -1"):
        baselines.Lda(base_of(), -1)


def test_one_base_class_and_other_widths():
    for dim in (1, 33):
        random = torch.Generator().manual_seed(0)
        means, covariance = torch.rand(1, dim, generator=random), torch.eye(dim).double() / 10
        count = torch.tensor([9])
        base = Base(means.double(), covariance, means, covariance[None], count)
        photo = torch.rand(1, dim, generator=random)
        for head in (
            baselines.Ncm(base),
            baselines.Lda(base),
            baselines.Teen(base),
            baselines.FineTune(base),
            baselines.FreeLunch(base, 0, k=1, samples=20, base_samples=20),
        ):
            head.learn(photo, torch.tensor([1]))
            assert bool(head.logits(photo).isfinite().all())
